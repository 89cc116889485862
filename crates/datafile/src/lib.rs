//! Siltstone: data files. Arrow batches in, sorted Parquet files out, and back.
//!
//! 1. [`arrow_schema`] says which Arrow types stand for a table's columns, everywhere.
//! 2. [`write_sorted`] sorts one flush by (partition, sort order) and writes partition after partition
//!    through one open file, streaming it to the object store.
//! 3. [`FileDetails`] is what table formats want to know of a file; [`read_details`] finds the same in
//!    the Parquet footer.
//! 4. [`read_batches`] reads a file into the table's present schema, by field id.
//! 5. [`read_foreign`] reads files that other programs laid down.
//! 6. [`ParquetFile`] is a file to import, of whatever schema.
//! 7. [`BulkWriter`] lays down more rows than memory holds.
//! 8. [`Host`] is what the machine gives: time, fresh names, threads.
//! 9. [`MemoryBudget`] bounds what all tables of a process buffer together.
//!
//! Absent on purpose: the ledger, Iceberg manifests and the Delta log (crate `siltstone-lakehouse`).
//! No error of this crate holds a value of a row.

mod arrow_schema;
mod bounds;
mod budget;
mod column;
mod details;
mod disclosed;
mod encode;
mod error;
mod footer;
mod foreign;
mod gather;
mod host;
mod import;
mod layout;
mod parquet_schema;
mod partition;
mod read;
mod rewrite;
mod roll;
mod sort;
mod sort_key;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
mod transform;
mod upload;
mod write;

pub use arrow_schema::{FIELD_ID_KEY, arrow_schema};
pub use budget::{MemoryBudget, Reservation};
pub use details::{ColumnStats, FileDetails};
pub use error::DataFileError;
pub use footer::read_details;
pub use foreign::{ForeignFile, read_foreign, read_position_deletes};
pub use host::{Host, Machine};
pub use import::{ImportFault, ParquetBatch, ParquetFile, ParquetRows, RejectedRow};
pub use layout::{Layout, WrittenFile};
pub use partition::iceberg_type;
pub use read::{BatchStream, read_batches};
pub use rewrite::{
    BulkOptions, BulkStats, BulkWriter, DeletedRows, OldRows, RewriteInput, RewriteJob, RewriteOptions,
    RewriteStats, count_old, rewrite,
};
pub use sort_key::KeyRange;
pub use transform::{result_type, transform};
pub use write::write_sorted;

/// The stages of a flush one by one, for benchmarks and for compaction.
pub mod stages {
    pub use crate::{
        encode::{Encoder, EncoderOptions},
        gather::Gather,
        sort::{Batches, SortedIndex, sort},
    };
}
