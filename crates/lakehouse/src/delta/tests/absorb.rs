//! What other programs did to the Delta table is taken in: nothing is lost, and nothing comes back.

use std::collections::BTreeSet;

use super::*;
use crate::foreign::{Apart, Comparison};

/// A path of another program, which holds a value.
const FOREIGN: &str = "region=-777/part-0.parquet";

fn name(n: u64) -> String {
    path(n)[5..].to_owned()
}

/// Another program's commit at the next version of the log.
async fn commit(world: &World, operation: &str, data_change: bool, removed: &[&str], added: &[&str]) {
    let version = read(Arc::clone(&world.store)).await.version().unwrap() as u64 + 1;
    let mut lines = vec![format!(r#"{{"commitInfo":{{"operation":"{operation}"}}}}"#)];
    lines.extend(removed.iter().map(|path| {
        format!(r#"{{"remove":{{"path":"{path}","deletionTimestamp":1,"dataChange":{data_change}}}}}"#)
    }));
    lines.extend(added.iter().map(|path| {
        format!(
            r#"{{"add":{{"path":"{path}","partitionValues":{{"region":"-777"}},"size":5,"modificationTime":1,"dataChange":{data_change}}}}}"#
        )
    }));
    foreign(&world.store, version, &lines.join("\n")).await;
}

async fn compare(world: &World, table: &mut DeltaTable) -> Box<Apart> {
    assert!(table.is_apart().await.unwrap());
    match table.compare(&world.ledger, &world.state).await.unwrap() {
        Comparison::Apart(apart) => apart,
        other => panic!("{other:?}"),
    }
}

impl World {
    async fn show(&self, table: &mut DeltaTable) {
        table.catch_up(&self.ledger, &self.state, &self.details).await.unwrap();
    }

    fn file(&mut self, rows: u64) -> FileEntry {
        self.next += 1;
        entry(self.next, rows, &self.details)
    }

    fn change(apart: &Apart, added: Vec<FileEntry>) -> Change {
        Change::Absorb {
            format: apart.format,
            base: apart.base,
            seen: apart.seen,
            removed: apart.removed.clone(),
            added,
            absorbed: apart.absorbed.clone(),
            same_rows: apart.same_rows,
        }
    }

    async fn overwrite(&mut self, n: u64) {
        let (removed, added, base) = (vec![path(n)], vec![self.file(9)], self.state.version);
        self.commit(Change::Overwrite {
            removed,
            added,
            ranges: vec![],
            base,
            rejected: vec![],
            replayed: vec![],
        })
        .await;
    }

    async fn absorb(&mut self, apart: &Apart, rows: u64) {
        let file = self.file(rows);
        self.commit(Self::change(apart, vec![file])).await;
    }

    async fn agrees(&self) {
        self.assert_shown().await;
        assert!(!self.table().is_apart().await.unwrap(), "a restart knows");
    }
}

async fn shown(n: u64) -> (World, DeltaTable) {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    for _ in 0..n {
        world.append().await;
    }
    world.show(&mut table).await;
    (world, table)
}

#[rstest]
#[case::remembered(true)]
#[case::restarted(false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_is_taken_in_and_what_it_took_away_stays_away(#[case] remembered: bool) {
    let (mut world, mut table) = shown(3).await;
    commit(&world, "OPTIMIZE", false, &[&name(1), &name(2)], &[FOREIGN]).await;
    // Compaction does not know yet, and ingestion goes on.
    world.replace(&[2, 3]).await;
    world.append().await;
    world.show(&mut table).await;
    let mut other = if remembered { table } else { world.table() };
    let apart = compare(&world, &mut other).await;
    assert!(apart.same_rows && apart.commits["optimize"] == 1, "{apart:?}");
    assert_eq!((apart.removed.len(), apart.files.len()), (2, 2), "{apart:?}");
    let theirs = apart
        .files
        .iter()
        .find(|file| !file.constants.is_empty() && file.location.as_ref().contains("part-0"));
    assert_eq!(theirs.unwrap().constants["region"].as_deref(), Some("-777"));
    world.absorb(&apart, 30).await;
    world.show(&mut other).await;
    world.agrees().await;
    let entry = world.ledger.entry(world.state.version).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&entry).unwrap().contains("-777"));
    assert!(!format!("{apart:?}").contains("-777"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_again_before_it_is_shown_is_taken_in_once_more() {
    let (mut world, mut table) = shown(2).await;
    commit(&world, "DELETE", true, &[&name(1)], &[FOREIGN]).await;
    world.show(&mut table).await;
    let first = compare(&world, &mut table).await;
    assert!(!first.same_rows);
    commit(&world, "DELETE", true, &[FOREIGN], &["region=-777/part-1.parquet"]).await;
    world.absorb(&first, 7).await;
    world.show(&mut table).await;
    let wanted = BTreeSet::from([name(2), "region=-777/part-1.parquet".to_owned()]);
    assert_eq!(files(&read(Arc::clone(&world.store)).await), wanted);
    let second = compare(&world, &mut world.table()).await;
    assert_eq!((second.removed.len(), second.files.len()), (1, 1), "{second:?}");
    world.absorb(&second, 5).await;
    world.show(&mut world.table()).await;
    world.agrees().await;
}

/// A file that retention takes from the ledger, and another program took from Delta.
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_deletes_may_be_gone_already() {
    let (mut world, mut table) = shown(3).await;
    commit(&world, "DELETE", true, &[&name(1)], &[]).await;
    world.commit(Change::Delete { removed: vec![path(1), path(2)], added: Vec::new() }).await;
    world.show(&mut table).await;
    assert_eq!(files(&read(Arc::clone(&world.store)).await), BTreeSet::from([name(3)]));
    let apart = compare(&world, &mut table).await;
    assert!(apart.removed.is_empty() && apart.files.is_empty());
    world.commit(World::change(&apart, Vec::new())).await;
    world.show(&mut table).await;
    world.agrees().await;
}

/// Iceberg's absorb, of a file that another program took away here.
#[rstest]
#[case::rows_stayed(true)]
#[case::rows_changed(false)]
#[tokio::test(flavor = "multi_thread")]
async fn both_formats_changed_at_once_stop_unless_rows_stayed(#[case] same_rows: bool) {
    let (mut world, mut table) = shown(2).await;
    commit(&world, "OPTIMIZE", false, &[&name(1)], &[FOREIGN]).await;
    let added = vec![world.file(10)];
    let (format, removed, base) = (Format::Iceberg, vec![path(1)], world.state.version);
    let absorbed = vec!["00".to_owned()];
    world.commit(Change::Absorb { format, base, seen: 1, removed, added, absorbed, same_rows }).await;
    let shown = table.catch_up(&world.ledger, &world.state, &world.details).await;
    if !same_rows {
        let error = shown.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("data/_delta_log"), "{error}");
        return;
    }
    shown.unwrap();
    let apart = compare(&world, &mut table).await;
    assert_eq!((apart.removed.len(), apart.files.len()), (1, 1));
    world.absorb(&apart, 10).await;
    world.show(&mut table).await;
    world.agrees().await;
}

/// A reset or a replay of rows that another program took away: they must not come back.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_changed_here_and_there_at_once_stop_the_projection() {
    let (mut world, mut table) = shown(2).await;
    commit(&world, "DELETE", true, &[&name(1)], &[]).await;
    // What nobody else touched is shown.
    world.overwrite(2).await;
    world.show(&mut table).await;
    let before = BTreeSet::from([name(3)]);
    assert_eq!(files(&read(Arc::clone(&world.store)).await), before);
    world.overwrite(1).await;
    let error = table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(said.contains("whose rows a reset or a replay changed at the same time"), "{said}");
    assert!(said.contains("delete data/_delta_log"), "{said}");
    assert_eq!(files(&read(Arc::clone(&world.store)).await), before);
}

/// The log before a checkpoint is gone: what the checkpoint says of another program's files is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_enough() {
    let (mut world, mut table) = shown(2).await;
    commit(&world, "OPTIMIZE", false, &[&name(1)], &[FOREIGN]).await;
    world.append().await;
    world.show(&mut table).await;
    table.checkpoint().await.unwrap();
    let newest = read(Arc::clone(&world.store)).await.version().unwrap();
    for version in 0..newest {
        let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
        world.store.delete(&path).await.unwrap();
    }
    let mut fresh = world.table();
    let apart = compare(&world, &mut fresh).await;
    assert_eq!(apart.files[0].constants["region"].as_deref(), Some("-777"));
    assert_eq!(apart.removed, [path(1)]);
    world.absorb(&apart, 10).await;
    world.show(&mut fresh).await;
    world.agrees().await;
}

/// Entries between are gone: what is missing could be anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn what_left_entries_behind_does_not_bring_back_what_was_taken_away() {
    let (mut world, _) = shown(2).await;
    commit(&world, "DELETE", true, &[&name(1)], &[]).await;
    world.append().await;
    world.append().await;
    let entry = Path::from(format!("{LOCATION}/_siltstone/ledger/{:020}.json", world.state.version - 1));
    world.store.delete(&entry).await.unwrap();
    let ledger = Ledger::with_checkpoint_every(Arc::clone(&world.store), Path::from(LOCATION), 1_000_000);
    let error = world.table().catch_up(&ledger, &world.state, &world.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("data/_delta_log"), "{error}");
    assert!(!files(&read(Arc::clone(&world.store)).await).contains(&name(1)));
}
