//! What all else counts on of a database. On SQLite; `store_postgres` is the same on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "database/mod.rs"]
mod database;
#[path = "plane/mod.rs"]
mod plane;

use std::{sync::Arc, time::Duration};

use database::Database;
use plane::{Plane, config, organisation};
use serde_json::Value;
use siltstone_control_plane::{
    audit::{self, AuditLog, Event, Outcome},
    clock::Clock,
    crypto::MasterKey,
    store::{Store, StoreError, retried},
};
use sqlx::Row;
use tempfile::TempDir;

async fn add(store: &Store, id: &str, name: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO organisations (id, name, created_ms) VALUES ($1, $2, 0)")
        .bind(id)
        .bind(name)
        .execute(tx.connection())
        .await?;
    tx.commit().await
}

async fn names(store: &Store) -> Vec<String> {
    let rows =
        sqlx::query("SELECT name FROM organisations ORDER BY name").fetch_all(store.pool()).await.unwrap();
    rows.iter().map(|row| row.get("name")).collect()
}

#[tokio::test]
async fn a_transaction_is_done_in_whole_or_not_at_all_and_names_are_ordered_by_bytes() {
    let directory = TempDir::new().unwrap();
    let database = Database::make(directory.path()).await;
    let store = Store::open(&database.url, 4).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    sqlx::query("INSERT INTO organisations (id, name, created_ms) VALUES ('x', 'x', 0)")
        .execute(tx.connection())
        .await
        .unwrap();
    drop(tx);
    let mixed = ["a", "B", "_", "é", "Z", "a-b", "a b", "aa", "\u{1f600}", "~"];
    for name in mixed {
        add(&store, name, name).await.unwrap();
    }
    let mut ordered = mixed.to_vec();
    ordered.sort_unstable();
    assert_eq!(names(&store).await, ordered);
    assert_eq!(add(&store, "a", "again").await, Err(StoreError::Taken { what: "thing" }));
    let orphan = sqlx::query(
        "INSERT INTO environments (id, organisation_id, name, created_ms) VALUES ('e', 'none', 'e', 0)",
    );
    let refused = StoreError::from(orphan.execute(store.pool()).await.unwrap_err());
    assert_eq!(refused, StoreError::Broken { what: "a reference" });
    // Opened again, nothing is to be done; two at once do not fall over each other.
    let (one, two) = tokio::join!(Store::open(&database.url, 2), Store::open(&database.url, 2));
    assert_eq!(names(&one.unwrap()).await, names(&two.unwrap()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_that_block_one_another_are_both_done_in_the_end() {
    let directory = TempDir::new().unwrap();
    let database = Database::make(directory.path()).await;
    let store = Store::open(&database.url, 8).await.unwrap();
    add(&store, "a", "a").await.unwrap();
    add(&store, "b", "b").await.unwrap();
    let both = |first: &'static str, second: &'static str| {
        let store = store.clone();
        tokio::spawn(async move {
            retried(|| async {
                let mut tx = store.begin().await?;
                for id in [first, second] {
                    sqlx::query("UPDATE organisations SET created_ms = created_ms + 1 WHERE id = $1")
                        .bind(id)
                        .execute(tx.connection())
                        .await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                tx.commit().await
            })
            .await
        })
    };
    let (one, two) = (both("a", "b"), both("b", "a"));
    one.await.unwrap().unwrap();
    two.await.unwrap().unwrap();
    let rows = sqlx::query("SELECT created_ms FROM organisations").fetch_all(store.pool()).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get("created_ms")).collect::<Vec<i64>>(), [2, 2]);
}

/// Both take in the same entries of the same tables, at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_on_one_database_apply_each_entry_once() {
    let directory = TempDir::new().unwrap();
    let database = Database::make(directory.path()).await;
    let master = format!("key = \"{}\"", MasterKey::generate().as_str());
    let config = config(directory.path(), &database.url, &master);
    let made = organisation(&config, "acme").await;
    let planes = [Plane::start(config.clone()).await, Plane::start(config).await];
    let tenant = Arc::new(planes[0].tenant(made, "one").await);
    let planes: Vec<Arc<Plane>> = planes.into_iter().map(Arc::new).collect();
    let mut streams = Vec::new();
    for plane in &planes {
        for table in ["a", "b", "c"] {
            let (plane, tenant) = (Arc::clone(plane), Arc::clone(&tenant));
            streams.push(tokio::spawn(async move {
                for version in 0..30 {
                    let held = plane.report(&tenant, table, version, version + 1).await;
                    assert!(
                        held["version"].as_u64().unwrap() >= version && held["gap"] == Value::Null,
                        "{held}"
                    );
                }
            }));
        }
    }
    for stream in streams {
        stream.await.unwrap();
    }
    for table in ["a", "b", "c"] {
        let shown = planes[1].shown(&tenant, table).await;
        assert_eq!(
            (&shown[0]["version"], &shown[0]["files"], &shown[0]["rows"]),
            (&29.into(), &29.into(), &435.into())
        );
        assert_eq!(shown[2]["items"].as_array().unwrap().len(), 30);
    }
    // Each has a chain of its own to append to, and it is the same one.
    for plane in &planes {
        assert!(plane.app.audit.flush().await);
    }
    let (good, faults) = audit::verify(&planes[0].app.store).await.unwrap();
    assert!(good >= 180 && faults.is_empty(), "{good} {faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn audit_logs_of_two_servers_are_one_chain_and_pages_are_whole() {
    let directory = TempDir::new().unwrap();
    let database = Database::make(directory.path()).await;
    let (one, two) =
        (Store::open(&database.url, 4).await.unwrap(), Store::open(&database.url, 4).await.unwrap());
    let mut writers = Vec::new();
    for store in [&one, &two] {
        let (log, writer) = AuditLog::start(store.clone(), Clock::system());
        writers.push((log.clone(), writer));
        for at in 0..300 {
            log.note(Event {
                organisation: "o".to_owned(),
                actor: "system".to_owned(),
                action: format!("{at}"),
                resource: String::new(),
                outcome: Outcome::Changed,
                address: String::new(),
            })
            .await;
        }
    }
    for (log, writer) in writers {
        drop(log);
        writer.await.unwrap();
    }
    assert_eq!(audit::verify(&one).await.unwrap(), (600, vec![]));
    let (mut before, mut seen) = (i64::MAX, Vec::new());
    loop {
        let page = audit::before(&two, "o", before, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        before = last.sequence;
        seen.extend(page.iter().map(|entry| entry.sequence));
    }
    assert_eq!(seen, (1..=600).rev().collect::<Vec<_>>());
    // An entry is taken out of the middle.
    sqlx::query("DELETE FROM audit WHERE sequence = 300").execute(one.pool()).await.unwrap();
    assert_eq!(audit::verify(&one).await.unwrap().1.len(), 1);
}
