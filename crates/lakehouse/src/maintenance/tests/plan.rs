//! The plan: never a file that something names, never a young one, never another program's; all the rest.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::maintenance::{
    names::{Names, Slice},
    plan::{Horizon, Kind, Listed, METADATA_KEPT, Verdict, plan, verdict},
};

fn ulid(n: u64) -> String {
    ulid::Ulid::from_parts(n, 7).to_string()
}

/// Names of our making.
fn own() -> impl Strategy<Value = String> {
    (0..12_u64, 0..4_u8).prop_map(|(n, kind)| match kind {
        0 => format!("data/{}.parquet", ulid(n).to_lowercase()),
        1 => format!("metadata/{}-m{}.avro", ulid(n), n % 3),
        2 => format!("metadata/snap-{}-{}.avro", n + 1, ulid(n)),
        _ => format!("metadata/v{n}.metadata.json"),
    })
}

fn other() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "data/part-00000-0f5c.c000.snappy.parquet",
        "data/country=nl/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        "data/data/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        "data/01m81g49agv8rz9vvk8qjpd3cj.parquet.tmp",
        "data/01m81g49agv8rz9vvk8qjpd3cj.orc",
        "data/_delta_log/00000000000000000000.json",
        "data/_delta_log/_last_checkpoint",
        "data/deletion_vector_0.bin",
        "metadata/version-hint.text",
        "metadata/v01.metadata.json",
        "metadata/v+1.metadata.json",
        "metadata/00001-5c.metadata.json",
        "metadata/snap-1-1-5c.avro",
        "metadata/snap-x-01M81G49AGV8RZ9VVK8QJPD3CJ.avro",
        "metadata/01M81G49AGV8RZ9VVK8QJPD3CJ-m.avro",
        "metadata/01M81G49AGV8RZ9VVK8QJPD3CJ-m-1.avro",
        "metadata/stats.puffin",
        "_siltstone/token.key",
        "_siltstone/ledger/00000000000000000000.json",
        "01m81g49agv8rz9vvk8qjpd3cj.parquet",
    ]);
    known.prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn the_plan_is_what_nothing_names_and_no_one_else_owns(
        owned in prop::collection::btree_map(own(), 0..200_i64, 0..40),
        others in prop::collection::btree_map(other(), 0..200_i64, 0..10),
        named in prop::collection::btree_set(own(), 0..30),
        before_ms in 0..200_i64,
        newest in prop::option::of(0..40_u64),
        knows_left: bool,
    ) {
        let listed = |(path, modified_ms): (&String, &i64)| {
            Listed { path: path.clone(), bytes: 1, modified_ms: *modified_ms }
        };
        let listing: Vec<Listed> = owned.iter().chain(&others).map(listed).collect();
        // However its path is spelt.
        let spelt: Vec<String> = named.iter().map(|path| format!("s3a://other/spelling/{path}")).collect();
        let names: Names = spelt.iter().map(String::as_str).collect();
        let horizon = Horizon { before_ms, metadata_newest: newest, knows_left };
        let planned: BTreeSet<String> =
            plan(&listing, &names, horizon).map(|listed| listed.path.clone()).collect();
        for path in &planned {
            prop_assert!(owned.contains_key(path), "another program's {path}");
            prop_assert!(owned[path] < before_ms, "young {path}");
            prop_assert!(!named.contains(path), "named {path}");
            prop_assert!(knows_left || !path.starts_with("data/"), "may have left: {path}");
        }
        for (path, modified_ms) in &owned {
            let version = path.strip_prefix("metadata/v").and_then(|v| v.strip_suffix(".metadata.json"));
            let kept = version.is_some_and(|v| {
                v.parse::<u64>().unwrap() + METADATA_KEPT > newest.unwrap_or(0)
            });
            let kept = kept || (!knows_left && path.starts_with("data/"));
            let leaves = *modified_ms < before_ms && !named.contains(path) && !kept;
            prop_assert_eq!(planned.contains(path), leaves, "{}", path);
        }
    }

    /// Slices part the names: a file is named in its slice, and in no other it is looked at.
    #[test]
    fn every_name_is_in_one_slice(paths in prop::collection::vec(own(), 0..60), of in 1..9_u64) {
        for path in &paths {
            let holding = (0..of).filter(|index| Slice { index: *index, of }.holds(path)).count();
            prop_assert_eq!(holding, 1);
        }
        for index in 0..of {
            let slice = Slice { index, of };
            let mut names = Names::new(slice, usize::MAX);
            for path in &paths {
                names.insert(path).unwrap();
            }
            for path in &paths {
                prop_assert_eq!(names.contains(path), slice.holds(path));
            }
        }
    }
}

#[test]
fn kinds_are_told_by_name() {
    let horizon = Horizon { before_ms: 10, metadata_newest: Some(50), knows_left: true };
    let names = Names::from_iter([]);
    let of = |path: &str| {
        let listed = Listed { path: path.to_owned(), bytes: 1, modified_ms: 1 };
        verdict(&listed, &names, horizon)
    };
    assert_eq!(of("data/01m81g49agv8rz9vvk8qjpd3cj.parquet"), Verdict::Delete(Kind::Data));
    assert_eq!(of("metadata/01M81G49AGV8RZ9VVK8QJPD3CJ-m0.avro"), Verdict::Delete(Kind::Manifest));
    assert_eq!(of("metadata/snap-9-01M81G49AGV8RZ9VVK8QJPD3CJ.avro"), Verdict::Delete(Kind::ManifestList));
    assert_eq!(of("metadata/v40.metadata.json"), Verdict::Delete(Kind::TableMetadata));
    assert_eq!(of("metadata/v41.metadata.json"), Verdict::Keep(Kind::TableMetadata));
    assert_eq!(of("metadata/version-hint.text"), Verdict::Keep(Kind::Own));
    assert_eq!(of("data/_delta_log/x"), Verdict::Keep(Kind::Own));
    assert_eq!(of("data/x/01m81g49agv8rz9vvk8qjpd3cj.parquet"), Verdict::Keep(Kind::Foreign));
}

#[test]
fn a_full_set_says_so() {
    let mut names = Names::new(Slice::ALL, 2);
    assert!(names.insert("data/a").is_ok() && names.insert("data/b").is_ok());
    assert!(names.insert("x/a").is_ok(), "the same name again");
    assert!(names.insert("data/c").is_err());
}
