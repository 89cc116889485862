//! The first organisation, and what its first admin needs.

use crate::{
    app::fresh_id,
    auth::{ApiKey, Role, principal::HASH_COST},
    clock::Clock,
    store::{Store, StoreError},
    tenants::KeyRing,
};

/// What was made.
#[derive(Debug)]
pub struct Made {
    pub organisation: String,
    /// The admin's key; shown once.
    pub key: ApiKey,
}

/// Makes an organisation, a service account that administers it, and a key of that.
///
/// # Errors
/// The database's.
pub async fn organisation(
    store: &Store,
    keys: &KeyRing,
    clock: &Clock,
    name: &str,
) -> Result<Made, StoreError> {
    let (organisation, account, now_ms) = (fresh_id(clock), fresh_id(clock), clock.now_ms());
    let key = ApiKey::generate(now_ms);
    let hash = key.hash(HASH_COST).ok_or(StoreError::Broken { what: "the hash of a new key" })?;
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO organisations (id, name, created_ms) VALUES ($1, $2, $3)")
        .bind(&organisation)
        .bind(name)
        .bind(now_ms)
        .execute(tx.connection())
        .await?;
    keys.create(&mut tx, &organisation, now_ms).await?;
    sqlx::query(
        "INSERT INTO service_accounts (id, organisation_id, name, created_ms) VALUES ($1, $2, 'admin', $3)",
    )
    .bind(&account)
    .bind(&organisation)
    .bind(now_ms)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "INSERT INTO role_bindings (id, organisation_id, service_account_id, role, pattern, created_ms)
         VALUES ($1, $2, $3, $4, 'organisation', $5)",
    )
    .bind(fresh_id(clock))
    .bind(&organisation)
    .bind(&account)
    .bind(Role::OrganisationAdmin.as_str())
    .bind(now_ms)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "INSERT INTO api_keys (id, organisation_id, service_account_id, hash, scope, label, created_ms, expires_ms,
           revoked_ms) VALUES ($1, $2, $3, $4, '[]', 'first', $5, 0, 0)",
    )
    .bind(key.id())
    .bind(&organisation)
    .bind(&account)
    .bind(hash)
    .bind(now_ms)
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(Made { organisation, key })
}
