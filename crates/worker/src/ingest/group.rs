//! Answering the group: partitions come, go, and are lost.

use super::poller::Poller;
use super::poller::PollerParts;
use crate::error::ForTable;
use crate::error::WorkerError;
use crate::flush::FlushReason;
use crate::metrics::PartitionLabel;
use crate::table::Table;
use siltstone_ingest::SourceEvent;
use siltstone_lakehouse::SourcePartition;
use siltstone_protocol::Change;
use siltstone_protocol::ErrorCode;
use siltstone_protocol::OffsetRange;
use siltstone_protocol::presence::EventCode;
use siltstone_spec::OnLostRange;
use siltstone_spec::model::Start;

impl Poller {
    pub(super) fn answer_events(&mut self) -> Result<(), WorkerError> {
        let events = std::mem::take(&mut self.events);
        let moved = |event: &SourceEvent| {
            matches!(event, SourceEvent::Assigned(_) | SourceEvent::Revoked(_) | SourceEvent::Lost(_))
        };
        let moved = events.iter().any(moved);
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => self.take_over(&partitions)?,
                SourceEvent::Revoked(partitions) => {
                    self.flush_all(FlushReason::Revoke)?;
                    self.give_up(&partitions)?;
                    if !self.early.is_empty() {
                        // What was rejected early is counted for all partitions together: count anew.
                        self.begin_at_ledger()?;
                    }
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
        if moved {
            self.tell_owned();
        }
        Ok(())
    }

    /// Compaction is shared out as the source partitions are.
    fn tell_owned(&mut self) {
        let owned: Vec<i32> = self.parts.intake.positions.iter().map(|(partition, _)| partition).collect();
        match self.parts.source.partitions() {
            Ok(all) => self.parts.runtime.own(owned, all.len()),
            Err(error) => {
                tracing::warn!(
                    table = %self.name(), %error,
                    "the topic's partitions are not known: no compaction here until the next rebalance"
                );
                self.parts.runtime.own(owned, 0);
            }
        }
    }

    pub(super) fn give_up(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.parts.intake.positions.remove(partitions);
        self.parts.metrics.events.table(EventCode::PartitionsRevoked, self.name(), None);
        for partition in partitions {
            let label = PartitionLabel { table: self.name().to_owned(), partition: *partition };
            self.parts.metrics.lag_records.remove(&label);
            self.parts.metrics.lag_seconds.remove(&label);
            self.ends_seen.remove(partition);
        }
        self.parts.source.release(partitions).for_table(&self.parts.spec.name)
    }

    /// Begins partitions where the ledger ends, or where the spec says when it has no position.
    pub(super) fn take_over(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.follow_dead_letters()?;
        let mut positions = Vec::with_capacity(partitions.len());
        let mut first = Vec::new();
        for &partition in partitions {
            let position = match self.committed_position(partition)? {
                Some(position) => self.check_retained(partition, position)?,
                None => {
                    let PollerParts { source, spec, .. } = &mut self.parts;
                    let start = source.start_offset(partition, &spec.start).for_table(&spec.name)?;
                    let start = self.not_after_dead_letters(partition, start)?;
                    first.push(self.range(partition, start, start, false));
                    start
                }
            };
            positions.push((partition, position));
        }
        if !first.is_empty() && self.table().is_some() {
            // Pins a start that would move (latest, timestamp) before the first row is read.
            self.change(Change::append(Vec::new(), first, Vec::new()))?;
        }
        for &(partition, position) in &positions {
            self.parts.intake.positions.begin(partition, position);
        }
        self.parts.source.assign(&positions).for_table(&self.parts.spec.name)?;
        if self.paused {
            self.parts.source.pause().for_table(&self.parts.spec.name)?;
        }
        tracing::info!(table = %self.name(), ?positions, "partitions assigned");
        self.parts.metrics.events.table(EventCode::PartitionsAssigned, self.name(), None);
        Ok(())
    }

    /// Learns what the dead-letter table covers: what lies beyond the position was rejected by a worker that did not
    /// come to commit it, and is read again.
    fn follow_dead_letters(&mut self) -> Result<(), WorkerError> {
        if self.parts.handle.block_on(self.parts.runtime.find_dead_letters())? {
            self.wait_for_lane()?;
            self.lane = self.parts.runtime.start_lane(&self.parts.handle);
        }
        let Some(table) = self.parts.runtime.dead_letters() else { return Ok(()) };
        self.parts.handle.block_on(async {
            let mut state = table.state.lock().await;
            let now_ms = self.parts.identity.now_ms();
            table.ledger.follow(&mut state, now_ms).await.for_table(&table.name)
        })
    }

    pub(super) fn committed_position(&self, partition: i32) -> Result<Option<i64>, WorkerError> {
        let Some(table) = self.table() else { return Ok(None) };
        self.position_in(&table, partition)
    }

    /// The position by the dead-letter table: how far records were consumed before the table exists.
    pub(super) fn early_position(&self, partition: i32) -> Result<Option<i64>, WorkerError> {
        let Some(table) = self.parts.runtime.dead_letters() else { return Ok(None) };
        self.position_in(&table, partition)
    }

    /// A start that moves (latest) must not pass over what came since a worker without a table stopped.
    fn not_after_dead_letters(&mut self, partition: i32, start: i64) -> Result<i64, WorkerError> {
        if self.parts.spec.start != Start::Latest {
            return Ok(start);
        }
        let Some(early) = self.early_position(partition)? else { return Ok(start) };
        let marks = self.parts.source.watermarks(partition).for_table(&self.parts.spec.name)?;
        Ok(early.max(marks.low).min(start))
    }

    fn position_in(&self, table: &Table, partition: i32) -> Result<Option<i64>, WorkerError> {
        let spec = &self.parts.spec;
        self.parts.handle.block_on(async {
            let mut state = table.state.lock().await;
            // A worker that had no partition for days kept a state that the ledger's clean-up left behind.
            let now_ms = self.parts.identity.now_ms();
            table.ledger.follow(&mut state, now_ms).await.for_table(&spec.name)?;
            let source =
                SourcePartition { cluster: spec.cluster.clone(), topic: spec.topic.clone(), partition };
            Ok(state.next_offset(&source))
        })
    }

    /// The position, or the first offset that the broker still has when the spec says to go on.
    pub(super) fn check_retained(&mut self, partition: i32, position: i64) -> Result<i64, WorkerError> {
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
        tracing::error!(
            table, topic, partition, start = position, end = marks.low, code = %ErrorCode::LostRange,
            "records lost, going on"
        );
        let lost = self.range(partition, position, marks.low, true);
        self.change(Change::append(Vec::new(), vec![lost], Vec::new()))?;
        Ok(marks.low)
    }

    pub(super) fn range(&self, partition: i32, start: i64, end: i64, lost: bool) -> OffsetRange {
        let spec = &self.parts.spec;
        OffsetRange { cluster: spec.cluster.clone(), topic: spec.topic.clone(), partition, start, end, lost }
    }

    /// Drops everything buffered and begins every owned partition where the ledger ends.
    pub(super) fn begin_at_ledger(&mut self) -> Result<(), WorkerError> {
        self.wait_for_lane()?;
        self.parts.intake.clear().for_table(&self.parts.spec.name)?;
        self.submitted.clear();
        self.waiting_for_schema = None;
        self.resume()?;
        self.submitted_rejected.clear();
        self.early.clear();
        self.follow_dead_letters()?;
        let mut positions = Vec::new();
        for (partition, begun) in self.parts.intake.positions.committed() {
            let position = self.committed_position(partition)?.unwrap_or(begun);
            self.parts.intake.positions.begin(partition, position);
            positions.push((partition, position));
        }
        self.parts.memory = None;
        self.follow_schema()?;
        self.ends_seen.clear();
        self.parts.source.seek(&positions).for_table(&self.parts.spec.name)
    }
}
