#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use object_store::memory::InMemory;
use rstest::rstest;
use siltstone_protocol::ErrorKind;

use super::*;

fn destination(url: &str, options: &[(&str, &str)]) -> Destination {
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Destination { url: url.to_owned(), options }
}

#[test]
fn a_directory_is_made_and_rooted_at_the_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lake/tables");
    let store = open(&destination(&format!("file://{}", path.display()), &[])).unwrap();
    assert!(path.is_dir());
    let location = store.table_location("shop/orders");
    assert_eq!(format!("/{location}"), path.join("shop/orders").display().to_string());
    assert_eq!(store.table_url("shop/orders"), format!("file://{}/shop/orders", path.display()));
}

#[test]
fn a_bucket_is_opened_with_its_options() {
    let options = [
        ("endpoint", "http://127.0.0.1:1"),
        ("path_style", "true"),
        ("allow_http", "true"),
        ("region", "us-east-1"),
    ];
    let store = open(&destination("s3://lake/tables", &options)).unwrap();
    assert_eq!(store.table_location("shop/orders").as_ref(), "tables/shop/orders");
    assert_eq!(store.table_url("shop/orders"), "s3://lake/tables/shop/orders");
    let bare = open(&destination("s3://lake", &options)).unwrap();
    assert_eq!(bare.table_location("a").as_ref(), "a");
    assert_eq!(bare.table_url("a"), "s3://lake/a");
}

#[test]
fn readers_are_told_azures_own_urls() {
    let options = [("account", "acme")];
    let store = open(&destination("az://lake/tables", &options)).unwrap();
    let url = "abfss://lake@acme.dfs.core.windows.net";
    assert_eq!(store.table_url("shop/orders"), format!("{url}/tables/shop/orders"));
    assert_eq!(store.url.as_str(), "az://lake/tables");
    assert_eq!(open(&destination("az://lake", &options)).unwrap().table_url("a"), format!("{url}/a"));
    let emulated = open(&destination("az://lake/t", &[("use_emulator", "true")])).unwrap();
    assert_eq!(emulated.table_url("a"), "abfss://lake@devstoreaccount1.dfs.core.windows.net/t/a");
}

#[rstest]
#[case("az://lake/t", &[("use_emulator", "true"), ("endpoint", "http://127.0.0.1:1")],
    "option endpoint has no effect beside use_emulator; the emulator's address is taken from the environment, \
     AZURITE_BLOB_STORAGE_URL")]
#[case("s3://lake/t", &[("regoin", "x")], "unknown option regoin; did you mean region?")]
#[case("s3://lake/t", &[("path_style", "yes")], "option path_style is true or false")]
#[case("file:///tmp", &[("region", "x")], "unknown option region; this scheme has none")]
#[case("http://lake/t", &[], "unknown scheme http; known are file, s3, gs, az")]
fn mistakes_are_named(#[case] url: &str, #[case] options: &[(&str, &str)], #[case] problem: &str) {
    let error = open(&destination(url, options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), format!("destination {url}: {problem}"));
}

#[tokio::test]
async fn a_store_that_refuses_the_second_creation_passes_the_probe() {
    let store = TableStore::new(
        Arc::new(InMemory::new()),
        Path::from("tables"),
        Url::parse("s3://lake/tables").unwrap(),
    );
    store.probe_conditional_put().await.unwrap();
    let left = futures::TryStreamExt::try_collect::<Vec<_>>(store.store.list(None)).await.unwrap();
    assert!(left.is_empty(), "the probe deletes its object");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    use crate::faults::{Fault, FaultStore};
    let faulty = FaultStore::new(Arc::new(InMemory::new()));
    faulty.always(Fault::IgnoreConditions);
    let store =
        TableStore::new(Arc::new(faulty), Path::from("tables"), Url::parse("s3://lake/tables").unwrap());
    let error = store.probe_conditional_put().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("ignores conditional puts"), "{error}");
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn the_probe_outlasts_a_fault(
    #[values(0, 1)] put: u64,
    #[values(crate::faults::Fault::Refuse, crate::faults::Fault::LoseReply)] fault: crate::faults::Fault,
) {
    let faulty = Arc::new(crate::faults::FaultStore::new(Arc::new(InMemory::new())));
    faulty.after(put, fault, crate::faults::Scope::Puts);
    let url = Url::parse("s3://lake/tables").unwrap();
    let store = TableStore::new(Arc::clone(&faulty) as _, Path::from("tables"), url);
    store.probe_conditional_put().await.unwrap();
    assert!(faulty.seen() > put);
    faulty.always(crate::faults::Fault::Refuse);
    let error = store.probe_conditional_put().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A bucket of a real service that does not make buckets by itself, when there is one: its endpoint in
/// `SILTSTONE_TEST_<service>_ENDPOINT`, and keys in the environment as for any client of that cloud.
fn service(scheme: &str, bucket: Option<&str>) -> Option<TableStore> {
    let (service, container) = match scheme {
        "s3" => ("S3", "S3_BUCKET"),
        "gs" => ("GCS_XML", "GCS_BUCKET"),
        _ => ("AZURE", "AZURE_CONTAINER"),
    };
    let endpoint = std::env::var(format!("SILTSTONE_TEST_{service}_ENDPOINT")).ok()?;
    let options: &[(&str, &str)] = match scheme {
        "s3" => &[
            ("endpoint", &endpoint),
            ("path_style", "true"),
            ("allow_http", "true"),
            ("region", "us-east-1"),
        ],
        "gs" => &[("endpoint", &endpoint), ("allow_http", "true"), ("skip_signature", "true")],
        // Its endpoint comes from AZURITE_BLOB_STORAGE_URL.
        _ => &[("use_emulator", "true")],
    };
    let given = std::env::var(format!("SILTSTONE_TEST_{container}")).unwrap_or_else(|_| "lake".to_owned());
    let bucket = bucket.unwrap_or(&given);
    Some(open(&destination(&format!("{scheme}://{bucket}/tables"), options)).unwrap())
}

/// Many create one object at once: one of them is told that it did, and what lies there is its body.
#[rstest]
#[case("s3")]
#[case("gs")]
#[case("az")]
#[tokio::test(flavor = "multi_thread")]
async fn a_real_service_lets_one_of_many_create(#[case] scheme: &str) {
    use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

    let Some(store) = service(scheme, None) else { return };
    for round in 0..3 {
        let path = store.root.clone().join(format!("race-{}-{round}", uuid::Uuid::new_v4().simple()));
        let puts = (0..12_u8).map(|writer| {
            let (store, path) = (Arc::clone(&store.store), path.clone());
            tokio::spawn(async move {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                store.put_opts(&path, PutPayload::from(vec![writer; 2_000]), options).await
            })
        });
        let mut winners = Vec::new();
        for (writer, put) in puts.collect::<Vec<_>>().into_iter().enumerate() {
            match put.await.unwrap() {
                Ok(_) => winners.push(u8::try_from(writer).unwrap()),
                Err(object_store::Error::AlreadyExists { .. }) => {}
                // S3 answers so when two conditional puts meet; the ledger reads back then.
                Err(error) => assert_eq!(StoreFault::of(&error).status, Some(409), "{error}"),
            }
        }
        let body = store.store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(winners.len(), 1, "{scheme}: {winners:?}");
        assert_eq!(body, vec![winners[0]; 2_000]);
        store.store.delete(&path).await.unwrap();
    }
}

#[rstest]
#[case("s3")]
#[case("gs")]
#[case("az")]
#[tokio::test(flavor = "multi_thread")]
async fn a_real_service_commits_each_version_once(#[case] scheme: &str) {
    use siltstone_protocol::{
        Change, Field, Format, OffsetRange, PartitionSpec, PrimitiveType, Schema, SortOrder,
    };

    let Some(store) = service(scheme, None) else { return };
    store.probe_conditional_put().await.unwrap();
    let location = store.table_location(&format!("race/{}", uuid::Uuid::new_v4().simple()));
    let create = Change::Create {
        name: "race".into(),
        schema: Schema::new(0, vec![Field::required(1, "id", PrimitiveType::Long.into())]),
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder::default(),
        formats: vec![Format::Delta],
    };
    let ledger = crate::ledger::Ledger::new(Arc::clone(&store.store), location.clone());
    ledger.create(create, "create", 1).await.unwrap();
    let writers = (0..4).map(|writer| {
        let ledger = crate::ledger::Ledger::new(Arc::clone(&store.store), location.clone());
        tokio::spawn(async move {
            let mut state = ledger.load().await.unwrap().unwrap();
            for n in 0..8 {
                let (cluster, topic) = ("c".to_owned(), "t".to_owned());
                let range =
                    OffsetRange { cluster, topic, partition: writer, start: n, end: n + 1, lost: false };
                let change = Change::append(vec![], vec![range], vec![]);
                ledger.commit(&mut state, change, &format!("w{writer}n{n}"), 1).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let state = ledger.load().await.unwrap().unwrap();
    assert_eq!((state.version, state.coverage.len()), (32, 4));
    let missing = service(scheme, Some("no-such-bucket-here")).unwrap();
    let error = missing.probe_conditional_put().await.unwrap_err();
    assert!(error.to_string().contains("no-such-bucket-here"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap_or_default();
    assert!(secret.is_empty() || !format!("{error:?}").contains(&secret));
}

/// More orphans than one call deletes, seen as old by a janitor that lives a month later; what is named stays.
#[rstest]
#[case("s3")]
#[case("gs")]
#[case("az")]
#[tokio::test(flavor = "multi_thread")]
async fn a_real_service_is_vacuumed(#[case] scheme: &str) {
    use futures::{StreamExt, TryStreamExt};
    use object_store::ObjectStoreExt;
    use siltstone_protocol::{Change, Field, Format, PrimitiveType, Schema};

    use crate::{
        DeltaTable, DetailsCache, IcebergTable, Janitor, ProjectionOptions, TableFormat,
        maintenance::{Policy, Sweep, VacuumOptions},
    };

    const ORPHANS: u64 = 1_100;
    let Some(store) = service(scheme, None) else { return };
    let below = format!("vacuum/{}", uuid::Uuid::new_v4().simple());
    let (location, url) = (store.table_location(&below), store.table_url(&below));
    let create = Change::Create {
        name: "vacuum".into(),
        schema: Schema::new(0, vec![Field::required(1, "id", PrimitiveType::Long.into())]),
        partition_spec: Default::default(),
        sort_order: Default::default(),
        formats: vec![Format::Iceberg, Format::Delta],
    };
    let ledger = crate::ledger::Ledger::new(Arc::clone(&store.store), location.clone());
    let state = ledger.create(create, "create", 1).await.unwrap();
    let (details, options) = (DetailsCache::default(), ProjectionOptions::default());
    let mut iceberg = IcebergTable::new(Arc::clone(&store.store), location.clone(), url.clone(), options);
    let mut delta = DeltaTable::new(Arc::clone(&store.store), location.clone(), url.clone(), options);
    iceberg.catch_up(&ledger, &state, &details).await.unwrap();
    delta.catch_up(&ledger, &state, &details).await.unwrap();
    let puts = (0..ORPHANS).map(|n| {
        let name = ulid::Ulid::from_parts(n, 7).to_string().to_lowercase();
        let path = location.clone().join("data").join(format!("{name}.parquet"));
        let store = Arc::clone(&store.store);
        async move { store.put(&path, "rows".to_owned().into()).await.map(drop) }
    });
    futures::stream::iter(puts).buffer_unordered(32).try_collect::<()>().await.unwrap();
    let kept = location.clone().join("data").join("part-0.parquet");
    store.store.put(&kept, "rows".to_owned().into()).await.unwrap();
    let policy = Policy { projection: options, orphans: std::time::Duration::from_secs(3 * 24 * 3600) };
    let mut janitor = Janitor::new(Arc::clone(&store.store), &url, ledger.clone(), policy);
    let now_ms = chrono::Utc::now().timestamp_millis();
    let store_ms = janitor.begin(None, now_ms).await.unwrap().unwrap();
    assert!((store_ms - now_ms).abs() < 60_000, "{scheme}: the store's clock is {store_ms}, not {now_ms}");
    let options = VacuumOptions::default();
    let young = janitor.vacuum(now_ms, options, &Sweep::default()).await.unwrap();
    assert_eq!(young.deleted_all().files, 0);
    let later = now_ms + 30 * 24 * 3_600_000;
    let report = janitor.vacuum(later, options, &Sweep::default()).await.unwrap();
    assert_eq!((report.deleted["data"].files, report.deleted_all().files), (ORPHANS, ORPHANS));
    assert_eq!(report.foreign.files, 1);
    let data = location.clone().join("data");
    let left: Vec<_> = store.store.list(Some(&data)).try_collect().await.unwrap();
    assert!(
        left.iter().all(|object| object.location == kept || object.location.as_ref().contains("_delta_log"))
    );
    assert_eq!(janitor.vacuum(later, options, &Sweep::default()).await.unwrap().deleted_all().files, 0);
    assert_eq!(iceberg.shown_version().await.unwrap(), Some(0));
    assert_eq!(delta.shown_version().await.unwrap(), Some(0));
}
