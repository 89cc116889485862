//! `KafkaSource`: one topic, one consumer group, one polling thread.
//!
//! 1. `serve` drains the consumer's own queue: rebalances, errors, logs. It never waits.
//! 2. `deliver` visits the hand of messages, refilled from the batch queue, and tracks the next offset per partition.
//! 3. A rebalance stays unanswered until `assign` or `release` named every partition of it (`rebalance`).
//!
//! Pausing is ours alone: messages are left in the queue, whose size is bounded, so nothing is fetched twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaRespErr as Code,
};
use siltstone_protocol::ErrorCode;
use siltstone_spec::{SourceCluster, TableSpec};

use super::{
    batch::{BatchQueue, Item},
    config::client_config,
    context::Context,
    fault::{self, Place},
    positions::Positions,
};
use crate::{
    error::IngestError,
    record::Record,
    source::{RecordSource, SourceEvent, Visit},
};

/// Requests that block the caller (metadata, watermarks, seeks) take at most this long.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for messages before the consumer's queue is looked at again.
pub(super) const WAIT_SLICE: Duration = Duration::from_millis(50);
/// Events served in one poll, at most.
const SERVED_MAX: usize = 1000;
/// Librdkafka may undo the redirection of a partition that was released shortly before: it is repeated, often after an
/// assignment and seldom later.
const FORWARD_SOON: Duration = Duration::from_millis(100);
const FORWARD_LATER: Duration = Duration::from_secs(5);
pub(super) const SETTLING: Duration = Duration::from_secs(30);

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
        Self { queue_bytes: 64 << 20, fetch_bytes: 1 << 20 }
    }
}

/// Records of a table's topic through its consumer group.
pub struct KafkaSource {
    pub(super) cluster: String,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) brokers: String,
    /// None once closed.
    pub(super) open: Option<Open>,
    pub(super) partitions: Positions,
    /// The partitions of an unanswered assignment, and the answers so far.
    pub(super) offered: BTreeSet<i32>,
    pub(super) answers: Vec<(i32, i64)>,
    /// All partitions of an unanswered revocation, and those not yet released.
    pub(super) revoked: Vec<i32>,
    pub(super) unreleased: BTreeSet<i32>,
    /// Partitions whose position the broker did not have: their fetcher stands still.
    pub(super) stopped: BTreeSet<i32>,
    /// Those of them not yet looked into, and the offsets at which partitions were begun anew.
    pub(super) suspects: Vec<i32>,
    pub(super) healed: BTreeMap<i32, i64>,
    pub(super) events: Vec<SourceEvent>,
    pub(super) paused: bool,
    /// Brokers answered at least once.
    pub(super) reached: bool,
    pub(super) settled_at: Instant,
    pub(super) forward_at: Instant,
}

pub(super) struct Open {
    /// First: freed before the consumer.
    pub(super) queue: BatchQueue<Context>,
    pub(super) consumer: Arc<BaseConsumer<Context>>,
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

impl KafkaSource {
    pub fn new(cluster: &SourceCluster, table: &TableSpec) -> Result<Self, IngestError> {
        Self::with_options(cluster, table, KafkaOptions::default())
    }

    /// A source that never joins the group: for partitions and watermarks alone.
    ///
    /// # Errors
    /// As [`Self::with_options`].
    pub fn observer(cluster: &SourceCluster, table: &TableSpec) -> Result<Self, IngestError> {
        Self::build(cluster, table, KafkaOptions::default(), false)
    }

    pub fn with_options(
        cluster: &SourceCluster,
        table: &TableSpec,
        options: KafkaOptions,
    ) -> Result<Self, IngestError> {
        Self::build(cluster, table, options, true)
    }

    pub(super) fn build(
        cluster: &SourceCluster,
        table: &TableSpec,
        options: KafkaOptions,
        joins: bool,
    ) -> Result<Self, IngestError> {
        let config = client_config(cluster, table, &options);
        let context = Context::new(&cluster.name, &table.topic);
        let consumer = BaseConsumer::from_config_and_context(&config, context)
            .map_err(|error| fault::creation_error(&error, &cluster.name))?;
        let consumer = Arc::new(consumer);
        let queue = BatchQueue::new(Arc::clone(&consumer), &table.topic)
            .ok_or_else(|| IngestError::internal("no queue for the Kafka client"))?;
        if joins {
            consumer.subscribe(&[&table.topic]).map_err(|_| {
                IngestError::invalid(
                    format!("cluster {}, topic {}", cluster.name, table.topic),
                    "the topic's name is refused; check source_topic",
                )
                .coded(ErrorCode::KafkaSettingRefused)
            })?;
        }
        let now = Instant::now();
        Ok(Self {
            cluster: cluster.name.clone(),
            topic: table.topic.clone(),
            group: table.group.clone(),
            brokers: cluster.bootstrap_brokers.join(", "),
            open: Some(Open { queue, consumer }),
            partitions: Positions::default(),
            offered: BTreeSet::new(),
            answers: Vec::new(),
            revoked: Vec::new(),
            unreleased: BTreeSet::new(),
            stopped: BTreeSet::new(),
            suspects: Vec::new(),
            healed: BTreeMap::new(),
            events: Vec::new(),
            paused: false,
            reached: false,
            settled_at: now,
            forward_at: now,
        })
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { cluster: &self.cluster, topic: &self.topic, group: &self.group, brokers: &self.brokers }
    }

    pub(super) fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, IngestError> {
        let open =
            self.open.as_ref().ok_or_else(|| IngestError::internal("a closed Kafka source was used"))?;
        Ok(Arc::clone(&open.consumer))
    }

    /// The answer of a call that changes the assignment.
    pub(super) fn changed(&self, result: Result<(), KafkaError>, call: &str) -> Result<(), IngestError> {
        result.map_err(|_| IngestError::ClientFatal {
            cluster: self.cluster.clone(),
            topic: self.topic.clone(),
            why: format!("the group did not accept {call}"),
        })
    }

    pub(super) fn list(
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

    pub(super) fn names(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    /// Drains the consumer's queue without waiting.
    pub(super) fn serve(&mut self) -> Result<(), IngestError> {
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
    pub(super) fn bring_back(&mut self, strays: &BTreeSet<i32>) -> Result<(), IngestError> {
        let positions: Vec<(i32, i64)> =
            self.partitions.iter().filter(|(id, _)| strays.contains(id)).collect();
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

    pub(super) fn forward_again(&mut self) {
        let now = Instant::now();
        if now < self.forward_at {
            return;
        }
        self.forward_at = now + if now < self.settled_at { FORWARD_SOON } else { FORWARD_LATER };
        if let Some(open) = &self.open {
            for (partition, _) in self.partitions.iter() {
                open.queue.forward(partition);
            }
        }
    }

    /// Visits what is in hand and in the queue. `wait` is for the first message only.
    pub(super) fn deliver(
        &mut self,
        wait: Duration,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<usize, IngestError> {
        let Self {
            open: Some(Open { queue, .. }), partitions, unreleased, stopped, suspects, events, ..
        } = self
        else {
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
                            stopped.insert(partition);
                            suspects.push(partition);
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
    pub(super) fn explain(&mut self, error: &KafkaError, request: &str) -> IngestError {
        let explained = self.serve().err();
        explained.unwrap_or_else(|| fault::request_error(error, &self.place(), self.reached, request))
    }
}
