//! From where an organisation takes requests.

use serde_json::json;
use siltstone_control_plane::{clock::Clock, setup};

use super::support::{Server, id};

const LISTS: &str = "/api/v1/ip-allow-lists";

#[tokio::test]
async fn only_named_networks_are_let_in_and_nobody_locks_themselves_out_by_mistake() {
    let server = Server::with("trusted_proxies = [\"127.0.0.1\"]", "").await;
    let bearer = format!("Bearer {}", server.admin);
    let from = async |address: &str, method: &str, path: &str| {
        let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", address)];
        server.send(method, path, &headers, None).await.status
    };
    let elsewhere = json!({ "network": "192.0.2.0/24", "label": "office" });
    let (status, problem) = server.admin("POST", LISTS, Some(elsewhere.clone())).await;
    assert_eq!(status, 409, "{problem}");
    for wrong in ["", "192.0.2.0/33", "all", "192.0.2.0/24 "] {
        let body = json!({ "network": wrong, "label": "x" });
        assert_eq!(server.admin("POST", LISTS, Some(body)).await.0, 400, "{wrong}");
    }
    let home = server.made(LISTS, json!({ "network": "127.0.0.1", "label": "here" })).await;
    assert_eq!(home["network"], "127.0.0.1/32");
    let office = server.made(LISTS, elsewhere.clone()).await;
    assert_eq!(server.admin("POST", LISTS, Some(elsewhere)).await.0, 409, "it is there");
    assert_eq!(from("192.0.2.77", "GET", "/api/v1/environments").await, 200);
    assert_eq!(from("192.0.3.77", "GET", "/api/v1/environments").await, 403);
    // What the client says itself stands to the left of what the proxy saw.
    assert_eq!(from("192.0.2.77, 192.0.3.77", "GET", "/api/v1/environments").await, 403);
    assert_eq!(
        from("192.0.3.77", "GET", "/api/v1/environments/none/clusters").await,
        403,
        "before anything else"
    );
    assert_eq!(from("192.0.3.77", "GET", "/healthz").await, 200);

    // Another organisation has its own list.
    let clock = Clock::system();
    let other = setup::organisation(&server.app.store, &server.app.keys, &clock, "other").await.unwrap();
    let other = format!("Bearer {}", other.key.reveal().as_str());
    let headers = [("authorization", other.as_str()), ("x-forwarded-for", "192.0.3.77")];
    assert_eq!(server.send("GET", "/api/v1/environments", &headers, None).await.status, 200);
    let path = format!("{LISTS}/{}", id(&office));
    assert_eq!(server.send("DELETE", &path, &headers, None).await.status, 404);

    let path = format!("{LISTS}/{}", id(&home));
    assert_eq!(server.admin("DELETE", &path, None).await.0, 409, "it would lock out who asks");
    assert_eq!(server.admin("DELETE", &format!("{path}?force=true"), None).await.0, 204);
    assert_eq!(server.admin("GET", LISTS, None).await.0, 403);
    assert_eq!(from("192.0.2.1", "DELETE", &format!("{LISTS}/{}", id(&office))).await, 204, "the last one");
    assert_eq!(server.admin("GET", LISTS, None).await.1["items"], json!([]));
    let log = server.log().await;
    let refusal = log.iter().find(|one| one["resource"] == "ip_allow_list").unwrap();
    assert_eq!((&refusal["outcome"], &refusal["address"]), (&json!("denied"), &json!("127.0.0.1")));
}

#[tokio::test]
async fn nobody_is_believed_who_is_no_trusted_proxy() {
    let server = Server::start().await;
    server.made(LISTS, json!({ "network": "127.0.0.0/8", "label": "here" })).await;
    let bearer = format!("Bearer {}", server.admin);
    for header in ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "x-client-ip"] {
        let headers = [("authorization", bearer.as_str()), (header, "192.0.2.1")];
        assert_eq!(server.send("GET", LISTS, &headers, None).await.status, 200, "{header}");
    }
    assert!(server.log().await.iter().all(|one| one["address"] == "127.0.0.1"));
}
