//! Credentials that the catalog hands out for a table's files.
//!
//! They come with the table (`storage-credentials`, else `config`), and are asked for again some minutes before they
//! expire, while requests wait. Keys without a date are asked for again every quarter of an hour.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use object_store::{CredentialProvider, aws::AwsCredential};
use serde_json::Value;
use siltstone_datafile::Host;
use tokio::sync::Mutex;

use super::{
    table::RestTable,
    wire::{TableAnswer, text},
};
use crate::error::{CatalogFault, CatalogFaultCode, LakeError};

const RENEW_BEFORE_MS: i64 = 300_000;
const UNDATED_FOR_MS: i64 = 900_000;

/// A provider for `object_store`.
pub struct VendedCredentials {
    table: Arc<RestTable>,
    host: Host,
    known: Mutex<Option<Known>>,
}

struct Known {
    credential: Arc<AwsCredential>,
    renew_at_ms: i64,
    expires_at_ms: Option<i64>,
}

impl fmt::Debug for VendedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendedCredentials").field("table", &self.table).finish_non_exhaustive()
    }
}

impl VendedCredentials {
    pub fn new(table: Arc<RestTable>, host: Host) -> Self {
        Self { table, host, known: Mutex::new(None) }
    }

    async fn ask(&self) -> Result<Known, LakeError> {
        let body = self.table.configuration().await?;
        let fault = |code| self.table.failed("ask for credentials of", CatalogFault::of(code));
        let answer: TableAnswer<'_> =
            serde_json::from_slice(&body).map_err(|_| fault(CatalogFaultCode::Unreadable))?;
        let best = answer.storage_credentials.into_iter().flatten();
        let best = best.filter(|one| self.table.location.starts_with(&one.prefix));
        let best = best.max_by_key(|one| one.prefix.len()).map(|one| one.config);
        let config = best.or(answer.config).unwrap_or_default();
        read(&config, self.host.now_ms()).ok_or_else(|| fault(CatalogFaultCode::NothingVended))
    }
}

fn read(config: &BTreeMap<String, Value>, now_ms: i64) -> Option<Known> {
    let credential = AwsCredential {
        key_id: text(config, "s3.access-key-id")?.to_owned(),
        secret_key: text(config, "s3.secret-access-key")?.to_owned(),
        token: text(config, "s3.session-token").map(str::to_owned),
    };
    let expires_at_ms: Option<i64> =
        config.get("s3.session-token-expires-at-ms").and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        });
    let renew_at_ms = match expires_at_ms {
        // At half of a life that is short.
        Some(expires) => (expires - RENEW_BEFORE_MS).max(now_ms + (expires - now_ms) / 2),
        None => now_ms + UNDATED_FOR_MS,
    };
    Some(Known { credential: Arc::new(credential), renew_at_ms, expires_at_ms })
}

#[async_trait]
impl CredentialProvider for VendedCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let now_ms = self.host.now_ms();
        if let Some(known) = known.as_ref().filter(|known| now_ms < known.renew_at_ms) {
            return Ok(Arc::clone(&known.credential));
        }
        match self.ask().await {
            Ok(fresh) => {
                let credential = Arc::clone(&fresh.credential);
                *known = Some(fresh);
                Ok(credential)
            }
            Err(error) => {
                // What is not expired yet still serves.
                if let Some(known) = known.as_ref()
                    && known.expires_at_ms.is_none_or(|expires| now_ms < expires)
                {
                    tracing::warn!(%error, "the catalog gave no new credentials; going on with those at hand");
                    return Ok(Arc::clone(&known.credential));
                }
                tracing::warn!(%error, "the catalog gave no credentials for the table's files");
                let path = self.table.name().to_owned();
                Err(object_store::Error::Unauthenticated { path, source: Box::new(error) })
            }
        }
    }
}
