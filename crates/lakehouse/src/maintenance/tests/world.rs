//! A table in a folder, shown in both formats, with a clock of its own: files get the dates of that clock. What is
//! read back is read by the `iceberg` crate's parsers and by `deltalake`, and compared with a model of the ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use deltalake::DeltaTableBuilder;
use iceberg::spec::{Datum, FormatVersion, Manifest, ManifestList, TableMetadata};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_protocol::{
    Change, Field, FileEntry, Format, OffsetRange, PartitionSpec, PrimitiveType, Schema, SortOrder,
};
use url::Url;

use crate::{
    DeltaTable, IcebergTable, Janitor,
    details::DetailsCache,
    format::{ProjectionOptions, TableFormat},
    ledger::{Ledger, LedgerState},
    maintenance::{Policy, Sweep, VacuumOptions, VacuumReport},
};

pub(super) const LOCATION: &str = "lake/shop";
pub(super) const URL: &str = "s3://bucket/lake/shop";
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

pub(super) fn schema() -> Schema {
    Schema::new(
        0,
        vec![
            Field::required(1, "id", PrimitiveType::Long.into()),
            Field::optional(2, "at", PrimitiveType::Timestamptz.into()),
        ],
    )
}

pub(super) struct World {
    directory: tempfile::TempDir,
    /// Without faults.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) ledger: Ledger,
    pub(super) state: LedgerState,
    pub(super) details: DetailsCache,
    pub(super) policy: Policy,
    /// Live files by ledger version: the model.
    pub(super) live: BTreeMap<u64, BTreeSet<String>>,
    pub(super) now_ms: i64,
    dated: BTreeMap<PathBuf, i64>,
    files: u64,
    offset: i64,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(vec![Format::Iceberg, Format::Delta]).await
    }

    pub(super) async fn with(formats: Vec<Format>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
        let ledger = Ledger::with_checkpoint_every(Arc::clone(&store), Path::from(LOCATION), 1_000_000);
        let create = Change::Create {
            name: "shop".to_owned(),
            schema: schema(),
            partition_spec: PartitionSpec::default(),
            sort_order: SortOrder::default(),
            formats,
        };
        let now_ms = 1_700_000_000_000;
        let state = ledger.create(create, "create", now_ms).await.unwrap();
        let projection = ProjectionOptions {
            snapshots_max: 1_000,
            snapshots_min: 1,
            snapshots_age: Duration::from_secs(7 * 24 * 3600),
        };
        let policy = Policy { projection, orphans: Duration::from_secs(3 * 24 * 3600) };
        let mut world = Self {
            directory,
            store,
            ledger,
            state,
            details: DetailsCache::new(100_000),
            policy,
            live: BTreeMap::from([(0, BTreeSet::new())]),
            now_ms,
            dated: BTreeMap::new(),
            files: 0,
            offset: 0,
        };
        world.date();
        world
    }

    pub(super) fn iceberg(&self) -> IcebergTable {
        // Expiry is the janitor's here: a projection keeps all.
        let options = ProjectionOptions {
            snapshots_max: 100_000,
            snapshots_min: 100_000,
            snapshots_age: Duration::from_secs(u64::MAX / 1_000_000),
        };
        IcebergTable::new(Arc::clone(&self.store), Path::from(LOCATION), URL.to_owned(), options)
    }

    pub(super) fn delta(&self) -> DeltaTable {
        let (store, location) = (Arc::clone(&self.store), Path::from(LOCATION));
        DeltaTable::new(store, location, URL.to_owned(), self.policy.projection).checkpoint_every(1_000_000)
    }

    pub(super) fn janitor(&self) -> Janitor {
        self.janitor_over(Arc::clone(&self.store))
    }

    pub(super) fn janitor_over(&self, store: Arc<dyn ObjectStore>) -> Janitor {
        let ledger = Ledger::with_checkpoint_every(Arc::clone(&store), Path::from(LOCATION), 1_000_000);
        Janitor::new(store, URL, ledger, self.policy)
    }

    /// Time passes; what was written since the last call gets the time before.
    pub(super) fn pass(&mut self, ms: i64) {
        self.date();
        self.now_ms += ms;
    }

    /// Gives files that have no date of this world's clock the present one.
    pub(super) fn date(&mut self) {
        let mut open = vec![self.directory.path().to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if !self.dated.contains_key(&path) {
                    self.set_date(&path, self.now_ms);
                }
            }
        }
    }

    fn set_date(&mut self, path: &std::path::Path, at_ms: i64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms.try_into().unwrap());
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        self.dated.insert(path.to_path_buf(), at_ms);
    }

    /// A fresh name, with the bytes of a file under it.
    pub(super) async fn write(&mut self) -> String {
        self.files += 1;
        let ulid = ulid::Ulid::from_parts(self.now_ms.try_into().unwrap(), u128::from(self.files));
        let path = format!("data/{}.parquet", ulid.to_string().to_lowercase());
        self.put(&path).await;
        path
    }

    pub(super) async fn put(&self, below: &str) {
        let path = Path::from(format!("{LOCATION}/{below}"));
        self.store.put(&path, "rows".to_owned().into()).await.unwrap();
    }

    /// A file whose rows are from `from_us` to `to_us`.
    pub(super) async fn file(&mut self, rows: u64, from_us: i64, to_us: i64, nulls: u64) -> FileEntry {
        let path = self.write().await;
        let stats = |lower, upper, nulls| ColumnStats {
            size_bytes: 1,
            values: rows,
            nulls: Some(nulls),
            nans: None,
            lower: Some(lower),
            upper: Some(upper),
        };
        let at = stats(Datum::timestamptz_micros(from_us), Datum::timestamptz_micros(to_us), nulls);
        let id = stats(Datum::long(0), Datum::long(9), 0);
        self.details.insert(FileDetails {
            path: path.clone(),
            rows,
            bytes: 4,
            spec_id: 0,
            partition: Vec::new(),
            columns: BTreeMap::from([(1, id), (2, at)]),
            key_range: None,
            split_offsets: vec![4],
        });
        FileEntry { path, bytes: 4, rows, schema_id: 0, spec_id: 0, sort_order_id: 0, partition_token: None }
    }

    pub(super) async fn commit(&mut self, change: Change) {
        let id = format!("c{}", self.state.version + 1);
        self.ledger.commit(&mut self.state, change, &id, self.now_ms).await.unwrap();
        self.live.insert(self.state.version, self.state.live_files.keys().cloned().collect());
        self.date();
    }

    pub(super) async fn append(&mut self, files: usize) {
        let mut entries = Vec::new();
        for _ in 0..files {
            let at_us = self.now_ms * 1_000;
            entries.push(self.file(10, at_us - 1_000, at_us, 0).await);
        }
        self.append_files(entries).await;
    }

    pub(super) async fn append_files(&mut self, files: Vec<FileEntry>) {
        let (start, end) = (self.offset, self.offset + 10);
        self.offset = end;
        let range =
            OffsetRange { cluster: "c".into(), topic: "t".into(), partition: 0, start, end, lost: false };
        self.commit(Change::append(files, vec![range], vec![])).await;
    }

    /// The oldest `count` live files become one.
    pub(super) async fn replace(&mut self, count: usize) {
        let removed: Vec<String> = self.state.live_files.keys().take(count).cloned().collect();
        if removed.is_empty() {
            return;
        }
        let rows = removed.iter().map(|path| self.state.live_files.get(path).unwrap().rows).sum();
        let at_us = self.now_ms * 1_000;
        let added = vec![self.file(rows, at_us - 1_000, at_us, 0).await];
        self.commit(Change::Replace { removed, added, effort: Default::default() }).await;
    }

    pub(super) async fn delete(&mut self, count: usize) {
        let removed: Vec<String> = self.state.live_files.keys().take(count).cloned().collect();
        if !removed.is_empty() {
            self.commit(Change::Delete { removed, added: Vec::new() }).await;
        }
    }

    pub(super) async fn show(&mut self, table: &mut dyn TableFormat) {
        let shown = table.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
        assert_eq!(shown, self.state.version);
        self.date();
    }

    pub(super) async fn show_both(&mut self) {
        let (mut iceberg, mut delta) = (self.iceberg(), self.delta());
        self.show(&mut iceberg).await;
        self.show(&mut delta).await;
    }

    pub(super) async fn vacuum(&mut self) -> VacuumReport {
        let options = VacuumOptions::default();
        let report = self.janitor().vacuum(self.now_ms, options, &Sweep::default()).await.unwrap();
        self.date();
        report
    }

    /// Every object below the table.
    pub(super) async fn names(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let prefix = Path::from(LOCATION);
        let objects: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.unwrap();
        objects.iter().map(|o| o.location.as_ref()[LOCATION.len() + 1..].to_owned()).collect()
    }

    async fn get(&self, url: &str) -> bytes::Bytes {
        let below = url.strip_prefix(URL).unwrap();
        let path = Path::from(format!("{LOCATION}{below}"));
        self.store.get(&path).await.unwrap_or_else(|_| panic!("{below} is gone")).bytes().await.unwrap()
    }

    pub(super) async fn metadata(&self) -> (u64, serde_json::Value) {
        let hint = self.get(&format!("{URL}/metadata/version-hint.text")).await;
        let version: u64 = std::str::from_utf8(&hint).unwrap().parse().unwrap();
        let bytes = self.get(&format!("{URL}/metadata/v{version}.metadata.json")).await;
        (version, serde_json::from_slice(&bytes).unwrap())
    }

    /// Another program's change of the metadata.
    pub(super) async fn put_metadata(&mut self, version: u64, metadata: &serde_json::Value) {
        for (name, text) in [
            (format!("v{version}.metadata.json"), metadata.to_string()),
            ("version-hint.text".to_owned(), version.to_string()),
        ] {
            let path = Path::from(format!("{LOCATION}/metadata/{name}"));
            self.store.put(&path, text.into()).await.unwrap();
        }
        self.date();
    }

    /// Reads every Iceberg snapshot; what each shows is what the ledger had, and it is there. Gives the versions.
    pub(super) async fn check_iceberg(&self) -> Vec<u64> {
        let names = self.names().await;
        let (_, metadata) = self.metadata().await;
        let metadata: TableMetadata = serde_json::from_value(metadata).unwrap();
        let mut versions = Vec::new();
        for snapshot in metadata.snapshots() {
            let list = self.get(snapshot.manifest_list()).await;
            let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
            let mut shown = BTreeSet::new();
            for line in list.entries() {
                let manifest = Manifest::parse_avro(&self.get(&line.manifest_path).await).unwrap();
                let live = manifest.entries().iter().filter(|entry| entry.is_alive());
                shown.extend(live.map(|entry| entry.file_path()[URL.len() + 1..].to_owned()));
            }
            let version = &snapshot.summary().additional_properties["siltstone.version"];
            let version: u64 = version.parse().unwrap();
            assert_eq!(shown, self.live[&version], "Iceberg at version {version}");
            for path in &shown {
                assert!(names.contains(path), "snapshot of version {version} names {path}, which is gone");
            }
            versions.push(version);
        }
        versions.sort_unstable();
        versions
    }

    /// Reads every Delta version that was the newest at some time since `since_ms`, as above.
    pub(super) async fn check_delta(&self, since_ms: i64) -> Vec<u64> {
        let names = self.names().await;
        let log: BTreeMap<u64, i64> = names
            .iter()
            .filter_map(|name| {
                let digits = name.strip_prefix("data/_delta_log/")?.strip_suffix(".json")?;
                let path = self.directory.path().join(LOCATION).join(name);
                Some((digits.parse().ok()?, self.dated[&path]))
            })
            .collect();
        let oldest = log.iter().take_while(|(_, at_ms)| **at_ms < since_ms).last().map_or(0, |(v, _)| *v);
        let mut versions = Vec::new();
        for version in log.keys().filter(|version| **version >= oldest) {
            let url = Url::parse(&format!("memory://siltstone--x-s3/{LOCATION}/data/")).unwrap();
            let builder = DeltaTableBuilder::from_url(url.clone()).unwrap().with_version(*version);
            let table = builder.with_storage_backend(Arc::clone(&self.store), url).load().await;
            let table = table.unwrap_or_else(|error| panic!("delta version {version}: {error}"));
            let snapshot = table.snapshot().unwrap();
            let shown: BTreeSet<String> =
                snapshot.log_data().iter().map(|file| format!("data/{}", file.path())).collect();
            let app_id = format!("siltstone-{}", self.state.table_uuid);
            let log_store = table.log_store();
            let shows = snapshot.snapshot().transaction_version(log_store.as_ref(), &app_id).await.unwrap();
            let shows = u64::try_from(shows.unwrap()).unwrap();
            assert_eq!(shown, self.live[&shows], "Delta at version {version}, ledger {shows}");
            for path in &shown {
                assert!(names.contains(path), "delta version {version} names {path}, which is gone");
            }
            versions.push(shows);
        }
        versions
    }

    /// Everything that must be readable is.
    pub(super) async fn check(&self) {
        let names = self.names().await;
        for path in self.state.live_files.keys() {
            assert!(names.contains(path), "the ledger names {path}, which is gone");
        }
        self.check_iceberg().await;
        let age_ms = i64::try_from(self.policy.projection.snapshots_age.as_millis()).unwrap();
        self.check_delta(self.now_ms - age_ms).await;
        let fresh = Ledger::new(Arc::clone(&self.store), Path::from(LOCATION));
        assert_eq!(fresh.load().await.unwrap().unwrap(), self.state);
    }
}
