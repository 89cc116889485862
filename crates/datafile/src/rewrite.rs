//! A rewrite: sorted files of one partition in, fewer sorted files with the same rows out.
//!
//! 1. Footers of all inputs are read; small inputs are fetched whole, larger ones page by page as the merge
//!    goes on (`source`).
//! 2. Inputs that are not in the wanted order (or all of them, for a curve) are sorted first, in pieces that
//!    fit the budget; the pieces are spilled (`spill`).
//! 3. When there are more runs than the budget has room for, groups of them are merged into spilled runs.
//! 4. The runs are merged window by window (`merge`): what is below the least key that is still unread is
//!    sorted as a flush is, gathered column by column and encoded as a flush is.
//! 5. A row group whose keys no other run reaches into is copied as it is (`splice`).
//! 6. Rows and an order-independent checksum of all columns are taken from what was read and from what was
//!    handed to the encoder; when they differ, the rewrite fails (I-1).
//!
//! Columns are matched by field id, so inputs of older schemas become the present one.
//!
//! Memory: [`RewriteOptions::memory_bytes`], divided by `memory`; the upload's parts and the row group being
//! encoded are part of it.

use std::{path::PathBuf, sync::Arc};

use object_store::{ObjectStore, path::Path};
use siltstone_protocol::FileEntry;
use siltstone_spec::Clustering;

use crate::{
    error::{DataFileError, Result},
    layout::{Layout, WrittenFile},
};

/// What is to be rewritten, and as what.
#[derive(Debug, Clone)]
pub struct RewriteJob {
    /// Files of one partition: same spec, same partition values.
    pub inputs: Vec<RewriteInput>,
    /// What the new files are: `partition_spec` is that of the inputs.
    pub layout: Layout,
    pub cluster: Clustering,
}

/// A file to rewrite, and which of its rows are no longer.
#[derive(Debug, Clone)]
pub struct RewriteInput {
    pub entry: FileEntry,
    pub deleted: Option<Arc<DeletedRows>>,
}

impl RewriteInput {
    pub fn new(entry: FileEntry) -> Self {
        Self { entry, deleted: None }
    }
}

/// Positions of deleted rows in a file. The seam for deletes: whatever holds them (a delete file, a
/// deletion vector) becomes this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeletedRows {
    /// Half-open, rising, not touching.
    ranges: Vec<std::ops::Range<u64>>,
}

impl DeletedRows {
    /// From positions in any order.
    pub fn new(mut positions: Vec<u64>) -> Self {
        positions.sort_unstable();
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        for position in positions {
            match ranges.last_mut() {
                Some(last) if position < last.end => {}
                Some(last) if position == last.end => last.end += 1,
                _ => ranges.push(position..position + 1),
            }
        }
        Self { ranges }
    }

    pub fn rows(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// What a rewrite may use.
#[derive(Debug, Clone)]
pub struct RewriteOptions {
    /// All that it holds at once, bytes. Less than 64 MiB counts as that.
    pub memory_bytes: u64,
    /// Where runs are spilled when memory does not suffice. The files have no name once they are open.
    pub spill_dir: PathBuf,
    /// More spilled bytes than this are an error.
    pub spill_bytes_max: u64,
}

/// The least budget: a row group in flight and two runs.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

impl Default for RewriteOptions {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, spill_dir: std::env::temp_dir(), spill_bytes_max: 256 << 30 }
    }
}

/// What a rewrite did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewriteStats {
    pub inputs: usize,
    pub input_bytes: u64,
    /// Rows of the new files.
    pub rows: u64,
    /// Rows left out because they were deleted.
    pub deleted_rows: u64,
    /// Rows that were decoded and encoded again.
    pub merged_rows: u64,
    pub spliced_rows: u64,
    /// Bytes copied without decoding.
    pub spliced_bytes: u64,
    pub spilled_bytes: u64,
}

/// Rewrites files; the new ones are durable when this returns.
///
/// # Errors
/// `Store`: try again; nothing is deleted. `Corrupt`: an input is damaged, of another partition, or not in
/// the order that it names. `RowsDiffer`: what was written is not what was read.
pub async fn rewrite(
    job: RewriteJob,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    options: &RewriteOptions,
) -> Result<(Vec<WrittenFile>, RewriteStats)> {
    let _ = (job, store, table_location, options);
    Err(DataFileError::Stopped)
}
