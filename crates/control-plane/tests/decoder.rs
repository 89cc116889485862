//! What workers send, broken in every way a seed can think of: it is taken or refused, and the server goes on.
//!
//! `SILTSTONE_FUZZ_SEED` and `SILTSTONE_FUZZ_CASES` choose others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "database/mod.rs"]
mod database;
#[path = "plane/mod.rs"]
mod plane;

use plane::{Plane, entry, fresh, organisation};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tempfile::TempDir;

const CASES: u64 = 3_000;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// One good message of each kind.
fn messages() -> Vec<(&'static str, Value)> {
    let identity =
        json!({ "name": "t", "location": "s3://lake/t", "spec_digest": "ab", "source_format": "avro" });
    let schema = json!({ "type": "struct", "schema-id": 0,
        "fields": [{ "id": 1, "name": "a", "required": true, "type": "long" }] });
    let file = json!({ "path": "data/a.parquet", "bytes": 10, "rows": 1, "schema_id": 0, "spec_id": 0,
        "sort_order_id": 0 });
    vec![
        ("report", json!({ "table": identity, "entries": [entry("t", 0), entry("t", 1), entry("t", 2)] })),
        (
            "image",
            json!({ "table": identity, "image_id": "i", "part": 0, "parts": 1, "version": 9, "table_uuid": "t",
                "committed_ms": 9, "schema": schema, "formats": ["iceberg"], "files": [file],
                "partition_spec": { "spec-id": 0, "fields": [] }, "sort_order": { "order-id": 0, "fields": [] },
                "ranges": [], "statistics": [] }),
        ),
        (
            "health",
            json!({ "worker_id": "w", "at_ms": 1, "tables": [{ "table": "t", "state": "running", "partitions": 1 }] }),
        ),
        (
            "presence",
            json!({ "worker_id": "w", "program_version": "1", "started_ms": 1, "vcpus": 1, "tables": 1,
                "utilisation_percent": 1, "memory_bytes": 1 }),
        ),
        (
            "events",
            json!({ "worker_id": "w", "events": [{ "code": "committed", "table": "t", "count": 1 }] }),
        ),
        (
            "profile",
            json!({ "worker_id": "w", "duration_ms": 1, "functions": [{ "function": "f", "samples": 1 }] }),
        ),
        ("commands/outcome", json!({ "worker_id": "w", "command_id": "c", "outcome": { "result": "done" } })),
    ]
}

/// Another value of any type, the extremes among them.
fn strange(dice: &mut StdRng) -> Value {
    let values = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5e300),
        json!(""),
        json!("\u{0}'; DROP TABLE tables; --"),
        json!("x".repeat(5_000)),
        json!("../../etc/passwd"),
        json!([]),
        json!({}),
        json!([[[[]]]]),
    ];
    values.choose(dice).unwrap().clone()
}

/// Changes, drops, doubles or adds something somewhere within.
fn broken(value: &mut Value, dice: &mut StdRng) {
    match value {
        Value::Object(members) if !members.is_empty() && dice.random_bool(0.8) => {
            let name = members.keys().nth(dice.random_range(0..members.len())).unwrap().clone();
            match dice.random_range(0..8) {
                0 => drop(members.remove(&name)),
                1 => drop(members.insert(format!("{name}_"), Value::Null)),
                _ => broken(members.get_mut(&name).unwrap(), dice),
            }
        }
        Value::Array(items) if !items.is_empty() && dice.random_bool(0.8) => {
            let at = dice.random_range(0..items.len());
            match dice.random_range(0..8) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => broken(&mut items[at], dice),
            }
        }
        other => *other = strange(dice),
    }
}

/// Bytes are flipped, cut out or doubled.
fn torn(bytes: &mut Vec<u8>, dice: &mut StdRng) {
    for _ in 0..dice.random_range(1..4) {
        let at = dice.random_range(0..bytes.len().max(1));
        match dice.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(..at.min(bytes.len())),
            _ if at < bytes.len() => bytes[at] = dice.random(),
            _ => bytes.push(dice.random()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_are_taken_or_refused() {
    let directory = TempDir::new().unwrap();
    let (_database, config) = fresh(directory.path()).await;
    let made = organisation(&config, "acme").await;
    let plane = Plane::start(config).await;
    let tenant = plane.tenant(made, "one").await;
    plane.report(&tenant, "kept", 0, 20).await;
    let before = plane.shown(&tenant, "kept").await;
    let seed = from_environment("SILTSTONE_FUZZ_SEED", 1);
    let mut dice = StdRng::seed_from_u64(seed);
    let (messages, mut taken, mut refused) = (messages(), 0, 0);
    for (path, good) in &messages {
        let (status, answer) =
            plane.send(&tenant.worker, &format!("/worker/v1/{path}"), good.to_string().into()).await;
        // No such command was given.
        assert!(status == 200 || (*path == "commands/outcome" && status == 404), "{path}: {status} {answer}");
    }
    for case in 0..from_environment("SILTSTONE_FUZZ_CASES", CASES) {
        let (path, mut message) = messages.choose(&mut dice).unwrap().clone();
        for _ in 0..dice.random_range(0..4) {
            broken(&mut message, &mut dice);
        }
        let mut body = message.to_string().into_bytes();
        if dice.random_bool(0.3) {
            torn(&mut body, &mut dice);
        }
        let (status, answer) = plane.send(&tenant.worker, &format!("/worker/v1/{path}"), body.clone()).await;
        match status {
            200 => taken += 1,
            400 | 404 | 409 | 413 => refused += 1,
            _ => panic!(
                "seed {seed}, case {case}: {path} {status} {answer} for {:?}",
                String::from_utf8_lossy(&body)
            ),
        }
    }
    assert!(taken > 100 && refused > 100, "taken {taken}, refused {refused}");
    assert_eq!(plane.shown(&tenant, "kept").await, before, "a table that nobody named was changed");
}
