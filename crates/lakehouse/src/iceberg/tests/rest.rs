//! A table in a REST catalog: the same live files as without one, whatever the catalog answers.

use std::{collections::BTreeSet, sync::Arc};

use object_store::{CredentialProvider, ObjectStoreExt};
use rstest::rstest;
use serde_json::json;
use siltstone_datafile::{Host, Machine};
use siltstone_protocol::{Change, ErrorKind, Field, PartitionSpec, PrimitiveType, Schema, Transform};
use siltstone_spec::{CatalogAuth, Secret};

use super::{
    rig::{LOCATION, Rig, URL, field, schema},
    stub::{Fault, Stub},
};
use crate::{
    error::LakeError,
    format::{ProjectionOptions, TableFormat},
    iceberg::{IcebergTable, RestTable, VendedCredentials},
    ledger::Ledger,
};

fn in_catalog(stub: &Stub, auth: CatalogAuth) -> Arc<RestTable> {
    RestTable::new(&stub.spec(auth), URL, Host::default()).unwrap()
}

fn table(rig: &Rig, stub: &Stub) -> IcebergTable {
    rig.table().with_catalog(Some(in_catalog(stub, CatalogAuth::None)))
}

/// Every snapshot agrees with the ledger, and the newest shows its newest version.
async fn check(rig: &Rig, stub: &Stub) {
    let metadata = stub.metadata();
    let shown = rig.check_snapshots(&metadata).await;
    assert_eq!(metadata.properties()["siltstone.version"], rig.state.version.to_string());
    let last: BTreeSet<String> = shown.last().unwrap().births.keys().cloned().collect();
    assert_eq!(last, rig.live[&rig.state.version]);
    let names = rig.names().await;
    assert!(
        !names.iter().any(|name| name.ends_with("metadata.json") || name.contains("version-hint")),
        "{names:?}"
    );
}

#[tokio::test]
async fn history_with_changes_of_layout() {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    let mut iceberg = table(&rig, &stub);
    assert_eq!(rig.show(&mut iceberg).await, 0);
    let created = stub.metadata();
    assert_eq!((created.location(), created.current_schema_id()), (URL, 0));
    assert_eq!(created.default_partition_spec_id(), 0);
    assert_eq!(created.default_sort_order_id(), 1);
    rig.append(3).await;
    rig.show(&mut iceberg).await;
    let mut fields = schema().fields;
    fields.push(Field::optional(6, "note", PrimitiveType::String.into()));
    rig.commit(Change::SetSchema { schema: Schema::new(1, fields) }).await;
    let by_shop = PartitionSpec { spec_id: 1, fields: vec![field(3, 1002, "shop", Transform::Identity)] };
    rig.commit(Change::SetPartitionSpec { partition_spec: by_shop }).await;
    rig.append(2).await;
    rig.show(&mut iceberg).await;
    let removed: Vec<String> = rig.state.live_files.keys().take(3).cloned().collect();
    rig.replace(removed, 1).await;
    rig.append(1).await;
    // Another process goes on, and then the first one again.
    rig.show(&mut table(&rig, &stub)).await;
    let removed: Vec<String> = rig.state.live_files.keys().take(1).cloned().collect();
    rig.delete(removed).await;
    rig.show(&mut iceberg).await;
    check(&rig, &stub).await;
    let metadata = stub.metadata();
    assert_eq!((metadata.current_schema_id(), metadata.default_partition_spec_id()), (1, 1));
    assert_eq!(metadata.last_column_id(), 6);
}

/// The first entry is no longer kept: the table begins with every layout, each under its own id.
#[tokio::test]
async fn table_that_comes_late() {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    rig.append(1).await;
    let by_shop = PartitionSpec { spec_id: 1, fields: vec![field(3, 1002, "shop", Transform::Identity)] };
    rig.commit(Change::SetPartitionSpec { partition_spec: by_shop }).await;
    rig.append(1).await;
    for (id, name) in [(1, "note"), (2, "mark")] {
        let mut fields = rig.state.schema.fields.clone();
        fields.push(Field::optional(5 + id, name, PrimitiveType::String.into()));
        rig.commit(Change::SetSchema { schema: Schema::new(id, fields) }).await;
    }
    // Back to the first one.
    let first = rig.state.partition_specs[&0].clone();
    rig.commit(Change::SetPartitionSpec { partition_spec: first }).await;
    rig.append(1).await;
    let path = rig.ledger.own_path().join("ledger").join(format!("{:020}.json", 0));
    rig.store.delete(&path).await.unwrap();
    assert!(Ledger::new(Arc::clone(&rig.store), LOCATION.into()).entry(0).await.unwrap().is_none());
    rig.ledger = Ledger::new(Arc::clone(&rig.store), LOCATION.into());
    rig.show(&mut table(&rig, &stub)).await;
    check(&rig, &stub).await;
    let metadata = stub.metadata();
    assert_eq!((metadata.current_schema_id(), metadata.default_partition_spec_id()), (2, 0));
    assert_eq!(metadata.schemas_iter().len(), 3);
}

/// What has to be remembered without a snapshot of its own gets one: properties are not guarded by anything.
#[tokio::test]
async fn marker_is_bound_to_a_snapshot() {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    let mut iceberg = table(&rig, &stub);
    rig.append(2).await;
    rig.show(&mut iceberg).await;
    let list = stub.metadata().current_snapshot().unwrap().manifest_list().to_owned();
    rig.append(2).await;
    rig.show(&mut iceberg).await;
    // The files of the second commit are taken away; a rewrite of all four is passed over.
    stub.with(|inner| assert!(inner.foreign_of(&list)));
    let before = stub.metadata();
    let removed: Vec<String> = rig.state.live_files.keys().cloned().collect();
    rig.replace(removed, 1).await;
    rig.show(&mut iceberg).await;
    let metadata = stub.metadata();
    assert_eq!(metadata.properties()["siltstone.apart"], "3/3");
    let current = metadata.current_snapshot().unwrap();
    assert_eq!(current.parent_snapshot_id(), before.current_snapshot_id());
    assert_eq!(current.sequence_number(), 4);
    assert_eq!(current.summary().additional_properties["total-data-files"], "2");
    // A worker that knew nothing of it cannot take it back.
    assert!(iceberg.is_apart().await.unwrap());
}

#[tokio::test]
async fn snapshots_expire_in_the_catalog() {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    rig.options = ProjectionOptions { snapshots_max: 3, ..ProjectionOptions::default() };
    let mut iceberg = table(&rig, &stub);
    for _ in 0..8 {
        rig.append(1).await;
        rig.show(&mut iceberg).await;
    }
    assert_eq!(stub.metadata().snapshots().len(), 3);
    rig.options = ProjectionOptions { snapshots_max: 1, ..ProjectionOptions::default() };
    let expired = table(&rig, &stub).expire(&rig.state, i64::MAX, false).await.unwrap();
    assert_eq!((expired.snapshots, expired.snapshots_left), (2, 1));
    let metadata = stub.metadata();
    assert_eq!(metadata.snapshots().len(), 1);
    let (newest, whole) = table(&rig, &stub).named(&mut |_| true).await.unwrap();
    assert_eq!((newest, whole), (None, true), "metadata files are the catalog's");
}

/// Whatever becomes of a commit, it is made once.
#[rstest]
#[case(&[Fault::Lost])]
#[case(&[Fault::Broken])]
#[case(&[Fault::Failed(true)])]
#[case(&[Fault::Failed(false), Fault::Lost])]
#[case(&[Fault::Race])]
#[case(&[Fault::Stale])]
#[case(&[Fault::Broken, Fault::Race])]
#[case(&[Fault::Race, Fault::Lost])]
#[tokio::test]
async fn commits_are_made_once(#[case] faults: &[Fault]) {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    let mut iceberg = table(&rig, &stub);
    // The creation, the first snapshot and the second.
    for _ in 0..3 {
        stub.with(|inner| inner.faults.extend(faults));
        assert_eq!(rig.show(&mut iceberg).await, rig.state.version);
        stub.with(|inner| inner.faults.clear());
        rig.append(2).await;
    }
    rig.show(&mut iceberg).await;
    check(&rig, &stub).await;
    let versions: Vec<_> = stub
        .metadata()
        .snapshots()
        .filter_map(|snapshot| snapshot.summary().additional_properties.get("siltstone.version").cloned())
        .collect();
    assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), versions.len(), "{versions:?}");
}

/// An outcome that stays unknown is told, and the next call finds out.
#[tokio::test]
async fn outcome_that_stays_unknown() {
    let stub = Stub::start().await;
    let mut rig = Rig::new().await;
    let mut iceberg = table(&rig, &stub);
    rig.show(&mut iceberg).await;
    rig.append(1).await;
    stub.with(|inner| inner.faults.extend([Fault::Broken; 5]));
    let error = iceberg.catch_up(&rig.ledger, &rig.state, &rig.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("outcome is unknown"), "{error}");
    rig.show(&mut iceberg).await;
    check(&rig, &stub).await;
    assert_eq!(stub.metadata().snapshots().len(), 1);
}

#[tokio::test]
async fn tokens_are_renewed() {
    let stub = Stub::start().await;
    stub.with(|inner| inner.token_life = Some(3600));
    let mut rig = Rig::new().await;
    let mut iceberg = rig.table().with_catalog(Some(in_catalog(&stub, stub.oauth2())));
    rig.show(&mut iceberg).await;
    assert_eq!(stub.with(|inner| inner.tokens), 1, "one token serves until it expires");
    // The catalog forgets it.
    stub.with(|inner| inner.tokens += 1);
    rig.append(1).await;
    rig.show(&mut iceberg).await;
    assert_eq!(stub.with(|inner| inner.tokens), 3);
    // From now on each is expired at once: every request brings its own.
    stub.with(|inner| (inner.token_life, inner.tokens) = (Some(0), 9));
    rig.append(1).await;
    rig.show(&mut iceberg).await;
    rig.append(1).await;
    rig.show(&mut iceberg).await;
    assert!(stub.with(|inner| inner.tokens) >= 11);
    check(&rig, &stub).await;
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let stub = Stub::start().await;
    stub.with(|inner| inner.token_life = Some(3600));
    let wrong = CatalogAuth::Token(Secret::new("hunter2".to_owned()));
    stub.with(|inner| inner.tokens = 1);
    let right = CatalogAuth::Token(Secret::new("token-1".to_owned()));
    in_catalog(&stub, right).prepare().await.unwrap();
    assert_eq!(stub.with(|inner| inner.namespaces.clone()), ["[\"shop\"]"]);
    let error = in_catalog(&stub, wrong).prepare().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = format!("{error} {error:?}");
    assert!(text.contains("check the catalog's token, oauth2 or sigv4"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let mut elsewhere = stub.spec(CatalogAuth::None);
    elsewhere.uri = format!("{}/elsewhere", stub.url);
    stub.with(|inner| inner.token_life = None);
    let error = RestTable::new(&elsewhere, URL, Host::default()).unwrap().prepare().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("check uri and warehouse"), "{error}");
    elsewhere.uri = "http://127.0.0.1:9".to_owned();
    let error = RestTable::new(&elsewhere, URL, Host::default()).unwrap().prepare().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// A table of another ledger under this name is left alone.
#[tokio::test]
async fn another_table_of_this_name() {
    let stub = Stub::start().await;
    let rig = Rig::new().await;
    rig.show(&mut table(&rig, &stub)).await;
    let mut other = Rig::new().await;
    other.state.table_uuid = "00000000-0000-4000-8000-000000000000".to_owned();
    let error = table(&other, &stub).catch_up(&other.ledger, &other.state, &other.details).await.unwrap_err();
    assert!(matches!(error, LakeError::Foreign { .. }), "{error}");
    let before = stub.commits();
    table(&other, &stub).catch_up(&other.ledger, &other.state, &other.details).await.unwrap_err();
    assert_eq!(stub.commits(), before);
}

struct Clock(std::sync::atomic::AtomicI64);

impl Machine for Clock {
    fn now_ms(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn random(&self) -> u128 {
        0
    }
}

#[tokio::test]
async fn credentials_of_the_catalog() {
    let stub = Stub::start().await;
    stub.with(|inner| inner.namespaces.push("shop".to_owned()));
    let clock = Arc::new(Clock(1_000_000.into()));
    let host = Host::simulated(Arc::<Clock>::clone(&clock));
    let catalog = RestTable::new(&stub.spec(CatalogAuth::None), URL, host.clone()).unwrap();
    let vended = VendedCredentials::new(catalog, host);
    let error = vended.get_credential().await.unwrap_err();
    assert!(matches!(error, object_store::Error::Unauthenticated { .. }), "{error}");
    let keys = |n: u64, until: i64| {
        json!({
            "s3.access-key-id": format!("key-{n}"), "s3.secret-access-key": "s", "s3.session-token": "t",
            "s3.session-token-expires-at-ms": until.to_string(),
        })
    };
    // Before the table exists, by a staged creation.
    stub.with(|inner| inner.config = keys(1, 2_000_000));
    let key = async || vended.get_credential().await.map(|credential| credential.key_id.clone());
    assert_eq!(key().await.unwrap(), "key-1");
    let rig = Rig::new().await;
    rig.show(&mut table(&rig, &stub)).await;
    let requests = stub.with(|inner| inner.requests.len());
    stub.with(|inner| inner.config = keys(2, 9_000_000));
    assert_eq!(key().await.unwrap(), "key-1", "still good");
    assert_eq!(stub.with(|inner| inner.requests.len()), requests);
    // Five minutes before the end.
    clock.0.store(1_700_001, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(key().await.unwrap(), "key-2");
    // The catalog has none for now: those at hand serve until they expire.
    stub.with(|inner| inner.config = json!({}));
    clock.0.store(8_900_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(key().await.unwrap(), "key-2");
    clock.0.store(9_000_001, std::sync::atomic::Ordering::Relaxed);
    key().await.unwrap_err();
}
