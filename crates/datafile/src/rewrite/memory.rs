//! How a rewrite's memory is divided.
//!
//! | share | for |
//! | --- | --- |
//! | fixed | parts of the upload under way |
//! | a quarter of the rest at most | the row group being encoded |
//! | a third of what is left | rows of the window, and the words that sort them |
//! | two thirds | what runs hold: inputs held whole (a quarter of it), blocks, pages, dictionaries |
//!
//! How many runs are merged at once follows from what their footers say of their pages.

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use siltstone_protocol::{PrimitiveType, Schema, Type};

use super::merge::Limits;
use crate::{layout::Layout, upload::PART_BYTES};

/// The least budget.
pub(super) const MEMORY_BYTES_MIN: u64 = 128 << 20;
/// Parts that the upload holds at most.
const PARTS: u64 = 7;
/// Rows of a window: a stripe of the encoder.
const WINDOW_ROWS_MAX: usize = 1 << 18;
const BATCH_ROWS_MAX: usize = 8192;
const BATCH_ROWS_MIN: usize = 64;
/// Bytes of a batch, about.
const BATCH_BYTES_MAX: usize = 4 << 20;
const BLOCK_BYTES_MIN: u64 = 64 << 10;
const BLOCK_BYTES_MAX: u64 = 4 << 20;
/// What the decoder of a column holds beside its page, about.
const DECODER_BYTES: u64 = 16 << 10;
/// Sort words of a row.
pub(super) const WORD_BYTES: usize = 36;

/// Shares of one rewrite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) row_group_bytes: u64,
    /// What inputs that are held whole may take together.
    pub(super) whole_bytes: u64,
    /// Of a block of a column chunk.
    pub(super) block_bytes: u64,
    /// What runs that are merged at once may hold.
    run_bytes: u64,
    /// Of rows that are sorted at once, with their words.
    pub(super) sort_bytes: usize,
    pub(super) sort_rows: usize,
    window_bytes: usize,
    row_bytes: usize,
    /// All but the upload's parts.
    rest: u64,
}

impl Shares {
    pub(super) fn of(memory_bytes: u64, layout: &Layout, inputs: usize) -> Self {
        let rest = memory_bytes.max(MEMORY_BYTES_MIN) - PARTS * PART_BYTES as u64;
        let row_group_bytes = rest / 4;
        // A row group is closed after the stripe that fills it.
        let encoder = row_group_bytes.min(layout.files.row_group_bytes / 4 * 5);
        let window = (rest - encoder) / 3;
        let runs = rest - encoder - window;
        let whole_bytes = runs / 4;
        let chunks = leaves(&layout.schema).max(1) * inputs.max(1) as u64;
        let block_bytes = (runs / 4 / chunks / 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let row_bytes = row_bytes(&layout.schema);
        let window_bytes = usize::try_from(window).unwrap_or(usize::MAX);
        Self {
            row_group_bytes,
            whole_bytes,
            block_bytes,
            run_bytes: runs - whole_bytes,
            sort_bytes: window_bytes / 4 * 3,
            sort_rows: window_bytes / 4 / WORD_BYTES,
            window_bytes,
            row_bytes,
            rest,
        }
    }

    /// What a flush of rows that are all in memory may hold of them, with the words that sort them: the rest is
    /// the upload's and the encoder's.
    pub(super) fn flush_bytes(&self, layout: &Layout) -> u64 {
        let encoder = layout.files.row_group_bytes.min(self.row_group_bytes) / 4 * 5;
        self.rest.saturating_sub(encoder)
    }

    /// How many runs can be merged at once, by what each holds.
    pub(super) fn fan_in(&self, mut held: Vec<u64>) -> usize {
        held.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
        let mut sum = 0_u64;
        let fits = |bytes: &u64| {
            sum = sum.saturating_add(*bytes);
            sum <= self.run_bytes
        };
        held.into_iter().take_while(fits).count().max(2)
    }

    /// Rows of a batch when this many runs are merged.
    pub(super) fn batch_rows(&self, runs: usize) -> usize {
        let fair = WINDOW_ROWS_MAX / runs.max(1);
        let bytes = (self.window_bytes / 2 / runs.max(1)).min(BATCH_BYTES_MAX);
        fair.min(bytes / self.row_bytes).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX)
    }

    pub(super) fn limits(&self) -> Limits {
        let rows = (self.window_bytes / 4 / WORD_BYTES).min(WINDOW_ROWS_MAX);
        Limits { window_rows: rows, bytes: self.window_bytes / 4 * 3 }
    }
}

fn leaves(schema: &Schema) -> u64 {
    let mut count = 0;
    schema.visit(&mut |_| count += 1);
    count
}

/// Bytes of a row in memory, about: what is not of fixed size counts as a short text.
fn row_bytes(schema: &Schema) -> usize {
    fn of(data_type: &Type) -> usize {
        match data_type {
            Type::Primitive(primitive) => match primitive {
                PrimitiveType::Boolean => 1,
                PrimitiveType::Int | PrimitiveType::Float | PrimitiveType::Date => 4,
                PrimitiveType::Decimal { .. } | PrimitiveType::Uuid => 16,
                PrimitiveType::Fixed(length) => *length as usize,
                PrimitiveType::String | PrimitiveType::Binary => 36,
                _ => 8,
            },
            Type::Struct(fields) => fields.iter().map(|field| of(&field.data_type)).sum(),
            Type::List { element, .. } => 4 + 4 * of(element),
            Type::Map { key, value, .. } => 4 + 4 * (of(key) + of(value)),
        }
    }
    schema.fields.iter().map(|field| of(&field.data_type)).sum::<usize>().max(1)
}

/// What the decoder of a file holds at once, at most: of each column a page with its dictionary, and two
/// blocks unless the file is held whole.
pub(super) fn held_by(metadata: &ParquetMetaData, block_bytes: Option<u64>) -> u64 {
    let positive = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let of = |group: usize| -> u64 {
        let pages = metadata.offset_index().and_then(|index| index.get(group));
        let chunk = |(column, chunk): (usize, &ColumnChunkMetaData)| {
            let pages =
                pages.and_then(|pages| pages.get(column)).map_or(1, |pages| pages.page_locations().len());
            let page = positive(chunk.uncompressed_size()) / pages.max(1) as u64 * 3 / 2;
            let blocks = block_bytes.map_or(0, |bytes| positive(chunk.compressed_size()).min(2 * bytes));
            page + blocks + DECODER_BYTES
        };
        metadata.row_group(group).columns().iter().enumerate().map(chunk).sum()
    };
    (0..metadata.num_row_groups()).map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_fixed_counts_something() {
        let schema = crate::layout::tests::every_type();
        assert!(row_bytes(&schema) > 100 && leaves(&schema) > 20);
    }
}
