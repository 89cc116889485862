//! Filling a topic: row `i` goes to partition `i mod partitions`, in order.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::rows::{BASE_MS, STEP_MS, Shape};

#[derive(Debug, Args)]
pub struct ProduceArgs {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, value_enum)]
    shape: Shape,
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Number of the first row.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    #[arg(long, default_value = "lz4")]
    compression: String,
    /// Rows a second; 0: as fast as the broker takes them. Record timestamps are then the clock's.
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

pub fn produce(args: &ProduceArgs) -> anyhow::Result<()> {
    create(args)?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", &args.bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.type", &args.compression)
        .set("linger.ms", if args.rate > 0 { "5" } else { "20" })
        .set("batch.size", "1048576")
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let began_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let began = Instant::now();
    let (mut value, mut bytes) = (Vec::new(), 0);
    for n in 0..args.rows {
        let i = args.first + n;
        value.clear();
        let key = args.shape.write(i, &mut value).to_string();
        bytes += value.len() as u64;
        let mut record = BaseRecord::to(&args.topic)
            .key(&key)
            .payload(&value)
            .partition((i % args.partitions as u64) as i32);
        if args.rate == 0 {
            record = record.timestamp(BASE_MS + i as i64 * STEP_MS);
        } else if n % 100 == 0 {
            let due = Duration::from_secs_f64(n as f64 / args.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        while let Err((error, back)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    std::thread::sleep(Duration::from_millis(10));
                    record = back;
                }
                other => return Err(other).context("the broker refused a record"),
            }
        }
    }
    producer.flush(Duration::from_secs(120))?;
    let summary = serde_json::json!({
        "topic": args.topic, "rows": args.rows, "value_bytes": bytes, "seconds": began.elapsed().as_secs_f64(),
        "began_ms": u64::try_from(began_ms)?,
    });
    println!("{summary}");
    Ok(())
}

fn create(args: &ProduceArgs) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &args.bootstrap).create()?;
    let topic =
        NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => anyhow::bail!("cannot create topic {name}: {code}"),
        }
    }
    Ok(())
}
