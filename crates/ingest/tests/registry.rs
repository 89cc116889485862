//! The HTTP registry against a stub that counts requests, and against a real one when SILTSTONE_TEST_REGISTRY names
//! its URL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use siltstone_ingest::{
    HttpRegistry, IngestError, RegisteredSchema, RegistryFormat, SchemaRegistry,
    registry::{FixedRegistry, RegistryLimits},
};
use siltstone_protocol::ErrorKind;
use siltstone_spec::{Registry, RegistryAuth, Secret, Tls};

#[derive(Clone, Default)]
struct Stub {
    /// Path -> status and body.
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    /// Statuses given first, whatever is asked for.
    failing: Arc<Mutex<Vec<u16>>>,
    authorization: Arc<Mutex<Option<String>>>,
    delay: Arc<Mutex<Duration>>,
    requests: Arc<AtomicUsize>,
}

impl Stub {
    async fn start() -> (Self, String) {
        let stub = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (stub, url)
    }

    fn put(&self, path: &str, body: &str) {
        self.status(path, 200, body);
    }

    fn status(&self, path: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn answer(State(stub): State<Stub>, request: Request) -> Response {
    stub.requests.fetch_add(1, Ordering::SeqCst);
    let delay = *stub.delay.lock().unwrap();
    tokio::time::sleep(delay).await;
    assert_eq!(request.headers()[header::ACCEPT], "application/vnd.schemaregistry.v1+json");
    if let Some(status) = stub.failing.lock().unwrap().pop() {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    if *stub.authorization.lock().unwrap() != given {
        return (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"no"}"#).into_response();
    }
    let answers = stub.answers.lock().unwrap();
    match answers.get(request.uri().path()) {
        Some((status, body)) => (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response(),
        None => {
            (StatusCode::NOT_FOUND, r#"{"error_code":40403,"message":"Schema not found"}"#).into_response()
        }
    }
}

fn settings(urls: &[&str], auth: Option<RegistryAuth>) -> Registry {
    Registry { urls: urls.iter().map(|url| (*url).to_owned()).collect(), auth, tls: Tls::default() }
}

fn limits() -> RegistryLimits {
    RegistryLimits {
        timeout: Duration::from_millis(500),
        pause: Duration::from_millis(5),
        rounds: 3,
        ..RegistryLimits::default()
    }
}

fn registry(urls: &[&str]) -> HttpRegistry {
    HttpRegistry::with_limits(&settings(urls, None), limits()).unwrap()
}

const RECORD: &str = r#"{"schema":"{\"type\":\"string\"}"}"#;

#[tokio::test]
async fn an_id_is_asked_for_once_even_by_many_at_once() {
    let (stub, url) = Stub::start().await;
    stub.put("/schemas/ids/7", RECORD);
    *stub.delay.lock().unwrap() = Duration::from_millis(50);
    let registry = Arc::new(registry(&[&url]));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move { registry.schema_by_id(7).await })
        })
        .collect();
    for task in tasks {
        let schema = task.await.unwrap().unwrap();
        assert_eq!(
            (schema.id, schema.format, schema.schema.as_str()),
            (7, RegistryFormat::Avro, r#"{"type":"string"}"#)
        );
    }
    assert_eq!(stub.requests(), 1);
    // An outage does not matter for what is known.
    stub.failing.lock().unwrap().extend([500; 100]);
    registry.schema_by_id(7).await.unwrap();
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn latest_is_believed_for_a_while_and_gives_its_id_away() {
    let (stub, url) = Stub::start().await;
    let version = |id: u32| {
        format!(r#"{{"subject":"a/b c","version":1,"id":{id},"schema":"{{}}","schemaType":"JSON"}}"#)
    };
    stub.put("/subjects/a%2Fb%20c/versions/latest", &version(3));
    let limits = RegistryLimits { latest_for: Duration::from_millis(100), ..limits() };
    let registry = HttpRegistry::with_limits(&settings(&[&url], None), limits).unwrap();
    let schema = registry.latest("a/b c").await.unwrap();
    assert_eq!((schema.id, schema.format), (3, RegistryFormat::Json));
    registry.latest("a/b c").await.unwrap();
    registry.schema_by_id(3).await.unwrap();
    assert_eq!(stub.requests(), 1);
    stub.put("/subjects/a%2Fb%20c/versions/latest", &version(4));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(registry.latest("a/b c").await.unwrap().id, 4);
}

#[tokio::test]
async fn passing_failures_are_retried_and_an_outage_is_unavailable() {
    let (stub, url) = Stub::start().await;
    stub.put("/schemas/ids/1", RECORD);
    let registry = registry(&[&url]);
    stub.failing.lock().unwrap().extend([503, 429]);
    registry.schema_by_id(1).await.unwrap();
    assert_eq!(stub.requests(), 3);
    stub.put("/schemas/ids/2", RECORD);
    stub.failing.lock().unwrap().extend([500; 3]);
    let error = registry.schema_by_id(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(stub.requests(), 6);
    // A failure is not remembered.
    registry.schema_by_id(2).await.unwrap();
    // Too slow is a failure too.
    *stub.delay.lock().unwrap() = Duration::from_secs(5);
    let limits = RegistryLimits { timeout: Duration::from_millis(50), rounds: 2, ..limits() };
    let hasty = HttpRegistry::with_limits(&settings(&[&url], None), limits).unwrap();
    assert_eq!(hasty.schema_by_id(9).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn another_address_helps_out() {
    let (stub, url) = Stub::start().await;
    stub.put("/base/schemas/ids/1", RECORD);
    let second = format!("{url}/base/");
    registry(&["http://127.0.0.1:1", &second]).schema_by_id(1).await.unwrap();
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn what_is_not_there_is_told_from_a_wrong_url() {
    let (stub, url) = Stub::start().await;
    let registry = registry(&[&url]);
    let error = registry.schema_by_id(404).await.unwrap_err();
    assert!(matches!(error, IngestError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("schema id 404"), "{error}");
    assert_eq!(stub.requests(), 1, "not retried");
    stub.status("/schemas/ids/5", 404, "<html>nginx</html>");
    assert!(matches!(registry.schema_by_id(5).await.unwrap_err(), IngestError::Invalid { .. }));
    stub.status("/schemas/ids/6", 200, r#"{"secret": "hunter2""#);
    let error = registry.schema_by_id(6).await.unwrap_err();
    assert!(
        matches!(error, IngestError::Invalid { .. }) && !error.to_string().contains("hunter2"),
        "{error}"
    );
    stub.put("/schemas/ids/8", r#"{"schema":"x","schemaType":"THRIFT"}"#);
    assert!(matches!(registry.schema_by_id(8).await.unwrap_err(), IngestError::SchemaRefused { .. }));
}

#[tokio::test]
async fn credentials_travel_in_a_header_and_nowhere_else() {
    let (stub, url) = Stub::start().await;
    stub.put("/schemas/ids/1", RECORD);
    let basic = RegistryAuth::Basic {
        username: Secret::new("user".to_owned()),
        password: Secret::new("hunter2".to_owned()),
    };
    let bearer = RegistryAuth::Bearer(Secret::new("hunter2token".to_owned()));
    let wrong = RegistryAuth::Bearer(Secret::new("hunter2wrong".to_owned()));
    let within = url.replace("http://", "http://user:hunter2@");
    for (url, auth, header) in [
        (&url, Some(basic), "Basic dXNlcjpodW50ZXIy"),
        (&url, Some(bearer), "Bearer hunter2token"),
        (&within, None, "Basic dXNlcjpodW50ZXIy"),
    ] {
        *stub.authorization.lock().unwrap() = Some(header.to_owned());
        let registry = HttpRegistry::with_limits(&settings(&[url], auth), limits()).unwrap();
        registry.schema_by_id(1).await.unwrap();
        assert!(!format!("{registry:?}").contains("hunter2"));
    }
    let before = stub.requests();
    let registry = HttpRegistry::with_limits(&settings(&[&url], Some(wrong)), limits()).unwrap();
    let error = registry.schema_by_id(1).await.unwrap_err();
    assert!(
        matches!(error, IngestError::Refused { .. }) && !format!("{error:?}").contains("hunter2"),
        "{error}"
    );
    assert_eq!(stub.requests(), before + 1, "not retried");
    let away = settings(&["http://user:hunter2@127.0.0.1:1"], None);
    let error = HttpRegistry::with_limits(&away, limits()).unwrap().schema_by_id(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

fn version(references: &[(&str, &str, u32)]) -> String {
    let list: Vec<String> = references
        .iter()
        .map(|(name, subject, version)| {
            format!(r#"{{"name":"{name}","subject":"{subject}","version":{version}}}"#)
        })
        .collect();
    format!(r#"{{"id":1,"schema":"\"text\"","references":[{}]}}"#, list.join(","))
}

#[tokio::test]
async fn references_come_before_what_uses_them_each_once() {
    let (stub, url) = Stub::start().await;
    stub.put("/schemas/ids/1", &version(&[("A", "a", 1), ("B", "b", 2)]));
    stub.put("/subjects/a/versions/1", &version(&[("C", "c", 1)]));
    stub.put("/subjects/b/versions/2", &version(&[("C", "c", 1), ("A", "a", 1)]));
    stub.put("/subjects/c/versions/1", &version(&[]));
    let schema = registry(&[&url]).schema_by_id(1).await.unwrap();
    let names: Vec<&str> = schema.references.iter().map(|reference| reference.name.as_str()).collect();
    assert_eq!(names, ["C", "A", "B"]);
    assert_eq!(stub.requests(), 4);
}

#[tokio::test]
async fn endless_references_and_answers_are_refused() {
    let (stub, url) = Stub::start().await;
    stub.put("/schemas/ids/1", &version(&[("A", "a", 1)]));
    stub.put("/subjects/a/versions/1", &version(&[("B", "b", 1)]));
    stub.put("/subjects/b/versions/1", &version(&[("A", "a", 1)]));
    let error = registry(&[&url]).schema_by_id(1).await.unwrap_err();
    assert!(error.to_string().contains("cycle"), "{error}");
    for depth in 0..50 {
        stub.put(
            &format!("/subjects/d{depth}/versions/1"),
            &version(&[("D", &format!("d{}", depth + 1), 1)]),
        );
    }
    stub.put("/schemas/ids/2", &version(&[("D", "d0", 1)]));
    assert!(matches!(
        registry(&[&url]).schema_by_id(2).await.unwrap_err(),
        IngestError::SchemaRefused { .. }
    ));
    stub.put("/schemas/ids/3", &format!(r#"{{"schema":"{}"}}"#, "x".repeat(5 << 20)));
    let error = registry(&[&url]).schema_by_id(3).await.unwrap_err();
    assert!(matches!(error, IngestError::SchemaRefused { .. }), "{error}");
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let (stub, url) = Stub::start().await;
    let limits = RegistryLimits { cached: 2, ..limits() };
    let registry = HttpRegistry::with_limits(&settings(&[&url], None), limits).unwrap();
    for id in [1, 2, 3, 3, 1] {
        stub.put(&format!("/schemas/ids/{id}"), RECORD);
        registry.schema_by_id(id).await.unwrap();
    }
    assert_eq!(stub.requests(), 4);
}

#[test]
fn settings_are_checked_at_once() {
    for url in ["ftp://x", "not a url", ""] {
        assert!(HttpRegistry::new(&settings(&[url], None)).is_err(), "{url}");
    }
    assert!(HttpRegistry::new(&settings(&[], None)).is_err());
    let mut with_file = settings(&["https://127.0.0.1:1"], None);
    with_file.tls.ca_file = Some("/nonexistent/ca.pem".into());
    let error = HttpRegistry::new(&with_file).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}

#[tokio::test]
async fn fixed_answers() {
    let registry = FixedRegistry::new();
    let schema =
        RegisteredSchema { id: 4, format: RegistryFormat::Avro, schema: "{}".to_owned(), references: vec![] };
    registry.put("orders-value", schema);
    assert_eq!(registry.latest("orders-value").await.unwrap().id, 4);
    assert!(matches!(registry.schema_by_id(5).await.unwrap_err(), IngestError::NotFound { .. }));
    registry.set_outage(true);
    assert_eq!(registry.schema_by_id(4).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(registry.requests(), 3);
}

/// Registers a schema with a reference at a real registry, and reads it back.
#[tokio::test]
async fn a_real_registry_answers() {
    let Ok(url) = std::env::var("SILTSTONE_TEST_REGISTRY") else { return };
    let client = reqwest::Client::new();
    let suffix = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let register = async |subject: &str, body: serde_json::Value| {
        let answer = client
            .post(format!("{url}/subjects/{subject}/versions"))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    };
    let address =
        r#"{"type":"record","name":"Address","namespace":"shop","fields":[{"name":"city","type":"string"}]}"#;
    let order = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"to","type":"shop.Address"}]}"#;
    let (below, subject) = (format!("address-{suffix}"), format!("order-{suffix}"));
    register(&below, serde_json::json!({"schema": address})).await;
    let references = serde_json::json!([{"name": "shop.Address", "subject": below, "version": 1}]);
    let id = register(&subject, serde_json::json!({"schema": order, "references": references})).await;
    let registry = HttpRegistry::new(&settings(&[&url], None)).unwrap();
    for schema in [registry.schema_by_id(id).await.unwrap(), registry.latest(&subject).await.unwrap()] {
        assert_eq!((schema.id, schema.format), (id, RegistryFormat::Avro));
        assert!(schema.schema.contains("Order"));
        assert_eq!(schema.references.len(), 1);
        assert_eq!(schema.references[0].name, "shop.Address");
        assert!(schema.references[0].schema.contains("city"));
    }
    let error = registry.schema_by_id(99_999_999).await.unwrap_err();
    assert!(matches!(error, IngestError::NotFound { .. }), "{error}");
    let error = registry.latest("no-such-subject").await.unwrap_err();
    assert!(matches!(error, IngestError::NotFound { .. }), "{error}");
}
