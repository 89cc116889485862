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

#[rstest]
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
    let store = TableStore {
        store: Arc::new(InMemory::new()),
        root: Path::from("tables"),
        url: Url::parse("s3://lake/tables").unwrap(),
    };
    store.probe_conditional_put().await.unwrap();
    let left = futures::TryStreamExt::try_collect::<Vec<_>>(store.store.list(None)).await.unwrap();
    assert!(left.is_empty(), "the probe deletes its object");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    use crate::faults::{Fault, FaultStore};
    let faulty = FaultStore::new(Arc::new(InMemory::new()));
    faulty.always(Fault::IgnoreConditions);
    let store = TableStore {
        store: Arc::new(faulty),
        root: Path::from("tables"),
        url: Url::parse("s3://lake/tables").unwrap(),
    };
    let error = store.probe_conditional_put().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("ignores conditional puts"), "{error}");
}

/// Against a real S3 service that does not make buckets by itself: `SILTSTONE_TEST_S3_ENDPOINT`, and
/// keys in the environment or a profile, as for any S3 client.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_service_commits_each_version_once() {
    use siltstone_protocol::{
        Change, Field, Format, OffsetRange, PartitionSpec, PrimitiveType, Schema, SortOrder,
    };

    let Ok(endpoint) = std::env::var("SILTSTONE_TEST_S3_ENDPOINT") else { return };
    let options = [
        ("endpoint", endpoint.as_str()),
        ("path_style", "true"),
        ("allow_http", "true"),
        ("region", "us-east-1"),
    ];
    let bucket = std::env::var("SILTSTONE_TEST_S3_BUCKET").unwrap_or_else(|_| "lake".to_owned());
    let store = open(&destination(&format!("s3://{bucket}/tables"), &options)).unwrap();
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
                let change = Change::Append { files: vec![], ranges: vec![range], rejected: vec![] };
                ledger.commit(&mut state, change, &format!("w{writer}n{n}"), 1).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let state = ledger.load().await.unwrap().unwrap();
    assert_eq!((state.version, state.coverage.len()), (32, 4));
    let missing = open(&destination("s3://no-such-bucket-here/tables", &options)).unwrap();
    let error = missing.probe_conditional_put().await.unwrap_err();
    assert!(error.to_string().contains("no-such-bucket-here"), "{error}");
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap_or_default();
    assert!(secret.is_empty() || !format!("{error:?}").contains(&secret));
}
