//! The columns being filled: those that programs write, and the engine's own beside them.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, new_null_array},
    datatypes::{DataType, SchemaRef},
};
use siltstone_protocol::{RejectReason, Schema};

use super::{
    event_type::EventTypeColumn,
    kafka::{KAFKA_COLUMN, Metadata},
};
use crate::{
    IngestError, Record,
    columns::{Columns, Mark, arrow_schema},
};

/// The batch is measured anew when it may have grown by this much.
const MEASURE_BYTES: usize = 256 << 10;
/// What a row may take in each column beside its payload, bytes.
const COLUMN_BYTES: usize = 16;

/// The columns being filled.
pub(super) struct Batch {
    pub(super) schema: Schema,
    /// The schema without the engine's own columns.
    pub(super) body: Schema,
    pub(super) columns: Columns,
    /// The engine's own columns, and their positions among the table's.
    metadata: Option<(usize, Metadata)>,
    event_type: Option<(usize, EventTypeColumn)>,
    /// Those of them that no record has, and that are null.
    absent: Vec<(usize, DataType)>,
    arrow: SchemaRef,
    pub(super) has_required: bool,
    pub(super) measured: usize,
    pub(super) unmeasured: usize,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("rows", &self.columns.rows()).finish_non_exhaustive()
    }
}

impl Batch {
    /// `topic`: when the table wants record coordinates; `event_type`: the column for the names of types; `absent`:
    /// columns that are null whatever the records hold.
    pub(super) fn new(
        schema: Schema,
        topic: Option<&str>,
        event_type: Option<&str>,
        absent: &[String],
    ) -> Result<Self, IngestError> {
        let position = |name: &str| schema.fields.iter().position(|field| field.name == name);
        let arrow = arrow_schema(&schema)?;
        let absent = absent.iter().filter_map(|name| position(name));
        let absent: Vec<(usize, DataType)> =
            absent.map(|at| (at, arrow.field(at).data_type().clone())).collect();
        let metadata = match topic.zip(position(KAFKA_COLUMN)) {
            Some((topic, at)) => Some((at, Metadata::new(&schema.fields[at], topic)?)),
            None => None,
        };
        let event_type = match event_type.and_then(position) {
            Some(at) => Some((at, EventTypeColumn::new(&schema.fields[at])?)),
            None => None,
        };
        let made = [metadata.as_ref().map(|(at, _)| *at), event_type.as_ref().map(|(at, _)| *at)];
        let own: Vec<usize> = made.into_iter().flatten().chain(absent.iter().map(|(at, _)| *at)).collect();
        let mut body = schema.clone();
        let mut at = 0..;
        body.fields.retain(|_| at.next().is_none_or(|at| !own.contains(&at)));
        Ok(Self {
            columns: Columns::new(&body)?,
            arrow,
            has_required: body.fields.iter().any(|field| field.required),
            schema,
            body,
            metadata,
            event_type,
            absent,
            measured: 0,
            unmeasured: 0,
        })
    }

    /// Names of the columns that are null whatever the records hold.
    pub(super) fn absent(&self) -> Vec<String> {
        let fields = self.absent.iter().filter_map(|(at, _)| self.schema.fields.get(*at));
        fields.map(|field| field.name.clone()).collect()
    }

    pub(super) fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// What programs write of a schema with this batch's columns: those but the engine's own.
    pub(super) fn body_of(&self, mut schema: Schema) -> Schema {
        let own = [self.metadata.as_ref().map(|(at, _)| *at), self.event_type.as_ref().map(|(at, _)| *at)];
        let mut position = 0..;
        schema.fields.retain(|_| !own.contains(&position.next()));
        schema
    }

    /// Completes a row with the engine's own columns, which are as before when one cannot take it.
    #[inline]
    pub(super) fn add_own(
        &mut self,
        record: &Record<'_>,
        name: Option<&str>,
        mark: Mark,
    ) -> Result<(), RejectReason> {
        if let Some((_, event_type)) = &mut self.event_type {
            event_type.push(name)?;
        }
        let Some((_, metadata)) = &mut self.metadata else { return Ok(()) };
        metadata.push(record).inspect_err(|_| {
            if let Some((_, event_type)) = &mut self.event_type {
                event_type.rollback(mark);
            }
        })
    }

    #[inline]
    pub(super) fn grown(&mut self, payload: usize) {
        self.unmeasured += payload + COLUMN_BYTES * self.arrow.fields().len();
        if self.unmeasured >= MEASURE_BYTES {
            self.measured = self.columns.bytes()
                + self.metadata.as_ref().map_or(0, |(_, own)| own.bytes())
                + self.event_type.as_ref().map_or(0, |(_, own)| own.bytes());
            self.unmeasured = 0;
        }
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch, IngestError> {
        (self.measured, self.unmeasured) = (0, 0);
        let mut own: Vec<(usize, ArrayRef)> = Vec::new();
        if let Some((position, column)) = &mut self.metadata {
            own.push((*position, column.finish()?));
        }
        if let Some((position, column)) = &mut self.event_type {
            own.push((*position, column.finish()?));
        }
        let body = self.columns.finish()?;
        let absent = self.absent.iter();
        own.extend(absent.map(|(position, of)| (*position, new_null_array(of, body.num_rows()))));
        if own.is_empty() {
            return Ok(body);
        }
        let mut arrays: Vec<ArrayRef> = body.columns().to_vec();
        own.sort_unstable_by_key(|(position, _)| *position);
        for (position, array) in own {
            arrays.insert(position.min(arrays.len()), array);
        }
        RecordBatch::try_new(Arc::clone(&self.arrow), arrays)
            .map_err(|_| IngestError::internal("the engine's own columns do not fit the batch"))
    }
}
