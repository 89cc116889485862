//! How many records a CPU-second consumes: our source against a plain `BaseConsumer` loop.
//!
//! `consume_rate <host:port> <topic> <batch|single> [queue MiB] [fetch KiB]` reads the topic from its first offset to
//! its end and prints rows, seconds and CPU seconds of the whole process (client threads included).
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool to run by hand"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use siltstone_ingest::{KafkaOptions, KafkaSource, RecordSource, SourceEvent, Visit};
use siltstone_spec::Start;

#[path = "../tests/support/mod.rs"]
mod support;

/// Records, bytes, and a sum that keeps the reads from being optimised away.
#[derive(Default)]
struct Seen {
    rows: u64,
    bytes: u64,
    sum: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, brokers, topic, mode, rest @ ..] = args.as_slice() else {
        panic!("usage: consume_rate <host:port> <topic> <batch|single> [queue MiB] [fetch KiB]");
    };
    let number = |at: usize, default: usize| rest.get(at).map_or(default, |text| text.parse().unwrap());
    let options = KafkaOptions { queue_bytes: number(0, 64) << 20, fetch_bytes: number(1, 2048) << 10 };
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let seen = match mode.as_str() {
        "batch" => batch(brokers, topic, options),
        _ => single(brokers, topic, options),
    };
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{mode}: {} rows, {} MB, {wall:.2} s, {cpu:.2} CPU-s, {:.0} rows per CPU-s, {:.3} us per row, peak {} MiB ({:x})",
        seen.rows,
        seen.bytes / 1_000_000,
        seen.rows as f64 / cpu,
        cpu * 1e6 / seen.rows as f64,
        peak_mib(),
        seen.sum,
    );
}

fn batch(brokers: &str, topic: &str, options: KafkaOptions) -> Seen {
    let cluster = support::cluster(brokers);
    let table = support::table(topic, &format!("rate-{}", std::process::id()));
    let mut source = KafkaSource::with_options(&cluster, &table, options).unwrap();
    let mut seen = Seen::default();
    let mut left = source.partitions().unwrap().len();
    while left > 0 {
        let events = source
            .poll(Duration::from_millis(200), 8192, &mut |record| {
                let value = record.value.unwrap_or_default();
                seen.rows += 1;
                seen.bytes += value.len() as u64;
                seen.sum = seen.sum.wrapping_add(u64::from(value.last().copied().unwrap_or(0)));
                Visit::Taken
            })
            .unwrap();
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => {
                    let positions: Vec<(i32, i64)> = partitions
                        .iter()
                        .map(|partition| {
                            (*partition, source.start_offset(*partition, &Start::Earliest).unwrap())
                        })
                        .collect();
                    source.assign(&positions).unwrap();
                }
                SourceEvent::EndOfPartition { .. } => left -= 1,
                other => panic!("{other:?}"),
            }
        }
    }
    source.close();
    seen
}

fn single(brokers: &str, topic: &str, options: KafkaOptions) -> Seen {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("rate-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", (options.queue_bytes >> 10).to_string())
        .set("fetch.message.max.bytes", options.fetch_bytes.to_string())
        .set("fetch.max.bytes", (options.fetch_bytes * 8).to_string())
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut seen = Seen::default();
    let mut ended = BTreeMap::new();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    while ended.len() < partitions {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default();
                seen.rows += 1;
                seen.bytes += value.len() as u64;
                seen.sum = seen.sum.wrapping_add(u64::from(value.last().copied().unwrap_or(0)));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition, ());
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    seen
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
