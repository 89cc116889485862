//! What maintenance asks of the Delta table, and how it goes on from the ledger's state.

use std::collections::BTreeSet;

use super::{DeltaTable, Head};
use crate::{
    delta::{
        draft::NO_RESYNC,
        retained::{Expirable, Named, Retained},
    },
    details::DetailsCache,
    error::LakeError,
    ledger::LedgerState,
};

impl DeltaTable {
    /// Tells `each` the files that a version since `before_ms` names; [`Named::Left`] takes one back. False from
    /// `each` stops it and is returned. A table without a log names nothing.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the log cannot be read; then nothing may be deleted.
    pub async fn named(
        &self,
        before_ms: i64,
        each: &mut (dyn FnMut(Named<'_>) -> bool + Send),
    ) -> Result<bool, LakeError> {
        match Retained::list(&self.log).await? {
            Some(retained) => retained.named(&self.log, before_ms, each).await,
            None => Ok(true),
        }
    }

    /// Files of the log that no version since `before_ms` needs.
    pub(crate) async fn expirable(&self, before_ms: i64) -> Result<Expirable, LakeError> {
        let retained = Retained::list(&self.log).await?;
        Ok(retained.map(|retained| retained.expirable(before_ms)).unwrap_or_default())
    }

    /// One commit that makes up the difference between what is shown and what is live, because entries or files
    /// between are gone. Files of other programs stay.
    pub(super) async fn resync(
        &mut self,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<(), LakeError> {
        let Some(head) = self.head.clone() else { return Ok(()) };
        // What is missing may be another program's removal: to add it again would bring back what it deleted.
        if head.apart.is_some() {
            return Err(self.foreign(head.log_version, NO_RESYNC));
        }
        let mut shown = BTreeSet::new();
        // Every version is older than the end of time: what is left is what the newest one names.
        let mut each = |named: Named<'_>| {
            match named {
                Named::Added(path) => shown.insert(path.to_owned()),
                Named::Left(path) => shown.remove(path),
            };
            true
        };
        self.named(i64::MAX, &mut each).await?;
        let context = self.context(state, details, &head.partition_columns, head.schema_id);
        let actions = context.resync(&shown).await?;
        let next = head.log_version + 1;
        tracing::warn!(
            table = state.name,
            version = state.version,
            shown = head.shown,
            "the Delta form goes on from the ledger's state: entries it would show are no longer kept"
        );
        if let Some(seen) = self.put(next, &actions).await? {
            return self.step_over(next, seen);
        }
        let (shown, logged) = (state.version, state.version);
        let schema_id = state.schema.schema_id;
        self.head = Some(Head { log_version: next, shown, logged, schema_id, ..head });
        Ok(())
    }
}
