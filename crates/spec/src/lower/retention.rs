//! How long things are kept, and by which column a row's age is told.

use std::time::Duration;

use siltstone_protocol::{PrimitiveType, Schema, Transform, Type};

use super::{Lower, Place, table::KAFKA_TIMESTAMP};
use crate::{
    model::{PartitionBy, Retention, TableSpec},
    raw::RawRetention,
};

impl Lower<'_> {
    pub(super) fn retention(
        &mut self,
        raw: &RawRetention,
        partition_by: &[PartitionBy],
        kafka_metadata: bool,
        place: &Place<'_>,
    ) -> Retention {
        if raw.snapshots_min > raw.snapshots_max {
            self.fault(&place.key("snapshots_min"), "must not be larger than snapshots_max");
        }
        let is_time = |by: &&PartitionBy| {
            matches!(by.transform, Transform::Year | Transform::Month | Transform::Day | Transform::Hour)
        };
        let named = raw.rows_by.as_ref().map(|column| column.0.clone());
        let partition = || partition_by.iter().find(is_time).map(|by| by.column.clone());
        let rows_by = named.or_else(partition).or_else(|| kafka_metadata.then(|| KAFKA_TIMESTAMP.to_owned()));
        if raw.rows.is_some() && rows_by.is_none() {
            let message = "cannot tell how old a row is: name a column with rows_by, partition by a time, or set \
                           kafka_metadata: true";
            self.fault(&place.key("rows"), message);
        }
        if raw.rows.is_none() && raw.rows_by.is_some() {
            self.fault(&place.key("rows_by"), "is for rows, which is absent: rows stay for ever");
        }
        if raw.rows.is_none() && raw.rows_rewrite {
            self.fault(&place.key("rows_rewrite"), "is for rows, which is absent: rows stay for ever");
        }
        Retention {
            rows: raw.rows.map(|age| Duration::from_millis(age.0)),
            rows_by: rows_by.filter(|_| raw.rows.is_some()),
            rows_rewrite: raw.rows_rewrite && raw.rows.is_some(),
            snapshots: Duration::from_millis(raw.snapshots.0),
            snapshots_max: raw.snapshots_max,
            snapshots_min: raw.snapshots_min,
            orphans: Duration::from_millis(raw.orphans.0),
        }
    }

    /// With the columns at hand, what maintenance would refuse later is refused now.
    pub(super) fn retention_fits(&mut self, table: &TableSpec, schema: &Schema, place: &Place<'_>) {
        let Some(column) = table.retention.rows_by.as_deref() else { return };
        if column.split('.').next() == Some("_kafka") {
            return;
        }
        let is_time = |data_type: &Type| {
            let times = [PrimitiveType::Date, PrimitiveType::Timestamp, PrimitiveType::Timestamptz];
            matches!(data_type, Type::Primitive(primitive) if times.contains(primitive))
        };
        let at = place.key("retention").key("rows_by");
        match schema.field_at(column) {
            None => self.fault(&at, "input_schema has no such column"),
            Some(field) if !is_time(&field.data_type) => self.fault(&at, "is no date and no timestamp"),
            Some(_) => {}
        }
    }
}
