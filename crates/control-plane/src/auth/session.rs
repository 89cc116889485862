//! Sessions of people: an opaque secret in a cookie, of which the database has a digest alone.
//!
//! A session ends when it was not used for a while, after a time in any case, when its user signs off, is disabled or
//! deleted, or when its provider leaves the config. The token that guards against forged requests is made from the
//! same secret: who cannot read the cookie cannot make it.

use std::{collections::HashMap, fmt};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::{Digest, Sha256};
use sqlx::Row;
use subtle::ConstantTimeEq;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    store::{Store, StoreError, Tx},
};

const SECRET_BYTES: usize = 32;
/// The use of a session is written down this often at most.
const TOUCH_EVERY_MS: i64 = 60_000;
/// Sessions of one user; the oldest end first.
const PER_USER_MAX: i64 = 50;

/// The header with the token that guards against forged requests.
pub const CSRF_HEADER: &str = "siltstone-csrf";

/// 32 random bytes that a browser holds. No `Display`; `Debug` hides it.
#[derive(Clone)]
pub struct BrowserSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl BrowserSecret {
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// Reads the text of a cookie.
    pub fn parse(text: &str) -> Option<Self> {
        let decoded = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?);
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        if decoded.len() != SECRET_BYTES {
            return None;
        }
        bytes.copy_from_slice(&decoded);
        Some(Self(bytes))
    }

    fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(self.0.as_ref()))
    }

    /// What is stored of it.
    pub fn digest(&self) -> Vec<u8> {
        Sha256::new()
            .chain_update(b"siltstone browser secret")
            .chain_update(self.0.as_ref())
            .finalize()
            .to_vec()
    }

    /// A secret that only its holder can make, for one purpose: 43 characters of base64 for URLs.
    pub fn derived(&self, purpose: &str) -> String {
        let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(self.0.as_ref()) else {
            return String::new();
        };
        mac.update(purpose.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Whether a text is the secret derived for a purpose, in constant time.
    pub fn is_derived(&self, purpose: &str, text: &str) -> bool {
        let expected = self.derived(purpose);
        !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(text.as_bytes()))
    }
}

impl fmt::Debug for BrowserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrowserSecret")
    }
}

/// The cookies of this server.
#[derive(Debug, Clone)]
pub struct Cookies {
    /// They go over HTTPS alone.
    secure: bool,
    origin: String,
}

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Session,
    /// A sign-on that is under way.
    SignOn,
}

impl Cookies {
    pub fn new(public: Option<&Url>) -> Self {
        let secure = public.is_none_or(|url| url.scheme() == "https");
        let origin = public.map(|url| url.origin().ascii_serialization());
        Self { secure, origin: origin.unwrap_or_default() }
    }

    /// `__Host-`: browsers take it over HTTPS alone, for this host alone, and no subdomain can set it.
    pub fn name(&self, purpose: Purpose) -> &'static str {
        match (purpose, self.secure) {
            (Purpose::Session, true) => "__Host-siltstone-session",
            (Purpose::Session, false) => "siltstone-session",
            (Purpose::SignOn, true) => "__Host-siltstone-sign-on",
            (Purpose::SignOn, false) => "siltstone-sign-on",
        }
    }

    /// The header that gives a cookie; without a secret, the one that takes it away.
    pub fn set(&self, purpose: Purpose, secret: Option<&BrowserSecret>, seconds: i64) -> Option<HeaderValue> {
        let (name, secure) = (self.name(purpose), if self.secure { "; Secure" } else { "" });
        let value = secret.map(BrowserSecret::reveal).unwrap_or_default();
        let seconds = if secret.is_some() { seconds } else { 0 };
        let text = Zeroizing::new(format!(
            "{name}={}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}",
            value.as_str()
        ));
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// The secret of a cookie. `None`: there is none, it has not the form of one, or there are two, of which another
    /// one could have been put there by somebody else.
    pub fn get(&self, purpose: Purpose, headers: &HeaderMap) -> Option<BrowserSecret> {
        let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == self.name(purpose)).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => BrowserSecret::parse(value),
            _ => None,
        }
    }

    /// Checks that a request with a session's cookie was made by a page of this server: the token, and what the
    /// browser says of where it comes from.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn same_origin(&self, session: &Session, headers: &HeaderMap) -> Result<(), &'static str> {
        let said = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        if said("sec-fetch-site").is_some_and(|site| site != b"same-origin") {
            return Err("Sec-Fetch-Site: a request with a cookie must come from a page of this server");
        }
        if said("origin").is_some_and(|origin| origin != self.origin.as_bytes()) {
            return Err(
                "Origin: a request with a cookie must come from a page of this server; see public_url",
            );
        }
        let mut tokens = headers.get_all(CSRF_HEADER).iter();
        let right = match (tokens.next(), tokens.next()) {
            (Some(token), None) => bool::from(token.as_bytes().ct_eq(session.csrf.as_bytes())),
            _ => false,
        };
        if right { Ok(()) } else { Err("Siltstone-Csrf: send the csrf_token of GET /api/v1/session") }
    }
}

/// A session that counts.
#[derive(Clone)]
pub struct Session {
    digest: Vec<u8>,
    csrf: String,
}

impl Session {
    /// The token that its requests must send when they change something.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// Whose session it is.
#[derive(Debug)]
pub struct Owner {
    pub user: String,
    pub organisation: String,
    pub session: Session,
}

/// The sessions of the database.
#[derive(Debug)]
pub struct Sessions {
    store: Store,
    clock: Clock,
    /// How long a session may rest, by provider, milliseconds.
    idle_ms: HashMap<String, i64>,
}

impl Sessions {
    pub fn new(store: Store, clock: Clock, idle_ms: HashMap<String, i64>) -> Self {
        Self { store, clock, idle_ms }
    }

    /// The owner of a session that counts, and notes that it was used.
    ///
    /// # Errors
    /// The database's.
    pub async fn owner(&self, secret: &BrowserSecret) -> Result<Option<Owner>, StoreError> {
        let (digest, now_ms) = (secret.digest(), self.clock.now_ms());
        let row = sqlx::query(
            "SELECT s.user_id, s.used_ms, u.organisation_id, u.provider FROM sessions s JOIN users u ON u.id = s.user_id
             WHERE s.digest = $1 AND s.expires_ms > $2 AND u.disabled_ms = 0",
        )
        .bind(digest.clone())
        .bind(now_ms)
        .fetch_optional(self.store.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (used_ms, provider): (i64, String) = (row.try_get("used_ms")?, row.try_get("provider")?);
        let Some(idle_ms) = self.idle_ms.get(&provider) else { return Ok(None) };
        if now_ms.saturating_sub(used_ms) >= *idle_ms {
            return Ok(None);
        }
        if now_ms.saturating_sub(used_ms) >= TOUCH_EVERY_MS.min(idle_ms / 2) {
            let mut tx = self.store.begin().await?;
            sqlx::query("UPDATE sessions SET used_ms = $2 WHERE digest = $1")
                .bind(digest.clone())
                .bind(now_ms)
                .execute(tx.connection())
                .await?;
            tx.commit().await?;
        }
        let session = Session { digest, csrf: secret.derived("csrf") };
        Ok(Some(Owner {
            user: row.try_get("user_id")?,
            organisation: row.try_get("organisation_id")?,
            session,
        }))
    }

    /// Begins a session, with a secret that nobody had before.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&self, tx: &mut Tx, user: &str, lasts_ms: i64) -> Result<BrowserSecret, StoreError> {
        let (secret, now_ms) = (BrowserSecret::generate(), self.clock.now_ms());
        sqlx::query(
            "DELETE FROM sessions WHERE user_id = $1 AND (expires_ms <= $2 OR digest IN (
               SELECT digest FROM sessions WHERE user_id = $1 ORDER BY created_ms DESC LIMIT 1000 OFFSET $3))",
        )
        .bind(user)
        .bind(now_ms)
        .bind(PER_USER_MAX - 1)
        .execute(tx.connection())
        .await?;
        sqlx::query(
            "INSERT INTO sessions (digest, user_id, created_ms, used_ms, expires_ms) VALUES ($1, $2, $3, $3, $4)",
        )
        .bind(secret.digest())
        .bind(user)
        .bind(now_ms)
        .bind(now_ms.saturating_add(lasts_ms))
        .execute(tx.connection())
        .await?;
        Ok(secret)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, session: &Session) -> Result<(), StoreError> {
        self.end_digest(session.digest.clone()).await
    }

    /// Ends the session of a secret, if there is one.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_of(&self, secret: &BrowserSecret) -> Result<(), StoreError> {
        self.end_digest(secret.digest()).await
    }

    async fn end_digest(&self, digest: Vec<u8>) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE digest = $1").bind(digest).execute(tx.connection()).await?;
        tx.commit().await
    }
}

/// Ends all sessions of a user.
///
/// # Errors
/// The database's.
pub async fn end_all(tx: &mut Tx, user: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(user).execute(tx.connection()).await?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cookies(public: &str) -> Cookies {
        Cookies::new(Some(&Url::parse(public).unwrap()))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_for_this_host_over_https_and_one_of_it_counts() {
        let (secret, cookies) = (BrowserSecret::generate(), cookies("https://a.example.com"));
        let set = cookies.set(Purpose::Session, Some(&secret), 60).unwrap();
        let set = set.to_str().unwrap();
        let pair = set.split(';').next().unwrap();
        assert!(pair.starts_with("__Host-siltstone-session="));
        assert!(set.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"), "{set}");
        let read = |cookie: &str| cookies.get(Purpose::Session, &headers(&[("cookie", cookie)]));
        assert_eq!(read(&format!("a=b; {pair}; c=d")).unwrap().digest(), secret.digest());
        assert!(read(&format!("{pair}; {pair}")).is_none());
        assert!(read(&pair.replace("__Host-", "")).is_none());
        assert!(read("__Host-siltstone-session=x").is_none());
    }

    #[test]
    fn a_forged_request_lacks_the_token_or_says_where_it_comes_from() {
        let (secret, cookies) = (BrowserSecret::generate(), cookies("https://a.example.com"));
        let session = Session { digest: secret.digest(), csrf: secret.derived("csrf") };
        let token = session.csrf().to_owned();
        let check = |pairs: &[(&'static str, &str)]| cookies.same_origin(&session, &headers(pairs)).is_ok();
        assert!(check(&[("siltstone-csrf", &token)]));
        let own = [
            ("siltstone-csrf", token.as_str()),
            ("origin", "https://a.example.com"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(check(&own));
        assert!(!check(&[]));
        assert!(!check(&[("siltstone-csrf", &BrowserSecret::generate().derived("csrf"))]));
        assert!(!check(&[("siltstone-csrf", &token), ("siltstone-csrf", &token)]));
        assert!(!check(&[("siltstone-csrf", &token), ("origin", "https://evil.example.com")]));
        assert!(!check(&[("siltstone-csrf", &token), ("origin", "null")]));
        assert!(!check(&[("siltstone-csrf", &token), ("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("siltstone-csrf", &token), ("sec-fetch-site", "same-site")]));
    }
}
