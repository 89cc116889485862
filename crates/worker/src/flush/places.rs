//! Which offsets of a flush a dead-letter table has, lacks, and claims: by its coverage, and by its rows.

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int32Type, Int64Type},
};
use siltstone_lakehouse::{LedgerState, SourcePartition};
use siltstone_protocol::OffsetRange;

/// The rows of a dead-letter batch whose offsets the table's coverage does not hold.
pub(super) fn not_yet_held(batch: &RecordBatch, state: &LedgerState) -> Option<RecordBatch> {
    let clusters = batch.column_by_name("cluster")?.as_string_opt::<i32>()?;
    let topics = batch.column_by_name("topic")?.as_string_opt::<i32>()?;
    let partitions = batch.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?;
    let offsets = batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let offset = offsets.value(row);
            let held = state
                .coverage
                .get(&source(clusters.value(row), topics.value(row), partitions.value(row)))
                .is_some_and(|coverage| coverage.covers(offset, offset + 1));
            Some(!held)
        })
        .collect();
    filter_record_batch(batch, &keep).ok()
}

/// The rows of a dead-letter batch that are of these places, which are sorted.
pub(super) fn rows_of(batch: &RecordBatch, places: &[(i32, i64)]) -> Option<RecordBatch> {
    let partitions = batch.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?;
    let offsets = batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?;
    let is_meant = |row: usize| places.binary_search(&(partitions.value(row), offsets.value(row))).is_ok();
    let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_meant(row))).collect();
    filter_record_batch(batch, &keep).ok()
}

/// Those of the places, which are sorted, that lie in these ranges.
pub(super) fn within(places: &[(i32, i64)], ranges: &[OffsetRange]) -> Vec<(i32, i64)> {
    let mut found = Vec::new();
    for range in ranges {
        let first = places.partition_point(|place| *place < (range.partition, range.start));
        let last = places.partition_point(|place| *place < (range.partition, range.end));
        found.extend_from_slice(places.get(first..last).unwrap_or_default());
    }
    found.sort_unstable();
    found
}

/// What the dead-letter table still lacks of these ranges: each begins where its coverage ends.
pub(super) fn missing_ranges(ranges: &[OffsetRange], state: &LedgerState) -> Vec<OffsetRange> {
    ranges
        .iter()
        .filter_map(|range| {
            let held = state.next_offset(&source(&range.cluster, &range.topic, range.partition));
            let start = held.unwrap_or(range.start);
            (start < range.end).then(|| OffsetRange { start, ..range.clone() })
        })
        .collect()
}

/// What of these ranges the dead-letter table covers.
pub(super) fn held_ranges(ranges: &[OffsetRange], state: &LedgerState) -> Vec<OffsetRange> {
    let mut held = Vec::new();
    for range in ranges.iter().filter(|range| !range.lost) {
        let Some(coverage) = state.coverage.get(&SourcePartition::of(range)) else { continue };
        for &(start, end) in coverage.intervals() {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if start < end {
                held.push(OffsetRange { start, end, ..range.clone() });
            }
        }
    }
    held
}

/// Partition and offset of rejected records, sorted.
pub(crate) fn rejected_places(batches: &[RecordBatch]) -> Vec<(i32, i64)> {
    let mut places = Vec::new();
    for batch in batches {
        let partitions = batch.column_by_name("partition").and_then(|c| c.as_primitive_opt::<Int32Type>());
        let offsets = batch.column_by_name("offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(partitions), Some(offsets)) = (partitions, offsets) else { continue };
        places.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    places.sort_unstable();
    places
}

/// The ranges without these offsets.
pub(super) fn without(ranges: Vec<OffsetRange>, places: &[(i32, i64)]) -> Vec<OffsetRange> {
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let first = places.partition_point(|place| *place < (range.partition, range.start));
        let within = places[first..].iter().take_while(|place| **place < (range.partition, range.end));
        let mut start = range.start;
        for &(_, offset) in within {
            if start < offset {
                left.push(OffsetRange { start, end: offset, ..range.clone() });
            }
            start = offset + 1;
        }
        if start < range.end {
            left.push(OffsetRange { start, ..range });
        }
    }
    left
}

pub(super) fn source(cluster: &str, topic: &str, partition: i32) -> SourcePartition {
    SourcePartition { cluster: cluster.to_owned(), topic: topic.to_owned(), partition }
}
