//! What a change says of offsets after the fact: dead letters that are rows now, ranges that are ingested anew.
//!
//! Such offsets lie below the position, which is the live workers'. What is said of them comes of a look at the table,
//! and holds only if no rows of these partitions came since, nor any of another program.

use std::collections::BTreeMap;

use siltstone_protocol::{Change, FileEntry, OffsetRange};

use super::{
    admit::{Admission, all_live, all_new, conflict, invalid, not_too_many},
    intervals::Intervals,
    revisions::Revision,
    state::{LedgerState, SourcePartition, by_partition},
};
use crate::error::LakeError;

/// Ranges, by the partition that they are of.
type ByPartition<'r> = [(SourcePartition, Vec<&'r OffsetRange>)];

/// Dead letters that are rows now, or come beside rows that a reset is about to take away. They were consumed, so the
/// position does not move.
pub(super) fn replay(state: &LedgerState, replayed: &[OffsetRange]) -> Result<Admission, LakeError> {
    not_too_many(state, replayed.len())?;
    let replayed = by_partition(replayed);
    below_the_position(state, &replayed)?;
    let (mut all_held, mut touched) = (true, None);
    for (partition, ranges) in &replayed {
        let (consumed, held) = (state.coverage.get(partition), state.replayed.get(partition));
        for range in ranges {
            if !consumed.is_some_and(|consumed| consumed.covers(range.start, range.end)) {
                return Err(invalid(state, "dead letters are replayed of offsets that were consumed"));
            }
            all_held &= held.is_some_and(|held| held.covers(range.start, range.end));
            if held.is_some_and(|held| held.touches(range.start, range.end)) {
                touched = touched.or(Some(*range));
            }
        }
    }
    if all_held {
        return Ok(Admission::AlreadySo);
    }
    let Some(range) = touched else { return Ok(Admission::Admitted) };
    let problem = format!(
        "offsets {}..{} of {}/{}/{} were replayed or claimed by others, wholly or in part",
        range.start, range.end, range.cluster, range.topic, range.partition
    );
    Err(conflict(state, problem))
}

/// Whether a change that is to come was made of a look that saw the newest rows. An entry was judged by the revisions
/// that its committer knew of.
pub(super) fn looked(state: &LedgerState, change: &Change) -> Result<(), LakeError> {
    match change {
        Change::Append { ranges, replayed, base, .. } if ranges.is_empty() && !replayed.is_empty() => {
            let base = base.unwrap_or_default();
            looked_since(state, &by_partition(replayed), base, |revision| revision.overwritten)
        }
        Change::Overwrite { ranges, base, .. } => {
            looked_since(state, &by_partition(ranges), *base, |revision| revision.filled)?;
            not_absorbed_since(state, ranges, *base)
        }
        _ => Ok(()),
    }
}

/// Refuses what was made of a look at the table that did not see the newest rows of these partitions.
fn looked_since(
    state: &LedgerState,
    ranges: &ByPartition<'_>,
    base: u64,
    of: impl Fn(&Revision) -> u64,
) -> Result<(), LakeError> {
    if base > state.version {
        return Err(invalid(state, format_args!("a change looked at version {base}, which is not there")));
    }
    let newest = |partition: &SourcePartition| state.revisions.get(partition).map_or(0, &of);
    let mut versions = ranges.iter().map(|(partition, _)| (partition, newest(partition)));
    let Some((partition, version)) = versions.find(|(_, version)| *version > base) else { return Ok(()) };
    let SourcePartition { cluster, topic, partition } = partition;
    let problem = format!(
        "rows of {cluster}/{topic}/{partition} came, or were claimed, with version {version}, after the look at \
         version {base}"
    );
    Err(conflict(state, problem))
}

/// Rows that another program laid down may be of any offsets.
fn not_absorbed_since(state: &LedgerState, ranges: &[OffsetRange], base: u64) -> Result<(), LakeError> {
    let newest = state.absorbs.values().map(|last| last.version).max().unwrap_or_default();
    if ranges.is_empty() || newest <= base {
        return Ok(());
    }
    let problem =
        format!("rows of another program came with version {newest}, after the look at version {base}");
    Err(conflict(state, problem))
}

/// Ranges that may be spoken of after the fact: named once, and below the position.
fn below_the_position(state: &LedgerState, ranges: &ByPartition<'_>) -> Result<(), LakeError> {
    for (partition, ranges) in ranges {
        let next = state.next_offset(partition);
        for range in ranges {
            let is_range = 0 <= range.start && range.start < range.end && !range.lost;
            if !is_range || next.is_none_or(|next| next < range.end) {
                let problem = format_args!(
                    "offsets {}..{} of {}/{}/{} are not below the position",
                    range.start, range.end, range.cluster, range.topic, range.partition
                );
                return Err(invalid(state, problem));
            }
        }
        let mut sorted: Vec<_> = ranges.iter().map(|range| (range.start, range.end)).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(invalid(state, "a change names an offset twice"));
        }
    }
    Ok(())
}

pub(super) fn overwrite(
    state: &LedgerState,
    removed: &[String],
    added: &[FileEntry],
    ranges: &[OffsetRange],
) -> Result<Admission, LakeError> {
    not_too_many(state, ranges.len())?;
    let partitions = by_partition(ranges);
    below_the_position(state, &partitions)?;
    if !removed.is_empty() || ranges.is_empty() {
        all_live(state, removed)?;
    }
    all_new(state, added)?;
    Ok(Admission::Admitted)
}

/// What the entry of some offsets says of dead letters: that records of these ranges, and of no others, are none now.
pub(super) fn of_its_ranges(
    state: &LedgerState,
    replayed: &[OffsetRange],
    ranges: &[OffsetRange],
) -> Result<(), LakeError> {
    not_too_many(state, replayed.len())?;
    if replayed.is_empty() {
        return Ok(());
    }
    let (mut own, mut fits) = (BTreeMap::new(), true);
    for (partition, ranges) in by_partition(ranges) {
        let mut offsets = Intervals::default();
        ranges.iter().filter(|range| !range.lost).for_each(|range| offsets.insert(range.start, range.end));
        own.insert(partition, offsets);
    }
    for (partition, inner) in by_partition(replayed) {
        let own = own.get(&partition);
        let is_part = |range: &&OffsetRange| {
            let own = own.is_some_and(|own| own.covers(range.start, range.end));
            !range.lost && range.start < range.end && own
        };
        fits &= inner.iter().all(is_part);
    }
    if fits {
        return Ok(());
    }
    Err(invalid(state, "an entry of offsets replays offsets of its own ranges only"))
}
