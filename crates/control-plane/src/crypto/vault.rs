//! A master key that stays in a key service: the protocol of HashiCorp Vault's transit engine.
//!
//! ```text
//! POST URL/v1/transit/encrypt/NAME   {"plaintext": base64}    200 {"data": {"ciphertext": text}}
//! POST URL/v1/transit/decrypt/NAME   {"ciphertext": text}     200 {"data": {"plaintext": base64}}
//! X-Vault-Token: token
//! ```
//! The config says `vault:https://host/v1/transit/keys/NAME`. Any service that answers so will do. What is sent is a
//! data key of 32 bytes and its row's id: when it is made, when it is opened for the first time since the start, and
//! when it is wrapped anew. Plain HTTP is taken on loopback addresses alone.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::CryptoError;

/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A request that the service does not answer, or answers with a fault of its own, is made so often in all.
const TRIES_MAX: u32 = 4;
const TRY_AFTER: Duration = Duration::from_millis(100);
const ANSWER_BYTES_MAX: usize = 65_536;

/// Gives the token, at each request anew: whoever renews it need not tell. `None`: it cannot be read.
pub type Token = Arc<dyn Fn() -> Option<Zeroizing<String>> + Send + Sync>;

/// A key in a key service.
pub struct VaultKey {
    http: Client,
    base: Url,
    name: String,
    token: Token,
}

impl VaultKey {
    /// `url` is `https://host/v1/transit/keys/NAME`; `authority` certificates in PEM to trust besides the system's.
    ///
    /// # Errors
    /// `BadVault`: what is wrong with it.
    pub fn new(url: &str, token: Token, authority: Option<&[u8]>) -> Result<Self, CryptoError> {
        let bad = |what| CryptoError::BadVault { what };
        let url = Url::parse(url).map_err(|_| bad("it is no URL"))?;
        let is_loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
            return Err(bad("it must be https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(bad("it holds more than host and path; the token has a field of its own"));
        }
        let (base, name) =
            url.as_str().rsplit_once("/keys/").ok_or(bad("its path must end in /keys/NAME"))?;
        if name.is_empty() || name.contains('/') {
            return Err(bad("its path must end in /keys/NAME"));
        }
        let (name, base) = (name.to_owned(), Url::parse(base).map_err(|_| bad("it is no URL"))?);
        // A redirect would carry the token to somebody else.
        let mut http = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).https_only(!is_loopback);
        if is_loopback {
            http = http.no_proxy();
        }
        if let Some(authority) = authority {
            let certificates = Certificate::from_pem_bundle(authority);
            for certificate in certificates.map_err(|_| bad("ca_file holds no certificate in PEM"))? {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build().map_err(|_| bad("no client can be made"))?;
        Ok(Self { http, base, name, token })
    }

    /// What identifies the key.
    pub(super) fn url(&self) -> String {
        format!("{}/keys/{}", self.base.as_str().trim_end_matches('/'), self.name)
    }

    /// # Errors
    /// `KeyService`.
    pub(super) async fn encrypt(&self, plain: &[u8]) -> Result<String, CryptoError> {
        let plaintext = BASE64_STANDARD.encode(plain);
        let answer = self.ask("encrypt", &json!({ "plaintext": plaintext })).await?;
        let sealed =
            answer.pointer("/data/ciphertext").and_then(Value::as_str).filter(|text| !text.is_empty());
        sealed.map(str::to_owned).ok_or(CryptoError::KeyService { what: "its answer has no ciphertext" })
    }

    /// # Errors
    /// `KeyService`.
    pub(super) async fn decrypt(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let answer = self.ask("decrypt", &json!({ "ciphertext": sealed })).await?;
        let plain = answer.pointer("/data/plaintext").and_then(Value::as_str);
        let plain = plain.and_then(|text| BASE64_STANDARD.decode(text).ok());
        plain.map(Zeroizing::new).ok_or(CryptoError::KeyService { what: "its answer has no plaintext" })
    }

    async fn ask(&self, verb: &str, body: &Value) -> Result<Value, CryptoError> {
        let mut wait = TRY_AFTER;
        for _ in 1..TRIES_MAX {
            match self.once(verb, body).await {
                Err(CryptoError::KeyServiceAway) => tokio::time::sleep(wait).await,
                done => return done,
            }
            wait *= 3;
        }
        self.once(verb, body).await
    }

    async fn once(&self, verb: &str, body: &Value) -> Result<Value, CryptoError> {
        let url = format!("{}/{verb}/{}", self.base.as_str().trim_end_matches('/'), self.name);
        let token = (self.token)().ok_or(CryptoError::KeyService { what: "its token cannot be read" })?;
        let request = self.http.post(url).header("X-Vault-Token", token.as_str()).json(body);
        let mut answer = request.send().await.map_err(|_| CryptoError::KeyServiceAway)?;
        match answer.status() {
            status if status.is_success() => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(CryptoError::KeyServiceAway);
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(CryptoError::KeyService { what: "it refuses the token" });
            }
            StatusCode::NOT_FOUND => return Err(CryptoError::KeyService { what: "it has no such key" }),
            _ => return Err(CryptoError::KeyService { what: "it refuses the request" }),
        }
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(part) = answer.chunk().await.map_err(|_| CryptoError::KeyServiceAway)? {
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(CryptoError::KeyService { what: "its answer is too long" });
            }
            bytes.extend_from_slice(&part);
        }
        serde_json::from_slice(&bytes).map_err(|_| CryptoError::KeyService { what: "its answer is no JSON" })
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKey").finish_non_exhaustive()
    }
}
