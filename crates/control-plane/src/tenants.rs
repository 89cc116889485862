//! Organisations, their data keys, environments and clusters.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::Row;

use crate::{
    crypto::{CryptoError, DataKeys, MasterKeys, Purpose, StoredKey},
    store::{Store, StoreError, Tx},
};

/// Organisations whose opened keys are remembered.
const OPENED_MAX: usize = 10_000;

impl From<CryptoError> for StoreError {
    fn from(_: CryptoError) -> Self {
        Self::Broken { what: "a data key or sealed value does not open; check the master keys in the config" }
    }
}

/// The data keys of organisations, opened once.
pub struct KeyRing {
    store: Store,
    masters: MasterKeys,
    opened: Mutex<HashMap<String, Arc<DataKeys>>>,
}

impl KeyRing {
    pub fn new(store: Store, masters: MasterKeys) -> Self {
        Self { store, masters, opened: Mutex::default() }
    }

    /// The opened keys of an organisation.
    ///
    /// # Errors
    /// The database's; `Broken` when no master key opens them.
    pub async fn of(&self, organisation: &str) -> Result<Arc<DataKeys>, StoreError> {
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(organisation) {
            return Ok(Arc::clone(known));
        }
        let stored = stored_keys(&self.store, Some(organisation)).await?;
        let stored: Vec<StoredKey> = stored.into_iter().map(|(_, key)| key).collect();
        let opened = Arc::new(DataKeys::unlock(&self.masters, &stored)?);
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= OPENED_MAX {
            all.clear();
        }
        Ok(Arc::clone(all.entry(organisation.to_owned()).or_insert(opened)))
    }

    /// Gives a new organisation its keys.
    ///
    /// # Errors
    /// The database's.
    pub async fn create(&self, tx: &mut Tx, organisation: &str, now_ms: i64) -> Result<(), StoreError> {
        for purpose in [Purpose::Seal, Purpose::LookUp] {
            let key = StoredKey::generate(&self.masters, purpose, now_ms)?;
            insert_key(tx, organisation, &key).await?;
        }
        Ok(())
    }

    /// Wraps every data key with the master key in use. Returns how many were wrapped by another one.
    ///
    /// # Errors
    /// The database's; `Broken` when a key was wrapped by a master key that the config does not have.
    pub async fn rewrap(&self) -> Result<u64, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut changed = 0;
        for (_, key) in stored_keys(&self.store, None).await? {
            if let Some(key) = key.rewrapped(&self.masters)? {
                sqlx::query("UPDATE data_keys SET master = $2, wrapped = $3 WHERE id = $1")
                    .bind(&key.id)
                    .bind(&key.master)
                    .bind(key.wrapped)
                    .execute(tx.connection())
                    .await?;
                changed += 1;
            }
        }
        tx.commit().await?;
        Ok(changed)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")
    }
}

async fn stored_keys(
    store: &Store,
    organisation: Option<&str>,
) -> Result<Vec<(String, StoredKey)>, StoreError> {
    let rows = match organisation {
        Some(organisation) => sqlx::query(
            "SELECT organisation_id, id, purpose, master, wrapped FROM data_keys WHERE organisation_id = $1",
        )
        .bind(organisation)
        .fetch_all(store.pool())
        .await?,
        None => {
            sqlx::query("SELECT organisation_id, id, purpose, master, wrapped FROM data_keys")
                .fetch_all(store.pool())
                .await?
        }
    };
    let read = |row: &sqlx::any::AnyRow| {
        let purpose = Purpose::parse(&row.try_get::<String, _>("purpose")?);
        let purpose = purpose.ok_or(StoreError::Broken { what: "the purpose of a data key" })?;
        let (id, master, wrapped) = (row.try_get("id")?, row.try_get("master")?, row.try_get("wrapped")?);
        Ok((row.try_get("organisation_id")?, StoredKey { id, purpose, master, wrapped }))
    };
    rows.iter().map(read).collect()
}

async fn insert_key(tx: &mut Tx, organisation: &str, key: &StoredKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO data_keys (id, organisation_id, purpose, master, wrapped) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&key.id)
    .bind(organisation)
    .bind(key.purpose.as_str())
    .bind(&key.master)
    .bind(key.wrapped.clone())
    .execute(tx.connection())
    .await?;
    Ok(())
}
