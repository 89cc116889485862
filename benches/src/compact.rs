//! Compaction by itself: files as ingest leaves them in, what each way of rewriting costs out.
//!
//! The rows are those of the compaction workload of the comparison with other programs: 7 columns, of which
//! a note of 64 random characters; each file follows time, customers are random inside it.

use std::{path::PathBuf, sync::Arc, time::Instant};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::SchemaRef,
};
use clap::Args;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use siltstone_compaction::{CompactionPolicy, FileFacts, TableState, plan};
use siltstone_datafile::{
    KeyRange, Layout, RewriteInput, RewriteJob, RewriteOptions, WrittenFile, arrow_schema, rewrite,
    write_sorted,
};
use siltstone_protocol::{
    Field, FileEntry, NullOrder, PartitionSpec, PrimitiveType as P, Schema, SortDirection, SortField,
    SortOrder, Transform,
};
use siltstone_spec::{Clustering, Compression, Files};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STATUS: [&str; 6] = ["created", "payment_pending", "paid", "shipped", "delivered", "cancelled"];

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Input files.
    #[arg(long, default_value_t = 40)]
    files: u64,
    /// Rows of a file.
    #[arg(long, default_value_t = 75_000)]
    rows: u64,
    #[arg(long, default_value_t = 3)]
    zstd: i32,
    /// Memory of a rewrite, MiB.
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// Where the files lie meanwhile.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only these: merge, zorder, hilbert, splice, plan.
    #[arg(long)]
    only: Vec<String>,
    /// Each measured this often.
    #[arg(long, default_value_t = 2)]
    repeat: usize,
}

pub fn compact(args: &CompactArgs) -> anyhow::Result<()> {
    let directory = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = directory.join(format!("siltstone-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(run(args, &directory));
    std::fs::remove_dir_all(&directory)?;
    done
}

async fn run(args: &CompactArgs, directory: &std::path::Path) -> anyhow::Result<()> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if wanted("plan") {
        plans();
    }
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory)?);
    let bench = Bench { args, store, directory };
    if ["merge", "zorder", "hilbert"].into_iter().any(wanted) {
        let layout = layout(args.zstd, &[2, 3]);
        let mut inputs = Vec::new();
        for file in 0..args.files {
            inputs.extend(bench.write(&layout, file * args.rows, args.rows).await?);
        }
        for (name, cluster) in
            [("merge", Clustering::Sort), ("zorder", Clustering::ZOrder), ("hilbert", Clustering::Hilbert)]
        {
            if wanted(name) {
                bench.measure(name, &inputs, &layout, cluster).await?;
            }
        }
    }
    if wanted("splice") {
        // In order of id, and large enough that row groups are.
        let layout = layout(args.zstd, &[1]);
        let mut inputs = Vec::new();
        let rows = 600_000;
        for file in 0..(args.files * args.rows).div_ceil(rows) {
            inputs.extend(bench.write(&layout, file * rows, rows).await?);
        }
        for _ in 0..args.repeat {
            bench.copy(&inputs).await?;
            bench.measure_once("splice", &inputs, &layout, Clustering::Sort).await?;
        }
    }
    Ok(())
}

struct Bench<'a> {
    args: &'a CompactArgs,
    store: Arc<dyn ObjectStore>,
    directory: &'a std::path::Path,
}

impl Bench<'_> {
    async fn write(&self, layout: &Layout, first: u64, rows: u64) -> anyhow::Result<Vec<FileEntry>> {
        let schema = arrow_schema(&layout.schema)?;
        let batches = (first..first + rows).step_by(8192);
        let batches = batches.map(|start| batch(&schema, start..(first + rows).min(start + 8192)));
        let batches = batches.collect::<anyhow::Result<Vec<_>>>()?;
        let written = write_sorted(batches, layout, &self.store, &Path::from("t")).await?;
        Ok(written.into_iter().map(|file| file.entry).collect())
    }

    async fn measure(
        &self,
        name: &str,
        inputs: &[FileEntry],
        layout: &Layout,
        cluster: Clustering,
    ) -> anyhow::Result<()> {
        for _ in 0..self.args.repeat {
            self.measure_once(name, inputs, layout, cluster).await?;
        }
        Ok(())
    }

    /// The bound of a splice: the same files read and written as they are, over the same store.
    async fn copy(&self, inputs: &[FileEntry]) -> anyhow::Result<()> {
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        for entry in inputs {
            let bytes = self.store.get(&Path::from(format!("t/{}", entry.path))).await?.bytes().await?;
            self.store.put(&Path::from("copy"), bytes.into()).await?;
        }
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let bytes: u64 = inputs.iter().map(|entry| entry.bytes).sum();
        let rate = bytes as f64 / 1e6 / cpu;
        let line = serde_json::json!({
            "what": "copy", "input_bytes": bytes, "wall_s": wall, "cpu_s": cpu, "input_mb_per_cpu_s": rate,
        });
        println!("{line}");
        Ok(())
    }

    async fn measure_once(
        &self,
        name: &str,
        inputs: &[FileEntry],
        layout: &Layout,
        cluster: Clustering,
    ) -> anyhow::Result<()> {
        let options = RewriteOptions {
            memory_bytes: self.args.memory << 20,
            spill_dir: self.directory.to_path_buf(),
            ..RewriteOptions::default()
        };
        let inputs = inputs.iter().cloned().map(RewriteInput::new).collect();
        let job = RewriteJob { inputs, layout: layout.clone(), cluster, old: None };
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let (files, stats) = rewrite(job, &self.store, &Path::from("t"), &options).await?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let bytes: u64 = files.iter().map(|file| file.entry.bytes).sum();
        let line = serde_json::json!({
            "what": name, "rows": stats.rows, "inputs": stats.inputs, "input_bytes": stats.input_bytes,
            "outputs": files.len(), "output_bytes": bytes, "spliced_rows": stats.spliced_rows,
            "spilled_bytes": stats.spilled_bytes, "wall_s": wall, "cpu_s": cpu,
            "rows_per_cpu_s": (stats.rows as f64 / cpu) as u64,
            "input_mb_per_cpu_s": stats.input_bytes as f64 / 1e6 / cpu,
            "resident_mib": resident_mib("VmRSS:"), "peak_resident_mib": resident_mib("VmHWM:"),
        });
        println!("{line}");
        self.remove(&files)?;
        Ok(())
    }

    fn remove(&self, files: &[WrittenFile]) -> anyhow::Result<()> {
        for file in files {
            std::fs::remove_file(self.directory.join("t").join(&file.entry.path))?;
        }
        Ok(())
    }
}

pub fn layout(zstd: i32, keys: &[i32]) -> Layout {
    let columns = [
        ("id", P::Long),
        ("customer_id", P::Long),
        ("ts", P::Timestamptz),
        ("amount", P::Double),
        ("status", P::String),
        ("country", P::String),
        ("note", P::String),
    ];
    let fields = (1..).zip(columns).map(|(id, (name, p))| Field::optional(id, name, p.into()));
    let key = |source_id: &i32| SortField {
        transform: Transform::Identity,
        source_id: *source_id,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    Layout {
        schema: Arc::new(Schema::new(0, fields.collect())),
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder { order_id: 1, fields: keys.iter().map(key).collect() },
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 64 << 20,
            compression: Compression::Zstd { level: zstd },
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([0; 32]),
        host: Default::default(),
    }
}

fn random(row: u64, column: u64) -> u64 {
    let mut z = (row * 16 + column).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(20_261_122);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn batch(schema: &SchemaRef, rows: std::ops::Range<u64>) -> anyhow::Result<RecordBatch> {
    let note = |row: u64| -> String {
        let words = (0..8).flat_map(|word| random(row, 8 + word).to_le_bytes());
        words.map(|byte| ALPHABET[usize::from(byte & 63)] as char).collect()
    };
    let at = |row: u64| 1_767_225_600_000_000 + row as i64 * 57_600 + (random(row, 1) % 60_000_000) as i64;
    let countries: Vec<String> = (0..50).map(|country| format!("country-{country:02}")).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64))),
        Arc::new(Int64Array::from_iter_values(
            rows.clone().map(|row| (random(row, 2) % 2_000_000) as i64 + 1),
        )),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.clone().map(at)).with_timezone("+00:00")),
        Arc::new(Float64Array::from_iter_values(
            rows.clone().map(|row| (random(row, 3) % 100_000) as f64 / 100.0),
        )),
        Arc::new(StringArray::from_iter_values(
            rows.clone().map(|row| STATUS[(random(row, 4) % 6) as usize]),
        )),
        Arc::new(StringArray::from_iter_values(
            rows.clone().map(|row| countries[(random(row, 5) % 50) as usize].as_str()),
        )),
        Arc::new(StringArray::from_iter_values(rows.map(note))),
    ];
    Ok(RecordBatch::try_new(SchemaRef::clone(schema), columns)?)
}

/// A million live files in a thousand partitions, planned.
fn plans() {
    let entry = |number: u64| FileEntry {
        path: format!("data/{number:026}.parquet"),
        bytes: (1 << 20) + random(number, 0) % (1 << 20),
        rows: 10_000,
        schema_id: 0,
        spec_id: 1,
        sort_order_id: 1,
        partition_token: Some(format!("{:064x}", random(number % 1000, 1))),
    };
    let entries: Vec<FileEntry> = (0..1_000_000).map(entry).collect();
    let range = |number: u64| {
        let first = random(number, 2);
        KeyRange::new(1, &first.to_be_bytes(), &first.saturating_add(random(number, 3) / 4).to_be_bytes())
    };
    let ranges: Vec<KeyRange> = (0..1_000_000).map(range).collect();
    let policy = CompactionPolicy::default();
    for (name, now_ms) in [("plan busy", 0), ("plan quiet", i64::MAX)] {
        let before = resident_mib("VmRSS:");
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let facts = entries.iter().zip(&ranges);
        let facts = facts.map(|(entry, range)| FileFacts::of(entry).with_key_range(Some(range)));
        let state = TableState { files: facts.collect(), sort_order_id: 1 };
        let plans = plan(&state, &policy, now_ms);
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let line = serde_json::json!({
            "what": name, "files": entries.len(), "plans": plans.len(), "wall_s": wall, "cpu_s": cpu,
            "entries_mib": before, "peak_resident_mib": resident_mib("VmHWM:"),
        });
        println!("{line}");
    }
}

/// User and system time of this process.
pub fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn resident_mib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
