//! How stretches of history become entries: of the dead-letter table (`letters`) and of the table.

use std::sync::Arc;

use siltstone_datafile::RewriteOptions;
use siltstone_lakehouse::{
    LakeError, LedgerState, SourcePartition, TableStore, crash_point, ledger::Coverage,
};
use siltstone_protocol::{Change, ErrorCode, ErrorKind, FileEntry, OffsetRange, RejectedCount};
use siltstone_spec::TableSpec;
use tokio::sync::{OnceCell, watch};

use super::{
    letters::{Letters, any_covered},
    old_rows::{Cuts, Offsets, Old},
};
use crate::{
    commit::{self, Landed, Patience},
    dead_letters,
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    table::Table,
};

/// Others may change the files in question while they are cut: it is done anew at most so often.
pub(super) const TRIES_MAX: u32 = 20;

const WITHOUT_COORDINATES: &str = "its rows do not all say which records they were made from, so a range cannot be \
    replaced; tables made with kafka_metadata: true, and without rows from files, can be reset";

/// What commits need beside the change.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) spec: TableSpec,
    pub(super) lake: TableStore,
    pub(super) identity: Arc<Identity>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) limits: RewriteOptions,
    /// The dead-letter table, opened once.
    pub(super) letters: OnceCell<Arc<Table>>,
}

/// One entry's worth of history. All files are durable.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) files: Vec<FileEntry>,
    pub(super) dead_letters: Vec<FileEntry>,
    /// Offsets of the dead letters.
    pub(super) letters: Offsets,
    pub(super) ranges: Vec<OffsetRange>,
    pub(super) rejected: Vec<RejectedCount>,
}

impl Unit {
    /// Takes another one in.
    pub(super) fn join(&mut self, other: Self) {
        self.files.extend(other.files);
        self.dead_letters.extend(other.dead_letters);
        self.ranges.extend(other.ranges);
        self.ranges = joined(std::mem::take(&mut self.ranges));
        for (partition, offsets) in other.letters {
            let letters = self.letters.entry(partition).or_default();
            offsets.as_slice().iter().for_each(|&(start, end)| letters.insert(start, end));
        }
        for count in other.rejected {
            match self.rejected.iter_mut().find(|known| known.reason == count.reason) {
                Some(known) => known.records += count.records,
                None => self.rejected.push(count),
            }
        }
    }
}

/// What an overwrite lays down beside what stays of the files that it takes away.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Laid<'a> {
    pub(super) files: &'a [FileEntry],
    pub(super) ranges: &'a [OffsetRange],
    pub(super) rejected: &'a [RejectedCount],
}

impl Laid<'_> {
    /// The overwrite by what was cut after the look at version `base`; `None`: it would change nothing.
    fn change(self, cuts: &Cuts, replayed: Vec<OffsetRange>, base: u64) -> Option<Change> {
        let (removed, mut added) = cuts.change();
        added.extend_from_slice(self.files);
        if removed.is_empty() && self.ranges.is_empty() {
            return None;
        }
        let (ranges, rejected) = (self.ranges.to_vec(), self.rejected.to_vec());
        Some(Change::Overwrite { removed, added, ranges, replayed, base, rejected })
    }
}

/// What is to be so yet, of the table of the rows, when letters come.
#[derive(Clone, Copy)]
pub(super) enum Still<'a> {
    /// Its ledger takes this append of rows.
    Append { table: &'a Table, change: &'a Change },
    /// Nobody filled any of these holes, which are of the topic of `like`.
    Holes { table: &'a Table, holes: &'a Offsets, like: &'a OffsetRange },
}

impl Still<'_> {
    /// Whether it is so at this moment. False of an append: what it asks for is so already.
    async fn is_so(self) -> Result<bool, WorkerError> {
        match self {
            Self::Append { table, change } => {
                let state = table.refresh().await?;
                state.takes(change).map_err(|error| hole_filled(&table.name, error))
            }
            Self::Holes { holes, .. } if holes.is_empty() => Ok(true),
            Self::Holes { table, holes, like } => {
                let state = table.refresh().await?;
                Ok(!any_covered(holes, &state.coverage, like))
            }
        }
    }
}

impl Committer {
    /// Commits offsets that nobody committed. False: others did meanwhile, all of them; the files are orphans.
    ///
    /// # Errors
    /// `Conflict`: others committed some of them: plan anew.
    pub(super) async fn fill(&self, table: &Table, unit: Unit) -> Result<bool, WorkerError> {
        let Unit { files, dead_letters, letters, ranges, rejected } = unit;
        let mut letters = Letters::new(self, &ranges, &letters, &dead_letters);
        let append = |replayed| {
            let (files, ranges, rejected) = (files.clone(), ranges.clone(), rejected.clone());
            Change::Append { files, ranges, rejected, replayed, imported: Vec::new(), base: None }
        };
        // Who comes too late, or names too much, leaves the dead letters as they are.
        let change = append(letters.settled().await?);
        let still = Still::Append { table, change: &change };
        if !still.is_so().await? || !letters.add(still).await? {
            return Ok(false);
        }
        crash_point!("backfill.dead_letters_done");
        let landed = self.commit(table, append(letters.settled().await?)).await?;
        crash_point!("backfill.committed");
        match landed {
            Landed::At(_) => letters.leave().await.map(|()| true),
            Landed::AlreadySo => Ok(false),
            Landed::Refused(error) => Err(hole_filled(&table.name, error)),
            Landed::Stopped => Err(stopped(table)),
        }
    }

    /// Puts what was read now in the place of the rows that the table has of these offsets, in one entry. Returns how
    /// many rows left. What the ledger would refuse is refused before anything is committed.
    ///
    /// # Errors
    /// `Conflict`: other workers changed the files again and again.
    pub(super) async fn reset(&self, table: &Table, mut cuts: Cuts, unit: Unit) -> Result<u64, WorkerError> {
        let Unit { files, dead_letters, letters, ranges, rejected } = unit;
        let mut letters = Letters::new(self, &ranges, &letters, &dead_letters);
        let laid = Laid { files: &files, ranges: &ranges, rejected: &rejected };
        let state = table.refresh().await?;
        cuts.follow(table, &state).await?;
        crash_point!("reset.rows_written");
        let settled = letters.still_settled(&state).await?;
        let Some(change) = laid.change(&cuts, settled, state.version) else { return Ok(0) };
        self.check(table, &state, &change).await?;
        self.reject(table, &mut letters).await?;
        crash_point!("reset.dead_letters_done");
        let rows = self.replace(table, &mut cuts, laid, &mut letters).await?;
        crash_point!("reset.committed");
        letters.leave().await?;
        Ok(rows)
    }

    /// The letters of what is rejected now come, behind their claim. Holes cannot be claimed: once others fill some,
    /// there may be rows of which the claim says nothing, and it comes first again.
    async fn reject(&self, table: &Table, letters: &mut Letters<'_>) -> Result<(), WorkerError> {
        for _ in 0..TRIES_MAX {
            self.claim(table, letters).await?;
            crash_point!("reset.claimed");
            if letters.add_claimed(table).await? {
                return Ok(());
            }
        }
        let problem = "others keep filling holes of the range; run it again when they are done".to_owned();
        let (name, version) = (table.name.clone(), table.version());
        Err(LakeError::Conflict { table: name, version, problem }).for_table(&table.name)
    }

    /// Has the ledger say of what is rejected now and may be a row that it is settled. Its letters come beside these
    /// rows, and nobody is to make second ones of them until the entry that takes the rows away, and this back.
    async fn claim(&self, table: &Table, letters: &mut Letters<'_>) -> Result<(), WorkerError> {
        let mut refused = 0;
        loop {
            let state = table.refresh().await?;
            let replayed = letters.unclaimed(&state).await?;
            if replayed.is_empty() {
                return Ok(());
            }
            let (files, ranges, rejected) = (Vec::new(), Vec::new(), Vec::new());
            let (imported, base) = (Vec::new(), Some(state.version));
            let change = Change::Append { files, ranges, rejected, replayed, imported, base };
            // Others replayed some of it, or overwrote rows since: it is looked at again.
            if let Some(error) = self.attempt(table, change).await? {
                refused += 1;
                if refused == TRIES_MAX {
                    return Err(error).for_table(&table.name);
                }
            }
        }
    }

    /// The entry of a reset: what was read in the place of the rows of the cuts. Returns how many rows left.
    async fn replace(
        &self,
        table: &Table,
        cuts: &mut Cuts,
        laid: Laid<'_>,
        letters: &mut Letters<'_>,
    ) -> Result<u64, WorkerError> {
        let mut refusal = None;
        for _ in 0..TRIES_MAX {
            let state = table.refresh().await?;
            letters.keep(&state).await?;
            cuts.follow(table, &state).await?;
            crash_point!("reset.files_written");
            let settled = letters.still_settled(&state).await?;
            let Some(change) = laid.change(cuts, settled, state.version) else { return Ok(0) };
            refusal = self.attempt(table, change).await?;
            if refusal.is_none() {
                return Ok(cuts.rows());
            }
        }
        Err(gave_up(table, refusal))
    }

    /// Refuses what a commit would refuse for what it holds.
    async fn check(&self, table: &Table, state: &LedgerState, change: &Change) -> Result<(), WorkerError> {
        let there = table.ledger.confirm_files(state, change, self.identity.now_ms()).await;
        match there.and_then(|()| state.takes(change)) {
            Ok(_) => Ok(()),
            Err(error) if error.code() == ErrorCode::ChangeTooLarge => Err(too_large(&table.name, &error)),
            Err(error) => Err(error).for_table(&table.name),
        }
    }

    /// Takes the rows of the cuts away, and lays down what comes. False: `still` is not so any more, nothing changed.
    pub(super) async fn overwrite(
        &self,
        table: &Table,
        cuts: &mut Cuts,
        laid: Laid<'_>,
        still: Option<Still<'_>>,
    ) -> Result<bool, WorkerError> {
        let mut refusal = None;
        for _ in 0..TRIES_MAX {
            let state = table.refresh().await?;
            cuts.follow(table, &state).await?;
            crash_point!("reset.files_written");
            if let Some(still) = still
                && !still.is_so().await?
            {
                return Ok(false);
            }
            let Some(change) = laid.change(cuts, Vec::new(), state.version) else { return Ok(true) };
            refusal = self.attempt(table, change).await?;
            if refusal.is_none() {
                return Ok(true);
            }
        }
        Err(gave_up(table, refusal))
    }

    /// One attempt at a change that is made anew when others were first. `None`: it is so.
    async fn attempt(&self, table: &Table, change: Change) -> Result<Option<LakeError>, WorkerError> {
        match self.commit(table, change).await? {
            Landed::At(_) | Landed::AlreadySo => Ok(None),
            Landed::Refused(error) if error.kind() == ErrorKind::Conflict => Ok(Some(error)),
            Landed::Refused(error) => Err(error).for_table(&table.name),
            Landed::Stopped => Err(stopped(table)),
        }
    }

    /// Takes the rows of the cuts away as they were found in this state, or not at all when others changed their files
    /// since.
    pub(super) async fn take_away(
        &self,
        table: &Table,
        cuts: &mut Cuts,
        state: &LedgerState,
    ) -> Result<(), WorkerError> {
        if let Err(error) = cuts.follow(table, state).await {
            // Files that others rewrote may be gone by now.
            return if cuts.are_live(&table.refresh().await?) { Err(error) } else { Ok(()) };
        }
        crash_point!("reset.files_written");
        let Some(change) = Laid::default().change(cuts, Vec::new(), state.version) else { return Ok(()) };
        match self.commit(table, change).await? {
            Landed::At(_) | Landed::AlreadySo => Ok(()),
            Landed::Refused(error) => {
                tracing::info!(table = %table.name, %error, "others were first, the next replay marks what stays");
                Ok(())
            }
            Landed::Stopped => Err(stopped(table)),
        }
    }

    /// The cuts of these rows, of which nothing is known yet.
    pub(super) fn cuts(&self, old: Old) -> Cuts {
        Cuts::new(old, &self.spec.compaction, &self.spec.files, self.limits.clone())
    }

    /// Has every format show all that was committed.
    pub(super) async fn show(&self, table: &Table) -> Result<(), WorkerError> {
        crate::projector::catch_up_all(table).await?;
        // One that was killed may have left dead letters that no format shows.
        match self.letters_if_any().await? {
            Some(letters) => crate::projector::catch_up_all(&letters).await,
            None => Ok(()),
        }
    }

    /// The dead-letter table, if there is one.
    pub(super) async fn letters_if_any(&self) -> Result<Option<Arc<Table>>, WorkerError> {
        if let Some(table) = self.letters.get() {
            return Ok(Some(Arc::clone(table)));
        }
        let Some(table) = Table::open_dead_letters(&self.lake, &self.spec).await? else { return Ok(None) };
        self.opened(table).await.map(Some)
    }

    /// The dead-letter table, made when there is none.
    pub(super) async fn letters(&self) -> Result<Arc<Table>, WorkerError> {
        if let Some(table) = self.letters.get() {
            return Ok(Arc::clone(table));
        }
        let (id, now_ms) = (self.identity.commit_id(), self.identity.now_ms());
        let table = Table::open_or_create_dead_letters(&self.lake, &self.spec, &id, now_ms).await?;
        self.opened(table).await
    }

    /// Keeps the dead-letter table, with all its columns.
    async fn opened(&self, table: Table) -> Result<Arc<Table>, WorkerError> {
        let patience = || Patience::new(&self.identity, &self.metrics, &self.stop);
        if !dead_letters::bring_up(&table, &self.identity, &patience).await? {
            return Err(stopped(&table));
        }
        Ok(Arc::clone(self.letters.get_or_init(|| async move { Arc::new(table) }).await))
    }

    pub(super) async fn commit(&self, table: &Table, change: Change) -> Result<Landed, WorkerError> {
        let patience = Patience::new(&self.identity, &self.metrics, &self.stop);
        let landed = commit::commit(table, change, &self.identity.commit_id(), "backfill", patience).await;
        landed.map_err(|error| match error {
            WorkerError::Lake { table, source } if source.code() == ErrorCode::ChangeTooLarge => {
                too_large(&table, &source)
            }
            other => other,
        })
    }
}

/// An entry that would name too much.
pub(super) fn too_large(table: &str, problem: &dyn std::fmt::Display) -> WorkerError {
    let message =
        format!("{problem}; take a shorter range with --from and --to, or fewer partitions with --partition");
    WorkerError::Spec { code: ErrorCode::ChangeTooLarge, table: table.to_owned(), message }
}

/// Ranges of one partition that follow each other become one.
pub(super) fn joined(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.sort_by_key(|range| (range.partition, range.start));
    let mut joined: Vec<OffsetRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.partition == range.partition && last.end == range.start => {
                last.end = range.end;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// A table with rows that a reset could not tell from those of its range.
pub(super) fn without_coordinates(table: &str) -> WorkerError {
    let message = WITHOUT_COORDINATES.to_owned();
    WorkerError::Spec { code: ErrorCode::ResetRefused, table: table.to_owned(), message }
}

/// The rows that a reset takes away, in a table that says of all its rows what they were read from.
pub(super) fn rows_of(
    spec: &TableSpec,
    state: &LedgerState,
    ranges: &[OffsetRange],
) -> Result<Old, WorkerError> {
    // Rows name topic, partition and offset, not the cluster.
    let meets = |source: &SourcePartition, held: &Coverage| {
        ranges.iter().any(|range| {
            source.topic == range.topic
                && source.partition == range.partition
                && held.intervals().iter().any(|&(from, to)| from < range.end && range.start < to)
        })
    };
    let other = state.coverage.iter().find(|(key, held)| key.cluster != spec.cluster && meets(key, held));
    if let Some((source, _)) = other {
        let message = format!(
            "partition {} of topic {} was read from cluster {} too, and rows do not say from which; read the range into \
             a new table",
            source.partition, source.topic, source.cluster
        );
        return Err(WorkerError::Spec { code: ErrorCode::ResetRefused, table: spec.name.clone(), message });
    }
    Old::rows(&state.schema, ranges).ok_or_else(|| without_coordinates(&spec.name))
}

/// A refusal in the words of a command: there is no buffer that goes on from the ledger, there is a next run.
fn hole_filled(table: &str, error: LakeError) -> WorkerError {
    let table = table.to_owned();
    match error {
        LakeError::Fenced { topic, partition, start, end, .. } => {
            WorkerError::HoleFilled { table, topic, partition, start, end }
        }
        other if other.code() == ErrorCode::ChangeTooLarge => too_large(&table, &other),
        other => WorkerError::Lake { table, source: Box::new(other) },
    }
}

pub(super) fn stopped(table: &Table) -> WorkerError {
    WorkerError::Stopped { table: table.name.clone() }
}

/// Others were first at each attempt.
fn gave_up(table: &Table, refusal: Option<LakeError>) -> WorkerError {
    let source = refusal.unwrap_or_else(|| LakeError::internal(&table.location, "no attempt was made"));
    WorkerError::Lake { table: table.name.clone(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_follow_each_other_are_one() {
        let range = |partition, start, end| OffsetRange {
            cluster: "c".into(),
            topic: "t".into(),
            partition,
            start,
            end,
            lost: false,
        };
        let all =
            joined(vec![range(1, 5, 9), range(0, 5, 9), range(1, 9, 12), range(0, 0, 5), range(1, 20, 21)]);
        assert_eq!(all, [range(0, 0, 9), range(1, 5, 12), range(1, 20, 21)]);
        let mut unit = Unit { ranges: vec![range(0, 0, 9)], ..Unit::default() };
        unit.join(Unit { ranges: vec![range(0, 9, 11)], ..Unit::default() });
        assert_eq!(unit.ranges, [range(0, 0, 11)]);
    }
}
