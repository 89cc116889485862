//! When rows of offsets below a partition's position came last: who laid such rows down, or takes them away, after a
//! look that is older than that did not see them.
//!
//! Removed files that must be live say nothing of rows that came meanwhile: an overwrite would leave them, and the
//! offsets would be there twice. So it names the version of its look, and so does a replay, whose dead letters an
//! overwrite may have turned into rows.

use siltstone_protocol::{Change, OffsetRange};

use super::state::{LedgerState, SourcePartition, by_partition};

/// Versions of one partition; 0: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Of the newest entry that laid rows below the position down, or that claimed some, which brings none: a replay,
    /// a backfill, an overwrite, a claim.
    pub filled: u64,
    /// Of the newest overwrite.
    pub overwritten: u64,
}

/// Partitions of which a change lays rows below the position down, or claims some.
pub(super) fn filled(state: &LedgerState, change: &Change) -> Vec<SourcePartition> {
    let below = |range: &&OffsetRange| {
        let next = state.next_offset(&SourcePartition::of(range));
        !range.lost && range.start < range.end && next.is_some_and(|next| range.end <= next)
    };
    match change {
        Change::Append { ranges, replayed, .. } => {
            let beside = if ranges.is_empty() { replayed.as_slice() } else { &[] };
            let beside = by_partition(beside).into_iter().map(|(partition, _)| partition);
            ranges.iter().filter(below).map(SourcePartition::of).chain(beside).collect()
        }
        Change::Overwrite { ranges, .. } => {
            by_partition(ranges).into_iter().map(|(partition, _)| partition).collect()
        }
        _ => Vec::new(),
    }
}

impl LedgerState {
    /// Notes that `version` laid rows of these partitions down, or claimed some.
    pub(super) fn revise(&mut self, partitions: Vec<SourcePartition>, version: u64, overwrites: bool) {
        for partition in partitions {
            let revision = self.revisions.entry(partition).or_default();
            revision.filled = version;
            if overwrites {
                revision.overwritten = version;
            }
        }
    }
}
