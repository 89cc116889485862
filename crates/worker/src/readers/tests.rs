//! The catalog over a store in memory: every route, every refusal, and what each token opens.

#![allow(clippy::unwrap_used)]

use axum::http::{HeaderMap, StatusCode, Uri, header};
use base64::Engine;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use serde_json::{Value, json};
use siltstone_spec::{ReaderToken, Secret, TablePattern};

use super::*;

const ALL: &str = "all-tables-0123456789";
const SHOP: &str = "shop-only-0123456789=";
const ONE: &str = "one/table+0123456789~";

fn spec() -> Spec {
    let names = ["shop.orders", "shop.eu.orders", "plain", "lab.delta_only", "lab.later", "shop.away"];
    let tables = names.map(|name| {
        let more = match name {
            "lab.delta_only" => "formats: [delta]",
            "shop.away" => "catalogs: [{type: rest, uri: 'https://catalog.internal'}]",
            _ => "formats: [iceberg, delta]",
        };
        format!("  - {{name: {name}, source_cluster_name: c, source_topic: t, source_format: raw, {more}}}\n")
    });
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:9092']}}]\n\
         destination_bucket_url: s3://lake/x\nreaders_catalog: {{}}\ntables:\n{}",
        tables.concat()
    );
    siltstone_spec::parse(&text, "spec.yaml", &|_| None).unwrap()
}

fn token(name: &str, token: &str, allow: &[&str]) -> ReaderToken {
    let allow = allow.iter().map(|pattern| TablePattern::new(pattern)).collect();
    ReaderToken { name: name.to_owned(), token: Secret::new(token.to_owned()), allow }
}

struct Lake {
    store: TableStore,
    readers: Arc<Readers>,
}

impl Lake {
    async fn new(tokens: Vec<ReaderToken>) -> Self {
        let mut spec = spec();
        spec.readers_catalog = Some(ReadersCatalog { tokens });
        let url = url::Url::parse("s3://lake/x").unwrap();
        let store = TableStore::new(Arc::new(InMemory::new()), Path::from("x"), url);
        let address = "127.0.0.1:0".parse().unwrap();
        let readers = Arc::new(Readers::new(&spec, &store, address, &Metrics::default()).unwrap().unwrap());
        let lake = Self { store, readers };
        for table in [
            "shop/orders",
            "shop/eu/orders",
            "plain",
            "lab/delta_only",
            "shop/orders__dead_letters",
            "shop/away",
        ] {
            lake.publish(table, 1).await;
        }
        lake
    }

    async fn with_tokens() -> Self {
        let tokens = [("all", ALL, "*"), ("shop", SHOP, "shop.*"), ("one", ONE, "shop.eu.orders")];
        Self::new(tokens.map(|(name, text, allow)| token(name, text, &[allow])).into()).await
    }

    async fn publish(&self, table: &str, number: u64) {
        let path = Path::from(format!("x/{table}/metadata/v{number}.metadata.json"));
        self.store.store.put(&path, document(table, number).to_string().into()).await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, token: &str) -> (StatusCode, HeaderMap, Value) {
        self.ask_with(method, path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(format!("{BASE}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = answer(State(self.readers.clone()), request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (parts.status, parts.headers, value)
    }

    async fn get(&self, path: &str, token: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, token).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Status and type of the error.
    async fn refused(&self, method: &str, path: &str, token: &str) -> (u16, String) {
        let (status, _, body) = self.ask(method, path, token).await;
        let error = &body["error"];
        assert_eq!(error["code"], json!(status.as_u16()), "{method} {path}: {body}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10));
        (status.as_u16(), error["type"].as_str().unwrap().to_owned())
    }
}

fn document(table: &str, number: u64) -> Value {
    let snapshots: Vec<_> = (1..=number).map(|id| json!({"snapshot-id": id})).collect();
    json!({
        "format-version": 2, "location": format!("s3://lake/x/{table}"), "current-snapshot-id": number,
        "snapshots": snapshots, "refs": {"main": {"snapshot-id": number, "type": "branch"},
        "first": {"snapshot-id": 1, "type": "tag"}},
    })
}

fn names(answer: &Value) -> Vec<String> {
    answer["identifiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn paths_are_taken_apart() {
    let of = |method: &str, path: &str| {
        let uri: Uri = format!("{BASE}{path}").parse().unwrap();
        Asked::of(&method.parse().unwrap(), &uri).map(|asked| asked.route).map_err(|fault| fault.kind)
    };
    let two = Namespace(vec!["shop".to_owned(), "eu".to_owned()]);
    for path in ["/v1/namespaces/shop%1Feu", "/v1/namespaces/shop%1feu/", "/v1/namespaces/shop.eu"] {
        assert_eq!(of("GET", path), Ok(Route::Namespace(two.clone())));
        assert_eq!(of("HEAD", path), Ok(Route::Namespace(two.clone())));
        assert_eq!(of("DELETE", path), Ok(Route::Write));
    }
    let table = || Ok(Route::Table(two.clone(), "a/../b".to_owned()));
    assert_eq!(
        of("GET", "/v1/namespaces/shop%1Feu/tables/a%2F..%2Fb"),
        table(),
        "one part, whatever is in it"
    );
    assert_eq!(of("GET", "/v1/namespaces/%FF/tables"), Err(Kind::BadRequest));
    assert_eq!(of("GET", &format!("/v1/namespaces/{}", "a".repeat(20_000))), Err(Kind::BadRequest));
    for path in ["", "/", "/v1", "/v2/config", "/v1/nothing", "/v1/namespaces/a/tables/b/c/d", "//v1/config"]
    {
        assert_eq!(of("GET", path), Ok(Route::Unknown), "{path}");
    }
    assert_eq!(of("POST", "/v1/config"), Ok(Route::Unknown));
}

#[tokio::test]
async fn every_write_is_refused_in_the_protocols_words() {
    let lake = Lake::with_tokens().await;
    let writes = [
        ("POST", "/v1/namespaces"),
        ("DELETE", "/v1/namespaces/shop"),
        ("POST", "/v1/namespaces/shop/properties"),
        ("POST", "/v1/namespaces/shop/tables"),
        ("POST", "/v1/namespaces/shop/register"),
        ("POST", "/v1/namespaces/shop/tables/orders"),
        ("DELETE", "/v1/namespaces/shop/tables/orders?purgeRequested=true"),
        ("POST", "/v1/namespaces/shop/tables/orders/plan"),
        ("POST", "/v1/tables/rename"),
        ("POST", "/v1/transactions/commit"),
        ("POST", "/v1/namespaces/shop/views"),
        ("PUT", "/v1/namespaces/shop"),
    ];
    for (method, path) in writes {
        let told = lake.refused(method, path, ALL).await;
        assert_eq!(told, (406, "UnsupportedOperationException".to_owned()), "{method} {path}");
        assert_eq!(lake.refused(method, path, "nobody").await.0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn a_token_opens_what_the_spec_says_and_nothing_else_exists() {
    let lake = Lake::with_tokens().await;
    let spaces = |token: &'static str| {
        let lake = &lake;
        async move { lake.get("/v1/namespaces", token).await["namespaces"].clone() }
    };
    assert_eq!(spaces(ALL).await, json!([["default"], ["lab"], ["shop"]]));
    assert_eq!(spaces(SHOP).await, json!([["shop"]]));
    assert_eq!(spaces(ONE).await, json!([["shop"]]));
    let below = lake.get("/v1/namespaces?parent=shop", ONE).await;
    assert_eq!(below["namespaces"], json!([["shop", "eu"]]));
    assert_eq!(lake.get("/v1/namespaces?parent=shop%1Feu", ONE).await["namespaces"], json!([]));
    assert_eq!(names(&lake.get("/v1/namespaces/shop/tables", ALL).await), ["orders", "orders__dead_letters"]);
    assert_eq!(names(&lake.get("/v1/namespaces/shop/tables", ONE).await), Vec::<String>::new());
    assert_eq!(names(&lake.get("/v1/namespaces/shop%1Feu/tables", ONE).await), ["orders"]);
    assert_eq!(names(&lake.get("/v1/namespaces/default/tables", ALL).await), ["plain"]);
    // Delta alone is not Iceberg's to show, and what is in another catalog not this one's; what has no metadata is
    // not there.
    assert_eq!(names(&lake.get("/v1/namespaces/lab/tables", ALL).await), Vec::<String>::new());
    let no_table = (404, "NoSuchTableException".to_owned());
    for (path, token) in [
        ("/v1/namespaces/lab/tables/delta_only", ALL),
        ("/v1/namespaces/lab/tables/later", ALL),
        ("/v1/namespaces/shop/tables/away", ALL),
        ("/v1/namespaces/shop/tables/nothing", ALL),
        ("/v1/namespaces/shop/tables/orders", ONE),
        ("/v1/namespaces/default/tables/plain", SHOP),
        ("/v1/namespaces/nowhere/tables/%3Cscript%3E", ALL),
    ] {
        assert_eq!(lake.refused("GET", path, token).await, no_table, "{path}");
        let (status, _, body) = lake.ask("HEAD", path, token).await;
        assert_eq!((status.as_u16(), body), (404, Value::Null));
    }
    let no_space = (404, "NoSuchNamespaceException".to_owned());
    for path in ["/v1/namespaces/lab", "/v1/namespaces/lab/tables", "/v1/namespaces?parent=lab"] {
        assert_eq!(lake.refused("GET", path, SHOP).await, no_space, "{path}");
    }
    let report = |token| lake.ask("POST", "/v1/namespaces/shop/tables/orders/metrics", token);
    assert_eq!(report(SHOP).await.0, StatusCode::NO_CONTENT);
    assert_eq!(report(ONE).await.0, StatusCode::NOT_FOUND);
    assert_eq!(lake.refused("GET", "/v1/namespaces/shop/views/v", ALL).await.1, "NoSuchViewException");
    let (_, _, told) = lake.ask("GET", "/v1/namespaces/shop/tables/%3Cscript%3E", ALL).await;
    assert!(!told.to_string().contains("script"), "{told}");
}

#[tokio::test]
async fn the_newest_metadata_is_handed_on_byte_for_byte() {
    let lake = Lake::with_tokens().await;
    let path = "/v1/namespaces/shop/tables/orders";
    let first = lake.get(path, SHOP).await;
    assert_eq!(first["metadata-location"], "s3://lake/x/shop/orders/metadata/v1.metadata.json");
    assert_eq!(first["metadata"], document("shop/orders", 1));
    for number in [2, 3, 4] {
        lake.publish("shop/orders", number).await;
    }
    let bearer = format!("bearer {SHOP}");
    let (_, headers, fresh) = lake.ask_with("GET", path, &[("Authorization", &bearer)], "").await;
    assert_eq!(fresh["metadata"], document("shop/orders", 4));
    let tag = headers[header::ETAG].to_str().unwrap();
    let with = |tag: String| {
        let (lake, bearer) = (&lake, bearer.clone());
        async move {
            let headers = [("authorization", bearer.as_str()), ("if-none-match", tag.as_str())];
            lake.ask_with("GET", path, &headers, "").await.0
        }
    };
    assert_eq!(with(tag.to_owned()).await, StatusCode::NOT_MODIFIED);
    assert_eq!(with(format!("\"other\", W/{tag}")).await, StatusCode::NOT_MODIFIED);
    assert_eq!(with("\"other\"".to_owned()).await, StatusCode::OK);
    let refs = lake.get(&format!("{path}?snapshots=refs"), SHOP).await;
    assert_eq!(refs["metadata"]["snapshots"], json!([{"snapshot-id": 1}, {"snapshot-id": 4}]));
    assert_eq!(refs["metadata"]["refs"], fresh["metadata"]["refs"]);
    assert_eq!(lake.refused("GET", &format!("{path}?snapshots=some"), SHOP).await.0, 400);
    lake.publish("shop/orders", 5).await;
    assert_eq!(with(tag.to_owned()).await, StatusCode::OK, "there is a newer one");
    // Many at once see what was there when they asked.
    let asked = (0..100).map(|_| lake.get(path, SHOP));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer["metadata"], document("shop/orders", 5));
    }
    let (status, _, body) = lake.ask("HEAD", path, SHOP).await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    lake.publish("lab/later", 1).await;
    assert_eq!(lake.get("/v1/namespaces/lab/tables/later", ALL).await["metadata"], document("lab/later", 1));
}

#[tokio::test]
async fn what_is_no_metadata_is_an_error_that_quotes_nothing() {
    let lake = Lake::with_tokens().await;
    let path = Path::from("x/plain/metadata/v2.metadata.json");
    lake.store.store.put(&path, "{\"hunter2\": hunter2}".into()).await.unwrap();
    let (status, _, body) = lake.ask("GET", "/v1/namespaces/default/tables/plain", ALL).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!body.to_string().contains("hunter2"), "{body}");
}

#[tokio::test]
async fn listings_come_in_pages() {
    let lake = Lake::new(Vec::new()).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = lake.get(&format!("/v1/namespaces?pageToken={token}&pageSize=2"), "any").await;
        let names = page["namespaces"].as_array().unwrap().clone();
        assert!(names.len() <= 2);
        seen.extend(names);
        match page["next-page-token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(Value::from(seen), json!([["default"], ["lab"], ["shop"]]));
    let first = lake.get("/v1/namespaces/shop/tables?pageToken=&pageSize=1", "any").await;
    assert_eq!((names(&first), &first["next-page-token"]), (vec!["orders".to_owned()], &json!("orders")));
    let second = lake.get("/v1/namespaces/shop/tables?pageToken=orders&pageSize=1", "any").await;
    assert_eq!(names(&second), ["orders__dead_letters"]);
    assert_eq!(second["next-page-token"], Value::Null);
    for size in ["0", "-1", "x", "99999999999999999999999"] {
        assert_eq!(lake.refused("GET", &format!("/v1/namespaces?pageSize={size}"), "any").await.0, 400);
    }
}

#[tokio::test(start_paused = true)]
async fn only_known_tokens_are_let_in() {
    let lake = Lake::with_tokens().await;
    for bad in ["", "x", &ALL[1..], &format!("{ALL}x"), &ALL.to_uppercase()] {
        assert_eq!(lake.refused("GET", "/v1/config", bad).await, (401, "NotAuthorizedException".to_owned()));
    }
    let headers: [&[(&str, &str)]; 4] = [
        &[],
        &[("authorization", ALL)],
        &[("authorization", "Basic YWxs")],
        &[("authorization", &format!("Bearer {ALL}")), ("authorization", &format!("Bearer {ALL}"))],
    ];
    for headers in headers {
        let (status, told, _) = lake.ask_with("GET", "/v1/config", headers, "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(told.contains_key(header::WWW_AUTHENTICATE));
    }
    let guesses = (0..20).map(|_| lake.refused("GET", "/v1/config", "a-guess-of-many"));
    let told = futures::future::join_all(guesses).await;
    let of = |code| told.iter().filter(|(status, _)| *status == code).count();
    assert_eq!((of(401), of(429)), (8, 12), "who guesses waits, and others do not");
    let config = lake.get("/v1/config?warehouse=any", ALL).await;
    assert_eq!(config["overrides"], json!({}));
    assert!(config["endpoints"].as_array().unwrap().iter().all(|endpoint| {
        let endpoint = endpoint.as_str().unwrap();
        !endpoint.starts_with("POST") || endpoint.ends_with("/metrics")
    }));
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_exchanged_for_its_token() {
    let lake = Lake::with_tokens().await;
    let ask = |form: String| {
        let lake = &lake;
        async move {
            let (status, _, body) = lake.ask_with("POST", "/v1/oauth/tokens", &[], &form).await;
            (status.as_u16(), body)
        }
    };
    let encoded: String = url::form_urlencoded::byte_serialize(ONE.as_bytes()).collect();
    let grant = "grant_type=client_credentials&scope=catalog";
    for form in [
        format!("{grant}&client_secret={encoded}"),
        format!("{grant}&client_id=one&client_secret={encoded}"),
        format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={encoded}\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
        ),
    ] {
        let (status, body) = ask(form).await;
        assert_eq!(
            (status, &body["access_token"], &body["token_type"]),
            (200, &json!(ONE), &json!("bearer"))
        );
    }
    for (pair, status) in [
        (format!("one:{ONE}"), 200),
        (format!("one:{encoded}"), 200),
        (format!("all:{ONE}"), 401),
        ("one".to_owned(), 400),
    ] {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&pair));
        let headers = [("authorization", basic.as_str())];
        let (told, _, body) = lake.ask_with("POST", "/v1/oauth/tokens", &headers, grant).await;
        assert_eq!((told.as_u16(), body["access_token"] == json!(ONE)), (status, status == 200), "{pair}");
    }
    for (form, status, error) in [
        (format!("{grant}&client_id=all&client_secret={encoded}"), 401, "invalid_client"),
        (format!("{grant}&client_secret=wrong"), 401, "invalid_client"),
        (grant.to_owned(), 400, "invalid_request"),
        (format!("grant_type=password&client_secret={encoded}"), 400, "unsupported_grant_type"),
        (String::new(), 400, "unsupported_grant_type"),
        ("x".repeat(FORM_BYTES_MAX + 1), 400, "invalid_request"),
    ] {
        let (told, body) = ask(form).await;
        assert_eq!((told, &body["error"]), (status, &json!(error)));
    }
}

#[tokio::test(start_paused = true)]
async fn without_tokens_a_web_page_of_elsewhere_reads_nothing() {
    let lake = Lake::new(Vec::new()).await;
    for (host, status) in [
        ("127.0.0.1:9090", 200),
        ("127.0.0.1", 200),
        ("[::1]:9090", 200),
        ("localhost:9090", 200),
        ("LocalHost", 200),
        ("rebound.example:9090", 401),
        ("localhost.example", 401),
        ("", 401),
    ] {
        let (told, _, _) = lake.ask_with("GET", "/v1/config", &[("host", host)], "").await;
        assert_eq!(told.as_u16(), status, "{host}");
    }
    let counted = |status| lake.readers.requests.get_or_create(&StatusLabel { status }).get();
    assert_eq!((counted(200), counted(401)), (5, 3));
}

#[test]
fn without_tokens_only_this_machine_is_served() {
    let open = ReadersCatalog::default();
    let closed = ReadersCatalog { tokens: vec![token("a", ALL, &["*"])] };
    for (address, allowed) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("[::]:1", false)]
    {
        assert_eq!(check_address(&open, address.parse().unwrap()).is_ok(), allowed, "{address}");
        assert!(check_address(&closed, address.parse().unwrap()).is_ok());
    }
    let told = check_address(&open, "10.0.0.1:90".parse().unwrap()).unwrap_err().to_string();
    assert_eq!(
        told,
        "readers_catalog: has no tokens, so anyone who reaches 10.0.0.1:90 could read it; give it tokens, or serve \
         a loopback address (--http 127.0.0.1:90)"
    );
}
