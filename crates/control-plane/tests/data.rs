//! Data at rest: backups, keys, deletion. On SQLite; `data_postgres` is the same on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "database/mod.rs"]
mod database;
#[path = "plane/mod.rs"]
mod plane;

use std::{collections::BTreeMap, fs, io::Read, path::Path, sync::Arc};

use database::Database;
use plane::{Plane, config, fresh, organisation};
use siltstone_control_plane::{
    audit,
    backup::{self, BackupError},
    clock::Clock,
    crypto::{MasterKey, SEALS_AFTER_MS},
    reseal::{self, DELETED_AFTER_MS, Resealed},
    store::Store,
};
use tempfile::TempDir;

/// Reports stream while it is made; what was acknowledged before it is in it, and what comes after is caught up with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_under_load_is_restored_in_both_databases_and_catches_up() {
    let directory = TempDir::new().unwrap();
    let database = Database::make(directory.path()).await;
    let master = format!("key = \"{}\"", MasterKey::generate().as_str());
    let first = config(directory.path(), &database.url, &master);
    let made = organisation(&first, "acme").await;
    let plane = Arc::new(Plane::start(first).await);
    let tenant = Arc::new(plane.tenant(made, "one").await);
    plane.report(&tenant, "a", 0, 5).await;
    plane.report(&tenant, "b", 0, 2).await;
    let streaming = tokio::spawn({
        let (plane, tenant) = (Arc::clone(&plane), Arc::clone(&tenant));
        async move {
            for version in 5..60 {
                plane.report(&tenant, "a", version, version + 1).await;
            }
        }
    });
    let backups = directory.path().join("backups");
    let path = backup::backup(&plane.app.store, &backups, plane.later(1)).await.unwrap();
    streaming.await.unwrap();
    assert!(plane.app.audit.flush().await);
    let live = (plane.shown(&tenant, "a").await, plane.shown(&tenant, "b").await);
    // Nothing that is sealed can be read in it.
    let lines = unpacked(&path);
    for plain in ["data/a-1.parquet", "column_a", "s3://lake"] {
        assert!(lines.values().all(|text| !text.contains(plain)), "{plain}");
    }
    assert_eq!(lines["files"].lines().count(), lines["commits"].lines().count() - 2);

    let other = directory.path().join("restored.db");
    let mut targets = vec![Database::sqlite(&other)];
    if Database::has_postgres() {
        targets.push(Database::postgres().await);
    }
    for target in &targets {
        let (store, restored) = backup::restore(&target.url, 4, &path, &Clock::system()).await.unwrap();
        assert_eq!(restored.rows, lines.values().map(|text| text.lines().count() as u64).sum::<u64>());
        let again = backup::backup(&store, &directory.path().join("again"), restored.at_ms).await.unwrap();
        let mut restored_lines = unpacked(&again);
        for (table, text) in &lines {
            let was: Vec<&str> = sorted(text);
            let is = restored_lines.remove(table).unwrap();
            if !table.starts_with("audit") {
                assert_eq!(sorted(&is), was, "{table}");
            }
        }
        fs::remove_dir_all(&again).unwrap();
        let (good, faults) = audit::verify(&store).await.unwrap();
        assert!(good > 5 && faults.is_empty(), "{good} {faults:?}");
        store.close().await;
        let refused = backup::restore(&target.url, 4, &path, &Clock::system()).await;
        assert!(matches!(refused, Err(BackupError::NotEmpty)));

        // The workers go on where they stood, hear that entries are missing, and send them.
        let after = Plane::start(config(directory.path(), &target.url, &master)).await;
        let held = after.report(&tenant, "a", 60, 61).await;
        assert_eq!(held["gap"], true);
        let from = held["version"].as_u64().unwrap() + 1;
        assert!((5..60).contains(&from) || from == 60, "{held}");
        after.report(&tenant, "a", from, 60).await;
        let (a, b) = (after.shown(&tenant, "a").await, after.shown(&tenant, "b").await);
        assert_eq!((&a, &b), (&live.0, &live.1));
        assert!(audit::verify(&after.app.store).await.unwrap().1.is_empty());
    }
}

#[tokio::test]
async fn a_backup_that_was_changed_restores_nothing() {
    let directory = TempDir::new().unwrap();
    let (database, config) = fresh(directory.path()).await;
    organisation(&config, "acme").await;
    let store = Store::open(&database.url, 2).await.unwrap();
    let path = backup::backup(&store, &directory.path().join("backups"), 1).await.unwrap();
    let fresh = if database.is_file() {
        Database::sqlite(&directory.path().join("fresh.db"))
    } else {
        Database::postgres().await
    };
    for name in ["organisations", "data_keys", "api_keys"] {
        let file = path.join(format!("{name}.jsonl.gz"));
        let whole = fs::read(&file).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for damaged in [changed, whole[..whole.len() - 9].to_vec(), [whole.as_slice(), b"x"].concat()] {
            fs::write(&file, damaged).unwrap();
            let refused = backup::restore(&fresh.url, 2, &path, &Clock::system()).await;
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{name}: {refused:?}");
        }
        fs::write(&file, whole).unwrap();
    }
    backup::restore(&fresh.url, 2, &path, &Clock::system()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_rotate_while_reports_come_in_and_old_ones_go() {
    let directory = TempDir::new().unwrap();
    let (_database, config) = fresh(directory.path()).await;
    let (made, other) = (organisation(&config, "acme").await, organisation(&config, "other").await);
    let plane = Plane::start(config).await;
    let (tenant, other) = (plane.tenant(made, "one").await, plane.tenant(other, "two").await);
    plane.report(&tenant, "a", 0, 450).await;
    plane.report(&other, "a", 0, 3).await;
    let before = (plane.shown(&tenant, "a").await, plane.shown(&other, "a").await);
    let (store, ring) = (&plane.app.store, &plane.app.keys);
    let seals = async || {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM data_keys WHERE purpose = 'seal'")
            .fetch_one(store.pool())
            .await;
        sqlx::Row::get::<i64, _>(&row.unwrap(), "n")
    };
    let old = ring.of(&tenant.id).await.unwrap().current();
    assert_eq!(ring.rotate_data(Some(&tenant.id)).await.unwrap(), 1);
    // Not every server knows it yet.
    assert_eq!(reseal::pass(store, ring, plane.later(6_000)).await.unwrap(), Resealed::default());
    assert_eq!(ring.of(&tenant.id).await.unwrap().current(), old);
    let now_ms = plane.later(SEALS_AFTER_MS);
    assert_ne!(ring.of(&tenant.id).await.unwrap().current(), old);
    assert_eq!(plane.shown(&tenant, "a").await, before.0);
    let (done, ()) = tokio::join!(reseal::pass(store, ring, now_ms), async {
        for version in 450..470 {
            plane.report(&tenant, "a", version, version + 1).await;
            plane.shown(&tenant, "a").await;
        }
    });
    // A row that a report changed meanwhile is the report's.
    let done = done.unwrap();
    assert!((449..=450).contains(&done.rows) && done.keys == 0, "{done:?}");
    let after = plane.shown(&tenant, "a").await;
    assert_eq!(reseal::pass(store, ring, now_ms).await.unwrap(), Resealed::default());
    assert_eq!(seals().await, 3);
    // Found unused; deleted when nobody can be using it any more.
    let now_ms = plane.later(DELETED_AFTER_MS - 1);
    assert_eq!(reseal::pass(store, ring, now_ms).await.unwrap(), Resealed::default());
    let now_ms = plane.later(1);
    assert_eq!(reseal::pass(store, ring, now_ms).await.unwrap(), Resealed { rows: 0, keys: 1 });
    assert_eq!(seals().await, 2);
    plane.later(6_000);
    assert_eq!(ring.of(&tenant.id).await.unwrap().count(), 1);
    assert_eq!(plane.shown(&tenant, "a").await, after);
    assert_eq!(plane.shown(&other, "a").await, before.1);
}

/// It is broken off again and again, each time a little later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_anew_goes_on_where_it_was_broken_off() {
    let directory = TempDir::new().unwrap();
    let (_database, config) = fresh(directory.path()).await;
    let made = organisation(&config, "acme").await;
    let plane = Plane::start(config).await;
    let tenant = plane.tenant(made, "one").await;
    for table in ["a", "b"] {
        plane.report(&tenant, table, 0, 500).await;
    }
    let before = (plane.shown(&tenant, "a").await, plane.shown(&tenant, "b").await);
    let (store, ring) = (&plane.app.store, &plane.app.keys);
    ring.rotate_data(None).await.unwrap();
    let now_ms = plane.later(SEALS_AFTER_MS);
    let mut broken_off = 0;
    loop {
        let wait = std::time::Duration::from_millis(4 * broken_off);
        let ended = tokio::time::timeout(wait, reseal::pass(store, ring, now_ms)).await;
        assert_eq!((plane.shown(&tenant, "a").await, plane.shown(&tenant, "b").await), before);
        if ended.is_ok_and(|done| done.unwrap() == Resealed::default()) {
            break;
        }
        broken_off += 1;
    }
    assert!(broken_off > 1);
    let row =
        sqlx::query("SELECT COUNT(*) AS n FROM data_keys WHERE unused_ms <> 0").fetch_one(store.pool()).await;
    assert_eq!(sqlx::Row::get::<i64, _>(&row.unwrap(), "n"), 1);
}

#[tokio::test]
async fn a_key_that_an_unknown_column_still_needs_stays() {
    let directory = TempDir::new().unwrap();
    let (database, config) = fresh(directory.path()).await;
    let made = organisation(&config, "acme").await;
    let plane = Plane::start(config).await;
    let (store, ring) = (&plane.app.store, &plane.app.keys);
    let sealed = ring.of(&made.0).await.unwrap().seal("later.sealed", "1", b"v").unwrap();
    let bytes = if database.is_file() { "BLOB" } else { "BYTEA" };
    let make = format!("CREATE TABLE later (name TEXT PRIMARY KEY, sealed {bytes} NOT NULL)");
    sqlx::query(sqlx::AssertSqlSafe(make)).execute(store.pool()).await.unwrap();
    sqlx::query("INSERT INTO later VALUES ('1', $1)")
        .bind(sealed.clone())
        .execute(store.pool())
        .await
        .unwrap();
    ring.rotate_data(None).await.unwrap();
    for _ in 0..3 {
        let now_ms = plane.later(DELETED_AFTER_MS + SEALS_AFTER_MS);
        assert_eq!(reseal::pass(store, ring, now_ms).await.unwrap(), Resealed::default());
    }
    let keys = ring.of(&made.0).await.unwrap();
    assert_eq!((keys.count(), keys.open("later.sealed", "1", &sealed).unwrap()), (2, b"v".to_vec()));
}

#[tokio::test]
async fn an_organisation_that_is_deleted_leaves_nothing_of_itself() {
    let directory = TempDir::new().unwrap();
    let (database, config) = fresh(directory.path()).await;
    let canary = "canary-7f3a9c";
    let (gone, stays) = (organisation(&config, canary).await, organisation(&config, "stays").await);
    let admin = gone.1.clone();
    let plane = Plane::start(config).await;
    let (gone, stays) = (plane.tenant(gone, canary).await, plane.tenant(stays, "stays").await);
    plane.report(&gone, canary, 0, 30).await;
    plane.report(&stays, "a", 0, 3).await;
    let before = plane.shown(&stays, "a").await;
    let tables = format!("/api/v1/environments/{}/clusters/{}/tables", gone.environment, gone.cluster);
    let command = Some(serde_json::json!({ "action": "compact" }));
    let commands = format!("{tables}/{canary}/commands");
    assert_eq!(plane.ask(&admin, "POST", &commands, command).await.0, 201);
    if database.is_file() {
        assert!(held(directory.path(), canary), "it is there before");
    }
    // An environment takes the roles on it, and on what is in it, along; others stay.
    let environment = format!("/api/v1/environments/{}", stays.environment);
    let second = plane.tenant_beside(&stays, "second").await;
    let bindings = async || {
        let (_, list) = plane.ask(&stays.admin, "GET", "/api/v1/role-bindings", None).await;
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["resource"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = bindings().await;
    let gone_with = format!("/api/v1/environments/{}", second.environment);
    assert_eq!(plane.ask(&stays.admin, "DELETE", &gone_with, None).await.0, 204);
    let left: Vec<String> = all.iter().filter(|one| !one.contains(&second.environment)).cloned().collect();
    assert!(left.len() == all.len() - 1 && bindings().await == left, "{all:?}");
    assert_eq!(plane.ask(&stays.admin, "GET", &format!("{environment}/clusters"), None).await.0, 200);
    // A table, then everything.
    assert_eq!(plane.ask(&admin, "DELETE", &format!("{tables}/{canary}"), None).await.0, 204);
    let left = plane.ask(&admin, "GET", &format!("{tables}/{canary}"), None).await;
    assert_eq!(left.0, 404);
    for (confirm, status) in [("", 409), ("?confirm=stays", 409), (&format!("?confirm={canary}"), 204)] {
        let path = format!("/api/v1/organisation{confirm}");
        assert_eq!(plane.ask(&admin, "DELETE", &path, None).await.0, status, "{confirm}");
    }
    assert_eq!(plane.ask(&admin, "GET", "/api/v1/organisation", None).await.0, 401);
    assert_eq!(plane.shown(&stays, "a").await, before);
    assert!(plane.app.audit.flush().await);
    assert!(audit::verify(&plane.app.store).await.unwrap().1.is_empty());
    let path = backup::backup(&plane.app.store, &directory.path().join("backups"), 1).await.unwrap();
    let lines = unpacked(&path);
    for (table, text) in &lines {
        assert!(!text.contains(canary), "{table}");
        let of_it = text.lines().filter(|line| line.contains(&gone.id)).count();
        // Who deleted it is written down.
        let left = usize::from(["audit", "audit_heads"].contains(&table.as_str()));
        assert_eq!(of_it, left, "{table}");
    }
    assert!(lines["audit"].contains("DELETE /api/v1/organisation"));
    if database.is_file() {
        assert!(plane.app.store.scrub().await.unwrap());
        assert!(!held(directory.path(), canary));
    }
    assert!(plane.app.store.vacuum().await.unwrap());
    assert_eq!(plane.shown(&stays, "a").await, before);
}

/// Whether a file of the database has this text.
fn held(directory: &Path, text: &str) -> bool {
    let files =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let stored: Vec<Vec<u8>> = files
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("control-plane.db"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(!stored.is_empty());
    stored.iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// The lines of each table.
fn unpacked(backup: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(backup).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(table) = name.strip_suffix(".jsonl.gz") else { continue };
        let mut text = String::new();
        flate2::read::GzDecoder::new(fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        all.insert(table.to_owned(), text);
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}
