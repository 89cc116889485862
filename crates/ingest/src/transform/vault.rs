//! A key service with the protocol of HashiCorp Vault's transit engine.
//!
//! ```text
//! POST URL/v1/transit/decrypt/NAME   {"ciphertext": text}   200 {"data": {"plaintext": base64}}
//! X-Vault-Token: token
//! ```
//! What is sent is the table's key as the service wrapped it, once when the table starts. No answer is told further.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use siltstone_protocol::ErrorCode;
use siltstone_spec::{KeyService, is_private};
use zeroize::Zeroizing;

use crate::IngestError;

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 65_536;

const CHECK: &str = "check url, token and wrapped_key of protection.kms";

/// The key that the service unwraps.
///
/// # Errors
/// `Unavailable` when it does not answer or has a fault of its own; else what must be mended.
pub(super) async fn open(service: &KeyService) -> Result<Zeroizing<Vec<u8>>, IngestError> {
    let what = || format!("key service {}", service.url);
    let away = |why: &str| IngestError::unavailable(what(), why).coded(ErrorCode::KeyServiceUnavailable);
    let refused = |why: &str| {
        let (code, why, check) = (ErrorCode::KeyServiceRefused, why.to_owned(), CHECK.to_owned());
        IngestError::Refused { code, what: what(), why, check }
    };
    let (base, name) = service
        .url
        .rsplit_once("/keys/")
        .ok_or_else(|| invalid(service, "its path must end in /keys/NAME"))?;
    let request = client(service)
        .await?
        .post(format!("{base}/decrypt/{name}"))
        .header("X-Vault-Token", service.token.reveal())
        .json(&json!({ "ciphertext": service.wrapped_key }));
    let mut answer = request.send().await.map_err(|_| away("it does not answer"))?;
    match answer.status() {
        status if status.is_success() => {}
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(away("it cannot serve now"));
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(refused("it does not take the token"));
        }
        StatusCode::NOT_FOUND => return Err(refused("it has no such key")),
        _ => return Err(refused("it cannot open wrapped_key")),
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(part) = answer.chunk().await.map_err(|_| away("its answer broke off"))? {
        if bytes.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(refused("its answer is too long"));
        }
        bytes.extend_from_slice(&part);
    }
    let answer: Value = serde_json::from_slice(&bytes).map_err(|_| refused("its answer is no JSON"))?;
    let plain = answer.pointer("/data/plaintext").and_then(Value::as_str);
    let plain = plain.and_then(|text| BASE64_STANDARD.decode(text).ok());
    plain.map(Zeroizing::new).ok_or_else(|| refused("its answer has no plaintext"))
}

fn invalid(service: &KeyService, why: &str) -> IngestError {
    IngestError::invalid(format!("key service {}", service.url), why).coded(ErrorCode::KeyServiceRefused)
}

async fn client(service: &KeyService) -> Result<Client, IngestError> {
    let invalid = |why: &str| invalid(service, why);
    // A redirect would carry the token to somebody else.
    let mut client = Client::builder().timeout(TIMEOUT).redirect(Policy::none());
    if service.url.starts_with("http://") {
        if !is_private(&service.url) {
            return Err(invalid("it must be https"));
        }
        client = client.no_proxy();
    }
    if let Some(file) = &service.ca_file {
        let pem = tokio::fs::read(file).await.map_err(|_| invalid("its ca_file cannot be read"))?;
        for certificate in Certificate::from_pem_bundle(&pem)
            .map_err(|_| invalid("its ca_file holds no certificate in PEM"))?
        {
            client = client.add_root_certificate(certificate);
        }
    }
    client.build().map_err(|_| invalid("no client can be made for it"))
}
