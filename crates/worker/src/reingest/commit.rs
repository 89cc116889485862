//! How stretches of history become entries: of the dead-letter table first, then of the table.
//!
//! A dead-letter table claims every offset up to its own position, so a hole of the main table may be no hole there.
//! What it holds of the offsets is therefore looked up row by row, and replaced by what was rejected now. Doing that
//! again changes nothing, so a crash between both entries is repaired by doing the whole again.

use std::{collections::BTreeMap, sync::Arc};

use siltstone_datafile::RewriteOptions;
use siltstone_lakehouse::{
    LakeError, LedgerState, SourcePartition, TableStore, crash_point, ledger::Coverage,
};
use siltstone_protocol::{Change, ErrorCode, ErrorKind, FileEntry, OffsetRange, RejectedCount};
use siltstone_spec::TableSpec;
use tokio::sync::watch;

use super::old_rows::{Cuts, Old};
use crate::{
    commit::{self, Landed, Patience},
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    table::Table,
};

/// Others may change the files in question while they are cut: it is done anew at most so often.
const TRIES_MAX: u32 = 20;

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
}

/// One entry's worth of history. All files are durable.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) files: Vec<FileEntry>,
    pub(super) dead_letters: Vec<FileEntry>,
    pub(super) ranges: Vec<OffsetRange>,
    pub(super) rejected: Vec<RejectedCount>,
}

impl Unit {
    /// Takes another one in.
    pub(super) fn join(&mut self, other: Self) {
        self.files.extend(other.files);
        self.dead_letters.extend(other.dead_letters);
        self.ranges.extend(other.ranges);
        for count in other.rejected {
            match self.rejected.iter_mut().find(|known| known.reason == count.reason) {
                Some(known) => known.records += count.records,
                None => self.rejected.push(count),
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
        let Unit { files, dead_letters, ranges, rejected } = unit;
        self.replace_dead_letters(&ranges, dead_letters).await?;
        crash_point!("backfill.dead_letters_done");
        let landed = self.commit(table, Change::append(files, ranges, rejected)).await?;
        crash_point!("backfill.committed");
        match landed {
            Landed::At(_) => Ok(true),
            Landed::AlreadySo => Ok(false),
            Landed::Refused(error) => Err(hole_filled(&table.name, error)),
            Landed::Stopped => Err(stopped(table)),
        }
    }

    /// Puts what was read now in the place of the rows that the table has of these offsets, in one entry. Returns how
    /// many rows left. When it ends between the dead letters and the rows, a record that is a dead letter no more has
    /// no row yet: it must be done again.
    ///
    /// # Errors
    /// `Conflict`: other workers changed the files again and again.
    pub(super) async fn reset(&self, table: &Table, old: Old, unit: Unit) -> Result<u64, WorkerError> {
        let Unit { files, dead_letters, ranges, rejected } = unit;
        self.replace_dead_letters(&ranges, dead_letters).await?;
        crash_point!("reset.dead_letters_done");
        let rows = self.overwrite(table, old, &files, &ranges, &rejected).await?;
        crash_point!("reset.committed");
        Ok(rows)
    }

    async fn overwrite(
        &self,
        table: &Table,
        old: Old,
        files: &[FileEntry],
        ranges: &[OffsetRange],
        rejected: &[RejectedCount],
    ) -> Result<u64, WorkerError> {
        let mut cuts = Cuts::new(old, &self.spec.compaction, &self.spec.files, self.limits.clone());
        let mut refusal = None;
        for _ in 0..TRIES_MAX {
            let state = table.refresh().await?;
            cuts.follow(table, &state, false).await?;
            crash_point!("reset.files_written");
            let (removed, mut added, rows) = cuts.change();
            added.extend_from_slice(files);
            let change = Change::Overwrite {
                removed,
                added,
                ranges: ranges.to_vec(),
                replayed: Vec::new(),
                base: state.version,
                rejected: rejected.to_vec(),
            };
            match self.commit(table, change).await? {
                Landed::At(_) | Landed::AlreadySo => return Ok(rows),
                Landed::Refused(error) if error.kind() == ErrorKind::Conflict => refusal = Some(error),
                Landed::Refused(error) => return Err(error).for_table(&table.name),
                Landed::Stopped => return Err(stopped(table)),
            }
        }
        let gave_up = || LakeError::internal(&table.location, "no attempt was made");
        Err(refusal.unwrap_or_else(gave_up)).for_table(&table.name)
    }

    /// What the dead-letter table holds of these offsets leaves; `files` come.
    async fn replace_dead_letters(
        &self,
        ranges: &[OffsetRange],
        files: Vec<FileEntry>,
    ) -> Result<(), WorkerError> {
        let table = match Table::open_dead_letters(&self.lake, &self.spec).await? {
            Some(table) => table,
            None if files.is_empty() => return Ok(()),
            None => self.dead_letter_table().await?,
        };
        let schema = table.state.lock().await.schema.clone();
        let Some(old) = Old::dead_letters(&schema, ranges) else { return Ok(()) };
        if files.is_empty() {
            let mut cuts =
                Cuts::new(old.clone(), &self.spec.compaction, &self.spec.files, self.limits.clone());
            let state = table.refresh().await?;
            cuts.follow(&table, &state, true).await?;
            if cuts.change().2 == 0 {
                return Ok(());
            }
        }
        // Its position comes first: what is replaced lies below it.
        let missing = up_to_the_ends(ranges, &table.refresh().await?);
        if !missing.is_empty() {
            match self.commit(&table, Change::append(Vec::new(), missing, Vec::new())).await? {
                Landed::Stopped => return Err(stopped(&table)),
                // Refused: a worker moved it on meanwhile.
                Landed::At(_) | Landed::AlreadySo | Landed::Refused(_) => {}
            }
        }
        crash_point!("backfill.dead_letters_pinned");
        self.overwrite(&table, old, &files, ranges, &[]).await?;
        crate::projector::catch_up_all(&table).await
    }

    /// Has every format show all that was committed.
    pub(super) async fn show(&self, table: &Table) -> Result<(), WorkerError> {
        crate::projector::catch_up_all(table).await?;
        // One that was killed may have left dead letters that no format shows.
        match Table::open_dead_letters(&self.lake, &self.spec).await? {
            Some(letters) => crate::projector::catch_up_all(&letters).await,
            None => Ok(()),
        }
    }

    /// The dead-letter table, made when there is none.
    pub(super) async fn dead_letter_table(&self) -> Result<Table, WorkerError> {
        let (id, now_ms) = (self.identity.commit_id(), self.identity.now_ms());
        Table::open_or_create_dead_letters(&self.lake, &self.spec, &id, now_ms).await
    }

    pub(super) async fn commit(&self, table: &Table, change: Change) -> Result<Landed, WorkerError> {
        let patience = Patience::new(&self.identity, &self.metrics, &self.stop);
        commit::commit(table, change, &self.identity.commit_id(), "backfill", patience).await
    }
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

/// A refusal in the words of a command: there is no buffer that goes on from the ledger, there is a next run.
fn hole_filled(table: &str, error: LakeError) -> WorkerError {
    let table = table.to_owned();
    match error {
        LakeError::Fenced { topic, partition, start, end, .. } => {
            WorkerError::HoleFilled { table, topic, partition, start, end }
        }
        other => WorkerError::Lake { table, source: Box::new(other) },
    }
}

pub(super) fn stopped(table: &Table) -> WorkerError {
    WorkerError::Stopped { table: table.name.clone() }
}
