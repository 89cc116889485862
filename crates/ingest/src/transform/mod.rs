//! What is done to whole batches between decoding and the table's columns.
//!
//! 1. `filter` leaves rows out, by a condition compiled once.
//! 2. `columns` takes, casts, makes and protects columns, by the walk of [`siltstone_spec::transform`], and lays
//!    them into
//!    the table's schema.
//! 3. A row that cannot be changed so is named by its place in the batch, with the column and types that it fails at;
//!    nothing of it is kept here.
//!
//! Pure but for the random numbers that encryption takes. Absent on purpose: records, schemas' origins, and what
//! becomes
//! of a row that failed. No error quotes a value: those of the libraries below do, and are mapped to closed words.

mod build;
mod cast;
mod columns;
mod filter;
mod key;
mod protect;
mod vault;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::SchemaRef,
};
use siltstone_protocol::Schema;
use siltstone_spec::{TableSpec, transform::Outcome};

use self::{build::Made, columns::Shape, filter::Filter};
pub(crate) use self::{
    filter::{Condition, FilterFault},
    key::{KeySource, Keys},
};
use crate::{IngestError, columns::arrow_schema, dead_letter::FailedRow};

/// From batches of a source's columns to batches of the table's.
#[derive(Debug)]
pub(crate) struct Transform {
    filter: Option<Filter>,
    shape: Shape,
    target: SchemaRef,
}

/// A batch after its transforms.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) batch: RecordBatch,
    /// Rows that the filter left out.
    pub(crate) filtered: usize,
    /// Rows that could not be changed, by their places in the batch that came in, ascending.
    pub(crate) failed: Vec<FailedRow>,
}

impl Transform {
    /// `outcome`: of this source. `called`: the target, in the words of the records. A column of the target that the
    /// outcome lacks is null.
    ///
    /// # Errors
    /// `SchemaRefused` when the target cannot take what comes out; `Invalid` when the filter does not fit the source.
    pub(crate) fn compile(
        table: &TableSpec,
        source: &Schema,
        outcome: &Outcome,
        (called, target): (&Schema, &Schema),
        keys: &Keys,
    ) -> Result<Self, IngestError> {
        let filter = match &table.transforms.filter {
            Some(text) => Some(Condition::parse(text, source).map_err(|fault| fault.of(table))?.compile()?),
            None => None,
        };
        let target = arrow_schema(target)?;
        let shape = Shape::compile(source, outcome, (called, target.fields()), keys)?;
        Ok(Self { filter, shape, target })
    }

    /// Whether there are rows for which it fails.
    pub(crate) fn can_fail(&self) -> bool {
        self.filter.as_ref().is_some_and(Filter::can_fail) || self.shape.can_fail()
    }

    /// # Errors
    /// `Internal`: a bug. Rows that cannot be changed are no error.
    pub(crate) fn apply(&self, batch: RecordBatch) -> Result<Applied, IngestError> {
        let came = batch.num_rows();
        let (mut batch, mut filtered) = (batch, 0);
        let mut failed: Vec<FailedRow> = Vec::new();
        // Where the rows that are left stood.
        let mut places: Option<Vec<usize>> = None;
        if let Some(filter) = &self.filter {
            let kept = filter.keep(&batch);
            filtered = came - kept.rows.count_set_bits() - kept.failed.len();
            let row = |row| FailedRow { row, about: Arc::clone(filter.about()) };
            failed.extend(kept.failed.into_iter().map(row));
            if kept.rows.count_set_bits() < came {
                places = Some(kept.rows.set_indices().collect());
                batch = select(&batch, kept.rows)?;
            }
        }
        let arrays = match self.shape.apply(&batch)? {
            Made::All(arrays) => arrays,
            Made::Unfit(unfit) => {
                let place = |row: usize| places.as_ref().map_or(row, |places| places[row]);
                for (row, cause) in unfit.rows() {
                    failed.push(FailedRow { row: place(row), about: Arc::clone(self.shape.about(cause)?) });
                }
                failed.sort_unstable_by_key(|failed| failed.row);
                batch = select(&batch, unfit.others())?;
                match self.shape.apply(&batch)? {
                    Made::All(arrays) => arrays,
                    Made::Unfit(_) => {
                        return Err(IngestError::internal("rows fail that did not fail before"));
                    }
                }
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.target.clone(), arrays, &options)
            .map_err(|_| IngestError::internal("a transform's columns do not fit the table"))?;
        Ok(Applied { batch, filtered, failed })
    }
}

fn select(batch: &RecordBatch, rows: BooleanBuffer) -> Result<RecordBatch, IngestError> {
    filter_record_batch(batch, &BooleanArray::new(rows, None))
        .map_err(|_| IngestError::internal("rows could not be left out of a batch"))
}
