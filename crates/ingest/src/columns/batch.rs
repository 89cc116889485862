//! The columns of a table, filled row by row.

use std::{fmt, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use siltstone_protocol::Schema;

use super::{arrow_type::arrow_schema, column::Column, nested::finish_all};
use crate::IngestError;

/// A row boundary to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: usize,
}

/// Builders of all columns of one table schema.
pub struct Columns {
    columns: Vec<Column>,
    rows: usize,
    schema: SchemaRef,
}

impl Columns {
    /// Empty columns for this schema.
    pub fn new(schema: &Schema) -> Result<Self, IngestError> {
        let arrow = arrow_schema(schema)?;
        let columns = schema.fields.iter().map(|field| Column::new(&field.data_type)).collect();
        Ok(Self { columns, rows: 0, schema: arrow })
    }

    /// The top-level columns, in the order of the schema. A row is one value to each of them.
    #[inline]
    pub fn columns(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// Complete rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The row is complete: every column has one value more.
    #[inline]
    pub fn end_row(&mut self) {
        self.rows += 1;
        debug_assert!(
            self.columns.iter().all(|column| column.len() == self.rows),
            "a row is one value to every column"
        );
    }

    /// The present row boundary.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { rows: self.rows }
    }

    /// Takes back every value written since the mark, of complete rows and of an unfinished one.
    #[cold]
    pub fn rollback(&mut self, mark: Mark) {
        self.rows = self.rows.min(mark.rows);
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    /// Bytes written to all columns: what the batch holds in memory. Room that vectors have reserved and not
    /// written is not counted: it is not resident, and counting it would make an empty batch look full.
    /// Costs a walk over the columns.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// The Arrow schema of finished batches.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands the complete rows over as a batch, without copying, and begins anew with as much room.
    ///
    /// # Errors
    /// `Internal` when a decoder broke the contract: a null in a required column, or columns of unequal
    /// length. The rows are gone then.
    pub fn finish(&mut self) -> Result<RecordBatch, IngestError> {
        self.rollback(self.mark());
        let rows = std::mem::take(&mut self.rows);
        let schema = Arc::clone(&self.schema);
        let arrays = finish_all(&mut self.columns, schema.fields()).inspect_err(|_| {
            self.columns.iter_mut().for_each(|column| column.truncate(0));
        })?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|_| IngestError::internal("a decoder left a required column null or a column short"))
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Columns")
            .field("columns", &self.columns.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
