use iceberg::spec::Operation;
use siltstone_protocol::{Change, Field, PartitionSpec, PrimitiveType, Schema, Transform};

use super::rig::{Rig, START_MS, field, schema, spec};
use crate::format::TableFormat;

#[tokio::test]
async fn creation_is_version_one_without_a_snapshot() {
    let rig = Rig::new().await;
    let mut table = rig.table();
    assert_eq!(table.shown_version().await.unwrap(), None);
    assert_eq!(rig.show(&mut table).await, 0);
    let (version, metadata) = rig.metadata().await;
    assert_eq!(version, 1);
    assert!(metadata.current_snapshot().is_none());
    assert_eq!(metadata.last_column_id(), 5);
    assert_eq!(metadata.last_partition_id(), 1001);
    assert_eq!(metadata.default_sort_order_id(), 1);
    assert_eq!(metadata.properties()["gc.enabled"], "false");
    assert_eq!(metadata.properties()["siltstone.version"], "0");
    assert_eq!(table.shown_version().await.unwrap(), Some(0));
    // Again, and from another process: nothing to do.
    assert_eq!(rig.show(&mut table).await, 0);
    assert_eq!(rig.show(&mut rig.table()).await, 0);
    assert_eq!(rig.metadata().await.0, 1);
    rig.check().await;
}

#[tokio::test]
async fn appends_replaces_and_deletes_are_snapshots_of_the_ledger() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    rig.append(3).await;
    assert_eq!(rig.show(&mut table).await, 1);
    rig.append(2).await;
    rig.append(2).await;
    assert_eq!(rig.show(&mut table).await, 3);
    let removed: Vec<String> = rig.state.live_files.keys().take(4).cloned().collect();
    rig.replace(removed, 1).await;
    let removed: Vec<String> = rig.state.live_files.keys().take(2).cloned().collect();
    rig.delete(removed).await;
    assert_eq!(rig.show(&mut table).await, 5);
    let shown = rig.check().await;
    let operations: Vec<_> = shown.iter().map(|s| (s.version.unwrap(), s.operation.clone())).collect();
    let expected =
        [(1, Operation::Append), (3, Operation::Append), (4, Operation::Replace), (5, Operation::Delete)];
    assert_eq!(operations, expected);
    assert!(shown.windows(2).all(|pair| pair[0].timestamp_ms < pair[1].timestamp_ms));
    assert_eq!(shown[0].timestamp_ms, START_MS + 1000);
    assert_eq!(shown[0].offsets.as_deref(), Some(r#"{"prod":{"orders":{"0":10}}}"#));
    assert_eq!(shown[3].offsets.as_deref(), Some(r#"{"prod":{"orders":{"0":30}}}"#));
}

#[tokio::test]
async fn a_late_projection_shows_every_step_and_coalesces_appends() {
    let mut rig = Rig::new().await;
    for _ in 0..40 {
        rig.append(1).await;
    }
    for _ in 0..20 {
        let removed: Vec<String> = rig.state.live_files.keys().take(2).cloned().collect();
        rig.replace(removed, 1).await;
        rig.append(1).await;
    }
    assert_eq!(rig.show(&mut rig.table()).await, 80);
    let shown = rig.check().await;
    assert_eq!(shown.len(), 41, "one snapshot for the run of appends, then one for each change");
    assert_eq!(rig.metadata().await.0, 4, "creation, and three versions of up to sixteen snapshots");
    let offsets: Vec<_> = shown.iter().filter_map(|s| s.offsets.as_deref()).collect();
    assert_eq!(offsets[0], r#"{"prod":{"orders":{"0":400}}}"#);
    assert_eq!(offsets[40], r#"{"prod":{"orders":{"0":600}}}"#);
    assert_eq!(offsets[38], r#"{"prod":{"orders":{"0":590}}}"#, "folded from the snapshot before");
}

#[tokio::test]
async fn layout_changes_keep_the_ledgers_ids() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    rig.append(2).await;
    let mut fields = schema().fields;
    fields[3].data_type = PrimitiveType::Long.into();
    fields.push(Field::optional(9, "note", PrimitiveType::String.into()));
    rig.commit(Change::SetSchema { schema: Schema::new(4, fields) }).await;
    let by_name =
        PartitionSpec { spec_id: 7, fields: vec![field(3, 1005, "shop name", Transform::Identity)] };
    rig.commit(Change::SetPartitionSpec { partition_spec: by_name }).await;
    rig.append(2).await;
    rig.show(&mut table).await;
    let (_, metadata) = rig.metadata().await;
    assert_eq!(metadata.current_schema_id(), 4);
    assert_eq!(metadata.last_column_id(), 9);
    assert_eq!(metadata.default_partition_spec_id(), 7);
    assert_eq!(metadata.last_partition_id(), 1005);
    // The spec goes back; ids of the old one are still right.
    let back = PartitionSpec { spec_id: 8, fields: spec().fields };
    rig.commit(Change::SetPartitionSpec { partition_spec: back }).await;
    rig.append(1).await;
    let removed: Vec<String> = rig.state.live_files.keys().take(3).cloned().collect();
    rig.replace(removed, 1).await;
    rig.show(&mut rig.table()).await;
    let (_, metadata) = rig.metadata().await;
    assert_eq!(metadata.last_partition_id(), 1005);
    assert_eq!(metadata.current_snapshot().unwrap().schema_id(), Some(4));
}

#[tokio::test]
async fn positions_alone_make_no_metadata_until_there_are_many() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    rig.append(1).await;
    rig.show(&mut table).await;
    let before = rig.metadata().await.0;
    for _ in 0..10 {
        let version = rig.append(0).await;
        assert_eq!(rig.show(&mut table).await, version);
    }
    assert_eq!(rig.metadata().await.0, before);
    assert_eq!(table.shown_version().await.unwrap(), Some(11));
    rig.append(1).await;
    rig.show(&mut table).await;
    let shown = rig.check().await;
    assert_eq!(shown.last().unwrap().version, Some(12));
    assert_eq!(shown.last().unwrap().offsets.as_deref(), Some(r#"{"prod":{"orders":{"0":120}}}"#));
    for _ in 0..64 {
        rig.append(0).await;
        rig.show(&mut table).await;
    }
    let (version, metadata) = rig.metadata().await;
    assert_eq!(version, before + 2);
    assert_eq!(metadata.properties()["siltstone.version"], "76");
    assert_eq!(rig.table().shown_version().await.unwrap(), Some(76));
}

#[tokio::test]
async fn snapshots_expire_and_what_they_named_is_unreachable() {
    let mut rig = Rig::new().await;
    rig.options.snapshots_max = 5;
    let mut table = rig.table();
    for _ in 0..30 {
        rig.append(1).await;
        rig.show(&mut table).await;
    }
    let shown = rig.check().await;
    assert_eq!(shown.len(), 5);
    let (version, metadata) = rig.metadata().await;
    assert_eq!(metadata.history().len(), 5);
    assert_eq!(metadata.metadata_log().len(), version as usize - 1);
    let expired = table.take_expired_manifest_lists();
    assert_eq!(expired.len(), 25);
    let reachable = table.reachable().await.unwrap();
    assert_eq!(reachable.data, rig.live[&30]);
    let names = rig.names().await;
    assert!(reachable.metadata.iter().all(|name| names.contains(name)), "all reachable files exist");
    for list in expired {
        assert!(!reachable.metadata.contains(list.strip_prefix("s3://lake/shop/orders/").unwrap()));
    }
    // By age: each snapshot is a second after the one before.
    rig.options =
        crate::format::ProjectionOptions { snapshots_age: std::time::Duration::from_secs(2), ..rig.options };
    let mut table = rig.table();
    rig.append(1).await;
    rig.show(&mut table).await;
    assert_eq!(rig.check().await.len(), 3);
}

#[tokio::test]
async fn the_metadata_log_is_bounded_and_old_files_are_deleted() {
    let mut rig = Rig::new().await;
    rig.options.snapshots_max = 3;
    let mut table = rig.table();
    // A minute apart: the first file is out of the log after 101 commits, and old enough by then.
    rig.step_ms = 60_000;
    for _ in 0..150 {
        rig.append(1).await;
        rig.show(&mut table).await;
    }
    tokio::task::yield_now().await;
    let (version, metadata) = rig.metadata().await;
    assert_eq!(version, 151);
    assert_eq!(metadata.metadata_log().len(), 100);
    let names = rig.names().await;
    let left = names.iter().filter(|name| name.ends_with(".metadata.json")).count();
    assert_eq!(left, 101, "the current one and those in the log");
    rig.check().await;
    // A second apart: what left the log is younger than an hour and stays.
    rig.step_ms = 1;
    for _ in 0..20 {
        rig.append(1).await;
        rig.show(&mut table).await;
    }
    tokio::task::yield_now().await;
    let names = rig.names().await;
    assert!(names.contains("metadata/v151.metadata.json"));
}
