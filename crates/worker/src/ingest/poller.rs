//! The polling loop of one table: a thread that never blocks for longer than it may.
//!
//! 1. Poll the source; every record goes through the [`Intake`].
//! 2. Answer the group: on assignment begin at the ledger; on revocation flush, commit, release; when
//!    the session was lost, drop everything and begin at the ledger.
//! 3. A record of an unknown schema blocks the source until the registry has answered; an outage of
//!    the registry pauses the table. A schema that grows the table is committed first.
//! 4. Flush when the oldest row is old enough, the buffer is full, or memory is short. While a flush
//!    is on its way the next buffer fills; when that is full too, wait.
//!
//! The thread keeps polling (paused) while it waits for longer than a moment, so that it stays in its group.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use siltstone_datafile::{MemoryBudget, Reservation};
use siltstone_ingest::{
    RecordSource, SchemaRegistry, SourceEvent, Visit,
    decoder::{Learned, SchemaNeed},
};
use siltstone_lakehouse::SourcePartition;
use siltstone_protocol::{Change, ErrorKind, OffsetRange, Schema};
use siltstone_spec::{OnLostRange, TableSpec};
use tokio::{runtime::Handle, sync::watch};

use super::{
    intake::{Halt, Intake},
    lane::Lane,
};
use crate::{
    error::{ForTable, WorkerError},
    flush::{FlushJob, FlushReason, Flushed},
    metrics::{Metrics, PartitionLabel, ReasonLabel, TableLabel},
    progress::Progress,
    run::{Identity, TableRuntime},
    table::Table,
};

const POLL_RECORDS_MAX: usize = 10_000;
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Waiting longer than this pauses the source instead of leaving it unpolled.
const WAIT_UNPOLLED_MAX: Duration = Duration::from_secs(5);
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const REGISTRY_RETRY_MIN: Duration = Duration::from_secs(1);
const REGISTRY_RETRY_MAX: Duration = Duration::from_secs(30);
/// One table fills at most this share of the budget; as much again may be on its way to the bucket,
/// and the rest is for sorting and writing.
const BUFFER_SHARE_PERCENT: u64 = 35;
const SCHEMA_COMMIT_TRIES_MAX: u32 = 10;

/// How a polling loop ended without error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Told to stop; what was buffered is committed.
    Stopped,
    /// A bounded run has reached its end offsets.
    Reached,
}

/// What a poller is made of.
#[allow(missing_debug_implementations)]
pub struct PollerParts {
    pub spec: TableSpec,
    pub source: Box<dyn RecordSource>,
    pub intake: Intake,
    pub registry: Option<Arc<dyn SchemaRegistry>>,
    pub runtime: TableRuntime,
    pub handle: Handle,
    pub budget: MemoryBudget,
    /// What the buffer being filled holds of the budget.
    pub memory: Option<Reservation>,
    pub tables: u64,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub identity: Arc<Identity>,
    pub stop: watch::Receiver<bool>,
    /// Stop at the end offsets seen at the start.
    pub once: bool,
}

/// The loop and its state.
#[allow(missing_debug_implementations)]
pub struct Poller {
    parts: PollerParts,
    /// `None` before the table exists.
    lane: Option<Lane>,
    events: Vec<SourceEvent>,
    submitted: Vec<OffsetRange>,
    /// When the oldest row of the flush in flight was taken.
    submitted_at: Option<Instant>,
    waiting_for_schema: Option<(SchemaNeed, Instant, Duration)>,
    paused: bool,
    targets: Option<BTreeMap<i32, i64>>,
    ends_seen: BTreeMap<i32, i64>,
    measured: Instant,
    checked_others: Instant,
}

impl Poller {
    pub fn new(parts: PollerParts) -> Self {
        let now = Instant::now();
        let lane = parts.runtime.start_lane(&parts.handle);
        Self {
            parts,
            lane,
            events: Vec::new(),
            submitted: Vec::new(),
            submitted_at: None,
            waiting_for_schema: None,
            paused: false,
            targets: None,
            ends_seen: BTreeMap::new(),
            measured: now,
            checked_others: now,
        }
    }

    /// Runs until stopped, done, or failed; leaves the group in any case.
    ///
    /// # Errors
    /// What stops the table, naming topic, partition and offset where there is one.
    pub fn run(mut self) -> Result<Ended, WorkerError> {
        let ended = self.work();
        if ended.is_err() {
            // What precedes the fault is good and may be committed; the fault itself is the error.
            if let Err(error) = self.flush_all(FlushReason::Stop) {
                tracing::warn!(table = %self.name(), %error, "buffered rows were not committed");
            }
        }
        self.parts.source.close();
        ended
    }

    fn work(&mut self) -> Result<Ended, WorkerError> {
        if self.parts.once {
            self.set_targets()?;
        }
        loop {
            if *self.parts.stop.borrow() {
                self.flush_all(FlushReason::Stop)?;
                return Ok(Ended::Stopped);
            }
            self.take_answer(Duration::ZERO)?;
            self.poll()?;
            self.answer_events()?;
            self.act_on_halt()?;
            self.learn_again()?;
            self.flush_if_due()?;
            self.measure();
            if self.targets_reached()? {
                self.flush_all(FlushReason::End)?;
                return Ok(Ended::Reached);
            }
        }
    }

    fn name(&self) -> &str {
        &self.parts.spec.name
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.parts.runtime.table()
    }

    fn label(&self) -> TableLabel {
        TableLabel { table: self.parts.spec.name.clone() }
    }

    // --- polling -------------------------------------------------------------------------------

    fn poll(&mut self) -> Result<(), WorkerError> {
        let timeout = match self.parts.intake.age(Instant::now()) {
            Some(age) => self.parts.spec.freshness.max_age.saturating_sub(age).min(POLL_TIMEOUT),
            None => POLL_TIMEOUT,
        };
        let PollerParts { source, intake, identity, spec, .. } = &mut self.parts;
        intake.tick(Instant::now(), identity.now_ms());
        let events = source
            .poll(timeout, POLL_RECORDS_MAX, &mut |record| intake.take(record))
            .for_table(&spec.name)?;
        self.events.extend(events);
        let (records, bytes) = self.parts.intake.take_counts();
        if records > 0 {
            self.parts.metrics.records_consumed.get_or_create(&self.label()).inc_by(records);
            self.parts.metrics.input_bytes.get_or_create(&self.label()).inc_by(bytes);
            self.parts.progress.consumed(records, bytes);
        }
        Ok(())
    }

    /// Serves the group without taking records.
    fn poll_events_only(&mut self) -> Result<(), WorkerError> {
        let PollerParts { source, spec, .. } = &mut self.parts;
        let events = source.poll(Duration::ZERO, 1, &mut |_| Visit::Blocked).for_table(&spec.name)?;
        self.events.extend(events);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), WorkerError> {
        if !self.paused {
            self.parts.source.pause().for_table(&self.parts.spec.name)?;
            self.paused = true;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), WorkerError> {
        if self.paused {
            self.parts.source.resume().for_table(&self.parts.spec.name)?;
            self.paused = false;
        }
        Ok(())
    }

    // --- the group -----------------------------------------------------------------------------

    fn answer_events(&mut self) -> Result<(), WorkerError> {
        for event in std::mem::take(&mut self.events) {
            match event {
                SourceEvent::Assigned(partitions) => self.take_over(&partitions)?,
                SourceEvent::Revoked(partitions) => {
                    self.flush_all(FlushReason::Revoke)?;
                    self.give_up(&partitions)?;
                }
                SourceEvent::Lost(partitions) => {
                    tracing::warn!(table = %self.name(), ?partitions, "session lost, beginning at the ledger");
                    self.give_up(&partitions)?;
                    self.begin_at_ledger()?;
                }
                SourceEvent::EndOfPartition { partition, offset } => {
                    self.parts.intake.positions.pass(partition, offset);
                    self.ends_seen.insert(partition, offset);
                }
                SourceEvent::OffsetOutOfRange { partition } => {
                    self.flush_all(FlushReason::Revoke)?;
                    self.take_over(&[partition])?;
                }
            }
        }
        Ok(())
    }

    fn give_up(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.parts.intake.positions.remove(partitions);
        for partition in partitions {
            let label = PartitionLabel { table: self.name().to_owned(), partition: *partition };
            self.parts.metrics.lag_records.remove(&label);
            self.parts.metrics.lag_seconds.remove(&label);
            self.ends_seen.remove(partition);
        }
        self.parts.source.release(partitions).for_table(&self.parts.spec.name)
    }

    /// Begins partitions where the ledger ends, or where the spec says when it has no position.
    fn take_over(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        let mut positions = Vec::with_capacity(partitions.len());
        let mut first = Vec::new();
        for &partition in partitions {
            let position = match self.committed_position(partition)? {
                Some(position) => self.check_retained(partition, position)?,
                None => {
                    let PollerParts { source, spec, .. } = &mut self.parts;
                    let start = source.start_offset(partition, &spec.start).for_table(&spec.name)?;
                    first.push(self.range(partition, start, start, false));
                    start
                }
            };
            positions.push((partition, position));
        }
        if !first.is_empty() && self.lane.is_some() {
            // Pins a start that would move (latest, timestamp) before the first row is read.
            self.change(Change::Append { files: Vec::new(), ranges: first, rejected: Vec::new() })?;
        }
        for &(partition, position) in &positions {
            self.parts.intake.positions.begin(partition, position);
        }
        self.parts.source.assign(&positions).for_table(&self.parts.spec.name)?;
        if self.paused {
            self.parts.source.pause().for_table(&self.parts.spec.name)?;
        }
        tracing::info!(table = %self.name(), ?positions, "partitions assigned");
        Ok(())
    }

    fn committed_position(&self, partition: i32) -> Result<Option<i64>, WorkerError> {
        let Some(table) = self.table() else { return Ok(None) };
        let spec = &self.parts.spec;
        self.parts.handle.block_on(async {
            let mut state = table.state.lock().await;
            table.ledger.refresh(&mut state).await.for_table(&spec.name)?;
            let source =
                SourcePartition { cluster: spec.cluster.clone(), topic: spec.topic.clone(), partition };
            Ok(state.next_offset(&source))
        })
    }

    /// The position, or the first offset that the broker still has when the spec says to go on.
    fn check_retained(&mut self, partition: i32, position: i64) -> Result<i64, WorkerError> {
        let PollerParts { source, spec, .. } = &mut self.parts;
        let marks = source.watermarks(partition).for_table(&spec.name)?;
        let (table, topic) = (spec.name.clone(), spec.topic.clone());
        if position > marks.high {
            return Err(WorkerError::PositionBeyondEnd {
                table,
                topic,
                partition,
                position,
                end: marks.high,
            });
        }
        if position >= marks.low {
            return Ok(position);
        }
        if spec.on_lost_range == OnLostRange::Stop {
            return Err(WorkerError::LostRange { table, topic, partition, start: position, end: marks.low });
        }
        tracing::error!(table, topic, partition, start = position, end = marks.low, "records lost, going on");
        let lost = self.range(partition, position, marks.low, true);
        self.change(Change::Append { files: Vec::new(), ranges: vec![lost], rejected: Vec::new() })?;
        Ok(marks.low)
    }

    fn range(&self, partition: i32, start: i64, end: i64, lost: bool) -> OffsetRange {
        let spec = &self.parts.spec;
        OffsetRange { cluster: spec.cluster.clone(), topic: spec.topic.clone(), partition, start, end, lost }
    }

    /// Drops everything buffered and begins every owned partition where the ledger ends.
    fn begin_at_ledger(&mut self) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        self.parts.intake.clear().for_table(&self.parts.spec.name)?;
        self.submitted.clear();
        self.waiting_for_schema = None;
        self.resume()?;
        let mut positions = Vec::new();
        for partition in self.parts.intake.positions.partitions() {
            if let Some(position) = self.committed_position(partition)? {
                self.parts.intake.positions.begin(partition, position);
                positions.push((partition, position));
            }
        }
        self.parts.memory = None;
        self.follow_schema()?;
        self.ends_seen.clear();
        self.parts.source.seek(&positions).for_table(&self.parts.spec.name)
    }

    // --- schemas -------------------------------------------------------------------------------

    fn act_on_halt(&mut self) -> Result<(), WorkerError> {
        match self.parts.intake.take_halt() {
            None | Some(Halt::Full) => Ok(()),
            Some(Halt::Failed(error)) => Err(error).for_table(self.name()),
            Some(Halt::Rejected { partition, offset, reason }) => Err(WorkerError::RejectedRecord {
                table: self.name().to_owned(),
                topic: self.parts.spec.topic.clone(),
                partition,
                offset,
                reason,
            }),
            Some(Halt::NeedsSchema(need)) => self.learn(need, REGISTRY_RETRY_MIN),
        }
    }

    fn learn_again(&mut self) -> Result<(), WorkerError> {
        match self.waiting_for_schema.take() {
            Some((need, at, backoff)) if Instant::now() >= at => self.learn(need, backoff),
            waiting => {
                self.waiting_for_schema = waiting;
                Ok(())
            }
        }
    }

    fn learn(&mut self, need: SchemaNeed, backoff: Duration) -> Result<(), WorkerError> {
        for _ in 0..SCHEMA_COMMIT_TRIES_MAX {
            let PollerParts { handle, intake, registry, .. } = &mut self.parts;
            match handle.block_on(intake.decoder.learn(need, registry.as_deref())) {
                Ok(Learned::Ready | Learned::Refused(_)) => return self.resume(),
                Ok(Learned::Evolves(schema)) => self.evolve(schema)?,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(table = %self.name(), %error, "registry does not answer, table paused");
                    self.parts.metrics.retry(self.name(), "registry");
                    self.pause()?;
                    let next = (backoff * 2).min(REGISTRY_RETRY_MAX);
                    let at = Instant::now() + self.parts.identity.jitter(backoff);
                    self.waiting_for_schema = Some((need, at, next));
                    return Ok(());
                }
                Err(error) => return Err(error).for_table(self.name()),
            }
        }
        Err(self.internal("the table's schema did not settle"))
    }

    /// Makes the table what the records need: everything before is committed in the old schema first.
    fn evolve(&mut self, schema: Schema) -> Result<(), WorkerError> {
        if self.table().is_none() {
            return self.create(schema);
        }
        self.flush_all(FlushReason::Schema)?;
        let known = self.parts.intake.schema.as_ref().map(|schema| schema.schema_id);
        self.follow_schema()?;
        if self.parts.intake.schema.as_ref().map(|schema| schema.schema_id) != known {
            return Ok(()); // Another worker was first: look at the record against its schema.
        }
        tracing::info!(table = %self.name(), schema_id = schema.schema_id, "schema grows");
        match self.change(Change::SetSchema { schema }) {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            other => other?,
        }
        self.follow_schema()
    }

    fn create(&mut self, schema: Schema) -> Result<(), WorkerError> {
        let table = self.parts.handle.block_on(self.parts.runtime.create(schema))?;
        self.lane = self.parts.runtime.start_lane(&self.parts.handle);
        self.follow_schema()?;
        let owned: Vec<_> = self.parts.intake.positions.iter().map(|(id, at)| (id, at.committed)).collect();
        tracing::info!(table = %table.name, location = %table.location, "table created");
        let mut first = Vec::new();
        for (partition, start) in owned {
            if self.committed_position(partition)?.is_none() {
                first.push(self.range(partition, start, start, false));
            }
        }
        if first.is_empty() {
            return Ok(());
        }
        self.change(Change::Append { files: Vec::new(), ranges: first, rejected: Vec::new() })
    }

    /// Takes the ledger's schema over when it is newer than the decoder's. The buffer is closed first.
    fn follow_schema(&mut self) -> Result<(), WorkerError> {
        let Some(table) = self.table() else { return Ok(()) };
        let schema = self.parts.handle.block_on(async {
            let mut state = table.state.lock().await;
            table.ledger.refresh(&mut state).await.for_table(&table.name)?;
            Ok::<_, WorkerError>(state.schema.clone())
        })?;
        if self.parts.intake.schema.as_ref().is_some_and(|known| known.schema_id == schema.schema_id) {
            return Ok(());
        }
        if self.parts.intake.rows() > 0 {
            self.flush_all(FlushReason::Schema)?;
        }
        self.parts.intake.decoder.set_table_schema(schema.clone()).for_table(&self.parts.spec.name)?;
        self.parts.intake.schema = Some(Arc::new(schema));
        Ok(())
    }

    // --- flushing ------------------------------------------------------------------------------

    fn flush_if_due(&mut self) -> Result<(), WorkerError> {
        if self.waiting_for_schema.is_some() && self.parts.intake.rows() == 0 {
            return Ok(());
        }
        let Some(reason) = self.due() else { return Ok(()) };
        if self.lane.is_none() {
            return Ok(()); // Nothing is buffered before the table exists but rejected records.
        }
        if self.lane.as_ref().is_some_and(Lane::is_busy) {
            // Age alone can wait: the next buffer goes as soon as this one has landed.
            return if reason == FlushReason::Age { Ok(()) } else { self.wait_for_lane() };
        }
        self.submit(reason)
    }

    /// Brings the reservation to what the buffer holds. False: the budget has no room.
    fn reserve(&mut self, bytes: u64) -> bool {
        match &mut self.parts.memory {
            Some(memory) => memory.resize(bytes),
            none => {
                *none = self.parts.budget.try_reserve(bytes);
                none.is_some()
            }
        }
    }

    fn due(&mut self) -> Option<FlushReason> {
        let age = self.parts.intake.age(Instant::now())?;
        let bytes = self.parts.intake.bytes();
        let reserved = self.reserve(bytes);
        let intake = &self.parts.intake;
        let freshness = &self.parts.spec.freshness;
        let budget = &self.parts.budget;
        let share = budget.limit() / 100 * BUFFER_SHARE_PERCENT;
        // A reservation that cannot grow, or a full house of which this table holds its part.
        let short = !reserved
            || (budget.used() / 7 > budget.limit() / 10
                && bytes > budget.limit() / (2 * self.parts.tables.max(1)));
        if bytes >= share || short {
            Some(FlushReason::Pressure)
        } else if intake.input_bytes() >= freshness.max_bytes {
            Some(FlushReason::Bytes)
        } else if intake.rows() >= freshness.max_rows {
            Some(FlushReason::Rows)
        } else if age >= freshness.max_age {
            Some(FlushReason::Age)
        } else {
            None
        }
    }

    fn submit(&mut self, reason: FlushReason) -> Result<(), WorkerError> {
        let Some(lane) = &mut self.lane else { return Ok(()) };
        let age = self.parts.intake.age(Instant::now());
        let taken = self.parts.intake.take_buffer().for_table(&self.parts.spec.name)?;
        let spec = &self.parts.spec;
        let ranges = self.parts.intake.positions.submit(&spec.cluster, &spec.topic);
        if ranges.is_empty() {
            return Ok(());
        }
        for count in &taken.rejected {
            let label = ReasonLabel { table: spec.name.clone(), reason: count.reason.as_str() };
            self.parts.metrics.records_rejected.get_or_create(&label).inc_by(count.records);
        }
        let label = ReasonLabel { table: spec.name.clone(), reason: reason.as_str() };
        self.parts.metrics.flushes.get_or_create(&label).inc();
        let memory = self.parts.memory.take();
        self.submitted.clone_from(&ranges);
        self.submitted_at = age.and_then(|age| Instant::now().checked_sub(age));
        let job = FlushJob {
            schema: taken.schema,
            batches: taken.batches,
            dead_letters: taken.dead_letters,
            ranges,
            rejected: taken.rejected,
            memory,
        };
        lane.submit(job).map_err(|_| self.internal("a flush was submitted to a busy lane"))
    }

    /// Submits what is buffered and waits until everything submitted has landed.
    fn flush_all(&mut self, reason: FlushReason) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        if self.parts.intake.positions.has_unsubmitted() {
            self.submit(reason)?;
            self.wait_for_lane()?;
        }
        Ok(())
    }

    /// Commits a change without rows and waits for it.
    fn change(&mut self, change: Change) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        let Some(lane) = &mut self.lane else {
            return Err(self.internal("a change before the table exists"));
        };
        if !lane.submit_change(change) {
            return Err(self.internal("a change was submitted to a busy lane"));
        }
        self.wait_for_lane()
    }

    fn wait_for_lane(&mut self) -> Result<(), WorkerError> {
        let began = Instant::now();
        let was_paused = self.paused;
        while self.lane.as_ref().is_some_and(Lane::is_busy) {
            self.take_answer(Duration::from_millis(100))?;
            if began.elapsed() > WAIT_UNPOLLED_MAX {
                self.pause()?;
                self.poll_events_only()?;
            }
        }
        if !was_paused && self.waiting_for_schema.is_none() {
            self.resume()?;
        }
        Ok(())
    }

    fn take_answer(&mut self, timeout: Duration) -> Result<(), WorkerError> {
        let Some(answer) = self.lane.as_mut().and_then(|lane| lane.answer(timeout)) else { return Ok(()) };
        self.submitted_at = None;
        match answer? {
            Flushed::Committed { rows, .. } => {
                let ranges = std::mem::take(&mut self.submitted);
                self.parts.intake.positions.commit(&ranges);
                self.parts.metrics.rows_committed.get_or_create(&self.label()).inc_by(rows);
                self.parts.progress.committed(rows);
                let committed = self.parts.intake.positions.committed();
                self.parts.source.publish_positions(&committed);
                Ok(())
            }
            Flushed::Fenced => self.begin_at_ledger(),
            Flushed::Abandoned => Err(self.internal("stopped before the last flush could be committed")),
        }
    }

    fn internal(&self, what: &'static str) -> WorkerError {
        WorkerError::Internal { table: self.name().to_owned(), what }
    }

    // --- bounded runs and measures ---------------------------------------------------------------

    fn set_targets(&mut self) -> Result<(), WorkerError> {
        let mut targets = BTreeMap::new();
        let mut expected = 0;
        let partitions = self.parts.source.partitions().for_table(&self.parts.spec.name)?;
        for partition in partitions {
            let marks = self.parts.source.watermarks(partition).for_table(&self.parts.spec.name)?;
            let from = self.committed_position(partition)?.unwrap_or(marks.low).max(marks.low);
            expected += u64::try_from(marks.high - from).unwrap_or(0);
            targets.insert(partition, marks.high);
        }
        self.parts.progress.expect(expected);
        self.targets = Some(targets);
        Ok(())
    }

    /// True when a bounded run has consumed its own partitions to their ends, and the ledger holds
    /// the others' (other workers of the group may own them).
    fn targets_reached(&mut self) -> Result<bool, WorkerError> {
        let Some(targets) = &self.targets else { return Ok(false) };
        if self.waiting_for_schema.is_some() {
            return Ok(false);
        }
        let mut others = Vec::new();
        for (&partition, &target) in targets {
            let owned = self.parts.intake.positions.iter().find(|(id, _)| *id == partition);
            match owned {
                Some((_, position)) if position.next >= target => {}
                // Nothing but control records may lie between the last record and the end.
                Some(_) if self.ends_seen.get(&partition).is_some_and(|end| *end >= target) => {}
                Some(_) => return Ok(false),
                None => others.push((partition, target)),
            }
        }
        if others.is_empty() {
            return Ok(true);
        }
        if self.checked_others.elapsed() < Duration::from_millis(500) {
            return Ok(false);
        }
        self.checked_others = Instant::now();
        for (partition, target) in others {
            if self.committed_position(partition)?.unwrap_or(0) < target {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn measure(&mut self) {
        let now = Instant::now();
        let oldest = self
            .parts
            .intake
            .age(now)
            .into_iter()
            .chain(self.submitted_at.map(|at| now.saturating_duration_since(at)));
        let freshness = oldest.max().unwrap_or_default().as_secs_f64();
        self.parts.metrics.freshness.get_or_create(&self.label()).set(freshness);
        if self.measured.elapsed() < MEASURE_EVERY {
            return;
        }
        self.measured = now;
        let now_ms = self.parts.identity.now_ms();
        let owned: Vec<_> = self.parts.intake.positions.iter().map(|(id, at)| (id, *at)).collect();
        for (partition, position) in owned {
            // A broker that does not answer shows in the log of its client; the gauge keeps its value.
            let Ok(marks) = self.parts.source.watermarks(partition) else { continue };
            let lag = (marks.high - position.next).max(0);
            let seconds = if lag > 0 && position.last_timestamp_ms > 0 {
                (now_ms - position.last_timestamp_ms).max(0) as f64 / 1000.0
            } else {
                0.0
            };
            let label = PartitionLabel { table: self.name().to_owned(), partition };
            self.parts.metrics.lag_records.get_or_create(&label).set(lag);
            self.parts.metrics.lag_seconds.get_or_create(&label).set(seconds);
        }
    }
}
