//! `KafkaSource`: one topic, one consumer group, one polling thread.
//!
//! 1. `serve` drains the consumer's own queue: rebalances, errors, logs. It never waits.
//! 2. `deliver` visits the hand of messages, refilled from the batch queue, and tracks the next offset per partition.
//! 3. A rebalance stays unanswered until `assign` or `release` named every partition of it.
//!
//! Pausing is ours alone: messages are left in the queue, whose size is bounded, so nothing is fetched twice.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol},
    error::KafkaError,
    types::RDKafkaRespErr as Code,
};
use siltstone_spec::{SourceCluster, Start, TableSpec};

use super::{
    batch::{BatchQueue, Item},
    config::client_config,
    context::{Context, Rebalance},
    fault::{self, Place},
};
use crate::{
    error::IngestError,
    record::Record,
    source::{RecordSource, SourceEvent, Visit, Watermarks},
};

/// Requests that block the caller (metadata, watermarks, seeks) take at most this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for messages before the consumer's queue is looked at again.
const WAIT_SLICE: Duration = Duration::from_millis(50);
/// Events served in one poll, at most.
const SERVED_MAX: usize = 1000;
/// Librdkafka may undo the redirection of a partition that was released shortly before: it is repeated, often after an
/// assignment and seldom later.
const FORWARD_SOON: Duration = Duration::from_millis(100);
const FORWARD_LATER: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(30);

/// Memory of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Fetched and not yet delivered, all partitions together. One fetch per broker may come on top.
    pub queue_bytes: usize,
    /// Asked for per partition and fetch; eight times this per fetch.
    pub fetch_bytes: usize,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { queue_bytes: 64 << 20, fetch_bytes: 2 << 20 }
    }
}

/// Records of a table's topic through its consumer group.
pub struct KafkaSource {
    cluster: String,
    topic: String,
    group: String,
    /// None once closed.
    open: Option<Open>,
    partitions: Positions,
    /// The partitions of an unanswered assignment, and the answers so far.
    offered: BTreeSet<i32>,
    answers: Vec<(i32, i64)>,
    /// All partitions of an unanswered revocation, and those not yet released.
    revoked: Vec<i32>,
    unreleased: BTreeSet<i32>,
    events: Vec<SourceEvent>,
    paused: bool,
    /// Brokers answered at least once.
    reached: bool,
    settled_at: Instant,
    forward_at: Instant,
}

struct Open {
    /// First: freed before the consumer.
    queue: BatchQueue<Context>,
    consumer: Arc<BaseConsumer<Context>>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource")
            .field("cluster", &self.cluster)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

/// Assigned partitions and the next offset of each, ascending; runs of one partition are found at once.
#[derive(Default)]
struct Positions {
    entries: Vec<(i32, i64)>,
    last: usize,
}

impl Positions {
    fn find(&mut self, partition: i32) -> Option<&mut i64> {
        if self.entries.get(self.last).is_none_or(|(id, _)| *id != partition) {
            self.last = self.entries.binary_search_by_key(&partition, |(id, _)| *id).ok()?;
        }
        self.entries.get_mut(self.last).map(|(_, next)| next)
    }

    fn insert(&mut self, partition: i32, next: i64) {
        self.remove(partition);
        let place = self.entries.partition_point(|(id, _)| *id < partition);
        self.entries.insert(place, (partition, next));
    }

    fn remove(&mut self, partition: i32) {
        self.entries.retain(|(id, _)| *id != partition);
    }

    fn contains(&self, partition: i32) -> bool {
        self.entries.binary_search_by_key(&partition, |(id, _)| *id).is_ok()
    }
}

impl KafkaSource {
    pub fn new(cluster: &SourceCluster, table: &TableSpec) -> Result<Self, IngestError> {
        Self::with_options(cluster, table, KafkaOptions::default())
    }

    pub fn with_options(
        cluster: &SourceCluster,
        table: &TableSpec,
        options: KafkaOptions,
    ) -> Result<Self, IngestError> {
        let config = client_config(cluster, table, &options);
        let context = Context::new(&cluster.name, &table.topic);
        let consumer = BaseConsumer::from_config_and_context(&config, context)
            .map_err(|error| fault::creation_error(&error, &cluster.name))?;
        let consumer = Arc::new(consumer);
        let queue = BatchQueue::new(Arc::clone(&consumer), &table.topic)
            .ok_or_else(|| IngestError::internal("no queue for the Kafka client"))?;
        consumer.subscribe(&[&table.topic]).map_err(|_| {
            IngestError::invalid(
                format!("cluster {}, topic {}", cluster.name, table.topic),
                "the topic's name is refused",
            )
        })?;
        let now = Instant::now();
        Ok(Self {
            cluster: cluster.name.clone(),
            topic: table.topic.clone(),
            group: table.group.clone(),
            open: Some(Open { queue, consumer }),
            partitions: Positions::default(),
            offered: BTreeSet::new(),
            answers: Vec::new(),
            revoked: Vec::new(),
            unreleased: BTreeSet::new(),
            events: Vec::new(),
            paused: false,
            reached: false,
            settled_at: now,
            forward_at: now,
        })
    }

    fn place(&self) -> Place<'_> {
        Place { cluster: &self.cluster, topic: &self.topic, group: &self.group }
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, IngestError> {
        let open =
            self.open.as_ref().ok_or_else(|| IngestError::internal("a closed Kafka source was used"))?;
        Ok(Arc::clone(&open.consumer))
    }

    /// The answer of a call that changes the assignment.
    fn changed(&self, result: Result<(), KafkaError>, call: &str) -> Result<(), IngestError> {
        result.map_err(|_| IngestError::ClientFatal {
            cluster: self.cluster.clone(),
            topic: self.topic.clone(),
            why: format!("the group did not accept {call}"),
        })
    }

    fn list(
        &self,
        positions: impl IntoIterator<Item = (i32, i64)>,
    ) -> Result<TopicPartitionList, IngestError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in positions {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
                .map_err(|_| IngestError::internal(format!("offset {offset} of partition {partition}")))?;
        }
        Ok(list)
    }

    fn names(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    /// Drains the consumer's queue without waiting.
    fn serve(&mut self) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        let mut strays = BTreeSet::new();
        let mut failure = None;
        for _ in 0..SERVED_MAX {
            let served = consumer.context().served();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    strays.insert(message.partition());
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    strays.insert(partition);
                }
                Some(Err(error)) => {
                    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
                    let code =
                        if fatal { Code::RD_KAFKA_RESP_ERR__FATAL as i32 } else { fault::code_of(&error) };
                    failure = failure.or(fault::error(code, &self.place(), self.reached));
                }
                None if consumer.context().served() == served => break,
                None => {}
            }
        }
        while let Some(rebalance) = consumer.context().next_rebalance() {
            self.rebalanced(rebalance)?;
        }
        self.bring_back(&strays)?;
        failure.map_or(Ok(()), Err)
    }

    /// Messages that came by the consumer's queue, because their partition was redirected too late, are fetched again
    /// by the right way: taking them would mix up the order.
    fn bring_back(&mut self, strays: &BTreeSet<i32>) -> Result<(), IngestError> {
        let positions: Vec<(i32, i64)> =
            self.partitions.entries.iter().copied().filter(|(id, _)| strays.contains(id)).collect();
        if positions.is_empty() {
            return Ok(());
        }
        tracing::debug!(topic = self.topic, partitions = ?strays, "partitions redirected late");
        if let Some(open) = &self.open {
            for (partition, _) in &positions {
                open.queue.forward(*partition);
            }
        }
        self.seek(&positions)
    }

    fn rebalanced(&mut self, rebalance: Rebalance) -> Result<(), IngestError> {
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

    fn answer_assign(&mut self) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        let answers = std::mem::take(&mut self.answers);
        for (partition, next) in &answers {
            self.partitions.insert(*partition, *next);
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

    fn answer_release(&mut self) -> Result<(), IngestError> {
        let consumer = self.consumer()?;
        let revoked = std::mem::take(&mut self.revoked);
        // What was offered and lost before it was assigned is not in the client's assignment.
        let held: Vec<i32> = revoked.iter().copied().filter(|id| self.partitions.contains(*id)).collect();
        for partition in &revoked {
            self.partitions.remove(*partition);
        }
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&self.names(&held)),
            _ => consumer.unassign(),
        };
        self.changed(result, "the release")
    }

    fn forward_again(&mut self) {
        let now = Instant::now();
        if now < self.forward_at {
            return;
        }
        self.forward_at = now + if now < self.settled_at { FORWARD_SOON } else { FORWARD_LATER };
        if let Some(open) = &self.open {
            for (partition, _) in &self.partitions.entries {
                open.queue.forward(*partition);
            }
        }
    }

    /// Visits what is in hand and in the queue. `wait` is for the first message only.
    fn deliver(
        &mut self,
        wait: Duration,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<usize, IngestError> {
        let Self { open: Some(Open { queue, .. }), partitions, unreleased, events, .. } = self else {
            return Ok(0);
        };
        let mut delivered = 0;
        let mut wait = wait;
        let mut failure = None;
        while delivered < max && failure.is_none() {
            let Some(item) = queue.peek() else {
                if queue.fill(max - delivered, wait) == 0 {
                    break;
                }
                wait = Duration::ZERO;
                continue;
            };
            match item {
                Item::Record(record) => {
                    // Also passed over: what was fetched twice around a rebalance.
                    let wanted = partitions
                        .find(record.partition)
                        .filter(|next| record.offset >= **next)
                        .filter(|_| unreleased.is_empty() || !unreleased.contains(&record.partition));
                    if let Some(next) = wanted {
                        if visit(&record) == Visit::Blocked {
                            break;
                        }
                        *next = record.offset + 1;
                        delivered += 1;
                    }
                }
                Item::Mark { partition, offset, code } => {
                    if let Some(next) =
                        partitions.find(partition).filter(|_| !unreleased.contains(&partition))
                    {
                        if fault::is(code, Code::RD_KAFKA_RESP_ERR__PARTITION_EOF) {
                            *next = offset.max(*next);
                            events.push(SourceEvent::EndOfPartition { partition, offset: *next });
                        } else if fault::is(code, Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
                            || fault::is(code, Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
                        {
                            events.push(SourceEvent::OffsetOutOfRange { partition });
                        } else {
                            failure = Some(code);
                        }
                    }
                }
            }
            queue.pop();
        }
        match failure.and_then(|code| fault::error(code, &self.place(), self.reached)) {
            Some(error) => Err(error),
            None => Ok(delivered),
        }
    }

    /// A failed request, or the client's own error that explains it.
    fn explain(&mut self, error: &KafkaError, request: &str) -> IngestError {
        let explained = self.serve().err();
        explained.unwrap_or_else(|| fault::request_error(error, &self.place(), self.reached, request))
    }
}

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
                let (mut blocked, mut observed) = (false, |record: &Record<'_>| visit(record));
                let mut watch = |record: &Record<'_>| {
                    let answer = observed(record);
                    blocked = answer == Visit::Blocked;
                    answer
                };
                let delivered = self.deliver(wait, max, &mut watch)?;
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
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut left: Vec<(i32, i64)> = positions.to_vec();
        loop {
            let answer = consumer
                .seek_partitions(self.list(left.iter().copied())?, REQUEST_TIMEOUT)
                .map_err(|error| self.explain(&error, "seek"))?;
            // A partition that is still starting refuses a seek for some milliseconds.
            let refused: BTreeSet<i32> = answer
                .elements()
                .iter()
                .filter(|element| element.error().is_err())
                .map(|element| element.partition())
                .collect();
            left.retain(|(id, _)| refused.contains(id));
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(IngestError::unavailable(
                    format!("cluster {}, topic {}, partitions {refused:?}", self.cluster, self.topic),
                    "the position could not be moved",
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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
            ));
        }
        Ok(partitions)
    }

    fn watermarks(&mut self, partition: i32) -> Result<Watermarks, IngestError> {
        let (low, high) = self
            .consumer()?
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| self.explain(&error, "watermarks"))?;
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
                let found = self
                    .consumer()?
                    .offsets_for_times(list, REQUEST_TIMEOUT)
                    .map_err(|error| self.explain(&error, "offsets for times"))?;
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
