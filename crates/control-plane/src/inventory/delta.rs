//! What one ledger entry does to the inventory. Pure.

use siltstone_protocol::{Change, Entry, FileEntry, OffsetRange};

/// Files that come and go, in the entry's own terms.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta<'e> {
    pub(super) added: &'e [FileEntry],
    pub(super) removed: &'e [String],
    pub(super) ranges: &'e [OffsetRange],
    /// Records that were rejected.
    pub(super) rejected: u64,
}

pub(super) fn delta(entry: &Entry) -> Delta<'_> {
    match &entry.change {
        Change::Append { files, ranges, rejected, .. } => Delta {
            added: files,
            ranges,
            rejected: rejected.iter().map(|count| count.records).fold(0, u64::saturating_add),
            ..Delta::default()
        },
        Change::Replace { removed, added, .. } | Change::Absorb { removed, added, .. } => {
            Delta { added, removed, ..Delta::default() }
        }
        // Its ranges lie below the position: it stays.
        Change::Delete { removed, added } | Change::Overwrite { removed, added, .. } => {
            Delta { added, removed, ..Delta::default() }
        }
        Change::ResetPositions { ranges } => Delta { ranges, ..Delta::default() },
        _ => Delta::default(),
    }
}

/// A number as the database holds it: what is larger is said to be the largest.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn sum(files: &[FileEntry], of: impl Fn(&FileEntry) -> u64) -> i64 {
    count(files.iter().map(of).fold(0, u64::saturating_add))
}
