//! Overwrites in the log: rows change, and every action says so.

use serde_json::{Value, json};

use super::*;

/// The time of every commit of the ledger here.
const COMMITTED_MS: i64 = 1_700_000_000_000;

fn name(n: u64) -> String {
    path(n)[5..].to_owned()
}

fn overwrite(world: &World, removed: &[u64], added: &[(u64, u64)]) -> Change {
    Change::Overwrite {
        removed: removed.iter().map(|n| path(*n)).collect(),
        added: added.iter().map(|(n, rows)| entry(*n, *rows, &world.details)).collect(),
        ranges: vec![range(0, 5)],
        base: world.state.version,
        rejected: vec![],
        replayed: vec![],
    }
}

async fn show(world: &mut World, table: &mut DeltaTable, removed: &[u64], added: &[(u64, u64)]) {
    let change = overwrite(world, removed, added);
    world.commit(change).await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
}

/// The actions of one version of the log, as any reader finds them.
struct Logged(Vec<Value>);

impl Logged {
    async fn at(world: &World, version: u64) -> Self {
        let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
        let bytes = world.store.get(&path).await.unwrap().bytes().await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter_map(|line| line.get(kind)).collect()
    }

    /// File, rows, and whether rows changed.
    fn added(&self) -> Vec<(String, u64, bool)> {
        let told = |add: &&Value| {
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let path = add["path"].as_str().unwrap().to_owned();
            (path, stats["numRecords"].as_u64().unwrap(), add["dataChange"].as_bool().unwrap())
        };
        self.all("add").iter().map(told).collect()
    }

    /// It shows this ledger version, and says that it did this.
    fn check(&self, world: &World, operation: &str, version: u64) {
        let info = self.all("commitInfo");
        assert_eq!(info.len(), 1);
        assert_eq!(info[0]["operation"], operation);
        assert_eq!(info[0]["operationParameters"], json!({"ledgerVersion": version.to_string()}));
        // It depends on rows that were there, whatever it does with them.
        assert_eq!(info[0]["isBlindAppend"], false);
        assert_eq!(info[0]["siltstone"]["version"], version);
        assert!(info[0]["siltstone"].get("offsets").is_none(), "no position moves");
        let app_id = format!("siltstone-{}", world.state.table_uuid);
        let txn = json!({"appId": app_id, "version": version, "lastUpdated": COMMITTED_MS});
        assert_eq!(self.all("txn"), [&txn]);
        assert!(self.all("metaData").is_empty() && self.all("protocol").is_empty());
    }
}

/// A removal with everything that the protocol has for it.
fn removed(n: u64) -> Value {
    json!({
        "path": name(n),
        "deletionTimestamp": COMMITTED_MS,
        "dataChange": true,
        "extendedFileMetadata": true,
        "partitionValues": {"region": "-7"},
        "size": 100,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_adds_removes_or_does_both() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    for _ in 0..4 {
        world.append().await;
    }
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    let first = read(Arc::clone(&world.store)).await.version().unwrap() as u64 + 1;
    show(&mut world, &mut table, &[], &[(50, 4)]).await;
    show(&mut world, &mut table, &[1], &[]).await;
    show(&mut world, &mut table, &[2, 3], &[(51, 12), (52, 3)]).await;
    let logged = Logged::at(&world, first).await;
    logged.check(&world, "WRITE", 5);
    assert_eq!(logged.added(), [(name(50), 4, true)]);
    assert!(logged.all("remove").is_empty());
    let logged = Logged::at(&world, first + 1).await;
    logged.check(&world, "DELETE", 6);
    assert!(logged.added().is_empty());
    assert_eq!(logged.all("remove"), [&removed(1)]);
    let logged = Logged::at(&world, first + 2).await;
    logged.check(&world, "WRITE", 7);
    assert_eq!(logged.added(), [(name(51), 12, true), (name(52), 3, true)]);
    assert_eq!(logged.all("remove"), [&removed(2), &removed(3)]);
    // Nothing left and nothing came: no commit, until something does.
    let change = overwrite(&world, &[], &[]);
    world.commit(change).await;
    assert_eq!(table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap(), 8);
    let newest = read(Arc::clone(&world.store)).await.version().unwrap() as u64;
    assert_eq!(newest, first + 2);
    world.append().await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
    assert_no_file_twice(&world.store).await;
}

/// Files that left the table and the store before they were shown: what took their place is all there is to show.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_overwritten_before_it_was_shown_is_passed_over() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.append().await;
    world.append().await;
    let change = overwrite(&world, &[1], &[(50, 4)]);
    world.commit(change).await;
    world.append().await;
    let change = overwrite(&world, &[3], &[]);
    world.commit(change).await;
    world.append().await;
    let known = DetailsCache::default();
    for file in world.state.live_files.keys() {
        known.insert((*world.details.get(file).unwrap()).clone());
    }
    world.details = known;
    let shown = world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    assert_eq!(shown, world.state.version);
    world.assert_shown().await;
    let newest = read(Arc::clone(&world.store)).await.version().unwrap() as u64;
    for version in 0..=newest {
        assert!(Logged::at(&world, version).await.all("remove").is_empty(), "version {version}");
    }
}
