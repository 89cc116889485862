//! Checkpoints: the whole state at one version, so that starting costs the same at any age.
//!
//! 1. After a commit whose version is a multiple of N, the state is written in the background.
//! 2. A failure is logged and nothing else: the next one does it.
//! 3. The newest three are kept; older ones are deleted, so that listing them stays short.
//! 4. Starting reads the newest that can be read, and the entries after it.
//!
//! A checkpoint is derived: without any, the entries say the same, as long as none was expired.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use siltstone_protocol::{FileEntry, Format, PartitionSpec, Schema, SortOrder};

use super::{
    Coverage, Import, Intervals, LastAbsorb, Ledger, LedgerState, Revision, SourcePartition, Totals,
    log::read, state::RECENT_COMMITS_MAX,
};
use crate::{crash_point, error::LakeError};

const CHECKPOINT_FORMAT: u32 = 1;
const CHECKPOINTS_KEPT: usize = 3;
/// A state of some millions of files.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;
/// More objects than this in the folder are not looked at.
const CHECKPOINTS_LISTED_MAX: usize = 10_000;
/// A checkpoint costs its live files: with many of them it is written less often, within this bound.
const FILES_PER_VERSION: u64 = 100;
const EVERY_MAX: u64 = 2_000;

/// The stored form of [`LedgerState`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    format: u32,
    version: u64,
    table_uuid: String,
    name: String,
    committed_ms: i64,
    schema_id: i32,
    schemas: Vec<Schema>,
    spec_id: i32,
    partition_specs: Vec<PartitionSpec>,
    sort_order_id: i64,
    sort_orders: Vec<SortOrder>,
    formats: Vec<Format>,
    coverage: Vec<PartitionCoverage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replayed: Vec<PartitionCoverage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revisions: Vec<(String, String, i32, Revision)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    imports: BTreeMap<String, Import>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    absorbs: BTreeMap<Format, LastAbsorb>,
    recent_commits: VecDeque<(u64, String)>,
    live_files: Vec<FileEntry>,
    #[serde(default)]
    totals: Totals,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionCoverage {
    cluster: String,
    topic: String,
    partition: i32,
    intervals: Vec<(i64, i64)>,
}

impl PartitionCoverage {
    fn of(key: &SourcePartition, intervals: &[(i64, i64)]) -> Self {
        let SourcePartition { cluster, topic, partition } = key.clone();
        Self { cluster, topic, partition, intervals: intervals.to_vec() }
    }
}

impl Checkpoint {
    fn of(state: &LedgerState) -> Self {
        let coverage = state.coverage.iter();
        let coverage = coverage.map(|(key, held)| PartitionCoverage::of(key, held.intervals()));
        let replayed = state.replayed.iter().filter(|(_, held)| !held.is_empty());
        let revisions = state.revisions.iter().map(|(key, revision)| {
            let SourcePartition { cluster, topic, partition } = key.clone();
            (cluster, topic, partition, *revision)
        });
        let replayed = replayed.map(|(key, held)| PartitionCoverage::of(key, held.as_slice()));
        Self {
            format: CHECKPOINT_FORMAT,
            version: state.version,
            table_uuid: state.table_uuid.clone(),
            name: state.name.clone(),
            committed_ms: state.committed_ms,
            schema_id: state.schema.schema_id,
            schemas: state.schemas.values().cloned().collect(),
            spec_id: state.partition_spec.spec_id,
            partition_specs: state.partition_specs.values().cloned().collect(),
            sort_order_id: state.sort_order.order_id,
            sort_orders: state.sort_orders.values().cloned().collect(),
            formats: state.formats.clone(),
            coverage: coverage.collect(),
            replayed: replayed.collect(),
            revisions: revisions.collect(),
            imports: state.imports.iter().map(|(source, import)| (source.clone(), *import)).collect(),
            absorbs: state.absorbs.clone(),
            recent_commits: state
                .recent_commits
                .iter()
                .map(|(version, id)| (*version, id.to_string()))
                .collect(),
            live_files: state.live_files.values().cloned().collect(),
            totals: state.totals,
        }
    }

    /// The state, or what is wrong with the checkpoint.
    fn into_state(self, version: u64) -> Result<LedgerState, &'static str> {
        if self.format != CHECKPOINT_FORMAT {
            return Err("is of a format that this program does not know");
        }
        if self.version != version || self.recent_commits.len() > RECENT_COMMITS_MAX {
            return Err("is not the checkpoint of this version");
        }
        let schemas: BTreeMap<i32, Schema> =
            self.schemas.into_iter().map(|schema| (schema.schema_id, schema)).collect();
        let partition_specs: BTreeMap<i32, PartitionSpec> =
            self.partition_specs.into_iter().map(|spec| (spec.spec_id, spec)).collect();
        let sort_orders: BTreeMap<i64, SortOrder> =
            self.sort_orders.into_iter().map(|order| (order.order_id, order)).collect();
        let mut coverage = BTreeMap::new();
        for PartitionCoverage { cluster, topic, partition, intervals } in self.coverage {
            let intervals = Coverage::from_intervals(intervals).ok_or("holds an impossible coverage")?;
            coverage.insert(SourcePartition { cluster, topic, partition }, intervals);
        }
        let mut replayed = BTreeMap::new();
        for PartitionCoverage { cluster, topic, partition, intervals } in self.replayed {
            let intervals = Intervals::try_from(intervals)?;
            replayed.insert(SourcePartition { cluster, topic, partition }, intervals);
        }
        let revisions = self.revisions.into_iter();
        let revisions = revisions.map(|(cluster, topic, partition, revision)| {
            (SourcePartition { cluster, topic, partition }, revision)
        });
        let total = |count: fn(&FileEntry) -> u64| self.live_files.iter().map(count).sum();
        Ok(LedgerState {
            version,
            table_uuid: self.table_uuid,
            name: self.name,
            schema: schemas.get(&self.schema_id).cloned().ok_or("lacks the current schema")?,
            partition_spec: partition_specs
                .get(&self.spec_id)
                .cloned()
                .ok_or("lacks the current partition spec")?,
            sort_order: sort_orders
                .get(&self.sort_order_id)
                .cloned()
                .ok_or("lacks the current sort order")?,
            schemas,
            partition_specs,
            sort_orders,
            formats: self.formats,
            coverage,
            replayed: replayed.into_iter().collect(),
            revisions: revisions.collect(),
            imports: self.imports.into_iter().collect(),
            absorbs: self.absorbs,
            total_rows: total(|file| file.rows),
            total_bytes: total(|file| file.bytes),
            live_files: self.live_files.into_iter().collect(),
            totals: self.totals,
            committed_ms: self.committed_ms,
            recent_commits: self
                .recent_commits
                .into_iter()
                .map(|(version, id)| (version, id.into()))
                .collect(),
        })
    }
}

impl Ledger {
    /// Writes a checkpoint of this state now, and deletes the oldest ones.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. The ledger is as before.
    pub async fn checkpoint(&self, state: &LedgerState) -> Result<(), LakeError> {
        let path = path_of(self, state.version);
        let checkpoint = Checkpoint::of(state);
        let bytes = serde_json::to_vec(&checkpoint).map_err(|error| LakeError::json(&path, &error))?;
        drop(checkpoint);
        // Overwriting is harmless: every writer writes the same state of this version.
        let put = self.inner.store.put(&path, PutPayload::from(bytes)).await;
        put.map_err(|error| LakeError::store("write", &path, &error))?;
        crash_point!("checkpoint.after_put");
        let listed = list(self).await?;
        for version in listed.into_iter().rev().skip(CHECKPOINTS_KEPT) {
            let path = path_of(self, version);
            match self.inner.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(LakeError::store("delete", &path, &error)),
            }
        }
        Ok(())
    }
}

/// Starts writing a checkpoint when this version is due for one.
pub(super) fn maybe_write(ledger: &Ledger, state: &LedgerState) {
    let by_size = (state.live_files.len() as u64 / FILES_PER_VERSION).min(EVERY_MAX);
    let every = ledger.inner.checkpoint_every.max(by_size);
    if state.version > 0 && state.version.is_multiple_of(every) {
        write_in_background(ledger, state);
    }
}

/// Writes a checkpoint in a task of its own; at most one at a time per ledger.
pub(super) fn write_in_background(ledger: &Ledger, state: &LedgerState) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if ledger.inner.checkpoint_running.swap(true, Ordering::AcqRel) {
        return;
    }
    let (ledger, state) = (ledger.clone(), state.clone());
    runtime.spawn(async move {
        let running = Running(Arc::clone(&ledger.inner.checkpoint_running));
        if let Err(error) = ledger.checkpoint(&state).await {
            tracing::warn!(table = %state.name, version = state.version, %error, "checkpoint was not written");
        }
        drop(running);
    });
}

/// The newest checkpoint that can be read; `None` when there is none.
pub(super) async fn newest(ledger: &Ledger) -> Result<Option<LedgerState>, LakeError> {
    let mut last_problem = None;
    for version in list(ledger).await?.into_iter().rev().take(CHECKPOINTS_KEPT) {
        let path = path_of(ledger, version);
        // Deleted since the listing: a newer one is there, and the entries lead to the same state.
        let Some(bytes) = read(&ledger.inner.store, &path, CHECKPOINT_BYTES_MAX).await? else { continue };
        let checkpoint = serde_json::from_slice::<Checkpoint>(&bytes);
        let state = checkpoint.map_err(|error| LakeError::json(&path, &error)).and_then(|checkpoint| {
            checkpoint.into_state(version).map_err(|what| LakeError::data(&path, what))
        });
        match state {
            Ok(state) => return Ok(Some(state)),
            Err(error) => {
                tracing::warn!(path = %path, %error, "checkpoint cannot be read; trying an older one");
                last_problem = Some(error);
            }
        }
    }
    match last_problem {
        // Entries before a checkpoint may be expired: replaying from 0 could see an old end.
        Some(problem) => Err(problem),
        None => Ok(None),
    }
}

/// Versions of the checkpoints there are, ascending.
pub(super) async fn list(ledger: &Ledger) -> Result<Vec<u64>, LakeError> {
    let prefix = prefix(ledger);
    let failed = |error: object_store::Error| match error {
        object_store::Error::NotFound { .. } => None,
        error => Some(LakeError::store("list", &prefix, &error)),
    };
    let mut versions = Vec::new();
    let mut listing = ledger.inner.store.list(Some(&prefix));
    for _ in 0..CHECKPOINTS_LISTED_MAX {
        match listing.try_next().await {
            Ok(Some(object)) => versions.extend(version_in(&object.location)),
            Ok(None) => break,
            Err(error) => match failed(error) {
                Some(error) => return Err(error),
                None => break,
            },
        }
    }
    versions.sort_unstable();
    Ok(versions)
}

fn prefix(ledger: &Ledger) -> Path {
    ledger.own_path().join("checkpoints")
}

fn path_of(ledger: &Ledger, version: u64) -> Path {
    prefix(ledger).join(format!("{version:020}.json"))
}

/// The version in a name of twenty digits and `.json`.
pub(super) fn version_in(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Clears the flag when the task ends, however it ends.
struct Running(Arc<std::sync::atomic::AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
