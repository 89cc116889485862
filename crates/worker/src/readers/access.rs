//! Who asks. Tokens are kept as digests and compared in constant time; a wrong one is answered slowly.

use std::{net::IpAddr, time::Duration};

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use siltstone_spec::{ReadersCatalog, TablePattern};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio::sync::Semaphore;

use super::answer::{Fault, Kind};

/// Wrong tokens answered at once, each after [`BAD_TOKEN_WAIT`]: what somebody who guesses can try.
const BAD_TOKENS_MAX: usize = 8;
const BAD_TOKEN_WAIT: Duration = Duration::from_millis(250);
const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The tokens of the spec.
pub(super) struct Access {
    tokens: Vec<Known>,
    bad: Semaphore,
}

struct Known {
    name: String,
    digest: [u8; 32],
    allow: Vec<TablePattern>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    /// `None`: the catalog has no tokens.
    allow: Option<&'a [TablePattern]>,
}

impl Reader<'_> {
    /// Whether the table of this dotted name exists for this reader.
    pub(super) fn may(&self, table: &str) -> bool {
        self.allow.is_none_or(|allow| allow.iter().any(|pattern| pattern.matches(table)))
    }
}

/// Why no token was given out (RFC 6749, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) error: &'static str,
    pub(super) what: &'static str,
}

pub(super) const REFUSED: Refused = Refused {
    error: "invalid_client",
    what: "the secret is no token of this catalog, or not that of the client id before it",
};

/// To a token that is not known.
pub(super) fn unknown_token() -> Fault {
    Fault::new(Kind::Unauthorized, "the bearer token is not one of this catalog's (readers_catalog.tokens)")
}

impl Access {
    pub(super) fn new(section: &ReadersCatalog) -> Self {
        let tokens = section.tokens.iter().map(|token| Known {
            name: token.name.clone(),
            digest: digest(token.token.reveal()),
            allow: token.allow.clone(),
        });
        Self { tokens: tokens.collect(), bad: Semaphore::new(BAD_TOKENS_MAX) }
    }

    /// # Errors
    /// `Unauthorized`: no token, or one that is not known. Answer it through [`Self::refuse`].
    pub(super) fn reader(&self, headers: &HeaderMap) -> Result<Reader<'_>, Fault> {
        if self.tokens.is_empty() {
            let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
            if host.is_none_or(is_this_machine) {
                return Ok(Reader { allow: None });
            }
            let what = "a catalog without tokens is asked by address or as localhost; give it tokens \
                        (readers_catalog.tokens) to ask by another name";
            return Err(Fault::new(Kind::Unauthorized, what));
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            let what = "send a token of readers_catalog.tokens: `Authorization: Bearer TOKEN`";
            return Err(Fault::new(Kind::Unauthorized, what));
        };
        let bearer = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match bearer.and_then(|token| self.find(token)) {
            Some(known) => Ok(Reader { allow: Some(&known.allow) }),
            None => Err(unknown_token()),
        }
    }

    /// The fault, after a while; or another one when too many come at once. Cancel-safe.
    pub(super) async fn refuse(&self, fault: Fault) -> Fault {
        let Ok(_permit) = self.bad.try_acquire() else {
            return Fault::new(Kind::TooMany, "too many requests with a wrong token; ask again later");
        };
        tokio::time::sleep(BAD_TOKEN_WAIT).await;
        fault
    }

    /// The access token for a form of RFC 6749, section 4.4, or RFC 8693: the token that it holds, or that the
    /// client authenticates itself with (section 2.3.1).
    ///
    /// # Errors
    /// [`REFUSED`], which is to be answered slowly; or what the form lacks.
    pub(super) fn exchange(&self, headers: &HeaderMap, form: &[u8]) -> Result<String, Refused> {
        let form: Vec<_> = url::form_urlencoded::parse(form).into_owned().collect();
        let field = |name: &str| {
            let found = form.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let basic = basic(headers);
        let (id, secret) = match (field("grant_type"), &basic) {
            (Some(CLIENT_CREDENTIALS), Some((id, secret))) => (Some(id.as_str()), Some(secret.as_str())),
            (Some(CLIENT_CREDENTIALS), None) => (field("client_id"), field("client_secret")),
            (Some(TOKEN_EXCHANGE), _) => (None, field("subject_token")),
            _ => {
                let what = "grant_type is client_credentials, or that of a token exchange";
                return Err(Refused { error: "unsupported_grant_type", what });
            }
        };
        let Some(secret) = secret else {
            let what = "client_secret holds a token of readers_catalog.tokens";
            return Err(Refused { error: "invalid_request", what });
        };
        if self.tokens.is_empty() {
            // Everybody may read; clients that insist on a token get one.
            return Ok("none-needed".to_owned());
        }
        let known = self.find(secret).filter(|known| id.is_none_or(|id| id == known.name));
        known.map(|_| secret.to_owned()).ok_or(REFUSED)
    }

    /// Looks at every token, whichever it is: time tells nothing.
    fn find(&self, token: &str) -> Option<&Known> {
        let digest = digest(token);
        let mut found = u32::MAX;
        for (index, known) in (0..).zip(&self.tokens) {
            let same: Choice = known.digest.ct_eq(&digest);
            found.conditional_assign(&index, same);
        }
        self.tokens.get(usize::try_from(found).ok()?)
    }
}

/// Whether a `Host` header is one that no web page of elsewhere can have made a browser send: its own name would
/// stand there, whatever address that name was given.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Id and secret of `Authorization: Basic`, each percent-encoded or, as clients do, as it is: no token has a `%`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    Some((decoded(id)?, decoded(secret)?))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
