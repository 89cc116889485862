//! Rows of service accounts, role bindings and keys, as they are made.

use super::{KeyView, RoleBinding, ServiceAccount};
use crate::store::{StoreError, Tx};

pub(crate) async fn account(
    tx: &mut Tx,
    organisation: &str,
    made: &ServiceAccount,
) -> Result<(), StoreError> {
    let statement =
        "INSERT INTO service_accounts (id, organisation_id, name, created_ms) VALUES ($1, $2, $3, $4)";
    let query =
        sqlx::query(statement).bind(&made.id).bind(organisation).bind(&made.name).bind(made.created_ms);
    query.execute(tx.connection()).await?;
    Ok(())
}

pub(crate) async fn binding(tx: &mut Tx, organisation: &str, made: &RoleBinding) -> Result<(), StoreError> {
    let (statement, of) = match (&made.service_account, &made.user) {
        (None, Some(user)) => (
            "INSERT INTO user_role_bindings (id, organisation_id, user_id, role, pattern, created_ms, origin)
             VALUES ($1, $2, $3, $4, $5, $6, 'api')",
            user.as_str(),
        ),
        (account, _) => (
            "INSERT INTO role_bindings (id, organisation_id, service_account_id, role, pattern, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
            account.as_deref().unwrap_or_default(),
        ),
    };
    sqlx::query(statement)
        .bind(&made.id)
        .bind(organisation)
        .bind(of)
        .bind(&made.role)
        .bind(&made.resource)
        .bind(made.created_ms)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// `hash` is what is kept of the key's secret.
pub(crate) async fn key(
    tx: &mut Tx,
    organisation: &str,
    made: &KeyView,
    hash: &str,
) -> Result<(), StoreError> {
    let scope = serde_json::to_string(&made.scope);
    sqlx::query(
        "INSERT INTO api_keys (id, organisation_id, service_account_id, hash, scope, label, created_ms, expires_ms,
           revoked_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)",
    )
    .bind(&made.id)
    .bind(organisation)
    .bind(&made.service_account)
    .bind(hash)
    .bind(scope.map_err(|_| StoreError::Broken { what: "the scope of an API key" })?)
    .bind(&made.label)
    .bind(made.created_ms)
    .bind(made.expires_ms.unwrap_or(0))
    .execute(tx.connection())
    .await?;
    Ok(())
}
