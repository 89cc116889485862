//! The polling loop of one table: a thread that never blocks for longer than it may.
//!
//! 1. Poll the source; every record goes through the [`Intake`].
//! 2. Answer the group: on assignment begin at the ledger; on revocation flush, commit, release; when
//!    the session was lost, drop everything and begin at the ledger.
//! 3. A record of an unknown schema blocks the source until the registry has answered; an outage of
//!    the registry pauses the table. A schema that grows the table is committed first.
//! 4. Before the table exists nothing but rejected records is buffered: they are flushed as always, into the
//!    dead-letter table alone. Its coverage keeps them from being written twice; the positions begun stay in
//!    memory, and the table's first entry covers all that was consumed since.
//! 5. Flush when the oldest row is old enough, the buffer is full, or memory is short. While a flush
//!    is on its way the next buffer fills; when that is full too, wait.
//!
//! The thread keeps polling (paused) while it waits for longer than a moment, so that it stays in its group.

use super::intake::{Intake, Wanting};
use super::lane::Lane;
use crate::error::ForTable;
use crate::error::WorkerError;
use crate::flush::FlushReason;
use crate::metrics::TableLabel;
use crate::table::Table;
use crate::unshown::Unshown;
use crate::{identity::Identity, metrics::Metrics, progress::Progress, runtime::TableRuntime};
use siltstone_datafile::{MemoryBudget, Reservation};
use siltstone_ingest::SourceEvent;
use siltstone_ingest::Visit;
use siltstone_ingest::{RecordSource, SchemaRegistry};
use siltstone_protocol::{OffsetRange, RejectReason, RejectedCount, health::WorkState};
use siltstone_spec::TableSpec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::{runtime::Handle, sync::watch};

const POLL_RECORDS_MAX: usize = 10_000;
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

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
    pub(super) parts: PollerParts,
    pub(super) lane: Lane,
    pub(super) events: Vec<SourceEvent>,
    pub(super) submitted: Vec<OffsetRange>,
    pub(super) submitted_rejected: Vec<RejectedCount>,
    /// Rejected before the table exists: for its ledger, when that begins.
    pub(super) early: BTreeMap<RejectReason, u64>,
    /// When the oldest row of the flush in flight was taken.
    pub(super) submitted_at: Option<Instant>,
    pub(super) unshown: Unshown,
    pub(super) waiting_for_schema: Option<(Wanting, Instant, Duration)>,
    pub(super) paused: bool,
    /// By a command: what was read is committed, and nothing is read.
    pub(super) rests: bool,
    pub(super) targets: Option<BTreeMap<i32, i64>>,
    pub(super) ends_seen: BTreeMap<i32, i64>,
    pub(super) measured: Instant,
    pub(super) checked_others: Instant,
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
            submitted_rejected: Vec::new(),
            early: BTreeMap::new(),
            submitted_at: None,
            unshown: Unshown::default(),
            waiting_for_schema: None,
            paused: false,
            rests: false,
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
                tracing::warn!(table = %self.name(), %error, code = %error.code(), "buffered rows were not committed");
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
            self.follow_others()?;
            self.heed_commands()?;
            if self.rests {
                self.rest()?
            } else {
                self.poll()?
            }
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

    pub(super) fn name(&self) -> &str {
        &self.parts.spec.name
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.parts.runtime.table()
    }

    pub(super) fn label(&self) -> TableLabel {
        TableLabel { table: self.parts.spec.name.clone() }
    }

    fn poll(&mut self) -> Result<(), WorkerError> {
        let timeout = match self.parts.intake.age(Instant::now()) {
            Some(age) => self.parts.spec.freshness.max_age.saturating_sub(age).min(POLL_TIMEOUT),
            None => POLL_TIMEOUT,
        };
        let room = self.room();
        // A buffer of `max_rows` is full at that row, not up to a poll later.
        let rows = self.parts.spec.freshness.max_rows.saturating_sub(self.parts.intake.rows()).max(1);
        let records = usize::try_from(rows).unwrap_or(usize::MAX).min(POLL_RECORDS_MAX);
        let PollerParts { source, intake, identity, spec, .. } = &mut self.parts;
        intake.hold_at_most(room);
        intake.tick(Instant::now(), identity.now_ms());
        let events =
            source.poll(timeout, records, &mut |record| intake.take(record)).for_table(&spec.name)?;
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
    pub(super) fn poll_events_only(&mut self) -> Result<(), WorkerError> {
        let PollerParts { source, spec, .. } = &mut self.parts;
        let events = source.poll(Duration::ZERO, 1, &mut |_| Visit::Blocked).for_table(&spec.name)?;
        self.events.extend(events);
        Ok(())
    }

    /// Goes to rest when a command says so, and on when another does. A rest outlives partitions that come and go,
    /// and restarts of the table within this worker.
    fn heed_commands(&mut self) -> Result<(), WorkerError> {
        let switch = self.parts.runtime.switch.clone();
        if switch.is_paused() == self.rests {
            return Ok(());
        }
        let label = self.label();
        if self.rests {
            self.rests = false;
            if self.waiting_for_schema.is_none() {
                self.resume()?;
            }
            switch.set(WorkState::Running, None);
        } else {
            self.pause()?;
            self.flush_all(FlushReason::Pause)?;
            self.rests = true;
            switch.set(WorkState::Paused, None);
        }
        tracing::info!(table = %self.name(), rests = self.rests, "told by the control plane");
        self.parts.metrics.table_paused.get_or_create(&label).set(self.rests.into());
        Ok(())
    }

    /// Stays in the group without taking records.
    fn rest(&mut self) -> Result<(), WorkerError> {
        self.poll_events_only()?;
        std::thread::sleep(POLL_TIMEOUT);
        Ok(())
    }

    pub(super) fn pause(&mut self) -> Result<(), WorkerError> {
        if !self.paused {
            self.parts.source.pause().for_table(&self.parts.spec.name)?;
            self.paused = true;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), WorkerError> {
        if self.paused && !self.rests {
            self.parts.source.resume().for_table(&self.parts.spec.name)?;
            self.paused = false;
        }
        Ok(())
    }

    pub(super) fn internal(&self, what: &'static str) -> WorkerError {
        WorkerError::Internal { table: self.name().to_owned(), what }
    }
}
