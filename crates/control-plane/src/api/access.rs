//! Service accounts, their roles and their keys.

pub(crate) mod rows;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{Row, any::AnyRow};

use super::name;
use crate::{
    auth::{
        ApiKey, Pattern, Role,
        principal::{HASH_COST, ScopeGrant},
    },
    endpoints::{Call, Page, Reply},
    problem::{Problem, ProblemType},
    store::StoreError,
};

/// The longest overlap of a key and its successor, seconds.
const OVERLAP_MAX: u32 = 30 * 24 * 3_600;

#[derive(Debug, Serialize, JsonSchema)]
pub struct ServiceAccount {
    pub id: String,
    pub name: String,
    pub created_ms: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoleBinding {
    /// Either this or `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub service_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    pub role: Role,
    /// `organisation`, `environment/ID`, `environment/ID/cluster/ID`, or `.../table/NAME`, with an optional `*` at
    /// its end.
    #[schemars(length(min = 1, max = 600))]
    pub resource: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct RoleBinding {
    pub id: String,
    /// `null`: it is a user's.
    pub service_account: Option<String>,
    /// `null`: it is a service account's.
    pub user: Option<String>,
    pub role: String,
    pub resource: String,
    /// `api`, or `sign_on`: given by the config, anew at each sign-on.
    pub origin: String,
    pub created_ms: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    #[schemars(length(min = 1, max = 64))]
    pub service_account: String,
    /// What it is for.
    #[schemars(length(min = 1, max = 100))]
    pub label: String,
    /// From this time on it does not count any more, milliseconds since 1970 UTC. Absent: it does not expire.
    #[serde(default)]
    pub expires_ms: Option<i64>,
    /// What of the service account's rights it gives. Empty: all of them.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub scope: Vec<ScopeGrant>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The old key goes on for so long.
    #[schemars(range(min = 0, max = 2_592_000))]
    pub overlap_seconds: u32,
}

/// A key without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyView {
    pub id: String,
    pub service_account: String,
    pub label: String,
    pub created_ms: i64,
    /// `null`: it does not expire.
    pub expires_ms: Option<i64>,
    /// `null`: it is not revoked.
    pub revoked_ms: Option<i64>,
    pub scope: Vec<ScopeGrant>,
}

/// A new key, with its text. The text is not kept and cannot be shown again.
#[derive(Serialize, JsonSchema)]
pub struct ShownKey {
    #[serde(flatten)]
    pub view: KeyView,
    /// The key. Keep it where only its user can read it.
    pub key: String,
}

impl fmt::Debug for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownKey").field("view", &self.view).finish_non_exhaustive()
    }
}

pub(super) async fn page<T>(
    call: &Call,
    statement: &'static str,
    id: impl Fn(&T) -> String,
    read: impl Fn(&AnyRow) -> Result<T, StoreError>,
) -> Result<Page<T>, Problem> {
    let limit = call.number("limit");
    let rows = sqlx::query(statement)
        .bind(call.organisation()?)
        .bind(call.text("cursor").unwrap_or_default())
        .bind(limit + 1)
        .fetch_all(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::first(items, limit, id))
}

/// Deletes or changes one row of the organisation.
pub(super) async fn change(
    call: &Call,
    statement: &'static str,
    what: &str,
    id: &str,
) -> Result<Reply, Problem> {
    let mut tx = call.app.store.begin().await?;
    let done = sqlx::query(statement).bind(id).bind(call.organisation()?).execute(tx.connection()).await;
    if done.map_err(StoreError::from)?.rows_affected() == 0 {
        return Err(Problem::not_found(what));
    }
    tx.commit().await?;
    Ok(Reply::none())
}

pub(crate) async fn accounts(call: Call) -> Result<Reply, Problem> {
    let statement = "SELECT id, name, created_ms FROM service_accounts
        WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT $3";
    let read = |row: &AnyRow| {
        let (id, name) = (row.try_get("id")?, row.try_get("name")?);
        Ok(ServiceAccount { id, name, created_ms: row.try_get("created_ms")? })
    };
    Reply::json(&page(&call, statement, |account| account.id.clone(), read).await?)
}

pub(crate) async fn make_account(call: Call) -> Result<Reply, Problem> {
    let new: super::tenants::NewName = call.json()?;
    let (id, created_ms) = (call.app.fresh_id(), call.app.clock.now_ms());
    let made = ServiceAccount { id, name: name(&new.name)?.to_owned(), created_ms };
    let mut tx = call.app.store.begin().await?;
    rows::account(&mut tx, call.organisation()?, &made).await?;
    tx.commit().await?;
    Reply::json(&made)
}

pub(crate) async fn delete_account(call: Call) -> Result<Reply, Problem> {
    let statement = "DELETE FROM service_accounts WHERE id = $1 AND organisation_id = $2";
    change(&call, statement, "service account", call.path("service_account")).await
}

pub(crate) async fn bindings(call: Call) -> Result<Reply, Problem> {
    let statement = "SELECT id, service_account_id, '' AS user_id, role, pattern, 'api' AS origin, created_ms
          FROM role_bindings WHERE organisation_id = $1 AND id > $2
        UNION ALL SELECT id, '' AS service_account_id, user_id, role, pattern, origin, created_ms
          FROM user_role_bindings WHERE organisation_id = $1 AND id > $2
        ORDER BY id LIMIT $3";
    let read = |row: &AnyRow| {
        let (account, user): (String, String) = (row.try_get("service_account_id")?, row.try_get("user_id")?);
        Ok(RoleBinding {
            id: row.try_get("id")?,
            service_account: Some(account).filter(|id| !id.is_empty()),
            user: Some(user).filter(|id| !id.is_empty()),
            role: row.try_get("role")?,
            resource: row.try_get("pattern")?,
            origin: row.try_get("origin")?,
            created_ms: row.try_get("created_ms")?,
        })
    };
    Reply::json(&page(&call, statement, |binding| binding.id.clone(), read).await?)
}

pub(crate) async fn make_binding(call: Call) -> Result<Reply, Problem> {
    let new: NewRoleBinding = call.json()?;
    let pattern = Pattern::parse(&new.resource).ok_or_else(|| {
        Problem::invalid(
            "resource: organisation, environment/ID, environment/ID/cluster/ID, or .../table/NAME[*]",
        )
    })?;
    if new.role == Role::Worker && !matches!(pattern, Pattern::Cluster { .. }) {
        return Err(Problem::invalid(
            "resource: a worker is bound to one cluster, environment/ID/cluster/ID",
        ));
    }
    match (&new.service_account, &new.user) {
        (Some(id), None) => account(&call, id).await?,
        (None, Some(_)) if new.role == Role::Worker => {
            return Err(Problem::invalid("role: a worker is a service account, not a user"));
        }
        (None, Some(id)) => super::people::user(&call, id).await?,
        _ => return Err(Problem::invalid("service_account, user: give one of them")),
    }
    let made = RoleBinding {
        id: call.app.fresh_id(),
        service_account: new.service_account,
        user: new.user,
        role: new.role.as_str().to_owned(),
        resource: pattern.to_string(),
        origin: "api".to_owned(),
        created_ms: call.app.clock.now_ms(),
    };
    let mut tx = call.app.store.begin().await?;
    rows::binding(&mut tx, call.organisation()?, &made).await?;
    tx.commit().await?;
    Reply::json(&made)
}

pub(crate) async fn delete_binding(call: Call) -> Result<Reply, Problem> {
    let of_user = "DELETE FROM user_role_bindings WHERE id = $1 AND organisation_id = $2";
    let of_account = "DELETE FROM role_bindings WHERE id = $1 AND organisation_id = $2";
    match change(&call, of_account, "role binding", call.path("role_binding")).await {
        Err(problem) if problem.problem() == ProblemType::NotFound => {
            change(&call, of_user, "role binding", call.path("role_binding")).await
        }
        done => done,
    }
}

async fn account(call: &Call, id: &str) -> Result<(), Problem> {
    let known = sqlx::query("SELECT id FROM service_accounts WHERE id = $1 AND organisation_id = $2")
        .bind(id)
        .bind(call.organisation()?)
        .fetch_optional(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    known.map(drop).ok_or_else(|| Problem::not_found("service account"))
}

pub(crate) async fn keys(call: Call) -> Result<Reply, Problem> {
    let statement =
        "SELECT id, service_account_id, label, created_ms, expires_ms, revoked_ms, scope FROM api_keys
        WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT $3";
    Reply::json(&page(&call, statement, |key: &KeyView| key.id.clone(), key_view).await?)
}

fn key_view(row: &AnyRow) -> Result<KeyView, StoreError> {
    let broken = |_| StoreError::Broken { what: "the scope of an API key" };
    Ok(KeyView {
        id: row.try_get("id")?,
        service_account: row.try_get("service_account_id")?,
        label: row.try_get("label")?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: Some(row.try_get("expires_ms")?).filter(|at| *at != 0),
        revoked_ms: Some(row.try_get("revoked_ms")?).filter(|at| *at != 0),
        scope: serde_json::from_str(&row.try_get::<String, _>("scope")?).map_err(broken)?,
    })
}

pub(crate) async fn make_key(call: Call) -> Result<Reply, Problem> {
    let new: NewKey = call.json()?;
    account(&call, &new.service_account).await?;
    if new.expires_ms.is_some_and(|at| at <= call.app.clock.now_ms()) {
        return Err(Problem::invalid("expires_ms: a time to come, milliseconds since 1970 UTC"));
    }
    if new.scope.len() > 50 || new.scope.iter().any(|grant| Pattern::parse(&grant.resource).is_none()) {
        return Err(Problem::invalid("scope: at most 50, each with a resource as in role bindings"));
    }
    let created_ms = call.app.clock.now_ms();
    let view = KeyView {
        id: String::new(),
        service_account: new.service_account,
        label: name(&new.label)?.to_owned(),
        created_ms,
        expires_ms: new.expires_ms,
        revoked_ms: None,
        scope: new.scope,
    };
    insert_key(&call, view, None).await
}

pub(crate) async fn rotate_key(call: Call) -> Result<Reply, Problem> {
    let rotation: Rotation = call.json()?;
    if rotation.overlap_seconds > OVERLAP_MAX {
        return Err(Problem::invalid(format!("overlap_seconds: 0 to {OVERLAP_MAX}")));
    }
    let old = sqlx::query(
        "SELECT id, service_account_id, label, created_ms, expires_ms, revoked_ms, scope FROM api_keys
         WHERE id = $1 AND organisation_id = $2 AND revoked_ms = 0",
    )
    .bind(call.path("api_key"))
    .bind(call.organisation()?)
    .fetch_optional(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let old = key_view(&old.ok_or_else(|| Problem::not_found("API key"))?)?;
    let now_ms = call.app.clock.now_ms();
    // The successor lives as long as the old key was made for.
    let expires_ms = old.expires_ms.map(|at| now_ms + (at - old.created_ms));
    let ends_ms = now_ms + i64::from(rotation.overlap_seconds) * 1_000;
    let ends_ms = old.expires_ms.map_or(ends_ms, |at| at.min(ends_ms));
    let id = old.id.clone();
    insert_key(&call, KeyView { created_ms: now_ms, expires_ms, ..old }, Some((id, ends_ms))).await
}

/// Makes the key; in the same transaction, the key that it follows gets an end.
async fn insert_key(call: &Call, view: KeyView, ends: Option<(String, i64)>) -> Result<Reply, Problem> {
    let internal = || Problem::new(ProblemType::Internal, "the key cannot be made");
    let key = ApiKey::generate(view.created_ms);
    let hashed = key.clone();
    let hash = tokio::task::spawn_blocking(move || hashed.hash(HASH_COST)).await;
    let hash = hash.ok().flatten().ok_or_else(internal)?;
    let view = KeyView { id: key.id().to_owned(), ..view };
    let mut tx = call.app.store.begin().await?;
    rows::key(&mut tx, call.organisation()?, &view, &hash).await?;
    if let Some((old, ends_ms)) = ends {
        sqlx::query("UPDATE api_keys SET expires_ms = $2 WHERE id = $1")
            .bind(old)
            .bind(ends_ms)
            .execute(tx.connection())
            .await
            .map_err(StoreError::from)?;
    }
    tx.commit().await?;
    Reply::json(&ShownKey { view, key: key.reveal().to_string() })
}

pub(crate) async fn revoke_key(call: Call) -> Result<Reply, Problem> {
    let mut tx = call.app.store.begin().await?;
    let done = sqlx::query(
        "UPDATE api_keys SET revoked_ms = $3 WHERE id = $1 AND organisation_id = $2 AND revoked_ms = 0",
    )
    .bind(call.path("api_key"))
    .bind(call.organisation()?)
    .bind(call.app.clock.now_ms())
    .execute(tx.connection())
    .await;
    if done.map_err(StoreError::from)?.rows_affected() == 0 {
        return Err(Problem::not_found("API key that counts"));
    }
    tx.commit().await?;
    Ok(Reply::none())
}
