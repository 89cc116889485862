//! Partitions come and go: the group's questions, our answers, and fetching begun anew.
//!
//! 1. `rebalanced` turns a question of the group into an event for the worker; the group waits meanwhile.
//! 2. `answer_assign` and `answer_release` are the answers, once the worker has given all positions or let all go.
//! 3. Partitions kept through a rebalance are put back to our own positions first (`hold_positions`).
//! 4. `examine` tells a lost range from a fetcher that only stands still, and begins the latter anew.

use std::time::Instant;

use rdkafka::consumer::{Consumer, RebalanceProtocol};

use super::{
    context::Rebalance,
    source::{KafkaSource, SETTLING},
};
use crate::{
    error::IngestError,
    source::{RecordSource, SourceEvent},
};

impl KafkaSource {
    pub(super) fn rebalanced(&mut self, rebalance: Rebalance) -> Result<(), IngestError> {
        self.reached = true;
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.offered = partitions.iter().copied().collect();
                self.answers.clear();
                if partitions.is_empty() {
                    return self.answer_assign();
                }
                self.events.push(SourceEvent::Assigned(partitions));
            }
            Rebalance::Revoke { partitions, lost } => {
                // An assignment that was still unanswered is void.
                self.offered.clear();
                self.answers.clear();
                self.unreleased = partitions.iter().copied().collect();
                self.revoked.clone_from(&partitions);
                if partitions.is_empty() {
                    return self.answer_release();
                }
                if let Some(open) = &mut self.open {
                    open.queue.discard(|partition| partitions.contains(&partition));
                }
                self.events.push(if lost {
                    SourceEvent::Lost(partitions)
                } else {
                    SourceEvent::Revoked(partitions)
                });
            }
        }
        Ok(())
    }

    pub(super) fn answer_assign(&mut self) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        self.hold_positions()?;
        let answers = std::mem::take(&mut self.answers);
        for (partition, next) in &answers {
            self.partitions.insert(*partition, *next);
            self.stopped.remove(partition);
        }
        let list = self.list(answers.iter().copied())?;
        if let Some(open) = &mut self.open {
            open.queue.discard(|partition| answers.iter().any(|(id, _)| *id == partition));
            for (partition, _) in &answers {
                open.queue.forward(*partition);
            }
        }
        let now = Instant::now();
        (self.settled_at, self.forward_at) = (now + SETTLING, now);
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            _ => consumer.assign(&list),
        };
        self.changed(result, "the assignment")
    }

    pub(super) fn answer_release(&mut self) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        let revoked = std::mem::take(&mut self.revoked);
        // What was offered and lost before it was assigned is not in the client's assignment.
        let held: Vec<i32> = revoked.iter().copied().filter(|id| self.partitions.contains(*id)).collect();
        for partition in &revoked {
            self.partitions.remove(*partition);
        }
        self.hold_positions()?;
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&self.names(&held)),
            _ => consumer.unassign(),
        };
        self.changed(result, "the release")
    }

    /// Puts the partitions kept through a rebalance back to our own positions, before the answer resumes them.
    ///
    /// Librdkafka paused them, and would go on at the position it noted for the application. In the batch interface
    /// that note is one too far after an end-of-partition mark, so the next record would be passed over.
    fn hold_positions(&mut self) -> Result<(), IngestError> {
        let kept: Vec<(i32, i64)> =
            self.partitions.iter().filter(|(id, _)| !self.stopped.contains(id)).collect();
        if kept.is_empty() { Ok(()) } else { self.seek(&kept) }
    }

    /// Begins partitions anew at these positions: a fetcher that stands still cannot be moved by a seek.
    pub(super) fn restart(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let partitions: Vec<i32> = positions.iter().map(|(partition, _)| *partition).collect();
                let list = self.list(positions.iter().copied())?;
                consumer
                    .incremental_unassign(&self.names(&partitions))
                    .and_then(|()| consumer.incremental_assign(&list))
            }
            _ => {
                let all = self.list(self.partitions.iter())?;
                if let Some(open) = &mut self.open {
                    open.queue.discard(|_| true);
                }
                consumer.assign(&all)
            }
        };
        let now = Instant::now();
        (self.settled_at, self.forward_at) = (now + SETTLING, now);
        self.changed(result, "new positions")?;
        for (partition, _) in positions {
            self.stopped.remove(partition);
        }
        Ok(())
    }

    /// Tells a position that is gone from one that the client only took for gone (after a change of leaders, say):
    /// the latter is begun anew, once.
    pub(super) fn examine(&mut self) -> Result<(), IngestError> {
        for partition in std::mem::take(&mut self.suspects) {
            let Some(next) = self.partitions.find(partition).map(|next| *next) else { continue };
            match self.watermarks(partition) {
                Ok(range) => {
                    let there = (range.low..=range.high).contains(&next);
                    if there && self.healed.insert(partition, next) != Some(next) {
                        tracing::warn!(topic = self.topic, partition, offset = next, "fetching begins anew");
                        self.restart(&[(partition, next)])?;
                    } else {
                        self.events.push(SourceEvent::OffsetOutOfRange { partition });
                    }
                }
                Err(error) if error.kind().is_retryable() => self.suspects.push(partition),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
