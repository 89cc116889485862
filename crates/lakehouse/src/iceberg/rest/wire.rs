//! What a catalog answers, as far as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::error::{CatalogFault, CatalogFaultCode};

/// An answer's body, of so many bytes at most.
pub(super) async fn body_of(answer: &mut reqwest::Response, max: usize) -> Result<Vec<u8>, CatalogFault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| CatalogFault::transport(&error))? {
        if body.len() + chunk.len() > max {
            return Err(CatalogFault::of(CatalogFaultCode::TooLarge));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `GET /v1/config`.
#[derive(Deserialize, Default)]
pub(super) struct ConfigAnswer {
    #[serde(default)]
    pub(super) defaults: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) overrides: BTreeMap<String, Value>,
}

/// A token endpoint's answer (RFC 6749, section 5.1).
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: String,
    /// Seconds.
    #[serde(default)]
    pub(super) expires_in: Option<u64>,
}

/// A table, loaded, staged or committed.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TableAnswer<'a> {
    #[serde(default)]
    pub(super) metadata_location: Option<String>,
    #[serde(borrow)]
    pub(super) metadata: &'a RawValue,
    #[serde(default)]
    pub(super) config: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(super) storage_credentials: Option<Vec<StorageCredential>>,
}

/// Credentials for what lies below a prefix.
#[derive(Deserialize)]
pub(super) struct StorageCredential {
    #[serde(default)]
    pub(super) prefix: String,
    #[serde(default)]
    pub(super) config: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "type")]
    kind: String,
}

/// The type that an error answer names, when it is a plain word; its text is left alone.
pub(super) fn error_type(body: &[u8]) -> Option<String> {
    const LENGTH_MAX: usize = 60;
    let answer: ErrorAnswer = serde_json::from_slice(body).ok()?;
    let kind = answer.error.kind;
    let plain =
        !kind.is_empty() && kind.len() <= LENGTH_MAX && kind.chars().all(|c| c.is_ascii_alphanumeric());
    plain.then_some(kind)
}

/// A property's text.
pub(super) fn text<'a>(properties: &'a BTreeMap<String, Value>, key: &str) -> Option<&'a str> {
    properties.get(key).and_then(Value::as_str)
}
