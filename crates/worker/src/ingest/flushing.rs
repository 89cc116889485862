//! When a buffer goes to the table, and what is done with the answer.

use super::poller::Poller;
use crate::error::WorkerError;
use crate::flush::FlushJob;
use crate::flush::FlushReason;
use crate::flush::Flushed;
use crate::metrics::ReasonLabel;
use siltstone_protocol::Change;
use std::time::Duration;
use std::time::Instant;

/// Waiting longer than this pauses the source instead of leaving it unpolled.
const WAIT_UNPOLLED_MAX: Duration = Duration::from_secs(5);
/// One table fills at most this share of the budget; as much again may be on its way to the bucket,
/// and the rest is for sorting and writing.
const BUFFER_SHARE_PERCENT: u64 = 30;

impl Poller {
    pub(super) fn flush_if_due(&mut self) -> Result<(), WorkerError> {
        let Some(reason) = self.due() else { return Ok(()) };
        if self.lane.is_busy() {
            // Age alone can wait: the next buffer goes as soon as this one has landed.
            return if reason == FlushReason::Age { Ok(()) } else { self.wait_for_lane() };
        }
        self.submit(reason)
    }

    /// Brings the reservation to what the buffer holds. False: the budget has no room.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        match &mut self.parts.memory {
            Some(memory) => memory.resize(bytes),
            none => {
                *none = self.parts.budget.try_reserve(bytes);
                none.is_some()
            }
        }
    }

    fn share(&self) -> u64 {
        self.parts.budget.limit() / 100 * BUFFER_SHARE_PERCENT
    }

    /// What the next poll may fill: the reservation and what is free, so that one poll does not run past the
    /// budget; then the buffer is flushed under pressure.
    pub(super) fn room(&self) -> u64 {
        let budget = &self.parts.budget;
        let held = self.parts.memory.as_ref().map_or(0, siltstone_datafile::Reservation::bytes);
        self.share().min(held + budget.limit().saturating_sub(budget.used()))
    }

    pub(super) fn due(&mut self) -> Option<FlushReason> {
        let age = self.parts.intake.age(Instant::now())?;
        let bytes = self.parts.intake.bytes();
        let reserved = self.reserve(bytes);
        let intake = &self.parts.intake;
        let freshness = &self.parts.spec.freshness;
        let budget = &self.parts.budget;
        let share = self.share();
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

    pub(super) fn submit(&mut self, reason: FlushReason) -> Result<(), WorkerError> {
        let age = self.parts.intake.age(Instant::now());
        let taken = match self.parts.intake.take_buffer() {
            Ok(taken) => taken,
            Err(halt) => return halt.need(&self.parts.spec).map(drop),
        };
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
        self.submitted_rejected.clone_from(&taken.rejected);
        self.submitted_at = age.and_then(|age| Instant::now().checked_sub(age));
        let job = FlushJob {
            schema: taken.schema,
            batches: taken.batches,
            dead_letters: taken.dead_letters,
            ranges,
            rejected: taken.rejected,
            memory,
        };
        self.lane.submit(job).map_err(|_| self.internal("a flush was submitted to a busy lane"))
    }

    /// Submits what is buffered and waits until everything submitted has landed.
    pub(super) fn flush_all(&mut self, reason: FlushReason) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        if self.parts.intake.positions.has_unsubmitted() {
            self.submit(reason)?;
            self.wait_for_lane()?;
        }
        Ok(())
    }

    /// Commits a change without rows and waits for it.
    pub(super) fn change(&mut self, change: Change) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        if !self.lane.submit_change(change) {
            return Err(self.internal("a change was submitted to a busy lane"));
        }
        self.wait_for_lane()
    }

    pub(super) fn wait_for_lane(&mut self) -> Result<(), WorkerError> {
        let began = Instant::now();
        let was_paused = self.paused;
        while self.lane.is_busy() {
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

    pub(super) fn take_answer(&mut self, timeout: Duration) -> Result<(), WorkerError> {
        let Some(answer) = self.lane.answer(timeout) else { return Ok(()) };
        let oldest = self.submitted_at.take();
        match answer? {
            Flushed::Committed { version, rows } => {
                if let Some(oldest) = oldest {
                    self.unshown.committed(version, oldest);
                }
                let ranges = std::mem::take(&mut self.submitted);
                self.parts.intake.positions.commit(&ranges);
                self.parts.metrics.rows_committed.get_or_create(&self.label()).inc_by(rows);
                self.parts.progress.committed(rows);
                let committed = self.parts.intake.positions.committed();
                self.parts.source.publish_positions(&committed);
                Ok(())
            }
            Flushed::Early => {
                // What was begun stays the committed position, until the table's ledger covers what follows.
                self.submitted.clear();
                for count in std::mem::take(&mut self.submitted_rejected) {
                    *self.early.entry(count.reason).or_default() += count.records;
                }
                Ok(())
            }
            Flushed::Fenced => self.begin_at_ledger(),
            Flushed::Abandoned => Err(self.internal("stopped before the last flush could be committed")),
        }
    }
}
