//! Overwrites: the operation of a snapshot, and its numbers, say of which kind the change of rows was.

use std::sync::Arc;

use iceberg::spec::{Operation, Snapshot};
use siltstone_protocol::{Change, FileEntry, OffsetRange};

use super::rig::Rig;

/// Fields of a summary, by their names in the Iceberg specification.
const COUNTS: [&str; 10] = [
    "added-data-files",
    "added-records",
    "added-files-size",
    "deleted-data-files",
    "deleted-records",
    "removed-files-size",
    "changed-partition-count",
    "total-data-files",
    "total-records",
    "total-files-size",
];

/// What a summary says; 0 where it is silent.
fn counts(snapshot: &Snapshot) -> [u64; 10] {
    let summary = &snapshot.summary().additional_properties;
    COUNTS.map(|key| summary.get(key).map_or(0, |value| value.parse().unwrap()))
}

fn path(n: u64) -> String {
    format!("data/{n:026}.parquet")
}

fn change(rig: &Rig, removed: &[u64], added: Vec<FileEntry>, start: i64, end: i64) -> Change {
    let (cluster, topic) = ("prod".to_owned(), "orders".to_owned());
    Change::Overwrite {
        removed: removed.iter().map(|n| path(*n)).collect(),
        added,
        ranges: vec![OffsetRange { cluster, topic, partition: 0, start, end, lost: false }],
        base: rig.state.version,
        rejected: Vec::new(),
        replayed: Vec::new(),
    }
}

async fn overwrite(rig: &mut Rig, removed: &[u64], rows: &[u64]) -> u64 {
    let added = rows.iter().map(|rows| rig.file(*rows)).collect();
    let change = change(rig, removed, added, 0, 5);
    rig.commit(change).await
}

async fn snapshots(rig: &Rig) -> Vec<Arc<Snapshot>> {
    let (_, metadata) = rig.metadata().await;
    let mut snapshots: Vec<_> = metadata.snapshots().cloned().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    snapshots
}

#[tokio::test]
async fn an_overwrite_is_an_append_a_delete_or_both() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    rig.append(3).await;
    rig.append(2).await;
    rig.show(&mut table).await;
    overwrite(&mut rig, &[], &[4]).await;
    rig.show(&mut table).await;
    overwrite(&mut rig, &[1], &[]).await;
    rig.show(&mut table).await;
    overwrite(&mut rig, &[2, 3], &[15]).await;
    rig.show(&mut table).await;
    let found = snapshots(&rig).await;
    let told: Vec<_> = found.iter().map(|one| (one.summary().operation.clone(), counts(one))).collect();
    let expected = [
        (Operation::Append, [5, 50, 5015, 0, 0, 0, 5, 5, 50, 5015]),
        (Operation::Append, [1, 4, 1006, 0, 0, 0, 1, 6, 54, 6021]),
        // Partitions that files leave are changed too.
        (Operation::Delete, [0, 0, 0, 1, 10, 1001, 1, 5, 44, 5020]),
        (Operation::Overwrite, [1, 15, 1007, 2, 20, 2005, 3, 4, 39, 4022]),
    ];
    assert_eq!(told, expected);
    // What is ingested anew moves no position.
    let shown = rig.check().await;
    for one in &shown {
        assert_eq!(one.offsets.as_deref(), Some(r#"{"prod":{"orders":{"0":20}}}"#));
    }
    // Nothing left and nothing came: readers are told nothing until something does.
    let version = overwrite(&mut rig, &[], &[]).await;
    assert_eq!(rig.show(&mut table).await, version);
    assert_eq!(snapshots(&rig).await.len(), 4);
    let version = rig.append(1).await;
    rig.show(&mut table).await;
    let last = rig.check().await.pop().unwrap();
    assert_eq!((last.version, last.operation), (Some(version), Operation::Append));
}

/// The same from a projection that comes late: what only adds joins the appends around it, what takes away does not.
#[tokio::test]
async fn overwrites_are_shown_late_by_what_they_are() {
    let mut rig = Rig::new().await;
    rig.append(2).await;
    overwrite(&mut rig, &[], &[4]).await;
    rig.append(1).await;
    overwrite(&mut rig, &[1, 3], &[6, 6]).await;
    rig.append(1).await;
    overwrite(&mut rig, &[2], &[]).await;
    assert_eq!(rig.show(&mut rig.table()).await, 6);
    let shown = rig.check().await;
    let told: Vec<_> = shown.iter().map(|one| (one.version.unwrap(), one.operation.clone())).collect();
    let expected =
        [(3, Operation::Append), (4, Operation::Overwrite), (5, Operation::Append), (6, Operation::Delete)];
    assert_eq!(told, expected);
}
