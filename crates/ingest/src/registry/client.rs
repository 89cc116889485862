//! Requests to a registry: several addresses, retries, limits, credentials.
//!
//! 1. Every address is tried in turn; an answer that says something about the schema ends the search.
//! 2. When all of them failed for reasons that pass, the round is repeated after a jittered pause, a bounded number
//!    of times; then the registry is unavailable.
//! 3. Credentials live in headers marked as sensitive; addresses lose user names and passwords before they are kept.

use std::time::Duration;

use reqwest::{
    Certificate, Client, Identity, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue},
};
use siltstone_protocol::ErrorCode;
use siltstone_spec::{Registry, RegistryAuth, Tls};
use url::Url;

use super::{http::RegistryLimits, wire};
use crate::error::IngestError;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub(super) struct RegistryClient {
    client: Client,
    urls: Vec<Url>,
    limits: RegistryLimits,
}

/// Why one address did not help.
enum Failure {
    /// Another address, or a later try, may.
    Passing(String),
    /// The answer stands.
    Final(IngestError),
}

impl RegistryClient {
    pub(super) fn new(registry: &Registry, limits: RegistryLimits) -> Result<Self, IngestError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MEDIA_TYPE));
        let mut urls = Vec::new();
        let mut embedded = None;
        for text in &registry.urls {
            let mut url = Url::parse(text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| {
                    setting("a URL is not http or https with a host; check schema_registry.url")
                })?;
            if !url.username().is_empty() {
                let user = decoded(url.username());
                embedded = Some(basic(&user, &decoded(url.password().unwrap_or_default())));
            }
            // Cannot fail: the URL has a host.
            let _ = (url.set_username(""), url.set_password(None));
            urls.push(url);
        }
        if urls.is_empty() {
            return Err(setting("no URL is given; set schema_registry.url"));
        }
        let credentials = match &registry.auth {
            Some(RegistryAuth::Basic { username, password }) => {
                Some(basic(username.reveal(), password.reveal()))
            }
            Some(RegistryAuth::Bearer(token)) => Some(format!("Bearer {}", token.reveal())),
            None => embedded,
        };
        if let Some(text) = credentials {
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                setting(
                    "schema_registry.username, password or token hold characters that HTTP does not allow",
                )
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder = Client::builder()
            .default_headers(headers)
            .connect_timeout(limits.timeout)
            .timeout(limits.timeout)
            // A redirect would carry the credentials elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("siltstone");
        let client = with_tls(builder, &registry.tls)?.build().map_err(|_| {
            setting("its TLS settings are refused; check the PEM files of schema_registry.tls")
        })?;
        Ok(Self { client, urls, limits })
    }

    /// The body of the answer to `GET <base>/<path segments>`. `what` names the thing asked for.
    pub(super) async fn get(&self, path: &[&str], what: &str) -> Result<Vec<u8>, IngestError> {
        let mut why = String::new();
        for round in 0..self.limits.rounds.max(1) {
            if round > 0 {
                tokio::time::sleep(pause(&self.limits, round)).await;
            }
            for base in &self.urls {
                match self.get_from(base, path, what).await {
                    Ok(body) => return Ok(body),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Passing(reason)) => {
                        tracing::debug!(url = %base, what, reason, round, "schema registry request failed");
                        why = format!("{base}: {reason}");
                    }
                }
            }
        }
        Err(IngestError::unavailable(format!("the schema registry ({what})"), why))
    }

    async fn get_from(&self, base: &Url, path: &[&str], what: &str) -> Result<Vec<u8>, Failure> {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // A subject may hold slashes, which are its own.
            segments.pop_if_empty().extend(path);
        }
        let answer = self.client.get(url).send().await.map_err(|error| Failure::Passing(reason(&error)))?;
        let status = answer.status();
        let body = match self.body(answer).await? {
            Some(body) => body,
            None if status.is_success() => {
                let why = format!("the answer is larger than {} bytes", self.limits.body_bytes);
                return Err(Failure::Final(IngestError::schema_refused(what, why)));
            }
            None => Vec::new(),
        };
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body, base, what)) }
    }

    /// None when the body is larger than allowed.
    async fn body(&self, mut answer: reqwest::Response) -> Result<Option<Vec<u8>>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| Failure::Passing(reason(&error)))? {
            if body.len() + chunk.len() > self.limits.body_bytes {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}

/// A setting of the spec that cannot be used.
fn setting(why: &str) -> IngestError {
    IngestError::invalid("schema registry", why).coded(ErrorCode::RegistrySettingRefused)
}

/// What answers there is no registry.
fn unfit(base: &Url, why: &str) -> IngestError {
    IngestError::invalid(format!("schema registry {base}"), why).coded(ErrorCode::RegistrySettingRefused)
}

fn refusal(status: StatusCode, body: &[u8], base: &Url, what: &str) -> Failure {
    match status {
        StatusCode::NOT_FOUND => {
            let code = wire::error_code(body);
            // Only the registry's own codes say that the thing is not there; a bare 404 may come from a wrong path.
            if (40_401..=40_499).contains(&code) {
                return Failure::Final(IngestError::NotFound {
                    code: ErrorCode::SchemaNotFound,
                    what: format!("{what} in the schema registry"),
                    check: format!("the registry at {base} answered 404 (code {code})"),
                });
            }
            Failure::Final(unfit(
                base,
                "it answered 404 without a registry's error code; check the path of schema_registry.url",
            ))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Final(IngestError::Refused {
            code: ErrorCode::RegistryAccessRefused,
            what: format!("the schema registry at {base} ({what})"),
            why: format!("HTTP status {}", status.as_u16()),
            check:
                "check schema_registry.username and password, or token, and that they may read the subject"
                    .to_owned(),
        }),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Failure::Passing(format!("HTTP status {}", status.as_u16()))
        }
        _ if status.is_server_error() => Failure::Passing(format!("HTTP status {}", status.as_u16())),
        _ => Failure::Final(unfit(
            base,
            &format!("it answered HTTP status {} for {what}; check schema_registry.url", status.as_u16()),
        )),
    }
}

/// A closed word for a transport failure.
fn reason(error: &reqwest::Error) -> String {
    let word = match () {
        () if error.is_timeout() => "no answer in time",
        () if error.is_connect() => "no connection (address, TLS or a refused port)",
        () if error.is_body() || error.is_decode() => "the answer broke off",
        () => "the request failed",
    };
    word.to_owned()
}

/// Doubles by round, between half and all of it, at most ten times the first.
fn pause(limits: &RegistryLimits, round: u32) -> Duration {
    let whole = limits.pause.saturating_mul(1 << (round - 1).min(4)).min(limits.pause * 10);
    whole.mul_f64(0.5 + jitter() / 2.0)
}

/// In 0..1; spreads retries of many workers, nothing else depends on it.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
        .next()
        .map(|(key, _)| key.into_owned())
        .unwrap_or_default()
}

/// Standard alphabet with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..4usize {
            let symbol = ALPHABET.get((group >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

fn with_tls(mut builder: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, IngestError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            setting(&format!(
                "file {} of schema_registry.tls cannot be read ({})",
                path.display(),
                error.kind()
            ))
        })
    };
    let refused = |path: &std::path::Path, wanted: &str| {
        setting(&format!("file {} of schema_registry.tls holds no {wanted} in PEM", path.display()))
    };
    if let Some(path) = &tls.ca_file {
        let authorities =
            Certificate::from_pem_bundle(&read(path)?).map_err(|_| refused(path, "certificate"))?;
        if authorities.is_empty() {
            return Err(refused(path, "certificate"));
        }
        // Its own authority replaces the system's.
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        if tls.key_password.is_some() {
            let why = "an encrypted key is not supported for the registry; give the key without a password";
            return Err(setting(why));
        }
        let mut pem = read(key)?;
        pem.push(b'\n');
        pem.extend(read(cert)?);
        builder = builder
            .identity(Identity::from_pem(&pem).map_err(|_| refused(cert, "certificate with its key"))?);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:pässwörd", "dXNlcjpww6Rzc3fDtnJk"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let limits = RegistryLimits { pause: Duration::from_millis(100), ..RegistryLimits::default() };
        for round in 1..40 {
            let pause = pause(&limits, round);
            assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_secs(1), "{pause:?}");
        }
    }
}
