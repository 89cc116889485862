//! The `_kafka` column: where a row came from.

use std::fmt;

use arrow::array::ArrayRef;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};

use crate::{
    IngestError, Record,
    columns::{Column, Columns, List},
};
use siltstone_spec::evolve::assign_ids;

/// Name of the column.
pub const KAFKA_COLUMN: &str = "_kafka";

/// The column as it is added to a table whose last field id is `last_id`.
///
/// Optional, so that it can be switched on and off for a table that has rows.
pub(super) fn kafka_field(mut last_id: i32) -> Field {
    let members = vec![
        Field::optional(0, "topic", PrimitiveType::String.into()),
        Field::required(0, "partition", PrimitiveType::Int.into()),
        Field::required(0, "offset", PrimitiveType::Long.into()),
        Field::optional(0, "timestamp", PrimitiveType::Timestamptz.into()),
        Field::optional(0, "key", PrimitiveType::Binary.into()),
        Field::optional(0, "headers", headers_type()),
    ];
    let mut field = Field::optional(0, KAFKA_COLUMN, Type::Struct(members));
    assign_ids(std::slice::from_mut(&mut field), &mut last_id);
    field
}

/// `list<struct<key, value>>`, ids still to be assigned.
pub(crate) fn headers_type() -> Type {
    let members = vec![
        Field::optional(0, "key", PrimitiveType::String.into()),
        Field::optional(0, "value", PrimitiveType::Binary.into()),
    ];
    Type::List { element_id: 0, element_required: true, element: Box::new(Type::Struct(members)) }
}

/// The builder of the column, apart from the others: decoders of record values do not know of it.
pub(super) struct Metadata {
    columns: Columns,
    topic: String,
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("rows", &self.columns.rows()).finish_non_exhaustive()
    }
}

/// The table's column of this name is not the one that this module makes.
const FOREIGN: RejectReason = RejectReason::IncompatibleSchema;

impl Metadata {
    pub(super) fn new(field: &Field, topic: &str) -> Result<Self, IngestError> {
        let expected = kafka_field(0);
        let same = |ours: &[Field], theirs: &[Field]| {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(a, b)| a.name == b.name && a.required == b.required)
        };
        match (&expected.data_type, &field.data_type) {
            (Type::Struct(ours), Type::Struct(theirs)) if same(ours, theirs) => {}
            _ => {
                let why =
                    "it is not the one that kafka_metadata adds; rename the field or turn kafka_metadata off";
                return Err(IngestError::invalid(format!("column {KAFKA_COLUMN}"), why));
            }
        }
        let columns = Columns::new(&Schema::new(0, vec![field.clone()]))?;
        Ok(Self { columns, topic: topic.to_owned() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), RejectReason> {
        let written = self.write(record);
        match written {
            Ok(()) => self.columns.end_row(),
            Err(_) => self.columns.rollback(self.columns.mark()),
        }
        written
    }

    fn write(&mut self, record: &Record<'_>) -> Result<(), RejectReason> {
        let [Column::Struct(builder)] = self.columns.columns() else { return Err(FOREIGN) };
        let [
            Column::Utf8(topic),
            Column::Int32(partition),
            Column::Int64(offset),
            Column::Int64(timestamp),
            Column::Binary(key),
            Column::List(headers),
        ] = builder.members()
        else {
            return Err(FOREIGN);
        };
        topic.push_str(&self.topic)?;
        partition.push(record.partition);
        offset.push(record.offset);
        match record.timestamp_ms.and_then(|ms| ms.checked_mul(1000)) {
            Some(micros) => timestamp.push(micros),
            None => timestamp.push_null(),
        }
        match record.key {
            Some(bytes) => key.push(bytes)?,
            None => key.push_null(),
        }
        push_headers(headers, record)?;
        builder.end();
        Ok(())
    }

    /// The finished column.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, IngestError> {
        let batch = self.columns.finish()?;
        batch.columns().first().cloned().ok_or_else(|| IngestError::internal("no metadata column"))
    }
}

/// The record's headers as one list, empty when there are none.
pub(crate) fn push_headers(list: &mut List, record: &Record<'_>) -> Result<(), RejectReason> {
    let Column::Struct(header) = list.items() else { return Err(FOREIGN) };
    for (name, content) in record.headers.iter() {
        let [Column::Utf8(key), Column::Binary(value)] = header.members() else { return Err(FOREIGN) };
        key.push_str(name)?;
        match content {
            Some(bytes) => value.push(bytes)?,
            None => value.push_null(),
        }
        header.end();
    }
    list.end()
}
