//! The seam between the ledger and a table format.

use std::time::Duration;

use async_trait::async_trait;
use siltstone_protocol::Format;

use crate::{
    details::DetailsCache,
    error::LakeError,
    foreign::Comparison,
    ledger::{Ledger, LedgerState},
};

/// A projection: shows ledger entries in a table format. It decides nothing.
#[async_trait]
pub trait TableFormat: Send + Sync {
    fn format(&self) -> Format;

    /// The last ledger version that the format shows, `None` before it exists.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the format's own metadata cannot be read.
    async fn shown_version(&mut self) -> Result<Option<u64>, LakeError>;

    /// Shows every ledger entry up to `state.version`, in order; creates the table when absent.
    /// Idempotent, and safe with several workers doing the same at once. Returns the version shown,
    /// at least `state.version`. Cancel-safe: what was left undone is done by the next call.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`: call again. `Invalid`: what the format cannot show, or a foreign
    /// change that cannot be reconciled.
    async fn catch_up(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<u64, LakeError>;

    /// Whether another program made the format differ from the ledger, as far as the format itself says. Costs
    /// little when none did.
    ///
    /// # Errors
    /// `Unavailable`, `Data`: the format's own metadata cannot be read. `Invalid`: it cannot be reconciled.
    async fn is_apart(&mut self) -> Result<bool, LakeError>;

    /// Looks whether another program made the format differ from `state`, and how. Costs little when none did.
    ///
    /// # Errors
    /// `Unavailable`, `Data`: the format's own metadata cannot be read. `Invalid`: a foreign change that cannot
    /// be reconciled; says the way out.
    async fn compare(&mut self, ledger: &Ledger, state: &LedgerState) -> Result<Comparison, LakeError>;

    /// Waits, for a bounded time, for what was begun in the background. Call before the runtime ends.
    async fn close(&mut self) {}
}

/// How much history a projection keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionOptions {
    /// Snapshots in the metadata are at most this many, whatever their age.
    pub snapshots_max: u32,
    /// Snapshots kept at least, whatever their age.
    pub snapshots_min: u32,
    pub snapshots_age: Duration,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self { snapshots_max: 500, snapshots_min: 1, snapshots_age: Duration::from_secs(7 * 24 * 3600) }
    }
}
