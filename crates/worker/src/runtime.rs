//! One table of a running worker: its ledger once it exists, what shows it, and what keeps its files in shape.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use siltstone_datafile::MemoryBudget;
use siltstone_ingest::SchemaRegistry;
use siltstone_lakehouse::TableStore;
use siltstone_protocol::{ErrorCode, Schema};
use siltstone_spec::TableSpec;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use crate::{
    absorb::Absorber,
    compactor::{Compactor, Owned, Pace},
    control::Switch,
    error::WorkerError,
    flush::Flusher,
    identity::Identity,
    ingest::Lane,
    maintenance::Keeper,
    metrics::Metrics,
    progress::Progress,
    projector::{self, Shown},
    readiness::Readiness,
    table::Table,
};

/// Projections that were told to finish are waited for this long.
const PROJECTION_GRACE: Duration = Duration::from_secs(12);
/// Rewrites that were told to stop are waited for this long.
const COMPACTOR_GRACE: Duration = Duration::from_secs(5);

/// What all tables of a worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) lake: TableStore,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) registries: Arc<BTreeMap<String, Arc<dyn SchemaRegistry>>>,
    pub(crate) tables: u64,
    pub(crate) once: bool,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) abandon: watch::Receiver<bool>,
    /// Ends projections, after everything is committed.
    pub(crate) finish: watch::Receiver<bool>,
}

/// The parts of one table that come to be when its schema is known.
#[derive(Clone)]
pub struct TableRuntime {
    pub(crate) shared: Shared,
    pub(crate) spec: TableSpec,
    pub(crate) switch: Arc<Switch>,
    handle: Handle,
    table: Arc<OnceLock<Arc<Table>>>,
    dead_letters: Arc<OnceLock<Arc<Table>>>,
    projections: Arc<Mutex<Vec<Projection>>>,
    /// What the group gave this worker, for the compactor.
    owned: watch::Sender<Owned>,
    compactors: Arc<Mutex<JoinSet<()>>>,
}

struct Projection {
    table: Arc<Table>,
    format: &'static str,
    shown: watch::Receiver<Shown>,
    task: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for TableRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableRuntime").field("table", &self.spec.name).finish_non_exhaustive()
    }
}

impl TableRuntime {
    pub(crate) fn new(shared: Shared, spec: TableSpec, handle: Handle) -> Self {
        Self {
            shared,
            spec,
            switch: Arc::default(),
            handle,
            table: Arc::default(),
            dead_letters: Arc::default(),
            projections: Arc::default(),
            owned: watch::Sender::new(Owned::default()),
            compactors: Arc::default(),
        }
    }

    /// Tells the compactor which source partitions are this worker's, of how many.
    pub fn own(&self, partitions: Vec<i32>, all: usize) {
        self.owned.send_replace(Owned { partitions, all });
    }

    /// The source partitions that are this worker's.
    pub(crate) fn owned(&self) -> Owned {
        self.owned.borrow().clone()
    }

    /// Starts what takes in changes of other programs, and the compactor unless the spec says no. Not in a bounded
    /// run.
    fn compact(&self, table: &Arc<Table>) {
        let Shared { metrics, identity, budget, once, stop, .. } = &self.shared;
        if *once {
            return;
        }
        let absorber = Absorber::new(table.clone(), metrics.clone(), identity.clone(), budget.clone());
        let run = absorber.run(self.owned.subscribe(), stop.clone());
        self.compactors.lock().unwrap_or_else(PoisonError::into_inner).spawn_on(run, &self.handle);
        if !self.spec.compaction.enabled {
            return;
        }
        let compactor =
            Compactor::new(table.clone(), &self.spec, metrics.clone(), identity.clone(), budget.clone());
        let run = compactor.run(Pace::of(&self.spec.compaction), self.owned.subscribe(), stop.clone());
        self.compactors.lock().unwrap_or_else(PoisonError::into_inner).spawn_on(run, &self.handle);
    }

    /// The table, once it exists.
    pub fn table(&self) -> Option<Arc<Table>> {
        self.table.get().cloned()
    }

    /// Creates the table with its first schema and starts its projections.
    ///
    /// # Errors
    /// As [`Table::open_or_create`].
    pub async fn create(&self, schema: Schema) -> Result<Arc<Table>, WorkerError> {
        let (id, now_ms) = (self.shared.identity.commit_id(), self.shared.identity.now_ms());
        let table = Table::open_or_create(&self.shared.lake, &self.spec, schema, &id, now_ms).await?;
        Ok(self.adopt(table).await)
    }

    /// Looks whether the table and its dead letters came to be by another worker's hand.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn find(&self) -> Result<Option<Arc<Table>>, WorkerError> {
        let (lake, spec) = (&self.shared.lake, &self.spec);
        self.find_dead_letters().await?;
        if self.table().is_none()
            && let Some(table) = Table::open(lake, spec).await?
        {
            return Ok(Some(self.adopt(table).await));
        }
        Ok(self.table())
    }

    /// Looks whether the dead-letter table came to be by another worker's hand. True: it was not known here.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn find_dead_letters(&self) -> Result<bool, WorkerError> {
        if self.dead_letters().is_some() {
            return Ok(false);
        }
        let found = Table::open_dead_letters(&self.shared.lake, &self.spec).await?;
        let is_found = found.is_some();
        if let Some(dead_letters) = found {
            self.adopt_dead_letters(Arc::new(dead_letters));
        }
        Ok(is_found)
    }

    async fn adopt(&self, table: Table) -> Arc<Table> {
        let table = self.table.get_or_init(|| Arc::new(table)).clone();
        self.project(&table).await;
        self.compact(&table);
        table
    }

    /// The dead-letter table, once it exists.
    pub fn dead_letters(&self) -> Option<Arc<Table>> {
        self.dead_letters.get().cloned()
    }

    /// Starts the flush task of the table as it is now. Call again when the table came to be.
    pub fn start_lane(&self, handle: &Handle) -> Lane {
        let runtime = self.clone();
        let flusher = Flusher {
            spec: self.spec.clone(),
            lake: self.shared.lake.clone(),
            table: self.table(),
            dead_letters: self.dead_letters.get().cloned(),
            metrics: self.shared.metrics.clone(),
            identity: self.shared.identity.clone(),
            abandon: self.shared.abandon.clone(),
            on_dead_letters: Box::new(move |table| runtime.adopt_dead_letters(table)),
        };
        Lane::start(handle, flusher)
    }

    fn adopt_dead_letters(&self, table: Arc<Table>) {
        if self.dead_letters.set(table.clone()).is_ok() {
            let runtime = self.clone();
            self.compact(&table);
            self.handle.spawn(async move { runtime.project(&table).await });
        }
    }

    async fn project(&self, table: &Arc<Table>) {
        for projection in table.projections().await {
            let format = projection.format().as_str();
            let (sender, shown) = watch::channel(Shown::default());
            let task = self.handle.spawn(projector::project(
                table.clone(),
                projection,
                sender,
                self.shared.metrics.clone(),
                self.shared.finish.clone(),
            ));
            let entry = Projection { table: table.clone(), format, shown, task };
            self.projections.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
        // A bounded run ends when it is done with its records.
        if !self.shared.once {
            let (metrics, identity) = (self.shared.metrics.clone(), self.shared.identity.clone());
            let keeper = Keeper::new(table.clone(), &self.spec, identity, self.shared.budget.clone());
            self.handle.spawn(keeper.keep(metrics, self.shared.finish.clone()));
        }
    }

    /// The newest version of the table that every one of its formats shows.
    pub fn shown_version(&self) -> Option<u64> {
        let table = self.table.get()?;
        let entries = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        let own = entries.iter().filter(|entry| Arc::ptr_eq(&entry.table, table));
        own.map(|entry| entry.shown.borrow().version).min()?
    }

    /// Waits until every format shows everything committed here, or has stopped.
    pub(crate) async fn settle(&self, deadline: Duration) -> Result<(), WorkerError> {
        // Creating the dead-letter table's projections may still be on its way.
        let expected =
            usize::from(self.table.get().is_some()) + usize::from(self.dead_letters.get().is_some());
        let began = Instant::now();
        loop {
            let entries: Vec<_> = {
                let entries = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
                entries.iter().map(|entry| (entry.table.clone(), entry.format, entry.shown.clone())).collect()
            };
            let names: std::collections::BTreeSet<_> = entries.iter().map(|entry| &entry.0.name).collect();
            let all_started = names.len() >= expected;
            let mut behind = None;
            for (table, format, shown) in &entries {
                let wanted = table.version();
                let shown = shown.borrow().clone();
                if let Some(halted) = shown.stopped {
                    return Err(halted.error(&table.name, format));
                }
                if shown.version.is_none_or(|version| version < wanted) {
                    behind = Some((table.name.clone(), *format));
                }
            }
            match behind {
                None if all_started => return Ok(()),
                _ if began.elapsed() > deadline => {
                    let (table, format) = behind.unwrap_or((self.spec.name.clone(), "dead letters"));
                    let error = "did not catch up in time; the next start completes it".to_owned();
                    let code = ErrorCode::FormatBehind;
                    return Err(WorkerError::Projection { code, table, format, error });
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Waits for rewrites that were told to stop: what they commit still is to be shown.
    pub(crate) async fn end_compactors(&self) {
        let mut tasks = std::mem::take(&mut *self.compactors.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(COMPACTOR_GRACE, ended).await.is_err() {
            tracing::warn!(table = %self.spec.name, "a rewrite did not stop in time; its files are orphans");
        }
    }

    /// Waits for projections that were told to finish; one that hangs in an outage is cut off.
    pub(crate) async fn end_projections(&self) {
        let entries = std::mem::take(&mut *self.projections.lock().unwrap_or_else(PoisonError::into_inner));
        let end = tokio::time::Instant::now() + PROJECTION_GRACE;
        for mut entry in entries {
            if tokio::time::timeout_at(end, &mut entry.task).await.is_err() {
                entry.task.abort();
            }
        }
    }
}
