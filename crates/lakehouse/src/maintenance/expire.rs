//! History leaves: Iceberg snapshots, the Delta log before an old checkpoint, ledger entries.
//!
//! Each is committed or deleted on its own; a call that ends half-way leaves a whole table, and the next one
//! does the rest. Files that only expired snapshots named are the vacuum's.

use std::time::Duration;

use serde::Serialize;
use siltstone_protocol::Format;

use super::{Janitor, LOG_AGE_MIN, MARGIN, before, delete_all, vacuum::Count};
use crate::{crash_point, error::LakeError};

/// Snapshots of the Iceberg table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotsExpired {
    pub expired: u64,
    pub left: u64,
}

/// What an expiry did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExpireReport {
    pub dry_run: bool,
    pub snapshots: SnapshotsExpired,
    /// Files of the Delta log: commits, checkpoints, checksums.
    pub delta_log: Count,
    pub ledger_entries: Count,
}

impl Janitor {
    /// Expires what is older than the policy says. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`: call again. `Data`: metadata cannot be read. `Invalid`: another program
    /// changed a format in a way that cannot be reconciled.
    pub async fn expire(&mut self, now_ms: i64, dry_run: bool) -> Result<ExpireReport, LakeError> {
        let state = self.state().await?;
        let mut report = ExpireReport { dry_run, ..ExpireReport::default() };
        if state.formats.contains(&Format::Iceberg) {
            let expired = self.iceberg.expire(&state, now_ms, dry_run).await?;
            report.snapshots = SnapshotsExpired { expired: expired.snapshots, left: expired.snapshots_left };
            crash_point!("maintenance.snapshots_expired");
        }
        let age = self.policy.projection.snapshots_age.max(self.policy.orphans).max(LOG_AGE_MIN);
        let age = age.saturating_add(MARGIN);
        report.delta_log = self.expire_delta_log(before(now_ms, age), dry_run).await?;
        crash_point!("maintenance.delta_log_expired");
        report.ledger_entries = self.expire_ledger(age, now_ms, dry_run).await?;
        Ok(report)
    }

    async fn expire_delta_log(&self, before_ms: i64, dry_run: bool) -> Result<Count, LakeError> {
        let expirable = self.delta.expirable(before_ms).await?;
        let count = Count { files: expirable.paths.len() as u64, bytes: expirable.bytes };
        if !dry_run {
            for batch in expirable.paths.chunks(super::DELETES_AT_ONCE) {
                crash_point!("maintenance.before_delta_log");
                delete_all(&self.store, batch.to_vec()).await?;
            }
        }
        Ok(count)
    }

    async fn expire_ledger(&mut self, age: Duration, now_ms: i64, dry_run: bool) -> Result<Count, LakeError> {
        let state = self.state().await?;
        let shown = match self.shown_by_all(&state).await {
            Ok(shown) => shown,
            // Nothing is shown yet in some format: every entry may be needed.
            Err(LakeError::Conflict { .. }) => return Ok(Count::default()),
            Err(error) => return Err(error),
        };
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let expirable = self.ledger.expirable_entries(shown + 1, age_ms, now_ms).await?;
        let count = Count { files: expirable.paths.len() as u64, bytes: expirable.bytes };
        if !dry_run {
            for batch in expirable.paths.chunks(super::DELETES_AT_ONCE) {
                crash_point!("maintenance.before_ledger");
                delete_all(&self.store, batch.to_vec()).await?;
            }
        }
        Ok(count)
    }
}
