//! The dead letters of offsets that are committed now: which come, which leave, and when.
//!
//! A dead-letter table claims every offset up to its own position, so a hole of the main table may be no hole there.
//! What it holds of the offsets is therefore looked up row by row.
//!
//! 1. What was rejected now comes, in the place of what the table has of the same offsets: one entry.
//! 2. The entry of the rows follows. It says of the other letters of its offsets that they are settled.
//! 3. Those leave, for they are rows by now, or nothing.
//!
//! Killed between them, there are letters too many, and none too few; those of 3 are not open, for 2 said so, and the
//! next replay marks them. So it is with those whose files others changed after the look that 2 was made of: letters
//! that came since are not known to be settled. Doing it again changes nothing.

use std::collections::BTreeMap;

use siltstone_datafile::RewriteOptions;
use siltstone_lakehouse::{LakeError, LedgerState, SourcePartition, crash_point, ledger::Intervals};
use siltstone_protocol::{Change, FileEntry, OffsetRange};
use siltstone_spec::TableSpec;

use super::{
    commit::{Beside, Committer, Laid, Still, TRIES_MAX, stopped},
    old_rows::{Cuts, Offsets, Old, offsets_of},
};
use crate::{
    commit::Landed,
    dead_letters::columns_are_off,
    error::{ForTable, WorkerError},
    table::Table,
};

/// The dead letters of one entry's offsets.
pub(super) struct Letters<'a> {
    committer: &'a Committer,
    ranges: &'a [OffsetRange],
    rejected: &'a Offsets,
    /// The offsets of the ranges that were not rejected now.
    others: Offsets,
    settled: Option<Settled>,
}

/// The letters that are settled, by one look.
struct Settled {
    cuts: Cuts,
    /// What was looked at.
    state: LedgerState,
}

impl<'a> Letters<'a> {
    pub(super) fn new(committer: &'a Committer, ranges: &'a [OffsetRange], rejected: &'a Offsets) -> Self {
        Self { committer, ranges, rejected, others: without(ranges, rejected), settled: None }
    }

    /// What was rejected now comes, in the place of what the table has of the same offsets; or not, when `still` says
    /// that the entry of the rows is not to be made.
    ///
    /// # Errors
    /// Those of ledger and store, and of `still`: the letters are as before.
    pub(super) async fn add(&self, files: &[FileEntry], still: Option<Still<'_>>) -> Result<(), WorkerError> {
        let Some(range) = self.ranges.first().filter(|_| !files.is_empty()) else { return Ok(()) };
        let table = self.committer.letters().await?;
        // Its position comes first: what is replaced lies below it.
        self.pin(&table).await?;
        crash_point!("backfill.dead_letters_pinned");
        let schema = table.state.lock().await.schema.clone();
        let old = Old::dead_letters(&schema, range, self.rejected.clone());
        let old = old.ok_or_else(|| columns_are_off(&table))?;
        let laid = Laid { files, ranges: self.ranges, rejected: &[] };
        let beside = still.map_or(Beside::Nothing, Beside::While);
        self.committer.overwrite(&table, &mut self.committer.cuts(old), laid, beside).await.map(drop)
    }

    /// Offsets of the ranges whose letters are settled by the entry of the rows, by what the table has at this moment.
    ///
    /// # Errors
    /// Those of ledger and store.
    pub(super) async fn settled(&mut self) -> Result<Vec<OffsetRange>, WorkerError> {
        let Some(range) = self.ranges.first() else { return Ok(Vec::new()) };
        let Some(table) = self.committer.letters_if_any().await? else { return Ok(Vec::new()) };
        let state = table.refresh().await?;
        let mut cuts = match self.settled.take() {
            Some(settled) => settled.cuts,
            None => {
                let old = Old::dead_letters(&state.schema, range, self.others.clone());
                let Some(old) = old else { return Ok(Vec::new()) };
                self.committer.cuts(old)
            }
        };
        cuts.look(&table, &state).await?;
        let settled = around(&cuts.places(), &self.others, range);
        self.settled = Some(Settled { cuts, state });
        Ok(settled)
    }

    /// The settled ones leave. The entry of the rows has landed. What others laid down after the last look stays, be it
    /// of the same offsets: one attempt, with what was seen.
    ///
    /// # Errors
    /// Those of ledger and store: they are there still, and not open.
    pub(super) async fn leave(mut self) -> Result<(), WorkerError> {
        let Some(table) = self.committer.letters_if_any().await? else { return Ok(()) };
        if let Some(Settled { cuts, state }) = &mut self.settled {
            self.committer.take_away(&table, cuts, state).await?;
        }
        crate::projector::catch_up_all(&table).await
    }

    async fn pin(&self, table: &Table) -> Result<(), WorkerError> {
        for _ in 0..TRIES_MAX {
            let missing = up_to_the_ends(self.ranges, &table.refresh().await?);
            if missing.is_empty() {
                return Ok(());
            }
            match self.committer.commit(table, Change::append(Vec::new(), missing, Vec::new())).await? {
                Landed::Stopped => return Err(stopped(table)),
                // Refused: a worker moved one of them on meanwhile.
                Landed::At(_) | Landed::AlreadySo | Landed::Refused(_) => {}
            }
        }
        let problem = "others keep moving its positions; run it again when they are done".to_owned();
        let (name, version) = (table.name.clone(), table.version());
        Err(LakeError::Conflict { table: name, version, problem }).for_table(&table.name)
    }
}

/// One range a partition that moves the position past all of these.
fn up_to_the_ends(ranges: &[OffsetRange], state: &LedgerState) -> Vec<OffsetRange> {
    let mut whole: BTreeMap<SourcePartition, OffsetRange> = BTreeMap::new();
    for range in ranges {
        let one = whole.entry(SourcePartition::of(range)).or_insert_with(|| range.clone());
        (one.start, one.end) = (one.start.min(range.start), one.end.max(range.end));
    }
    let missing = whole.into_iter().map(|(partition, range)| OffsetRange {
        start: state.next_offset(&partition).unwrap_or(range.start),
        ..range
    });
    missing.filter(|range| range.start < range.end).collect()
}

/// The offsets of these ranges but for those.
fn without(ranges: &[OffsetRange], but: &Offsets) -> Offsets {
    let mut left = Offsets::new();
    for range in ranges {
        let held = but.get(&range.partition).map_or(&[][..], Intervals::as_slice);
        let within = held.iter().skip(held.partition_point(|&(_, to)| to <= range.start));
        let left = left.entry(range.partition).or_default();
        let mut start = range.start;
        for &(from, to) in within.take_while(|(from, _)| *from < range.end) {
            left.insert(start, from);
            start = to;
        }
        left.insert(start, range.end);
    }
    left
}

/// Those of these ranges, which are of one topic, in which a dead-letter table has a letter; neighbours are one.
///
/// # Errors
/// Those of the store.
pub(crate) async fn with_letters(
    spec: &TableSpec,
    table: &Table,
    state: &LedgerState,
    ranges: &[OffsetRange],
) -> Result<Vec<OffsetRange>, WorkerError> {
    let Some(like) = ranges.first() else { return Ok(Vec::new()) };
    let offsets = offsets_of(ranges);
    let Some(old) = Old::dead_letters(&state.schema, like, offsets.clone()) else {
        return Ok(ranges.to_vec());
    };
    let mut cuts = Cuts::new(old, &spec.compaction, &spec.files, RewriteOptions::default());
    cuts.look(table, state).await?;
    Ok(around(&cuts.places(), &offsets, like))
}

/// The stretches of these offsets in which one of the places lies.
fn around(places: &Offsets, offsets: &Offsets, like: &OffsetRange) -> Vec<OffsetRange> {
    let mut found = Vec::new();
    for (&partition, held) in offsets {
        let Some(places) = places.get(&partition) else { continue };
        let stretches = held.as_slice().iter().filter(|(start, end)| places.touches(*start, *end));
        found.extend(stretches.map(|&(start, end)| OffsetRange { partition, start, end, ..like.clone() }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
        OffsetRange { cluster: "c".into(), topic: "t".into(), partition, start, end, lost: false }
    }

    #[test]
    fn letters_settle_the_stretches_between_what_is_rejected_again() {
        let ranges = [range(0, 10, 30), range(0, 40, 50), range(1, 0, 5)];
        let rejected = offsets_of(&[range(0, 9, 11), range(0, 20, 22), range(0, 29, 41), range(2, 0, 9)]);
        let others = without(&ranges, &rejected);
        assert_eq!(others[&0].as_slice(), [(11, 20), (22, 29), (41, 50)]);
        assert_eq!(others[&1].as_slice(), [(0, 5)]);
        let places = offsets_of(&[range(0, 11, 12), range(0, 19, 20), range(0, 45, 46), range(1, 4, 5)]);
        let settled = around(&places, &others, &ranges[2]);
        assert_eq!(settled, [range(0, 11, 20), range(0, 41, 50), range(1, 0, 5)]);
        assert!(around(&Offsets::new(), &others, &ranges[0]).is_empty());
    }

    #[test]
    fn without_a_rejection_all_of_a_range_may_be_settled() {
        let ranges = [range(0, 3, 7), range(0, 9, 12)];
        let others = without(&ranges, &Offsets::new());
        let places = offsets_of(&[range(0, 5, 6), range(0, 9, 10)]);
        assert_eq!(around(&places, &others, &ranges[0]), ranges);
    }
}
