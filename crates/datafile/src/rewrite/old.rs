//! What a rewrite takes in: batches without their old rows, and a checksum of what is left.
//!
//! A row is old when its time lies before a moment; a row without a time never is. Row groups that are old as a
//! whole by their statistics are not read at all, and those with no old row may be copied as they are.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{DataType, Date32Type, TimestampMicrosecondType},
};
use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};
use siltstone_protocol::{FileEntry, PrimitiveType, Schema, Transform};

use super::{
    checksum::{Checksum, add_column},
    keys::{KeyColumn, KeyStats},
};
use crate::{
    column::{source_array, source_column},
    error::{DataFileError, Result},
    read::read_batches,
};

const DAY_US: i64 = 24 * 3_600_000_000;

/// Rows that a rewrite leaves out: those whose time is before a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldRows {
    /// A date or timestamp column, also inside structs.
    pub field_id: i32,
    /// Microseconds since 1970 UTC. A date is old when its whole day is before this.
    pub before_us: i64,
}

/// How many rows of a file are old. Reads that column alone.
///
/// # Errors
/// `UnknownField`: the column is no date or timestamp of the schema. Those of [`read_batches`].
pub async fn count_old(
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    entry: &FileEntry,
    schema: &Schema,
    old: OldRows,
) -> Result<u64> {
    let unknown = || DataFileError::UnknownField { field_id: old.field_id, schema_id: schema.schema_id };
    let root = schema.path_of(old.field_id).and_then(|path| path.first().map(|field| (*field).clone()));
    let schema = Schema::new(schema.schema_id, vec![root.ok_or_else(unknown)?]);
    let intake = Intake::new(&schema, Some(old))?;
    let mut batches = read_batches(store, table_location, entry, &schema).await?;
    while let Some(batch) = batches.try_next().await? {
        intake.take(batch)?;
    }
    Ok(intake.left_out())
}

/// Takes batches in.
pub(super) struct Intake {
    /// The column, and the least of its values that is not old.
    old: Option<(KeyColumn, i64)>,
    left_out: Cell<u64>,
    read: RefCell<Checksum>,
}

impl Intake {
    /// # Errors
    /// `UnknownField`: the column of `old` is no date or timestamp of the schema.
    pub(super) fn new(schema: &Schema, old: Option<OldRows>) -> Result<Self> {
        let column = |OldRows { field_id, before_us }: OldRows| {
            let source = source_column(schema, field_id)?;
            let before = match source.primitive {
                PrimitiveType::Date => before_us.div_euclid(DAY_US),
                PrimitiveType::Timestamp | PrimitiveType::Timestamptz => before_us,
                _ => return Err(DataFileError::UnknownField { field_id, schema_id: schema.schema_id }),
            };
            let transform = Transform::Identity;
            Ok((KeyColumn { source, transform, descending: false, nulls_last: false }, before))
        };
        let (left_out, read) = (Cell::default(), RefCell::default());
        Ok(Self { old: old.map(column).transpose()?, left_out, read })
    }

    pub(super) fn old(&self) -> Option<(&KeyColumn, i64)> {
        self.old.as_ref().map(|(column, before)| (column, *before))
    }

    /// The rows of a batch that are not old.
    pub(super) fn take(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let batch = match &self.old {
            Some((column, before)) => {
                let times = source_array(&batch, &column.source)?;
                self.without_old(batch, &times, *before)?
            }
            None => batch,
        };
        let mut rows = vec![0; batch.num_rows()];
        for (number, column) in (0..).zip(batch.columns()) {
            add_column(&mut rows, number, column.as_ref())?;
        }
        self.read.borrow_mut().add(&rows);
        Ok(batch)
    }

    fn without_old(&self, batch: RecordBatch, times: &ArrayRef, before: i64) -> Result<RecordBatch> {
        let keep = not_old(times, before).ok_or_else(|| DataFileError::compute("reading times"))?;
        let stay = keep.count_set_bits();
        if stay == batch.num_rows() {
            return Ok(batch);
        }
        self.leave_out((batch.num_rows() - stay) as u64);
        let keep = BooleanArray::new(keep, None);
        filter_record_batch(&batch, &keep).map_err(|_| DataFileError::compute("leaving old rows out"))
    }

    /// Counts rows that are left out.
    pub(super) fn leave_out(&self, rows: u64) {
        self.left_out.set(self.left_out.get() + rows);
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out.get()
    }

    /// Of all rows that were taken.
    pub(super) fn read(&self) -> Checksum {
        *self.read.borrow()
    }
}

/// Whether all rows of a row group are old, or none of them; `None`: some may be.
pub(super) fn are_old(stats: &KeyStats, before: i64) -> Option<bool> {
    if stats.nulls == Some(stats.rows) {
        return Some(false);
    }
    let one = |array: &Option<ArrayRef>| Some(not_old(array.as_ref()?, before)?.value(0));
    if one(&stats.min) == Some(true) {
        return Some(false);
    }
    (stats.nulls == Some(0) && one(&stats.max) == Some(false)).then_some(true)
}

/// Which times are not old; `None`: the array holds no times.
fn not_old(times: &ArrayRef, before: i64) -> Option<BooleanBuffer> {
    let young = match times.data_type() {
        DataType::Date32 => {
            let days = times.as_primitive_opt::<Date32Type>()?.values();
            BooleanBuffer::collect_bool(days.len(), |row| i64::from(days[row]) >= before)
        }
        _ => {
            let times = times.as_primitive_opt::<TimestampMicrosecondType>()?.values();
            BooleanBuffer::collect_bool(times.len(), |row| times[row] >= before)
        }
    };
    Some(match times.nulls() {
        Some(nulls) => &young | &!nulls.inner(),
        None => young,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
