//! What each stage of ingestion costs alone, on the orders workload: consume, decode, and sort, gather, encode and
//! upload together, as a flush does them. `ingest.py` says what the whole costs; a commit is measured by `commits`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use clap::Args;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use siltstone_datafile::write_sorted;
use siltstone_ingest::{
    Headers, KafkaOptions, KafkaSource, Record, RecordSource, SourceEvent, Visit,
    decoder::{Decoder, Learned, Pushed},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};
use siltstone_spec::{Spec, Start};

use crate::{
    compact::{cpu_seconds, layout},
    rows::Shape,
};

const BATCH_ROWS: usize = 8192;
/// The schema id of the orders.
const ORDERS_ID: u32 = 1;

#[derive(Debug, Args)]
pub struct StagesArgs {
    /// The broker, `host:port`.
    #[arg(long, env = "SILTSTONE_BENCH_KAFKA")]
    bootstrap: String,
    /// A topic of orders, as `produce` or `ingest.py` fills it.
    #[arg(long)]
    topic: String,
    /// Rows decoded and written; they and their batches are held in memory meanwhile, 250 bytes each.
    #[arg(long, default_value_t = 5_000_000)]
    rows: usize,
    /// Rows of a flush.
    #[arg(long, default_value_t = 1_250_000)]
    flush_rows: usize,
    /// Where the files lie meanwhile.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn stages(args: &StagesArgs) -> anyhow::Result<()> {
    let spec = spec(args)?;
    let before = cpu_seconds();
    let consumed = consume(&spec)?;
    report("consume", consumed, before);

    let mut values = Vec::new();
    let mut ends = Vec::with_capacity(args.rows);
    for row in 0..args.rows as u64 {
        Shape::OrdersAvro.write(row, &mut values);
        ends.push(values.len());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let before = cpu_seconds();
    let batches = runtime.block_on(decode(&spec, &values, &ends))?;
    report("decode", args.rows as u64, before);
    drop((values, ends));

    let directory = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = directory.join(format!("siltstone-stages-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let before = cpu_seconds();
    let written = runtime.block_on(write(batches, args.flush_rows, &directory));
    report("sort, gather, encode, upload", args.rows as u64, before);
    std::fs::remove_dir_all(&directory)?;
    written
}

fn spec(args: &StagesArgs) -> anyhow::Result<Spec> {
    let text = format!(
        "source_clusters: [{{name: bench, bootstrap_brokers: ['{}'], schema_registry: {{url: 'http://localhost'}}}}]
destination_bucket_url: file:///tmp
tables: [{{name: bench.orders, source_cluster_name: bench, source_topic: {}, source_format: avro, \
         group: stages-{}}}]
",
        args.bootstrap,
        args.topic,
        std::process::id(),
    );
    siltstone_spec::parse(&text, "stages", &|_| None).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Records of the topic, each looked at.
fn consume(spec: &Spec) -> anyhow::Result<u64> {
    let mut source =
        KafkaSource::with_options(&spec.source_clusters[0], &spec.tables[0], KafkaOptions::default())?;
    let mut left = source.partitions()?.len();
    let mut rows = 0;
    while left > 0 {
        let events = source.poll(Duration::from_millis(200), BATCH_ROWS, &mut |record| {
            rows += u64::from(record.value.is_some_and(|value| !value.is_empty()));
            Visit::Taken
        })?;
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => {
                    let mut positions = Vec::new();
                    for partition in partitions {
                        positions.push((partition, source.start_offset(partition, &Start::Earliest)?));
                    }
                    source.assign(&positions)?;
                }
                SourceEvent::EndOfPartition { .. } => left -= 1,
                other => bail!("unexpected: {other:?}"),
            }
        }
    }
    source.close();
    Ok(rows)
}

async fn decode(spec: &Spec, values: &[u8], ends: &[usize]) -> anyhow::Result<Vec<RecordBatch>> {
    let registry = FixedRegistry::new();
    let schema = Shape::schema_of_id(ORDERS_ID).context("the orders have no schema")?;
    let format = RegistryFormat::Avro;
    let schema = RegisteredSchema { id: ORDERS_ID, format, schema, references: vec![] };
    registry.put(&format!("{}-value", spec.tables[0].topic), schema);
    let mut decoder = Decoder::new(&spec.tables[0], None)?;
    let mut batches = Vec::new();
    let mut start = 0;
    for (offset, end) in (0..).zip(ends) {
        let value = Some(&values[start..*end]);
        start = *end;
        let headers = Headers::empty();
        let record = Record { partition: 0, offset, timestamp_ms: None, key: None, value, headers };
        loop {
            match decoder.push(&record) {
                Pushed::Row => break,
                Pushed::NeedsSchema(need) => {
                    if let Learned::Evolves(schema) = decoder.learn(need, Some(&registry)).await? {
                        decoder.set_table_schema(schema)?;
                    }
                }
                other => bail!("a row was not taken: {other:?}"),
            }
        }
        if decoder.rows() >= BATCH_ROWS {
            batches.extend(decoder.finish()?);
        }
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}

async fn write(
    batches: Vec<RecordBatch>,
    flush_rows: usize,
    directory: &std::path::Path,
) -> anyhow::Result<()> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory)?);
    let layout = layout(1, &[2, 3]);
    let mut batches = batches.into_iter().peekable();
    while batches.peek().is_some() {
        let flush: Vec<RecordBatch> = batches.by_ref().take(flush_rows / BATCH_ROWS + 1).collect();
        write_sorted(flush, &layout, &store, &Path::from("orders")).await?;
    }
    Ok(())
}

fn report(stage: &str, rows: u64, cpu_before: f64) {
    let cpu = cpu_seconds() - cpu_before;
    let line = serde_json::json!({
        "stage": stage, "rows": rows, "cpu_s": cpu,
        "us_per_row": cpu * 1e6 / rows.max(1) as f64, "rows_per_cpu_s": (rows as f64 / cpu) as u64,
    });
    println!("{line}");
}
