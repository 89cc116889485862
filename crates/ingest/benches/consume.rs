//! How fast records come from a broker, without decoding.
//!
//! `SILTSTONE_BENCH_KAFKA=host:port SILTSTONE_BENCH_TOPIC=orders cargo bench --bench consume`
//!
//! One iteration reads the whole topic from its first offset to its end, as a new group; `siltstone-bench produce`
//! fills one. Without the variables it says so and measures nothing. Wall time: the client fetches on threads of its
//! own, whose CPU time `examples/consume_rate.rs` adds.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::{KafkaOptions, KafkaSource, RecordSource, SourceEvent, Visit};
use siltstone_spec::Start;

#[path = "../tests/support/mod.rs"]
mod support;

/// Records of the topic, each looked at.
fn consume(brokers: &str, topic: &str, group: &str) -> u64 {
    let cluster = support::cluster(brokers);
    let table = support::table(topic, group);
    let mut source = KafkaSource::with_options(&cluster, &table, KafkaOptions::default()).unwrap();
    let mut left = source.partitions().unwrap().len();
    let mut rows = 0;
    while left > 0 {
        let events = source
            .poll(Duration::from_millis(200), 8192, &mut |record| {
                black_box(record.value);
                rows += 1;
                Visit::Taken
            })
            .unwrap();
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => {
                    let start = |id: &i32| (*id, source.start_offset(*id, &Start::Earliest).unwrap());
                    let positions: Vec<(i32, i64)> = partitions.iter().map(start).collect();
                    source.assign(&positions).unwrap();
                }
                SourceEvent::EndOfPartition { .. } => left -= 1,
                _ => panic!("the group changed under the benchmark"),
            }
        }
    }
    source.close();
    rows
}

fn stage(c: &mut Criterion) {
    let (Ok(brokers), Ok(topic)) =
        (std::env::var("SILTSTONE_BENCH_KAFKA"), std::env::var("SILTSTONE_BENCH_TOPIC"))
    else {
        eprintln!("consume: set SILTSTONE_BENCH_KAFKA and SILTSTONE_BENCH_TOPIC");
        return;
    };
    let mut round = 0;
    let mut read = || {
        round += 1;
        consume(&brokers, &topic, &format!("bench-{}-{round}", std::process::id()))
    };
    let rows = read();
    let mut group = c.benchmark_group("consume");
    group.throughput(Throughput::Elements(rows)).sample_size(10);
    group.bench_function("kafka", |b| {
        b.iter_custom(|times| {
            let began = Instant::now();
            for _ in 0..times {
                assert_eq!(read(), rows);
            }
            began.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, stage);
criterion_main!(benches);
