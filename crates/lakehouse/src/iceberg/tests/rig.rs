//! A ledger, an Iceberg table over it, made-up data files, and a reader that shares no code with
//! the projection: the `iceberg` crate's parsers of metadata, manifest lists and manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use iceberg::spec::{
    Datum, FormatVersion, Literal, Manifest, ManifestList, ManifestStatus, Operation, TableMetadata,
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_protocol::{
    Change, Field, FileEntry, Format, NullOrder, OffsetRange, PartitionField, PartitionSpec, PrimitiveType,
    Schema, SortDirection, SortField, SortOrder, Transform,
};

use crate::{
    details::DetailsCache,
    format::{ProjectionOptions, TableFormat},
    iceberg::IcebergTable,
    ledger::{Ledger, LedgerState},
};

pub(super) const URL: &str = "s3://lake/shop/orders";
pub(super) const LOCATION: &str = "shop/orders";
pub(super) const START_MS: i64 = 1_700_000_000_000;

pub(super) fn schema() -> Schema {
    Schema::new(
        0,
        vec![
            Field::required(1, "id", PrimitiveType::Long.into()),
            Field::optional(2, "ordered_at", PrimitiveType::Timestamptz.into()),
            Field::optional(3, "shop name", PrimitiveType::String.into()),
            Field::optional(4, "count", PrimitiveType::Int.into()),
            Field::optional(5, "amount", PrimitiveType::Decimal { precision: 9, scale: 2 }.into()),
        ],
    )
}

pub(super) fn field(source_id: i32, field_id: i32, name: &str, transform: Transform) -> PartitionField {
    PartitionField { source_id, field_id, name: name.to_owned(), transform }
}

pub(super) fn spec() -> PartitionSpec {
    PartitionSpec {
        spec_id: 0,
        fields: vec![
            field(2, 1000, "ordered_at_day", Transform::Day),
            field(1, 1001, "id_bucket", Transform::Bucket(4)),
        ],
    }
}

pub(super) fn order() -> SortOrder {
    let key = SortField {
        transform: Transform::Identity,
        source_id: 1,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    SortOrder { order_id: 1, fields: vec![key] }
}

/// One table with its ledger; several projections can be made over it.
pub(super) struct Rig {
    /// Without faults.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) ledger: Ledger,
    pub(super) state: LedgerState,
    pub(super) details: DetailsCache,
    /// Live paths by ledger version: the model.
    pub(super) live: BTreeMap<u64, BTreeSet<String>>,
    pub(super) options: ProjectionOptions,
    /// Between two commits.
    pub(super) step_ms: i64,
    now_ms: i64,
    files: u64,
    offset: i64,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::over(Arc::new(InMemory::new())).await
    }

    pub(super) async fn over(store: Arc<dyn ObjectStore>) -> Self {
        let ledger = Ledger::new(Arc::clone(&store), Path::from(LOCATION));
        let create = Change::Create {
            name: "shop.orders".to_owned(),
            schema: schema(),
            partition_spec: spec(),
            sort_order: order(),
            formats: vec![Format::Iceberg],
        };
        let state = ledger.create(create, "create", START_MS).await.unwrap();
        let live = BTreeMap::from([(0, BTreeSet::new())]);
        let details = DetailsCache::new(100_000);
        let options = ProjectionOptions { snapshots_max: 100_000, ..ProjectionOptions::default() };
        Self {
            store,
            ledger,
            state,
            details,
            live,
            options,
            step_ms: 1000,
            now_ms: START_MS,
            files: 0,
            offset: 0,
        }
    }

    pub(super) fn table(&self) -> IcebergTable {
        self.table_over(Arc::clone(&self.store))
    }

    pub(super) fn table_over(&self, store: Arc<dyn ObjectStore>) -> IcebergTable {
        IcebergTable::new(store, Path::from(LOCATION), URL.to_owned(), self.options)
    }

    /// A file that exists in name only; its details are cached.
    pub(super) fn file(&mut self, rows: u64) -> FileEntry {
        self.files += 1;
        let n = self.files;
        let path = format!("data/{n:026}.parquet");
        let long = |v: i64| ColumnStats {
            size_bytes: 100,
            values: 10,
            nulls: Some(0),
            nans: None,
            lower: Some(Datum::long(v)),
            upper: Some(Datum::long(v + 9)),
        };
        let amount = |text: &str| Datum::decimal_from_str(text).ok();
        let amounts = ColumnStats { lower: amount("-1.00"), upper: amount("129.99"), ..long(0) };
        let count = ColumnStats { lower: Some(Datum::int(-3)), upper: Some(Datum::int(7)), ..long(0) };
        self.details.insert(FileDetails {
            path: path.clone(),
            rows,
            bytes: 1000 + n,
            spec_id: self.state.partition_spec.spec_id,
            partition: self.partition(n),
            columns: BTreeMap::from([(1, long(n as i64 * 10)), (4, count), (5, amounts)]),
            split_offsets: vec![4],
            key_range: None,
        });
        FileEntry {
            path,
            bytes: 1000 + n,
            rows,
            schema_id: self.state.schema.schema_id,
            spec_id: self.state.partition_spec.spec_id,
            sort_order_id: 1,
            partition_token: Some(format!("{:x}", n % 8)),
        }
    }

    fn partition(&self, n: u64) -> Vec<Option<Literal>> {
        let fields = self.state.partition_spec.fields.iter();
        fields
            .map(|field| match field.transform {
                Transform::Day => (!n.is_multiple_of(7)).then(|| Literal::date(19_000 + (n % 5) as i32)),
                Transform::Bucket(buckets) => Some(Literal::int((n % u64::from(buckets)) as i32)),
                _ => Some(Literal::string(format!("shop {}", n % 3))),
            })
            .collect()
    }

    pub(super) async fn commit(&mut self, change: Change) -> u64 {
        let version = self.state.version + 1;
        self.now_ms += self.step_ms;
        let now_ms = self.now_ms;
        let commit_id = format!("commit-{version}");
        self.ledger.commit(&mut self.state, change, &commit_id, now_ms).await.unwrap();
        assert_eq!(self.state.version, version);
        self.live.insert(version, self.state.live_files.keys().cloned().collect());
        version
    }

    pub(super) async fn append(&mut self, files: usize) -> u64 {
        let files = (0..files).map(|_| self.file(10)).collect();
        let range = OffsetRange {
            cluster: "prod".to_owned(),
            topic: "orders".to_owned(),
            partition: 0,
            start: self.offset,
            end: self.offset + 10,
            lost: false,
        };
        self.offset += 10;
        self.commit(Change::append(files, vec![range], Vec::new())).await
    }

    pub(super) async fn replace(&mut self, removed: Vec<String>, added: usize) -> u64 {
        let rows: u64 = removed.iter().map(|path| self.state.live_files.get(path).unwrap().rows).sum();
        let each = |i: usize| if i == 0 { rows - (added as u64 - 1) } else { 1 };
        let added = (0..added).map(|i| self.file(each(i))).collect();
        self.commit(Change::Replace { removed, added, effort: Default::default() }).await
    }

    pub(super) async fn delete(&mut self, removed: Vec<String>) -> u64 {
        self.commit(Change::Delete { removed, added: Vec::new() }).await
    }

    pub(super) async fn show(&self, table: &mut IcebergTable) -> u64 {
        table.catch_up(&self.ledger, &self.state, &self.details).await.unwrap()
    }

    pub(super) async fn get(&self, url: &str) -> bytes::Bytes {
        let below = url.strip_prefix(URL).unwrap();
        self.store.get(&Path::from(format!("{LOCATION}{below}"))).await.unwrap().bytes().await.unwrap()
    }

    /// The newest metadata file, found by listing.
    pub(super) async fn metadata(&self) -> (u64, TableMetadata) {
        let (version, bytes) = self.metadata_bytes().await;
        (version, serde_json::from_slice(&bytes).unwrap())
    }

    pub(super) async fn metadata_bytes(&self) -> (u64, bytes::Bytes) {
        let names = self.names().await;
        let version = names
            .iter()
            .filter_map(|name| name.strip_prefix("metadata/v")?.strip_suffix(".metadata.json")?.parse().ok())
            .max()
            .unwrap();
        (version, self.get(&format!("{URL}/metadata/v{version}.metadata.json")).await)
    }

    /// Every object below the table.
    pub(super) async fn names(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let prefix = Path::from(LOCATION);
        let objects: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.unwrap();
        objects.iter().map(|o| o.location.as_ref()[LOCATION.len() + 1..].to_owned()).collect()
    }

    /// Reads every snapshot and checks it against the ledger (I-4).
    pub(super) async fn check(&self) -> Vec<Shown> {
        let (version, metadata) = self.metadata().await;
        assert_eq!(metadata.uuid().to_string(), self.state.table_uuid);
        assert_eq!(metadata.location(), URL);
        let hint = self.get(&format!("{URL}/metadata/version-hint.text")).await;
        assert_eq!(hint, version.to_string());
        self.check_snapshots(&metadata).await
    }

    /// Reads every snapshot of this metadata and checks it against the ledger (I-4).
    pub(super) async fn check_snapshots(&self, metadata: &TableMetadata) -> Vec<Shown> {
        let mut snapshots: Vec<_> = metadata.snapshots().cloned().collect();
        snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
        let mut shown = Vec::new();
        // File: (sequence number, snapshot) of its addition, as the first snapshot with it says.
        let mut births: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for (index, snapshot) in snapshots.iter().enumerate() {
            let parent = index.checked_sub(1).map(|parent| snapshots[parent].snapshot_id());
            if metadata.snapshots().len() == metadata.last_sequence_number() as usize {
                assert_eq!(snapshot.parent_snapshot_id(), parent);
            }
            let read = self.read_snapshot(snapshot).await;
            for (path, birth) in &read.births {
                let known = births.entry(path.clone()).or_insert(*birth);
                assert_eq!(known, birth, "{path} was born once");
            }
            let paths: BTreeSet<String> = read.births.keys().cloned().collect();
            if let Some(version) = read.version {
                assert_eq!(paths, self.live[&version], "I-4 at version {version}");
            }
            shown.push(read);
        }
        shown
    }

    async fn read_snapshot(&self, snapshot: &iceberg::spec::Snapshot) -> Shown {
        let bytes = self.get(snapshot.manifest_list()).await;
        let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
        let mut births = BTreeMap::new();
        let (mut added, mut deleted, mut rows) = (BTreeSet::new(), BTreeSet::new(), 0);
        for line in list.entries() {
            let bytes = self.get(&line.manifest_path).await;
            assert_eq!(bytes.len() as i64, line.manifest_length);
            let manifest = Manifest::parse_avro(&bytes).unwrap();
            assert_eq!(manifest.metadata().partition_spec().spec_id(), line.partition_spec_id);
            let mut counts = [0, 0, 0];
            let mut least = line.sequence_number;
            for entry in manifest.entries() {
                counts[entry.status() as usize] += 1;
                let snapshot_id = entry.snapshot_id().unwrap_or(line.added_snapshot_id);
                let sequence = entry.sequence_number().unwrap_or(line.sequence_number);
                let path = entry.file_path().strip_prefix(URL).unwrap()[1..].to_owned();
                let new = snapshot_id == snapshot.snapshot_id();
                if entry.status() == ManifestStatus::Deleted {
                    if new {
                        deleted.insert(path);
                    }
                    continue;
                }
                assert_eq!(entry.status() == ManifestStatus::Added && new, new);
                if new {
                    assert_eq!(sequence, snapshot.sequence_number());
                    added.insert(path.clone());
                }
                least = least.min(sequence);
                rows += entry.record_count() as usize;
                assert!(
                    births.insert(path.clone(), (sequence, snapshot_id)).is_none(),
                    "{path} listed twice"
                );
            }
            let listed = [line.existing_files_count, line.added_files_count, line.deleted_files_count];
            assert_eq!(listed.map(Option::unwrap), counts);
            assert_eq!(line.min_sequence_number, least);
        }
        let summary = &snapshot.summary().additional_properties;
        let number = |key: &str| summary.get(key).map_or(0, |v| v.parse::<usize>().unwrap());
        assert_eq!(number("total-data-files"), births.len());
        if summary.contains_key("siltstone.version") {
            assert_eq!(number("total-records"), rows);
            assert_eq!(
                (number("added-data-files"), number("deleted-data-files")),
                (added.len(), deleted.len())
            );
        }
        Shown {
            version: summary.get("siltstone.version").map(|v| v.parse().unwrap()),
            operation: snapshot.summary().operation.clone(),
            timestamp_ms: snapshot.timestamp_ms(),
            offsets: summary.get("siltstone.offsets").cloned(),
            manifests: list.entries().len(),
            births,
        }
    }
}

/// A snapshot as read back.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) version: Option<u64>,
    pub(super) operation: Operation,
    pub(super) timestamp_ms: i64,
    pub(super) offsets: Option<String>,
    pub(super) manifests: usize,
    /// Live files: sequence number and snapshot that added them.
    pub(super) births: BTreeMap<String, (i64, i64)>,
}
