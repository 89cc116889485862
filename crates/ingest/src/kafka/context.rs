//! What the client tells us between messages.
//!
//! A rebalance is only written down here: the client waits (all partitions paused, heartbeats going on) until the
//! source answers with an assign or unassign call, however much later. Librdkafka's group state stays in "wait for the
//! assign call" meanwhile; destroying the event does not answer it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};

/// Lines of one kind are logged at most this often: a client that cannot connect says so many times a second.
const SAID_AGAIN: Duration = Duration::from_secs(30);
/// Kinds of lines remembered; further ones are logged each time.
const KINDS_MAX: usize = 64;

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
    said: Mutex<Said>,
}

/// When a line of each kind was last logged, and how many like it were left out since.
#[derive(Default)]
struct Said(BTreeMap<String, (Instant, u64)>);

impl Said {
    /// `Some`: log it, with the number of lines left out before it.
    fn again(&mut self, kind: &str, now: Instant) -> Option<u64> {
        match self.0.get_mut(kind) {
            Some((at, left_out)) if now.saturating_duration_since(*at) < SAID_AGAIN => {
                *left_out += 1;
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            None => {
                if self.0.len() < KINDS_MAX {
                    self.0.insert(kind.to_owned(), (now, 0));
                }
                Some(0)
            }
        }
    }
}

impl Context {
    pub(super) fn new(cluster: &str, topic: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            topic: topic.to_owned(),
            rebalances: Mutex::default(),
            served: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            said: Mutex::default(),
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

    fn again(&self, kind: &str) -> Option<u64> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).again(kind, Instant::now())
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
                if let Some(left_out) = self.again(facility) {
                    let (cluster, topic) = (&self.cluster, &self.topic);
                    tracing::warn!(cluster, topic, facility, text, left_out, "kafka client");
                }
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
        let Some(left_out) = self.again(&code.to_string()) else { return };
        tracing::warn!(
            cluster = self.cluster,
            topic = self.topic,
            code,
            meaning = super::fault::meaning(code),
            left_out,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_are_said_once_in_a_while() {
        let mut said = Said::default();
        let begin = Instant::now();
        assert_eq!(said.again("FAIL", begin), Some(0));
        assert_eq!(said.again("-195", begin), Some(0), "another kind");
        for _ in 0..40 {
            assert_eq!(said.again("FAIL", begin + SAID_AGAIN / 2), None);
        }
        assert_eq!(said.again("FAIL", begin + SAID_AGAIN), Some(40));
        assert_eq!(said.again("FAIL", begin + SAID_AGAIN * 2), Some(0));
        for kind in 0..1000 {
            assert_eq!(said.again(&format!("kind {kind}"), begin), Some(0));
        }
        assert!(said.0.len() <= KINDS_MAX);
    }
}
