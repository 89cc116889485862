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
//! 6. Old rows are left out when the job says so, batch by batch, as they are read (`old`).
//! 7. Rows and an order-independent checksum of all columns are taken from what was read and from what was
//!    handed to the encoder; when they differ, the rewrite fails (I-1).
//!
//! Columns are matched by field id, so inputs of older schemas become the present one.
//!
//! Memory: [`RewriteOptions::memory_bytes`], divided by `memory`; the upload's parts and the row group being
//! encoded are part of it.

mod bulk;
mod checksum;
mod curve;
mod keys;
mod memory;
mod merge;
mod old;
mod output;
mod partitions;
mod run;
pub(crate) mod source;
mod spill;
mod window;

use std::{path::PathBuf, rc::Rc, sync::Arc};

use arrow::datatypes::SchemaRef;
use object_store::{ObjectStore, path::Path};
use siltstone_protocol::FileEntry;
use siltstone_spec::Clustering;
use tokio::sync::mpsc;

use self::{
    checksum::Checksum,
    curve::Curve,
    keys::{KeyColumn, Keys},
    memory::Shares,
    merge::{Emit, Merge},
    old::Intake,
    output::Output,
    run::{FileRun, Run},
    source::Input,
    spill::{Grain, Spill},
    window::Window,
};
use crate::{
    arrow_schema,
    error::{DataFileError, Result},
    footer,
    layout::{Layout, WrittenFile},
    partition::PartitionValues,
    upload::{Part, encode_and_upload},
};

pub use bulk::{BulkOptions, BulkStats, BulkWriter};
pub use old::{OldRows, count_old};

/// What is to be rewritten, and as what.
#[derive(Debug, Clone)]
pub struct RewriteJob {
    /// Files of one partition: same spec, same partition values.
    pub inputs: Vec<RewriteInput>,
    /// What the new files are: `partition_spec` is that of the inputs.
    pub layout: Layout,
    pub cluster: Clustering,
    /// Rows to leave out.
    pub old: Option<OldRows>,
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

    /// What is left of so many rows; `None` when rows beyond them are deleted.
    pub(crate) fn kept(&self, rows: u64) -> Option<Vec<std::ops::Range<usize>>> {
        let mut kept = Vec::with_capacity(self.ranges.len() + 1);
        let mut at = 0;
        for range in &self.ranges {
            kept.push(usize::try_from(at).ok()?..usize::try_from(range.start).ok()?);
            at = range.end;
        }
        kept.push(usize::try_from(at).ok()?..usize::try_from(rows).ok().filter(|_| at <= rows)?);
        kept.retain(|range| !range.is_empty());
        Some(kept)
    }
}

/// What a rewrite may use.
#[derive(Debug, Clone)]
pub struct RewriteOptions {
    /// All that it holds at once, bytes. Less than 128 MiB counts as that.
    pub memory_bytes: u64,
    /// Where runs are spilled when memory does not suffice. The files have no name once they are open.
    pub spill_dir: PathBuf,
    /// More spilled bytes than this are an error.
    pub spill_bytes_max: u64,
}

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
    /// Rows left out because they were old.
    pub old_rows: u64,
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
/// `Store`: try again; nothing is deleted. `Corrupt`, `OtherPartition`: an input is damaged, not in the order
/// that it names, or of another partition. `RowsDiffer`: what was written is not what was read.
pub async fn rewrite(
    job: RewriteJob,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    options: &RewriteOptions,
) -> Result<(Vec<WrittenFile>, RewriteStats)> {
    let RewriteJob { inputs, mut layout, cluster, old } = job;
    let shares = Shares::of(options.memory_bytes, &layout, inputs.len());
    layout.files.row_group_bytes = layout.files.row_group_bytes.min(shares.row_group_bytes);
    let inputs = source::open(inputs, store, table_location, shares.whole_bytes, shares.block_bytes).await?;
    let (location, options, host) = (table_location.clone(), options.clone(), layout.host.clone());
    encode_and_upload(&host, store, move |parts| {
        Rewrite { layout: &layout, location: &location, options: &options, shares, parts }
            .run(inputs, cluster, old)
    })
    .await
}

/// Takes out the runs that are merged first when there are more than `room`: no more than need be.
fn smallest(runs: &mut Vec<Run>, room: usize) -> Vec<Run> {
    runs.sort_by_key(|run| std::cmp::Reverse(run.rows_left()));
    runs.split_off(runs.len() - room.min(runs.len() - room + 1))
}

/// I-1: what was written is what was read, and all of it.
fn same_rows(read: Checksum, written: Checksum, spliced_rows: u64, rows: u64) -> Result<()> {
    let all = written.rows + spliced_rows;
    if read == written && all == rows {
        return Ok(());
    }
    Err(DataFileError::RowsDiffer { read: rows, written: all })
}

/// A rewrite on its blocking thread.
struct Rewrite<'a> {
    layout: &'a Layout,
    location: &'a Path,
    options: &'a RewriteOptions,
    shares: Shares,
    parts: &'a mpsc::Sender<Part>,
}

impl Rewrite<'_> {
    fn run(
        &self,
        inputs: Vec<Input>,
        cluster: Clustering,
        old: Option<OldRows>,
    ) -> Result<(Vec<WrittenFile>, RewriteStats)> {
        let mut stats = RewriteStats { inputs: inputs.len(), ..RewriteStats::default() };
        stats.input_bytes = inputs.iter().map(|input| input.input.entry.bytes).sum();
        let deleted = |input: &Input| input.input.deleted.as_ref().map_or(0, |deleted| deleted.rows());
        stats.deleted_rows = inputs.iter().map(deleted).sum();
        let all: u64 = inputs.iter().map(|input| input.input.entry.rows).sum();
        let rows = all.saturating_sub(stats.deleted_rows);
        let values = self.one_partition(&inputs)?;
        let schema = arrow_schema(&self.layout.schema)?;
        let intake = Rc::new(Intake::new(&self.layout.schema, old)?);
        let columns = KeyColumn::of(&self.layout.schema, &self.layout.sort_order)?;
        let order_id = self.layout.sort_order.order_id;
        let in_order = |input: &Input| columns.is_empty() || input.input.entry.sort_order_id == order_id;
        let sorted: Vec<bool> = inputs.iter().map(in_order).collect();
        let keys = Keys::Order(columns);
        let open = |input| FileRun::new(input, SchemaRef::clone(&schema), &keys, Rc::clone(&intake));
        let files = inputs.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let (keys, sorted, sort_order_id) = match (cluster, keys) {
            (Clustering::ZOrder | Clustering::Hilbert, Keys::Order(columns)) if !columns.is_empty() => {
                let curve = Curve::new(columns, &files, cluster == Clustering::Hilbert)?;
                (Keys::Curve(curve), vec![false; sorted.len()], 0)
            }
            (_, keys) => (keys, sorted, order_id),
        };
        let output = Output::new(self.layout, self.location, self.parts, values, sort_order_id, rows);
        let mut output = output?;
        let runs = self.runs(files, &sorted, &schema, &keys, &mut stats, &mut output)?;
        let runs = self.narrow(runs, &schema, &keys, &mut stats)?;
        Merge::new(runs, &keys, self.shares.limits()).run(&mut output)?;
        (stats.spliced_rows, stats.spliced_bytes) = (output.spliced_rows, output.spliced_bytes);
        let written = output.written;
        stats.old_rows = intake.left_out();
        let rows = rows.saturating_sub(stats.old_rows);
        same_rows(intake.read(), written, stats.spliced_rows, rows)?;
        let files = output.finish()?;
        stats.merged_rows = written.rows;
        stats.rows = files.iter().map(|file| file.entry.rows).sum();
        if stats.rows != rows {
            return Err(DataFileError::RowsDiffer { read: rows, written: stats.rows });
        }
        Ok((files, stats))
    }

    /// The partition that all inputs are of.
    fn one_partition(&self, inputs: &[Input]) -> Result<PartitionValues> {
        let mut partition: Option<PartitionValues> = None;
        for Input { input, metadata, .. } in inputs {
            let other = || DataFileError::OtherPartition { path: input.entry.path.clone() };
            let values = footer::partition_values(metadata.metadata()).ok_or_else(other)?;
            if values.spec_id != self.layout.partition_spec.spec_id
                || partition.as_ref().is_some_and(|partition| *partition != values)
            {
                return Err(other());
            }
            partition = Some(values);
        }
        Ok(partition.unwrap_or_else(|| PartitionValues::new(self.layout.partition_spec.spec_id, &[])))
    }

    /// Sorted runs of all files. Those that are not sorted are, piece by piece; a single piece that is all
    /// there is goes out at once.
    fn runs(
        &self,
        files: Vec<FileRun>,
        sorted: &[bool],
        schema: &SchemaRef,
        keys: &Keys,
        stats: &mut RewriteStats,
        output: &mut Output<'_>,
    ) -> Result<Vec<Run>> {
        let (mut runs, mut piece) = (Vec::new(), Vec::new());
        let (mut bytes, mut rows) = (0, 0);
        for (mut file, sorted) in files.into_iter().zip(sorted) {
            if *sorted {
                runs.push(Run::File(Box::new(file)));
                continue;
            }
            file.batch_rows = self.shares.batch_rows(1);
            let mut file = Run::File(Box::new(file));
            while let Some(batch) = file.next()? {
                bytes += batch.get_array_memory_size();
                rows += batch.num_rows();
                let arrays = keys.arrays(&batch)?;
                piece.push((batch, arrays));
                if bytes >= self.shares.sort_bytes || rows >= self.shares.sort_rows {
                    let window = Window::new(std::mem::take(&mut piece), bytes, keys)?;
                    runs.push(self.spill(schema, stats, |spill| spill.window(&window))?);
                    (bytes, rows) = (0, 0);
                }
            }
        }
        if !piece.is_empty() {
            let window = Window::new(piece, bytes, keys)?;
            if runs.is_empty() {
                output.window(&window)?;
            } else {
                runs.push(self.spill(schema, stats, |spill| spill.window(&window))?);
            }
        }
        Ok(runs)
    }

    /// Merges the smallest runs until no more are left than there is room for.
    fn narrow(
        &self,
        mut runs: Vec<Run>,
        schema: &SchemaRef,
        keys: &Keys,
        stats: &mut RewriteStats,
    ) -> Result<Vec<Run>> {
        loop {
            let held = runs.iter().map(|run| run.held_bytes(self.shares.block_bytes));
            let room = self.shares.fan_in(held.collect());
            let rows = self.shares.batch_rows(runs.len().min(room));
            runs.iter_mut().for_each(|run| run.set_batch_rows(rows));
            if runs.len() <= room {
                return Ok(runs);
            }
            let merged = smallest(&mut runs, room);
            let merge = Merge::new(merged, keys, self.shares.limits());
            runs.push(self.spill(schema, stats, |spill| merge.run(spill))?);
        }
    }

    fn spill(
        &self,
        schema: &SchemaRef,
        stats: &mut RewriteStats,
        fill: impl FnOnce(&mut Spill) -> Result<()>,
    ) -> Result<Run> {
        let left = self.options.spill_bytes_max.saturating_sub(stats.spilled_bytes);
        let mut spill = Spill::new(&self.options.spill_dir, schema, left, Grain::COARSE)?;
        fill(&mut spill)?;
        let spilled = spill.finish()?;
        stats.spilled_bytes += spilled.bytes;
        Ok(Run::Spill(Box::new(spilled.open(schema)?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
