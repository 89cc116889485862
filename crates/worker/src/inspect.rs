//! Looking at tables without touching them: what `status`, `files`, `ledger` and `query` show.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use serde::Serialize;
use siltstone_ingest::{KafkaSource, RecordSource};
use siltstone_lakehouse::{LedgerState, TableStore, Totals, iceberg::IcebergTable, maintenance::Tally};
use siltstone_protocol::{Entry, FileEntry, Format};
use siltstone_spec::{RestCatalog, Spec, TableSpec};

use crate::{
    compactor::Ranges,
    error::{ForTable, WorkerError},
    table::Table,
};

/// Footers that `status` reads for the overlap of key ranges.
const STATUS_READS_MAX: usize = 256;
/// How long brokers are asked for end offsets.
const LAG_TIMEOUT: Duration = Duration::from_secs(15);

/// One table as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct TableStatus {
    pub table: String,
    pub location: String,
    /// The catalog that keeps the Iceberg form: table and address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// False: nothing was committed yet; every count is 0.
    pub exists: bool,
    pub version: Option<u64>,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub schema_id: Option<i32>,
    /// Ledger version that each format shows.
    pub shown: BTreeMap<&'static str, Option<u64>>,
    /// Seconds since the last commit.
    pub last_commit_age_seconds: Option<f64>,
    pub partitions: Vec<PartitionStatus>,
    /// Sum over partitions; `None` when the brokers were not asked or did not answer.
    pub lag_records: Option<i64>,
    pub dead_letters: u64,
    /// What compaction would do now; `None`: nothing was committed yet.
    pub compaction: Option<CompactionStatus>,
    /// What maintenance did so far; `None`: it was not there yet.
    pub maintenance: Option<Tally>,
}

/// The compaction backlog of a table, by what is known without reading many footers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CompactionStatus {
    pub plans: usize,
    pub backlog_files: usize,
    pub backlog_bytes: u64,
    /// Sorted runs over one key, at most.
    pub overlap_depth: usize,
    /// Bytes written for each byte ingested, since the table was made.
    pub write_amplification: Option<f64>,
    /// The share of rewritten bytes that was copied without being decoded.
    pub splice_share: Option<f64>,
    /// What was done since the table was made, as far as the ledger tells.
    pub totals: Totals,
}

/// One source partition of a table.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
    /// The next offset to be read.
    pub position: Option<i64>,
    /// The partition's end as consumers see it.
    pub end: Option<i64>,
    pub lag_records: Option<i64>,
}

/// Opens the bucket of a spec.
///
/// # Errors
/// Those of the store, naming bucket and option.
pub fn open_lake(spec: &Spec) -> Result<TableStore, WorkerError> {
    siltstone_lakehouse::store::open(&spec.destination).map_err(WorkerError::from)
}

/// What is wrong with the transforms of tables whose source the spec describes, by the table's place in the spec.
pub fn unfit_transforms(spec: &Spec) -> Vec<(usize, String)> {
    let checked = spec.tables.iter().map(siltstone_ingest::decoder::check_transforms);
    checked.enumerate().filter_map(|(index, checked)| Some((index, checked.err()?.to_string()))).collect()
}

/// The table if it exists; `dead_letters`: the one of its rejected records.
///
/// # Errors
/// Those of store and ledger.
pub async fn open_table(
    lake: &TableStore,
    spec: &TableSpec,
    dead_letters: bool,
) -> Result<Option<Table>, WorkerError> {
    if dead_letters { Table::open_dead_letters(lake, spec).await } else { Table::open(lake, spec).await }
}

/// How each table stands. Brokers are asked for end offsets when `lag` is true; one that does not
/// answer leaves its lag unknown.
///
/// # Errors
/// Those of store and ledger.
pub async fn status(spec: &Spec, tables: &[&TableSpec], lag: bool) -> Result<Vec<TableStatus>, WorkerError> {
    let lake = open_lake(spec)?;
    let mut all = Vec::with_capacity(tables.len());
    for table in tables {
        all.push(table_status(&lake, spec, table, lag).await?);
    }
    Ok(all)
}

async fn table_status(
    lake: &TableStore,
    spec: &Spec,
    table_spec: &TableSpec,
    lag: bool,
) -> Result<TableStatus, WorkerError> {
    let mut status = TableStatus {
        table: table_spec.name.clone(),
        location: lake.table_url(&table_spec.location()),
        catalog: table_spec.catalog.as_ref().map(RestCatalog::place),
        exists: false,
        version: None,
        rows: 0,
        files: 0,
        bytes: 0,
        schema_id: None,
        shown: BTreeMap::new(),
        last_commit_age_seconds: None,
        partitions: Vec::new(),
        lag_records: None,
        dead_letters: 0,
        compaction: None,
        maintenance: None,
    };
    let mut positions: BTreeMap<(String, String, i32), i64> = BTreeMap::new();
    if let Some(table) = Table::open(lake, table_spec).await? {
        let state = table.state.lock().await.clone();
        fill(&mut status, &state);
        status.compaction = Some(compaction(table_spec, &table, &state).await?);
        status.maintenance = Tally::read(&table.ledger).await.for_table(&table.name)?;
        for mut projection in table.projections().await {
            let shown = projection.shown_version().await.for_table(&table.name)?;
            status.shown.insert(projection.format().as_str(), shown);
        }
        status.last_commit_age_seconds = Some(age_seconds(state.committed_ms));
        for (source, coverage) in &state.coverage {
            if let Some(next) = coverage.next() {
                positions.insert((source.cluster.clone(), source.topic.clone(), source.partition), next);
            }
        }
    }
    if let Some(table) = Table::open_dead_letters(lake, table_spec).await? {
        status.dead_letters = table.state.lock().await.total_rows;
    }
    let ends = if lag { end_offsets(spec, table_spec).await } else { BTreeMap::new() };
    for partition in ends.keys() {
        let key = (table_spec.cluster.clone(), table_spec.topic.clone(), *partition);
        positions.entry(key).or_insert(-1);
    }
    status.partitions = positions
        .into_iter()
        .map(|((cluster, topic, partition), position)| {
            let position = (position >= 0).then_some(position);
            let own = cluster == table_spec.cluster && topic == table_spec.topic;
            let end = own.then(|| ends.get(&partition).map(|ends| ends.1)).flatten();
            let low = ends.get(&partition).map_or(0, |ends| ends.0);
            let lag_records = end.map(|end| (end - position.unwrap_or(low)).max(0));
            PartitionStatus { cluster, topic, partition, position, end, lag_records }
        })
        .collect();
    if !ends.is_empty() {
        status.lag_records =
            Some(status.partitions.iter().filter_map(|partition| partition.lag_records).sum());
    }
    Ok(status)
}

async fn compaction(
    spec: &TableSpec,
    table: &Table,
    state: &LedgerState,
) -> Result<CompactionStatus, WorkerError> {
    let mut ranges = Ranges::default();
    ranges.learn(table, state, STATUS_READS_MAX).await?;
    let now_ms = i64::try_from(now().as_millis()).unwrap_or(i64::MAX);
    let facts = ranges.state(state, &HashSet::new());
    let backlog = siltstone_compaction::backlog(&facts, &(&spec.compaction).into(), now_ms);
    Ok(CompactionStatus {
        plans: backlog.plans,
        backlog_files: backlog.files,
        backlog_bytes: backlog.bytes,
        overlap_depth: backlog.depth,
        write_amplification: state.totals.write_amplification(),
        splice_share: state.totals.splice_share(),
        totals: state.totals,
    })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn fill(status: &mut TableStatus, state: &LedgerState) {
    status.exists = true;
    status.version = Some(state.version);
    status.rows = state.total_rows;
    status.files = state.live_files.len() as u64;
    status.bytes = state.total_bytes;
    status.schema_id = Some(state.schema.schema_id);
}

fn age_seconds(committed_ms: i64) -> f64 {
    (i64::try_from(now().as_millis()).unwrap_or(i64::MAX) - committed_ms).max(0) as f64 / 1000.0
}

/// Low and high offsets by partition; empty when the brokers do not answer.
async fn end_offsets(spec: &Spec, table: &TableSpec) -> BTreeMap<i32, (i64, i64)> {
    let Some(cluster) = spec.cluster_of(table).cloned() else { return BTreeMap::new() };
    let table = table.clone();
    let name = table.name.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut source = KafkaSource::observer(&cluster, &table)?;
        let mut ends = BTreeMap::new();
        for partition in source.partitions()? {
            let marks = source.watermarks(partition)?;
            ends.insert(partition, (marks.low, marks.high));
        }
        Ok::<_, siltstone_ingest::IngestError>(ends)
    });
    match tokio::time::timeout(LAG_TIMEOUT, asked).await {
        Ok(Ok(Ok(ends))) => ends,
        Ok(Ok(Err(error))) => {
            tracing::warn!(table = name, %error, "lag unknown");
            BTreeMap::new()
        }
        _ => {
            tracing::warn!(table = name, "lag unknown: the brokers did not answer in time");
            BTreeMap::new()
        }
    }
}

/// Ledger entries from `from` (or the last `limit` of them), oldest first.
///
/// # Errors
/// Those of the ledger.
pub async fn ledger(table: &Table, from: Option<u64>, limit: u64) -> Result<Vec<Arc<Entry>>, WorkerError> {
    let last = table.state.lock().await.version;
    let first = from.unwrap_or_else(|| (last + 1).saturating_sub(limit));
    let mut entries = Vec::new();
    for version in first..=last.min(first.saturating_add(limit.saturating_sub(1))) {
        if let Some(entry) = table.ledger.entry(version).await.for_table(&table.name)? {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// What a reader of the live files needs.
#[derive(Debug, Clone)]
pub struct LiveFiles {
    pub location: Path,
    pub schema: SchemaRef,
    pub files: Vec<FileEntry>,
}

/// The live files of a table as of its newest ledger version.
///
/// # Errors
/// `Internal` when the schema has no Arrow form.
pub async fn live_files(table: &Table) -> Result<LiveFiles, WorkerError> {
    let state = table.state.lock().await;
    Ok(LiveFiles {
        location: table.location.clone(),
        schema: siltstone_datafile::arrow_schema(&state.schema).for_table(&table.name)?,
        files: state.live_files.values().cloned().collect(),
    })
}

/// One snapshot of a table's Iceberg form.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotStatus {
    pub snapshot_id: i64,
    pub committed_ms: i64,
    /// The same as text, UTC.
    pub committed: String,
    pub operation: String,
    /// The ledger version that the snapshot shows; `None` for one that others wrote.
    pub ledger_version: Option<u64>,
    pub added_files: u64,
    pub added_rows: u64,
    pub total_rows: u64,
}

/// The snapshots that the table's Iceberg metadata retains, oldest first; none when the table is not
/// shown as Iceberg.
///
/// # Errors
/// Those of the store; `Data` when the metadata cannot be read.
pub async fn snapshots(table: &Table) -> Result<Vec<SnapshotStatus>, WorkerError> {
    if !table.state.lock().await.formats.contains(&Format::Iceberg) {
        return Ok(Vec::new());
    }
    let (store, location) = (table.store.clone(), table.location.clone());
    let iceberg = IcebergTable::new(store, location, table.url.clone(), table.projection);
    let mut iceberg = iceberg.with_catalog(table.catalog.clone());
    let Some(metadata) = iceberg.metadata().await.for_table(&table.name)? else { return Ok(Vec::new()) };
    let mut snapshots: Vec<_> = metadata
        .snapshots()
        .map(|snapshot| {
            let properties = &snapshot.summary().additional_properties;
            let count = |name: &str| properties.get(name).and_then(|count| count.parse().ok()).unwrap_or(0);
            let committed_ms = snapshot.timestamp_ms();
            SnapshotStatus {
                snapshot_id: snapshot.snapshot_id(),
                committed_ms,
                committed: chrono::DateTime::from_timestamp_millis(committed_ms)
                    .map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M:%S%.3fZ").to_string()),
                operation: snapshot.summary().operation.as_str().to_owned(),
                ledger_version: properties.get("siltstone.version").and_then(|version| version.parse().ok()),
                added_files: count("added-data-files"),
                added_rows: count("added-records"),
                total_rows: count("total-records"),
            }
        })
        .collect();
    snapshots.sort_by_key(|snapshot| (snapshot.committed_ms, snapshot.ledger_version));
    Ok(snapshots)
}
