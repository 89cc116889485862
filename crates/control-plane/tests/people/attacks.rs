//! Requests that try to get around the table of endpoints, or to break what reads them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use siltstone_control_plane::endpoints::{self, QueryKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    keys::{guarded, path},
    support::{Server, id, secret},
};

/// The whole answer to bytes as they are.
async fn raw(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The server may answer, and close, before it has read all.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

async fn worker(server: &Server) -> (String, String, String) {
    let (environment, cluster) = server.cluster("one").await;
    let key = secret(&server.key("worker", &format!("environment/{environment}/cluster/{cluster}")).await);
    (key, environment, cluster)
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_the_table() {
    let server = Server::start().await;
    let (worker, environment, cluster) = worker(&server).await;
    let list = format!("/api/v1/environments/{environment}/clusters/{cluster}/tables");
    let spelled = [
        "/api/v1/../v1/audit".to_owned(),
        "/api/v1/%2e%2e/v1/audit".to_owned(),
        "/api/v1/.%2e/v1/audit".to_owned(),
        "/api/v1/./audit".to_owned(),
        "//api/v1/audit".to_owned(),
        "/api//v1/audit".to_owned(),
        "/api/v1/audit/".to_owned(),
        "/api/v1/audit//".to_owned(),
        "/api/v1/audit%2f".to_owned(),
        "/api%2fv1%2faudit".to_owned(),
        "/API/v1/audit".to_owned(),
        "/api/v1/AUDIT".to_owned(),
        "/api/v1/audit;x=1".to_owned(),
        "/api/v1/audit.json".to_owned(),
        "/api/v1/audit%00".to_owned(),
        "/api/v1/audit%20".to_owned(),
        "/api/v1/%61udit".to_owned(),
        "/healthz/../api/v1/audit".to_owned(),
        "/healthz/%2e%2e/api/v1/audit".to_owned(),
        "/console/../api/v1/audit".to_owned(),
        "/console/%2e%2e/api/v1/audit".to_owned(),
        "/console/..%2fmod.rs".to_owned(),
        "/console//etc/passwd".to_owned(),
        "/worker/v1/../../api/v1/audit".to_owned(),
        "http://evil.example.com/api/v1/audit".to_owned(),
        format!("/api/v1/environments/{environment}%2fclusters"),
        list.replace("/clusters/", "/clusters/x/../"),
        list.replace(&environment, &environment.to_lowercase()),
        list.replace(&environment, &format!("{environment}%00")),
        list.replace(&environment, "*"),
        list.replace(&environment, "%25"),
    ];
    let about = guarded().map(|endpoint| path(&endpoint, &environment, &cluster));
    for target in spelled.into_iter().chain(about.filter(|path| !path.starts_with("/worker"))) {
        for key in ["", worker.as_str()] {
            let credential =
                if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
            let request =
                format!("GET {target} HTTP/1.1\r\nhost: x\r\n{credential}connection: close\r\n\r\n");
            let answer = raw(&server, request.as_bytes()).await;
            let open = target == "/api/v1/session" && !key.is_empty();
            let refused = [400, 401, 403, 404, 405].contains(&status(&answer));
            assert!(open || refused, "{target} with {key:?}: {answer}");
            assert!(!answer.contains("\"items\""), "{target}: {answer}");
        }
    }
}

#[tokio::test]
async fn headers_change_neither_method_nor_path_nor_credential() {
    let server = Server::start().await;
    let (environment, cluster) = server.cluster("one").await;
    let reader = secret(&server.key("metadata_reader", &format!("environment/{environment}")).await);
    let (bearer, admin) = (format!("Bearer {reader}"), format!("Bearer {}", server.admin));
    let clusters = format!("/api/v1/environments/{environment}/clusters");
    for (name, value) in [
        ("x-original-url", "/api/v1/audit"),
        ("x-rewrite-url", "/api/v1/audit"),
        ("x-forwarded-prefix", "/api/v1/audit"),
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x-method-override", "DELETE"),
        ("host", "evil.example.com"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-forwarded-user", "admin"),
        ("x-siltstone-organisation", "other"),
        ("cookie", "siltstone-session=x; __Host-siltstone-session=y"),
    ] {
        let headers = [("authorization", bearer.as_str()), (name, value)];
        let answer = server.send("GET", &clusters, &headers, None).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        assert_eq!(answer.json()["items"][0]["id"], cluster.as_str(), "{name}");
        assert!(!answer.text.contains("evil") && !format!("{:?}", answer.headers).contains("evil"));
        let refused = server.send("POST", &clusters, &headers, Some(&json!({ "name": "x" }))).await;
        assert_eq!(refused.status, 403, "{name}: {}", refused.text);
        let denied = server.send("GET", "/healthz", &[(name, value)], None).await;
        assert_eq!(denied.json(), json!({ "status": "ok" }), "{name}");
    }
    for twice in [[&bearer, &admin], [&admin, &bearer], [&admin, &admin]] {
        let headers = [("authorization", twice[0].as_str()), ("authorization", twice[1].as_str())];
        assert_eq!(server.send("GET", &clusters, &headers, None).await.status, 401);
    }
    for form in [
        "Basic YTpi",
        &format!("Bearer {admin}"),
        &format!("Bearer {},{}", server.admin, server.admin),
        "Bearer",
    ] {
        assert_eq!(
            server.send("GET", &clusters, &[("authorization", form)], None).await.status,
            401,
            "{form}"
        );
    }
    for query in ["?_method=DELETE", "?access_token=x", "?api_key=x", "?limit=1&limit=2"] {
        let headers = [("authorization", admin.as_str())];
        assert_eq!(
            server.send("GET", &format!("{clusters}{query}"), &headers, None).await.status,
            400,
            "{query}"
        );
    }
    // A key in the query counts for nothing.
    assert_eq!(server.send("GET", &format!("{clusters}?key={}", server.admin), &[], None).await.status, 401);
    for method in ["TRACE", "CONNECT", "OPTIONS", "PUT", "PATCH", "PROPFIND"] {
        let request = format!("{method} {clusters} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = raw(&server, request.as_bytes()).await;
        assert!([400, 404, 405].contains(&status(&answer)), "{method}: {answer}");
    }
    // Two lengths, and a length beside chunks: where one request ends is not to be argued about.
    for lengths in ["content-length: 2\r\ncontent-length: 40", "content-length: 5, 6"] {
        let request = format!(
            "POST {clusters} HTTP/1.1\r\nhost: x\r\nauthorization: {admin}\r\n{lengths}\r\nconnection: close\r\n\r\n{{}}\
             GET /api/v1/audit HTTP/1.1\r\n\r\n"
        );
        assert_eq!(status(&raw(&server, request.as_bytes()).await), 400, "{lengths}");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_too_deep_or_no_json_are_refused() {
    let server = Server::start().await;
    let (worker, _, _) = worker(&server).await;
    let (bearer, admin) = (format!("Bearer {worker}"), format!("Bearer {}", server.admin));
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let post = async |credential: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let mut request =
            server.http.post(format!("{}{path}", server.url)).header("authorization", credential);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).send().await.map_or(0, |answer| answer.status().as_u16())
    };
    let (report, environments) = ("/worker/v1/report", "/api/v1/environments");
    let (is_json, zipped) = (("content-type", "application/json"), ("content-encoding", "gzip"));
    let deep = |open: &str, close: &str| {
        format!("{{\"name\":{}{}}}", open.repeat(20_000), close.repeat(20_000)).into_bytes()
    };
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, Vec<u8>, u16);
    let cases: Vec<Case<'_>> = vec![
        (&admin, environments, vec![is_json], vec![b' '; 70_000], 413),
        (&bearer, report, vec![is_json], vec![b' '; (8 << 20) + 1], 413),
        (&bearer, report, vec![is_json, zipped], bomb, 413),
        (&bearer, report, vec![is_json, zipped], gzip(&gzip(&vec![b' '; 8 << 20])), 413),
        (&bearer, report, vec![is_json, zipped], gzip(b"{}")[..10].to_vec(), 400),
        (&bearer, report, vec![is_json, zipped], b"{}".to_vec(), 400),
        (&bearer, report, vec![is_json, ("content-encoding", "br")], b"{}".to_vec(), 415),
        (&bearer, report, vec![is_json, ("content-encoding", "gzip, gzip")], gzip(b"{}"), 415),
        (&admin, environments, vec![is_json, zipped], gzip(b"{\"name\":\"x\"}"), 415),
        (&admin, environments, vec![is_json], deep("[", "]"), 400),
        (&admin, environments, vec![is_json], deep("{\"a\":", "}"), 413),
        (&bearer, report, vec![is_json], deep("[", "]"), 400),
        (&admin, environments, vec![is_json], b"".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"x\"".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"x\"}{}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"x\",\"name\":\"y\"}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"x\",\"organisation\":\"y\"}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"\xff\"}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":\"a\\u0000b\"}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":1}".to_vec(), 400),
        (&admin, environments, vec![is_json], b"{\"name\":1e999}".to_vec(), 400),
        (&admin, environments, vec![], b"{\"name\":\"x\"}".to_vec(), 415),
        (&admin, environments, vec![("content-type", "text/plain")], b"{\"name\":\"x\"}".to_vec(), 415),
        (
            &admin,
            environments,
            vec![("content-type", "application/jsonx")],
            b"{\"name\":\"x\"}".to_vec(),
            415,
        ),
        (
            &admin,
            environments,
            vec![("content-type", "application/x-www-form-urlencoded")],
            b"name=x".to_vec(),
            415,
        ),
        (&admin, environments, vec![("content-type", "application/xml")], b"<name>x</name>".to_vec(), 415),
    ];
    for (number, (credential, path, headers, body, expected)) in cases.into_iter().enumerate() {
        let got = post(credential, path, &headers, body).await;
        // A body that is cut off on its way may end the connection before the answer is read.
        assert!(got == expected || (expected == 413 && got == 0), "case {number}: {got}, not {expected}");
    }
    // Before the body is read, the right is checked.
    let huge = post("Bearer sst_x", environments, &[is_json], vec![b' '; 1_000]).await;
    assert_eq!(huge, 401);
    assert_eq!(server.admin("GET", environments, None).await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn sql_in_any_text_is_a_text() {
    let server = Server::start().await;
    let (worker, environment, cluster) = worker(&server).await;
    let texts = [
        "'; DROP TABLE tables; --",
        "\" OR \"\"=\"",
        "x' UNION SELECT hash FROM api_keys --",
        "1; ATTACH DATABASE '/tmp/x' AS x",
        "$1",
        "%' OR 1=1 OR name LIKE '%",
        "\\'; SELECT pg_sleep(10); --",
    ];
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for (number, text) in texts.iter().enumerate() {
        for endpoint in endpoints::all() {
            // In each part of the path, each text of the query, and each field of the body.
            let parts: Vec<_> = endpoint.path.split('/').map(str::to_owned).collect();
            for index in (0..parts.len()).filter(|index| parts[*index].starts_with('{')) {
                let mut path =
                    path(&endpoint, &environment, &cluster).split('/').map(str::to_owned).collect::<Vec<_>>();
                path[index] = encoded(text);
                let body = endpoint.request.map(|_| json!({ "name": text }));
                let (status, answer) = server.admin(endpoint.method.as_str(), &path.join("/"), body).await;
                assert!(status < 500, "{endpoint:?} {text}: {answer}");
            }
            for parameter in endpoint.query.iter().filter(|one| matches!(one.kind, QueryKind::Text { .. })) {
                let path = path(&endpoint, &environment, &cluster);
                let path = format!("{path}?{}={}", parameter.name, encoded(text));
                let (status, answer) = server.admin(endpoint.method.as_str(), &path, None).await;
                assert!(status < 500, "{endpoint:?} {text}: {answer}");
            }
        }
        let named = json!({ "name": text });
        let made = server.made("/api/v1/environments", named.clone()).await;
        assert_eq!(made["name"], *text);
        server.made(&format!("/api/v1/environments/{}/clusters", id(&made)), named.clone()).await;
        let account = id(&server.made("/api/v1/service-accounts", named).await);
        server.made("/api/v1/api-keys", json!({ "service_account": account, "label": text })).await;
        let network = json!({ "network": format!("127.0.0.0/{}", 8 + number), "label": text });
        assert_eq!(server.made("/api/v1/ip-allow-lists", network).await["label"], *text);
        for (path, body) in [
            (
                "/api/v1/role-bindings",
                json!({ "service_account": text, "role": "operator", "resource": "organisation" }),
            ),
            (
                "/api/v1/role-bindings",
                json!({ "user": text, "role": "operator", "resource": "organisation" }),
            ),
            (
                "/api/v1/role-bindings",
                json!({ "service_account": account, "role": text, "resource": "organisation" }),
            ),
            ("/api/v1/api-keys", json!({ "service_account": text, "label": "x" })),
            ("/api/v1/ip-allow-lists", json!({ "network": text, "label": "x" })),
        ] {
            let (status, answer) = server.admin("POST", path, Some(body)).await;
            assert!([400, 404].contains(&status), "{path} {text}: {status} {answer}");
        }
        let resource = format!("environment/{text}").replace("/tmp/x", "x");
        let body = json!({ "service_account": account, "role": "operator", "resource": resource });
        assert_eq!(server.admin("POST", "/api/v1/role-bindings", Some(body)).await.0, 201);
        let identity = json!({ "name": format!("t{number} {text}"), "location": text, "spec_digest": "ab", "source_format": "avro" });
        let report = json!({ "table": identity, "entries": [] });
        let (status, answer) = server.ask(&worker, "POST", "/worker/v1/report", Some(report)).await;
        assert!(status == 200 || status == 400, "{text}: {status} {answer}");
    }
    let (_, environments) = server.admin("GET", "/api/v1/environments", None).await;
    assert_eq!(environments["items"].as_array().unwrap().len(), texts.len() + 1);
    for path in
        ["/api/v1/service-accounts", "/api/v1/api-keys", "/api/v1/role-bindings", "/api/v1/ip-allow-lists"]
    {
        let (status, list) = server.admin("GET", path, None).await;
        assert_eq!(status, 200);
        assert!(list["items"].as_array().unwrap().len() >= texts.len(), "{path}");
    }
}

#[tokio::test]
async fn commands_are_of_one_cluster_and_outcomes_count_once() {
    let server = Server::start().await;
    let (worker, environment, cluster) = worker(&server).await;
    let (other_environment, other_cluster) = server.cluster("two").await;
    let resource = format!("environment/{other_environment}/cluster/{other_cluster}");
    let other = secret(&server.key("worker", &resource).await);
    let cluster = format!("/api/v1/environments/{environment}/clusters/{cluster}");
    let command = server.made(&format!("{cluster}/rotate"), Value::Null).await;
    let poll = json!({ "worker_id": "w1", "wait_seconds": 0 });
    let polled = server.ask(&other, "POST", "/worker/v1/commands/poll", Some(poll.clone())).await;
    assert_eq!(polled.1["commands"], json!([]), "another cluster's");
    let polled = server.ask(&worker, "POST", "/worker/v1/commands/poll", Some(poll)).await;
    assert_eq!(polled.1["commands"][0]["id"], command["id"]);
    let outcome = |result: &str| json!({ "worker_id": "w1", "command_id": command["id"], "outcome": { "result": result } });
    let tell = async |key: &str, result: &str| {
        server.ask(key, "POST", "/worker/v1/commands/outcome", Some(outcome(result))).await.0
    };
    assert_eq!(tell(&other, "done").await, 404, "nor may it end it");
    assert_eq!(tell(&worker, "done").await, 200);
    assert_eq!(tell(&worker, "not_allowed").await, 200, "said again, and otherwise: the first word stays");
    assert_eq!(tell(&server.admin, "done").await, 403);
    let (_, list) = server.admin("GET", &format!("{cluster}/commands"), None).await;
    assert_eq!(list["items"][0]["state"], "done");
    assert_eq!(list["items"][0]["outcomes"].as_array().unwrap().len(), 1);
    // A command that was taken back by its end is not handed out again.
    server.pass(366 * 24 * 3_600_000);
    let poll = json!({ "worker_id": "w9", "wait_seconds": 0 });
    let late = server.ask(&worker, "POST", "/worker/v1/commands/poll", Some(poll)).await;
    assert_eq!(late.1["commands"], json!([]));
}
