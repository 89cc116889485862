//! A flush: batches in, durable files out.
//!
//! 1. Check the batches against the table's schema; sort once (`sort`).
//! 2. On a blocking thread, for each partition in order: open a file, gather and encode the sorted rows,
//!    stripe after stripe, in it column after column, in it slice after slice. One file is open at a time, so
//!    thousands of partitions cost no more memory than one.
//! 3. Parts stream to the store meanwhile (`upload`). Files roll at the target size.
//!
//! Memory beside the batches: the sort index (`sort`), one column of one slice (`gather`), the row group in
//! flight (`encode`), and the parts under way (`upload`): all independent of the number of partitions.
//!
//! Dropping the future stops the encoder at its next part. On error nothing is deleted.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use object_store::{ObjectStore, path::Path};
use tokio::sync::mpsc;

use crate::{
    arrow_schema,
    column::conform,
    encode::EncoderOptions,
    error::Result,
    gather::Gather,
    layout::{Layout, WrittenFile},
    partition::{PartitionValues, value_bytes},
    roll::{Roll, Target},
    sort::{Batches, SortedIndex, sort},
    sort_key::key_bytes,
    upload::{Part, encode_and_upload},
};

/// Rows of a slice: few enough that a column of it stays in cache.
const SLICE_ROWS: usize = 8192;
/// Bytes of a slice, about, all columns together.
const SLICE_BYTES: usize = 8 << 20;
/// Slices that one column is encoded for before the next column's turn: its buffered values stay in cache.
pub(crate) const STRIPE_SLICES: usize = 32;
/// The sample for choosing encodings: stretches of sorted rows.
const SAMPLE_STRETCHES: usize = 8;
const SAMPLE_STRETCH_ROWS: usize = 1024;

/// Sorts by (partition, sort order) and writes data files; they are durable when this returns.
///
/// # Errors
/// `Store`: the outcome may be unknown, nothing is deleted. `SchemaMismatch`, `NullInRequired`: the batches
/// are not of the layout's schema. `UnknownField`, `Transform`: the layout contradicts itself.
pub async fn write_sorted(
    batches: Vec<RecordBatch>,
    layout: &Layout,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
) -> Result<Vec<WrittenFile>> {
    let (owned, location) = (layout.clone(), table_location.clone());
    encode_and_upload(&layout.host, store, move |parts| encode(batches, &owned, &location, parts)).await
}

fn encode(
    batches: Vec<RecordBatch>,
    layout: &Layout,
    table_location: &Path,
    parts: &mpsc::Sender<Part>,
) -> Result<Vec<WrittenFile>> {
    let schema = arrow_schema(&layout.schema)?;
    let schema_id = layout.schema.schema_id;
    let batches =
        batches.into_iter().map(|batch| conform(&batch, &schema, schema_id)).collect::<Result<Vec<_>>>()?;
    let batches = Batches::new(batches, &schema)?;
    if batches.rows() == 0 {
        return Ok(Vec::new());
    }
    let index = sort(&batches, &layout.schema, &layout.partition_spec, &layout.sort_order)?;
    let columns =
        (0..schema.fields().len()).map(|column| Gather::new(&batches, column)).collect::<Result<Vec<_>>>()?;
    let sample = sample_places(&index);
    let sample = columns.iter().map(|column| column.rows(&sample)).collect::<Result<Vec<ArrayRef>>>()?;
    let options = EncoderOptions::new(layout, &sample)?;
    drop(sample);
    let bytes: usize = batches.batches().iter().map(RecordBatch::get_array_memory_size).sum();
    let flush = Flush {
        target: Arc::new(Target {
            layout,
            options,
            table_location,
            parts,
            sort_order_id: layout.sort_order.order_id,
        }),
        index: &index,
        batches: &batches,
        columns,
        slice_rows: slice_rows(bytes, batches.rows()),
    };
    let mut files = Vec::with_capacity(index.partitions.len());
    for range in &index.partitions {
        let rows = &index.rows[range.clone()];
        let values = partition_values(&batches, &index, rows, layout.partition_spec.spec_id)?;
        files.append(&mut flush.write_partition(rows, &values)?);
    }
    Ok(files)
}

/// Rows of a slice when rows are of this size.
pub(crate) fn slice_rows(bytes: usize, rows: usize) -> usize {
    (SLICE_BYTES / (bytes / rows.max(1)).max(1)).clamp(1, SLICE_ROWS)
}

fn sample_places(index: &SortedIndex) -> Vec<u32> {
    let rows = index.rows.len();
    if rows <= SAMPLE_STRETCHES * SAMPLE_STRETCH_ROWS {
        return index.rows.clone();
    }
    let stretch = |number: usize| {
        let start = (rows - SAMPLE_STRETCH_ROWS) / (SAMPLE_STRETCHES - 1) * number;
        index.rows[start..start + SAMPLE_STRETCH_ROWS].iter().copied()
    };
    (0..SAMPLE_STRETCHES).flat_map(stretch).collect()
}

/// The partition of these rows: that of the first.
fn partition_values(
    batches: &Batches,
    index: &SortedIndex,
    rows: &[u32],
    spec_id: i32,
) -> Result<PartitionValues> {
    let (batch, row) = rows.first().map_or((0, 0), |place| batches.locate(*place));
    let values = index.partition_columns.iter().map(|column| value_bytes(column[batch].as_ref(), row));
    Ok(PartitionValues::new(spec_id, &values.collect::<Result<Vec<_>>>()?))
}

struct Flush<'a> {
    target: Arc<Target<'a>>,
    index: &'a SortedIndex,
    batches: &'a Batches,
    columns: Vec<Gather>,
    slice_rows: usize,
}

impl Flush<'_> {
    fn write_partition(&self, mut rows: &[u32], values: &PartitionValues) -> Result<Vec<WrittenFile>> {
        let mut roll = Roll::new(Arc::clone(&self.target), values)?;
        while let Some(first) = rows.first() {
            let room = roll.room(self.slice_rows, rows.len())?.min(self.slice_rows * STRIPE_SLICES);
            let (stripe, later) = rows.split_at(room.min(rows.len()));
            let keys = (self.key(*first)?, self.key(*stripe.last().unwrap_or(first))?);
            roll.write(stripe.len(), self.slice_rows, keys, |column, range| {
                self.columns[column].rows(&stripe[range])
            })?;
            rows = later;
        }
        roll.finish()
    }

    fn key(&self, place: u32) -> Result<Vec<u8>> {
        let (batch, row) = self.batches.locate(place);
        key_bytes(&self.index.keys, batch, row)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
