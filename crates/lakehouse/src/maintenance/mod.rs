//! Keeping a table small: what it no longer needs leaves, and nothing else.
//!
//! | step | what leaves | what decides |
//! | --- | --- | --- |
//! | [`Janitor::expire_rows`] | data files all of whose rows are older than `retention.rows` | bounds or time partition of the file, by a ledger entry |
//! | [`Janitor::expire`] | Iceberg snapshots, Delta log before an old checkpoint, ledger entries that nobody reads again | age, count, what projections have shown |
//! | [`Janitor::vacuum`] | data and metadata files that nothing names | [`plan`], a pure function |
//!
//! Invariant I-9: what is named is never deleted. It is collected by [`live`]: the ledger's live files, files
//! that left it within `retention.orphans`, files that a projection has yet to show, every retained Iceberg
//! snapshot (branches and tags too), every Delta version within `retention.snapshots`.
//!
//! A file that a slow writer has not committed yet is protected by its age, as the store itself dates it;
//! and a writer that comes later than that first asks whether its files are still there
//! ([`crate::Ledger::confirm_files`]).
//!
//! Deleting is idempotent: what is deleted twice, or half, is deleted. Two janitors at once do no harm.
//! Absent on purpose: a lease, a list of candidates kept between runs, any object outside `data/`,
//! `metadata/` and `_siltstone/` of the one table. Objects whose names are not of our making are counted and
//! left: another program owns them. Time is passed in.

mod cut;
mod expire;
mod live;
mod names;
pub mod plan;
mod rows;
mod tally;
mod vacuum;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use siltstone_datafile::Host;
use siltstone_protocol::ErrorCode;

use crate::{
    DeltaTable, IcebergTable,
    error::LakeError,
    format::{ProjectionOptions, TableFormat},
    iceberg::RestTable,
    ledger::{Ledger, LedgerState},
};

pub use cut::{Cut, CutReport};
pub use expire::{ExpireReport, SnapshotsExpired};
use rows::Times;
pub use rows::{RowsOptions, RowsReport, TimeColumn};
pub use tally::Tally;
pub use vacuum::{Count, Sweep, VacuumOptions, VacuumReport};

/// No file younger than this is deleted, whatever the settings.
pub const AGE_MIN: Duration = Duration::from_secs(3600);
/// No log or ledger entry younger than this is deleted: a worker that slept through must notice first.
const LOG_AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Added to every age that is measured against the store's dates.
const MARGIN: Duration = Duration::from_secs(300);
/// Objects deleted by one call of the store.
const DELETES_AT_ONCE: usize = 1_000;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Snapshots of Iceberg by age and number; Delta versions by the same age.
    pub projection: ProjectionOptions,
    /// Age at which files that nothing names are deleted, and for which files that left are kept.
    pub orphans: Duration,
}

/// Looks after one table.
#[derive(Debug)]
pub struct Janitor {
    store: Arc<dyn ObjectStore>,
    location: Path,
    ledger: Ledger,
    iceberg: IcebergTable,
    delta: DeltaTable,
    policy: Policy,
    /// Of what time the rows of live files are. Data files never change.
    times: HashMap<String, Times>,
    /// Entries read for the files that left.
    entries_back_max: u64,
}

impl Janitor {
    /// For the table of `ledger`; `table_url` is where readers find it.
    pub fn new(store: Arc<dyn ObjectStore>, table_url: &str, ledger: Ledger, policy: Policy) -> Self {
        let location = ledger.table_location().clone();
        let options = policy.projection;
        // Projections of its own: what they say is what the store says, not what a worker remembers.
        let iceberg = IcebergTable::new(Arc::clone(&store), location.clone(), table_url.to_owned(), options);
        let delta = DeltaTable::new(Arc::clone(&store), location.clone(), table_url.to_owned(), options);
        let entries_back_max = live::ENTRIES_BACK_MAX;
        Self { store, location, ledger, iceberg, delta, policy, times: HashMap::new(), entries_back_max }
    }

    /// With names and waits from this host.
    #[must_use]
    pub fn with_host(mut self, host: Host) -> Self {
        self.iceberg = self.iceberg.with_host(host);
        self
    }

    /// With the Iceberg form in this catalog; `None`: in the bucket.
    #[must_use]
    pub fn with_catalog(mut self, catalog: Option<Arc<RestTable>>) -> Self {
        self.iceberg = self.iceberg.with_catalog(catalog);
        self
    }

    /// Writes down that a round begins now, and returns the store's own time, milliseconds since 1970 UTC.
    /// `None`: another round began less than `quiet` ago; without `quiet`, one always begins.
    ///
    /// Cheap and not exclusive: two rounds at once do no harm.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer.
    pub async fn begin(&self, quiet: Option<Duration>, now_ms: i64) -> Result<Option<i64>, LakeError> {
        let path = self.ledger.own_path().join("maintenance.json");
        if let Some(quiet) = quiet {
            match self.store.head(&path).await {
                Ok(meta) if meta.last_modified.timestamp_millis() > before(now_ms, quiet) => return Ok(None),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(LakeError::store("read", &path, &error)),
            }
        }
        let text = format!("{{\"began_ms\":{now_ms}}}\n");
        let put = self.store.put(&path, PutPayload::from(text.into_bytes())).await;
        put.map_err(|error| LakeError::store("write", &path, &error))?;
        let meta = self.store.head(&path).await;
        let meta = meta.map_err(|error| LakeError::store("read", &path, &error))?;
        Ok(Some(meta.last_modified.timestamp_millis()))
    }

    /// The lowest version that every format of the table shows.
    async fn shown_by_all(&mut self, state: &LedgerState) -> Result<u64, LakeError> {
        let mut least = u64::MAX;
        let formats: [&mut dyn TableFormat; 2] = [&mut self.iceberg, &mut self.delta];
        for projection in formats {
            let format = projection.format();
            if !state.formats.contains(&format) {
                continue;
            }
            let Some(shown) = projection.shown_version().await? else {
                return Err(LakeError::Conflict {
                    table: state.name.clone(),
                    version: state.version,
                    problem: format!(
                        "its {} form does not exist yet; a worker or `siltstone apply` makes it first",
                        format.as_str()
                    ),
                });
            };
            least = least.min(shown);
        }
        Ok(least.min(state.version))
    }

    async fn state(&self) -> Result<LedgerState, LakeError> {
        let missing =
            || LakeError::invalid(&self.location, "there is no table here").coded(ErrorCode::TableNotFound);
        self.ledger.load().await?.ok_or_else(missing)
    }
}

/// `age` before `now_ms`.
fn before(now_ms: i64, age: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Deletes objects; one that is gone already is as good. Returns how many were there.
async fn delete_all(store: &Arc<dyn ObjectStore>, paths: Vec<Path>) -> Result<u64, LakeError> {
    let Some(first) = paths.first().cloned() else { return Ok(0) };
    let paths = futures::stream::iter(paths.into_iter().map(Ok));
    let mut deletions = store.delete_stream(Box::pin(paths));
    let (mut deleted, mut failed) = (0, None);
    loop {
        match deletions.try_next().await {
            Ok(None) => break,
            Ok(Some(_)) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            // The others are still asked for; the first fault is told.
            Err(error) if failed.is_none() => failed = Some(LakeError::store("delete", &first, &error)),
            Err(_) => {}
        }
    }
    failed.map_or(Ok(deleted), Err)
}
