//! Organisations, their data keys, environments and clusters.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::Row;

use crate::{
    clock::Clock,
    crypto::{CryptoError, DataKeys, MasterKeys, Purpose, StoredKey},
    store::{Store, StoreError, Tx},
};

/// Organisations whose opened keys are remembered.
const OPENED_MAX: usize = 10_000;
/// They are read anew after this, milliseconds: another server may have added one. Shorter than
/// [`SEALS_AFTER_MS`](crate::crypto::SEALS_AFTER_MS).
const READ_AFTER_MS: i64 = 5_000;

impl From<CryptoError> for StoreError {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::KeyServiceAway => Self::Unavailable { what: "the key service does not answer" },
            CryptoError::KeyService { what } => Self::Unavailable { what },
            _ => Self::Broken {
                what: "a data key or sealed value does not open; check the master keys in the config",
            },
        }
    }
}

/// The data keys of organisations, opened once.
pub struct KeyRing {
    store: Store,
    masters: MasterKeys,
    clock: Clock,
    /// And when they were read.
    opened: Mutex<HashMap<String, (i64, Arc<DataKeys>)>>,
}

impl KeyRing {
    pub fn new(store: Store, masters: MasterKeys, clock: Clock) -> Self {
        Self { store, masters, clock, opened: Mutex::default() }
    }

    /// The opened keys of an organisation.
    ///
    /// # Errors
    /// The database's; `Broken` when no master key opens them; `Unavailable` when the key service does not answer.
    pub async fn of(&self, organisation: &str) -> Result<Arc<DataKeys>, StoreError> {
        let now_ms = self.clock.now_ms();
        let known = self.all().get(organisation).cloned();
        if let Some((read_ms, known)) = &known
            && (*read_ms..read_ms.saturating_add(READ_AFTER_MS)).contains(&now_ms)
        {
            return Ok(Arc::clone(known));
        }
        let stored = stored_keys(&self.store, Some(organisation)).await?;
        let stored: Vec<StoredKey> = stored.into_iter().map(|(_, key)| key).collect();
        let known = known.as_ref().map(|(_, known)| known.as_ref());
        let opened = Arc::new(DataKeys::unlock(&self.masters, &stored, known, now_ms).await?);
        let mut all = self.all();
        if all.len() >= OPENED_MAX {
            all.clear();
        }
        all.insert(organisation.to_owned(), (now_ms, Arc::clone(&opened)));
        Ok(opened)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, (i64, Arc<DataKeys>)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of an organisation's keys, which was deleted.
    pub fn forget(&self, organisation: &str) {
        self.all().remove(organisation);
    }

    /// Organisations whose keys do not open, and why.
    ///
    /// # Errors
    /// The database's.
    pub async fn unreadable(&self) -> Result<Vec<(String, StoreError)>, StoreError> {
        let rows =
            sqlx::query("SELECT id FROM organisations ORDER BY id").fetch_all(self.store.pool()).await?;
        let mut all = Vec::new();
        for row in rows {
            let id: String = row.try_get("id")?;
            if let Err(error) = self.of(&id).await {
                all.push((id, error));
            }
        }
        Ok(all)
    }

    /// Gives every organisation a new data key, or the one that is named. It seals after a while, and `reseal` does the
    /// rest. Returns how many were made.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn rotate_data(&self, organisation: Option<&str>) -> Result<u64, StoreError> {
        let rows =
            sqlx::query("SELECT id FROM organisations ORDER BY id").fetch_all(self.store.pool()).await?;
        let mut made = 0;
        for row in rows {
            let id: String = row.try_get("id")?;
            if organisation.is_some_and(|organisation| organisation != id) {
                continue;
            }
            let key = StoredKey::generate(&self.masters, Purpose::Seal, self.clock.now_ms()).await?;
            let mut tx = self.store.begin().await?;
            insert_key(&mut tx, &id, &key).await?;
            tx.commit().await?;
            made += 1;
        }
        Ok(made)
    }

    /// Gives a new organisation its keys.
    ///
    /// # Errors
    /// The database's.
    pub async fn create(&self, tx: &mut Tx, organisation: &str, now_ms: i64) -> Result<(), StoreError> {
        for purpose in [Purpose::Seal, Purpose::LookUp] {
            let key = StoredKey::generate(&self.masters, purpose, now_ms).await?;
            insert_key(tx, organisation, &key).await?;
        }
        Ok(())
    }

    /// Wraps every data key with the master key in use. Returns how many were wrapped by another one.
    ///
    /// # Errors
    /// The database's; `Broken` when a key was wrapped by a master key that the config does not have.
    pub async fn rewrap(&self) -> Result<u64, StoreError> {
        let mut wrapped = Vec::new();
        for (_, key) in stored_keys(&self.store, None).await? {
            wrapped.extend(key.rewrapped(&self.masters).await?);
        }
        let mut changed = 0;
        let mut tx = self.store.begin().await?;
        for key in wrapped {
            sqlx::query("UPDATE data_keys SET master = $2, wrapped = $3 WHERE id = $1")
                .bind(&key.id)
                .bind(&key.master)
                .bind(key.wrapped)
                .execute(tx.connection())
                .await?;
            changed += 1;
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
