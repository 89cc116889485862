//! The key service, played by a server.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use siltstone_protocol::ErrorKind;
use siltstone_spec::{KeyService, ProtectionKey, Secret};

use crate::transform::KeySource;

async fn answer(
    State((status, body)): State<(u16, String)>,
    headers: HeaderMap,
    asked: String,
) -> (StatusCode, String) {
    let is_ours = headers.get("x-vault-token").is_some_and(|token| token == "the-token")
        && asked == r#"{"ciphertext":"vault:v1:wrapped"}"#;
    if is_ours {
        (StatusCode::from_u16(status).unwrap(), body)
    } else {
        (StatusCode::FORBIDDEN, String::new())
    }
}

async fn opened(token: &str, status: u16, body: &str) -> Result<(), ErrorKind> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/transit/keys/pii", listener.local_addr().unwrap());
    let router =
        Router::new().route("/v1/transit/decrypt/pii", post(answer)).with_state((status, body.to_owned()));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut table = super::table("[{name: s, type: string}]", "");
    table.protection = Some(ProtectionKey::Service(KeyService {
        url,
        token: Secret::new(token.to_owned()),
        wrapped_key: "vault:v1:wrapped".to_owned(),
        ca_file: None,
    }));
    let mut source = KeySource::of(&table).unwrap();
    let keys = source.open().await;
    server.abort();
    let opened = keys.map_err(|error| {
        assert!(!error.to_string().contains("the-token") && !error.to_string().contains("wrapped:"));
        error.kind()
    })?;
    // It is asked once.
    source.open().await.unwrap();
    opened.derived().map(drop).map_err(|error| error.kind())
}

#[tokio::test]
async fn the_key_is_opened_once_or_it_is_said_why_not() {
    let key = r#"{"data":{"plaintext":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}}"#;
    assert_eq!(opened("the-token", 200, key).await, Ok(()));
    assert_eq!(opened("another", 200, key).await, Err(ErrorKind::Invalid));
    assert_eq!(opened("the-token", 503, "").await, Err(ErrorKind::Unavailable));
    assert_eq!(opened("the-token", 404, "").await, Err(ErrorKind::Invalid));
    assert_eq!(opened("the-token", 200, "{}").await, Err(ErrorKind::Invalid));
    assert_eq!(
        opened("the-token", 200, r#"{"data":{"plaintext":"c2hvcnQ="}}"#).await,
        Err(ErrorKind::Invalid)
    );
}
