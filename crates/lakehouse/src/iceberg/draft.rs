//! The next version of the table's metadata, built step by step on the present one.
//!
//! A step that adds or removes files becomes a snapshot:
//! 1. Manifests that list removed files are read; those files become DELETED, the others EXISTING
//!    with the sequence numbers they had.
//! 2. Added files join them as ADDED. Small manifests of the same partition spec join too when
//!    [`super::tiers`] says so.
//! 3. The new manifests are put, then a manifest list of them and of every manifest kept.
//!
//! Nothing of this is visible until the metadata names it; what a failed attempt leaves is never
//! named and is the janitor's.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use iceberg::spec::{ManifestContentType, ManifestFile};
use serde::de::DeserializeOwned;
use serde_json::Value;
use siltstone_datafile::{FileDetails, Host};
use siltstone_protocol::{FileEntry, Format};

use crate::{
    error::LakeError,
    foreign::{Marker, NO_OVERWRITE, refused},
};

use super::{
    bucket::Bucket,
    data_file::{DataFile, ManifestEntry, Status},
    encode::{ManifestLayout, encode_manifest},
    fault,
    manifests::{Manifests, encode_list},
    metadata::{COMMIT_ID, Metadata, OFFSETS, Snapshot, VERSION},
    offsets::Offsets,
    steps::{Step, Work},
    summary::{FileTotals, summary},
    tiers::{Run, TARGET_BYTES, plan_merge},
};

pub(crate) const NO_RESYNC: &str = "changed the table, and ledger entries or files that it has yet to show are no longer \
    kept, so that its change cannot be told from theirs; to have the Iceberg table rebuilt from the ledger, without \
    that change, stop the workers, delete metadata/ (in a catalog: drop the table there, without purging its files) \
    and start them again";

/// The way out of what cannot be reconciled.
pub(crate) const REBUILD: &str = "to have the Iceberg table rebuilt from the ledger, without that change, stop the workers, \
                       delete metadata/ (in a catalog: drop the table there, without purging its files) and start them again";

/// Added files with what manifests say of them.
pub(crate) type AddedFiles = Vec<(FileEntry, Arc<FileDetails>)>;

#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) metadata: Metadata,
    /// Of the current snapshot.
    pub(crate) manifests: Vec<ManifestFile>,
}

/// What a snapshot under construction has to know everywhere.
struct Making<'a> {
    table: &'a str,
    snapshot_id: i64,
    sequence_number: i64,
    operation: &'static str,
    step: &'a Step,
}

/// What a snapshot takes away.
#[derive(Default)]
struct Leaving {
    urls: HashSet<String>,
    /// Manifests of delete files.
    deletes: HashSet<String>,
}

impl Leaving {
    fn of(bucket: &Bucket, removed: &[String]) -> Self {
        Self { urls: removed.iter().map(|path| bucket.url_of(path)).collect(), deletes: HashSet::new() }
    }
}

/// Entries to be written anew, by partition spec, and the manifests they replace.
#[derive(Default)]
struct Pool {
    entries: BTreeMap<i32, Vec<ManifestEntry>>,
    replaced: HashSet<String>,
    /// URLs of removed files that were found.
    found: HashSet<String>,
}

impl Draft {
    /// Shows one step. `added` are the step's files with their details; `offsets` go to the summary.
    pub(crate) async fn apply(
        &mut self,
        table: &str,
        manifests: &mut Manifests,
        bucket: &Bucket,
        step: &Step,
        added: AddedFiles,
        offsets: Option<Offsets>,
    ) -> Result<(), LakeError> {
        let making = |operation, draft: &Self| Making {
            table,
            snapshot_id: new_snapshot_id(&draft.metadata, &bucket.host),
            sequence_number: draft.metadata.last_sequence_number + 1,
            operation,
            step,
        };
        match &step.work {
            Work::Positions => {}
            Work::SetSchema(schema) => self.metadata.set_schema(schema)?,
            Work::SetPartitionSpec(spec) => self.metadata.set_partition_spec(spec)?,
            Work::SetSortOrder(order) => self.metadata.set_sort_order(order)?,
            Work::Append(_) => {
                let making = making("append", self);
                self.snapshot(&making, manifests, bucket, Leaving::default(), added, offsets).await?;
            }
            Work::Replace { removed, .. } => {
                let making = making("replace", self);
                let leaving = Leaving::of(bucket, removed);
                self.snapshot(&making, manifests, bucket, leaving, added, offsets).await?;
            }
            Work::Resync { removed, .. } | Work::Cut { removed, .. } | Work::Overwrite { removed, .. } => {
                let is_delete = added.is_empty() && matches!(step.work, Work::Overwrite { .. });
                let making = making(if is_delete { "delete" } else { "overwrite" }, self);
                let leaving = Leaving::of(bucket, removed);
                self.snapshot(&making, manifests, bucket, leaving, added, offsets).await?;
            }
            Work::Delete(removed) => {
                let making = making("delete", self);
                let leaving = Leaving::of(bucket, removed);
                self.snapshot(&making, manifests, bucket, leaving, Vec::new(), offsets).await?;
            }
            Work::Swap(swap) => {
                let making = making(swap.operation, self);
                let leaving = Leaving { urls: swap.removed.clone(), deletes: swap.deletes.clone() };
                if !leaving.urls.is_empty() || !leaving.deletes.is_empty() || !added.is_empty() {
                    self.snapshot(&making, manifests, bucket, leaving, added, offsets).await?;
                }
                self.covered(swap.covers);
            }
            Work::PassedOver => self.pass_over(step.version),
            Work::Absorb(_) => return Err(LakeError::internal(table, "an absorb was not made into a step")),
        }
        self.metadata.set_version(step.version, step.committed_ms);
        Ok(())
    }

    async fn snapshot(
        &mut self,
        making: &Making<'_>,
        manifests: &mut Manifests,
        bucket: &Bucket,
        leaving: Leaving,
        added: AddedFiles,
        offsets: Option<Offsets>,
    ) -> Result<(), LakeError> {
        let mut pool = self.take_out(making, manifests, &leaving.urls).await?;
        if !leaving.urls.is_empty() && !self.may_remove(making, &leaving, &pool)? {
            return Ok(());
        }
        pool.replaced.extend(leaving.deletes);
        let mut totals = FileTotals::default();
        for (spec_id, entries) in &pool.entries {
            entries.iter().filter(|entry| !entry.is_live()).for_each(|entry| totals.remove(*spec_id, entry));
        }
        for (entry, details) in &added {
            let file = Arc::new(DataFile::new(bucket.url_of(&entry.path), entry, details)?);
            let new = ManifestEntry {
                status: Status::Added,
                snapshot_id: making.snapshot_id,
                sequence_number: making.sequence_number,
                file_sequence_number: making.sequence_number,
                file,
            };
            totals.add(entry.spec_id, &new);
            pool.entries.entry(entry.spec_id).or_default().push(new);
        }
        self.merge_small(manifests, &mut pool).await?;
        let mut lines = self.write_manifests(making, manifests, bucket, &mut pool).await?;
        totals.manifests_created = lines.len();
        totals.manifests_replaced = pool.replaced.len();
        crate::crash_point!("iceberg.after_manifests");
        let kept = self.manifests.iter().filter(|line| {
            // A manifest without live files told its snapshot what was deleted; later ones do without it.
            is_live(line) && !pool.replaced.contains(&line.manifest_path)
        });
        lines.extend(kept.cloned());
        self.write_list(making, bucket, lines, &totals, offsets).await
    }

    /// Reads the manifests that hold removed files and marks those files.
    async fn take_out(
        &self,
        making: &Making<'_>,
        manifests: &mut Manifests,
        urls: &HashSet<String>,
    ) -> Result<Pool, LakeError> {
        let mut pool = Pool::default();
        if urls.is_empty() {
            return Ok(pool);
        }
        let data: Vec<ManifestFile> = self.data_manifests().cloned().collect();
        let holding = manifests.holding(&data, urls).await?;
        let lines: Vec<&ManifestFile> = holding.iter().map(|&index| &data[index]).collect();
        let loaded = manifests.load(&lines).await?;
        for (line, manifest) in lines.iter().zip(loaded) {
            let is_removed = |entry: &&ManifestEntry| entry.is_live() && urls.contains(&entry.file.path);
            if !manifest.entries.iter().any(|entry| is_removed(&entry)) {
                continue;
            }
            pool.replaced.insert(line.manifest_path.clone());
            let entries = pool.entries.entry(line.partition_spec_id).or_default();
            for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
                if is_removed(&entry) {
                    pool.found.insert(entry.file.path.clone());
                    let snapshot_id = making.snapshot_id;
                    entries.push(ManifestEntry { status: Status::Deleted, snapshot_id, ..entry.clone() });
                } else {
                    entries.push(ManifestEntry { status: Status::Existing, ..entry.clone() });
                }
            }
        }
        Ok(pool)
    }

    /// Whether a removal can be shown. False: another program changed what is to leave, and the step is passed
    /// over; or nothing of it is there.
    fn may_remove(&mut self, making: &Making<'_>, leaving: &Leaving, pool: &Pool) -> Result<bool, LakeError> {
        let Making { table, step, operation, .. } = making;
        let missing = leaving.urls.len().saturating_sub(pool.found.len());
        if let Work::Delete(_) = step.work {
            return Ok(!pool.found.is_empty());
        }
        // New files hold the rows of every input. With an input gone, or with rows of it deleted, those rows would
        // come back, so the inputs that are left stay as they are.
        let deletes = self.manifests.iter().filter(|line| {
            line.content == ManifestContentType::Deletes
                && is_live(line)
                && !leaving.deletes.contains(&line.manifest_path)
        });
        let deletes = deletes.count();
        if missing == 0 && deletes == 0 {
            return Ok(true);
        }
        if matches!(step.work, Work::Resync { .. }) {
            return Err(refused(table, Format::Iceberg, step.version, NO_RESYNC));
        }
        if matches!(step.work, Work::Overwrite { .. }) {
            let problem = format!("{NO_OVERWRITE}; {REBUILD}");
            return Err(refused(table, Format::Iceberg, step.version, &problem));
        }
        tracing::info!(
            table,
            version = step.version,
            operation,
            missing,
            deletes,
            "another program changed files that leave the table here: the change is passed over in Iceberg"
        );
        self.pass_over(step.version);
        Ok(false)
    }

    fn pass_over(&mut self, version: u64) {
        self.metadata.set_apart(Some(Marker::skipped(self.metadata.apart(), version)));
    }

    /// The table agrees with the ledger again, unless something came after the look.
    fn covered(&mut self, look: Option<(u64, u64)>) {
        if let Some((seen, base)) = look
            && self.metadata.apart().is_some_and(|marker| marker.is_covered_by(seen, base))
        {
            self.metadata.set_apart(None);
        }
    }

    /// Adds the entries of small manifests to the pool, as the tiers demand.
    async fn merge_small(&self, manifests: &mut Manifests, pool: &mut Pool) -> Result<(), LakeError> {
        for (spec_id, entries) in &mut pool.entries {
            let candidates: Vec<&ManifestFile> = self
                .data_manifests()
                .filter(|line| {
                    line.partition_spec_id == *spec_id && !pool.replaced.contains(&line.manifest_path)
                })
                .filter(|line| is_live(line))
                .collect();
            let runs: Vec<Run> = candidates.iter().map(|line| run_of(line)).collect();
            let live = entries.iter().filter(|entry| entry.is_live()).count() as u64;
            let bytes: usize = entries.iter().map(|entry| entry.file.encoded_bytes_estimate()).sum();
            let merged = plan_merge(&runs, Run { files: live, bytes: bytes as u64 });
            let lines: Vec<&ManifestFile> = merged.into_iter().map(|index| candidates[index]).collect();
            for (line, manifest) in lines.iter().zip(manifests.load(&lines).await?) {
                pool.replaced.insert(line.manifest_path.clone());
                let live = manifest.entries.iter().filter(|entry| entry.is_live());
                entries.extend(live.map(|entry| ManifestEntry { status: Status::Existing, ..entry.clone() }));
            }
        }
        Ok(())
    }

    async fn write_manifests(
        &self,
        making: &Making<'_>,
        manifests: &mut Manifests,
        bucket: &Bucket,
        pool: &mut Pool,
    ) -> Result<Vec<ManifestFile>, LakeError> {
        let schema_id = self.metadata.current_schema_id;
        let schema: iceberg::spec::Schema = layout(self.metadata.schema_json(schema_id), schema_id)?;
        let commit = bucket.host.ulid();
        let mut lines = Vec::new();
        for (spec_id, entries) in std::mem::take(&mut pool.entries) {
            let spec: iceberg::spec::PartitionSpec = layout(self.metadata.spec_json(spec_id), spec_id)?;
            let layout = ManifestLayout { schema: &schema, spec: &spec };
            for chunk in chunks(entries) {
                let below = format!("metadata/{commit}-m{}.avro", lines.len());
                let encoded = encode_manifest(
                    bucket.url_of(&below),
                    &layout,
                    &chunk,
                    making.snapshot_id,
                    making.sequence_number,
                )?;
                lines.push(manifests.put(&below, encoded, chunk).await?);
                crate::crash_point!("iceberg.after_manifest");
            }
        }
        Ok(lines)
    }

    async fn write_list(
        &mut self,
        making: &Making<'_>,
        bucket: &Bucket,
        lines: Vec<ManifestFile>,
        totals: &FileTotals,
        offsets: Option<Offsets>,
    ) -> Result<(), LakeError> {
        let parent = self.metadata.current_snapshot();
        let parent_snapshot_id = parent.map(|parent| parent.snapshot_id);
        let id = making.snapshot_id;
        let bytes = encode_list(&lines, id, parent_snapshot_id, making.sequence_number).await?;
        let below = format!("metadata/snap-{id}-{}.avro", bucket.host.ulid());
        bucket.put_new(&below, bytes).await?;
        crate::crash_point!("iceberg.after_list");
        let mut summary = summary(making.operation, totals, &lines, parent);
        summary.insert(VERSION.to_owned(), making.step.version.to_string());
        summary.insert(COMMIT_ID.to_owned(), making.step.commit_id.clone());
        if let Some(offsets) = offsets.and_then(|offsets| offsets.to_summary()) {
            summary.insert(OFFSETS.to_owned(), offsets);
        }
        let snapshot = Snapshot {
            snapshot_id: id,
            parent_snapshot_id,
            sequence_number: making.sequence_number,
            timestamp_ms: self.metadata.next_timestamp_ms(making.step.committed_ms),
            manifest_list: bucket.url_of(&below),
            summary,
            schema_id: Some(self.metadata.current_schema_id),
            other: serde_json::Map::new(),
        };
        self.metadata.add_snapshot(snapshot);
        self.manifests = lines;
        Ok(())
    }

    /// A snapshot of the same files: what else the draft changes is then bound to a snapshot.
    pub(crate) async fn restate(&mut self, table: &str, bucket: &Bucket) -> Result<(), LakeError> {
        let (Some(version), Some(parent)) = (self.metadata.version(), self.metadata.current_snapshot())
        else {
            return Ok(());
        };
        let commit_id = parent.summary.get(COMMIT_ID).cloned().unwrap_or_default();
        let offsets = Offsets::after(Some(parent));
        let committed_ms = parent.timestamp_ms;
        let step = Step { work: Work::Positions, version, commit_id, committed_ms, moves: Vec::new() };
        let making = Making {
            table,
            snapshot_id: new_snapshot_id(&self.metadata, &bucket.host),
            sequence_number: self.metadata.last_sequence_number + 1,
            operation: "replace",
            step: &step,
        };
        let lines = self.manifests.clone();
        self.write_list(&making, bucket, lines, &FileTotals::default(), offsets).await
    }

    fn data_manifests(&self) -> impl Iterator<Item = &ManifestFile> {
        self.manifests.iter().filter(|line| line.content == ManifestContentType::Data)
    }
}

/// True when a manifest lists a file that is live.
pub(crate) fn is_live(line: &ManifestFile) -> bool {
    line.has_added_files() || line.has_existing_files()
}

fn run_of(line: &ManifestFile) -> Run {
    let files = line.added_files_count.unwrap_or(0) + line.existing_files_count.unwrap_or(0);
    Run { files: u64::from(files), bytes: u64::try_from(line.manifest_length).unwrap_or(0) }
}

/// Cuts entries at the target size of a manifest.
fn chunks(entries: Vec<ManifestEntry>) -> Vec<Vec<ManifestEntry>> {
    let mut chunks = vec![Vec::new()];
    let mut bytes = 0;
    for entry in entries {
        let size = entry.file.encoded_bytes_estimate() as u64;
        if bytes + size > TARGET_BYTES && bytes > 0 {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(entry);
        }
    }
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

fn layout<T: DeserializeOwned>(json: Option<&Value>, id: i32) -> Result<T, LakeError> {
    json.and_then(|json| serde_json::from_value(json.clone()).ok()).ok_or_else(|| fault::bad_spec(id))
}

/// A random positive id that the table does not have.
fn new_snapshot_id(metadata: &Metadata, host: &Host) -> i64 {
    loop {
        let id = (host.random() >> 1) as i64;
        if id > 0 && !metadata.has_snapshot(id) {
            return id;
        }
    }
}
