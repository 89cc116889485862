//! What the client tells us between messages.
//!
//! A rebalance is only written down here: the client waits (all partitions paused, heartbeats going on) until the
//! source answers with an assign or unassign call, however much later. Librdkafka's group state stays in "wait for the
//! assign call" meanwhile; destroying the event does not answer it.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};

/// One step of the group.
pub(super) enum Rebalance {
    Assign(Vec<i32>),
    Revoke { partitions: Vec<i32>, lost: bool },
}

/// Shared by the client (callbacks run on the polling thread) and the source.
pub(super) struct Context {
    cluster: String,
    topic: String,
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Counts everything served, so that the source knows when the queue of events is empty.
    served: AtomicU64,
    /// Set when the source goes away: from then on rebalances are answered at once.
    closing: AtomicBool,
}

impl Context {
    pub(super) fn new(cluster: &str, topic: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            topic: topic.to_owned(),
            rebalances: Mutex::default(),
            served: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn count(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.count();
        // Librdkafka's own lines speak of connections, requests and groups, never of a message's content.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(cluster = self.cluster, topic = self.topic, facility, text, "kafka client")
            }
            _ => tracing::debug!(cluster = self.cluster, topic = self.topic, facility, text, "kafka client"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {
        self.count();
    }

    fn error(&self, error: KafkaError, _broker_text: &str) {
        self.count();
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        tracing::warn!(
            cluster = self.cluster,
            topic = self.topic,
            code,
            meaning = super::fault::meaning(code),
            "kafka client error"
        );
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, step: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.count();
        if self.closing.load(Ordering::Acquire) {
            // Nobody is left to answer.
            if let Err(error) = consumer.unassign() {
                tracing::debug!(cluster = self.cluster, topic = self.topic, %error, "unassign while closing");
            }
            return;
        }
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .filter(|element| element.topic() == self.topic)
            .map(|element| element.partition())
            .collect();
        let rebalance = match step {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(partitions),
            _ => Rebalance::Revoke { partitions, lost: consumer.assignment_lost() },
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.count();
        if let Err(error) = result {
            let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
            tracing::warn!(
                cluster = self.cluster,
                topic = self.topic,
                code,
                meaning = super::fault::meaning(code),
                "group positions were not published; only lag tools see them"
            );
        }
    }
}
