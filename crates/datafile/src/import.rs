//! Parquet files of anybody as rows of a table: history that is to be imported, not files of the table.
//!
//! 1. [`ParquetFile::schema`] is the file as a table schema (`import::schema`); the caller merges it into the table's.
//! 2. [`ParquetFile::rows_from`] reads rows as columns of the table: by name at every level, narrower types widened
//!    (`import::convert`). A row that holds a value which its column cannot is left out and reported; the batch's
//!    other rows stay.
//!
//! Types come from the Parquet schema alone, whatever Arrow schema a writer left beside it. Rows are numbered in
//! file order. Reading is for a blocking thread: a page of each column is held at a time, and what is before the
//! wanted rows is passed over by row groups and pages.
//!
//! Paths of such files may hold values, so no error names one.

mod convert;
mod schema;

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, Fields, SchemaRef},
};
use object_store::{ObjectStore, path::Path};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
    },
    basic::Type as PhysicalType,
    file::metadata::ParquetMetaData,
    schema::types::ColumnDescPtr,
};
use siltstone_protocol::{RejectReason, Schema};

use crate::{
    arrow_schema,
    error::{DataFileError, Result},
    foreign::in_micros,
    read::adapt,
    rewrite::source::{Object, Place},
};

/// A file up to this size is fetched whole.
const WHOLE_BYTES_MAX: u64 = 8 << 20;
/// What the blocks of all columns take together, about.
const BLOCKS_BYTES: u64 = 16 << 20;
const BLOCK_BYTES_MIN: u64 = 64 << 10;
const BLOCK_BYTES_MAX: u64 = 1 << 20;
/// Rows and bytes of a batch.
const BATCH_ROWS_MAX: usize = 8192;
const BATCH_ROWS_MIN: usize = 16;
const BATCH_BYTES: u64 = 4 << 20;
/// A page and a dictionary, where the file does not say how large they are.
const PAGE_BYTES: u64 = 2 << 20;
/// What stands for the file in errors.
const LABEL: &str = "to be imported";

/// Why a file cannot be imported into a table. Names columns and types alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {why}")]
pub struct ImportFault {
    /// Dotted path.
    pub column: String,
    pub why: String,
}

/// A Parquet file whose footer was read.
#[derive(Clone)]
pub struct ParquetFile {
    object: Object,
    metadata: ArrowReaderMetadata,
    bytes: u64,
    whole: bool,
    block_bytes: u64,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

impl ParquetFile {
    /// Opens an object of this size. With the tag of its content, all of it is read of that content or not at all.
    ///
    /// # Errors
    /// `Store`; `Corrupt`: it is no Parquet file; `Replaced`.
    pub async fn open(
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        bytes: u64,
        etag: Option<&str>,
    ) -> Result<Self> {
        let (path, label) = (path.clone(), LABEL.to_owned());
        let etag = etag.map(str::to_owned);
        let place = Place { store: Arc::clone(store), path, etag, label, size: bytes };
        let whole = bytes <= WHOLE_BYTES_MAX;
        let (object, metadata) = Object::open(place, whole, block_bytes).await?;
        let block_bytes = block_bytes(&metadata);
        let corrupt = |_| DataFileError::corrupt(LABEL, "its schema cannot be read");
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = Arc::new(metadata);
        let mut loaded =
            ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.clone()).map_err(corrupt)?;
        // Spark's 96-bit instants overflow nanoseconds.
        let instant = |column: &ColumnDescPtr| column.physical_type() == PhysicalType::INT96;
        if loaded.parquet_schema().columns().iter().any(instant)
            && let Some(micros) = in_micros(loaded.schema())
            && let Ok(in_micros) = ArrowReaderMetadata::try_new(metadata, options.with_schema(micros))
        {
            loaded = in_micros;
        }
        Ok(Self { object, metadata: loaded, bytes, whole, block_bytes })
    }

    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The table that its rows alone would make. `table`: what it is to be merged with; what is optional in the
    /// file and required there stays so, as rows without a value are rejected one by one.
    ///
    /// # Errors
    /// A column of a type that tables do not have.
    pub fn schema(&self, table: Option<&Schema>) -> std::result::Result<Schema, ImportFault> {
        schema::table_schema(self.metadata.schema(), self.metadata.parquet_schema(), table)
    }

    /// Memory that reading it holds beside the batches, about.
    pub fn held_bytes(&self) -> u64 {
        let metadata = self.metadata.metadata();
        let of = |group: usize| -> u64 {
            let pages = metadata.offset_index().and_then(|index| index.get(group));
            let columns = metadata.row_group(group).columns().iter().enumerate();
            let column = columns.map(|(column, chunk)| {
                let size = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
                let pages = pages.and_then(|pages| pages.get(column));
                let page = pages.map_or(PAGE_BYTES, |pages| {
                    size / pages.page_locations().len().max(1) as u64 + PAGE_BYTES / 2
                });
                let packed = u64::try_from(chunk.compressed_size()).unwrap_or(0);
                page.min(size) + if self.whole { 0 } else { packed.min(2 * self.block_bytes) }
            });
            column.sum()
        };
        let most = (0..metadata.num_row_groups()).map(of).max().unwrap_or(0);
        most + 2 * BATCH_BYTES + if self.whole { self.bytes } else { 0 }
    }

    /// Rows from this one on, of these columns alone: others that the file has are not read. `view`: as in
    /// [`Self::rows_from`].
    ///
    /// # Errors
    /// As [`Self::rows_from`].
    pub fn rows_of(
        &self,
        columns: &Schema,
        view: &Schema,
        start: u64,
    ) -> Result<std::result::Result<ParquetRows, ImportFault>> {
        let (target, view) = (arrow_schema(columns)?, arrow_schema(view)?);
        let known = |field: &&FieldRef| view.fields().find(field.name()).is_some();
        let given: Fields = self.metadata.schema().fields().iter().filter(known).cloned().collect();
        match convert::check(&given, view.fields()) {
            Err(fault) => Ok(Err(fault)),
            Ok(()) => self.read(target, view, start).map(Ok),
        }
    }

    /// Rows from this one on, as columns of a table that can take them. `view`: the table's schema with columns called
    /// as in the file.
    ///
    /// # Errors
    /// An `ImportFault` in the middle: the table must become something else first. `Corrupt`.
    pub fn rows_from(
        &self,
        table: &Schema,
        view: &Schema,
        start: u64,
    ) -> Result<std::result::Result<ParquetRows, ImportFault>> {
        let (target, view) = (arrow_schema(table)?, arrow_schema(view)?);
        match convert::check(self.metadata.schema().fields(), view.fields()) {
            Err(fault) => Ok(Err(fault)),
            Ok(()) => self.read(target, view, start).map(Ok),
        }
    }

    fn read(&self, target: SchemaRef, view: SchemaRef, start: u64) -> Result<ParquetRows> {
        let given = self.metadata.schema();
        let metadata = self.metadata.metadata();
        let (mut first, mut before) = (0, 0);
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            if before + rows > start {
                break;
            }
            (first, before) = (first + 1, before + rows);
        }
        let uncompressed: i64 = metadata.row_groups().iter().map(|group| group.total_byte_size()).sum();
        let row_bytes = u64::try_from(uncompressed).unwrap_or(0) / self.rows().max(1);
        let batch_rows = usize::try_from(BATCH_BYTES / row_bytes.max(1)).unwrap_or(BATCH_ROWS_MAX);
        let wanted = |index: &usize| view.fields().find(given.field(*index).name()).is_some();
        let roots = (0..given.fields().len()).filter(wanted);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.object.clone(), self.metadata.clone())
                .with_row_groups((first..metadata.num_row_groups()).collect())
                .with_projection(mask)
                .with_offset(usize::try_from(start - before.min(start)).unwrap_or(usize::MAX))
                .with_batch_size(batch_rows.clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX))
                .build();
        let reader = reader.map_err(|_| self.failure())?;
        Ok(ParquetRows { reader, file: self.clone(), target, view, next: start })
    }

    fn failure(&self) -> DataFileError {
        let damaged = || DataFileError::corrupt(LABEL, "it is no readable Parquet file");
        self.object.failure().unwrap_or_else(damaged)
    }
}

/// Bytes of a block: of each column, one is in use and the next on its way.
fn block_bytes(metadata: &ParquetMetaData) -> u64 {
    let columns = metadata.file_metadata().schema_descr().num_columns().max(1) as u64;
    (BLOCKS_BYTES / columns / 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
}

/// Rows of a file as rows of a table.
#[derive(Debug)]
pub struct ParquetBatch {
    /// Number of the first row, and how many there were.
    pub start: u64,
    pub rows: u64,
    /// Those that the table takes.
    pub batch: RecordBatch,
    /// The others, rising.
    pub rejected: Vec<RejectedRow>,
}

/// A row that the table cannot take: nothing of it is kept here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    pub row: u64,
    pub reason: RejectReason,
    /// Dotted path of the column that it is about.
    pub column: String,
    /// Closed words and names of types.
    pub detail: String,
}

/// An iterator over a file's rows, for a blocking thread.
pub struct ParquetRows {
    reader: ParquetRecordBatchReader,
    file: ParquetFile,
    target: SchemaRef,
    view: SchemaRef,
    next: u64,
}

impl std::fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRows").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Iterator for ParquetRows {
    type Item = Result<ParquetBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map_err(|_| self.file.failure()).and_then(|batch| self.convert(&batch)))
    }
}

impl ParquetRows {
    fn convert(&mut self, batch: &RecordBatch) -> Result<ParquetBatch> {
        let (start, rows) = (self.next, batch.num_rows() as u64);
        self.next += rows;
        let (batch, bad) = convert::batch(batch, &self.view)?;
        let batch = if self.view == self.target {
            batch
        } else {
            let odd = || DataFileError::corrupt(LABEL, "its columns cannot be read as the table's schema");
            adapt(&batch, &self.target).ok_or_else(odd)?
        };
        let rejected = bad.into_iter().map(|(row, misfit)| {
            let convert::Misfit { reason, column, detail } = misfit;
            RejectedRow { row: start + row as u64, reason, column, detail }
        });
        Ok(ParquetBatch { start, rows, batch, rejected: rejected.collect() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
