//! Responses and errors, as Iceberg's REST OpenAPI document has them.

use std::collections::{BTreeMap, HashSet};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    catalog::Document,
    request::{Namespace, Snapshots},
};

/// What clients may call; those that ask keep to it.
const ENDPOINTS: &[&str] = &[
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
];

/// Kinds of errors, by which clients decide what to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    NoSuchNamespace,
    NoSuchTable,
    NoSuchView,
    NotFound,
    Unsupported,
    TooLarge,
    TooMany,
    Unavailable,
    Internal,
}

impl Kind {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "BadRequestException"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "NotAuthorizedException"),
            Self::NoSuchNamespace => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            Self::NoSuchTable => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            Self::NoSuchView => (StatusCode::NOT_FOUND, "NoSuchViewException"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NotFoundException"),
            Self::Unsupported => (StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "BadRequestException"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        }
    }
}

/// An error for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

pub(super) fn fault(fault: &Fault) -> Response {
    let (status, kind) = fault.kind.parts();
    let body = json!({"error": {"message": fault.message, "type": kind, "code": status.as_u16()}});
    let mut response = of_json(status, &body);
    let headers = response.headers_mut();
    match fault.kind {
        Kind::Unauthorized => {
            let challenge = HeaderValue::from_static("Bearer realm=\"siltstone\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Kind::TooMany | Kind::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// An error of the token endpoint (RFC 6749, section 5.2).
pub(super) fn oauth_fault(error: &'static str, what: &'static str) -> Response {
    let status = if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    of_json(status, &json!({"error": error, "error_description": what}))
}

/// Without `expires_in`: it is the token of the spec, which lasts as long as the spec names it.
pub(super) fn access_token(token: &str) -> Response {
    let body = json!({
        "access_token": token,
        "token_type": "bearer",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    let mut response = of_json(StatusCode::OK, &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `properties` are defaults: what a client sets itself, such as another way to the bucket, wins.
pub(super) fn config(properties: &BTreeMap<&'static str, String>) -> Response {
    let mut defaults: BTreeMap<&str, &str> =
        properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Tokens do not run out, so there is nothing to refresh.
    defaults.insert("token-refresh-enabled", "false");
    let body = json!({"defaults": defaults, "overrides": {}, "endpoints": ENDPOINTS});
    of_json(StatusCode::OK, &body)
}

pub(super) fn namespaces(names: &[Namespace], next: Option<String>) -> Response {
    let names: Vec<_> = names.iter().map(|name| &name.0).collect();
    of_json(StatusCode::OK, &json!({"namespaces": names, "next-page-token": next}))
}

pub(super) fn namespace(name: &Namespace, head: bool) -> Response {
    if head {
        return exists();
    }
    of_json(StatusCode::OK, &json!({"namespace": name.0, "properties": {}}))
}

pub(super) fn tables(namespace: &Namespace, names: &[String], next: Option<String>) -> Response {
    let identifiers: Vec<_> =
        names.iter().map(|name| json!({"namespace": namespace.0, "name": name})).collect();
    of_json(StatusCode::OK, &json!({"identifiers": identifiers, "next-page-token": next}))
}

/// Done, or there; nothing more to say.
pub(super) fn exists() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

pub(super) fn no_credentials() -> Response {
    of_json(StatusCode::OK, &json!({"storage-credentials": []}))
}

/// The table's metadata as it lies in the bucket, or 304 when the client has it.
///
/// # Errors
/// `Internal`: the metadata cannot be cut to its references.
pub(super) fn table(document: &Document, snapshots: Snapshots, asked: &HeaderMap) -> Result<Response, Fault> {
    let suffix = if snapshots == Snapshots::Refs { "-refs" } else { "" };
    let tag = format!("\"{}{suffix}\"", document.tag);
    let same = asked.get_all(header::IF_NONE_MATCH).iter().any(|known| is_in(known, &tag));
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let metadata = &document.metadata;
        let refs = (snapshots == Snapshots::Refs).then(|| only_refs(&metadata.bytes)).transpose();
        let refs = refs.map_err(|_| {
            Fault::new(
                Kind::Internal,
                "the table's metadata cannot be cut to its references; ask for all snapshots",
            )
        })?;
        let bytes = refs.as_deref().unwrap_or(&metadata.bytes);
        let mut body = format!("{{\"metadata-location\":{},\"metadata\":", json!(metadata.url)).into_bytes();
        body.reserve_exact(bytes.len() + 16);
        body.extend_from_slice(bytes);
        body.extend_from_slice(b",\"config\":{}}");
        with_body(StatusCode::OK, body)
    };
    // Made of digits, letters and quotes.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Whether a header's list of tags has this one, as `If-None-Match` compares (RFC 9110, section 13.1.2).
fn is_in(header: &HeaderValue, tag: &str) -> bool {
    let tags = header.to_str().unwrap_or_default().split(',');
    tags.map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The document with those snapshots alone that a branch or tag names, everything else as it was.
fn only_refs(bytes: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Named {
        snapshot_id: i64,
    }
    let mut document: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes)?;
    let mut named: HashSet<i64> = HashSet::new();
    if let Some(refs) = document.get("refs") {
        let refs: BTreeMap<String, Named> = serde_json::from_str(refs.get())?;
        named.extend(refs.values().map(|named| named.snapshot_id));
    }
    if let Some(current) = document.get("current-snapshot-id") {
        named.extend(serde_json::from_str::<Option<i64>>(current.get())?);
    }
    let Some(snapshots) = document.get("snapshots") else { return Ok(bytes.to_vec()) };
    let snapshots: Option<Vec<&RawValue>> = serde_json::from_str(snapshots.get())?;
    let mut left = Vec::new();
    for snapshot in snapshots.into_iter().flatten() {
        if named.contains(&serde_json::from_str::<Named>(snapshot.get())?.snapshot_id) {
            left.push(snapshot);
        }
    }
    let left = serde_json::value::to_raw_value(&left)?;
    document.insert("snapshots".to_owned(), &left);
    serde_json::to_vec(&document)
}

fn of_json(status: StatusCode, body: &Value) -> Response {
    with_body(status, body.to_string().into_bytes())
}

fn with_body(status: StatusCode, body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];
    (status, headers, Body::from(body)).into_response()
}
