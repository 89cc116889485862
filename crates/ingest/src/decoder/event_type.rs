//! The column with the name of each record's type, for tables of several types.

use std::fmt;

use arrow::array::ArrayRef;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};

use crate::{
    IngestError,
    columns::{Column, Columns, Mark},
};

/// The column as it is added to a table whose last field id is `last_id`. Optional, so that it can be added to a table
/// that has rows.
pub(super) fn event_type_field(name: &str, last_id: i32) -> Field {
    Field::optional(last_id + 1, name, PrimitiveType::String.into())
}

/// The builder of the column, apart from the others: decoders of record values do not know of it.
pub(super) struct EventTypeColumn(Columns);

impl fmt::Debug for EventTypeColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTypeColumn").field("rows", &self.0.rows()).finish_non_exhaustive()
    }
}

impl EventTypeColumn {
    pub(super) fn new(field: &Field) -> Result<Self, IngestError> {
        if field.data_type != Type::Primitive(PrimitiveType::String) {
            let why = "it is no string; name another column in event_types";
            return Err(IngestError::invalid(format!("column {}", field.name), why));
        }
        Columns::new(&Schema::new(0, vec![field.clone()])).map(Self)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub(super) fn push(&mut self, name: Option<&str>) -> Result<(), RejectReason> {
        let [Column::Utf8(column)] = self.0.columns() else { return Err(RejectReason::IncompatibleSchema) };
        match name {
            Some(name) => column.push_str(name)?,
            None => column.push_null(),
        }
        self.0.end_row();
        Ok(())
    }

    /// Takes rows back that have no record.
    pub(super) fn rollback(&mut self, mark: Mark) {
        self.0.rollback(mark);
    }

    /// The finished column.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, IngestError> {
        let batch = self.0.finish()?;
        batch.columns().first().cloned().ok_or_else(|| IngestError::internal("no event type column"))
    }
}
