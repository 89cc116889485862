//! The contract of `RecordSource`, proved for records in memory, for librdkafka's mock cluster, and for a real
//! broker when SILTSTONE_TEST_KAFKA names one (`host:port`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

#[path = "support/contract.rs"]
mod contract;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use contract::{Bench, Taken, numbered, run, step, suite};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use siltstone_ingest::{
    IngestError, KafkaSource, RecordSource, SourceEvent, Visit,
    replay::{ReplayGroup, ReplayRecord, ReplaySource, ReplayTopic},
};
use siltstone_spec::{Sasl, SaslMechanism, Secret, SourceCluster, Start, Tls};

/// A name that no earlier run used on a broker which keeps its topics.
fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    format!("{name}-{time}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

struct Memory {
    topics: std::sync::Mutex<BTreeMap<String, ReplayTopic>>,
}

impl Bench for Memory {
    type Source = ReplaySource;

    fn topic(&self, name: &str, partitions: i32) {
        self.topics.lock().unwrap().insert(name.to_owned(), ReplayTopic::new(partitions));
    }

    fn produce(&self, topic: &str, partition: i32, records: &[ReplayRecord]) {
        for record in records {
            self.topics.lock().unwrap()[topic].push(partition, record.clone());
        }
    }

    fn source(&self, topic: &str) -> ReplaySource {
        ReplaySource::new(&self.topics.lock().unwrap()[topic])
    }
}

enum Broker {
    Mock(Box<MockCluster<'static, DefaultProducerContext>>),
    Real(AdminClient<DefaultClientContext>),
}

struct Kafka {
    brokers: String,
    broker: Broker,
    producer: BaseProducer,
}

impl Kafka {
    fn mock() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let brokers = cluster.bootstrap_servers();
        Self::with(brokers, Broker::Mock(Box::new(cluster)))
    }

    fn real() -> Option<Self> {
        let brokers = std::env::var("SILTSTONE_TEST_KAFKA").ok()?;
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        Some(Self::with(brokers, Broker::Real(admin)))
    }

    fn with(brokers: String, broker: Broker) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("linger.ms", "5")
            // Without it a batch that is sent again may overtake, or come twice.
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .create()
            .unwrap();
        Self { brokers, broker, producer }
    }

    fn cluster(&self) -> SourceCluster {
        let mut cluster = support::cluster(&self.brokers);
        cluster.client_options.insert("heartbeat.interval.ms".to_owned(), "500".to_owned());
        cluster
    }

    fn member(&self, topic: &str, group: &str, options: &[(&str, &str)]) -> KafkaSource {
        let mut cluster = self.cluster();
        for (key, value) in options {
            cluster.client_options.insert((*key).to_owned(), (*value).to_owned());
        }
        KafkaSource::new(&cluster, &support::table(topic, group)).unwrap()
    }
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, records: &[ReplayRecord]) {
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_deref() })
        });
        let mut message: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp_ms;
        while let Err((_, kept)) = producer.send(message) {
            message = kept;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

impl Bench for Kafka {
    type Source = KafkaSource;

    fn topic(&self, name: &str, partitions: i32) {
        match &self.broker {
            Broker::Mock(cluster) => cluster.create_topic(name, partitions, 1).unwrap(),
            Broker::Real(admin) => {
                let topic =
                    NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let made = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
                assert!(made.iter().all(Result::is_ok), "{made:?}");
            }
        }
    }

    fn produce(&self, topic: &str, partition: i32, records: &[ReplayRecord]) {
        send(&self.producer, topic, partition, records);
    }

    fn source(&self, topic: &str) -> KafkaSource {
        self.member(topic, &unique("group"), &[])
    }

    fn knows_times(&self) -> bool {
        matches!(self.broker, Broker::Real(_))
    }
}

#[test]
fn memory_keeps_the_contract() {
    suite(&Memory { topics: std::sync::Mutex::default() }, "memory");
}

#[test]
fn the_mock_cluster_keeps_the_contract() {
    suite(&Kafka::mock(), "mock");
}

#[test]
fn a_real_broker_keeps_the_contract() {
    if let Some(kafka) = Kafka::real() {
        suite(&kafka, &unique("real"));
    }
}

/// Two members share one ledger of positions: whatever moves between them, each record is taken once.
fn partitions_move_between_members_without_loss(kafka: &Kafka, options: &[(&str, &str)], eager: bool) {
    let (topic, group) = (unique("move"), unique("group"));
    kafka.topic(&topic, 4);
    for partition in 0..4 {
        kafka.produce(&topic, partition, &numbered(partition, 0, 500));
    }
    let mut ledger: BTreeMap<i32, i64> = BTreeMap::new();
    let mut rows: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut taken = [Taken::default(), Taken::default(), Taken::default()];
    let mut members = vec![kafka.member(&topic, &group, options)];
    let turn = |members: &mut Vec<KafkaSource>,
                which: usize,
                taken: &mut [Taken; 3],
                ledger: &mut BTreeMap<i32, i64>,
                rows: &mut BTreeMap<i32, Vec<i64>>| {
        let positions = ledger.clone();
        step(&mut members[which], &mut taken[which], 50, &positions, &mut |partition, offset| {
            assert!(positions.get(&partition).is_none_or(|next| offset >= *next), "delivered twice");
            ledger.insert(partition, offset + 1);
            rows.entry(partition).or_default().push(offset);
            Visit::Taken
        });
    };
    let total = |rows: &BTreeMap<i32, Vec<i64>>| rows.values().map(Vec::len).sum::<usize>();
    let started = Instant::now();
    while total(&rows) < 300 {
        assert!(started.elapsed() < Duration::from_secs(30));
        turn(&mut members, 0, &mut taken, &mut ledger, &mut rows);
    }
    members.push(kafka.member(&topic, &group, options));
    // The second member gets half, and both go on.
    while !taken[1]
        .events
        .iter()
        .any(|event| matches!(event, SourceEvent::Assigned(list) if !list.is_empty()))
    {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?} {:?}", taken[0].events, taken[1].events);
        turn(&mut members, 0, &mut taken, &mut ledger, &mut rows);
        turn(&mut members, 1, &mut taken, &mut ledger, &mut rows);
    }
    let revoked = taken[0].events.iter().find_map(|event| match event {
        SourceEvent::Revoked(list) => Some(list.len()),
        _ => None,
    });
    assert_eq!(revoked, Some(if eager { 4 } else { 2 }), "{:?}", taken[0].events);
    for partition in 0..4 {
        kafka.produce(&topic, partition, &numbered(partition, 500, 700));
    }
    while total(&rows) < 2200 {
        assert!(started.elapsed() < Duration::from_secs(90), "{} rows", total(&rows));
        turn(&mut members, 0, &mut taken, &mut ledger, &mut rows);
        turn(&mut members, 1, &mut taken, &mut ledger, &mut rows);
    }
    // The second leaves; the first takes over from the ledger.
    members.truncate(1);
    for partition in 0..4 {
        kafka.produce(&topic, partition, &numbered(partition, 700, 1000));
    }
    while total(&rows) < 4000 {
        assert!(started.elapsed() < Duration::from_secs(120), "{} rows {:?}", total(&rows), taken[0].events);
        turn(&mut members, 0, &mut taken, &mut ledger, &mut rows);
    }
    for partition in 0..4 {
        assert_eq!(rows[&partition], (0..1000).collect::<Vec<i64>>(), "partition {partition}");
    }
}

/// A revocation stays open as long as the source likes, and nothing of its partitions arrives meanwhile.
fn an_unanswered_revocation_holds_the_group(kafka: &Kafka) {
    let (topic, group) = (unique("hold"), unique("group"));
    kafka.topic(&topic, 2);
    for partition in 0..2 {
        kafka.produce(&topic, partition, &numbered(partition, 0, 3000));
    }
    let mut first = kafka.member(&topic, &group, &[]);
    let mut taken = Taken::default();
    let started = Instant::now();
    while taken.count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(30));
        step(&mut first, &mut taken, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
    let mut second = kafka.member(&topic, &group, &[]);
    let mut other = Taken::default();
    let mut open = Vec::new();
    while open.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60));
        for event in first.poll(Duration::from_millis(50), 1, &mut |_| Visit::Taken).unwrap() {
            if let SourceEvent::Revoked(partitions) = event {
                open = partitions;
            }
        }
        step(&mut second, &mut other, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let revoked = open.clone();
        let mut visit = |record: &siltstone_ingest::Record<'_>| {
            assert!(!revoked.contains(&record.partition), "delivered after the revocation");
            Visit::Taken
        };
        assert!(first.poll(Duration::from_millis(50), 10, &mut visit).unwrap().is_empty());
        step(&mut second, &mut other, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
    assert_eq!(other.count(), 0, "the second member has to wait");
    first.release(&open).unwrap();
    while other.count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(90));
        first.poll(Duration::from_millis(50), 10, &mut |_| Visit::Taken).unwrap();
        step(&mut second, &mut other, 10, &BTreeMap::new(), &mut |_, _| Visit::Taken);
    }
}

/// A source that does not poll for too long loses its partitions, is told so, and gets them again.
fn a_lost_session_is_told_apart(kafka: &Kafka) {
    let (topic, group) = (unique("lost"), unique("group"));
    kafka.topic(&topic, 1);
    kafka.produce(&topic, 0, &numbered(0, 0, 100));
    let options = [("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")];
    let mut source = kafka.member(&topic, &group, &options);
    let mut taken = Taken::default();
    run(&mut source, &mut taken, |taken| taken.ends.contains_key(&0));
    std::thread::sleep(Duration::from_millis(8000));
    kafka.produce(&topic, 0, &numbered(0, 100, 200));
    let ledger = BTreeMap::from([(0, 100)]);
    contract::run_from(&mut source, &mut taken, &ledger, |taken| taken.count() >= 200);
    let kinds: Vec<&SourceEvent> =
        taken.events.iter().filter(|event| !matches!(event, SourceEvent::EndOfPartition { .. })).collect();
    let (assigned, lost) = (SourceEvent::Assigned(vec![0]), SourceEvent::Lost(vec![0]));
    assert_eq!(kinds, vec![&assigned, &lost, &assigned]);
    assert_eq!(taken.offsets(0), (0..200).collect::<Vec<i64>>());
}

/// Closing and dropping ends soon, whatever is unanswered.
fn closing_never_hangs(kafka: &Kafka) {
    let topic = unique("close");
    kafka.topic(&topic, 2);
    kafka.produce(&topic, 0, &numbered(0, 0, 100));
    for answer in [false, true] {
        let mut source = kafka.source(&topic);
        let mut offered = Vec::new();
        let started = Instant::now();
        while offered.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(30));
            for event in source.poll(Duration::from_millis(50), 1, &mut |_| Visit::Taken).unwrap() {
                if let SourceEvent::Assigned(partitions) = event {
                    offered = partitions;
                }
            }
        }
        if answer {
            let positions: Vec<(i32, i64)> = offered.iter().map(|partition| (*partition, 0)).collect();
            source.assign(&positions).unwrap();
            source.poll(Duration::from_secs(5), 1, &mut |_| Visit::Blocked).unwrap();
        }
        let started = Instant::now();
        drop(source);
        assert!(started.elapsed() < Duration::from_secs(8), "answered {answer}: {:?}", started.elapsed());
    }
    let started = Instant::now();
    drop(kafka.source(&topic));
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[test]
fn mock_rebalances() {
    let kafka = Kafka::mock();
    // The mock group waits about a session timeout for members to join again.
    let session = ("session.timeout.ms", "3000");
    partitions_move_between_members_without_loss(&kafka, &[session], false);
    partitions_move_between_members_without_loss(
        &kafka,
        &[session, ("partition.assignment.strategy", "range")],
        true,
    );
    closing_never_hangs(&kafka);
}

#[test]
fn mock_lost_session() {
    a_lost_session_is_told_apart(&Kafka::mock());
}

#[test]
fn real_rebalances() {
    if let Some(kafka) = Kafka::real() {
        partitions_move_between_members_without_loss(&kafka, &[], false);
        partitions_move_between_members_without_loss(
            &kafka,
            &[("partition.assignment.strategy", "range")],
            true,
        );
        an_unanswered_revocation_holds_the_group(&kafka);
        closing_never_hangs(&kafka);
    }
}

#[test]
fn real_lost_session() {
    if let Some(kafka) = Kafka::real() {
        a_lost_session_is_told_apart(&kafka);
    }
}

#[test]
fn real_codecs_arrive() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = unique("codecs");
    kafka.topic(&topic, 1);
    for (at, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("compression.type", codec)
            .create()
            .unwrap();
        send(&producer, &topic, 0, &numbered(0, at * 100, at * 100 + 100));
    }
    let mut taken = Taken::default();
    run(&mut kafka.source(&topic), &mut taken, |taken| taken.ends.contains_key(&0));
    assert_eq!(taken.count(), 500);
}

#[test]
fn real_aborted_records_are_hidden_and_open_ones_wait() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = unique("transactions");
    kafka.topic(&topic, 1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", unique("writer"))
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    let transaction = |from: usize, commit: bool| {
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, &numbered(0, from, from + 10));
        match commit {
            true => producer.commit_transaction(Duration::from_secs(20)).unwrap(),
            false => producer.abort_transaction(Duration::from_secs(20)).unwrap(),
        }
    };
    transaction(0, true);
    transaction(10, false);
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, &numbered(0, 20, 30));
    let mut source = kafka.source(&topic);
    // 10 records and a marker, twice; then the open transaction.
    assert_eq!(source.watermarks(0).unwrap().high, 22, "the end is the last stable offset");
    let mut taken = Taken::default();
    run(&mut source, &mut taken, |taken| taken.ends.contains_key(&0));
    assert_eq!(taken.offsets(0), (0..10).collect::<Vec<i64>>());
    assert_eq!(taken.ends[&0], 22, "the end counts what is hidden");
    producer.commit_transaction(Duration::from_secs(20)).unwrap();
    run(&mut source, &mut taken, |taken| taken.ends[&0] == 33);
    assert_eq!(taken.offsets(0), (0..10).chain(22..32).collect::<Vec<i64>>());
}

/// Polls until the source reports an error.
fn first_error(mut source: KafkaSource) -> (IngestError, Duration) {
    let started = Instant::now();
    loop {
        if let Err(error) = source.poll(Duration::from_millis(200), 10, &mut |_| Visit::Taken) {
            return (error, started.elapsed());
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no error");
    }
}

fn secured(brokers: &str, mechanism: SaslMechanism, password: &str, ca: Option<&str>) -> SourceCluster {
    let mut cluster = support::cluster(brokers);
    cluster.sasl = Some(Sasl {
        mechanism,
        username: Secret::new("alice".to_owned()),
        password: Secret::new(password.to_owned()),
    });
    cluster.tls = ca.map(|ca| Tls { ca_file: Some(ca.into()), ..Tls::default() });
    cluster
}

/// Needs the listeners of the lab's broker: SASL_PLAINTEXT two ports above the plain one, SASL_SSL three, TLS four;
/// SILTSTONE_TEST_KAFKA_CA names the authority's file.
#[test]
fn real_security() {
    let (Some(kafka), Ok(ca)) = (Kafka::real(), std::env::var("SILTSTONE_TEST_KAFKA_CA")) else { return };
    let (host, port) = kafka.brokers.split_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let at = |above: u16| format!("{host}:{}", port + above);
    let topic = unique("secure");
    kafka.topic(&topic, 1);
    kafka.produce(&topic, 0, &numbered(0, 0, 10));
    let table = support::table(&topic, &unique("group"));
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        for (listener, authority) in [(2, None), (3, Some(ca.as_str()))] {
            let cluster = secured(&at(listener), mechanism, "alice-secret", authority);
            let mut taken = Taken::default();
            let mut source = KafkaSource::new(&cluster, &table).unwrap();
            run(&mut source, &mut taken, |taken| taken.ends.contains_key(&0));
            assert_eq!(taken.count(), 10, "{mechanism:?} {listener}");

            let cluster = secured(&at(listener), mechanism, "wrong-pass-word", authority);
            let (error, time) = first_error(KafkaSource::new(&cluster, &table).unwrap());
            assert!(matches!(error, IngestError::Refused { .. }), "{error}");
            assert!(time < Duration::from_secs(10), "{time:?}");
            assert!(!format!("{error} {error:?}").contains("wrong-pass-word"));
            let error = KafkaSource::new(&cluster, &table).unwrap().partitions().unwrap_err();
            assert!(matches!(error, IngestError::Refused { .. }), "{error}");
        }
    }
    let files = std::path::Path::new(&ca).parent().unwrap();
    let mut cluster = support::cluster(&at(4));
    cluster.tls = Some(Tls {
        ca_file: Some(ca.clone().into()),
        cert_file: Some(files.join("client.crt")),
        key_file: Some(files.join("client.key")),
        key_password: None,
    });
    assert_eq!(KafkaSource::new(&cluster, &table).unwrap().partitions().unwrap(), vec![0]);
    // Without the authority's file the listener is not trusted.
    cluster.tls = Some(Tls::default());
    let (error, _) = first_error(KafkaSource::new(&cluster, &table).unwrap());
    assert!(matches!(error, IngestError::Refused { .. }), "{error}");
}

#[test]
fn real_unknown_topic() {
    let Some(kafka) = Kafka::real() else { return };
    let mut source = kafka.source("no-such-topic");
    let error = source.partitions().unwrap_err();
    assert!(matches!(error, IngestError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("no-such-topic"));
    let (error, _) = first_error(source);
    assert!(matches!(error, IngestError::NotFound { .. }), "{error}");
}

#[test]
fn a_broker_that_is_away_is_unavailable_and_settings_are_checked() {
    let cluster = support::cluster("127.0.0.1:1");
    let mut source = KafkaSource::new(&cluster, &support::table("t", "g")).unwrap();
    assert!(source.poll(Duration::from_millis(300), 10, &mut |_| Visit::Taken).unwrap().is_empty());
    let error = source.watermarks(0).unwrap_err();
    assert_eq!(error.kind(), siltstone_protocol::ErrorKind::Unavailable, "{error}");

    let mut cluster = support::cluster("127.0.0.1:1");
    cluster.client_options.insert("session.timeout.ms".to_owned(), "hunter2".to_owned());
    let error = KafkaSource::new(&cluster, &support::table("t", "g")).unwrap_err();
    assert!(error.to_string().contains("session.timeout.ms"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn misuse_is_refused() {
    let topic = ReplayTopic::new(2);
    let kafka = Kafka::mock();
    kafka.topic("misuse", 2);
    let mut sources: Vec<Box<dyn RecordSource>> =
        vec![Box::new(ReplaySource::new(&topic)), Box::new(kafka.source("misuse"))];
    for source in &mut sources {
        assert!(source.assign(&[(0, 0)]).is_err(), "nothing was offered");
        assert!(source.release(&[0]).is_err(), "nothing was asked back");
        assert!(source.seek(&[(0, 0)]).is_err(), "nothing is assigned");
    }
}

#[test]
fn a_replayed_group_follows_its_script() {
    let topic = ReplayTopic::new(2);
    for row in 0..40 {
        topic.push(row % 2, ReplayRecord::new(format!("{row}")));
    }
    let group = ReplayGroup::default();
    let mut source = ReplaySource::with_group(&topic, group.clone());
    let mut taken = Taken::default();
    group.assign(&[0]);
    run(&mut source, &mut taken, |taken| taken.ends.len() == 1);
    group.assign(&[1]);
    group.revoke(&[0]);
    run(&mut source, &mut taken, |taken| taken.ends.len() == 2);
    topic.push(0, ReplayRecord::new("not ours"));
    topic.skip(1, 3);
    topic.push(1, ReplayRecord::new("ours"));
    run(&mut source, &mut taken, |taken| taken.ends[&1] == 24);
    assert_eq!(taken.offsets(0).len(), 20);
    assert_eq!(taken.offsets(1).last(), Some(&23));
    group.lose(&[1]);
    run(&mut source, &mut taken, |taken| taken.events.contains(&SourceEvent::Lost(vec![1])));
    topic.expire(0, 10);
    assert_eq!(source.start_offset(0, &Start::Earliest).unwrap(), 10);
    group.assign(&[0]);
    let gone = SourceEvent::OffsetOutOfRange { partition: 0 };
    contract::run_from(&mut source, &mut taken, &BTreeMap::from([(0, 9)]), |taken| {
        taken.events.contains(&gone)
    });
    source.publish_positions(&[(0, 20)]);
    assert_eq!(group.published(), BTreeMap::from([(0, 20)]));
}
