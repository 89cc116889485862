//! The contract of `RecordSource`, kept by `KafkaSource`.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset,
    consumer::{CommitMode, Consumer},
};
use siltstone_protocol::ErrorCode;
use siltstone_spec::Start;

use super::{
    fault,
    positions::Positions,
    source::{KafkaSource, REQUEST_TIMEOUT, WAIT_SLICE},
};
use crate::{
    error::IngestError,
    record::Record,
    source::{RecordSource, SourceEvent, Visit, Watermarks},
};

/// A seek refused for longer is replaced by a new beginning of the partition.
const SEEK_PATIENCE: Duration = Duration::from_secs(1);

impl RecordSource for KafkaSource {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<Vec<SourceEvent>, IngestError> {
        if self.open.is_none() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + timeout;
        loop {
            self.serve()?;
            if !self.events.is_empty() {
                return Ok(std::mem::take(&mut self.events));
            }
            self.forward_again();
            let wait = deadline.saturating_duration_since(Instant::now()).min(WAIT_SLICE);
            if self.paused {
                std::thread::sleep(wait);
            } else {
                let mut blocked = false;
                let mut watch = |record: &Record<'_>| {
                    let answer = visit(record);
                    blocked = answer == Visit::Blocked;
                    answer
                };
                let delivered = self.deliver(wait, max, &mut watch)?;
                self.examine()?;
                if delivered > 0 || blocked || !self.events.is_empty() {
                    self.reached = true;
                    return Ok(std::mem::take(&mut self.events));
                }
            }
            if Instant::now() >= deadline {
                self.serve()?;
                return Ok(std::mem::take(&mut self.events));
            }
        }
    }

    fn assign(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        for (partition, next) in positions {
            if *next < 0 {
                return Err(IngestError::internal(format!(
                    "partition {partition} assigned at offset {next}"
                )));
            }
            if !self.offered.remove(partition) {
                return Err(IngestError::internal(format!(
                    "partition {partition} assigned without an offer"
                )));
            }
            self.answers.push((*partition, *next));
        }
        if self.offered.is_empty() && !self.answers.is_empty() { self.answer_assign() } else { Ok(()) }
    }

    fn release(&mut self, partitions: &[i32]) -> Result<(), IngestError> {
        let waited = !self.unreleased.is_empty();
        for partition in partitions {
            if !self.unreleased.remove(partition) {
                return Err(IngestError::internal(format!(
                    "partition {partition} released without a request"
                )));
            }
        }
        if waited && self.unreleased.is_empty() { self.answer_release() } else { Ok(()) }
    }

    fn seek(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        for (partition, next) in positions {
            let Some(held) = self.partitions.find(*partition) else {
                return Err(IngestError::internal(format!(
                    "seek in partition {partition}, which is not assigned"
                )));
            };
            *held = *next;
        }
        if let Some(open) = &mut self.open {
            open.queue.discard(|partition| positions.iter().any(|(id, _)| *id == partition));
        }
        let (still, mut left): (Vec<_>, Vec<_>) =
            positions.iter().copied().partition(|(id, _)| self.stopped.contains(id));
        if !still.is_empty() {
            self.restart(&still)?;
        }
        let patience = Instant::now() + SEEK_PATIENCE;
        while !left.is_empty() {
            let answer = consumer
                .seek_partitions(self.list(left.iter().copied())?, REQUEST_TIMEOUT)
                .map_err(|error| self.explain(&error, "seek"))?;
            // A partition that is still starting refuses a seek for some milliseconds; one that stands still always.
            let refused: BTreeSet<i32> = answer
                .elements()
                .iter()
                .filter(|element| element.error().is_err())
                .map(|element| element.partition())
                .collect();
            left.retain(|(id, _)| refused.contains(id));
            if !left.is_empty() && Instant::now() >= patience {
                return self.restart(&left);
            }
            if !left.is_empty() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), IngestError> {
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), IngestError> {
        self.paused = false;
        Ok(())
    }

    fn publish_positions(&mut self, positions: &[(i32, i64)]) {
        let sent = self.consumer().and_then(|consumer| {
            let list = self.list(positions.iter().copied())?;
            consumer
                .commit(&list, CommitMode::Async)
                .map_err(|error| fault::request_error(&error, &self.place(), self.reached, "offset commit"))
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "group positions were not published; only lag tools see them");
        }
    }

    fn partitions(&mut self) -> Result<Vec<i32>, IngestError> {
        let consumer = self.consumer()?;
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)
            .map_err(|error| self.explain(&error, "metadata"))?;
        self.reached = true;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let code = topic.and_then(|topic| topic.error()).map_or(0, |code| code as i32);
        if let Some(error) = fault::error(code, &self.place(), true) {
            return Err(error);
        }
        let mut partitions: Vec<i32> = topic.map_or_else(Vec::new, |topic| {
            topic.partitions().iter().map(|partition| partition.id()).collect()
        });
        partitions.sort_unstable();
        if partitions.is_empty() {
            return Err(IngestError::unavailable(
                format!("cluster {}, topic {}", self.cluster, self.topic),
                "the brokers do not name any partition yet",
            )
            .coded(ErrorCode::KafkaUnavailable));
        }
        Ok(partitions)
    }

    fn watermarks(&mut self, partition: i32) -> Result<Watermarks, IngestError> {
        let (low, high) = self
            .consumer()?
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| self.explain(&error, &format!("watermarks of partition {partition}")))?;
        self.reached = true;
        Ok(Watermarks { low, high })
    }

    fn start_offset(&mut self, partition: i32, start: &Start) -> Result<i64, IngestError> {
        match start {
            Start::Earliest => Ok(self.watermarks(partition)?.low),
            Start::Latest => Ok(self.watermarks(partition)?.high),
            Start::Offsets(offsets) => match offsets.get(&partition) {
                Some(offset) => Ok(*offset),
                None => Ok(self.watermarks(partition)?.low),
            },
            Start::Timestamp(millis) => {
                let list = self.list([(partition, *millis)])?;
                let found = self.consumer()?.offsets_for_times(list, REQUEST_TIMEOUT).map_err(|error| {
                    self.explain(&error, &format!("the offset of a time in partition {partition}"))
                })?;
                match found.find_partition(&self.topic, partition).map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => Ok(offset),
                    // No record is that young.
                    _ => Ok(self.watermarks(partition)?.high),
                }
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.consumer.context().begin_closing();
            if !self.offered.is_empty() || !self.unreleased.is_empty() {
                // The group waits for an answer, and would not let go without one.
                if let Err(error) = open.consumer.unassign() {
                    tracing::debug!(topic = self.topic, %error, "unassign while closing");
                }
            }
            // Leaves the group and joins the client's threads.
            drop(open);
        }
        self.partitions = Positions::default();
        self.offered.clear();
        self.answers.clear();
        self.revoked.clear();
        self.unreleased.clear();
        self.events.clear();
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.close();
    }
}
