//! What maintenance did to a table so far, for whoever asks: `_siltstone/maintenance-tally.json`.
//!
//! Informative and nothing else: rounds at the same time may lose each other's numbers, and a tally that cannot be
//! read begins anew.

use object_store::{ObjectStoreExt, PutPayload, path::Path};
use serde::{Deserialize, Serialize};

use super::{ExpireReport, Janitor, VacuumReport};
use crate::{
    error::LakeError,
    ledger::{self, Ledger},
};

const TALLY_BYTES_MAX: u64 = 1 << 16;

/// Sums over all rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Rounds and calls by hand that deleted or expired something, or looked in vain.
    pub rounds: u64,
    /// End of the last one, milliseconds since 1970 UTC.
    pub last_ms: i64,
    pub deleted_files: u64,
    pub deleted_bytes: u64,
    pub expired_snapshots: u64,
}

impl Tally {
    /// The tally of a table; `None` before the first round.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer.
    pub async fn read(ledger: &Ledger) -> Result<Option<Self>, LakeError> {
        let bytes = ledger::read(ledger.store(), &path(ledger), TALLY_BYTES_MAX).await?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

impl Janitor {
    /// Adds what a round did to the table's tally. A dry run is nothing to add.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer.
    pub async fn count(
        &self,
        expired: Option<&ExpireReport>,
        vacuumed: Option<&VacuumReport>,
        now_ms: i64,
    ) -> Result<(), LakeError> {
        let mut tally = Tally::read(&self.ledger).await?.unwrap_or_default();
        tally.rounds += 1;
        tally.last_ms = now_ms;
        let mut deleted = vacuumed.map(VacuumReport::deleted_all).into_iter().collect::<Vec<_>>();
        if let Some(expired) = expired {
            tally.expired_snapshots += expired.snapshots.expired;
            deleted.extend([expired.delta_log, expired.ledger_entries]);
        }
        tally.deleted_files += deleted.iter().map(|count| count.files).sum::<u64>();
        tally.deleted_bytes += deleted.iter().map(|count| count.bytes).sum::<u64>();
        let path = path(&self.ledger);
        let bytes = serde_json::to_vec(&tally).map_err(|error| LakeError::json(&path, &error))?;
        let put = self.store.put(&path, PutPayload::from(bytes)).await;
        put.map(drop).map_err(|error| LakeError::store("write", &path, &error))
    }
}

fn path(ledger: &Ledger) -> Path {
    ledger.own_path().join("maintenance-tally.json")
}
