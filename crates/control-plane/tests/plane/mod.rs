//! A server of a test's own, and what workers report to it.
#![allow(dead_code, reason = "not every test program needs all")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::database::Database;
use serde_json::{Value, json};
use siltstone_control_plane::{
    app::{App, open},
    clock::Clock,
    config::Config,
    crypto::MasterKey,
    serve, setup,
};

/// A server on a database that others may have filled.
pub(crate) struct Plane {
    pub(crate) app: Arc<App>,
    pub(crate) hand: Arc<AtomicI64>,
    url: String,
    http: reqwest::Client,
}

/// An organisation with one environment and one cluster.
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) admin: String,
    pub(crate) worker: String,
    pub(crate) environment: String,
    pub(crate) cluster: String,
}

/// A config file. `master_key` is the table's content.
pub(crate) fn config(directory: &Path, database: &str, master_key: &str) -> Config {
    let path = directory.join("config.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[database]\nurl = \"{database}\"\n[master_key]\n{master_key}\n\
         [limits]\nrequests_per_second = 5000\n"
    );
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

/// A database of a test's own, and a config with a master key of its own.
pub(crate) async fn fresh(directory: &Path) -> (Database, Config) {
    let database = Database::make(directory).await;
    let master = format!("key = \"{}\"", MasterKey::generate().as_str());
    let config = config(directory, &database.url, &master);
    (database, config)
}

/// Makes an organisation; its id and its admin's key.
pub(crate) async fn organisation(config: &Config, name: &str) -> (String, String) {
    let (store, keys) = open(config).await.unwrap();
    let made = setup::organisation(&store, &keys, &Clock::system(), name).await.unwrap();
    store.close().await;
    (made.organisation, made.key.reveal().to_string())
}

impl Plane {
    pub(crate) async fn start(config: Config) -> Self {
        let hand = Arc::new(AtomicI64::new(Clock::system().now_ms()));
        let app = App::start(config, Clock::manual(Arc::clone(&hand))).await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<SocketAddr>();
        let serving = Arc::clone(&app);
        tokio::spawn(async move {
            let bound = |address| sender.send(address).unwrap();
            serve::serve(serving, bound, std::future::pending()).await.unwrap();
        });
        let url = format!("http://{}", receiver.await.unwrap());
        Self { app, hand, url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(crate) fn later(&self, ms: i64) -> i64 {
        self.hand.fetch_add(ms, Ordering::SeqCst) + ms
    }

    pub(crate) async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let mut request = request.bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    /// Sends bytes that may be no JSON; the status and the text of the answer.
    pub(crate) async fn send(&self, key: &str, path: &str, body: Vec<u8>) -> (u16, String) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn made(&self, key: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(key, "POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// Everything is called by this name.
    pub(crate) async fn tenant(&self, (id, admin): (String, String), name: &str) -> Tenant {
        let of = |made: Value, field: &str| made[field].as_str().unwrap().to_owned();
        let environment = of(self.made(&admin, "/api/v1/environments", json!({ "name": name })).await, "id");
        let path = format!("/api/v1/environments/{environment}/clusters");
        let cluster = of(self.made(&admin, &path, json!({ "name": name })).await, "id");
        let account = of(self.made(&admin, "/api/v1/service-accounts", json!({ "name": name })).await, "id");
        let resource = format!("environment/{environment}/cluster/{cluster}");
        let binding = json!({ "service_account": account, "role": "worker", "resource": resource });
        self.made(&admin, "/api/v1/role-bindings", binding).await;
        let key = json!({ "service_account": account, "label": name });
        let worker = of(self.made(&admin, "/api/v1/api-keys", key).await, "key");
        Tenant { id, admin, worker, environment, cluster }
    }

    /// Another environment of an organisation.
    pub(crate) async fn tenant_beside(&self, tenant: &Tenant, name: &str) -> Tenant {
        self.tenant((tenant.id.clone(), tenant.admin.clone()), name).await
    }

    /// Sends entries `from..to` of a table; the version that is acknowledged.
    pub(crate) async fn report(&self, tenant: &Tenant, table: &str, from: u64, to: u64) -> Value {
        let entries: Vec<Value> = (from..to).map(|version| entry(table, version)).collect();
        let identity = json!({ "name": table, "location": format!("s3://lake/{table}"), "spec_digest": "ab",
            "source_format": "avro" });
        let body = json!({ "table": identity, "entries": entries });
        let (status, answer) = self.ask(&tenant.worker, "POST", "/worker/v1/report", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What is shown of a table: itself, its files and commits.
    pub(crate) async fn shown(&self, tenant: &Tenant, table: &str) -> Value {
        let path =
            format!("/api/v1/environments/{}/clusters/{}/tables/{table}", tenant.environment, tenant.cluster);
        let mut all = Vec::new();
        for below in ["", "/files?limit=1000", "/commits?limit=1000", "/offsets"] {
            let (status, answer) = self.ask(&tenant.admin, "GET", &format!("{path}{below}"), None).await;
            assert_eq!(status, 200, "{below} {answer}");
            all.push(answer);
        }
        Value::from(all)
    }
}

pub(crate) fn entry(table: &str, version: u64) -> Value {
    let file = json!({ "path": format!("data/{table}-{version}.parquet"), "bytes": 10 * version, "rows": version,
        "schema_id": 0, "spec_id": 0, "sort_order_id": 0 });
    let range =
        json!({ "cluster": "prod", "topic": table, "partition": 0, "start": version, "end": version + 1 });
    let schema = json!({ "type": "struct", "schema-id": 0,
        "fields": [{ "id": 1, "name": format!("column_{table}"), "required": true, "type": "long" }] });
    let change = match version {
        0 => json!({ "kind": "create", "name": table, "schema": schema, "formats": ["iceberg"],
            "partition_spec": { "spec-id": 0, "fields": [] }, "sort_order": { "order-id": 0, "fields": [] } }),
        _ => json!({ "kind": "append", "files": [file], "ranges": [range] }),
    };
    json!({ "format": 1, "version": version, "table_uuid": table, "commit_id": format!("c{version}"),
        "committed_ms": 1_000 + version, "change": change })
}
