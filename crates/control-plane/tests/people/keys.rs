//! API keys that must not count, on every endpoint there is.

use std::time::{Duration, Instant};

use serde_json::json;
use siltstone_control_plane::{
    auth::{ApiKey, Permission},
    clock::Clock,
    endpoints::{self, Endpoint},
    setup,
};

use super::support::{Server, id, secret};

/// The path with something for each of its parts.
pub(crate) fn path(endpoint: &Endpoint, environment: &str, cluster: &str) -> String {
    let parts = endpoint.path.split('/').map(|part| match part {
        "{environment}" => environment,
        "{cluster}" => cluster,
        part if part.starts_with('{') => "none",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// What needs a credential.
pub(crate) fn guarded() -> impl Iterator<Item = Endpoint> {
    endpoints::all().into_iter().filter(|endpoint| endpoint.permission != Permission::Public)
}

fn with_another_secret(key: &str) -> String {
    let other = ApiKey::generate(1).reveal();
    let (id, secret) = (key.split('_').nth(1).unwrap(), other.splitn(3, '_').nth(2).unwrap());
    format!("sst_{id}_{secret}")
}

#[tokio::test]
async fn no_endpoint_takes_a_key_that_does_not_count() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let revoked = server.key("organisation_admin", "organisation").await;
    let revocation = format!("/api/v1/api-keys/{}", id(&revoked));
    assert_eq!(server.admin("DELETE", &revocation, None).await.0, 204);
    let account = id(&server.made("/api/v1/service-accounts", json!({ "name": "short" })).await);
    let body = json!({ "service_account": account, "label": "t", "expires_ms": server.now_ms() + 1_000 });
    let expired = server.made("/api/v1/api-keys", body).await;
    server.pass(1_000);
    let orphan = server.key("operator", "organisation").await;
    let account = orphan["service_account"].as_str().unwrap();
    assert_eq!(server.admin("DELETE", &format!("/api/v1/service-accounts/{account}"), None).await.0, 204);
    let credentials = [
        ("no key", None),
        ("rubbish", Some("sst_x_y".to_owned())),
        ("an unknown key", Some(ApiKey::generate(7).reveal().to_string())),
        ("a wrong secret", Some(with_another_secret(&server.admin))),
        ("a revoked key", Some(secret(&revoked))),
        ("an expired key", Some(secret(&expired))),
        ("the key of a deleted account", Some(secret(&orphan))),
    ];
    for endpoint in guarded() {
        let path = path(&endpoint, &environment, &cluster);
        for (what, key) in &credentials {
            let bearer = key.as_ref().map(|key| format!("Bearer {key}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            let answer = server.send(endpoint.method.as_str(), &path, &headers, None).await;
            assert_eq!(answer.status, 401, "{endpoint:?} with {what}: {}", answer.text);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(answer.json()["type"], "urn:siltstone:problem:unauthenticated");
        }
    }
    assert!(
        server.admin("GET", "/api/v1/environments", None).await.1["items"][0]["id"] == environment.as_str()
    );
}

/// Another organisation's admin learns nothing, not even what is there.
#[tokio::test]
async fn another_tenant_cannot_tell_what_is_here_from_what_is_nowhere() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let key = server.key("operator", &format!("environment/{environment}")).await;
    let account = key["service_account"].as_str().unwrap().to_owned();
    let clock = Clock::system();
    let evil = setup::organisation(&server.app.store, &server.app.keys, &clock, "evil").await.unwrap();
    let evil = evil.key.reveal().to_string();
    let before = server.admin("GET", "/api/v1/role-bindings", None).await.1;
    for endpoint in guarded().filter(|endpoint| endpoint.path.contains('{')) {
        let body =
            endpoint.request.map(|_| json!({ "name": "x", "action": "compact", "overlap_seconds": 0 }));
        let real = path(&endpoint, &environment, &cluster)
            .replace("api-keys/none", &format!("api-keys/{}", id(&key)))
            .replace("service-accounts/none", &format!("service-accounts/{account}"));
        let nowhere = path(&endpoint, "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV");
        let here = server.ask(&evil, endpoint.method.as_str(), &real, body.clone()).await;
        let there = server.ask(&evil, endpoint.method.as_str(), &nowhere, body).await;
        assert_eq!(here, there, "{endpoint:?}");
        assert!(here.0 == 404 || here.0 == 400, "{endpoint:?}: {here:?}");
    }
    // What names others in a body.
    for (path, body) in [
        (
            "/api/v1/role-bindings",
            json!({ "service_account": account, "role": "operator", "resource": "organisation" }),
        ),
        ("/api/v1/api-keys", json!({ "service_account": account, "label": "x" })),
    ] {
        assert_eq!(server.ask(&evil, "POST", path, Some(body)).await.0, 404, "{path}");
    }
    assert_eq!(server.admin("GET", "/api/v1/role-bindings", None).await.1, before);
    // A binding to another organisation's environment covers nothing of it.
    let mine =
        id(&server.ask(&evil, "POST", "/api/v1/service-accounts", Some(json!({ "name": "a" }))).await.1);
    let resource = format!("environment/{environment}");
    let body = json!({ "service_account": mine, "role": "environment_admin", "resource": resource });
    assert_eq!(server.ask(&evil, "POST", "/api/v1/role-bindings", Some(body)).await.0, 201);
    let body = json!({ "service_account": mine, "label": "x" });
    let key = secret(&server.ask(&evil, "POST", "/api/v1/api-keys", Some(body)).await.1);
    assert_eq!(
        server.ask(&key, "GET", &format!("/api/v1/environments/{environment}/clusters"), None).await.0,
        404
    );
    assert_eq!(server.ask(&key, "GET", "/api/v1/environments", None).await.1["items"], json!([]));
}

/// Work is counted, not time: what takes the same hashes takes the same time.
#[tokio::test]
async fn an_unknown_key_costs_what_a_wrong_secret_costs() {
    let server = Server::start().await;
    let hashed = async |key: &str, expected_status: u16| {
        let before = server.app.auth.hashed();
        assert_eq!(server.ask(key, "GET", "/api/v1/environments", None).await.0, expected_status);
        server.app.auth.hashed() - before
    };
    let wrong = with_another_secret(&server.admin);
    for _ in 0..2 {
        assert_eq!(hashed(&wrong, 401).await, 1);
        assert_eq!(hashed(&ApiKey::generate(1).reveal(), 401).await, 1);
    }
    let revoked = server.key("operator", "organisation").await;
    let path = format!("/api/v1/api-keys/{}", id(&revoked));
    assert_eq!(server.admin("DELETE", &path, None).await.0, 204);
    assert_eq!(hashed(&secret(&revoked), 401).await, 1);
    assert_eq!(hashed("rubbish", 401).await, 0, "its form says nothing of what is there");
    assert_eq!(hashed(&server.admin.clone(), 200).await, 0, "it was right before");
}

/// Prints medians: `cargo test -p siltstone-control-plane --test people -- --ignored --nocapture timing`.
#[tokio::test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::print_stdout)]
async fn timing_of_keys_that_do_not_count() {
    let server = Server::start().await;
    for (what, key) in [
        ("unknown id", ApiKey::generate(1).reveal().to_string()),
        ("wrong secret", with_another_secret(&server.admin)),
    ] {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            assert_eq!(server.ask(&key, "GET", "/api/v1/environments", None).await.0, 401);
            took.push(began.elapsed());
        }
        took.sort();
        println!("{what}: median {:?}, p90 {:?}", took[50], took[90]);
    }
}
