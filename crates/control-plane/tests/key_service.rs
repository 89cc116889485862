//! A master key that stays in a key service: over TLS, with its faults, and from there back into a file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "database/mod.rs"]
mod database;
#[path = "plane/mod.rs"]
mod plane;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use axum_server::tls_rustls::RustlsConfig;
use database::Database;
use plane::{Plane, config, organisation};
use serde_json::{Value, json};
use siltstone_control_plane::{
    app::open,
    config::Config,
    crypto::{CryptoError, MasterKey, Token, VaultKey},
    store::StoreError,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

const TOKEN: &str = "hvs.token-of-the-test";

/// Keeps what it is given, and gives a number for it.
#[derive(Default)]
struct Vault {
    plain: Mutex<Vec<String>>,
    asked: AtomicU32,
    /// So many requests fail with 503.
    failing: AtomicU32,
    /// So many are answered with what is no answer.
    babbling: AtomicU32,
}

impl Vault {
    fn fault(&self, headers: &HeaderMap) -> Option<(StatusCode, Json<Value>)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let due = |count: &AtomicU32| {
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        if headers.get("x-vault-token").is_none_or(|token| token != TOKEN) {
            return Some((StatusCode::FORBIDDEN, Json(json!({ "errors": ["permission denied"] }))));
        }
        if due(&self.failing) {
            return Some((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "errors": ["sealed"] }))));
        }
        due(&self.babbling).then(|| (StatusCode::OK, Json(json!({ "data": {} }))))
    }
}

async fn encrypt(
    State(vault): State<Arc<Vault>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    if let Some(fault) = vault.fault(&headers) {
        return fault;
    }
    let mut plain = vault.plain.lock().unwrap();
    plain.push(body["plaintext"].as_str().unwrap().to_owned());
    (StatusCode::OK, Json(json!({ "data": { "ciphertext": format!("vault:v1:{}", plain.len() - 1) } })))
}

async fn decrypt(
    State(vault): State<Arc<Vault>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    if let Some(fault) = vault.fault(&headers) {
        return fault;
    }
    let at =
        body["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:").unwrap().parse::<usize>().unwrap();
    match vault.plain.lock().unwrap().get(at) {
        Some(plain) => (StatusCode::OK, Json(json!({ "data": { "plaintext": plain } }))),
        None => {
            (StatusCode::BAD_REQUEST, Json(json!({ "errors": ["cipher: message authentication failed"] })))
        }
    }
}

/// Over TLS, with a certificate of an authority of its own, whose file it gives.
async fn vault(directory: &Path) -> (Arc<Vault>, SocketAddr, PathBuf) {
    let openssl = |arguments: &str| {
        let made =
            Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{arguments}: {made:?}");
    };
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    std::fs::write(directory.join("server.ext"), names).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=vault -keyout vault.key -out vault.csr"));
    openssl(
        "x509 -req -in vault.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out vault.pem",
    );
    let (key, certificate) = (directory.join("vault.key"), directory.join("vault.pem"));
    // Whoever is first says which cryptography; the server under test brings its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = RustlsConfig::from_pem_file(&certificate, &key).await.unwrap();
    let vault = Arc::new(Vault::default());
    let router = Router::new()
        .route("/v1/transit/encrypt/siltstone", post(encrypt))
        .route("/v1/transit/decrypt/siltstone", post(decrypt))
        .with_state(Arc::clone(&vault));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    tokio::spawn(async move { server.serve(router.into_make_service()).await.unwrap() });
    (vault, address, directory.join("ca.pem"))
}

fn with_vault(directory: &Path, database: &str, address: SocketAddr, authority: &Path, more: &str) -> Config {
    let token = directory.join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let master = format!(
        "key = \"vault:https://{address}/v1/transit/keys/siltstone\"\ntoken = \"file:{}\"\nca_file = \"{}\"\n{more}",
        token.display(),
        authority.display()
    );
    config(directory, database, &master)
}

#[tokio::test]
async fn data_keys_are_wrapped_by_the_key_service_and_it_is_asked_once_for_each() {
    let directory = TempDir::new().unwrap();
    let (vault, address, authority) = vault(directory.path()).await;
    let database = Database::make(directory.path()).await;
    let served = with_vault(directory.path(), &database.url, address, &authority, "");
    // It is away for a moment, and that is nothing.
    vault.failing.store(2, Ordering::SeqCst);
    let made = organisation(&served, "acme").await;
    assert_eq!(vault.asked.load(Ordering::SeqCst), 4);
    let plane = Plane::start(served.clone()).await;
    let tenant = plane.tenant(made.clone(), "one").await;
    plane.report(&tenant, "a", 0, 5).await;
    assert_eq!(vault.asked.load(Ordering::SeqCst), 6);
    // The service goes away: what was opened stays open, though it is read anew.
    vault.failing.store(1_000, Ordering::SeqCst);
    plane.later(60_000);
    plane.report(&tenant, "a", 5, 6).await;
    let shown = plane.shown(&tenant, "a").await;
    assert_eq!(vault.asked.load(Ordering::SeqCst), 6);

    // A start while it is away: the database is there, its columns are not, and it says so.
    let (_, keys) = open(&served).await.unwrap();
    let away = keys.of(&made.0).await.unwrap_err();
    assert_eq!(away, StoreError::Unavailable { what: "the key service does not answer" });
    vault.failing.store(0, Ordering::SeqCst);
    vault.babbling.store(1, Ordering::SeqCst);
    assert!(matches!(keys.of(&made.0).await, Err(StoreError::Unavailable { .. })));
    keys.of(&made.0).await.unwrap();

    // From the key service into a file, and back. No data key is in clear on the way.
    let file = MasterKey::generate();
    let back = format!(
        "previous = [\"vault:https://{address}/v1/transit/keys/siltstone\"]\ntoken = \"{TOKEN}\"\nca_file = \"{}\"\n",
        authority.display()
    );
    let moved = config(directory.path(), &database.url, &format!("key = \"{}\"\n{back}", file.as_str()));
    assert_eq!(open(&moved).await.unwrap().1.rewrap().await.unwrap(), 2);
    let alone = config(directory.path(), &database.url, &format!("key = \"{}\"", file.as_str()));
    let keys = open(&alone).await.unwrap().1;
    keys.of(&made.0).await.unwrap();
    assert_eq!(keys.rewrap().await.unwrap(), 0);
    let more = format!("previous = [\"{}\"]", file.as_str());
    let returned = with_vault(directory.path(), &database.url, address, &authority, &more);
    assert_eq!(open(&returned).await.unwrap().1.rewrap().await.unwrap(), 2);
    let plane = Plane::start(with_vault(directory.path(), &database.url, address, &authority, "")).await;
    assert_eq!(plane.shown(&tenant, "a").await, shown);
    let report = plane.report(&tenant, "a", 6, 7).await;
    assert_eq!(report["version"], 6);
}

#[tokio::test]
async fn a_key_of_another_row_or_an_unknown_authority_or_a_wrong_token_opens_nothing() {
    let directory = TempDir::new().unwrap();
    let (vault, address, authority) = vault(directory.path()).await;
    let database = Database::make(directory.path()).await;
    let right = with_vault(directory.path(), &database.url, address, &authority, "");
    let (id, _) = organisation(&right, "acme").await;
    let url = format!("key = \"vault:https://{address}/v1/transit/keys/siltstone\"\n");
    let ca = format!("ca_file = \"{}\"\n", authority.display());

    let asked = vault.asked.load(Ordering::SeqCst);
    let stranger = config(directory.path(), &database.url, &format!("{url}token = \"{TOKEN}\""));
    let away = open(&stranger).await.unwrap().1.of(&id).await.unwrap_err();
    assert_eq!(away, StoreError::Unavailable { what: "the key service does not answer" });
    assert_eq!(vault.asked.load(Ordering::SeqCst), asked, "the token went nowhere");

    let wrong = config(directory.path(), &database.url, &format!("{url}token = \"wrong\"\n{ca}"));
    let refused = open(&wrong).await.unwrap().1.of(&id).await.unwrap_err();
    assert_eq!(refused, StoreError::Unavailable { what: "it refuses the token" });
    assert_eq!(vault.asked.load(Ordering::SeqCst), asked + 1, "it is not asked again");

    // Two rows change places.
    let (store, keys) = open(&right).await.unwrap();
    let rows =
        sqlx::query("SELECT id, wrapped FROM data_keys ORDER BY id").fetch_all(store.pool()).await.unwrap();
    let of = |at: usize| {
        (sqlx::Row::get::<String, _>(&rows[at], "id"), sqlx::Row::get::<Vec<u8>, _>(&rows[1 - at], "wrapped"))
    };
    for (id, wrapped) in [of(0), of(1)] {
        let change = sqlx::query("UPDATE data_keys SET wrapped = $2 WHERE id = $1").bind(id).bind(wrapped);
        change.execute(store.pool()).await.unwrap();
    }
    assert!(matches!(keys.of(&id).await, Err(StoreError::Broken { .. })));
}

#[test]
fn urls_that_would_give_the_token_away_are_refused() {
    for (url, part) in [
        ("http://vault.example/v1/transit/keys/a", "https"),
        ("https://a:b@vault.example/v1/transit/keys/a", "token"),
        ("https://vault.example/v1/transit/keys/a?x=1", "token"),
        ("https://vault.example/v1/transit/a", "/keys/NAME"),
        ("https://vault.example/v1/transit/keys/", "/keys/NAME"),
        ("vault.example", "URL"),
    ] {
        let refused = VaultKey::new(url, token(), None).unwrap_err();
        assert!(matches!(refused, CryptoError::BadVault { .. }), "{url}");
        assert!(refused.to_string().contains(part), "{url}: {refused}");
    }
    let key = VaultKey::new("https://v.example/v1/transit/keys/a", token(), None).unwrap();
    assert!(!format!("{:?} {:?}", key, MasterKey::vault(key_again())).contains(TOKEN));
}

fn token() -> Token {
    Arc::new(|| Some(Zeroizing::new(TOKEN.to_owned())))
}

fn key_again() -> VaultKey {
    VaultKey::new("http://localhost:8200/v1/transit/keys/a", token(), None).unwrap()
}
