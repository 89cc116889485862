//! Supervises the tables of a worker.
//!
//! 1. Open the bucket; refuse one that ignores conditional puts.
//! 2. For each table: open its ledger (or learn its schema and create it), start its projections, its
//!    flush task and its polling thread. A table that cannot start is tried again when the fault may
//!    pass; otherwise it has stopped, and the others go on.
//! 3. Wait for the end: of all tables (a bounded run), or of the worker's patience after a stop.
//! 4. Bring every format up to the last version committed here.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use siltstone_datafile::MemoryBudget;
use siltstone_ingest::{
    HttpRegistry, KafkaOptions, KafkaSource, SchemaRegistry,
    dead_letter::DeadLetters,
    decoder::{Decoder, initial_schema},
};
use siltstone_protocol::{ErrorKind, health::WorkState, presence::EventCode};
use siltstone_spec::{Spec, TableSpec};
use tokio::{runtime::Handle, sync::watch};

use crate::{
    control::{Control, ControlOptions},
    error::{ForTable, WorkerError},
    http::{self, Served},
    ingest::{Ended, Intake, Poller, PollerParts},
    metrics::{Metrics, TableLabel},
    progress::Progress,
    readers::Readers,
    runtime::{Shared, TableRuntime},
    summary::{RunSummary, TableSummary},
    table,
};
pub use crate::{identity::Identity, readiness::Readiness};

/// After a stop, faults are waited for this long before what is buffered is left to the next start.
const GRACE: Duration = Duration::from_secs(20);
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(60);
/// A bounded run gives up on a fault that does not pass after so many starts of a table.
const ONCE_STARTS_MAX: u32 = 5;

/// A bounded run gives up on brokers that never answered after this long.
const ONCE_UNREACHED_MAX: Duration = Duration::from_secs(10);

/// Below this a source would fetch in trickles.
const FETCH_BYTES_MIN: usize = 1 << 20;

/// How a worker runs.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Stop at the end offsets seen at the start.
    pub once: bool,
    /// The memory budget of the whole process, bytes.
    pub memory_bytes: u64,
    /// Serve metrics, health and the catalog for readers here.
    pub http: Option<SocketAddr>,
    /// Only these tables of the spec; empty: all.
    pub tables: Vec<String>,
    /// What is told to the control plane, when the spec names one.
    pub control: ControlOptions,
}

/// Runs the worker until `stop` turns true (a second, longer stop is built in: faults are waited for
/// at most 20 seconds more), or until a bounded run is complete.
///
/// # Errors
/// `Tables` when at least one table stopped with an error; the others were worked on all the same.
pub async fn run(
    spec: Spec,
    options: RunOptions,
    progress: Arc<Progress>,
    stop: watch::Receiver<bool>,
) -> Result<RunSummary, WorkerError> {
    let lake = siltstone_lakehouse::store::open(&spec.destination).map_err(WorkerError::from)?;
    let metrics = Arc::new(Metrics::default());
    let registry = metrics.register();
    let budget = MemoryBudget::new(options.memory_bytes);
    let readiness = Arc::new(Readiness::default());
    let tables: Vec<TableSpec> = spec
        .tables
        .iter()
        .filter(|table| options.tables.is_empty() || options.tables.contains(&table.name))
        .cloned()
        .collect();
    table::probe(&lake, &tables).await?;
    for table in &tables {
        readiness.set(&table.name, false);
    }
    let (abandon_sender, abandon) = watch::channel(false);
    let (finish_sender, finish) = watch::channel(false);
    if let Some(address) = options.http {
        let served = Served {
            metrics: metrics.clone(),
            registry,
            budget: budget.clone(),
            readiness: readiness.clone(),
        };
        let readers = Readers::new(&spec, &lake, address, &metrics)?;
        let catalog = readers.is_some();
        let bound = http::serve(address, served, readers, finish.clone()).await?;
        tracing::info!(%bound, catalog, "serving metrics and health");
    } else if spec.readers_catalog.is_some() {
        tracing::warn!("the catalog for readers is served with --http only");
    }
    let shared = Shared {
        lake,
        budget,
        metrics,
        progress,
        identity: Arc::default(),
        readiness,
        registries: Arc::new(registries(&spec)?),
        tables: tables.len() as u64,
        once: options.once,
        stop: stop.clone(),
        abandon,
        finish,
    };
    tokio::spawn(abandon_after_grace(stop, abandon_sender));
    let new = |table| TableRuntime::new(shared.clone(), table, Handle::current());
    let runtimes: Vec<TableRuntime> = tables.into_iter().map(new).collect();
    let control = Control::start(&spec, &options.control, &shared, runtimes.clone())?;
    let mut tasks = Vec::new();
    for runtime in runtimes {
        let spec = spec.clone();
        tasks.push(tokio::spawn(async move {
            let ended = supervise(&runtime, &spec).await;
            (runtime, ended)
        }));
    }
    let mut summaries = Vec::new();
    let mut errors = Vec::new();
    let mut runtimes = Vec::new();
    let count = tasks.len();
    for task in tasks {
        let Ok((runtime, ended)) = task.await else { continue };
        match ended {
            Ok(()) => {}
            Err(error) => errors.push(error),
        }
        let name = &runtime.spec.name;
        summaries.push(TableSummary::of(name, &runtime.shared.metrics, runtime.table().as_deref()).await);
        runtimes.push(runtime);
    }
    // Receivers may all be gone; then there is nobody left to tell.
    let _ = finish_sender.send(true);
    for runtime in runtimes {
        runtime.end_projections().await;
    }
    if let Some(control) = control {
        control.end().await;
    }
    let failed = errors.len();
    match errors.into_iter().next() {
        Some(first) => Err(WorkerError::Tables { failed, tables: count, first: Box::new(first) }),
        None => Ok(RunSummary { tables: summaries }),
    }
}

fn registries(spec: &Spec) -> Result<BTreeMap<String, Arc<dyn SchemaRegistry>>, WorkerError> {
    let mut registries: BTreeMap<String, Arc<dyn SchemaRegistry>> = BTreeMap::new();
    for cluster in &spec.source_clusters {
        if let Some(registry) = &cluster.schema_registry {
            let client = HttpRegistry::new(registry).for_table(&cluster.name)?;
            registries.insert(cluster.name.clone(), Arc::new(client));
        }
    }
    Ok(registries)
}

async fn abandon_after_grace(mut stop: watch::Receiver<bool>, abandon: watch::Sender<bool>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        tokio::time::sleep(GRACE).await;
        let _ = abandon.send(true);
    } else {
        // No one can stop the worker from outside: wait for its own end.
        abandon.closed().await;
    }
}

/// Starts the table, again and again while faults may pass, until it ends.
async fn supervise(runtime: &TableRuntime, spec: &Spec) -> Result<(), WorkerError> {
    let shared = &runtime.shared;
    let label = TableLabel { table: runtime.spec.name.clone() };
    let mut backoff = RESTART_MIN;
    let mut stop = shared.stop.clone();
    let mut starts = 0;
    let first = Instant::now();
    loop {
        let began = Instant::now();
        starts += 1;
        let ended = work_on(runtime, spec).await;
        shared.metrics.table_up.get_or_create(&label).set(0);
        let events = &shared.metrics.events;
        shared.readiness.set(&runtime.spec.name, false);
        let error = match ended {
            Ok(()) => {
                shared.readiness.set(&runtime.spec.name, true);
                return Ok(());
            }
            Err(error) => error,
        };
        let kind = error.kind();
        if error.is_unreachable() {
            events.table(EventCode::BrokersUnavailable, &runtime.spec.name, Some(kind));
        }
        let again = error.kind().is_retryable() || error.kind() == ErrorKind::Fenced;
        let unreached = error.is_unreachable() && first.elapsed() >= ONCE_UNREACHED_MAX;
        if !again || (shared.once && (starts >= ONCE_STARTS_MAX || unreached)) || *stop.borrow() {
            tracing::error!(table = %runtime.spec.name, %error, code = %error.code(), "table stopped");
            runtime.switch.set(WorkState::Stopped, Some(kind));
            events.table(EventCode::TableStopped, &runtime.spec.name, Some(kind));
            return Err(error);
        }
        if began.elapsed() > RESTART_MAX {
            backoff = RESTART_MIN;
            starts = 1;
        }
        tracing::warn!(table = %runtime.spec.name, %error, code = %error.code(), "table failed, starting again");
        shared.metrics.retry(&runtime.spec.name, "table");
        runtime.switch.set(WorkState::Retrying, Some(kind));
        events.table(EventCode::TableFailed, &runtime.spec.name, Some(kind));
        tokio::select! {
            () = tokio::time::sleep(shared.identity.jitter(backoff)) => {}
            _ = stop.wait_for(|stop| *stop) => return Err(error),
        }
        backoff = (backoff * 2).min(RESTART_MAX);
    }
}

async fn work_on(runtime: &TableRuntime, spec: &Spec) -> Result<(), WorkerError> {
    let shared = runtime.shared.clone();
    let name = runtime.spec.name.clone();
    let registry = shared.registries.get(&runtime.spec.cluster).cloned();
    if runtime.table().is_none() {
        open(runtime, registry.as_deref()).await?;
    }
    let (schema, history) = match runtime.table() {
        Some(table) => {
            let state = table.state.lock().await;
            (Some(state.schema.clone()), state.schema_history())
        }
        None => Default::default(),
    };
    let cluster = spec
        .cluster_of(&runtime.spec)
        .ok_or(WorkerError::Internal { table: name.clone(), what: "its cluster is not in the spec" })?;
    let source =
        KafkaSource::with_options(cluster, &runtime.spec, fetch_options(&shared)).for_table(&name)?;
    let mut decoder = Decoder::new(&runtime.spec, schema.clone()).for_table(&name)?;
    decoder.set_history(history);
    let intake = Intake::new(
        decoder,
        schema.map(Arc::new),
        DeadLetters::new(&runtime.spec.cluster, &runtime.spec.topic).for_table(&name)?,
        runtime.spec.dlq_mode,
        runtime.spec.freshness.max_bytes,
        Instant::now(),
    );
    let parts = PollerParts {
        spec: runtime.spec.clone(),
        source: Box::new(source),
        intake,
        registry,
        runtime: runtime.clone(),
        handle: Handle::current(),
        memory: None,
        budget: shared.budget.clone(),
        tables: shared.tables,
        metrics: shared.metrics.clone(),
        progress: shared.progress.clone(),
        identity: shared.identity.clone(),
        stop: shared.stop.clone(),
        once: shared.once,
    };
    shared.metrics.table_up.get_or_create(&TableLabel { table: name.clone() }).set(1);
    shared.readiness.set(&name, true);
    runtime.switch.set(WorkState::Running, None);
    shared.metrics.events.table(EventCode::TableStarted, &name, None);
    let (sender, ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("poll-{name}"));
    thread
        .spawn(move || {
            let poller = Poller::new(parts);
            // The receiver is gone only when the worker itself was dropped.
            let _ = sender.send(poller.run());
        })
        .map_err(|_| WorkerError::Internal {
            table: name.clone(),
            what: "the polling thread did not start",
        })?;
    let ended = ended
        .await
        .map_err(|_| WorkerError::Internal { table: name.clone(), what: "the polling thread died" })?;
    if *shared.stop.borrow() {
        runtime.end_compactors().await;
    }
    let settled = runtime.settle(GRACE).await;
    match ended? {
        Ended::Stopped | Ended::Reached => settled,
    }
}

/// Opens the table, or creates it when its schema can be known before the first record.
async fn open(runtime: &TableRuntime, registry: Option<&dyn SchemaRegistry>) -> Result<(), WorkerError> {
    let spec = &runtime.spec;
    if let Some(table) = runtime.find().await? {
        return crate::apply::check_drift(spec, &table).await;
    }
    if let Some(schema) = initial_schema(spec, registry).await.for_table(&spec.name)? {
        let table = runtime.create(schema).await?;
        tracing::info!(table = %table.name, location = %table.location, "table created");
    }
    Ok(())
}

/// Fetched and undelivered records are memory too: an eighth of the budget, shared by the tables.
fn fetch_options(shared: &Shared) -> KafkaOptions {
    let default = KafkaOptions::default();
    let share = usize::try_from(shared.budget.limit() / 8 / shared.tables.max(1)).unwrap_or(usize::MAX);
    let queue_bytes = share.clamp(FETCH_BYTES_MIN, default.queue_bytes);
    KafkaOptions { queue_bytes, fetch_bytes: default.fetch_bytes.min(queue_bytes / 16) }
}
