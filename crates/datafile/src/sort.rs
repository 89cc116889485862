//! One sort per flush: by partition values, then by the sort order, then by arrival.
//!
//! 1. Batches are brought to sizes such that a row's place (batch, row) fits 32 bits; places in rising
//!    order are arrival order.
//! 2. Every key column is read as an unsigned code of as few bits as its values in this flush need,
//!    nulls and direction folded in (`codes`). Codes are packed, first key in the top bits, with the
//!    place below them: into 64 bits when they fit, else into 128.
//! 3. The packed words are sorted (skipped when they already are in order).
//! 4. What does not fit, or is known by its prefix only (long strings), is decided by comparing values,
//!    only among rows whose packed codes are equal (`compare`).
//! 5. Partitions are the runs of equal partition values.
//!
//! Order of values is Iceberg's: floats have -0.0 before +0.0 and every NaN after +infinity; strings and
//! bytes compare as unsigned bytes; decimals by value.
//!
//! Memory beside the batches: 16 or 32 bytes a row while sorting (words, and room for as many), 4 bytes a row
//! afterwards; transformed keys that are new columns, while they are in use.

mod batches;
mod codes;
mod compare;
mod pack;

use std::ops::Range;

use arrow::array::ArrayRef;
use siltstone_protocol::{NullOrder, PartitionSpec, Schema, SortDirection, SortOrder, Transform};

pub use self::batches::Batches;
pub(crate) use self::{
    batches::locate,
    codes::{ordered_f32, ordered_f64},
};
use self::{codes::Plan, compare::Comparator, pack::Word};
use crate::{
    column::{source_array, source_column},
    error::Result,
    transform::transform,
};

/// One key: its column in every batch, and how it is ordered.
pub(crate) struct Key {
    pub(crate) arrays: Vec<ArrayRef>,
    pub(crate) descending: bool,
    pub(crate) nulls_last: bool,
}

/// The rows of a flush in their final order.
pub struct SortedIndex {
    /// Places in [`Batches`].
    pub rows: Vec<u32>,
    /// Ranges of `rows`, one per partition, in order.
    pub partitions: Vec<Range<usize>>,
    /// Transformed partition columns, one per partition field, each in every batch.
    pub(crate) partition_columns: Vec<Vec<ArrayRef>>,
    /// The keys of the sort order.
    pub(crate) keys: Vec<Key>,
}

impl std::fmt::Debug for SortedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SortedIndex")
            .field("rows", &self.rows.len())
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

/// Sorts a flush.
///
/// # Errors
/// `UnknownField`, `Transform`: the spec or the order does not fit the schema.
pub fn sort(
    batches: &Batches,
    schema: &Schema,
    spec: &PartitionSpec,
    order: &SortOrder,
) -> Result<SortedIndex> {
    let column = |source_id: i32, by: Transform| -> Result<Vec<ArrayRef>> {
        let column = source_column(schema, source_id)?;
        crate::transform::result_type(by, column.primitive)?;
        let each = |batch| transform(by, &source_array(batch, &column)?);
        batches.batches().iter().map(each).collect()
    };
    let mut keys = Vec::with_capacity(spec.fields.len() + order.fields.len());
    for field in &spec.fields {
        let arrays = column(field.source_id, field.transform)?;
        keys.push(Key { arrays, descending: false, nulls_last: false });
    }
    for field in &order.fields {
        keys.push(Key {
            arrays: column(field.source_id, field.transform)?,
            descending: field.direction == SortDirection::Desc,
            nulls_last: field.null_order == NullOrder::NullsLast,
        });
    }
    let (rows, partitions) = sort_keys(batches, &keys, spec.fields.len())?;
    let keys_of_order = keys.split_off(spec.fields.len());
    let partition_columns = keys.into_iter().map(|key| key.arrays).collect();
    Ok(SortedIndex { rows, partitions, partition_columns, keys: keys_of_order })
}

/// Sorts by all keys; the first `partition_keys` of them also divide the rows.
pub(crate) fn sort_keys(
    batches: &Batches,
    keys: &[Key],
    partition_keys: usize,
) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
    if keys.is_empty() {
        let rows: Vec<u32> = batches.places().collect();
        let partitions = if rows.is_empty() { Vec::new() } else { std::iter::once(0..rows.len()).collect() };
        return Ok((rows, partitions));
    }
    let plan = Plan::new(keys)?;
    if plan.bits() <= u64::KEY_BITS {
        sort_words::<u64>(batches, keys, &plan, partition_keys)
    } else {
        sort_words::<u128>(batches, keys, &plan, partition_keys)
    }
}

fn sort_words<W: Word>(
    batches: &Batches,
    keys: &[Key],
    plan: &Plan,
    partition_keys: usize,
) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
    let mut words: Vec<W> = plan.pack(batches)?;
    pack::sort(&mut words, plan.bits());
    if let Some(first) = plan.first_undecided() {
        let rest = Comparator::new(&keys[first..], batches)?;
        resolve_ties(&mut words, &rest);
    }
    let partitions = match (partition_keys, plan.exact_bits(partition_keys)) {
        _ if words.is_empty() => Vec::new(),
        (0, _) => std::iter::once(0..words.len()).collect(),
        (_, Some(bits)) => {
            let below = plan.bits() - bits;
            runs(words.len(), |a, b| words[a].key() >> below == words[b].key() >> below)
        }
        (_, None) => {
            let same = Comparator::new(&keys[..partition_keys], batches)?;
            runs(words.len(), |a, b| same.compare(words[a].place(), words[b].place()).is_eq())
        }
    };
    Ok((words.iter().map(|word| word.place()).collect(), partitions))
}

/// Orders rows of equal packed codes by the remaining keys, then by arrival.
fn resolve_ties<W: Word>(words: &mut [W], rest: &Comparator) {
    for run in words.chunk_by_mut(|a, b| a.key() == b.key()) {
        if run.len() > 1 {
            run.sort_unstable_by(|a, b| {
                rest.compare(a.place(), b.place()).then_with(|| a.place().cmp(&b.place()))
            });
        }
    }
}

/// Maximal ranges of neighbours that are the same.
fn runs(length: usize, same: impl Fn(usize, usize) -> bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for next in 1..=length {
        if next == length || !same(next - 1, next) {
            ranges.push(start..next);
            start = next;
        }
    }
    ranges
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
