//! What one commit costs: a ledger entry of one data file, shown as Iceberg and as Delta, over a store in memory.
//!
//! `after_N`: on a table that already has N commits. `files_N`: on a table of N live files, which came by commits of
//! ten thousand each (SILTSTONE_BENCH_FILES_MAX leaves out the larger ones; a million takes 4 GB). The cost must grow
//! with neither.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use iceberg::spec::Datum;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_lakehouse::{
    DeltaTable, DetailsCache, IcebergTable, Ledger, LedgerState, ProjectionOptions, TableFormat,
};
use siltstone_protocol::{
    Change, Field, FileEntry, Format, OffsetRange, PartitionSpec, PrimitiveType, Schema, SortOrder,
};

const LOCATION: &str = "shop/orders";
const URL: &str = "s3://lake/shop/orders";
const START_MS: i64 = 1_700_000_000_000;
const COLUMNS: i32 = 8;

struct Bench {
    ledger: Ledger,
    state: LedgerState,
    details: DetailsCache,
    iceberg: IcebergTable,
    delta: DeltaTable,
    commits: i64,
    files: i64,
}

impl Bench {
    async fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let ledger = Ledger::new(Arc::clone(&store), Path::from(LOCATION));
        let field = |id: i32| Field::optional(id, format!("c{id}"), PrimitiveType::Long.into());
        let create = Change::Create {
            name: "shop.orders".to_owned(),
            schema: Schema::new(0, (1..=COLUMNS).map(field).collect()),
            partition_spec: PartitionSpec::default(),
            sort_order: SortOrder::default(),
            formats: vec![Format::Iceberg, Format::Delta],
        };
        let state = ledger.create(create, "create", START_MS).await.unwrap();
        let options = ProjectionOptions::default();
        let table = || (Arc::clone(&store), Path::from(LOCATION), URL.to_owned());
        let (a, b, c) = table();
        let iceberg = IcebergTable::new(a, b, c, options);
        let (a, b, c) = table();
        let delta = DeltaTable::new(a, b, c, options);
        Self { ledger, state, details: DetailsCache::new(16_384), iceberg, delta, commits: 0, files: 0 }
    }

    fn file(&mut self) -> FileEntry {
        let path = format!("data/{:026}.parquet", self.files);
        let first = self.files * 100;
        self.files += 1;
        let stats = |bound: i64| ColumnStats {
            size_bytes: 1000,
            values: 100,
            nulls: Some(0),
            nans: None,
            lower: Some(Datum::long(bound)),
            upper: Some(Datum::long(bound + 99)),
        };
        self.details.insert(FileDetails {
            path: path.clone(),
            rows: 100,
            bytes: 9000,
            spec_id: 0,
            partition: Vec::new(),
            columns: (1..=COLUMNS).map(|id| (id, stats(first))).collect::<BTreeMap<_, _>>(),
            split_offsets: vec![4],
            key_range: None,
        });
        FileEntry {
            path,
            bytes: 9000,
            rows: 100,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 0,
            partition_token: None,
        }
    }

    /// One commit of so many files, shown in both formats.
    async fn commit(&mut self, files: i64) {
        let start = self.files * 100;
        let files: Vec<FileEntry> = (0..files).map(|_| self.file()).collect();
        let range = OffsetRange {
            cluster: "prod".to_owned(),
            topic: "orders".to_owned(),
            partition: 0,
            start,
            end: self.files * 100,
            lost: false,
        };
        self.commits += 1;
        let change = Change::Append { files, ranges: vec![range], rejected: Vec::new() };
        let (id, now_ms) = (format!("commit-{}", self.commits), START_MS + self.commits * 1000);
        self.ledger.commit(&mut self.state, change, &id, now_ms).await.unwrap();
        self.iceberg.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
        self.delta.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
    }
}

fn by_commits(c: &mut Criterion) {
    let runtime = runtime();
    let mut bench = runtime.block_on(Bench::new());
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    for commits in [10, 1_000, 10_000] {
        runtime.block_on(async {
            while bench.commits < commits {
                bench.commit(1).await;
            }
        });
        group.bench_function(format!("after_{commits}"), |b| b.iter(|| runtime.block_on(bench.commit(1))));
    }
    group.finish();
}

fn by_files(c: &mut Criterion) {
    let max = std::env::var("SILTSTONE_BENCH_FILES_MAX").map_or(1_000_000, |max| max.parse().unwrap());
    let runtime = runtime();
    let mut bench = runtime.block_on(Bench::new());
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    for files in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|files| *files <= max) {
        runtime.block_on(async {
            while bench.files < files {
                bench.commit((files - bench.files).min(10_000)).await;
            }
        });
        group.bench_function(format!("files_{files}"), |b| b.iter(|| runtime.block_on(bench.commit(1))));
    }
    group.finish();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

criterion_group!(benches, by_commits, by_files);
criterion_main!(benches);
