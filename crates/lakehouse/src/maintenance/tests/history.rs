//! Histories of both formats: whatever was done, everything that must be readable is, and what nobody needs goes.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use siltstone_protocol::{Change, ErrorKind, Format};

use super::world::{DAY, HOUR, LOCATION, MINUTE, World};
use crate::maintenance::{Sweep, VacuumOptions};

#[tokio::test(flavor = "multi_thread")]
async fn replaced_files_stay_for_their_snapshots_and_go_with_them() {
    let mut world = World::new().await;
    world.append(3).await;
    world.show_both().await;
    let first = world.state.live_files.keys().cloned().collect::<BTreeSet<_>>();
    world.pass(DAY);
    world.replace(3).await;
    world.show_both().await;
    let orphan = world.write().await;
    world.date();
    // Old enough to delete, but time travel still shows them.
    world.pass(4 * DAY);
    let dry = VacuumOptions { dry_run: true, ..VacuumOptions::default() };
    let dry = world.janitor().vacuum(world.now_ms, dry, &Sweep::default()).await.unwrap();
    assert!(world.names().await.contains(&orphan), "a dry run deletes nothing");
    let report = world.vacuum().await;
    assert_eq!(report.deleted, dry.deleted);
    assert_eq!((report.deleted["data"].files, report.deleted_all().files), (1, 1));
    assert!(!world.names().await.contains(&orphan));
    world.check().await;
    assert_eq!(world.check_iceberg().await, [1, 2]);
    // The snapshot expires, then its files go.
    world.pass(5 * DAY);
    let expired = world.janitor().expire(world.now_ms, true).await.unwrap();
    assert_eq!((expired.snapshots.expired, expired.snapshots.left), (1, 1));
    assert_eq!(world.check_iceberg().await, [1, 2], "a dry run expires nothing");
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!((expired.snapshots.expired, expired.snapshots.left), (1, 1));
    let report = world.vacuum().await;
    assert_eq!(report.deleted["data"].files, 3, "{report:?}");
    assert!(report.deleted["manifest_list"].files == 1 && report.deleted["manifest"].files >= 1);
    assert!(world.names().await.is_disjoint(&first));
    world.check().await;
    assert_eq!(world.check_iceberg().await, [2]);
    assert_eq!(world.vacuum().await.deleted_all().files, 0, "there is nothing left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_left_lately_stay_even_without_a_snapshot() {
    let mut world = World::new().await;
    world.policy.projection.snapshots_max = 1;
    world.policy.projection.snapshots_age = Duration::from_secs(60);
    world.append(3).await;
    world.show_both().await;
    world.pass(10 * DAY);
    let old: Vec<String> = world.state.live_files.keys().cloned().collect();
    world.replace(3).await;
    world.show_both().await;
    world.pass(HOUR);
    world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(world.check_iceberg().await, [2]);
    // A reader may be at them: they left an hour ago.
    world.vacuum().await;
    assert!(old.iter().all(|path| futures::executor::block_on(world.names()).contains(path)));
    world.pass(4 * DAY);
    assert_eq!(world.vacuum().await.deleted["data"].files, 3);
    world.check().await;
}

/// What an entry that is not read took away is not known: then no data file goes.
#[tokio::test(flavor = "multi_thread")]
async fn data_files_stay_when_there_are_more_entries_than_are_read() {
    let mut world = World::with(vec![siltstone_protocol::Format::Iceberg]).await;
    world.policy.projection.snapshots_max = 1;
    world.policy.projection.snapshots_age = Duration::from_secs(60);
    world.append(3).await;
    let orphan = world.write().await;
    world.date();
    world.pass(10 * DAY);
    world.replace(3).await;
    for _ in 0..4 {
        world.append(1).await;
    }
    let mut iceberg = world.iceberg();
    world.show(&mut iceberg).await;
    world.pass(HOUR);
    world.janitor().expire(world.now_ms, false).await.unwrap();
    let vacuum = async |world: &World, entries_back_max| {
        let mut janitor = world.janitor();
        janitor.entries_back_max = entries_back_max;
        let dry = VacuumOptions { dry_run: true, ..VacuumOptions::default() };
        let report = janitor.vacuum(world.now_ms, dry, &Sweep::default()).await.unwrap();
        report.deleted.get("data").map_or(0, |count| count.files)
    };
    assert_eq!(vacuum(&world, 4).await, 0, "the replace is not among the newest four");
    assert_eq!(vacuum(&world, 100).await, 1, "{orphan}");
    world.pass(4 * DAY);
    assert_eq!(vacuum(&world, 4).await, 4, "the newest four are old themselves");
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_versions_hold_files_that_iceberg_let_go() {
    let mut world = World::new().await;
    world.policy.projection.snapshots_max = 1;
    world.policy.orphans = Duration::from_secs(3600);
    world.append(3).await;
    world.show_both().await;
    world.pass(DAY);
    world.replace(3).await;
    world.show_both().await;
    world.pass(3 * DAY);
    world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(world.check_iceberg().await, [2]);
    let report = world.vacuum().await;
    assert!(!report.deleted.contains_key("data"), "{report:?}");
    world.check().await;
    assert_eq!(world.check_delta(world.now_ms - 7 * DAY).await, [1, 2]);
    world.pass(5 * DAY);
    assert_eq!(world.vacuum().await.deleted["data"].files, 3);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn young_files_foreign_files_and_other_tables_are_left() {
    let mut world = World::new().await;
    world.append(1).await;
    world.show_both().await;
    let others = [
        "data/part-00000-0f5c.c000.snappy.parquet",
        "data/country=nl/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        // Tables named shop.data, shop.metadata and shop.orders lie below this one.
        "data/data/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        "metadata/data/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        "metadata/metadata/v1.metadata.json",
        "orders/data/01m81g49agv8rz9vvk8qjpd3cj.parquet",
        "metadata/00001-5c.metadata.json",
        "_siltstone/other",
    ];
    for path in others {
        world.put(path).await;
    }
    // One whose name begins like this one's.
    let beside = "lake/shops/data/01m81g49agv8rz9vvk8qjpd3cj.parquet";
    object_store::ObjectStoreExt::put(&world.store, &beside.into(), "x".to_owned().into()).await.unwrap();
    world.pass(30 * DAY);
    let young = world.write().await;
    let old_name = "data/01h00000000000000000000000.parquet";
    world.put(old_name).await;
    world.pass(3 * DAY - HOUR);
    let report = world.vacuum().await;
    assert_eq!(report.deleted_all().files, 0);
    assert_eq!(report.foreign.files, 6, "those in data/ and metadata/");
    let names = world.names().await;
    for path in others.into_iter().chain([young.as_str(), old_name]) {
        assert!(names.contains(path), "{path}");
    }
    assert!(object_store::ObjectStoreExt::head(&world.store, &beside.into()).await.is_ok());
    world.pass(2 * HOUR);
    assert_eq!(world.vacuum().await.deleted_all().files, 2, "the young ones have grown old");
    assert!(world.names().await.contains("orders/data/01m81g49agv8rz9vvk8qjpd3cj.parquet"));
    assert!(LOCATION.ends_with("shop"));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_or_a_branch_holds_stays() {
    let mut world = World::new().await;
    world.append(2).await;
    world.show_both().await;
    let (version, mut metadata) = world.metadata().await;
    let tagged = metadata["current-snapshot-id"].clone();
    metadata["refs"]["audit"] = serde_json::json!({"snapshot-id": tagged, "type": "tag"});
    world.put_metadata(version + 1, &metadata).await;
    for _ in 0..3 {
        world.pass(DAY);
        world.replace(2).await;
        world.append(1).await;
        world.show_both().await;
    }
    world.pass(60 * DAY);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(expired.snapshots.left, 2, "the newest and the tagged one");
    assert!(world.vacuum().await.deleted["data"].files > 0);
    assert_eq!(world.check_iceberg().await, [1, world.state.version]);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_so_many_snapshots_stay() {
    let mut world = World::new().await;
    world.policy.projection.snapshots_min = 3;
    for _ in 0..6 {
        world.append(1).await;
        world.show_both().await;
        world.pass(MINUTE);
    }
    world.pass(60 * DAY);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!((expired.snapshots.expired, expired.snapshots.left), (3, 3));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delta_log_goes_behind_an_old_checkpoint() {
    let mut world = World::new().await;
    for round in 0..12 {
        world.append(1).await;
        if round % 4 == 3 {
            world.replace(2).await;
        }
        world.show_both().await;
        if round == 3 || round == 8 {
            world.delta().checkpoint().await.unwrap();
        }
        world.pass(DAY);
    }
    let commits = |names: &BTreeSet<String>| {
        let digits =
            names.iter().filter_map(|name| name.strip_prefix("data/_delta_log/")?.strip_suffix(".json"));
        digits.filter_map(|digits| digits.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    let before = world.names().await;
    let dry = world.janitor().expire(world.now_ms, true).await.unwrap();
    assert_eq!(world.names().await, before);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(expired.delta_log, dry.delta_log);
    assert!(expired.delta_log.files > 0);
    let first = *commits(&world.names().await).first().unwrap();
    assert!(
        first > 0 && world.names().await.iter().any(|name| name.contains(&format!("{first:020}.checkpoint")))
    );
    world.check().await;
    world.vacuum().await;
    world.check().await;
    // A projection that starts anew finds its place, and goes on.
    world.append(1).await;
    world.show_both().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_while_a_format_is_not_shown() {
    let mut world = World::new().await;
    world.append(1).await;
    let mut iceberg = world.iceberg();
    world.show(&mut iceberg).await;
    world.pass(30 * DAY);
    let error = world.janitor().vacuum(world.now_ms, VacuumOptions::default(), &Sweep::default()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("delta"), "{error}");
    assert_eq!(world.janitor().expire(world.now_ms, false).await.unwrap().ledger_entries.files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_find_the_same() {
    let mut world = World::new().await;
    for _ in 0..10 {
        world.append(3).await;
        world.replace(2).await;
        world.show_both().await;
        world.pass(MINUTE);
    }
    for _ in 0..5 {
        world.write().await;
    }
    world.pass(60 * DAY);
    world.janitor().expire(world.now_ms, false).await.unwrap();
    let whole = VacuumOptions { dry_run: true, ..VacuumOptions::default() };
    let small = VacuumOptions { names_max: Some(20), ..whole };
    let mut janitor = world.janitor();
    let whole = janitor.vacuum(world.now_ms, whole, &Sweep::default()).await.unwrap();
    assert_eq!(janitor.vacuum(world.now_ms, small, &Sweep::default()).await.unwrap(), whole);
    let none = VacuumOptions { names_max: Some(1), ..small };
    let refused = janitor.vacuum(world.now_ms, none, &Sweep::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let real = VacuumOptions { dry_run: false, ..small };
    let report = janitor.vacuum(world.now_ms, real, &Sweep::default()).await.unwrap();
    assert_eq!(report.deleted, whole.deleted);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_swept_before_its_commit_is_not_committed() {
    let mut world = World::new().await;
    world.append(1).await;
    world.show_both().await;
    let slow = world.file(10, 0, 1, 0).await;
    world.pass(20 * MINUTE);
    let change = |files| Change::append(files, vec![], vec![]);
    let state = world.state.clone();
    let confirm =
        async |world: &World, files| world.ledger.confirm_files(&state, &change(files), world.now_ms).await;
    confirm(&world, vec![slow.clone()]).await.unwrap();
    world.pass(2 * DAY);
    confirm(&world, vec![slow.clone()]).await.unwrap();
    world.pass(2 * DAY);
    assert_eq!(world.vacuum().await.deleted["data"].files, 1);
    let error = confirm(&world, vec![slow]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("cleaned up"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_begins_once_in_a_while() {
    let world = World::with(vec![Format::Iceberg]).await;
    let janitor = world.janitor();
    let now_ms = chrono::Utc::now().timestamp_millis();
    let quiet = Some(Duration::from_secs(600));
    assert!(janitor.begin(quiet, now_ms).await.unwrap().is_some());
    assert_eq!(janitor.begin(quiet, now_ms + MINUTE).await.unwrap(), None);
    assert!(janitor.begin(None, now_ms + MINUTE).await.unwrap().is_some(), "by hand");
    assert!(janitor.begin(quiet, now_ms + 20 * MINUTE).await.unwrap().is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Replace(usize),
    Delete(usize),
    Iceberg,
    Delta,
    DeltaCheckpoint,
    LedgerCheckpoint,
    Orphan,
    Pass(i64),
    Expire,
    Vacuum,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_usize).prop_map(Step::Append),
        3 => (1..5_usize).prop_map(Step::Replace),
        1 => (1..3_usize).prop_map(Step::Delete),
        3 => Just(Step::Iceberg),
        3 => Just(Step::Delta),
        1 => Just(Step::DeltaCheckpoint),
        1 => Just(Step::LedgerCheckpoint),
        1 => Just(Step::Orphan),
        4 => (1..6 * 24_i64).prop_map(|hours| Step::Pass(hours * HOUR)),
        2 => Just(Step::Expire),
        3 => Just(Step::Vacuum),
    ]
}

async fn live_through(steps: Vec<Step>) {
    let mut world = World::new().await;
    world.show_both().await;
    for step in steps {
        match step {
            Step::Append(files) => world.append(files).await,
            Step::Replace(files) => world.replace(files).await,
            Step::Delete(files) => world.delete(files).await,
            Step::Iceberg => {
                let mut table = world.iceberg();
                world.show(&mut table).await;
            }
            Step::Delta => {
                let mut table = world.delta();
                world.show(&mut table).await;
            }
            Step::DeltaCheckpoint => world.delta().checkpoint().await.unwrap(),
            Step::LedgerCheckpoint => world.ledger.checkpoint(&world.state).await.unwrap(),
            Step::Orphan => drop(world.write().await),
            Step::Pass(ms) => world.pass(ms),
            Step::Expire => {
                world.janitor().expire(world.now_ms, false).await.unwrap();
            }
            Step::Vacuum => {
                world.vacuum().await;
                world.check().await;
            }
        }
        world.date();
    }
    // A projection that lags shows every version that is left to show, with files that are there.
    world.show_both().await;
    world.check().await;
    world.pass(100 * DAY);
    world.janitor().expire(world.now_ms, false).await.unwrap();
    world.date();
    world.pass(100 * DAY);
    world.vacuum().await;
    world.check().await;
    let data = world.names().await.into_iter().filter(|name| name.ends_with(".parquet"));
    let data: BTreeSet<String> = data.filter(|name| !name.contains("_delta_log")).collect();
    let live: BTreeSet<String> = world.state.live_files.keys().cloned().collect();
    assert_eq!(data, live, "in the end only live files are left");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_what_is_named_is_there(steps in prop::collection::vec(step(), 5..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live_through(steps));
    }
}
