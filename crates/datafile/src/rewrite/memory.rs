//! How a rewrite's memory is divided.
//!
//! | share | for |
//! | --- | --- |
//! | fixed | parts of the upload under way |
//! | a quarter of the rest | the row group being encoded |
//! | three eighths | what runs hold: inputs held whole, blocks, pages, a batch of each run |
//! | three eighths | rows of the window, and the words that sort them |

use siltstone_protocol::{PrimitiveType, Schema, Type};

use super::merge::Limits;
use crate::{layout::Layout, upload::PART_BYTES};

/// The least budget.
const MEMORY_BYTES_MIN: u64 = 128 << 20;
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
/// A decoded page and dictionary of one column, about; pages end at 1 MiB or 20,000 rows.
const PAGE_BYTES: u64 = 400 << 10;
/// Sort words of a row.
const WORD_BYTES: usize = 36;

/// Shares of one rewrite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) row_group_bytes: u64,
    /// What inputs that are held whole may take together.
    pub(super) whole_bytes: u64,
    /// Of a block of a column chunk.
    pub(super) block_bytes: u64,
    /// Runs that can be merged at once.
    pub(super) fan_in: usize,
    /// Of rows that are sorted at once, with their words.
    pub(super) sort_bytes: usize,
    pub(super) sort_rows: usize,
    window_bytes: usize,
    row_bytes: usize,
}

impl Shares {
    pub(super) fn of(memory_bytes: u64, layout: &Layout, inputs: usize) -> Self {
        let rest = memory_bytes.max(MEMORY_BYTES_MIN) - PARTS * PART_BYTES as u64;
        let row_group_bytes = rest / 4;
        let (runs, window) = (rest / 8 * 3, rest / 8 * 3);
        let columns = leaves(&layout.schema).max(1);
        let whole_bytes = runs / 3;
        let chunks = columns * inputs.max(1) as u64;
        let block_bytes = (runs / 3 / chunks / 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let row_bytes = row_bytes(&layout.schema);
        let run = columns * (2 * block_bytes + PAGE_BYTES) + (BATCH_ROWS_MIN * row_bytes) as u64;
        let fan_in = usize::try_from((runs - whole_bytes) / run).unwrap_or(usize::MAX).max(2);
        let window_bytes = usize::try_from(window).unwrap_or(usize::MAX);
        Self {
            row_group_bytes,
            whole_bytes,
            block_bytes,
            fan_in,
            sort_bytes: window_bytes / 4 * 3,
            sort_rows: window_bytes / 4 / WORD_BYTES,
            window_bytes,
            row_bytes,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_fixed_counts_something() {
        let schema = crate::layout::tests::every_type();
        assert!(row_bytes(&schema) > 100 && leaves(&schema) > 20);
    }
}
