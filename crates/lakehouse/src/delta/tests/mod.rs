#![allow(clippy::unwrap_used, clippy::panic)]

mod absorb;
mod mapping;
mod overwrite;
mod partitions;
mod real_files;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use deltalake::DeltaTableBuilder;
use iceberg::spec::{Datum, Literal};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path};
use rstest::rstest;
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_protocol::{
    Change, ErrorKind, Field, FileEntry, Format, OffsetRange, PartitionField, PartitionSpec, PrimitiveType,
    Schema, SortOrder, Transform,
};
use url::Url;

use super::{DeltaTable, checkpoint};
use crate::{
    details::DetailsCache,
    faults::{Fault, FaultStore, Scope},
    format::{ProjectionOptions, TableFormat},
    ledger::{Ledger, LedgerState},
};

/// A caller that hangs is dropped after this long: it is killed, from the store's point of view.
const PATIENCE: Duration = Duration::from_millis(300);

const LOCATION: &str = "lake/shop/orders";

fn schema(id: i32) -> Schema {
    let mut fields = vec![
        Field::required(1, "id", PrimitiveType::Long.into()),
        Field::optional(2, "amount", PrimitiveType::Decimal { precision: 38, scale: 2 }.into()),
        Field::optional(3, "region", PrimitiveType::Int.into()),
    ];
    if id > 0 {
        fields.push(Field::optional(4, "note", PrimitiveType::String.into()));
    }
    Schema::new(id, fields)
}

fn by_region() -> PartitionSpec {
    let field = PartitionField {
        source_id: 3,
        field_id: 1000,
        name: "region".into(),
        transform: Transform::Identity,
    };
    PartitionSpec { spec_id: 0, fields: vec![field] }
}

fn create(partition_spec: PartitionSpec) -> Change {
    Change::Create {
        name: "shop.orders".into(),
        schema: schema(0),
        partition_spec,
        sort_order: SortOrder::default(),
        formats: vec![Format::Delta],
    }
}

/// The name of the nth file: a ULID, as real ones are.
fn path(n: u64) -> String {
    format!("data/{}.parquet", ulid::Ulid::from_parts(n, 7))
}

fn entry(n: u64, rows: u64, details: &DetailsCache) -> FileEntry {
    let amount = ColumnStats {
        size_bytes: 1,
        values: rows,
        nulls: Some(1),
        nans: None,
        lower: Some(Datum::decimal_from_str("-12345678901234567890123456789012345.67").unwrap()),
        upper: Some(Datum::decimal_from_str("0.07").unwrap()),
    };
    details.insert(FileDetails {
        path: path(n),
        rows,
        bytes: 100,
        spec_id: 0,
        partition: vec![Some(Literal::int(-7))],
        columns: BTreeMap::from([(2, amount)]),
        split_offsets: vec![4],
        key_range: None,
    });
    FileEntry {
        path: path(n),
        bytes: 100,
        rows,
        schema_id: 0,
        spec_id: 0,
        sort_order_id: 0,
        partition_token: Some("t".into()),
    }
}

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange { cluster: "c".into(), topic: "t".into(), partition: 0, start, end, lost: false }
}

struct World {
    store: Arc<dyn ObjectStore>,
    ledger: Ledger,
    state: LedgerState,
    details: DetailsCache,
    next: u64,
}

impl World {
    async fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self::with(store, by_region()).await
    }

    async fn with(store: Arc<dyn ObjectStore>, spec: PartitionSpec) -> Self {
        let ledger = Ledger::with_checkpoint_every(Arc::clone(&store), Path::from(LOCATION), 1_000_000);
        let state = ledger.create(create(spec), "create", 1).await.unwrap();
        Self { store, ledger, state, details: DetailsCache::default(), next: 0 }
    }

    fn table(&self) -> DeltaTable {
        table_on(Arc::clone(&self.store))
    }

    async fn commit(&mut self, change: Change) {
        let id = format!("c{}", self.state.version + 1);
        self.ledger.commit(&mut self.state, change, &id, 1_700_000_000_000).await.unwrap();
    }

    async fn append(&mut self) {
        self.next += 1;
        let n = self.next;
        let from = (n as i64 - 1) * 10;
        let files = vec![entry(n, 10, &self.details)];
        self.commit(Change::append(files, vec![range(from, from + 10)], vec![])).await;
    }

    async fn replace(&mut self, removed: &[u64]) {
        let added = 1_000 + removed[0];
        let rows = 10 * removed.len() as u64;
        let added = vec![entry(added, rows, &self.details)];
        self.commit(Change::Replace {
            removed: removed.iter().map(|n| path(*n)).collect(),
            added,
            effort: Default::default(),
        })
        .await;
    }

    /// A history of every kind of change.
    async fn history(&mut self) {
        self.append().await;
        self.append().await;
        self.append().await;
        self.replace(&[1, 2]).await;
        self.commit(Change::SetSchema { schema: schema(1) }).await;
        self.append().await;
        self.commit(Change::Delete { removed: vec![path(3)], added: Vec::new() }).await;
        self.append().await;
    }

    async fn assert_shown(&self) {
        let live: BTreeSet<String> =
            self.state.live_files.keys().map(|path| path.replace("data/", "")).collect();
        let table = read(Arc::clone(&self.store)).await;
        assert_eq!(files(&table), live);
        let app_id = format!("siltstone-{}", self.state.table_uuid);
        let snapshot = table.snapshot().unwrap();
        let log_store = table.log_store();
        let shown = snapshot.transaction_version(log_store.as_ref(), &app_id).await.unwrap();
        assert_eq!(shown, Some(self.state.version as i64));
        assert_eq!(snapshot.schema().fields().count(), self.state.schema.fields.len());
    }
}

fn table_on(store: Arc<dyn ObjectStore>) -> DeltaTable {
    DeltaTable::new(store, Path::from(LOCATION), String::new(), ProjectionOptions::default())
        .checkpoint_every(1_000_000)
}

async fn read(store: Arc<dyn ObjectStore>) -> deltalake::DeltaTable {
    let url = Url::parse(&format!("memory://siltstone--x-s3/{LOCATION}/data/")).unwrap();
    let builder = DeltaTableBuilder::from_url(url.clone()).unwrap();
    builder.with_storage_backend(store, url).load().await.unwrap()
}

fn files(table: &deltalake::DeltaTable) -> BTreeSet<String> {
    let snapshot = table.snapshot().unwrap();
    snapshot.log_data().iter().map(|file| file.path().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_shown() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    assert_eq!(table.shown_version().await.unwrap(), None);
    assert_eq!(table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap(), 0);
    world.history().await;
    let shown = table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    assert_eq!(shown, world.state.version);
    world.assert_shown().await;
    assert_eq!(world.table().shown_version().await.unwrap(), Some(world.state.version));
    let delta = read(Arc::clone(&world.store)).await;
    let snapshot = delta.snapshot().unwrap();
    assert_eq!(snapshot.metadata().partition_columns(), &["region"]);
    assert_eq!(snapshot.protocol().min_reader_version(), 1);
    let file = snapshot.log_data().iter().find(|file| file.path().contains(&path(4)[5..])).unwrap();
    assert_eq!(file.num_records(), Some(10));
    assert_eq!(
        file.stats().unwrap(),
        r#"{"numRecords":10,"minValues":{"amount":-12345678901234567890123456789012345.67},"maxValues":{"amount":0.07},"nullCount":{"amount":1}}"#
    );
    let values = file.partition_values().unwrap();
    assert_eq!(format!("{:?}", values.values()), "[Integer(-7)]");
    // Nine ledger versions, but the appends of a run are one commit.
    assert_eq!(snapshot.version(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_shown_late_begins_with_its_state() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.history().await;
    let shown = world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    assert_eq!(shown, world.state.version);
    world.assert_shown().await;
}

/// Killed, cut off or misled at every operation: the next worker finishes, and every file is there once.
#[rstest]
#[case(Fault::Refuse)]
#[case(Fault::LoseReply)]
#[case(Fault::Hang)]
#[case(Fault::DoAndHang)]
#[tokio::test(flavor = "multi_thread")]
async fn catching_up_survives_any_end(#[case] fault: Fault) {
    for scope in [Scope::Everything, Scope::Puts] {
        for skip in 0..28 {
            let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let faulty = Arc::new(FaultStore::new(Arc::clone(&memory)));
            let mut world = World::new(Arc::clone(&memory)).await;
            let mut table = table_on(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
            faulty.after(skip, fault, scope);
            let mut at = 0;
            let killed = tokio::time::timeout(PATIENCE, async {
                table.catch_up(&world.ledger, &world.state, &world.details).await?;
                for _ in 0..3 {
                    world.append().await;
                    at = table.catch_up(&world.ledger, &world.state, &world.details).await?;
                }
                world.replace(&[1, 2]).await;
                at = table.catch_up(&world.ledger, &world.state, &world.details).await?;
                Ok::<_, crate::error::LakeError>(())
            });
            if let Ok(Err(error)) = killed.await {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
            faulty.heal();
            world.append().await;
            // The same projection goes on, or another worker does.
            let last = if skip % 2 == 0 {
                table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap()
            } else {
                world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap()
            };
            assert!(last >= at && last == world.state.version);
            world.assert_shown().await;
            assert_no_file_twice(&world.store).await;
        }
    }
}

async fn assert_no_file_twice(store: &Arc<dyn ObjectStore>) {
    let mut added = BTreeSet::new();
    for version in 0..1_000 {
        let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
        let Ok(commit) = store.get(&path).await else { break };
        let commit = String::from_utf8(commit.bytes().await.unwrap().to_vec()).unwrap();
        for line in commit.lines().filter(|line| line.starts_with("{\"add\"")) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(added.insert(line["add"]["path"].as_str().unwrap().to_owned()), "added twice in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_show_the_same_at_once_agree() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut tables: Vec<DeltaTable> = (0..4).map(|_| world.table()).collect();
    for _ in 0..10 {
        world.append().await;
        world.append().await;
        let catching =
            tables.iter_mut().map(|table| table.catch_up(&world.ledger, &world.state, &world.details));
        for shown in futures::future::join_all(catching).await {
            assert!(shown.unwrap() >= world.state.version);
        }
    }
    world.assert_shown().await;
    assert_no_file_twice(&world.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_alone_make_no_commit_until_many() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    for n in 0..3 {
        let change = Change::append(vec![], vec![range(n, n + 1)], vec![]);
        world.commit(change).await;
    }
    assert_eq!(table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap(), 3);
    assert_eq!(table.shown_version().await.unwrap(), Some(3));
    assert_eq!(read(Arc::clone(&world.store)).await.version(), Some(0));
    for n in 3..super::table::UNLOGGED_MAX as i64 {
        let change = Change::append(vec![], vec![range(n, n + 1)], vec![]);
        world.commit(change).await;
    }
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
}

async fn foreign(store: &Arc<dyn ObjectStore>, version: u64, text: &str) {
    let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
    store.put(&path, text.to_owned().into()).await.unwrap();
}

const FOREIGN_ADD: &str = r#"{"add":{"path":"part-0.parquet","partitionValues":{"region":null},"size":1,"modificationTime":1,"dataChange":true}}"#;

#[rstest]
#[case::remembered(true)]
#[case::restarted(false)]
#[tokio::test(flavor = "multi_thread")]
async fn other_programs_are_stepped_over_or_named(#[case] remembered: bool) {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    world.append().await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    foreign(&world.store, 1, FOREIGN_ADD).await;
    world.append().await;
    let mut next = if remembered { table } else { world.table() };
    assert_eq!(next.catch_up(&world.ledger, &world.state, &world.details).await.unwrap(), 2);
    assert!(files(&read(Arc::clone(&world.store)).await).contains("part-0.parquet"));
    let (metadata, protocol) = (r#"{"metaData":{"id":"x"}}"#, r#"{"protocol":{"minReaderVersion":3}}"#);
    for (text, said) in [(metadata, "changed its schema"), (protocol, "protocol")] {
        foreign(&world.store, 3, text).await;
        world.append().await;
        let mut restarted = world.table();
        let culprit = if remembered { &mut next } else { &mut restarted };
        let error = culprit.catch_up(&world.ledger, &world.state, &world.details).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("delta version 3") && error.to_string().contains(said), "{error}");
        world.store.delete(&Path::from(format!("{LOCATION}/data/_delta_log/{:020}.json", 3))).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    let unpartitioned = PartitionSpec { spec_id: 1, fields: vec![] };
    world.commit(Change::SetPartitionSpec { partition_spec: unpartitioned }).await;
    world.details.insert(FileDetails {
        partition: vec![],
        spec_id: 1,
        ..(*world.details.insert(dummy())).clone()
    });
    let file = FileEntry {
        path: dummy().path,
        bytes: 1,
        rows: 1,
        schema_id: 0,
        spec_id: 1,
        sort_order_id: 0,
        partition_token: None,
    };
    world.commit(Change::append(vec![file], vec![range(0, 1)], vec![])).await;
    let error = table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("column region: is a partition column"), "{error}");
}

fn dummy() -> FileDetails {
    FileDetails {
        path: path(77),
        rows: 1,
        bytes: 1,
        spec_id: 1,
        partition: vec![],
        columns: BTreeMap::new(),
        split_offsets: vec![],
        key_range: None,
    }
}

/// Files that left the table and the store before they were shown.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_are_passed_over() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.append().await;
    world.append().await;
    world.replace(&[1, 2]).await;
    world.append().await;
    let known = DetailsCache::default();
    for file in world.state.live_files.keys() {
        known.insert((*world.details.get(file).unwrap()).clone());
    }
    world.details = known;
    let shown = world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    assert_eq!(shown, world.state.version);
    world.assert_shown().await;
}

#[rstest]
#[case::memory(false)]
#[case::local(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_what_the_log_says(#[case] local: bool) {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = if local {
        Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap())
    } else {
        Arc::new(InMemory::new())
    };
    let mut world = World::new(store).await;
    let mut table = world.table();
    for _ in 0..4 {
        world.append().await;
        table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    }
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    world.replace(&[1, 2]).await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    table.checkpoint().await.unwrap();
    let before = read(Arc::clone(&world.store)).await.version().unwrap();
    for version in 0..=before {
        let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
        world.store.delete(&path).await.unwrap();
    }
    let stored = checkpoint::stored(Arc::clone(&world.store), &Path::from(LOCATION)).await.unwrap().unwrap();
    assert_eq!((stored.shown, stored.schema_id), (Some(world.state.version), 1));
    // Only the checkpoint is left: a worker that starts now goes on from it.
    world.append().await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
}

/// A commit costs the same at any age: one put in the log, and no reads.
#[tokio::test(flavor = "multi_thread")]
async fn commits_cost_the_same_at_any_age() {
    let directory = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let counting = Arc::new(FaultStore::new(local));
    let mut world = World::new(Arc::clone(&counting) as Arc<dyn ObjectStore>).await;
    let mut table = world.table();
    let mut costs = Vec::new();
    for _ in 0..2_000 {
        let before = counting.operations();
        world.append().await;
        table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
        costs.push(counting.operations() - before);
    }
    assert_eq!(costs[1..101], costs[1_900..], "operations of the first and the last hundred");
    assert_eq!(costs[1_999], 2, "one put in the ledger, one in the log");
}
