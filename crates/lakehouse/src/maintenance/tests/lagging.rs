//! Who lags behind the clean-up of ledger and logs goes on from a checkpoint, and shows the same in the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory, path::Path};
use rstest::rstest;
use siltstone_protocol::{Change, ErrorKind, Field, Format, PrimitiveType, Schema};

use super::world::{DAY, HOUR, LOCATION, URL, World};
use crate::{
    DeltaTable,
    format::{ProjectionOptions, TableFormat},
    ledger::Ledger,
};

async fn three_checkpoints(world: &mut World) {
    for _ in 0..3 {
        world.append(1).await;
        world.ledger.checkpoint(&world.state).await.unwrap();
    }
    world.date();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_a_projection_has_yet_to_show_stay() {
    let mut world = World::new().await;
    world.append(2).await;
    world.show_both().await;
    for _ in 0..6 {
        world.append(1).await;
        world.replace(2).await;
        world.pass(HOUR);
    }
    three_checkpoints(&mut world).await;
    let mut delta = world.delta();
    world.show(&mut delta).await;
    world.pass(60 * DAY);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(expired.ledger_entries.files, 2, "0 and 1, which both formats show");
    // Nor do the files go that Iceberg has yet to show: every snapshot that comes is readable.
    world.vacuum().await;
    let mut iceberg = world.iceberg();
    world.show(&mut iceberg).await;
    assert!(world.check_iceberg().await.len() > 6);
    world.pass(10 * DAY);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert!(expired.ledger_entries.files > 8, "{expired:?}");
    assert!(expired.snapshots.expired > 5);
    world.vacuum().await;
    world.check().await;
    world.append(1).await;
    world.show_both().await;
    world.check().await;
}

/// Entries (and files) between are gone all the same: an operator's hand, a bucket restored.
#[rstest]
#[case::entries_and_files(true)]
#[case::files_alone(false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_projection_whose_entries_are_gone_goes_on_from_the_state(#[case] entries: bool) {
    let mut world = World::new().await;
    world.append(4).await;
    world.show_both().await;
    // A file of another program in the Iceberg table would be left; its own are told by their names.
    for _ in 0..4 {
        world.append(2).await;
        world.replace(3).await;
    }
    world.delete(1).await;
    let mut fields = super::world::schema().fields;
    fields.push(Field::optional(3, "note", PrimitiveType::String.into()));
    world.commit(Change::SetSchema { schema: Schema::new(1, fields) }).await;
    world.append(1).await;
    three_checkpoints(&mut world).await;
    world.pass(60 * DAY);
    if entries {
        let expired = world.ledger.expire_entries(u64::MAX, 0, world.now_ms).await.unwrap();
        assert!(expired > 8);
    }
    let live: BTreeSet<String> = world.state.live_files.keys().cloned().collect();
    for name in world.names().await {
        if name.ends_with(".parquet") && !live.contains(&name) && !world.live[&1].contains(&name) {
            let path = Path::from(format!("{LOCATION}/{name}"));
            object_store::ObjectStoreExt::delete(&world.store, &path).await.unwrap();
        }
    }
    // A process of its own, which remembers no details of files; those that are live have footers to read.
    let details = crate::details::DetailsCache::new(1_000);
    for path in &live {
        details.insert(world.details.get(path).unwrap().as_ref().clone());
    }
    let ledger = Ledger::new(Arc::clone(&world.store), Path::from(LOCATION));
    let state = ledger.load().await.unwrap().unwrap();
    let tables: [Box<dyn TableFormat>; 2] = [Box::new(world.iceberg()), Box::new(world.delta())];
    for mut table in tables {
        assert_eq!(table.catch_up(&ledger, &state, &details).await.unwrap(), state.version);
        assert_eq!(table.shown_version().await.unwrap(), Some(state.version));
    }
    world.date();
    let versions = world.check_iceberg().await;
    assert_eq!((versions[0], *versions.last().unwrap()), (1, state.version));
    // The newest version; those before it passed over files that are gone.
    assert_eq!(world.check_delta(i64::MAX).await, [state.version]);
    let (_, metadata) = world.metadata().await;
    assert_eq!(metadata["current-schema-id"], 1);
    // And on, entry by entry.
    world.append(1).await;
    world.replace(2).await;
    world.show_both().await;
    world.check_iceberg().await;
}

/// A projection that was idle while others went on and the log before them was cleaned up must not write a
/// version that was there and is gone.
#[tokio::test(start_paused = true)]
async fn an_idle_delta_projection_looks_anew() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let location = Path::from(LOCATION);
    let ledger = Ledger::with_checkpoint_every(Arc::clone(&store), location.clone(), 1_000_000);
    let create = Change::Create {
        name: "shop".to_owned(),
        schema: super::world::schema(),
        partition_spec: Default::default(),
        sort_order: Default::default(),
        formats: vec![Format::Delta],
    };
    let mut state = ledger.create(create, "create", 1).await.unwrap();
    let details = crate::details::DetailsCache::default();
    let new = || {
        DeltaTable::new(Arc::clone(&store), location.clone(), URL.to_owned(), ProjectionOptions::default())
            .checkpoint_every(1_000_000)
    };
    let (mut idle, mut busy) = (new(), new());
    idle.catch_up(&ledger, &state, &details).await.unwrap();
    for id in 1..5 {
        let mut fields = super::world::schema().fields;
        fields.extend((0..id).map(|n| Field::optional(10 + n, format!("c{n}"), PrimitiveType::Long.into())));
        let change = Change::SetSchema { schema: Schema::new(id, fields) };
        ledger.commit(&mut state, change, &format!("c{id}"), 1).await.unwrap();
        if id < 4 {
            busy.catch_up(&ledger, &state, &details).await.unwrap();
        }
    }
    // The log's beginning goes, as behind a checkpoint; the newest version is 3.
    for version in 0..3 {
        let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
        object_store::ObjectStoreExt::delete(&store, &path).await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(400)).await;
    assert_eq!(idle.catch_up(&ledger, &state, &details).await.unwrap(), 4);
    let path = |version: u64| Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
    let there = async |version| object_store::ObjectStoreExt::head(&store, &path(version)).await.is_ok();
    assert!(!there(1).await, "a version that was cleaned up came back");
    assert!(there(4).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_over_the_clean_up_commits_on_the_newest_state() {
    let mut world = World::new().await;
    world.append(1).await;
    let mut sleeper = world.state.clone();
    for _ in 0..5 {
        world.append(1).await;
    }
    three_checkpoints(&mut world).await;
    world.show_both().await;
    world.pass(60 * DAY);
    let expired = world.janitor().expire(world.now_ms, false).await.unwrap();
    assert_eq!(expired.ledger_entries.files, 7);
    // As a process that has no entries in memory.
    let awake = Ledger::new(Arc::clone(&world.store), Path::from(LOCATION));
    let mut idle = sleeper.clone();
    assert_eq!(awake.refresh(&mut idle).await.unwrap(), 0, "there is no next entry");
    awake.follow(&mut idle, world.now_ms).await.unwrap();
    assert_eq!(idle, world.state, "where consumption goes on is read from a checkpoint");
    let stale = Change::append(
        vec![],
        vec![siltstone_protocol::OffsetRange {
            cluster: "c".into(),
            topic: "t".into(),
            partition: 0,
            start: 85,
            end: 95,
            lost: false,
        }],
        vec![],
    );
    let error = awake.commit(&mut sleeper, stale, "late", world.now_ms).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(sleeper.version, world.state.version);
    assert!(!world.names().await.contains("_siltstone/ledger/00000000000000000002.json"));
}
