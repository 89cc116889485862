//! `quickstart`: the whole path in one process, with nothing installed.
//!
//! 1. A broker in this process (librdkafka's mock cluster: for demonstrations, it keeps little and
//!    forgets it all) and a schema registry endpoint.
//! 2. Sample orders as Avro, some of them broken on purpose.
//! 3. A worker, exactly as `siltstone run --once` is: both formats, dead letters.
//! 4. A query, and the lines that open the tables elsewhere.

mod broker;
mod orders;
mod registry;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::Context;
use arrow::util::pretty::pretty_format_batches;
use siltstone_spec::Spec;
use siltstone_worker::{RunOptions, progress::Progress};
use tokio::sync::watch;

use super::{query::ask, run::stop_signal};
use crate::{args::QuickstartArgs, output};

const MEMORY_BYTES: u64 = 256 << 20;
const SUMMARY: &str = r#"SELECT status, count(*) AS orders, round(sum(amount), 2) AS amount, min(ordered_at) AS first_order
FROM "shop.orders" GROUP BY status ORDER BY orders DESC"#;
const DEAD: &str = r#"SELECT reason, count(*) AS records, min("partition") AS first_partition, min("offset") AS first_offset
FROM "shop.orders__dead_letters" GROUP BY reason ORDER BY reason"#;

pub async fn quickstart(args: QuickstartArgs, quiet: bool) -> anyhow::Result<u8> {
    let began = Instant::now();
    let say = |text: String| {
        if !quiet {
            eprintln!("{text}");
        }
    };
    let dir = prepare(&args.dir)?;
    let registry = registry::serve().await.context("the registry endpoint did not start")?;
    let broker = broker::start().context("the embedded broker did not start")?;
    say(format!(
        "1. broker at {} and schema registry at {registry}, both in this process",
        broker.bootstrap()
    ));
    let sent = broker.produce(0, args.orders)?;
    say(format!("2. {} orders sent to topic orders, {} more broken on purpose", sent.good, sent.bad));
    let spec_file = dir.join("siltstone.yaml");
    std::fs::write(&spec_file, spec_text(&broker.bootstrap(), &registry, &dir))
        .with_context(|| format!("cannot write {}", spec_file.display()))?;
    let spec = super::load(&spec_file)?;
    let (never, stop) = watch::channel(false);
    let once = run_worker(&spec, true, stop).await?;
    say(format!(
        "3. ingested and committed in {:.1} s: {}",
        began.elapsed().as_secs_f64(),
        spec_file.display()
    ));
    drop(never);
    output::print_json(&once)?;
    println!("\n{SUMMARY};");
    println!("{}", pretty_format_batches(&ask(&spec, SUMMARY).await?)?);
    println!("\n{DEAD};");
    println!("{}", pretty_format_batches(&ask(&spec, DEAD).await?)?);
    println!("{}", how_to_open(&dir));
    if args.keep_running {
        say("going on until interrupted: 200 orders a second".to_owned());
        keep_running(&spec, &broker, args.orders).await?;
    }
    Ok(output::DONE)
}

/// An empty directory for the demonstration; refuses to replace anything it did not make itself.
fn prepare(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let ours = dir.join("siltstone.yaml");
    if dir.exists() && dir.read_dir()?.next().is_some() {
        anyhow::ensure!(
            ours.exists(),
            "{} is not empty and was not made by quickstart: choose another --dir",
            dir.display()
        );
        for part in ["tables", "siltstone.yaml"] {
            let path = dir.join(part);
            let gone =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot replace {}", path.display()));
                }
                _ => {}
            }
        }
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

fn spec_text(bootstrap: &str, registry: &str, dir: &Path) -> String {
    format!(
        "# Written by `siltstone quickstart`. The broker and the registry were in its process and are gone\n\
         # with it; the tables stay: siltstone status, files, snapshots, ledger, query -f this file.\n\
         source_clusters:\n  \
           - name: demo\n    \
             bootstrap_brokers: [\"{bootstrap}\"]\n    \
             schema_registry: {{url: \"{registry}\"}}\n\
         destination_bucket_url: \"file://{}/tables\"\n\
         tables:\n  \
           - name: shop.orders\n    \
             source_cluster_name: demo\n    \
             source_topic: orders\n    \
             source_format: avro\n    \
             formats: [iceberg, delta]\n    \
             partition_by: [day(ordered_at)]\n    \
             sort_by: [customer_id, ordered_at desc]\n    \
             freshness: {{max_age: 1s}}\n    \
             dlq_mode: dead_letter\n",
        dir.display()
    )
}

async fn run_worker(
    spec: &Spec,
    once: bool,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<siltstone_worker::RunSummary> {
    let options = RunOptions {
        once,
        memory_bytes: MEMORY_BYTES,
        http: None,
        tables: Vec::new(),
        control: Default::default(),
    };
    Ok(siltstone_worker::run(spec.clone(), options, Arc::new(Progress::default()), stop).await?)
}

async fn keep_running(spec: &Spec, broker: &broker::Broker, first: u32) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let mut worker = std::pin::pin!(run_worker(spec, false, stop));
    let mut next = first;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(250));
    loop {
        tokio::select! {
            ended = &mut worker => return ended.map(drop),
            _ = every.tick() => {
                broker.produce(next, 50)?;
                next = next.wrapping_add(50);
            }
        }
    }
}

fn how_to_open(dir: &Path) -> String {
    let base = format!("{}/tables/shop/orders", dir.display());
    format!(
        "\nThe same files, as an Iceberg table and as a Delta table, in other engines:\n\n\
         DuckDB     INSTALL iceberg; LOAD iceberg; SELECT * FROM iceberg_scan('{base}') LIMIT 5;\n\
         \x20          INSTALL delta; LOAD delta; SELECT * FROM delta_scan('{base}/data') LIMIT 5;\n\
         PyIceberg  from pyiceberg.table import StaticTable\n\
         \x20          StaticTable.from_metadata('{base}').scan(limit=5).to_arrow()\n\
         delta-rs   from deltalake import DeltaTable; DeltaTable('{base}/data').to_pyarrow_table()\n\
         Spark      spark.read.format('iceberg').load('file://{base}').show(5)\n\
         \x20          spark.read.format('delta').load('file://{base}/data').show(5)\n\n\
         Look further: siltstone status|files|snapshots|ledger|query -f {}/siltstone.yaml",
        dir.display()
    )
}
