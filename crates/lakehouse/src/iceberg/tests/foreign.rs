//! Tables that another program wrote to.

use object_store::{ObjectStoreExt, path::Path};
use serde_json::{Value, json};
use siltstone_protocol::ErrorKind;

use super::rig::{LOCATION, Rig, URL};
use crate::format::TableFormat;

/// Rewrites the newest metadata as the next version, as another program's commit does.
async fn foreign_commit(rig: &Rig, change: impl FnOnce(&mut Value)) {
    let (version, bytes) = rig.metadata_bytes().await;
    let mut metadata: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut metadata);
    let next = version + 1;
    let path = Path::from(format!("{LOCATION}/metadata/v{next}.metadata.json"));
    rig.store.put(&path, metadata.to_string().into_bytes().into()).await.unwrap();
}

/// Adds a snapshot that reuses the manifest list of snapshot `index`.
fn snapshot_like(metadata: &mut Value, index: usize, id: i64) {
    let sequence = metadata["last-sequence-number"].as_i64().unwrap() + 1;
    let mut snapshot = metadata["snapshots"][index].clone();
    snapshot["parent-snapshot-id"] = metadata["current-snapshot-id"].clone();
    snapshot["snapshot-id"] = json!(id);
    snapshot["sequence-number"] = json!(sequence);
    snapshot["summary"] = json!({"operation": "overwrite"});
    metadata["snapshots"].as_array_mut().unwrap().push(snapshot);
    metadata["last-sequence-number"] = json!(sequence);
    metadata["current-snapshot-id"] = json!(id);
    metadata["refs"]["main"]["snapshot-id"] = json!(id);
    metadata["x-of-another-program"] = json!({"kept": true});
}

#[tokio::test]
async fn a_foreign_snapshot_is_built_upon_and_its_removals_hold() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    rig.append(1).await;
    rig.show(&mut table).await;
    let first: Vec<String> = rig.state.live_files.keys().cloned().collect();
    rig.append(1).await;
    rig.show(&mut table).await;
    let second: Vec<String> =
        rig.state.live_files.keys().filter(|path| !first.contains(path)).cloned().collect();
    // Another program takes the second file away.
    foreign_commit(&rig, |metadata| snapshot_like(metadata, 0, 77)).await;
    let replaced = [first[0].clone(), second[0].clone()].to_vec();
    let version = rig.append(1).await;
    let third: Vec<String> = rig.state.live_files.keys().rev().take(1).cloned().collect();
    assert_eq!(rig.show(&mut table).await, version);
    rig.replace(replaced, 1).await;
    let fourth: Vec<String> = rig.state.live_files.keys().rev().take(1).cloned().collect();
    rig.delete(vec![third[0].clone(), fourth[0].clone()]).await;
    assert_eq!(rig.show(&mut table).await, 5);
    let (_, metadata) = rig.metadata().await;
    let current = metadata.current_snapshot().unwrap();
    let parent = metadata.snapshot_by_id(current.parent_snapshot_id().unwrap()).unwrap();
    assert_eq!(
        parent.parent_snapshot_id(),
        Some(77),
        "the replace is dropped, the append and the delete stand"
    );
    let list = iceberg::spec::ManifestList::parse_with_version(
        &rig.get(current.manifest_list()).await,
        iceberg::spec::FormatVersion::V2,
    )
    .unwrap();
    let mut live = Vec::new();
    for line in list.entries() {
        let manifest = iceberg::spec::Manifest::parse_avro(&rig.get(&line.manifest_path).await).unwrap();
        let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
        live.extend(alive.map(|entry| entry.file_path().to_owned()));
    }
    assert_eq!(live, [format!("{URL}/{}", first[0])], "no row of the removed file came back");
    let (_, bytes) = rig.metadata_bytes().await;
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["x-of-another-program"]["kept"], true);
}

#[tokio::test]
async fn a_roll_back_stops_the_projection() {
    let mut rig = Rig::new().await;
    for _ in 0..3 {
        rig.append(1).await;
        rig.show(&mut rig.table()).await;
    }
    foreign_commit(&rig, |metadata| {
        let first = metadata["snapshots"][0]["snapshot-id"].clone();
        metadata["current-snapshot-id"] = first.clone();
        metadata["refs"]["main"]["snapshot-id"] = first;
    })
    .await;
    let mut table = rig.table();
    let error = table.catch_up(&rig.ledger, &rig.state, &rig.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("roll-back"), "{error}");
}

#[tokio::test]
async fn another_table_at_the_place_is_left_alone() {
    let mut rig = Rig::new().await;
    rig.show(&mut rig.table()).await;
    foreign_commit(&rig, |metadata| metadata["table-uuid"] = json!("0191e2a0-0000-7000-8000-000000000000"))
        .await;
    rig.append(1).await;
    let mut table = rig.table();
    let error = table.catch_up(&rig.ledger, &rig.state, &rig.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(rig.metadata_bytes().await.0, 2);
}

#[tokio::test]
async fn branches_and_tags_of_others_keep_their_snapshots() {
    let mut rig = Rig::new().await;
    rig.options.snapshots_max = 2;
    let mut table = rig.table();
    rig.append(1).await;
    rig.show(&mut table).await;
    foreign_commit(&rig, |metadata| {
        let id = metadata["current-snapshot-id"].clone();
        metadata["refs"]["audited"] = json!({"snapshot-id": id, "type": "tag"});
    })
    .await;
    for _ in 0..6 {
        rig.append(1).await;
        rig.show(&mut table).await;
    }
    assert_eq!(rig.check().await.len(), 3);
    let (_, metadata) = rig.metadata().await;
    assert!(metadata.snapshot_for_ref("audited").is_some());
}
