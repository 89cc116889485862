//! What every `RecordSource` owes its caller, as functions over any source.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use siltstone_ingest::{RecordSource, SourceEvent, Visit, Watermarks, replay::ReplayRecord};
use siltstone_spec::Start;

const STEP: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(40);

/// Where the sources of one run come from.
pub trait Bench {
    type Source: RecordSource;
    /// An empty topic with this many partitions.
    fn topic(&self, name: &str, partitions: i32);
    /// Appends records, in order.
    fn produce(&self, topic: &str, partition: i32, records: &[ReplayRecord]);
    /// A source of that topic, alone in its group.
    fn source(&self, topic: &str) -> Self::Source;
    /// False where looking up offsets by time is not supported.
    fn knows_times(&self) -> bool {
        true
    }
}

/// Everything delivered: partition -> (offset, record), in the order delivered.
#[derive(Default)]
pub struct Taken {
    pub records: BTreeMap<i32, Vec<(i64, ReplayRecord)>>,
    pub ends: BTreeMap<i32, i64>,
    pub events: Vec<SourceEvent>,
}

impl Taken {
    pub fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    pub fn offsets(&self, partition: i32) -> Vec<i64> {
        self.records.get(&partition).into_iter().flatten().map(|(offset, _)| *offset).collect()
    }
}

pub fn numbered(partition: i32, from: usize, to: usize) -> Vec<ReplayRecord> {
    (from..to).map(|row| ReplayRecord::new(format!("{partition}/{row}"))).collect()
}

fn owned(record: &siltstone_ingest::Record<'_>) -> ReplayRecord {
    ReplayRecord {
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// Polls once; offered partitions are answered from `positions`, or with their low watermark.
pub fn step<S: RecordSource>(
    source: &mut S,
    taken: &mut Taken,
    max: usize,
    positions: &BTreeMap<i32, i64>,
    visit: &mut dyn FnMut(i32, i64) -> Visit,
) {
    let events = source
        .poll(STEP, max, &mut |record| {
            let answer = visit(record.partition, record.offset);
            if answer == Visit::Taken {
                taken.records.entry(record.partition).or_default().push((record.offset, owned(record)));
            }
            answer
        })
        .unwrap();
    for event in events {
        match &event {
            SourceEvent::Assigned(partitions) => {
                let mut answer = Vec::new();
                for partition in partitions {
                    let low = source.watermarks(*partition).unwrap().low;
                    answer.push((*partition, positions.get(partition).copied().unwrap_or(low)));
                }
                source.assign(&answer).unwrap();
            }
            SourceEvent::Revoked(partitions) | SourceEvent::Lost(partitions) => {
                source.release(partitions).unwrap()
            }
            SourceEvent::EndOfPartition { partition, offset } => {
                taken.ends.insert(*partition, *offset);
            }
            SourceEvent::OffsetOutOfRange { .. } => {}
        }
        taken.events.push(event);
    }
}

/// Polls, taking everything, until `done`.
pub fn run<S: RecordSource>(source: &mut S, taken: &mut Taken, done: impl Fn(&Taken) -> bool) {
    run_from(source, taken, &BTreeMap::new(), done);
}

pub fn run_from<S: RecordSource>(
    source: &mut S,
    taken: &mut Taken,
    positions: &BTreeMap<i32, i64>,
    done: impl Fn(&Taken) -> bool,
) {
    let started = Instant::now();
    while !done(taken) {
        assert!(
            started.elapsed() < PATIENCE,
            "not done: {} records, ends {:?}, events {:?}",
            taken.count(),
            taken.ends,
            taken.events
        );
        step(source, taken, 100, positions, &mut |_, _| Visit::Taken);
    }
}

/// Runs the whole suite. `prefix` keeps topics of several runs apart.
pub fn suite<B: Bench>(bench: &B, prefix: &str) {
    let name = |case: &str| format!("{prefix}-{case}");
    everything_arrives_once_in_order_with_its_parts(bench, &name("parts"));
    a_blocked_record_comes_again_first(bench, &name("blocked"));
    seeks_move_and_drop_what_is_in_hand(bench, &name("seek"));
    a_paused_source_holds_its_records(bench, &name("pause"));
    starts_and_watermarks_are_found(bench, &name("start"));
    a_position_that_is_gone_is_reported(bench, &name("range"));
    a_closed_source_delivers_nothing(bench, &name("close"));
}

fn everything_arrives_once_in_order_with_its_parts<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 3);
    let special = vec![
        ReplayRecord {
            timestamp_ms: Some(1_767_225_600_123),
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![
                ("one".to_owned(), Some(vec![0, 255])),
                ("none".to_owned(), None),
                ("one".to_owned(), Some(b"again".to_vec())),
            ],
        },
        ReplayRecord { timestamp_ms: Some(1), key: Some(b"tombstone".to_vec()), ..ReplayRecord::default() },
        ReplayRecord {
            timestamp_ms: Some(2),
            key: Some(Vec::new()),
            value: Some(Vec::new()),
            headers: Vec::new(),
        },
    ];
    bench.produce(topic, 0, &special);
    bench.produce(topic, 1, &numbered(1, 0, 2500));
    let mut source = bench.source(topic);
    assert_eq!(source.partitions().unwrap(), vec![0, 1, 2]);
    let mut taken = Taken::default();
    run(&mut source, &mut taken, |taken| taken.ends.len() == 3);
    assert_eq!(taken.ends, BTreeMap::from([(0, 3), (1, 2500), (2, 0)]));
    let parts: Vec<ReplayRecord> = taken.records[&0].iter().map(|(_, record)| record.clone()).collect();
    assert!(parts == special, "key, value, headers or time differ");
    assert_eq!(taken.offsets(1), (0..2500).collect::<Vec<i64>>());
    let values = taken.records[&1].iter().map(|(_, record)| record.value.clone());
    assert!(values.eq(numbered(1, 0, 2500).into_iter().map(|record| record.value)), "values differ");

    // What comes later is delivered, and ended again.
    bench.produce(topic, 2, &numbered(2, 0, 5));
    run(&mut source, &mut taken, |taken| taken.ends[&2] == 5);
    assert_eq!(taken.offsets(2), vec![0, 1, 2, 3, 4]);
    assert_eq!(taken.count(), 2508);
    source.publish_positions(&[(2, 5)]);
    source.close();
}

fn a_blocked_record_comes_again_first<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 1);
    bench.produce(topic, 0, &numbered(0, 0, 300));
    let mut source = bench.source(topic);
    let mut taken = Taken::default();
    let mut blocked: Option<i64> = None;
    let mut blocks = 0;
    let started = Instant::now();
    while taken.ends.is_empty() {
        assert!(started.elapsed() < PATIENCE, "{} records", taken.count());
        let mut after_block = false;
        let mut first = true;
        step(&mut source, &mut taken, 64, &BTreeMap::new(), &mut |_, offset| {
            assert!(!after_block, "the poll goes on after a blocked record");
            if std::mem::take(&mut first)
                && let Some(expected) = blocked
            {
                assert_eq!(offset, expected, "the blocked record comes first");
            }
            // Every seventh is blocked twice before it is taken.
            if offset % 7 == 3 && blocks < 2 {
                blocks += 1;
                (blocked, after_block) = (Some(offset), true);
                return Visit::Blocked;
            }
            (blocks, blocked) = (0, None);
            Visit::Taken
        });
    }
    assert_eq!(taken.offsets(0), (0..300).collect::<Vec<i64>>());
}

fn seeks_move_and_drop_what_is_in_hand<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 2);
    bench.produce(topic, 0, &numbered(0, 0, 200));
    bench.produce(topic, 1, &numbered(1, 0, 200));
    let mut source = bench.source(topic);
    let mut taken = Taken::default();
    let started = Instant::now();
    // Stop in the middle, with records in hand.
    while taken.offsets(0).len() < 20 {
        assert!(started.elapsed() < PATIENCE);
        step(&mut source, &mut taken, 10, &BTreeMap::new(), &mut |partition, offset| {
            if partition == 0 && offset == 20 { Visit::Blocked } else { Visit::Taken }
        });
    }
    assert_eq!(taken.offsets(0), (0..20).collect::<Vec<i64>>());
    source.seek(&[(0, 5)]).unwrap();
    let mut again = Taken::default();
    let others = 200 - taken.offsets(1).len();
    run(&mut source, &mut again, |again| again.ends.contains_key(&0) && again.offsets(1).len() >= others);
    assert_eq!(again.offsets(0), (5..200).collect::<Vec<i64>>());
    let mut other = taken.offsets(1);
    other.extend(again.offsets(1));
    assert_eq!(other, (0..200).collect::<Vec<i64>>(), "the other partition is not moved");
    source.seek(&[(0, 190), (1, 199)]).unwrap();
    let mut tail = Taken::default();
    run(&mut source, &mut tail, |taken| taken.count() == 11);
    assert_eq!((tail.offsets(0), tail.offsets(1)), ((190..200).collect(), vec![199]));
    assert!(source.seek(&[(7, 0)]).is_err(), "a partition that is not assigned cannot be moved");
}

fn a_paused_source_holds_its_records<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 1);
    bench.produce(topic, 0, &numbered(0, 0, 50));
    let mut source = bench.source(topic);
    let mut taken = Taken::default();
    let started = Instant::now();
    while taken.count() == 0 {
        assert!(started.elapsed() < PATIENCE);
        step(&mut source, &mut taken, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
    source.pause().unwrap();
    let before = taken.count();
    for _ in 0..5 {
        step(&mut source, &mut taken, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
    assert_eq!(taken.count(), before, "a paused source delivers nothing");
    source.resume().unwrap();
    run(&mut source, &mut taken, |taken| !taken.ends.is_empty());
    assert_eq!(taken.offsets(0), (0..50).collect::<Vec<i64>>());
}

fn starts_and_watermarks_are_found<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 2);
    let timed: Vec<ReplayRecord> = (0..10)
        .map(|row| ReplayRecord { timestamp_ms: Some(1_000_000 + row * 1000), ..ReplayRecord::new("x") })
        .collect();
    bench.produce(topic, 0, &timed);
    let mut source = bench.source(topic);
    assert_eq!(source.watermarks(0).unwrap(), Watermarks { low: 0, high: 10 });
    assert_eq!(source.start_offset(0, &Start::Earliest).unwrap(), 0);
    assert_eq!(source.start_offset(0, &Start::Latest).unwrap(), 10);
    let offsets = Start::Offsets(BTreeMap::from([(0, 4)]));
    assert_eq!(source.start_offset(0, &offsets).unwrap(), 4);
    assert_eq!(source.start_offset(1, &offsets).unwrap(), 0);
    if bench.knows_times() {
        assert_eq!(source.start_offset(0, &Start::Timestamp(1_003_500)).unwrap(), 4);
        assert_eq!(source.start_offset(0, &Start::Timestamp(9_000_000)).unwrap(), 10);
        assert_eq!(source.start_offset(1, &Start::Timestamp(0)).unwrap(), 0);
    }
    let mut taken = Taken::default();
    run_from(&mut source, &mut taken, &BTreeMap::from([(0, 4)]), |taken| taken.ends.len() == 2);
    assert_eq!(taken.offsets(0), (4..10).collect::<Vec<i64>>());
}

fn a_position_that_is_gone_is_reported<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 1);
    bench.produce(topic, 0, &numbered(0, 0, 10));
    let mut source = bench.source(topic);
    let mut taken = Taken::default();
    let gone = SourceEvent::OffsetOutOfRange { partition: 0 };
    run_from(&mut source, &mut taken, &BTreeMap::from([(0, 1000)]), |taken| taken.events.contains(&gone));
    assert_eq!(taken.count(), 0);
    source.seek(&[(0, 8)]).unwrap();
    run(&mut source, &mut taken, |taken| taken.count() == 2);
    assert_eq!(taken.offsets(0), vec![8, 9]);
}

fn a_closed_source_delivers_nothing<B: Bench>(bench: &B, topic: &str) {
    bench.topic(topic, 1);
    bench.produce(topic, 0, &numbered(0, 0, 10));
    let mut source = bench.source(topic);
    let mut taken = Taken::default();
    run(&mut source, &mut taken, |taken| {
        taken.events.iter().any(|event| matches!(event, SourceEvent::Assigned(_)))
    });
    source.close();
    let before = taken.count();
    let events = source.poll(STEP, 10, &mut |_| panic!("delivered after close")).unwrap();
    assert!(events.is_empty());
    assert_eq!(taken.count(), before);
    source.close();
}
