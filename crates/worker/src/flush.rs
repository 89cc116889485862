//! From a full buffer to a committed ledger entry.
//!
//! Before the table exists there are no rows, and only the first step is taken: rejected records do not wait
//! for a table that may never come to be.
//!
//! 1. Dead letters first: the rows that the dead-letter table does not hold yet are written and
//!    committed there. It thus never lags behind the main table, and after a crash it filters what
//!    it already has (each table keeps its own coverage, and its rows say which letters it has of that). Records that
//!    it holds as rejected, and that are read again because the main table's entry did not land, may be no longer
//!    rejected: the entry says so as `replayed`, so that they are not replayed once more.
//! 2. The rows are sorted and written as data files. Files are durable before the ledger names them.
//! 3. The ledger entry is put: this is the commit. Its commit id stays the same over every retry.
//! 4. The projector is told.
//!
//! Faults that may pass are retried here, without end but with backoff, until the worker is told to
//! stop: an outage pauses a table and loses nothing. Everything else goes to the caller.

mod places;

use std::sync::Arc;

use arrow::array::RecordBatch;
use siltstone_datafile::{Reservation, WrittenFile, write_sorted};
use siltstone_lakehouse::{
    LedgerState, SourcePartition, TableStore, crash_point, ledger::RANGES_PER_ENTRY_MAX,
};
use siltstone_protocol::{Change, ErrorCode, ErrorKind, FileEntry, OffsetRange, RejectedCount, Schema};
use siltstone_spec::TableSpec;
use tokio::sync::watch;

pub(crate) use self::places::rejected_places;
use self::places::{held_ranges, missing_ranges, not_yet_held, rows_of, within, without};
use crate::{
    commit::{self, Landed, Patience},
    dead_letters,
    error::{ForTable, WorkerError},
    metrics::{KindLabel, Metrics, TableLabel},
    reingest,
    run::Identity,
    table::Table,
};

/// What triggered a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushReason {
    Age,
    Bytes,
    Rows,
    Pressure,
    Revoke,
    Pause,
    Schema,
    Stop,
    End,
}

impl FlushReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Pressure => "pressure",
            Self::Revoke => "revoke",
            Self::Pause => "pause",
            Self::Schema => "schema",
            Self::Stop => "stop",
            Self::End => "end",
        }
    }
}

/// A buffer on its way into the table. All its rows have one schema.
pub struct FlushJob {
    pub schema: Option<Arc<Schema>>,
    pub batches: Vec<RecordBatch>,
    pub dead_letters: Vec<RecordBatch>,
    pub ranges: Vec<OffsetRange>,
    pub rejected: Vec<RejectedCount>,
    /// The buffer's share of the memory budget; released when the job is done.
    pub memory: Option<Reservation>,
}

impl std::fmt::Debug for FlushJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushJob")
            .field("batches", &self.batches.len())
            .field("dead_letters", &self.dead_letters.len())
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}

/// How a flush ended.
#[derive(Debug)]
pub enum Flushed {
    /// The ranges are committed; the rows are in the table.
    Committed { version: u64, rows: u64 },
    /// The table does not exist yet. Rejected records are in the dead-letter table, and its coverage holds their
    /// ranges; the table's own ledger takes the ranges over when it begins.
    Early,
    /// Others committed these ranges, wholly or in part: drop what is buffered, begin at the ledger.
    Fenced,
    /// The worker was told to stop before a fault passed. The ledger says what landed.
    Abandoned,
}

/// Everything a flush of one table needs.
pub struct Flusher {
    pub spec: TableSpec,
    pub lake: TableStore,
    /// `None` before the table exists.
    pub table: Option<Arc<Table>>,
    pub dead_letters: Option<Arc<Table>>,
    pub metrics: Arc<Metrics>,
    pub identity: Arc<Identity>,
    /// Turns true when faults must no longer be waited for.
    pub abandon: watch::Receiver<bool>,
    /// Called once when the dead-letter table comes to be, so that it is projected.
    pub on_dead_letters: Box<dyn Fn(Arc<Table>) + Send + Sync>,
}

impl std::fmt::Debug for Flusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flusher").field("table", &self.spec.name).finish_non_exhaustive()
    }
}

impl Flusher {
    /// Writes and commits one buffer.
    ///
    /// # Errors
    /// What a person must mend: `Invalid`, `Data`, `Internal`.
    pub async fn flush(&mut self, job: FlushJob) -> Result<Flushed, WorkerError> {
        let FlushJob { schema, batches, dead_letters, ranges, rejected, memory } = job;
        crash_point!("flush.begin");
        let rejected_now = rejected_places(&dead_letters);
        let mut held = None;
        if !dead_letters.is_empty() {
            match self.flush_dead_letters(dead_letters, &rejected_now, &ranges).await? {
                Ok(held_before) => held = held_before,
                Err(ended) => return Ok(ended),
            }
        }
        crash_point!("flush.dead_letters_done");
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let Some(table) = self.table.clone() else {
            let what = "rows were buffered before the table exists";
            let table = self.spec.name.clone();
            return if rows == 0 { Ok(Flushed::Early) } else { Err(WorkerError::Internal { table, what }) };
        };
        let files = match schema {
            Some(schema) if rows > 0 => match self.write(&table, schema, batches).await? {
                Some(files) => files,
                None => return Ok(Flushed::Abandoned),
            },
            _ => Vec::new(),
        };
        drop(memory);
        crash_point!("flush.files_written");
        let entries: Vec<FileEntry> = files.iter().map(|file| file.entry.clone()).collect();
        let (count, bytes) = (entries.len() as u64, entries.iter().map(|entry| entry.bytes).sum());
        for file in files {
            table.details.insert(file.details);
        }
        let held = match held {
            Some(held) => held,
            None => match self.held(&ranges).await? {
                Some(held) => held,
                None => return Ok(Flushed::Abandoned),
            },
        };
        let Some(replayed) = self.no_longer_rejected(held, &rejected_now).await? else {
            return Ok(Flushed::Abandoned);
        };
        let change =
            Change::Append { files: entries, ranges, rejected, replayed, imported: Vec::new(), base: None };
        let ended = self.commit(&table, change).await?;
        crash_point!("flush.committed");
        if let Flushed::Committed { version, .. } = ended {
            self.metrics.files_committed.get_or_create(&self.label(&table)).inc_by(count);
            self.metrics.file_bytes.get_or_create(&self.label(&table)).inc_by(bytes);
            return Ok(Flushed::Committed { version, rows });
        }
        Ok(ended)
    }

    /// Commits a change that carries no rows: a first position, a lost range, a schema.
    ///
    /// # Errors
    /// As [`Self::flush`]; a `Conflict` is returned to the caller, who knows what to look at again.
    pub async fn commit_change(&mut self, change: Change) -> Result<Flushed, WorkerError> {
        let Some(table) = self.table.clone() else {
            let what = "a change before the table exists";
            return Err(WorkerError::Internal { table: self.spec.name.clone(), what });
        };
        self.commit(&table, change).await
    }

    async fn write(
        &self,
        table: &Table,
        schema: Arc<Schema>,
        batches: Vec<RecordBatch>,
    ) -> Result<Option<Vec<WrittenFile>>, WorkerError> {
        let layout = table.layout(schema).await;
        let mut patience = self.patience();
        loop {
            // Batches are columns behind reference counts: a copy for a retry costs nothing.
            match write_sorted(batches.clone(), &layout, &table.store, &table.location).await {
                Ok(files) => return Ok(Some(files)),
                Err(error) if error.kind().is_retryable() => {
                    tracing::warn!(
                        table = %table.name, %error, code = %error.code(), "writing data files failed, trying again"
                    );
                    if !patience.wait(&table.name, "write").await {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).for_table(&table.name),
            }
        }
    }

    async fn commit(&self, table: &Table, change: Change) -> Result<Flushed, WorkerError> {
        let commit_id = self.identity.commit_id();
        match commit::commit(table, change, &commit_id, "commit", self.patience()).await? {
            Landed::At(version) => {
                self.metrics.commits.get_or_create(&self.label(table)).inc();
                let known = i64::try_from(version).unwrap_or(i64::MAX);
                self.metrics.ledger_version.get_or_create(&self.label(table)).set(known);
                Ok(Flushed::Committed { version, rows: 0 })
            }
            Landed::AlreadySo => Ok(self.refused(table, "covered")),
            Landed::Refused(error) if error.kind() == ErrorKind::Fenced => {
                tracing::warn!(table = %table.name, %error, code = %error.code(), "commit refused");
                Ok(self.refused(table, "fenced"))
            }
            Landed::Refused(error) => Err(error).for_table(&table.name),
            Landed::Stopped => Ok(Flushed::Abandoned),
        }
    }

    /// What of these ranges the dead-letter table covers at this moment. `None`: told to stop.
    async fn held(&self, ranges: &[OffsetRange]) -> Result<Option<Vec<OffsetRange>>, WorkerError> {
        let Some(table) = &self.dead_letters else { return Ok(Some(Vec::new())) };
        if !self.follow(table).await? {
            return Ok(None);
        }
        Ok(Some(held_ranges(ranges, &*table.state.lock().await)))
    }

    /// What was rejected before and is not now: all that lies between what is rejected. Where that is more than an
    /// entry takes, the letters themselves are looked for, which are fewer: those of records whose schema came to be
    /// known between two attempts at one buffer. `None`: told to stop.
    async fn no_longer_rejected(
        &self,
        held: Vec<OffsetRange>,
        rejected: &[(i32, i64)],
    ) -> Result<Option<Vec<OffsetRange>>, WorkerError> {
        let between = without(held, rejected);
        let Some(table) = self.dead_letters.as_ref().filter(|_| between.len() > RANGES_PER_ENTRY_MAX) else {
            return Ok(Some(between));
        };
        let mut patience = self.patience();
        let replayed = loop {
            let state = table.state.lock().await.clone();
            match reingest::with_letters(&self.spec, table, &state, &between).await {
                Ok(replayed) => break replayed,
                Err(error) => {
                    if !self.may_look_again(table, &state, error, &mut patience).await? {
                        return Ok(None);
                    }
                }
            }
        };
        if replayed.len() <= RANGES_PER_ENTRY_MAX {
            return Ok(Some(replayed));
        }
        let message = format!(
            "{} ranges of records were rejected before and are read again, and one entry names at most \
             {RANGES_PER_ENTRY_MAX}; lower freshness.max_rows, so that less is read at once",
            replayed.len()
        );
        Err(WorkerError::Spec { code: ErrorCode::ChangeTooLarge, table: self.spec.name.clone(), message })
    }

    /// Brings the state of a table up to its ledger. False: told to stop.
    async fn follow(&self, table: &Table) -> Result<bool, WorkerError> {
        let mut patience = self.patience();
        loop {
            let now_ms = self.identity.now_ms();
            let followed = {
                let mut state = table.state.lock().await;
                table.ledger.follow(&mut state, now_ms).await
            };
            match followed {
                Ok(()) => return Ok(true),
                Err(error) if !error.kind().is_retryable() => return Err(error).for_table(&table.name),
                Err(_) => {}
            }
            if !patience.wait(&table.name, "refresh").await {
                return Ok(false);
            }
        }
    }

    /// `Ok`: the dead letters are safe, go on with the rows; what of the ranges was covered there before, if an entry
    /// was made of them.
    async fn flush_dead_letters(
        &mut self,
        batches: Vec<RecordBatch>,
        rejected: &[(i32, i64)],
        ranges: &[OffsetRange],
    ) -> Result<Result<Option<Vec<OffsetRange>>, Flushed>, WorkerError> {
        if self.is_stale(ranges).await? {
            return Ok(Err(Flushed::Fenced));
        }
        let Some(table) = self.dead_letter_table().await? else { return Ok(Err(Flushed::Abandoned)) };
        if !self.follow(&table).await? {
            return Ok(Err(Flushed::Abandoned));
        }
        if let Some(ended) = self.flush_absent(&table, &batches, rejected, ranges).await? {
            return Ok(Err(ended));
        }
        let state = table.state.lock().await.clone();
        let fresh: Option<Vec<_>> = batches.iter().map(|batch| not_yet_held(batch, &state)).collect();
        let fresh = fresh.ok_or_else(|| dead_letters::columns_are_off(&table))?;
        let fresh: Vec<_> = fresh.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        if fresh.is_empty() {
            return Ok(Ok(None));
        }
        let (missing, held) = (missing_ranges(ranges, &state), held_ranges(ranges, &state));
        let Some(entries) = self.write_letters(&table, state.schema, fresh).await? else {
            return Ok(Err(Flushed::Abandoned));
        };
        crash_point!("flush.dead_letters_written");
        match self.commit(&table, Change::append(entries, missing, Vec::new())).await? {
            Flushed::Committed { .. } => Ok(Ok(Some(held))),
            ended => Ok(Err(ended)),
        }
    }

    /// Offsets that the table claims of a buffer whose rows did not land: what was a row then, and is rejected now by a
    /// changed spec, has no letter. What is lacking is found by row, and comes. `Some`: the flush ends so.
    async fn flush_absent(
        &self,
        table: &Table,
        batches: &[RecordBatch],
        rejected: &[(i32, i64)],
        ranges: &[OffsetRange],
    ) -> Result<Option<Flushed>, WorkerError> {
        let mut patience = self.patience();
        loop {
            let state = table.state.lock().await.clone();
            let held = held_ranges(ranges, &state);
            let claimed = within(rejected, &held);
            let Some(like) = held.first().filter(|_| !claimed.is_empty()) else { return Ok(None) };
            let ended = match reingest::lacking_letters(&self.spec, table, &state, like, claimed).await {
                Ok(lacking) if lacking.is_empty() => return Ok(None),
                Ok(lacking) => self.add_letters(table, &state, batches, &lacking, held.clone()).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(Flushed::Committed { .. }) => return Ok(None),
                Ok(ended) => return Ok(Some(ended)),
                Err(error) => {
                    if !self.may_look_again(table, &state, error, &mut patience).await? {
                        return Ok(Some(Flushed::Abandoned));
                    }
                }
            }
        }
    }

    /// Waits after a failed look at dead letters. False: told to stop. The error, when a look at the newest state would
    /// not be another one.
    async fn may_look_again(
        &self,
        table: &Table,
        looked_at: &LedgerState,
        error: WorkerError,
        patience: &mut Patience<'_>,
    ) -> Result<bool, WorkerError> {
        if !patience.wait(&table.name, "refresh").await || !self.follow(table).await? {
            return Ok(false);
        }
        // Files that others rewrote may be gone by now.
        let has_moved = table.state.lock().await.version > looked_at.version;
        if !has_moved && !error.kind().is_retryable() {
            return Err(error);
        }
        tracing::warn!(table = %table.name, %error, code = %error.code(), "looking at dead letters again");
        Ok(true)
    }

    /// Lays down letters of offsets that the table claims.
    async fn add_letters(
        &self,
        table: &Table,
        state: &LedgerState,
        batches: &[RecordBatch],
        places: &[(i32, i64)],
        ranges: Vec<OffsetRange>,
    ) -> Result<Flushed, WorkerError> {
        let rows: Option<Vec<_>> = batches.iter().map(|batch| rows_of(batch, places)).collect();
        let rows = rows.ok_or_else(|| dead_letters::columns_are_off(table))?;
        let rows = rows.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        let Some(added) = self.write_letters(table, state.schema.clone(), rows).await? else {
            return Ok(Flushed::Abandoned);
        };
        let (removed, replayed, rejected) = (Vec::new(), Vec::new(), Vec::new());
        let base = state.version;
        self.commit(table, Change::Overwrite { removed, added, ranges, replayed, base, rejected }).await
    }

    async fn write_letters(
        &self,
        table: &Table,
        schema: Schema,
        batches: Vec<RecordBatch>,
    ) -> Result<Option<Vec<FileEntry>>, WorkerError> {
        let Some(files) = self.write(table, Arc::new(schema), batches).await? else { return Ok(None) };
        let entry = |file: WrittenFile| {
            table.details.insert(file.details);
            file.entry
        };
        Ok(Some(files.into_iter().map(entry).collect()))
    }

    /// True when others committed what these ranges hold: what they were rejected for here is not to be kept.
    async fn is_stale(&self, ranges: &[OffsetRange]) -> Result<bool, WorkerError> {
        let Some(table) = &self.table else { return Ok(false) };
        let mut state = table.state.lock().await;
        match table.ledger.follow(&mut state, self.identity.now_ms()).await {
            Ok(()) => {}
            // The commit will wait for the store.
            Err(error) if error.kind().is_retryable() => return Ok(false),
            Err(error) => return Err(error).for_table(&table.name),
        }
        let moved = |range: &OffsetRange| {
            let next = state.next_offset(&SourcePartition::of(range));
            next.is_some_and(|next| next > range.start)
        };
        Ok(ranges.iter().any(|range| !range.lost && moved(range)))
    }

    async fn dead_letter_table(&mut self) -> Result<Option<Arc<Table>>, WorkerError> {
        let Some(table) = self.open_dead_letters().await? else { return Ok(None) };
        let patience = || self.patience();
        Ok(dead_letters::bring_up(&table, &self.identity, &patience).await?.then_some(table))
    }

    async fn open_dead_letters(&mut self) -> Result<Option<Arc<Table>>, WorkerError> {
        if let Some(table) = &self.dead_letters {
            return Ok(Some(table.clone()));
        }
        let mut patience = self.patience();
        let (id, now_ms) = (self.identity.commit_id(), self.identity.now_ms());
        loop {
            match Table::open_or_create_dead_letters(&self.lake, &self.spec, &id, now_ms).await {
                Ok(table) => {
                    let table = Arc::new(table);
                    (self.on_dead_letters)(table.clone());
                    self.dead_letters = Some(table.clone());
                    return Ok(Some(table));
                }
                Err(error) if error.kind().is_retryable() => {
                    if !patience.wait(&self.spec.name, "create_dead_letters").await {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn refused(&self, table: &Table, kind: &'static str) -> Flushed {
        self.metrics.commits_refused.get_or_create(&KindLabel { table: table.name.clone(), kind }).inc();
        Flushed::Fenced
    }

    fn label(&self, table: &Table) -> TableLabel {
        TableLabel { table: table.name.clone() }
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(&self.identity, &self.metrics, &self.abandon)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
