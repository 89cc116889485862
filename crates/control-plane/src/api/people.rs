//! Users: persons who signed on at least once.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{Row, any::AnyRow};

use super::access::change;
use crate::{
    auth::session::end_all,
    endpoints::{Call, Page, Reply},
    oidc::Profile,
    problem::Problem,
    store::StoreError,
};

/// A person.
#[derive(Debug, Serialize, JsonSchema)]
pub struct User {
    pub id: String,
    /// The provider in the config.
    pub provider: String,
    #[serde(flatten)]
    pub profile: Profile,
    pub created_ms: i64,
    pub last_sign_on_ms: i64,
    /// `null`: the user may sign on.
    pub disabled_ms: Option<i64>,
    /// Sessions that have not ended.
    pub sessions: i64,
}

const COLUMNS: &str = "SELECT id, provider, sealed, created_ms, last_sign_on_ms, disabled_ms,
    (SELECT COUNT(*) FROM sessions WHERE user_id = users.id) AS session_count FROM users
    WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT $3";

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let (limit, organisation) = (call.number("limit"), call.organisation()?);
    let rows = sqlx::query(COLUMNS)
        .bind(organisation)
        .bind(call.text("cursor").unwrap_or_default())
        .bind(limit + 1)
        .fetch_all(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(read(&call, organisation, row).await?);
    }
    Reply::json(&Page::first(items, limit, |user| user.id.clone()))
}

async fn read(call: &Call, organisation: &str, row: &AnyRow) -> Result<User, StoreError> {
    let (id, sealed): (String, Vec<u8>) = (row.try_get("id")?, row.try_get("sealed")?);
    Ok(User {
        provider: row.try_get("provider")?,
        profile: call.app.sign_on.people().profile(organisation, &id, &sealed).await?,
        created_ms: row.try_get("created_ms")?,
        last_sign_on_ms: row.try_get("last_sign_on_ms")?,
        disabled_ms: Some(row.try_get("disabled_ms")?).filter(|at| *at != 0),
        sessions: row.try_get("session_count")?,
        id,
    })
}

/// What is known of one user.
pub(super) async fn profile(call: &Call, id: &str) -> Result<Profile, Problem> {
    let organisation = call.organisation()?;
    let row = sqlx::query("SELECT sealed FROM users WHERE id = $1 AND organisation_id = $2")
        .bind(id)
        .bind(organisation)
        .fetch_optional(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    let row = row.ok_or_else(|| Problem::not_found("user"))?;
    let sealed: Vec<u8> = row.try_get("sealed").map_err(StoreError::from)?;
    Ok(call.app.sign_on.people().profile(organisation, id, &sealed).await?)
}

/// There is such a user.
pub(super) async fn user(call: &Call, id: &str) -> Result<(), Problem> {
    let known = sqlx::query("SELECT id FROM users WHERE id = $1 AND organisation_id = $2")
        .bind(id)
        .bind(call.organisation()?)
        .fetch_optional(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    known.map(drop).ok_or_else(|| Problem::not_found("user"))
}

pub(crate) async fn disable(call: Call) -> Result<Reply, Problem> {
    let id = call.path("user");
    user(&call, id).await?;
    let mut tx = call.app.store.begin().await?;
    sqlx::query("UPDATE users SET disabled_ms = $2 WHERE id = $1 AND disabled_ms = 0")
        .bind(id)
        .bind(call.app.clock.now_ms())
        .execute(tx.connection())
        .await
        .map_err(StoreError::from)?;
    end_all(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Reply::none())
}

pub(crate) async fn enable(call: Call) -> Result<Reply, Problem> {
    let statement = "UPDATE users SET disabled_ms = 0 WHERE id = $1 AND organisation_id = $2";
    change(&call, statement, "user", call.path("user")).await
}

pub(crate) async fn end_sessions(call: Call) -> Result<Reply, Problem> {
    let id = call.path("user");
    user(&call, id).await?;
    let mut tx = call.app.store.begin().await?;
    end_all(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Reply::none())
}

/// Sessions and role bindings go with the user.
pub(crate) async fn delete(call: Call) -> Result<Reply, Problem> {
    let statement = "DELETE FROM users WHERE id = $1 AND organisation_id = $2";
    change(&call, statement, "user", call.path("user")).await
}
