//! The server as its clients see it: every endpoint, over HTTP. On SQLite; `server_postgres` is the same on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "database/mod.rs"]
mod database;

use std::{net::SocketAddr, sync::Arc};

use database::Database;

use serde_json::{Value, json};
use siltstone_control_plane::{
    app::{App, open},
    audit,
    auth::Permission,
    clock::Clock,
    config::Config,
    crypto::MasterKey,
    endpoints,
    housekeeping::{self, Kept},
    serve, setup,
};
use tempfile::TempDir;

struct Server {
    app: Arc<App>,
    url: String,
    admin: String,
    http: reqwest::Client,
    directory: TempDir,
    database: Database,
}

impl Server {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.toml");
        let database = Database::make(directory.path()).await;
        let text = format!(
            "listen = \"127.0.0.1:0\"\nregion = \"eu-west-1\"\n[database]\nurl = \"{}\"\n[master_key]\nkey = \"{}\"\n\
             [limits]\nrequests_per_second = 5000\n",
            database.url,
            MasterKey::generate().as_str(),
        );
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        let (store, keys) = open(&config).await.unwrap();
        let made = setup::organisation(&store, &keys, &Clock::system(), "acme").await.unwrap();
        store.close().await;
        let app = App::start(config, Clock::system()).await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<SocketAddr>();
        let serving = Arc::clone(&app);
        tokio::spawn(async move {
            let bound = |address| sender.send(address).unwrap();
            serve::serve(serving, bound, std::future::pending()).await.unwrap();
        });
        let url = format!("http://{}", receiver.await.unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { app, url, admin: made.key.reveal().to_string(), http, directory, database }
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(&self.admin, "POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// An environment and a cluster.
    async fn cluster(&self, name: &str) -> (String, String) {
        let environment = id(&self.made("/api/v1/environments", json!({ "name": name })).await);
        let path = format!("/api/v1/environments/{environment}/clusters");
        let cluster = id(&self.made(&path, json!({ "name": "main" })).await);
        (environment, cluster)
    }

    /// The key of an account that has this role there.
    async fn key(&self, role: &str, resource: &str) -> (String, String) {
        let name = format!("{role} {}", resource.len());
        let account = id(&self.made("/api/v1/service-accounts", json!({ "name": name })).await);
        let binding = json!({ "service_account": account, "role": role, "resource": resource });
        self.made("/api/v1/role-bindings", binding).await;
        let key = self.made("/api/v1/api-keys", json!({ "service_account": account, "label": "t" })).await;
        (key["key"].as_str().unwrap().to_owned(), id(&key))
    }
}

fn id(made: &Value) -> String {
    made["id"].as_str().unwrap().to_owned()
}

fn schema() -> Value {
    json!({ "type": "struct", "schema-id": 0, "fields": [{ "id": 1, "name": "a", "required": true, "type": "long" }] })
}

fn entry(version: u64, change: Value) -> Value {
    json!({
        "format": 1, "version": version, "table_uuid": "u1", "commit_id": format!("c{version}"),
        "committed_ms": 1_000 + version, "change": change,
    })
}

fn create() -> Value {
    json!({
        "kind": "create", "name": "shop.orders", "schema": schema(), "partition_spec": { "spec-id": 0, "fields": [] },
        "sort_order": { "order-id": 0, "fields": [] }, "formats": ["iceberg", "delta"],
    })
}

fn file(name: &str, rows: u64) -> Value {
    json!({ "path": format!("data/{name}.parquet"), "bytes": rows * 10, "rows": rows, "schema_id": 0, "spec_id": 0,
        "sort_order_id": 0 })
}

fn append(name: &str, rows: u64, start: u64) -> Value {
    let range =
        json!({ "cluster": "prod", "topic": "orders", "partition": 0, "start": start, "end": start + rows });
    json!({ "kind": "append", "files": [file(name, rows)], "ranges": [range] })
}

fn report(entries: Vec<Value>) -> Value {
    json!({ "table": identity(), "entries": entries })
}

fn identity() -> Value {
    json!({ "name": "shop.orders", "location": "s3://lake/shop/orders", "spec_digest": "ab", "source_format": "avro" })
}

#[tokio::test]
async fn reports_are_applied_once_in_order_and_gaps_are_refused() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("prod").await;
    let (worker, _) = server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await;
    let send = async |body: Value| server.ask(&worker, "POST", "/worker/v1/report", Some(body)).await;

    assert_eq!(send(report(vec![])).await, (200, json!({ "version": null })));
    let first = report(vec![entry(0, create()), entry(1, append("a", 10, 0)), entry(2, append("b", 5, 10))]);
    for _ in 0..2 {
        assert_eq!(send(first.clone()).await, (200, json!({ "version": 2 })));
    }
    // An entry is missing between: nothing is taken, and the answer says where it stands.
    let gap = report(vec![entry(4, append("d", 1, 16))]);
    assert_eq!(send(gap).await, (200, json!({ "version": 2, "gap": true })));
    let replace = json!({ "kind": "replace", "removed": ["data/a.parquet", "data/b.parquet"], "added": [file("c", 15)] });
    let cut = json!({ "kind": "delete", "removed": ["data/c.parquet"], "added": [file("e", 4)] });
    let more = report(vec![entry(2, append("b", 5, 10)), entry(3, replace), entry(4, cut)]);
    assert_eq!(send(more).await, (200, json!({ "version": 4 })));

    let path = format!("/api/v1/environments/{environment}/clusters/{cluster}/tables");
    let (_, list) = server.ask(&server.admin, "GET", &path, None).await;
    let table = &list["items"][0];
    assert_eq!(table["name"], "shop.orders");
    assert_eq!((&table["rows"], &table["files"], &table["bytes"]), (&json!(4), &json!(1), &json!(40)));
    let (_, one) = server.ask(&server.admin, "GET", &format!("{path}/shop.orders"), None).await;
    assert_eq!(one["schema"], schema());
    assert_eq!(one["location"], "s3://lake/shop/orders");
    let (_, files) = server.ask(&server.admin, "GET", &format!("{path}/shop.orders/files"), None).await;
    assert_eq!(files["items"][0]["path"], "data/e.parquet");
    assert_eq!(files["items"].as_array().unwrap().len(), 1);
    let (_, commits) =
        server.ask(&server.admin, "GET", &format!("{path}/shop.orders/commits?limit=2"), None).await;
    let versions: Vec<_> =
        commits["items"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect();
    assert_eq!(versions, [json!(4), json!(3)]);
    assert_eq!(commits["next_cursor"], "3");
    let (_, offsets) = server.ask(&server.admin, "GET", &format!("{path}/shop.orders/offsets"), None).await;
    assert_eq!(
        (&offsets["items"][0]["min_offset"], &offsets["items"][0]["max_offset"]),
        (&json!(0), &json!(15))
    );

    // Made anew under the same name: what was held goes.
    let mut anew = entry(0, create());
    anew["table_uuid"] = json!("u2");
    assert_eq!(send(report(vec![anew])).await, (200, json!({ "version": 0 })));
    let (_, files) = server.ask(&server.admin, "GET", &format!("{path}/shop.orders/files"), None).await;
    assert_eq!(files["items"], json!([]));
    // No path is readable in the database file.
    if server.database.is_file() {
        let stored = std::fs::read(server.directory.path().join("control-plane.db-wal")).unwrap();
        assert!(!stored.windows(8).any(|window| window == b".parquet"));
    }
}

#[tokio::test]
async fn an_image_replaces_a_table_when_its_last_part_has_come() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("prod").await;
    let (worker, _) = server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await;
    let part = |part: u32, files: Vec<Value>| {
        json!({
            "table": identity(), "table_uuid": "u1", "version": 70, "committed_ms": 5, "image_id": "i1", "part": part,
            "parts": 2, "schema": schema(), "partition_spec": { "spec-id": 0, "fields": [] },
            "sort_order": { "order-id": 0, "fields": [] }, "formats": ["iceberg"], "files": files,
            "ranges": if part == 0 {
                json!([{ "cluster": "prod", "topic": "orders", "partition": 3, "start": 0, "end": 9 }])
            } else {
                json!([])
            },
        })
    };
    let send = async |body: Value| server.ask(&worker, "POST", "/worker/v1/image", Some(body)).await;
    assert_eq!(send(part(0, vec![file("a", 1)])).await, (200, json!({ "version": null })));
    assert_eq!(send(part(0, vec![file("a", 1)])).await, (200, json!({ "version": null })));
    assert_eq!(send(part(1, vec![file("b", 2)])).await, (200, json!({ "version": 70 })));
    assert_eq!(send(part(1, vec![file("b", 2)])).await, (200, json!({ "version": 70 })));
    let next = report(vec![entry(71, append("c", 3, 9))]);
    assert_eq!(
        server.ask(&worker, "POST", "/worker/v1/report", Some(next)).await,
        (200, json!({ "version": 71 }))
    );
    let path = format!("/api/v1/environments/{environment}/clusters/{cluster}/tables/shop.orders");
    let (_, table) = server.ask(&server.admin, "GET", &path, None).await;
    assert_eq!((&table["rows"], &table["files"]), (&json!(6), &json!(3)));
}

/// Every endpoint x every role, on its own resource and on that of another environment.
#[tokio::test]
async fn rights_are_as_the_table_says_everywhere() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let (other, other_cluster) = server.cluster("two").await;
    let here = format!("environment/{environment}/cluster/{cluster}");
    let roles = [
        ("organisation_admin", "organisation".to_owned()),
        ("environment_admin", format!("environment/{environment}")),
        ("operator", format!("environment/{environment}")),
        ("metadata_reader", format!("{here}/table/shop.*")),
        ("worker", here.clone()),
    ];
    for (role, bound) in roles {
        let (key, _) = server.key(role, &bound).await;
        let role = siltstone_control_plane::auth::Role::parse(role).unwrap();
        for endpoint in endpoints::all() {
            if matches!(endpoint.permission, Permission::Public | Permission::Session) {
                continue;
            }
            for (environment, cluster, is_here) in
                [(&environment, &cluster, true), (&other, &other_cluster, false)]
            {
                let path = endpoint
                    .path
                    .replace("{environment}", environment)
                    .replace("{cluster}", cluster)
                    .replace("{table}", "shop.none")
                    .replace("{service_account}", "none")
                    .replace("{role_binding}", "none")
                    .replace("{api_key}", "none")
                    .replace("{user}", "none")
                    .replace("{ip_allow_list}", "none");
                // Deleting what the test stands on would end it.
                if endpoint.method == "DELETE"
                    && ["deleteOrganisation", "deleteEnvironment", "deleteCluster"]
                        .contains(&endpoint.operation)
                {
                    continue;
                }
                let body = endpoint.request.map(|_| json!({}));
                let (status, answer) = server.ask(&key, endpoint.method.as_str(), &path, body).await;
                let gives = role.permissions().contains(&endpoint.permission);
                let about_tree = endpoint.path.contains("{environment}");
                let organisation_wide = bound == "organisation";
                let in_tree = if about_tree {
                    is_here
                } else {
                    endpoint.filtered || endpoint.permission == Permission::Report
                };
                let on_table =
                    !bound.contains("/table/") || endpoint.path.contains("{table}") || endpoint.filtered;
                let allowed = gives && (organisation_wide || (in_tree && on_table));
                assert_eq!(status != 403, allowed, "{endpoint:?} {role:?} here {is_here}: {status} {answer}");
            }
        }
    }
}

#[tokio::test]
async fn keys_that_do_not_count_are_refused_and_all_is_written_down() {
    let server = Server::start().await;
    let (environment, _) = server.cluster("one").await;
    let (key, key_id) = server.key("metadata_reader", &format!("environment/{environment}")).await;
    let path = format!("/api/v1/environments/{environment}/clusters");
    assert_eq!(server.ask(&key, "GET", &path, None).await.0, 200);
    let (_, rotated) = server
        .ask(
            &server.admin,
            "POST",
            &format!("/api/v1/api-keys/{key_id}/rotate"),
            Some(json!({ "overlap_seconds": 3600 })),
        )
        .await;
    let successor = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!(server.ask(&key, "GET", &path, None).await.0, 200);
    assert_eq!(server.ask(&successor, "GET", &path, None).await.0, 200);
    let revoked = server.ask(&server.admin, "DELETE", &format!("/api/v1/api-keys/{key_id}"), None).await;
    assert_eq!(revoked.0, 204);
    assert_eq!(server.ask(&key, "GET", &path, None).await.0, 401);
    let mut wrong = successor.clone();
    let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
    wrong.push(last);
    for key in ["", "sst_x", &wrong] {
        let (status, problem) = server.ask(key, "GET", &path, None).await;
        assert_eq!(
            (status, &problem["type"]),
            (401, &json!("urn:siltstone:problem:unauthenticated")),
            "{problem}"
        );
    }
    // Another organisation's admin sees nothing, as if it were not there.
    let foreign =
        setup::organisation(&server.app.store, &server.app.keys, &Clock::system(), "evil").await.unwrap();
    let (status, _) = server.ask(&foreign.key.reveal(), "GET", &path, None).await;
    assert_eq!(status, 404);

    let (_, log) = server.ask(&server.admin, "GET", "/api/v1/audit?limit=1000", None).await;
    let entries = log["items"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .any(|entry| entry["action"] == "DELETE /api/v1/api-keys/{api_key}"
                && entry["outcome"] == "changed")
    );
    assert!(!log.to_string().contains(&successor));
    let (good, faults) = audit::verify(&server.app.store).await.unwrap();
    assert!(good > 10 && faults.is_empty(), "{good} {faults:?}");
    sqlx::query("UPDATE audit SET actor = 'nobody' WHERE sequence = 3")
        .execute(server.app.store.pool())
        .await
        .unwrap();
    assert!(!audit::verify(&server.app.store).await.unwrap().1.is_empty());
}

#[tokio::test]
async fn what_is_old_leaves_and_the_audit_log_still_holds() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let path = format!("/api/v1/environments/{environment}/clusters/{cluster}");
    let (worker, _) = server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await;
    let entries = (0..5).map(|version| match version {
        0 => entry(0, create()),
        _ => entry(version, append(&format!("f{version}"), 1, version)),
    });
    let reported = report(entries.collect());
    assert_eq!(server.ask(&worker, "POST", "/worker/v1/report", Some(reported)).await.0, 200);
    server.made(&format!("{path}/tables/shop.orders/commands"), json!({ "action": "compact" })).await;
    let versions = async || {
        let (_, commits) =
            server.ask(&server.admin, "GET", &format!("{path}/tables/shop.orders/commits"), None).await;
        commits["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["version"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let commands = async || {
        let (_, commands) = server.ask(&server.admin, "GET", &format!("{path}/commands"), None).await;
        commands["items"].as_array().unwrap().len()
    };
    assert!(server.app.audit.flush().await);
    let before = audit::verify(&server.app.store).await.unwrap();
    let kept = Kept { commits: 2, ..Kept::with_audit_days(365) };
    let now_ms = Clock::system().now_ms();
    housekeeping::round(&server.app.store, kept, now_ms).await.unwrap();
    assert_eq!((versions().await, commands().await), (vec![4, 3], 1));
    let year_and_a_day = 366 * 24 * 3_600_000;
    // While there is an export, what it has yet to send stays; without one, all that is old goes.
    let mut tx = server.app.store.begin().await.unwrap();
    let export =
        "INSERT INTO audit_exports (organisation_id, sequence) SELECT organisation_id, 2 FROM audit_heads";
    let chains = sqlx::query(export).execute(tx.connection()).await.unwrap().rows_affected();
    tx.commit().await.unwrap();
    assert!(server.app.audit.flush().await);
    let (all, _) = audit::verify(&server.app.store).await.unwrap();
    let exporting = Kept { until_exported: true, ..kept };
    housekeeping::round(&server.app.store, exporting, now_ms + year_and_a_day).await.unwrap();
    assert_eq!(audit::verify(&server.app.store).await.unwrap(), (all - 2 * chains, Vec::new()));
    housekeeping::round(&server.app.store, kept, now_ms + year_and_a_day).await.unwrap();
    assert!(server.app.audit.flush().await);
    let (left, faults) = audit::verify(&server.app.store).await.unwrap();
    assert!(left < before.0 && faults.is_empty(), "{left} of {before:?}, {faults:?}");
    assert_eq!(commands().await, 0);
    assert!(server.app.audit.flush().await);
    assert!(audit::verify(&server.app.store).await.unwrap().1.is_empty());
}

#[tokio::test]
async fn requests_without_a_key_are_bounded_and_hold_up_nobody() {
    let server = Server::start().await;
    let url = format!("{}/api/v1/organisation", server.url);
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(server.http.get(&url).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses[..30], [401; 30]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.ask(&server.admin, "GET", "/api/v1/organisation", None).await.0, 200);
}

#[tokio::test]
async fn what_breaks_a_bound_is_refused_with_a_reason() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let (worker, _) = server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await;
    let tables = format!("/api/v1/environments/{environment}/clusters/{cluster}/tables");
    let mut hostile = report(vec![entry(0, create())]);
    hostile["table"]["name"] = json!("a'; DROP TABLE tables; --");
    assert_eq!(server.ask(&worker, "POST", "/worker/v1/report", Some(hostile)).await.0, 200);
    assert_eq!(server.ask(&server.admin, "GET", &tables, None).await.1["items"].as_array().unwrap().len(), 1);
    for (field, value) in
        [("name", json!("")), ("name", json!("a\u{0}b")), ("location", json!("x".repeat(5_000)))]
    {
        let mut wrong = report(vec![]);
        wrong["table"][field] = value;
        assert_eq!(server.ask(&worker, "POST", "/worker/v1/report", Some(wrong)).await.0, 400, "{field}");
    }
    let mut unknown = report(vec![]);
    unknown["note"] = json!("free text");
    assert_eq!(server.ask(&worker, "POST", "/worker/v1/report", Some(unknown)).await.0, 400);
    let large = json!({ "name": "x".repeat(100_000) });
    assert_eq!(server.ask(&server.admin, "POST", "/api/v1/environments", Some(large)).await.0, 413);
    for query in ["?limit=0", "?limit=x", "?limit=1&limit=2", "?order=1", "?prefix=%00"] {
        assert_eq!(
            server.ask(&server.admin, "GET", &format!("{tables}{query}"), None).await.0,
            400,
            "{query}"
        );
    }
    let plain = server.http.post(format!("{}/api/v1/environments", server.url)).bearer_auth(&server.admin);
    assert_eq!(plain.body("{}").send().await.unwrap().status(), 415);
    let region = server.http.get(format!("{}{tables}", server.url)).bearer_auth(&server.admin);
    let elsewhere = region.header("siltstone-region", "us-east-1").send().await.unwrap();
    assert_eq!(elsewhere.status(), 421);
    assert_eq!(server.ask(&server.admin, "PUT", "/api/v1/environments", None).await.0, 405);
    assert_eq!(server.ask(&server.admin, "GET", "/api/v1/../v1/audit/x", None).await.0, 404);
}

#[tokio::test]
async fn commands_are_fetched_once_and_end_with_an_outcome() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let (worker, _) = server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await;
    let reported = report(vec![entry(0, create())]);
    assert_eq!(server.ask(&worker, "POST", "/worker/v1/report", Some(reported)).await.0, 200);
    let table = format!("/api/v1/environments/{environment}/clusters/{cluster}/tables/shop.orders/commands");
    let poll = async |id: &str, seconds: u16| {
        let body = json!({ "worker_id": id, "wait_seconds": seconds });
        server.ask(&worker, "POST", "/worker/v1/commands/poll", Some(body)).await.1["commands"].clone()
    };
    assert_eq!(poll("w1", 0).await, json!([]));
    // A poll that waits hears of a command that comes meanwhile.
    let (waited, compact) = tokio::join!(poll("w1", 20), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        server.made(&table, json!({ "action": "compact" })).await
    });
    assert_eq!(waited[0]["id"], compact["id"]);
    assert_eq!((&waited[0]["action"], &waited[0]["table"]), (&json!("compact"), &json!("shop.orders")));
    assert_eq!(poll("w2", 0).await, json!([]), "one worker has it");
    server.made(&table, json!({ "action": "pause" })).await;
    for id in ["w1", "w2"] {
        assert_eq!(poll(id, 0).await[0]["action"], "pause", "each worker has it");
    }
    let outcome = json!({ "worker_id": "w1", "command_id": compact["id"], "outcome": { "result": "done" } });
    for _ in 0..2 {
        let ended = server.ask(&worker, "POST", "/worker/v1/commands/outcome", Some(outcome.clone())).await;
        assert_eq!(ended.0, 200);
    }
    let list = format!("/api/v1/environments/{environment}/clusters/{cluster}/commands");
    let (_, list) = server.ask(&server.admin, "GET", &list, None).await;
    assert_eq!(list["items"][1]["outcomes"][0]["outcome"], "done");
    assert_eq!(list["items"][1]["outcomes"].as_array().unwrap().len(), 1);
    let unknown = table.replace("shop.orders", "none");
    assert_eq!(
        server.ask(&server.admin, "POST", &unknown, Some(json!({ "action": "compact" }))).await.0,
        404
    );
}
