//! Much data at once: batches in, data files in sort order near the target size out, in bounded memory.
//!
//! 1. Batches fill a buffer. When it is full they are sorted by (partition, sort order) and spilled to local
//!    disk as one run, however many partitions there are.
//! 2. At the end the runs are merged, partition after partition, one file open at a time. What memory has room
//!    for is never spilled.
//! 3. When so much is spilled that the disk's share is used up ([`BulkWriter::is_full`]), the caller makes the
//!    files, commits them, and goes on.
//!
//! The rows of the files are exactly those that were pushed. Spill files have no name once they are open, so a
//! killed process leaves nothing behind but data files that nothing names.
//!
//! Memory: [`BulkOptions::memory_bytes`]. While rows are taken, three quarters of it are the buffer, with the
//! words that will sort it; the merge divides it as a rewrite does (`memory`).

use std::{path::PathBuf, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};
use object_store::{ObjectStore, path::Path};
use siltstone_protocol::{Schema, SchemaHistory};
use tokio::sync::mpsc;

use super::{
    keys::Keys,
    memory::{MEMORY_BYTES_MIN, Shares, WORD_BYTES},
    merge::Merge,
    partitions::Partitions,
    run::Run,
    smallest,
    spill::{Grain, Spill, Spilled},
    window::Window,
};
use crate::{
    arrow_schema,
    column::conform,
    error::{DataFileError, Result},
    host::Host,
    layout::{Layout, WrittenFile},
    read::adapt,
    sort::Batches,
    upload::{Part, encode_and_upload},
    write::write_sorted,
};

/// Neighbours with fewer rows are joined until they have so many, or so many bytes: a batch has costs of its own.
const ROWS_JOINED: usize = 8192;
const SMALL_BYTES_MAX: u64 = 8 << 20;
/// One with so many rows and bytes is not worth the copy. Sorting joins those with fewer rows anyway.
const ROWS_ENOUGH: usize = 2048;
const BYTES_ENOUGH: u64 = 1 << 20;

/// What a bulk writer may use.
#[derive(Debug, Clone)]
pub struct BulkOptions {
    /// All that it holds at once, bytes: rows, sorting, encoding, uploads. Less than 128 MiB counts as that.
    pub memory_bytes: u64,
    /// Where runs are spilled.
    pub spill_dir: PathBuf,
    /// Spilled bytes at which the writer is full. Merging more runs than memory has room for takes as much again.
    pub spill_bytes_max: u64,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, spill_dir: std::env::temp_dir(), spill_bytes_max: 16 << 30 }
    }
}

/// What a bulk writer did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkStats {
    /// Rows pushed.
    pub rows: u64,
    /// Times that the buffer was spilled, and bytes of that.
    pub spills: u64,
    pub spilled_bytes: u64,
}

/// Collects rows of one table, for one commit after the other.
pub struct BulkWriter {
    layout: Layout,
    schema: SchemaRef,
    store: Arc<dyn ObjectStore>,
    location: Path,
    options: BulkOptions,
    /// Batches with few rows, to be joined.
    small: Vec<RecordBatch>,
    small_rows: usize,
    small_bytes: u64,
    batches: Vec<RecordBatch>,
    bytes: u64,
    rows: usize,
    runs: Vec<Arc<Spilled>>,
    /// Rows since the last files were made.
    pushed: u64,
    stats: BulkStats,
}

impl std::fmt::Debug for BulkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, runs, stats, .. } = self;
        f.debug_struct("BulkWriter")
            .field("rows", rows)
            .field("runs", &runs.len())
            .field("stats", stats)
            .finish_non_exhaustive()
    }
}

impl BulkWriter {
    /// A writer of files of this layout below `table_location`. Nothing is done yet.
    ///
    /// # Errors
    /// `UnsupportedType`.
    pub fn new(
        layout: Layout,
        store: Arc<dyn ObjectStore>,
        table_location: Path,
        options: BulkOptions,
    ) -> Result<Self> {
        Ok(Self {
            schema: arrow_schema(&layout.schema)?,
            layout,
            store,
            location: table_location,
            options,
            small: Vec::new(),
            small_rows: 0,
            small_bytes: 0,
            batches: Vec::new(),
            bytes: 0,
            rows: 0,
            runs: Vec::new(),
            pushed: 0,
            stats: BulkStats::default(),
        })
    }

    /// Takes rows: of the layout's schema, or of one that the table had before.
    ///
    /// # Errors
    /// `Spill`: the local disk failed; what was pushed since the last [`Self::finish`] is incomplete.
    /// `SchemaMismatch`, `NullInRequired`: the rows are not of the table.
    pub async fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.of_table(batch)?;
        let bytes = batch.get_array_memory_size() as u64;
        self.rows += batch.num_rows();
        self.pushed += batch.num_rows() as u64;
        self.stats.rows += batch.num_rows() as u64;
        if is_small(batch.num_rows(), bytes) {
            self.small_rows += batch.num_rows();
            self.small_bytes += bytes;
            self.small.push(batch);
            if self.small_rows >= ROWS_JOINED || self.small_bytes >= SMALL_BYTES_MAX {
                self.join()?;
            }
        } else {
            self.join()?;
            self.bytes += bytes;
            self.batches.push(batch);
        }
        if self.held() >= self.options.memory_bytes.max(MEMORY_BYTES_MIN) / 4 * 3 {
            self.spill().await?;
        }
        Ok(())
    }

    /// The rows as the table has them now.
    fn of_table(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let schema_id = self.layout.schema.schema_id;
        match conform(&batch, &self.schema, schema_id) {
            Err(mismatch @ DataFileError::SchemaMismatch { .. }) => {
                let adapted = adapt(&batch, &self.schema).ok_or(mismatch)?;
                conform(&adapted, &self.schema, schema_id)
            }
            conforming => conforming,
        }
    }

    fn join(&mut self) -> Result<()> {
        (self.small_rows, self.small_bytes) = (0, 0);
        let small = std::mem::take(&mut self.small);
        let joined = match small.len() {
            0 => return Ok(()),
            1 => small.into_iter().next(),
            _ => Some(
                concat_batches(&self.schema, small.iter())
                    .map_err(|_| DataFileError::compute("joining batches"))?,
            ),
        };
        if let Some(batch) = joined {
            self.bytes += batch.get_array_memory_size() as u64;
            self.batches.push(batch);
        }
        Ok(())
    }

    /// The table's schema changed: what was pushed, and what comes, is of this one, the newest of `names`.
    ///
    /// # Errors
    /// `SchemaMismatch`: it is no later schema of the same table.
    pub fn set_schema(&mut self, schema: Arc<Schema>, names: Arc<SchemaHistory>) -> Result<()> {
        self.schema = arrow_schema(&schema)?;
        (self.layout.schema, self.layout.names) = (schema, names);
        for batches in [&mut self.batches, &mut self.small] {
            for batch in batches {
                *batch = adapt(batch, &self.schema).ok_or_else(|| DataFileError::SchemaMismatch {
                    schema_id: self.layout.schema.schema_id,
                    column: "*".to_owned(),
                    expected: "what a column was or has been widened to".to_owned(),
                })?;
            }
        }
        let held =
            |batches: &[RecordBatch]| batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum();
        (self.bytes, self.small_bytes) = (held(&self.batches), held(&self.small));
        Ok(())
    }

    /// The schema that files will have.
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.layout.schema)
    }

    /// What its schemas so far say of the table's columns.
    pub fn names(&self) -> Arc<SchemaHistory> {
        Arc::clone(&self.layout.names)
    }

    /// Memory that buffered rows hold and will take to be sorted, bytes.
    pub fn held(&self) -> u64 {
        self.bytes + self.small_bytes + (self.rows * WORD_BYTES) as u64
    }

    /// True when nothing was pushed since the last [`Self::finish`] or [`Self::clear`].
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.runs.is_empty()
    }

    /// True when so much is spilled, and buffered to be spilled, that the files should be made and committed.
    pub fn is_full(&self) -> bool {
        let spilled: u64 = self.runs.iter().map(|run| run.bytes).sum();
        spilled + self.held() >= self.options.spill_bytes_max
    }

    /// What was done since the writer was made.
    pub fn stats(&self) -> BulkStats {
        self.stats
    }

    /// Forgets what was pushed since the last [`Self::finish`].
    pub fn clear(&mut self) {
        self.small.clear();
        self.batches.clear();
        self.runs.clear();
        self.pushed = 0;
        (self.small_rows, self.small_bytes, self.bytes, self.rows) = (0, 0, 0, 0);
    }

    /// Makes the files, durable when this returns: all rows pushed since the last time, and no other. The writer
    /// is then empty.
    ///
    /// # Errors
    /// `Store`, `Spill`: the outcome may be unknown, nothing is deleted, and this may be called again: what was pushed
    /// is still there. Those of [`Self::push`].
    pub async fn finish(&mut self) -> Result<Vec<WrittenFile>> {
        self.join()?;
        let memory = self.options.memory_bytes.max(MEMORY_BYTES_MIN);
        let shares = Shares::of(memory, &self.layout, 0);
        let mut layout = self.layout.clone();
        layout.files.row_group_bytes = layout.files.row_group_bytes.min(shares.row_group_bytes);
        let files = if self.runs.is_empty() && self.held() <= shares.flush_bytes(&layout) {
            write_sorted(self.batches.clone(), &layout, &self.store, &self.location).await?
        } else {
            self.spill().await?;
            let runs = self.runs.clone();
            let (schema, location) = (SchemaRef::clone(&self.schema), self.location.clone());
            let options = self.options.clone();
            let host = layout.host.clone();
            encode_and_upload(&host, &self.store, move |parts| {
                Merging { layout: &layout, schema, shares, options }.run(&runs, &location, parts)
            })
            .await?
        };
        let (read, written) = (self.pushed, files.iter().map(|file| file.entry.rows).sum());
        if read != written {
            return Err(DataFileError::RowsDiffer { read, written });
        }
        self.clear();
        Ok(files)
    }

    /// Sorts the buffer and spills it as one run.
    async fn spill(&mut self) -> Result<()> {
        self.join()?;
        if self.batches.is_empty() {
            return Ok(());
        }
        // They stay until the run is there: what fails may be tried again.
        let batches = self.batches.clone();
        let (bytes, layout) = (self.bytes as usize, self.layout.clone());
        let (schema, directory) = (SchemaRef::clone(&self.schema), self.options.spill_dir.clone());
        let run = blocking(&self.layout.host, move || {
            let keys = Keys::partitioned(&layout.schema, &layout.partition_spec, &layout.sort_order)?;
            let batches = Batches::new(batches, &schema)?;
            let part = |batch: &RecordBatch| Ok((batch.clone(), keys.arrays(batch)?));
            let parts = batches.batches().iter().map(part).collect::<Result<Vec<_>>>()?;
            drop(batches);
            let window = Window::new(parts, bytes, &keys)?;
            let mut spill = Spill::new(&directory, &schema, u64::MAX, Grain::FINE)?;
            super::Emit::window(&mut spill, &window)?;
            spill.finish()
        });
        let run = run.await?;
        self.batches.clear();
        (self.bytes, self.rows) = (0, 0);
        self.stats.spills += 1;
        self.stats.spilled_bytes += run.bytes;
        tracing::debug!(rows = run.rows(), bytes = run.bytes, "run spilled");
        self.runs.push(Arc::new(run));
        Ok(())
    }
}

/// Whether a batch is to be joined with its neighbours.
fn is_small(rows: usize, bytes: u64) -> bool {
    let enough = rows >= ROWS_ENOUGH && bytes >= BYTES_ENOUGH;
    rows < ROWS_JOINED && bytes < SMALL_BYTES_MAX && !enough
}

/// Work that blocks, on a thread for it.
async fn blocking<T: Send + 'static>(
    host: &Host,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if !host.has_threads() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| DataFileError::Stopped)?
}

/// The merge of spilled runs, on its blocking thread.
struct Merging<'a> {
    layout: &'a Layout,
    schema: SchemaRef,
    shares: Shares,
    options: BulkOptions,
}

impl Merging<'_> {
    fn run(
        &self,
        runs: &[Arc<Spilled>],
        location: &Path,
        parts: &mpsc::Sender<Part>,
    ) -> Result<Vec<WrittenFile>> {
        let Layout { schema, partition_spec, sort_order, .. } = self.layout;
        let keys = Keys::partitioned(schema, partition_spec, sort_order)?;
        let open = |run: &Arc<Spilled>| Ok(Run::Spill(Box::new(run.open(&self.schema)?)));
        let runs = runs.iter().map(open).collect::<Result<Vec<_>>>()?;
        let rows: u64 = runs.iter().map(Run::rows_left).sum();
        let runs = self.narrow(runs, &keys)?;
        let mut output = Partitions::new(self.layout, location, parts, rows);
        Merge::new(runs, &keys, self.shares.limits()).run(&mut output)?;
        let files = output.finish()?;
        let written = files.iter().map(|file| file.entry.rows).sum();
        if written != rows {
            return Err(DataFileError::RowsDiffer { read: rows, written });
        }
        Ok(files)
    }

    /// Merges the smallest runs until there is room for all that are left.
    fn narrow(&self, mut runs: Vec<Run>, keys: &Keys) -> Result<Vec<Run>> {
        loop {
            let room = self.shares.fan_in(runs.iter().map(|run| run.held_bytes(0)).collect());
            if runs.len() <= room {
                return Ok(runs);
            }
            let merge = Merge::new(smallest(&mut runs, room), keys, self.shares.limits());
            let mut spill = Spill::new(&self.options.spill_dir, &self.schema, u64::MAX, Grain::FINE)?;
            merge.run(&mut spill)?;
            runs.push(Run::Spill(Box::new(spill.finish()?.open(&self.schema)?)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
