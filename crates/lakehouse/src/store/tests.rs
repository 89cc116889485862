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
