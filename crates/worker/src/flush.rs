//! From a full buffer to a committed ledger entry.
//!
//! Before the table exists there are no rows, and only the first step is taken: rejected records do not wait
//! for a table that may never come to be.
//!
//! 1. Dead letters first: the rows that the dead-letter table does not hold yet are written and
//!    committed there. It thus never lags behind the main table, and after a crash it filters what
//!    it already has (each table keeps its own coverage). Records that it holds as rejected, and that are read again
//!    because the main table's entry did not land, may be no longer rejected: the entry says so as `replayed`, so that
//!    they are not replayed once more.
//! 2. The rows are sorted and written as data files. Files are durable before the ledger names them.
//! 3. The ledger entry is put: this is the commit. Its commit id stays the same over every retry.
//! 4. The projector is told.
//!
//! Faults that may pass are retried here, without end but with backoff, until the worker is told to
//! stop: an outage pauses a table and loses nothing. Everything else goes to the caller.

use std::sync::Arc;

use arrow::{array::RecordBatch, compute::filter_record_batch};
use siltstone_datafile::{Reservation, WrittenFile, write_sorted};
use siltstone_lakehouse::{
    LedgerState, SourcePartition, TableStore, crash_point, ledger::RANGES_PER_ENTRY_MAX,
};
use siltstone_protocol::{Change, ErrorKind, FileEntry, OffsetRange, RejectedCount, Schema};
use siltstone_spec::TableSpec;
use tokio::sync::watch;

use crate::{
    commit::{self, Landed, Patience},
    dead_letters,
    error::{ForTable, WorkerError},
    metrics::{KindLabel, Metrics, TableLabel},
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
        let mut held = self.held(&ranges).await;
        if !dead_letters.is_empty() {
            match self.flush_dead_letters(dead_letters, &ranges).await? {
                Ok(held_now) => held = held_now,
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
        let replayed = self.no_longer_rejected(held, &rejected_now);
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

    /// What of these ranges the dead-letter table covers already, as far as is known here.
    async fn held(&self, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        match &self.dead_letters {
            Some(table) => held_ranges(ranges, &*table.state.lock().await),
            None => Vec::new(),
        }
    }

    /// What was rejected before and is not now. More than an entry takes is left out: only records whose schema came
    /// to be known between two attempts at one buffer would be in it.
    fn no_longer_rejected(&self, held: Vec<OffsetRange>, rejected: &[(i32, i64)]) -> Vec<OffsetRange> {
        let mut replayed = without(held, rejected);
        if replayed.len() > RANGES_PER_ENTRY_MAX {
            tracing::warn!(
                table = %self.spec.name, ranges = replayed.len(),
                "too many ranges were rejected before and are read again; some are not told apart"
            );
            replayed.truncate(RANGES_PER_ENTRY_MAX);
        }
        replayed
    }

    /// `Ok`: the dead letters are safe, go on with the rows; what of the ranges was covered there before.
    async fn flush_dead_letters(
        &mut self,
        batches: Vec<RecordBatch>,
        ranges: &[OffsetRange],
    ) -> Result<Result<Vec<OffsetRange>, Flushed>, WorkerError> {
        if self.is_stale(ranges).await? {
            return Ok(Err(Flushed::Fenced));
        }
        let Some(table) = self.dead_letter_table().await? else { return Ok(Err(Flushed::Abandoned)) };
        let (fresh, missing, held) = {
            let mut state = table.state.lock().await;
            let mut patience = self.patience();
            while let Err(error) = table.ledger.follow(&mut state, self.identity.now_ms()).await {
                if !error.kind().is_retryable() {
                    return Err(error).for_table(&table.name);
                }
                if !patience.wait(&table.name, "refresh").await {
                    return Ok(Err(Flushed::Abandoned));
                }
            }
            let fresh = batches
                .into_iter()
                .map(|batch| not_yet_held(batch, &state))
                .collect::<Option<Vec<_>>>()
                .ok_or(WorkerError::Internal {
                    table: table.name.clone(),
                    what: "dead-letter columns are off",
                })?;
            (fresh, missing_ranges(ranges, &state), held_ranges(ranges, &state))
        };
        let fresh: Vec<_> = fresh.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        if fresh.is_empty() {
            return Ok(Ok(held));
        }
        let schema = Arc::new(table.state.lock().await.schema.clone());
        let Some(files) = self.write(&table, schema, fresh).await? else {
            return Ok(Err(Flushed::Abandoned));
        };
        crash_point!("flush.dead_letters_written");
        let entries = files.iter().map(|file| file.entry.clone()).collect();
        for file in files {
            table.details.insert(file.details);
        }
        match self.commit(&table, Change::append(entries, missing, Vec::new())).await? {
            Flushed::Committed { .. } => Ok(Ok(held)),
            ended => Ok(Err(ended)),
        }
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

/// The rows of a dead-letter batch whose offsets the table's coverage does not hold.
fn not_yet_held(batch: RecordBatch, state: &LedgerState) -> Option<RecordBatch> {
    use arrow::array::{AsArray, BooleanArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    let clusters = batch.column_by_name("cluster")?.as_string_opt::<i32>()?;
    let topics = batch.column_by_name("topic")?.as_string_opt::<i32>()?;
    let partitions = batch.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?;
    let offsets = batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let offset = offsets.value(row);
            let held = state
                .coverage
                .get(&source(clusters.value(row), topics.value(row), partitions.value(row)))
                .is_some_and(|coverage| coverage.covers(offset, offset + 1));
            Some(!held)
        })
        .collect();
    filter_record_batch(&batch, &keep).ok()
}

/// What the dead-letter table still lacks of these ranges: each begins where its coverage ends.
fn missing_ranges(ranges: &[OffsetRange], state: &LedgerState) -> Vec<OffsetRange> {
    ranges
        .iter()
        .filter_map(|range| {
            let held = state.next_offset(&source(&range.cluster, &range.topic, range.partition));
            let start = held.unwrap_or(range.start);
            (start < range.end).then(|| OffsetRange { start, ..range.clone() })
        })
        .collect()
}

/// What of these ranges the dead-letter table covers.
fn held_ranges(ranges: &[OffsetRange], state: &LedgerState) -> Vec<OffsetRange> {
    let mut held = Vec::new();
    for range in ranges.iter().filter(|range| !range.lost) {
        let Some(coverage) = state.coverage.get(&SourcePartition::of(range)) else { continue };
        for &(start, end) in coverage.intervals() {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if start < end {
                held.push(OffsetRange { start, end, ..range.clone() });
            }
        }
    }
    held
}

/// Partition and offset of rejected records, sorted.
pub(crate) fn rejected_places(batches: &[RecordBatch]) -> Vec<(i32, i64)> {
    use arrow::{
        array::AsArray,
        datatypes::{Int32Type, Int64Type},
    };
    let mut places = Vec::new();
    for batch in batches {
        let partitions = batch.column_by_name("partition").and_then(|c| c.as_primitive_opt::<Int32Type>());
        let offsets = batch.column_by_name("offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(partitions), Some(offsets)) = (partitions, offsets) else { continue };
        places.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    places.sort_unstable();
    places
}

/// The ranges without these offsets.
fn without(ranges: Vec<OffsetRange>, places: &[(i32, i64)]) -> Vec<OffsetRange> {
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let first = places.partition_point(|place| *place < (range.partition, range.start));
        let within = places[first..].iter().take_while(|place| **place < (range.partition, range.end));
        let mut start = range.start;
        for &(_, offset) in within {
            if start < offset {
                left.push(OffsetRange { start, end: offset, ..range.clone() });
            }
            start = offset + 1;
        }
        if start < range.end {
            left.push(OffsetRange { start, ..range });
        }
    }
    left
}

fn source(cluster: &str, topic: &str, partition: i32) -> SourcePartition {
    SourcePartition { cluster: cluster.to_owned(), topic: topic.to_owned(), partition }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
