//! Ledger entries as steps of the Iceberg table (pure).
//!
//! Runs of appends become one snapshot. A replace or a delete is a snapshot of its own. Layout changes
//! are updates of the metadata. Entries without files (positions, rejected records, formats) change
//! nothing here: the step before or after them carries the version on.

use std::{collections::HashSet, sync::Arc};

use siltstone_protocol::{Change, Entry, FileEntry, Format, OffsetRange, PartitionSpec, Schema, SortOrder};

use super::offsets::Move;

/// Files added by one snapshot at most.
pub(crate) const FILES_PER_SNAPSHOT_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// Nothing to show.
    Positions,
    Append(Vec<FileEntry>),
    Replace {
        removed: Vec<String>,
        added: Vec<FileEntry>,
    },
    Delete(Vec<String>),
    /// Files leave, and those of their rows that stay come in others.
    Cut {
        removed: Vec<String>,
        added: Vec<FileEntry>,
    },
    /// Rows change: files leave, and what they became comes in others.
    Overwrite {
        removed: Vec<String>,
        added: Vec<FileEntry>,
    },
    /// The difference to the ledger's state, because the entries or files between are gone.
    Resync {
        removed: Vec<String>,
        added: Vec<FileEntry>,
    },
    /// What another program did, as the ledger took it in.
    Absorb(Box<Absorb>),
    /// An absorb as it is shown here.
    Swap(Box<Swap>),
    /// A step that does not fit a table that is apart: the next absorb makes up for it.
    PassedOver,
    SetSchema(Schema),
    SetPartitionSpec(PartitionSpec),
    SetSortOrder(SortOrder),
}

/// [`Change::Absorb`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Absorb {
    pub(crate) format: Format,
    pub(crate) base: u64,
    pub(crate) seen: u64,
    pub(crate) removed: Vec<String>,
    pub(crate) added: Vec<FileEntry>,
    pub(crate) absorbed: Vec<String>,
    pub(crate) same_rows: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Swap {
    /// URLs of the files that leave.
    pub(crate) removed: HashSet<String>,
    /// Manifests of delete files that have nothing to delete from any more.
    pub(crate) deletes: HashSet<String>,
    pub(crate) added: Vec<FileEntry>,
    pub(crate) operation: &'static str,
    /// Where the table was looked at, and at which ledger version, when the absorb is of this format.
    pub(crate) covers: Option<(u64, u64)>,
}

/// One change of the Iceberg table and the last ledger entry it shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) work: Work,
    pub(crate) version: u64,
    pub(crate) commit_id: String,
    pub(crate) committed_ms: i64,
    /// Positions moved by the entries of this step, in order.
    pub(crate) moves: Vec<Move>,
}

/// The steps that show `entries`, in order.
pub(crate) fn steps(entries: &[Arc<Entry>]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for entry in entries {
        let step = step(entry);
        match steps.last_mut() {
            Some(last) if joins(last, &step) => join(last, step),
            _ => steps.push(step),
        }
    }
    steps
}

fn step(entry: &Entry) -> Step {
    let appended = |ranges: &[OffsetRange]| ranges.iter().cloned().map(Move::Append).collect();
    let (work, moves) = match &entry.change {
        Change::Append { files, ranges, .. } if files.is_empty() => (Work::Positions, appended(ranges)),
        Change::Append { files, ranges, .. } => (Work::Append(files.clone()), appended(ranges)),
        Change::Replace { removed, added, .. } => {
            (Work::Replace { removed: removed.clone(), added: added.clone() }, Vec::new())
        }
        Change::Delete { removed, added } if added.is_empty() => (Work::Delete(removed.clone()), Vec::new()),
        Change::Delete { removed, added } => {
            (Work::Cut { removed: removed.clone(), added: added.clone() }, Vec::new())
        }
        Change::Overwrite { removed, added, .. } => (overwritten(removed, added), Vec::new()),
        Change::Absorb { format, base, seen, removed, added, absorbed, same_rows } => {
            let absorb = Absorb {
                format: *format,
                base: *base,
                seen: *seen,
                removed: removed.clone(),
                added: added.clone(),
                absorbed: absorbed.clone(),
                same_rows: *same_rows,
            };
            (Work::Absorb(Box::new(absorb)), Vec::new())
        }
        Change::SetSchema { schema } => (Work::SetSchema(schema.clone()), Vec::new()),
        Change::SetPartitionSpec { partition_spec } => {
            (Work::SetPartitionSpec(partition_spec.clone()), Vec::new())
        }
        Change::SetSortOrder { sort_order } => (Work::SetSortOrder(sort_order.clone()), Vec::new()),
        Change::ResetPositions { ranges } => {
            (Work::Positions, ranges.iter().cloned().map(Move::Reset).collect())
        }
        // Creation is shown before any step; formats and what this version does not know show nothing.
        _ => (Work::Positions, Vec::new()),
    };
    Step {
        work,
        version: entry.version,
        commit_id: entry.commit_id.clone(),
        committed_ms: entry.committed_ms,
        moves,
    }
}

fn overwritten(removed: &[String], added: &[FileEntry]) -> Work {
    match (removed, added) {
        ([], []) => Work::Positions,
        ([], added) => Work::Append(added.to_vec()),
        (removed, added) => Work::Overwrite { removed: removed.to_vec(), added: added.to_vec() },
    }
}

fn joins(last: &Step, next: &Step) -> bool {
    match (&last.work, &next.work) {
        (_, Work::Positions) | (Work::Positions, _) => true,
        (Work::Append(a), Work::Append(b)) => a.len() + b.len() <= FILES_PER_SNAPSHOT_MAX,
        _ => false,
    }
}

fn join(last: &mut Step, next: Step) {
    match (&mut last.work, next.work) {
        (_, Work::Positions) => {}
        (Work::Append(files), Work::Append(more)) => files.extend(more),
        (work, other) => *work = other,
    }
    last.version = next.version;
    last.commit_id = next.commit_id;
    last.committed_ms = last.committed_ms.max(next.committed_ms);
    last.moves.extend(next.moves);
}
