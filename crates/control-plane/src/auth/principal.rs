//! From a request's credential to who it is.

use std::{fmt, net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{
    ApiKey, Cookies, Grant, KeyChecker, Pattern, Role, Session, Sessions, rate::Buckets, session::Purpose,
};
use crate::{
    clock::Clock,
    store::{Store, StoreError},
};

/// bcrypt's cost of stored keys: some 50 ms. Their secrets are 256 random bits; the cost is for form's sake.
pub const HASH_COST: u32 = 10;

/// Who is asking.
#[derive(Debug, Clone)]
pub struct Principal {
    pub organisation: String,
    pub who: Who,
    /// Already cut down to the key's scope.
    pub grants: Vec<Grant>,
}

/// A program with a key, or a person in a session.
#[derive(Debug, Clone)]
pub enum Who {
    Key { service_account: String, key: String },
    User { user: String, session: Session },
}

impl Principal {
    /// As the audit log names it.
    pub fn actor(&self) -> String {
        match &self.who {
            Who::Key { key, .. } => format!("api_key/{key}"),
            Who::User { user, .. } => format!("user/{user}"),
        }
    }

    /// The session, when a cookie is the credential.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::Key { .. } => None,
            Who::User { session, .. } => Some(session),
        }
    }

    /// The one cluster whose worker this is, as (environment, cluster). `None`: it is no worker, or of several.
    pub fn worker_cluster(&self) -> Option<(&str, &str)> {
        let mut clusters =
            self.grants.iter().filter(|grant| grant.role == Role::Worker).map(|grant| &grant.pattern);
        match (clusters.next(), clusters.next()) {
            (Some(Pattern::Cluster { environment, cluster }), None) => Some((environment, cluster)),
            _ => None,
        }
    }
}

/// Why a credential does not count. The client is told no more than that; the audit log knows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    Missing,
    /// The session of a cookie is unknown, has ended, or its user is disabled.
    NoSession,
    Malformed,
    Unknown,
    Wrong,
    Expired,
    Revoked,
    /// Too many failures from this address; the seconds to wait.
    Throttled(u32),
}

/// A part of what a service account may do, to which a key is cut down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeGrant {
    pub role: Role,
    /// `organisation`, `environment/ID`, `environment/ID/cluster/ID`, or `.../table/NAME`, with an optional `*` at
    /// its end.
    #[schemars(length(min = 1, max = 600))]
    pub resource: String,
}

/// Finds out who is asking.
pub struct Authenticator {
    store: Store,
    clock: Clock,
    checker: Arc<KeyChecker>,
    failures: Buckets,
    pub cookies: Cookies,
    pub sessions: Sessions,
}

impl Authenticator {
    pub fn new(
        store: Store,
        clock: Clock,
        failures_per_minute: u32,
        cookies: Cookies,
        sessions: Sessions,
    ) -> Self {
        let burst = f64::from(failures_per_minute.max(1));
        let failures = Buckets::new(burst / 60.0, burst);
        Self { store, clock, checker: Arc::default(), failures, cookies, sessions }
    }

    /// How many hashes were computed to check keys.
    pub fn hashed(&self) -> u64 {
        self.checker.hashed()
    }

    /// The principal of a request. Failures of an address are counted, and only they slow it down: a right key from the
    /// same address is turned away only while the bucket is empty.
    ///
    /// # Errors
    /// The outer one: the database did not answer. The inner one: the credential does not count.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Result<Principal, AuthFailure>, StoreError> {
        let now_ms = self.clock.now_ms();
        let address = address.to_string();
        if let Err(seconds) = self.failures.look(&address, now_ms) {
            return Ok(Err(AuthFailure::Throttled(seconds)));
        }
        let found = self.find(headers, now_ms).await?;
        match &found {
            // Who sends no key at all does not slow down who does from the same address.
            Err(AuthFailure::Missing | AuthFailure::NoSession) => {
                let waits = self.failures.take(&format!("{address} without a key"), now_ms);
                return Ok(waits.map_err(AuthFailure::Throttled).and(found));
            }
            Err(_) => {
                // Its own answer says so already.
                let _ = self.failures.take(&address, now_ms);
            }
            Ok(_) => {}
        }
        Ok(found)
    }

    async fn find(
        &self,
        headers: &HeaderMap,
        now_ms: i64,
    ) -> Result<Result<Principal, AuthFailure>, StoreError> {
        let key = match bearer(headers) {
            Ok(key) => key,
            Err(AuthFailure::Missing) => return self.person(headers).await,
            Err(failure) => return Ok(Err(failure)),
        };
        let row = sqlx::query(
            "SELECT organisation_id, service_account_id, hash, scope, expires_ms, revoked_ms FROM api_keys WHERE id = $1",
        )
        .bind(key.id())
        .fetch_optional(self.store.pool())
        .await?;
        let hash = row.as_ref().map(|row| row.try_get::<String, _>("hash")).transpose()?;
        let (checker, id) = (Arc::clone(&self.checker), key.id().to_owned());
        let known = hash.is_some();
        let right =
            tokio::task::spawn_blocking(move || checker.check(&key, hash.as_deref(), HASH_COST)).await;
        let row = match (row, right.unwrap_or(false)) {
            (Some(row), true) => row,
            _ => return Ok(Err(if known { AuthFailure::Wrong } else { AuthFailure::Unknown })),
        };
        if row.try_get::<i64, _>("revoked_ms")? != 0 {
            return Ok(Err(AuthFailure::Revoked));
        }
        let expires_ms: i64 = row.try_get("expires_ms")?;
        if expires_ms != 0 && expires_ms <= now_ms {
            return Ok(Err(AuthFailure::Expired));
        }
        let (organisation, service_account): (String, String) =
            (row.try_get("organisation_id")?, row.try_get("service_account_id")?);
        let scope: Vec<ScopeGrant> = serde_json::from_str(&row.try_get::<String, _>("scope")?)
            .map_err(|_| StoreError::Broken { what: "the scope of an API key" })?;
        let grants = cut_down(self.bindings(&service_account).await?, &scope);
        Ok(Ok(Principal { organisation, who: Who::Key { service_account, key: id }, grants }))
    }

    /// The person of a session's cookie.
    async fn person(&self, headers: &HeaderMap) -> Result<Result<Principal, AuthFailure>, StoreError> {
        if headers.get(header::COOKIE).is_none() {
            return Ok(Err(AuthFailure::Missing));
        }
        let Some(secret) = self.cookies.get(Purpose::Session, headers) else {
            return Ok(Err(AuthFailure::Missing));
        };
        let Some(owner) = self.sessions.owner(&secret).await? else {
            return Ok(Err(AuthFailure::NoSession));
        };
        let statement = "SELECT role, pattern FROM user_role_bindings WHERE user_id = $1";
        let grants = self.grants(statement, &owner.user).await?;
        let who = Who::User { user: owner.user, session: owner.session };
        Ok(Ok(Principal { organisation: owner.organisation, who, grants }))
    }

    async fn bindings(&self, service_account: &str) -> Result<Vec<Grant>, StoreError> {
        let statement = "SELECT role, pattern FROM role_bindings WHERE service_account_id = $1";
        self.grants(statement, service_account).await
    }

    async fn grants(&self, statement: &'static str, of: &str) -> Result<Vec<Grant>, StoreError> {
        let rows = sqlx::query(statement).bind(of).fetch_all(self.store.pool()).await?;
        let grant = |row: &sqlx::any::AnyRow| {
            let (role, pattern): (String, String) = (row.try_get("role")?, row.try_get("pattern")?);
            let grant = Role::parse(&role).zip(Pattern::parse(&pattern));
            let (role, pattern) = grant.ok_or(StoreError::Broken { what: "a role binding" })?;
            Ok(Grant { role, pattern })
        };
        rows.iter().map(grant).collect()
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

/// The key of the one `Authorization` header. Two of them are none: who else reads the request may take the other one.
fn bearer(headers: &HeaderMap) -> Result<ApiKey, AuthFailure> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (all.next(), all.next()) {
        (None, _) => return Err(AuthFailure::Missing),
        (Some(value), None) => value,
        _ => return Err(AuthFailure::Malformed),
    };
    let text = value.to_str().map_err(|_| AuthFailure::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthFailure::Malformed)?;
    let key = ApiKey::parse(token.trim_start()).filter(|_| scheme.eq_ignore_ascii_case("bearer"));
    key.ok_or(AuthFailure::Malformed)
}

/// What the account has and the scope names. An empty scope is all that the account has.
fn cut_down(has: Vec<Grant>, scope: &[ScopeGrant]) -> Vec<Grant> {
    if scope.is_empty() {
        return has;
    }
    let wanted = scope.iter().filter_map(|wanted| Some((wanted.role, Pattern::parse(&wanted.resource)?)));
    let given = wanted.filter(|(role, pattern)| {
        has.iter().any(|grant| grant.role == *role && grant.pattern.contains(pattern))
    });
    given.map(|(role, pattern)| Grant { role, pattern }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_scope_cuts_down_and_never_adds() {
        let grant = |role, pattern: &str| Grant { role, pattern: Pattern::parse(pattern).unwrap() };
        let has =
            vec![grant(Role::Operator, "environment/e"), grant(Role::Worker, "environment/e/cluster/c")];
        let scope = |role, resource: &str| ScopeGrant { role, resource: resource.to_owned() };
        let wanted = [
            scope(Role::Operator, "environment/e/cluster/c/table/a*"),
            scope(Role::Operator, "environment/f"),
            scope(Role::Operator, "organisation"),
            scope(Role::OrganisationAdmin, "environment/e"),
        ];
        assert_eq!(
            cut_down(has.clone(), &wanted),
            [grant(Role::Operator, "environment/e/cluster/c/table/a*")]
        );
        assert_eq!(cut_down(has.clone(), &[]), has);
    }

    #[test]
    fn one_header_of_one_form_counts() {
        let text = ApiKey::generate(1).reveal();
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers).unwrap_err(), AuthFailure::Missing);
        headers.insert(header::AUTHORIZATION, value(&format!("Bearer {}", text.as_str())));
        bearer(&headers).unwrap();
        headers.append(header::AUTHORIZATION, value(&format!("Bearer {}", text.as_str())));
        assert_eq!(bearer(&headers).unwrap_err(), AuthFailure::Malformed);
        for wrong in ["", "Bearer", "Bearer ", text.as_str(), "Basic QTpC"] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value(wrong))]);
            assert_eq!(bearer(&headers).unwrap_err(), AuthFailure::Malformed, "{wrong}");
        }
    }
}
