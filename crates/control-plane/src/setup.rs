//! The first organisation, and what its first admin needs.

use crate::{
    api::access::{KeyView, RoleBinding, ServiceAccount, rows},
    auth::{ApiKey, Pattern, Role, principal::HASH_COST},
    clock::Clock,
    id,
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
    let now_ms = clock.now_ms();
    let organisation = id::fresh(now_ms).to_string();
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
    let admin =
        ServiceAccount { id: id::fresh(now_ms).to_string(), name: "admin".to_owned(), created_ms: now_ms };
    rows::account(&mut tx, &organisation, &admin).await?;
    let binding = RoleBinding {
        id: id::fresh(now_ms).to_string(),
        service_account: Some(admin.id.clone()),
        user: None,
        role: Role::OrganisationAdmin.as_str().to_owned(),
        resource: Pattern::Organisation.to_string(),
        origin: "api".to_owned(),
        created_ms: now_ms,
    };
    rows::binding(&mut tx, &organisation, &binding).await?;
    let first = KeyView {
        id: key.id().to_owned(),
        service_account: admin.id,
        label: "first".to_owned(),
        created_ms: now_ms,
        expires_ms: None,
        revoked_ms: None,
        scope: Vec::new(),
    };
    rows::key(&mut tx, &organisation, &first, &hash).await?;
    tx.commit().await?;
    Ok(Made { organisation, key })
}
