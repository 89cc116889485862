//! Requests that are asked twice.

use serde_json::{Value, json};

use super::support::{Answer, Server, id, secret};

const ENVIRONMENTS: &str = "/api/v1/environments";

async fn ask(
    server: &Server,
    (credential, key): (&str, &str),
    method: &str,
    path: &str,
    body: &Value,
) -> Answer {
    let bearer = format!("Bearer {credential}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
    let body = (!body.is_null()).then_some(body);
    server.send(method, path, &headers, body).await
}

async fn environments(server: &Server) -> usize {
    server.admin("GET", ENVIRONMENTS, None).await.1["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_request_is_carried_out_once_and_answered_twice() {
    let server = Server::start().await;
    let me = (server.admin.as_str(), "k-1");
    let body = json!({ "name": "one" });
    let first = ask(&server, me, "POST", ENVIRONMENTS, &body).await;
    let again = ask(&server, me, "POST", ENVIRONMENTS, &body).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!(environments(&server).await, 1);
    // Another body, path or method is another request.
    let other = ask(&server, me, "POST", ENVIRONMENTS, &json!({ "name": "two" })).await;
    assert_eq!((other.status, &other.json()["type"]), (422, &json!("urn:siltstone:problem:key-reused")));
    let path = format!("{ENVIRONMENTS}/{}", id(&first.json()));
    assert_eq!(ask(&server, me, "DELETE", &path, &Value::Null).await.status, 422);
    // A deletion is answered again, where without a key there would be nothing any more.
    let other = (server.admin.as_str(), "k-2");
    for _ in 0..2 {
        assert_eq!(ask(&server, other, "DELETE", &path, &Value::Null).await.status, 204);
    }
    // Somebody else's key is another key.
    let second = secret(&server.key("organisation_admin", "organisation").await);
    assert_eq!(
        ask(&server, (&second, "k-1"), "POST", ENVIRONMENTS, &json!({ "name": "three" })).await.status,
        201
    );
    // What was refused is asked anew: nothing was done.
    let third = (server.admin.as_str(), "k-3");
    assert_eq!(ask(&server, third, "POST", ENVIRONMENTS, &json!({ "name": "three" })).await.status, 409);
    assert_eq!(ask(&server, third, "POST", ENVIRONMENTS, &json!({ "name": "four" })).await.status, 201);
    for wrong in ["", "a b", &"x".repeat(256), "\u{e9}"] {
        assert_eq!(ask(&server, (me.0, wrong), "POST", ENVIRONMENTS, &body).await.status, 400, "{wrong}");
    }
    // After a day the key is free.
    server.pass(24 * 3_600_000);
    let late = ask(&server, me, "POST", ENVIRONMENTS, &json!({ "name": "five" })).await;
    assert_eq!(late.status, 201);
}

#[tokio::test]
async fn of_many_at_once_one_does_the_work() {
    let server = Server::start().await;
    let account = id(&server.made("/api/v1/service-accounts", json!({ "name": "a" })).await);
    let body = json!({ "service_account": account, "role": "operator", "resource": "organisation" });
    let asked = (0..20).map(|_| ask(&server, (&server.admin, "k"), "POST", "/api/v1/role-bindings", &body));
    let answers = futures::future::join_all(asked).await;
    let made: Vec<_> = answers.iter().filter(|one| one.status == 201).collect();
    assert!(made.iter().any(|one| one.header("idempotency-replayed").is_empty()));
    assert_eq!(made.iter().filter(|one| one.header("idempotency-replayed").is_empty()).count(), 1);
    for other in &answers {
        let under_way = other.status == 409 && other.header("retry-after") == "1";
        assert!(under_way || (other.status == 201 && other.json() == made[0].json()), "{}", other.text);
    }
    let later = ask(&server, (&server.admin, "k"), "POST", "/api/v1/role-bindings", &body).await;
    assert_eq!((later.status, later.json()), (201, made[0].json()));
}

#[tokio::test]
async fn a_secret_that_is_shown_once_is_neither_kept_nor_shown_again() {
    let server = Server::start().await;
    let account = id(&server.made("/api/v1/service-accounts", json!({ "name": "a" })).await);
    let body = json!({ "service_account": account, "label": "l" });
    let me = (server.admin.as_str(), "k");
    let first = ask(&server, me, "POST", "/api/v1/api-keys", &body).await;
    assert_eq!(first.status, 201);
    let again = ask(&server, me, "POST", "/api/v1/api-keys", &body).await;
    assert_eq!(again.status, 409);
    assert!(again.json()["detail"].as_str().unwrap().contains("shown once"));
    let shown = secret(&first.json());
    let hidden = shown.splitn(3, '_').nth(2).unwrap();
    assert!(!again.text.contains(hidden));
    let (_, keys) = server.admin("GET", "/api/v1/api-keys", None).await;
    assert_eq!(keys["items"].as_array().unwrap().len(), 2, "the admin's, and one");
    for stored in server.stored() {
        assert!(!stored.windows(hidden.len()).any(|window| window == hidden.as_bytes()));
    }
}

#[tokio::test]
async fn a_change_that_the_servers_end_broke_off_is_not_made_again_blindly() {
    let server = Server::start().await;
    let body = json!({ "name": "one" });
    let me = (server.admin.as_str(), "k");
    assert_eq!(ask(&server, me, "POST", ENVIRONMENTS, &body).await.status, 201);
    // As a kill between the change and keeping its answer leaves it.
    let change = "UPDATE idempotency_keys SET status = 0, answer = ''";
    sqlx::query(change).execute(server.app.store.pool()).await.unwrap();
    let soon = ask(&server, me, "POST", ENVIRONMENTS, &body).await;
    assert_eq!((soon.status, soon.header("retry-after")), (409, "1"));
    server.pass(301_000);
    let late = ask(&server, me, "POST", ENVIRONMENTS, &body).await;
    assert_eq!((late.status, late.header("retry-after")), (409, ""));
    assert!(late.json()["detail"].as_str().unwrap().contains("look whether it was made"));
    assert_eq!(environments(&server).await, 1);
}
