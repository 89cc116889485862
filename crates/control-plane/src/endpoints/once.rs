//! `Idempotency-Key`: a change that is asked for twice is made once, and answered twice.
//!
//! The key belongs to one credential for a day, and to one request: method, path, query and body. The first that comes
//! claims it and does the work, even if its client goes away meanwhile; the others get its answer, or are told to ask
//! again while it is under way. What was refused or failed is not kept. A secret that is shown once is not kept either:
//! who asks again is told so.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::{
    Endpoint, Scope,
    call::{Call, Reply},
    dispatch::carry_out,
};
use crate::{
    app::App,
    audit::Event,
    auth::{Permission, Principal},
    problem::{Problem, ProblemType},
    store::{Store, StoreError, Tx},
};

pub(super) const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer is kept for so long.
pub(crate) const KEPT_MS: i64 = 24 * 3_600_000;
/// Keys of one credential within that time.
const KEYS_MAX: i64 = 10_000;
const KEY_BYTES_MAX: usize = 255;
/// The status of a row whose work is under way.
const UNDER_WAY: i64 = 0;
/// Work that is under way for longer was broken off by the end of the server.
const WORK_MS_MAX: i64 = 300_000;

/// Whether an endpoint takes keys.
pub(super) fn takes_keys(endpoint: &Endpoint) -> bool {
    let by_people = !matches!(endpoint.permission, Permission::Public | Permission::Session);
    endpoint.method != Method::GET && endpoint.scope != Scope::Worker && by_people
}

/// A key, whose it is, and what was asked with it.
#[derive(Debug)]
pub(super) struct Key {
    organisation: String,
    principal: String,
    digest: Vec<u8>,
    request: Vec<u8>,
}

impl Key {
    /// The key of a request. `None`: it has none, or its endpoint takes none.
    pub(super) fn of(
        endpoint: &Endpoint,
        principal: Option<&Principal>,
        (uri, headers): (&str, &HeaderMap),
        body: &[u8],
    ) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(HEADER).iter();
        let (Some(text), Some(principal)) = (given.next(), principal.filter(|_| takes_keys(endpoint))) else {
            return Ok(None);
        };
        let text = text.as_bytes();
        let plain = text.iter().all(|byte| (0x21..=0x7e).contains(byte));
        if text.is_empty() || text.len() > KEY_BYTES_MAX || !plain || given.next().is_some() {
            let detail = format!("Idempotency-Key: one, of 1 to {KEY_BYTES_MAX} printable ASCII characters");
            return Err(Problem::invalid(detail));
        }
        let mut request = Sha256::new();
        for part in [endpoint.method.as_str().as_bytes(), uri.as_bytes(), body] {
            request.update((part.len() as u64).to_be_bytes());
            request.update(part);
        }
        Ok(Some(Self {
            organisation: principal.organisation.clone(),
            principal: principal.actor(),
            digest: Sha256::digest(text).to_vec(),
            request: request.finalize().to_vec(),
        }))
    }
}

/// Does the work of a request once.
pub(super) async fn once(
    app: &Arc<App>,
    endpoint: &Arc<Endpoint>,
    key: Key,
    call: Call,
    event: Option<Event>,
) -> Result<Reply, Problem> {
    if let Some(reply) = claim(&app.store, endpoint, &key, app.clock.now_ms()).await? {
        return Ok(reply);
    }
    let (app, endpoint) = (Arc::clone(app), Arc::clone(endpoint));
    // A task of its own: it goes on when the client goes away, who then asks again for the answer.
    let work = tokio::spawn(async move {
        let done = carry_out(&app, &endpoint, call, event).await;
        if let Err(error) = settle(&app.store, &endpoint, &key, done.as_ref().ok()).await {
            tracing::warn!(%error, "the answer to a request with an idempotency key was not kept");
        }
        done
    });
    work.await.unwrap_or_else(|_| Err(Problem::new(ProblemType::Internal, "see the server's log")))
}

/// Claims a key. `Some`: it was claimed before, and this is the answer.
async fn claim(store: &Store, endpoint: &Endpoint, key: &Key, now_ms: i64) -> Result<Option<Reply>, Problem> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM idempotency_keys WHERE principal = $1 AND digest = $2 AND created_ms <= $3")
        .bind(&key.principal)
        .bind(key.digest.clone())
        .bind(now_ms - KEPT_MS)
        .execute(tx.connection())
        .await
        .map_err(StoreError::from)?;
    let claimed = sqlx::query(
        "INSERT INTO idempotency_keys (organisation_id, principal, digest, request, status, answer, created_ms)
         VALUES ($1, $2, $3, $4, $5, '', $6) ON CONFLICT (principal, digest) DO NOTHING",
    )
    .bind(&key.organisation)
    .bind(&key.principal)
    .bind(key.digest.clone())
    .bind(key.request.clone())
    .bind(UNDER_WAY)
    .bind(now_ms)
    .execute(tx.connection())
    .await
    .map_err(StoreError::from)?;
    if claimed.rows_affected() == 1 {
        let count = "SELECT COUNT(*) AS n FROM idempotency_keys WHERE principal = $1";
        tx.room(count, &key.principal, "idempotency keys of a day", KEYS_MAX + 1).await?;
        tx.commit().await?;
        return Ok(None);
    }
    match held(&mut tx, endpoint, key, now_ms).await? {
        Some(reply) => Ok(Some(reply)),
        None => Err(Problem::new(ProblemType::Unavailable, "try again").after(1)),
    }
}

/// The answer of a request that was carried out before.
pub(super) async fn done(
    app: &App,
    endpoint: &Endpoint,
    key: Option<&Key>,
) -> Result<Option<Reply>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let mut tx = app.store.begin().await?;
    held(&mut tx, endpoint, key, app.clock.now_ms()).await
}

/// What is held under a key, if it is held.
async fn held(tx: &mut Tx, endpoint: &Endpoint, key: &Key, now_ms: i64) -> Result<Option<Reply>, Problem> {
    let row = sqlx::query(
        "SELECT request, status, answer, created_ms FROM idempotency_keys
         WHERE principal = $1 AND digest = $2 AND created_ms > $3",
    )
    .bind(&key.principal)
    .bind(key.digest.clone())
    .bind(now_ms - KEPT_MS)
    .fetch_optional(tx.connection())
    .await
    .map_err(StoreError::from)?;
    let Some(row) = row else { return Ok(None) };
    let read = |row: &sqlx::any::AnyRow| {
        let (request, answer): (Vec<u8>, String) = (row.try_get("request")?, row.try_get("answer")?);
        Ok::<_, sqlx::Error>((request, row.try_get("status")?, answer, row.try_get("created_ms")?))
    };
    let (request, status, answer, created_ms): (_, i64, _, i64) = read(&row).map_err(StoreError::from)?;
    if request != key.request {
        let detail =
            "Idempotency-Key: it was sent with another request before; take a fresh one for each change";
        return Err(Problem::new(ProblemType::KeyReused, detail));
    }
    let conflict = |detail: &str| Problem::new(ProblemType::Conflict, detail);
    match status {
        UNDER_WAY if now_ms - created_ms > WORK_MS_MAX => Err(conflict(
            "the server ended while it made this change; look whether it was made, and take a fresh Idempotency-Key",
        )),
        UNDER_WAY => Err(conflict("the same request is under way; ask again").after(1)),
        _ if endpoint.shows_secret => Err(conflict(
            "this was done, and its secret was shown once and is not kept; revoke it and ask with a fresh \
             Idempotency-Key",
        )),
        _ => Ok(Some(replayed(status, answer))),
    }
}

fn replayed(status: i64, answer: String) -> Reply {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let mut reply = Reply::none();
    reply.body = Some(answer.into_bytes()).filter(|body| !body.is_empty());
    reply.status = status;
    reply.headers.push((REPLAYED, HeaderValue::from_static("true")));
    reply
}

/// Keeps the answer; without one, the key is free again.
async fn settle(
    store: &Store,
    endpoint: &Endpoint,
    key: &Key,
    reply: Option<&Reply>,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    match reply {
        None => {
            sqlx::query("DELETE FROM idempotency_keys WHERE principal = $1 AND digest = $2")
                .bind(&key.principal)
                .bind(key.digest.clone())
                .execute(tx.connection())
                .await?;
        }
        Some(reply) => {
            let body = reply.body.as_deref().filter(|_| !endpoint.shows_secret).unwrap_or_default();
            let status = reply.status.unwrap_or(endpoint.status);
            sqlx::query(
                "UPDATE idempotency_keys SET status = $3, answer = $4 WHERE principal = $1 AND digest = $2",
            )
            .bind(&key.principal)
            .bind(key.digest.clone())
            .bind(i64::from(status.as_u16()))
            .bind(String::from_utf8_lossy(body).into_owned())
            .execute(tx.connection())
            .await?;
        }
    }
    tx.commit().await
}
