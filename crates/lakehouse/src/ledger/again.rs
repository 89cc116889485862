//! What a change says of offsets after the fact: dead letters that are rows now, ranges that are ingested anew.
//!
//! Such offsets lie below the position, which is the live workers'. What is said of them comes of a look at the table,
//! and holds only if no rows of these partitions came since, nor any of another program.

use std::collections::BTreeMap;

use siltstone_protocol::{FileEntry, OffsetRange};

use super::{
    admit::{Admission, all_live, all_new, conflict, invalid, not_too_many, well_formed},
    revisions::Revision,
    state::{LedgerState, SourcePartition},
};
use crate::error::LakeError;

/// Dead letters that are rows now. They were consumed, so the position does not move.
pub(super) fn replay(
    state: &LedgerState,
    replayed: &[OffsetRange],
    base: u64,
) -> Result<Admission, LakeError> {
    not_too_many(state, replayed.len())?;
    below_the_position(state, replayed)?;
    let covered = |range: &OffsetRange| {
        let held = state.coverage.get(&SourcePartition::of(range));
        held.is_some_and(|held| held.covers(range.start, range.end))
    };
    if !replayed.iter().all(covered) {
        return Err(invalid(state, "dead letters are replayed of offsets that were consumed"));
    }
    let held = |range: &&OffsetRange| {
        state
            .replayed
            .get(&SourcePartition::of(range))
            .is_some_and(|held| held.covers(range.start, range.end))
    };
    let touched = |range: &&OffsetRange| {
        state
            .replayed
            .get(&SourcePartition::of(range))
            .is_some_and(|held| held.touches(range.start, range.end))
    };
    if replayed.iter().all(|range| held(&range)) {
        return Ok(Admission::AlreadySo);
    }
    looked_since(state, replayed, base, |revision| revision.overwritten)?;
    match replayed.iter().find(touched) {
        None => Ok(Admission::Admitted),
        Some(range) => Err(conflict(
            state,
            format!(
                "offsets {}..{} of {}/{}/{} were replayed by others, wholly or in part",
                range.start, range.end, range.cluster, range.topic, range.partition
            ),
        )),
    }
}

/// Refuses what was made of a look at the table that did not see the newest rows of these offsets.
fn looked_since(
    state: &LedgerState,
    ranges: &[OffsetRange],
    base: u64,
    of: impl Fn(&Revision) -> u64,
) -> Result<(), LakeError> {
    if base > state.version {
        return Err(invalid(state, format_args!("a change looked at version {base}, which is not there")));
    }
    let Some((range, version)) = state.revised(ranges, base, of) else { return Ok(()) };
    let problem = format!(
        "rows of {}/{}/{} came with version {version}, after the look at version {base}",
        range.cluster, range.topic, range.partition
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
fn below_the_position(state: &LedgerState, ranges: &[OffsetRange]) -> Result<(), LakeError> {
    well_formed(state, ranges)?;
    let mut seen: BTreeMap<SourcePartition, Vec<(i64, i64)>> = BTreeMap::new();
    for range in ranges {
        let key = SourcePartition::of(range);
        let below = state.next_offset(&key).is_some_and(|next| range.end <= next);
        if range.start == range.end || range.lost || !below {
            let problem = format_args!(
                "offsets {}..{} of {}/{}/{} are not below the position",
                range.start, range.end, range.cluster, range.topic, range.partition
            );
            return Err(invalid(state, problem));
        }
        seen.entry(key).or_default().push((range.start, range.end));
    }
    for ranges in seen.values_mut() {
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
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
    base: u64,
) -> Result<Admission, LakeError> {
    not_too_many(state, ranges.len())?;
    below_the_position(state, ranges)?;
    looked_since(state, ranges, base, |revision| revision.filled)?;
    not_absorbed_since(state, ranges, base)?;
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
    if replayed.iter().all(|inner| lies_within(inner, ranges)) {
        return Ok(());
    }
    Err(invalid(state, "an entry of offsets replays offsets of its own ranges only"))
}

/// True when a range is part of one of these, and of offsets that were there.
fn lies_within(inner: &OffsetRange, ranges: &[OffsetRange]) -> bool {
    let holds = |outer: &OffsetRange| {
        !outer.lost
            && outer.start <= inner.start
            && inner.end <= outer.end
            && SourcePartition::of(outer) == SourcePartition::of(inner)
    };
    !inner.lost && inner.start < inner.end && ranges.iter().any(holds)
}
