//! A server with an organisation, on a clock that tests move.

use std::{
    net::SocketAddr,
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
use tempfile::TempDir;

/// Some day in 2026.
const START_MS: i64 = 1_790_000_000_000;

pub(crate) struct Server {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub url: String,
    pub admin: String,
    pub http: reqwest::Client,
    pub hand: Arc<AtomicI64>,
    pub directory: TempDir,
    pub database: Database,
}

pub(crate) struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The cookies that it sets, as (name, value, attributes).
    pub(crate) fn cookies(&self) -> Vec<(String, String, String)> {
        let all = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let parts = all.map(|text| {
            let (pair, attributes) = text.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned(), attributes.trim().to_owned())
        });
        parts.collect()
    }

    pub(crate) fn cookie(&self, name: &str) -> String {
        let found = self.cookies().into_iter().find(|(one, _, _)| one == name);
        found.unwrap_or_else(|| panic!("no cookie {name}: {} {}", self.status, self.text)).1
    }
}

/// A config on a fresh database; `more` comes before its tables, `tables` after.
fn config(directory: &TempDir, database: &Database, more: &str, tables: &str) -> Config {
    let path = directory.path().join("config.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n{more}\n[database]\nurl = \"{}\"\n[master_key]\nkey = \"{}\"\n\
         [limits]\nrequests_per_second = 100000\nfailures_per_minute = 100000\n{tables}\n",
        database.url,
        MasterKey::generate().as_str(),
    );
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    pub(crate) async fn with(more: &str, tables: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let database = Database::make(directory.path()).await;
        let config = config(&directory, &database, more, tables);
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let hand = Arc::new(AtomicI64::new(START_MS));
        let clock = Clock::manual(Arc::clone(&hand));
        let (store, keys) = open(&config).await.unwrap();
        let made = setup::organisation(&store, &keys, &clock, "acme").await.unwrap();
        store.close().await;
        let app = App::start(config, clock).await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<SocketAddr>();
        let serving = Arc::clone(&app);
        tokio::spawn(async move {
            let bound = |address| sender.send(address).unwrap();
            serve::serve(serving, bound, std::future::pending()).await.unwrap();
        });
        let address = receiver.await.unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        Self {
            app,
            address,
            url: format!("{scheme}://{address}"),
            admin: made.key.reveal().to_string(),
            http,
            hand,
            directory,
            database,
        }
    }

    /// All that the database has in files here; of Postgres, nothing.
    pub(crate) fn stored(&self) -> Vec<Vec<u8>> {
        let names: &[&str] = if self.database.url.starts_with("sqlite") {
            &["control-plane.db", "control-plane.db-wal"]
        } else {
            &[]
        };
        names.iter().map(|name| std::fs::read(self.directory.path().join(name)).unwrap()).collect()
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.hand.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.hand.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }

    /// With an API key.
    pub(crate) async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let bearer = format!("Bearer {key}");
        let answer = self.send(method, path, &[("authorization", &bearer)], body.as_ref()).await;
        (answer.status, answer.json())
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.ask(&self.admin, method, path, body).await
    }

    pub(crate) async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.admin("POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// An environment and a cluster.
    pub(crate) async fn cluster(&self, name: &str) -> (String, String) {
        let environment = id(&self.made("/api/v1/environments", json!({ "name": name })).await);
        let path = format!("/api/v1/environments/{environment}/clusters");
        let cluster = id(&self.made(&path, json!({ "name": "main" })).await);
        (environment, cluster)
    }

    /// An account that has this role there, and a key of it.
    pub(crate) async fn key(&self, role: &str, resource: &str) -> Value {
        let name = format!("{role} {resource} {}", self.app.fresh_id());
        let account =
            id(&self.made("/api/v1/service-accounts", json!({ "name": &name[..name.len().min(100)] })).await);
        let binding = json!({ "service_account": account, "role": role, "resource": resource });
        self.made("/api/v1/role-bindings", binding).await;
        self.made("/api/v1/api-keys", json!({ "service_account": account, "label": "t" })).await
    }

    /// Entries of the audit log, newest first.
    pub(crate) async fn log(&self) -> Vec<Value> {
        let (_, log) = self.admin("GET", "/api/v1/audit?limit=1000", None).await;
        log["items"].as_array().unwrap().clone()
    }
}

pub(crate) fn id(made: &Value) -> String {
    made["id"].as_str().unwrap().to_owned()
}

pub(crate) fn secret(made: &Value) -> String {
    made["key"].as_str().unwrap().to_owned()
}
