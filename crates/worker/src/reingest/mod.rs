//! History from the topic: what was never read (backfill), and what is to be read anew (reset).
//!
//! 1. The brokers say what the topic has, the ledger says what is committed; `plan` (pure) says what is to be read.
//! 2. `reader` reads that through the intake of live consumption into large sorted files, in bounded memory; several
//!    readers share the partitions.
//! 3. `commit` makes entries of it. A backfill commits unit by unit, each with the offsets that it is made of: killed,
//!    it goes on where the ledger says. A reset is one entry: the old rows (`old_rows`) out, the new rows in. Before
//!    and after each, dead letters come and go (`letters`).
//!
//! Live workers go on beside both: they append behind the position. A backfill sets it where there is none yet; else
//! nothing here moves it. Two backfills of the same offsets cannot both commit them: the ledger's arithmetic refuses
//! the second.

mod commit;
mod letters;
mod old_rows;
mod plan;
mod reader;
mod schemas;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use serde::Serialize;
use siltstone_datafile::{BulkOptions, RewriteOptions};
use siltstone_ingest::{
    HttpRegistry, KafkaOptions, KafkaSource, RecordSource, SchemaRegistry, decoder::initial_schema,
};
use siltstone_lakehouse::{SourcePartition, TableStore};
use siltstone_protocol::{Change, ErrorCode, OffsetRange, Schema};
use siltstone_spec::{SourceCluster, Spec, Start, TableSpec};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, watch},
};

pub use self::plan::{PartitionPlan, Wanted};
use self::{
    commit::{Committer, Unit, rows_of, stopped, too_large},
    reader::{LETTERS_APART_MAX, ReaderParts, Reading, apart, read_all, shares},
};
pub(crate) use self::{letters::with_letters, old_rows::lacking_letters};
use crate::{
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    progress::Progress,
    table::Table,
};

/// Memory with which one reader works; there are as many as the budget has room for, up to one a core.
const READER_BYTES: u64 = 256 << 20;
/// Share of a reader's memory that its Kafka client may hold: 1 over so much.
const CLIENT_SHARE: u64 = 8;

/// One end of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Earliest,
    Latest,
    Offset(i64),
    /// The first record at or after this time, milliseconds since 1970 UTC.
    Time(i64),
}

/// What is asked for, and what may be used for it.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    pub from: Bound,
    pub to: Bound,
    /// Empty: all partitions.
    pub partitions: Vec<i32>,
    pub dry_run: bool,
    pub memory_bytes: u64,
    pub spill_dir: PathBuf,
    pub spill_bytes_max: u64,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HistorySummary {
    pub table: String,
    pub dry_run: bool,
    /// Offsets to read.
    pub offsets: u64,
    pub partitions: Vec<PartitionPlan>,
    /// Rows that came, in so many files.
    pub rows: u64,
    pub files: u64,
    /// Records that became no row.
    pub rejected: u64,
    /// Rows that left, by a reset.
    pub rows_removed: u64,
    pub commits: u64,
}

impl HistorySummary {
    fn add(&mut self, unit: &Unit) {
        self.files += unit.files.len() as u64;
        self.rows += unit.files.iter().map(|file| file.rows).sum::<u64>();
        self.rejected += unit.rejected.iter().map(|count| count.records).sum::<u64>();
    }
}

/// One table and what history of it is read with.
struct History<'a> {
    cluster: &'a SourceCluster,
    committer: Arc<Committer>,
    registry: Option<Arc<dyn SchemaRegistry>>,
    options: HistoryOptions,
    progress: Arc<Progress>,
    /// Turns true when what the readers read is of no use any more.
    given_up: Arc<AtomicBool>,
}

/// Reads what lies in holes of the table's coverage, and commits it.
///
/// # Errors
/// `Data`: the topic ends before the position; nothing changed. `Stopped`: what was read until then is committed.
/// `Conflict`: others filled the same holes. Those of brokers, registry and store: what was committed stays.
pub async fn backfill(
    spec: &Spec,
    table: &TableSpec,
    options: HistoryOptions,
    progress: Arc<Progress>,
    stop: watch::Receiver<bool>,
) -> Result<HistorySummary, WorkerError> {
    let history = History::open(spec, table, options, progress, stop)?;
    let opened = history.table().await?;
    let state = match &opened {
        Some(table) => Some(table.refresh().await?),
        None => None,
    };
    let coverage = |partition: i32| state.as_ref()?.coverage.get(&history.source(partition));
    let wanted = history.ask().await?;
    plan::check_ends(history.spec(), &wanted, coverage)?;
    let plans: Vec<_> = wanted.iter().map(|one| plan::backfill(*one, coverage(one.partition))).collect();
    let mut summary = history.summary(plans);
    let Some(table) = opened.filter(|_| !history.options.dry_run) else { return Ok(summary) };
    let table = Arc::new(table);
    if summary.offsets > 0 {
        history.fill(&table, &mut summary).await?;
    }
    history.committer.show(&table).await?;
    Ok(summary)
}

/// Reads offsets anew that were read before, and puts what comes of them in the place of the rows that the table has
/// of them: one entry.
///
/// # Errors
/// `Data`: the topic ends before the position. `Invalid`: it no longer has some of the offsets, the table's rows do not
/// say where they come from, or it would be too much for one entry. Nothing changed by these, unless it became too much
/// by what others settled or wrote after the first look. By that, and by those of brokers, registry and store, its rows
/// are as before; what was rejected now may be among its dead letters already, and counts as settled where it may be a
/// row, until a reset of it lands.
pub async fn reset(
    spec: &Spec,
    table: &TableSpec,
    options: HistoryOptions,
    progress: Arc<Progress>,
    stop: watch::Receiver<bool>,
) -> Result<HistorySummary, WorkerError> {
    let history = History::open(spec, table, options, progress, stop)?;
    let Some(opened) = Table::open(&history.committer.lake, table).await? else {
        return Ok(history.summary(Vec::new()));
    };
    let opened = Arc::new(opened);
    let state = opened.refresh().await?;
    let coverage = |partition: i32| state.coverage.get(&history.source(partition));
    let wanted = history.ask().await?;
    plan::check_ends(table, &wanted, coverage)?;
    let plans: Vec<_> = wanted.iter().map(|one| plan::reset(*one, coverage(one.partition))).collect();
    if let Some(lacking) = plans.iter().find(|plan| plan.gone > 0) {
        return Err(WorkerError::Spec {
            code: ErrorCode::ResetRefused,
            table: table.name.clone(),
            message: format!(
                "topic {}, partition {}: {} offsets of the range are no longer in the topic, and a reset would take \
                 their rows away for good; begin with a later --from",
                table.topic, lacking.partition, lacking.gone
            ),
        });
    }
    let mut summary = history.summary(plans);
    if summary.offsets == 0 {
        return Ok(summary);
    }
    let ranges = history.ranges(&summary.partitions);
    let mut old = history.committer.cuts(rows_of(table, &state, &ranges)?);
    // Rows that do not say where they come from are found before anything is read.
    old.look(&opened, &state).await?;
    if history.options.dry_run {
        summary.rows_removed = old.rows();
        return Ok(summary);
    }
    let (units, readers) = history.read(&opened, &summary, Reading::Whole)?;
    let (mut whole, mut failure) = (Unit::default(), None);
    while let Some((unit, done)) = history.next(&units).await {
        whole.join(unit);
        if apart(&whole.letters) > LETTERS_APART_MAX {
            let problem = format!("more than {LETTERS_APART_MAX} stretches of its offsets are rejected");
            failure = Some(too_large(&table.name, &problem));
            break;
        }
        let _ = done.send(());
    }
    history.end(units, readers, failure).await?;
    summary.add(&whole);
    summary.commits = 1;
    summary.rows_removed = history.committer.reset(&opened, old, whole).await?;
    history.committer.show(&opened).await?;
    Ok(summary)
}

/// Units on their way from the readers; each reader waits until its unit is dealt with, or nobody is left to do so.
type Units = mpsc::Receiver<(Unit, mpsc::Sender<()>)>;
type Readers = Vec<JoinHandle<Result<(), WorkerError>>>;

impl<'a> History<'a> {
    fn open(
        spec: &'a Spec,
        table: &TableSpec,
        options: HistoryOptions,
        progress: Arc<Progress>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, WorkerError> {
        let cluster = spec.cluster_of(table).ok_or_else(|| WorkerError::Internal {
            table: table.name.clone(),
            what: "the spec has no such cluster",
        })?;
        let registry = cluster.schema_registry.as_ref().map(HttpRegistry::new).transpose();
        let registry = registry.for_table(&table.name)?;
        let limits = RewriteOptions {
            memory_bytes: options.memory_bytes / 2,
            spill_dir: options.spill_dir.clone(),
            spill_bytes_max: options.spill_bytes_max,
        };
        let committer = Committer {
            spec: table.clone(),
            lake: crate::inspect::open_lake(spec)?,
            identity: Arc::new(Identity::default()),
            metrics: Arc::new(Metrics::default()),
            stop,
            limits,
            letters: OnceCell::new(),
        };
        Ok(Self {
            cluster,
            committer: Arc::new(committer),
            registry: registry.map(|registry| Arc::new(registry) as Arc<dyn SchemaRegistry>),
            options,
            progress,
            given_up: Arc::default(),
        })
    }

    fn spec(&self) -> &TableSpec {
        &self.committer.spec
    }

    fn lake(&self) -> &TableStore {
        &self.committer.lake
    }

    fn source(&self, partition: i32) -> SourcePartition {
        let TableSpec { cluster, topic, .. } = self.spec();
        SourcePartition { cluster: cluster.clone(), topic: topic.clone(), partition }
    }

    /// The table, made as its first worker would make it; a dry run makes none.
    async fn table(&self) -> Result<Option<Table>, WorkerError> {
        let (lake, spec) = (self.lake(), self.spec());
        if let Some(table) = Table::open(lake, spec).await? {
            return Ok(Some(table));
        }
        if self.options.dry_run {
            return Ok(None);
        }
        let schema: Option<Schema> =
            initial_schema(spec, self.registry.as_deref()).await.for_table(&spec.name)?;
        let schema = schema.ok_or_else(|| WorkerError::Spec {
            code: ErrorCode::SchemaNotFound,
            table: spec.name.clone(),
            message: "the table does not exist, and its subject has no schema yet to make it with; register one, or \
                      start a worker"
                .to_owned(),
        })?;
        let Committer { identity, .. } = &*self.committer;
        let (id, now_ms) = (identity.commit_id(), identity.now_ms());
        Table::open_or_create(lake, spec, schema, &id, now_ms).await.map(Some)
    }

    /// What the topic has of what is asked for.
    async fn ask(&self) -> Result<Vec<Wanted>, WorkerError> {
        let (cluster, spec, options) = (self.cluster.clone(), self.spec().clone(), self.options.clone());
        let name = spec.name.clone();
        let asked = tokio::task::spawn_blocking(move || wanted(&cluster, &spec, &options)).await;
        let failed = WorkerError::Internal { table: name, what: "the look at the topic broke off" };
        asked.map_err(|_| failed)?
    }

    fn summary(&self, mut partitions: Vec<PartitionPlan>) -> HistorySummary {
        let idle = |plan: &PartitionPlan| plan.offsets() + plan.held + plan.gone + plan.ahead == 0;
        partitions.retain(|plan| !idle(plan) || plan.begins_at.is_some());
        let offsets = partitions.iter().map(PartitionPlan::offsets).sum();
        HistorySummary {
            table: self.spec().name.clone(),
            dry_run: self.options.dry_run,
            offsets,
            partitions,
            ..HistorySummary::default()
        }
    }

    fn ranges(&self, plans: &[PartitionPlan]) -> Vec<OffsetRange> {
        let range = |partition: i32, start: i64, end: i64| {
            let SourcePartition { cluster, topic, partition } = self.source(partition);
            OffsetRange { cluster, topic, partition, start, end, lost: false }
        };
        plans
            .iter()
            .flat_map(|plan| plan.ranges.iter().map(move |&(from, to)| range(plan.partition, from, to)))
            .collect()
    }

    /// Says where live consumption of partitions without a position begins: behind what is read now.
    async fn pin(&self, table: &Table, plans: &[PartitionPlan]) -> Result<(), WorkerError> {
        let begin = |plan: &PartitionPlan| {
            let at = plan.begins_at?;
            let SourcePartition { cluster, topic, partition } = self.source(plan.partition);
            Some(OffsetRange { cluster, topic, partition, start: at, end: at, lost: false })
        };
        let ranges: Vec<_> = plans.iter().filter_map(begin).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let change = Change::append(Vec::new(), ranges, Vec::new());
        match self.committer.commit(table, change).await? {
            crate::commit::Landed::Refused(error) => Err(error).for_table(&table.name),
            crate::commit::Landed::Stopped => Err(stopped(table)),
            _ => Ok(()),
        }
    }

    /// Reads what the plans say, and commits it unit by unit.
    async fn fill(&self, table: &Arc<Table>, summary: &mut HistorySummary) -> Result<(), WorkerError> {
        self.pin(table, &summary.partitions).await?;
        let (units, readers) = self.read(table, summary, Reading::Units)?;
        let mut failure = None;
        while let Some((unit, done)) = self.next(&units).await {
            if unit.ranges.is_empty() {
                let _ = done.send(());
                continue;
            }
            let mut with = summary.clone();
            with.add(&unit);
            match self.committer.fill(table, unit).await {
                Ok(true) => *summary = HistorySummary { commits: with.commits + 1, ..with },
                // Others committed all of it meanwhile.
                Ok(false) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            let _ = done.send(());
        }
        self.end(units, readers, failure).await
    }

    /// Starts the readers. They share the partitions by how much there is to read of each.
    fn read(
        &self,
        table: &Arc<Table>,
        summary: &HistorySummary,
        reading: Reading,
    ) -> Result<(Units, Readers), WorkerError> {
        self.progress.expect(summary.offsets);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let room = usize::try_from(self.options.memory_bytes / READER_BYTES).unwrap_or(usize::MAX);
        let shares = shares(&summary.partitions, room.clamp(1, cores));
        let readers_count = shares.len().max(1) as u64;
        let memory = self.options.memory_bytes / readers_count;
        let spill_bytes_max = self.options.spill_bytes_max / readers_count;
        let (units, received) = mpsc::channel();
        let mut readers = Vec::new();
        for ranges in shares {
            let queue_bytes = usize::try_from(memory / CLIENT_SHARE).unwrap_or(usize::MAX);
            let fetch_bytes = (queue_bytes / 8).max(1 << 20);
            let client = KafkaOptions { queue_bytes, fetch_bytes };
            let source = KafkaSource::of_history(self.cluster, self.spec(), client).for_table(&table.name)?;
            let parts = ReaderParts {
                committer: Arc::clone(&self.committer),
                source,
                registry: self.registry.clone(),
                table: Arc::clone(table),
                handle: Handle::current(),
                options: BulkOptions {
                    memory_bytes: memory - memory / CLIENT_SHARE * 2,
                    spill_dir: self.options.spill_dir.clone(),
                    spill_bytes_max,
                },
                progress: Arc::clone(&self.progress),
                reading,
                given_up: Arc::clone(&self.given_up),
            };
            let units = units.clone();
            readers.push(std::thread::spawn(move || read_all(parts, ranges, &units)));
        }
        Ok((received, readers))
    }

    /// The next unit; `None` when no reader will send any.
    async fn next(&self, units: &Units) -> Option<(Unit, mpsc::Sender<()>)> {
        tokio::task::block_in_place(|| units.recv()).ok()
    }

    /// Waits for the readers. After a failure they end where they are: nobody takes what they read.
    async fn end(
        &self,
        units: Units,
        readers: Readers,
        mut failure: Option<WorkerError>,
    ) -> Result<(), WorkerError> {
        if failure.is_some() {
            self.given_up.store(true, Ordering::Relaxed);
        }
        drop(units);
        for reader in readers {
            let ended = tokio::task::block_in_place(|| reader.join());
            let internal =
                || WorkerError::Internal { table: self.spec().name.clone(), what: "a reader broke off" };
            if let Err(error) = ended.unwrap_or_else(|_| Err(internal())) {
                failure = Some(graver(failure, error));
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// What a command ends with: readers also stop because another one failed.
fn graver(known: Option<WorkerError>, other: WorkerError) -> WorkerError {
    match known {
        Some(known) if !matches!(known, WorkerError::Stopped { .. }) => known,
        _ => other,
    }
}

fn wanted(
    cluster: &SourceCluster,
    spec: &TableSpec,
    options: &HistoryOptions,
) -> Result<Vec<Wanted>, WorkerError> {
    let name = &spec.name;
    let mut topic = KafkaSource::observer(cluster, spec).for_table(name)?;
    let partitions = topic.partitions().for_table(name)?;
    if let Some(unknown) = options.partitions.iter().find(|partition| !partitions.contains(partition)) {
        let message = format!("topic {} has no partition {unknown}: it has {}", spec.topic, partitions.len());
        return Err(WorkerError::Spec { code: ErrorCode::CommandRefused, table: name.clone(), message });
    }
    let mut all = Vec::new();
    for partition in partitions {
        if !options.partitions.is_empty() && !options.partitions.contains(&partition) {
            continue;
        }
        let marks = topic.watermarks(partition).for_table(name)?;
        let mut at = |bound: Bound| match bound {
            Bound::Earliest => Ok(0),
            Bound::Latest => Ok(marks.high),
            Bound::Offset(offset) => Ok(offset),
            Bound::Time(ms) => topic.start_offset(partition, &Start::Timestamp(ms)).for_table(name),
        };
        let (from, to) = (at(options.from)?, at(options.to)?);
        all.push(Wanted { partition, from, to, low: marks.low, high: marks.high });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_reader_failed_is_told_before_that_others_stopped() {
        let stopped = || WorkerError::Stopped { table: "a.b".to_owned() };
        let failed = |what: &'static str| WorkerError::Internal { table: "a.b".to_owned(), what };
        let is_first = |error: WorkerError| matches!(error, WorkerError::Internal { what: "first", .. });
        assert!(is_first(graver(None, failed("first"))));
        assert!(is_first(graver(Some(stopped()), failed("first"))));
        assert!(is_first(graver(Some(failed("first")), stopped())));
        assert!(is_first(graver(Some(failed("first")), failed("second"))));
        assert!(matches!(graver(Some(stopped()), stopped()), WorkerError::Stopped { .. }));
    }
}
