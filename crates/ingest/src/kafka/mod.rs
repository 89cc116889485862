//! Records from Kafka, through librdkafka.
//!
//! `config` turns a cluster of the spec into client settings, `context` queues what the group says, `batch` is the
//! only unsafe code (messages in batches, borrowed), `fault` maps error codes, `source` puts them together and
//! `polling` keeps the contract of `RecordSource`.

mod batch;
mod config;
mod context;
mod fault;
mod polling;
mod positions;
mod ranges;
mod rebalance;
mod source;

pub(crate) use batch::NativeHeaders;
pub use source::{KafkaOptions, KafkaSource};
