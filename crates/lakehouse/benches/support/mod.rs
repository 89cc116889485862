//! A table in memory that is committed to and shown in both formats.

#![allow(clippy::unwrap_used, reason = "benchmarks")]

use std::{collections::BTreeMap, sync::Arc};

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

pub(crate) struct Bench {
    ledger: Ledger,
    state: LedgerState,
    details: DetailsCache,
    iceberg: IcebergTable,
    delta: DeltaTable,
    pub(crate) commits: i64,
    pub(crate) files: i64,
}

impl Bench {
    pub(crate) async fn new() -> Self {
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

    /// Waits for what goes on in the background.
    pub(crate) async fn close(&mut self) {
        self.delta.close().await;
    }

    /// One commit of so many files, shown in both formats.
    pub(crate) async fn commit(&mut self, files: i64) {
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
        let change = Change::append(files, vec![range], Vec::new());
        let (id, now_ms) = (format!("commit-{}", self.commits), START_MS + self.commits * 1000);
        self.ledger.commit(&mut self.state, change, &id, now_ms).await.unwrap();
        self.iceberg.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
        self.delta.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
    }
}
