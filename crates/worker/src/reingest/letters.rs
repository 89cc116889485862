//! The dead letters of offsets that are committed now: which come, which leave, and when.
//!
//! A dead-letter table claims every offset up to its own position, so a hole of the main table may be no hole there.
//! What it holds of the offsets is therefore looked up row by row.
//!
//! 1. A reset has the main table's ledger say, of what it rejects and may be a row there, that it is settled: a claim.
//! 2. What was rejected now comes, in the place of what the table has of the same offsets: one entry.
//! 3. The entry of the rows follows. It says of the other letters of its offsets that they are settled. That of a reset
//!    takes the claim back with the rows.
//! 4. The other letters leave, for they are rows by now, or nothing.
//!
//! Killed between them, there are letters too many, and none too few. Those of 2 are not open beside rows, for 1 said
//! so (but of holes, below); those of 4 are not open either, for 3 said so, and the next replay marks them. Doing it
//! again changes nothing.
//!
//! Of two at once, one may take what the other rejects. An overwrite keeps settled what was, and is not rejected by
//! it: of a claim, the letters may come after its look. The letters that it saw leave after its entry, if nobody
//! changed their files since. They may be those of the other one, whose entry would then open what is gone. So that one
//! lays its letters down anew, in other files, before an entry that follows on another overwrite, or on one that filled
//! a hole. Either they left before that and are there again, or their files are others by now and they stay; rows that
//! come later refuse it.
//!
//! Holes cannot be claimed. So 2 looks once more, at each attempt, whether others filled one of what a reset rejects,
//! and 1 comes first again. What is left is a race of moments: a hole is filled between that look and the entry of the
//! letters, or by an entry that looked for letters before they came. They are open beside its rows then, until the
//! reset lands.

use std::{collections::BTreeMap, sync::Arc};

use futures::TryStreamExt;
use siltstone_datafile::{RewriteOptions, read_batches, write_sorted};
use siltstone_lakehouse::{
    LakeError, LedgerState, SourcePartition, crash_point,
    ledger::{Coverage, Intervals, RANGES_PER_ENTRY_MAX},
};
use siltstone_protocol::{Change, FileEntry, OffsetRange, Schema};
use siltstone_spec::TableSpec;
use tokio::sync::watch;

use super::{
    commit::{Committer, Laid, Still, TRIES_MAX, stopped},
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
    /// The letters of what was rejected now: durable files.
    files: &'a [FileEntry],
    /// The offsets of the ranges that were not rejected now.
    others: Offsets,
    /// What the table has of the rejected offsets, once it was looked at.
    before: Option<Cuts>,
    settled: Option<Look>,
    /// Version of the main table that was looked at before the letters were laid down last.
    known: u64,
    /// What is rejected now, and lay in holes of the main table at that look.
    holes: Offsets,
}

/// What the table has of some offsets, by one look.
struct Look {
    cuts: Cuts,
    /// What was looked at.
    state: LedgerState,
}

impl<'a> Letters<'a> {
    pub(super) fn new(
        committer: &'a Committer,
        ranges: &'a [OffsetRange],
        rejected: &'a Offsets,
        files: &'a [FileEntry],
    ) -> Self {
        let others = without(ranges, rejected);
        let (before, settled, known, holes) = (None, None, 0, Offsets::new());
        Self { committer, ranges, rejected, files, others, before, settled, known, holes }
    }

    /// What was rejected now and may be a row of the main table, as it is in this state: its letters would be open
    /// beside these rows. Of what has an open letter, and of holes, there is none. No more than an entry names.
    ///
    /// # Errors
    /// Those of ledger and store.
    pub(super) async fn unclaimed(&mut self, main: &LedgerState) -> Result<Vec<OffsetRange>, WorkerError> {
        self.holes.clear();
        let Some(like) = self.ranges.first().filter(|_| !self.files.is_empty()) else {
            return Ok(Vec::new());
        };
        self.known = main.version;
        self.holes = uncovered(self.rejected, &main.coverage, like);
        let earlier = self.before.take();
        let look = self.look(like, earlier, self.rejected).await?;
        self.before = look.map(|look| look.cuts);
        let letters = self.before.as_ref().map(Cuts::places).unwrap_or_default();
        let mut found = Vec::new();
        for (&partition, rejected) in self.rejected {
            let settled = [letters.get(&partition), main.replayed.get(&source_of(like, partition))];
            let rows = may_be_rows(rejected, self.holes.get(&partition), settled);
            let range = |&(start, end): &(i64, i64)| OffsetRange { partition, start, end, ..like.clone() };
            let room = RANGES_PER_ENTRY_MAX - found.len();
            found.extend(rows.as_slice().iter().take(room).map(range));
        }
        Ok(found)
    }

    /// What was rejected now comes, in the place of what the table has of the same offsets. False: it does not, for
    /// `still` is not so any more.
    ///
    /// # Errors
    /// Those of ledger and store, and of `still`: the letters are as before.
    pub(super) async fn add(&mut self, still: Still<'_>) -> Result<bool, WorkerError> {
        let files = self.files;
        if files.is_empty() {
            return Ok(true);
        }
        let table = self.committer.letters().await?;
        // Its position comes first: what is replaced lies below it.
        self.pin(&table).await?;
        crash_point!("backfill.dead_letters_pinned");
        self.lay(&table, files, Some(still)).await
    }

    /// As [`Self::add`], after the last look at what is to be claimed. False: others filled holes since.
    ///
    /// # Errors
    /// Those of ledger and store: the letters are as before.
    pub(super) async fn add_claimed(&mut self, main: &Table) -> Result<bool, WorkerError> {
        let Some(like) = self.ranges.first() else { return Ok(true) };
        let holes = std::mem::take(&mut self.holes);
        let added = self.add(Still::Holes { table: main, holes: &holes, like }).await;
        self.holes = holes;
        added
    }

    /// Lays them down anew before an overwrite of this state of the main table, if another overwrite of these
    /// partitions, or rows in holes of what is rejected, came since they were: with that entry, others may have taken
    /// letters of these offsets away, or be about to. Replays and claims take none.
    ///
    /// # Errors
    /// Those of ledger and store.
    pub(super) async fn keep(&mut self, main: &LedgerState) -> Result<(), WorkerError> {
        let files = self.files;
        let Some(like) = self.ranges.first().filter(|_| !files.is_empty()) else { return Ok(()) };
        let overwritten = |range: &OffsetRange| {
            let revision = main.revisions.get(&SourcePartition::of(range));
            revision.is_some_and(|of| of.overwritten > self.known)
        };
        // What filled a hole before the look had looked for letters before these were laid down.
        if !self.ranges.iter().any(overwritten) && !any_covered(&self.holes, &main.coverage, like) {
            return Ok(());
        }
        let table = self.committer.letters().await?;
        // A file that was there cannot come again: clean-up may be about to delete it.
        let copies = copied(&table, files, &self.committer.stop).await?;
        crash_point!("reset.letters_again");
        self.lay(&table, &copies, None).await?;
        self.known = main.version;
        self.holes = uncovered(&self.holes, &main.coverage, like);
        Ok(())
    }

    /// Offsets of the ranges whose letters are settled by the entry of the rows, by what the table has at this moment.
    ///
    /// # Errors
    /// Those of ledger and store.
    pub(super) async fn settled(&mut self) -> Result<Vec<OffsetRange>, WorkerError> {
        self.settled_beside(&Offsets::new()).await
    }

    /// As [`Self::settled`], by an overwrite of this state of the main table: what was settled and is not rejected now
    /// stays so.
    ///
    /// # Errors
    /// Those of ledger and store.
    pub(super) async fn still_settled(
        &mut self,
        main: &LedgerState,
    ) -> Result<Vec<OffsetRange>, WorkerError> {
        let held = |range: &OffsetRange| {
            let held = main.replayed.get(&SourcePartition::of(range))?;
            Some((range.partition, held.clone()))
        };
        let held: Offsets = self.ranges.iter().filter_map(held).collect();
        self.settled_beside(&held).await
    }

    async fn settled_beside(&mut self, held: &Offsets) -> Result<Vec<OffsetRange>, WorkerError> {
        let Some(like) = self.ranges.first() else { return Ok(Vec::new()) };
        let earlier = self.settled.take().map(|look| look.cuts);
        let look = self.look(like, earlier, &self.others).await?;
        let letters = look.as_ref().map(|look| look.cuts.places()).unwrap_or_default();
        self.settled = look;
        // One more than an entry names is refused like all of them.
        Ok(around(&[held, &letters], &self.others, like, RANGES_PER_ENTRY_MAX + 1))
    }

    /// Looks for letters of these offsets, from where an earlier look ended. `None`: there is no dead-letter table.
    async fn look(
        &self,
        like: &OffsetRange,
        earlier: Option<Cuts>,
        offsets: &Offsets,
    ) -> Result<Option<Look>, WorkerError> {
        let Some(table) = self.committer.letters_if_any().await? else { return Ok(None) };
        let state = table.refresh().await?;
        let mut cuts = match earlier {
            Some(cuts) => cuts,
            None => self.cuts(&table, &state.schema, like, offsets)?,
        };
        cuts.look(&table, &state).await?;
        Ok(Some(Look { cuts, state }))
    }

    fn cuts(
        &self,
        table: &Table,
        schema: &Schema,
        like: &OffsetRange,
        offsets: &Offsets,
    ) -> Result<Cuts, WorkerError> {
        let old = Old::dead_letters(schema, like, offsets.clone()).ok_or_else(|| columns_are_off(table))?;
        Ok(self.committer.cuts(old))
    }

    /// These files in the place of what the table has of the rejected offsets. False: `still` is not so any more.
    async fn lay(
        &mut self,
        table: &Table,
        files: &[FileEntry],
        still: Option<Still<'_>>,
    ) -> Result<bool, WorkerError> {
        let Some(like) = self.ranges.first() else { return Ok(true) };
        let cuts = match self.before.take() {
            Some(cuts) => cuts,
            None => {
                let schema = table.state.lock().await.schema.clone();
                self.cuts(table, &schema, like, self.rejected)?
            }
        };
        let laid = Laid { files, ranges: self.ranges, rejected: &[] };
        self.committer.overwrite(table, self.before.insert(cuts), laid, still).await
    }

    /// The settled ones leave. The entry of the rows has landed. What others laid down after the last look stays, be it
    /// of the same offsets: one attempt, with what was seen.
    ///
    /// # Errors
    /// Those of ledger and store: they are there still, and not open.
    pub(super) async fn leave(mut self) -> Result<(), WorkerError> {
        let Some(table) = self.committer.letters_if_any().await? else { return Ok(()) };
        if let Some(Look { cuts, state }) = &mut self.settled {
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

/// New files with the letters of these, one after the other. Each is read as a whole: a reader writes its letters once
/// they hold 16 MiB, so it is that and what one intake brings. What leaves a table stays for a while; one that is gone
/// all the same is an error, and the rows stay as they are.
async fn copied(
    table: &Table,
    files: &[FileEntry],
    stop: &watch::Receiver<bool>,
) -> Result<Vec<FileEntry>, WorkerError> {
    let schema = Arc::new(table.state.lock().await.schema.clone());
    let layout = table.layout(Arc::clone(&schema)).await;
    let mut copies = Vec::new();
    for file in files {
        if *stop.borrow() {
            return Err(stopped(table));
        }
        let rows = read_batches(&table.store, &table.location, file, &schema).await;
        let rows = rows.for_table(&table.name)?.try_collect::<Vec<_>>().await.for_table(&table.name)?;
        let written = write_sorted(rows, &layout, &table.store, &table.location).await;
        for file in written.for_table(&table.name)? {
            table.details.insert(file.details);
            copies.push(file.entry);
        }
    }
    Ok(copies)
}

/// The offsets of these ranges but for those.
fn without(ranges: &[OffsetRange], but: &Offsets) -> Offsets {
    let mut left = Offsets::new();
    for range in ranges {
        let but = but.get(&range.partition).map_or(&[][..], Intervals::as_slice);
        let left = left.entry(range.partition).or_default();
        let stretches = minus(&[(range.start, range.end)], but);
        stretches.as_slice().iter().for_each(|&(start, end)| left.insert(start, end));
    }
    left
}

/// What of these stretches, which are in order, lies in none of those.
fn minus(stretches: &[(i64, i64)], but: &[(i64, i64)]) -> Intervals {
    let mut left = Intervals::default();
    for &(first, end) in stretches {
        let within = but.iter().skip(but.partition_point(|&(_, to)| to <= first));
        let mut start = first;
        for &(from, to) in within.take_while(|(from, _)| *from < end) {
            left.insert(start, from);
            start = to;
        }
        left.insert(start, end);
    }
    left
}

fn source_of(like: &OffsetRange, partition: i32) -> SourcePartition {
    SourcePartition { partition, ..SourcePartition::of(like) }
}

/// What is committed, by partition.
type Covered = BTreeMap<SourcePartition, Coverage>;

/// What of these offsets, which are of the topic of `like`, lies in holes.
fn uncovered(offsets: &Offsets, covered: &Covered, like: &OffsetRange) -> Offsets {
    let mut holes = Offsets::new();
    for (&partition, offsets) in offsets {
        let covered = covered.get(&source_of(like, partition)).map_or(&[][..], Coverage::intervals);
        let left = minus(offsets.as_slice(), covered);
        if !left.is_empty() {
            holes.insert(partition, left);
        }
    }
    holes
}

/// Whether some of these offsets, which are of the topic of `like`, are committed.
pub(super) fn any_covered(offsets: &Offsets, covered: &Covered, like: &OffsetRange) -> bool {
    offsets.iter().any(|(&partition, offsets)| {
        let covered = covered.get(&source_of(like, partition)).map_or(&[][..], Coverage::intervals);
        covered.iter().any(|&(from, to)| offsets.touches(from, to))
    })
}

/// What of the rejected offsets of one partition lies in none of its holes, and in none of these sets.
fn may_be_rows(
    rejected: &Intervals,
    holes: Option<&Intervals>,
    settled: [Option<&Intervals>; 2],
) -> Intervals {
    let [letters, replayed] = settled;
    let known = [holes, letters, replayed].into_iter().flatten();
    known.fold(rejected.clone(), |rows, known| minus(rows.as_slice(), known.as_slice()))
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
    Ok(around(&[&cuts.places()], &offsets, like, usize::MAX))
}

/// The first stretches of these offsets, so many at most, in which one of the places lies, of any of the sets.
fn around(sets: &[&Offsets], offsets: &Offsets, like: &OffsetRange, most: usize) -> Vec<OffsetRange> {
    let mut found = Vec::new();
    for (&partition, held) in offsets {
        let places: Vec<&Intervals> = sets.iter().filter_map(|set| set.get(&partition)).collect();
        let touched = |start: i64, end: i64| places.iter().any(|places| places.touches(start, end));
        let stretches = held.as_slice().iter().filter(|&&(start, end)| touched(start, end));
        let range = |&(start, end): &(i64, i64)| OffsetRange { partition, start, end, ..like.clone() };
        let room = most - found.len();
        found.extend(stretches.take(room).map(range));
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
        let settled = around(&[&places], &others, &ranges[2], 9);
        assert_eq!(settled, [range(0, 11, 20), range(0, 41, 50), range(1, 0, 5)]);
        // What was settled before, be there no letter of it yet.
        let before = offsets_of(&[range(0, 20, 23), range(2, 0, 9)]);
        let settled = around(&[&before, &places], &others, &ranges[2], 4);
        assert_eq!(settled, [range(0, 11, 20), range(0, 22, 29), range(0, 41, 50), range(1, 0, 5)]);
        assert_eq!(around(&[&before, &places], &others, &ranges[2], 3), settled[..3]);
        assert!(around(&[&Offsets::new()], &others, &ranges[0], 9).is_empty());
    }

    #[test]
    fn without_a_rejection_all_of_a_range_may_be_settled() {
        let ranges = [range(0, 3, 7), range(0, 9, 12)];
        let others = without(&ranges, &Offsets::new());
        let places = offsets_of(&[range(0, 5, 6), range(0, 9, 10)]);
        assert_eq!(around(&[&places], &others, &ranges[0], 9), ranges);
    }

    #[test]
    fn rejected_offsets_that_are_committed_and_not_settled_may_be_rows() {
        let of = |stretches: &[(i64, i64)]| -> Intervals {
            let mut set = Intervals::default();
            stretches.iter().for_each(|&(start, end)| set.insert(start, end));
            set
        };
        let (rejected, none) = (of(&[(3, 9), (20, 30), (50, 51)]), [None, None]);
        assert_eq!(may_be_rows(&rejected, None, none), rejected);
        assert_eq!(may_be_rows(&rejected, Some(&rejected), none), Intervals::default());
        let holes = minus(rejected.as_slice(), &[(0, 5), (7, 22), (25, 50), (60, 60)]);
        let rows = of(&[(3, 5), (7, 9), (20, 22), (25, 30)]);
        assert_eq!(may_be_rows(&rejected, Some(&holes), none), rows);
        let (letters, replayed) = (of(&[(4, 8), (29, 40)]), of(&[(0, 4), (21, 22)]));
        let rows = of(&[(8, 9), (20, 21), (25, 29)]);
        assert_eq!(may_be_rows(&rejected, Some(&holes), [Some(&letters), Some(&replayed)]), rows);
    }

    #[test]
    fn holes_of_what_is_rejected_are_watched_until_they_are_filled() {
        let like = range(9, 0, 1);
        let covered = |of: &[(i32, &[(i64, i64)])]| -> Covered {
            let coverage = |held: &[(i64, i64)]| Coverage::from_intervals(held.to_vec()).unwrap_or_default();
            of.iter().map(|&(partition, held)| (source_of(&like, partition), coverage(held))).collect()
        };
        let rejected = offsets_of(&[range(0, 3, 9), range(0, 20, 30), range(1, 5, 6), range(2, 0, 2)]);
        let before = covered(&[(0, &[(5, 22), (60, 60)]), (1, &[(0, 9)])]);
        let holes = uncovered(&rejected, &before, &like);
        assert_eq!(holes, offsets_of(&[range(0, 3, 5), range(0, 22, 30), range(2, 0, 2)]));
        assert!(any_covered(&rejected, &before, &like) && !any_covered(&holes, &before, &like));
        // What comes beside them is no matter, be it of the same offsets of another partition.
        let beside = covered(&[(0, &[(0, 3), (5, 22), (30, 70)]), (1, &[(0, 90)])]);
        assert!(!any_covered(&holes, &beside, &like));
        assert_eq!(uncovered(&holes, &beside, &like), holes);
        let filled = covered(&[(0, &[(0, 3), (5, 23), (30, 70)]), (2, &[(0, 9)])]);
        assert!(any_covered(&holes, &filled, &like));
        let left = uncovered(&holes, &filled, &like);
        assert_eq!(left, offsets_of(&[range(0, 3, 5), range(0, 23, 30)]));
        assert!(!any_covered(&left, &filled, &like));
    }
}
