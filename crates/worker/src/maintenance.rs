//! Retention applied: by a task per table while a worker runs, or once by hand.
//!
//! A round over a table:
//! 1. Say in the bucket that one begins ([`Janitor::begin`]); on a schedule, leave it when another worker began
//!    one lately. Nothing is exclusive: two rounds at once do no harm.
//! 2. Row TTL: files of old rows leave by a ledger entry, which the projections show. With `rows_rewrite`, files
//!    that hold old rows beside others are rewritten without them (`cut`).
//! 3. Snapshots, Delta log and ledger entries expire.
//! 4. Vacuum: files that nothing names are deleted.
//!
//! Ages are counted from the earlier of two clocks, this machine's and the store's, so that a clock that is ahead
//! makes nothing old. A step that fails ends the round; the next round does what is left, and comes sooner.

mod cut;
mod metrics;

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use siltstone_datafile::MemoryBudget;
use siltstone_lakehouse::{
    TableStore,
    maintenance::{ExpireReport, Janitor, Policy, RowsOptions, RowsReport, TimeColumn, VacuumReport},
};
use siltstone_protocol::presence::EventCode;
use siltstone_spec::{Spec, TableSpec};
use tokio::sync::watch;

pub use siltstone_lakehouse::maintenance::{AGE_MIN, Sweep, VacuumOptions};

use self::cut::Cutter;
pub use self::metrics::MaintenanceMetrics;
use crate::{
    compactor::Pace,
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    projector,
    table::Table,
};

/// The first round of a worker comes at most this long after its start.
const FIRST_MAX: Duration = Duration::from_secs(60);
/// After a round that failed the next one comes so soon, after another one twice as late, up to the schedule.
const AGAIN_FIRST: Duration = Duration::from_secs(60);
/// Memory of a rewrite by hand.
const MEMORY_BYTES: u64 = 512 << 20;
/// The column by which dead letters grow old.
const REJECTED_AT: &str = "rejected_at";

/// What expiry did to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableExpired {
    pub table: String,
    /// `None`: rows stay for ever.
    pub rows: Option<RowsReport>,
    #[serde(flatten)]
    pub history: ExpireReport,
}

/// What a vacuum did to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableVacuumed {
    pub table: String,
    #[serde(flatten)]
    pub report: VacuumReport,
}

/// Looks after one table.
#[derive(Debug)]
pub struct Keeper {
    table: Arc<Table>,
    janitor: Janitor,
    /// Age, and the column that tells it.
    rows: Option<(Duration, String)>,
    /// `None`: files that hold old rows beside others stay as they are.
    cutter: Option<Cutter>,
    every: Option<Duration>,
    identity: Arc<Identity>,
}

impl Keeper {
    /// For the table of this spec, or its dead-letter table. Rewrites reserve their memory from the budget, at the
    /// pace of compaction.
    pub fn new(table: Arc<Table>, spec: &TableSpec, identity: Arc<Identity>, budget: MemoryBudget) -> Self {
        let policy = Policy { projection: table.projection, orphans: spec.retention.orphans };
        let janitor = Janitor::new(table.store.clone(), &table.url, table.ledger.clone(), policy);
        let janitor = janitor.with_catalog(table.catalog.clone());
        let janitor = janitor.with_host(table.host.clone());
        let own = || spec.retention.rows_by.clone();
        let dead_letters = || (table.name == spec.dead_letter_name()).then(|| REJECTED_AT.to_owned());
        let rows = spec.retention.rows.and_then(|age| Some((age, dead_letters().or_else(own)?)));
        let cutter = spec.retention.rows_rewrite.then(|| Cutter::new(spec, identity.clone(), budget));
        Self { janitor, rows, cutter, every: spec.maintenance_every, identity, table }
    }

    /// As fast as it goes.
    fn unbounded(mut self) -> Self {
        self.cutter = self.cutter.map(|cutter| cutter.at(Pace::UNBOUNDED));
        self
    }

    /// Rounds on a schedule until `finish` turns true.
    pub async fn keep(mut self, metrics: Arc<Metrics>, mut finish: watch::Receiver<bool>) {
        let Some(every) = self.every else { return };
        let mut pause = every.min(FIRST_MAX);
        let mut again = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.identity.jitter(pause)) => {}
                _ = finish.wait_for(|finish| *finish) => return,
            }
            // What a failed round of this worker's own wrote down must not hold it back.
            let round = self.round(again.unwrap_or(every), &metrics.maintenance);
            // Ending in the middle of a round is as good as a crash there.
            let ended = tokio::select! {
                ended = round => ended,
                _ = finish.wait_for(|finish| *finish) => return,
            };
            let name = self.table.name.clone();
            again = ended.is_err().then(|| pause_after_failure(again, every));
            pause = again.unwrap_or(every);
            match ended {
                Ok(true) => {
                    metrics.maintenance.succeeded(&name, self.identity.now_ms());
                    metrics.events.table(EventCode::Maintained, &name, None);
                }
                Ok(false) => tracing::debug!(table = name, "another worker looks after the table"),
                Err(error) => {
                    tracing::warn!(
                        table = name, %error, code = %error.code(),
                        "maintenance did not finish; it is tried again soon"
                    );
                    metrics.maintenance.failed(&name, error.kind());
                }
            }
        }
    }

    /// One round of a schedule with this pause; false: another worker began one lately.
    ///
    /// # Errors
    /// Those of store, ledger and formats; the next round does what is left.
    pub async fn round(
        &mut self,
        every: Duration,
        metrics: &MaintenanceMetrics,
    ) -> Result<bool, WorkerError> {
        let name = self.table.name.clone();
        let now_ms = self.identity.now_ms();
        // A worker pauses at least half of `every`: its own last round must not hold it back.
        let Some(now_ms) = self.begin(Some(every.mul_f64(0.45)), now_ms).await? else { return Ok(false) };
        let rows = self.expire_rows(now_ms, false).await?;
        let expired = self.expire_history(now_ms, false, rows).await?;
        metrics.expired(&name, &expired);
        let vacuumed = self.vacuum(now_ms, VacuumOptions::default(), &Sweep::default()).await?;
        metrics.vacuumed(&name, &vacuumed);
        self.count(Some(&expired.history), Some(&vacuumed)).await;
        let deleted = vacuumed.deleted_all();
        tracing::info!(
            table = name,
            rows = expired.rows.map_or(0, |rows| rows.rows_in_all()),
            snapshots = expired.history.snapshots.expired,
            files = deleted.files,
            bytes = deleted.bytes,
            "maintenance done"
        );
        Ok(true)
    }

    /// The time from which ages are counted.
    async fn begin(&self, quiet: Option<Duration>, now_ms: i64) -> Result<Option<i64>, WorkerError> {
        let store_ms = self.janitor.begin(quiet, now_ms).await.for_table(&self.table.name)?;
        Ok(store_ms.map(|store_ms| store_ms.min(now_ms)))
    }

    /// Row TTL; `None`: rows stay for ever.
    async fn expire_rows(&mut self, now_ms: i64, dry_run: bool) -> Result<Option<RowsReport>, WorkerError> {
        let Some((age, column)) = &self.rows else { return Ok(None) };
        let name = &self.table.name;
        let schema = self.table.state.lock().await.schema.clone();
        let column = TimeColumn::find(name, &schema, column).for_table(name)?;
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let options = RowsOptions {
            column: &column,
            before_ms: now_ms.saturating_sub(age_ms),
            now_ms,
            dry_run,
            known: &self.table.details,
        };
        let identity = self.identity.clone();
        let mut report =
            self.janitor.expire_rows(&options, &mut || identity.commit_id()).await.for_table(name)?;
        if let Some(version) = report.version {
            self.table.announce(version);
        }
        if let Some(cutter) = &mut self.cutter {
            report.cut = Some(cutter.round(&self.table, &mut self.janitor, &options, age_ms).await?);
        }
        Ok(Some(report))
    }

    async fn expire_history(
        &mut self,
        now_ms: i64,
        dry_run: bool,
        rows: Option<RowsReport>,
    ) -> Result<TableExpired, WorkerError> {
        let table = self.table.name.clone();
        let history = self.janitor.expire(now_ms, dry_run).await.for_table(&table)?;
        Ok(TableExpired { table, rows, history })
    }

    /// Adds a round to the table's tally. What was done is done: a tally that cannot be written fails nothing.
    async fn count(&self, expired: Option<&ExpireReport>, vacuumed: Option<&VacuumReport>) {
        if let Err(error) = self.janitor.count(expired, vacuumed, self.identity.now_ms()).await {
            tracing::warn!(table = %self.table.name, %error, "the tally of maintenance lacks this round");
        }
    }

    async fn vacuum(
        &mut self,
        now_ms: i64,
        options: VacuumOptions,
        progress: &Sweep,
    ) -> Result<VacuumReport, WorkerError> {
        self.janitor.vacuum(now_ms, options, progress).await.for_table(&self.table.name)
    }
}

/// Expires rows, snapshots and logs of tables once, by hand; dead-letter tables with theirs.
///
/// # Errors
/// Those of store, ledger and formats; tables before the one at fault are done.
pub async fn expire(
    spec: &Spec,
    tables: &[&TableSpec],
    dry_run: bool,
) -> Result<Vec<TableExpired>, WorkerError> {
    let lake = crate::inspect::open_lake(spec)?;
    let mut all = Vec::new();
    for mut keeper in keepers(&lake, tables).await? {
        let now_ms = now(&keeper, dry_run).await?;
        let rows = keeper.expire_rows(now_ms, dry_run).await?;
        if !dry_run {
            // Also what an earlier call committed and did not live to show.
            projector::catch_up_all(&keeper.table).await?;
        }
        let expired = keeper.expire_history(now_ms, dry_run, rows).await?;
        if !dry_run {
            keeper.count(Some(&expired.history), None).await;
        }
        all.push(expired);
    }
    Ok(all)
}

/// Vacuums tables once, by hand; dead-letter tables with theirs. `progress` is told of all of them.
///
/// # Errors
/// As [`expire`].
pub async fn vacuum(
    spec: &Spec,
    tables: &[&TableSpec],
    options: VacuumOptions,
    progress: &Sweep,
) -> Result<Vec<TableVacuumed>, WorkerError> {
    let lake = crate::inspect::open_lake(spec)?;
    let mut all = Vec::new();
    for mut keeper in keepers(&lake, tables).await? {
        let now_ms = now(&keeper, options.dry_run).await?;
        let report = keeper.vacuum(now_ms, options, progress).await?;
        if !options.dry_run {
            keeper.count(None, Some(&report)).await;
        }
        all.push(TableVacuumed { table: keeper.table.name.clone(), report });
    }
    Ok(all)
}

/// A dry run writes nothing, so it has this machine's clock alone.
async fn now(keeper: &Keeper, dry_run: bool) -> Result<i64, WorkerError> {
    let now_ms = keeper.identity.now_ms();
    let begun = if dry_run { None } else { keeper.begin(None, now_ms).await? };
    Ok(begun.unwrap_or(now_ms))
}

/// Keepers of the tables that exist.
async fn keepers(lake: &TableStore, tables: &[&TableSpec]) -> Result<Vec<Keeper>, WorkerError> {
    let identity = Arc::<Identity>::default();
    let mut keepers = Vec::new();
    for spec in tables {
        for dead_letters in [false, true] {
            if let Some(table) = crate::inspect::open_table(lake, spec, dead_letters).await? {
                let budget = MemoryBudget::new(MEMORY_BYTES);
                let keeper = Keeper::new(Arc::new(table), spec, identity.clone(), budget);
                keepers.push(keeper.unbounded());
            }
        }
    }
    Ok(keepers)
}

/// How long to wait after a round that failed; `last`: after the one before it, when that failed too.
fn pause_after_failure(last: Option<Duration>, every: Duration) -> Duration {
    last.map_or(AGAIN_FIRST, |last| last.saturating_mul(2)).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_rounds_come_again_soon_and_then_on_schedule() {
        let every = Duration::from_secs(300);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(pause_after_failure(pauses.last().copied(), every));
        }
        assert_eq!(pauses, [60, 120, 240, 300].map(Duration::from_secs));
        assert_eq!(pause_after_failure(None, Duration::from_secs(60)), Duration::from_secs(60));
        assert_eq!(pause_after_failure(Some(Duration::MAX), every), every);
    }
}
