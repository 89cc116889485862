//! The document as a catalog serves it: written by the catalog, with what it numbers and dates itself.

use serde::Deserialize;
use serde_json::Value;
use siltstone_protocol::{PartitionSpec, Schema, SortOrder};

use super::{Metadata, layout_id};
use crate::error::LakeError;

impl Metadata {
    /// Reads a document that a catalog serves.
    pub(crate) fn parse_served(subject: &str, bytes: &[u8]) -> Result<Self, LakeError> {
        let mut metadata = Self::parse(subject, bytes)?;
        metadata.not_before_ms = Some(metadata.last_updated_ms);
        for schema in metadata.schemas.iter_mut().filter_map(Value::as_object_mut) {
            // Some catalogs write down that there are none.
            if schema.get("identifier-field-ids").and_then(Value::as_array).is_some_and(Vec::is_empty) {
                schema.remove("identifier-field-ids");
            }
        }
        Ok(metadata)
    }

    /// True when every layout of `wanted` is here under its id, and the same ones are current.
    ///
    /// # Errors
    /// The kind of layout that is not.
    pub(crate) fn has_layouts_of(&self, wanted: &Self) -> Result<(), &'static str> {
        let same = |a: &[Value], b: &[Value], key: &str, alike: fn(&Value, &Value) -> bool| {
            b.iter().all(|b| a.iter().any(|a| layout_id(a, key) == layout_id(b, key) && alike(a, b)))
        };
        if self.current_schema_id != wanted.current_schema_id
            || !same(&self.schemas, &wanted.schemas, "schema-id", alike::<Schema>)
        {
            return Err("a schema");
        }
        if self.default_spec_id != wanted.default_spec_id
            || !same(&self.partition_specs, &wanted.partition_specs, "spec-id", alike::<PartitionSpec>)
        {
            return Err("a partition spec");
        }
        if self.default_sort_order_id != wanted.default_sort_order_id
            || !same(&self.sort_orders, &wanted.sort_orders, "order-id", alike::<SortOrder>)
        {
            return Err("a sort order");
        }
        Ok(())
    }

    /// Dates snapshots no earlier than this, in their order: a new table is as old as its catalog says.
    pub(crate) fn date_from(&mut self, floor_ms: i64) {
        let mut floor_ms = floor_ms;
        for snapshot in &mut self.snapshots {
            snapshot.timestamp_ms = snapshot.timestamp_ms.max(floor_ms);
            floor_ms = snapshot.timestamp_ms.saturating_add(1);
        }
    }
}

/// Other programs' layouts may hold what ours do not know.
fn alike<T: for<'de> Deserialize<'de> + PartialEq>(a: &Value, b: &Value) -> bool {
    a == b || matches!((T::deserialize(a), T::deserialize(b)), (Ok(a), Ok(b)) if a == b)
}
