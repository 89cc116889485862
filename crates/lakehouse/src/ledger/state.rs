//! The state of a table after some version: what applying every entry up to it leaves.
//!
//! Applying is deterministic, and checks that the state is whole after each entry: one that
//! does not fit was not written by this protocol, and stops the table with its version named.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use siltstone_protocol::{
    Change, Entry, FileEntry, Format, OffsetRange, PartitionSpec, Schema, SchemaHistory, SortOrder,
    SourceFileRange,
};

use super::{
    admit::{self, Admission},
    coverage::Coverage,
    imports::Imports,
    intervals::Intervals,
    live_files::LiveFiles,
    revisions::{self, Revision},
    shared_map::SharedMap,
    totals::Totals,
};
use crate::error::LakeError;

/// Commit ids are remembered for this many versions, so that a late retry is recognised.
pub(super) const RECENT_COMMITS_MAX: usize = 1000;

/// One partition of one topic of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePartition {
    /// The source cluster's name in the spec.
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
}

impl SourcePartition {
    pub fn of(range: &OffsetRange) -> Self {
        Self { cluster: range.cluster.clone(), topic: range.topic.clone(), partition: range.partition }
    }
}

/// The ranges of each partition, in their order.
pub(super) fn by_partition(ranges: &[OffsetRange]) -> Vec<(SourcePartition, Vec<&OffsetRange>)> {
    let mut of: BTreeMap<(&str, &str, i32), Vec<&OffsetRange>> = BTreeMap::new();
    for range in ranges {
        of.entry((range.cluster.as_str(), range.topic.as_str(), range.partition)).or_default().push(range);
    }
    of.into_values().filter_map(|of| Some((SourcePartition::of(of.first()?), of))).collect()
}

/// The newest change of other programs in one format that the ledger took in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastAbsorb {
    /// Ledger version of the entry.
    pub version: u64,
    /// Where the format's own history stood when it was looked at.
    pub seen: u64,
}

/// A table at one version of its ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerState {
    pub version: u64,
    pub table_uuid: String,
    pub name: String,
    /// The current schema.
    pub schema: Schema,
    /// Every schema by id; files name theirs.
    pub schemas: BTreeMap<i32, Schema>,
    pub partition_spec: PartitionSpec,
    pub partition_specs: BTreeMap<i32, PartitionSpec>,
    pub sort_order: SortOrder,
    pub sort_orders: BTreeMap<i64, SortOrder>,
    pub formats: Vec<Format>,
    pub coverage: BTreeMap<SourcePartition, Coverage>,
    /// Offsets of which no dead letter is open: their records were rejected first, and became rows later, or they are
    /// rejected by a reset that has yet to take their rows away.
    pub replayed: SharedMap<SourcePartition, Intervals>,
    /// When rows below the positions came last.
    pub revisions: BTreeMap<SourcePartition, Revision>,
    /// What was read in from files.
    pub imports: Imports,
    /// The last absorb of each format.
    pub absorbs: BTreeMap<Format, LastAbsorb>,
    /// By path; shared by the copies of this state.
    pub live_files: LiveFiles,
    pub total_rows: u64,
    pub total_bytes: u64,
    pub totals: Totals,
    /// Of the newest entry: the committer's clock, milliseconds since 1970 UTC.
    pub committed_ms: i64,
    /// The newest commits, oldest first: (version, commit id).
    pub(super) recent_commits: VecDeque<(u64, Arc<str>)>,
}

impl LedgerState {
    /// The state after entry 0.
    pub(super) fn created(entry: &Entry, path: &str) -> Result<Self, LakeError> {
        let Change::Create { name, schema, partition_spec, sort_order, formats } = &entry.change else {
            return Err(LakeError::data(
                path,
                "the first entry of a ledger creates the table; this one does not",
            ));
        };
        Ok(Self {
            version: entry.version,
            table_uuid: entry.table_uuid.clone(),
            name: name.clone(),
            schema: schema.clone(),
            schemas: BTreeMap::from([(schema.schema_id, schema.clone())]),
            partition_spec: partition_spec.clone(),
            partition_specs: BTreeMap::from([(partition_spec.spec_id, partition_spec.clone())]),
            sort_order: sort_order.clone(),
            sort_orders: BTreeMap::from([(sort_order.order_id, sort_order.clone())]),
            formats: formats.clone(),
            coverage: BTreeMap::new(),
            replayed: SharedMap::default(),
            revisions: BTreeMap::new(),
            imports: Imports::default(),
            absorbs: BTreeMap::new(),
            live_files: LiveFiles::default(),
            total_rows: 0,
            total_bytes: 0,
            totals: Totals::default(),
            committed_ms: entry.committed_ms,
            recent_commits: VecDeque::from([(entry.version, entry.commit_id.as_str().into())]),
        })
    }

    /// What the schemas that the table ever had say of its columns.
    pub fn schema_history(&self) -> SchemaHistory {
        SchemaHistory::of(self.schemas.values())
    }

    /// How files of this schema are partitioned and sorted now. Rows that were taken before the table changed are laid
    /// down in the newest layout of which they have the columns.
    pub fn layout_of(&self, schema: &Schema) -> (PartitionSpec, SortOrder) {
        let has = |id: i32| schema.path_of(id).is_some();
        let fits = |spec: &&PartitionSpec| spec.fields.iter().all(|field| has(field.source_id));
        let specs = std::iter::once(&self.partition_spec).chain(self.partition_specs.values().rev());
        let spec = specs.clone().find(fits).unwrap_or(&self.partition_spec);
        let is_sortable = self.sort_order.fields.iter().all(|field| has(field.source_id));
        let order = if is_sortable { self.sort_order.clone() } else { SortOrder::default() };
        (spec.clone(), order)
    }

    /// Where live consumption of a partition goes on; `None` before its first position.
    pub fn next_offset(&self, partition: &SourcePartition) -> Option<i64> {
        self.coverage.get(partition).and_then(Coverage::next)
    }

    /// The version of a commit, if it is among the newest.
    pub fn version_of(&self, commit_id: &str) -> Option<u64> {
        self.recent_commits.iter().rev().find(|(_, id)| **id == *commit_id).map(|(version, _)| *version)
    }

    /// The id of the commit that made this version.
    pub fn newest_commit_id(&self) -> Option<&str> {
        self.recent_commits.back().map(|(_, id)| &**id)
    }

    /// What a commit of a change would find on this state; nothing is written. False: what it asks for is already so.
    ///
    /// # Errors
    /// Those of [`super::Ledger::commit`] that do not come of the store.
    pub fn takes(&self, change: &Change) -> Result<bool, LakeError> {
        admit::admit(self, change).map(|admission| admission == Admission::Admitted)
    }

    /// Applies the next entry. On an error nothing is changed.
    pub(super) fn apply(&mut self, entry: &Entry, path: &str) -> Result<(), LakeError> {
        if entry.table_uuid != self.table_uuid {
            return Err(LakeError::data(path, "belongs to another table (its uuid differs)"));
        }
        match admit::fits(self, &entry.change) {
            Ok(Admission::Admitted) => {}
            // Earlier builds went back to a schema when they lost a race: such a ledger stays readable.
            Ok(Admission::AlreadySo) if self.goes_back(&entry.change) => {}
            Ok(Admission::AlreadySo) => {
                return Err(LakeError::data(path, "changes nothing that is not already so"));
            }
            Err(error) => {
                return Err(LakeError::data(
                    path,
                    format_args!("does not fit the version before it: {error}"),
                ));
            }
        }
        let moved = self.moved_by(&entry.change);
        let filled = revisions::filled(self, &entry.change);
        if let Change::Absorb { format, seen, .. } = entry.change {
            self.absorbs.insert(format, LastAbsorb { version: entry.version, seen });
        }
        self.change(&entry.change);
        self.revise(filled, entry.version, matches!(entry.change, Change::Overwrite { .. }));
        self.version = entry.version;
        self.committed_ms = entry.committed_ms;
        self.recent_commits.push_back((entry.version, entry.commit_id.as_str().into()));
        while self.recent_commits.len() > RECENT_COMMITS_MAX {
            self.recent_commits.pop_front();
        }
        debug_assert!(self.never_skips(&moved, &entry.change), "I-3: no offset committed twice or skipped");
        Ok(())
    }

    fn goes_back(&self, change: &Change) -> bool {
        matches!(change, Change::SetSchema { schema } if *schema != self.schema)
    }

    fn change(&mut self, change: &Change) {
        self.totals.add(change, &self.live_files);
        match change {
            // Refused by `admit`: a table is created once.
            Change::Create { .. } => {}
            Change::Append { files, ranges, replayed, imported, .. } => {
                self.add(files);
                for range in ranges {
                    let coverage = self.coverage.entry(SourcePartition::of(range)).or_default();
                    admit::cover(coverage, range);
                }
                self.replay(replayed);
                self.import(imported);
            }
            Change::Overwrite { removed, added, ranges, replayed, .. } => {
                self.remove(removed);
                self.add(added);
                for (key, ranges) in by_partition(ranges) {
                    let ranges: Vec<_> = ranges.iter().map(|range| (range.start, range.end)).collect();
                    self.forget_replayed(&key, &ranges);
                    let coverage = self.coverage.entry(key).or_default();
                    ranges.iter().for_each(|&(start, end)| coverage.commit_again(start, end));
                }
                self.replay(replayed);
            }
            Change::Replace { removed, added, .. }
            | Change::Delete { removed, added }
            | Change::Absorb { removed, added, .. } => {
                self.remove(removed);
                self.add(added);
            }
            Change::SetSchema { schema } => {
                self.schemas.insert(schema.schema_id, schema.clone());
                self.schema = schema.clone();
            }
            Change::SetPartitionSpec { partition_spec } => {
                self.partition_specs.insert(partition_spec.spec_id, partition_spec.clone());
                self.partition_spec = partition_spec.clone();
            }
            Change::SetSortOrder { sort_order } => {
                self.sort_orders.insert(sort_order.order_id, sort_order.clone());
                self.sort_order = sort_order.clone();
            }
            Change::SetFormats { formats } => self.formats.clone_from(formats),
            Change::ResetPositions { ranges } => {
                for range in ranges {
                    let key = SourcePartition::of(range);
                    // What comes again may be rejected, and replayed, again.
                    self.forget_replayed(&key, &[(range.end, i64::MAX)]);
                    self.coverage.entry(key).or_default().move_to(range.end);
                }
            }
            // `admit` refuses kinds that this program does not know.
            _ => {}
        }
    }

    fn replay(&mut self, replayed: &[OffsetRange]) {
        for (partition, ranges) in by_partition(replayed) {
            let mut held = self.replayed.get(&partition).cloned().unwrap_or_default();
            ranges.iter().for_each(|range| held.insert(range.start, range.end));
            self.replayed.insert(partition, held);
        }
    }

    fn forget_replayed(&mut self, partition: &SourcePartition, ranges: &[(i64, i64)]) {
        let Some(held) = self.replayed.get(partition) else { return };
        if ranges.iter().any(|&(start, end)| held.touches(start, end)) {
            let mut held = held.clone();
            ranges.iter().for_each(|&(start, end)| held.remove(start, end));
            self.replayed.insert(partition.clone(), held);
        }
    }

    fn import(&mut self, imported: &[SourceFileRange]) {
        for range in imported {
            let held = self.imports.get(&range.source).copied().unwrap_or_default();
            if let Ok(next) = held.with(range) {
                self.imports.insert(range.source.clone(), next);
            }
        }
    }

    fn add(&mut self, files: &[FileEntry]) {
        for file in files {
            self.total_rows = self.total_rows.saturating_add(file.rows);
            self.total_bytes = self.total_bytes.saturating_add(file.bytes);
            self.live_files.insert(file.clone());
        }
    }

    fn remove(&mut self, paths: &[String]) {
        for path in paths {
            if let Some(file) = self.live_files.remove(path) {
                self.total_rows = self.total_rows.saturating_sub(file.rows);
                self.total_bytes = self.total_bytes.saturating_sub(file.bytes);
            }
        }
    }

    /// Committed offsets of the partitions that an append touches, before it.
    fn moved_by(&self, change: &Change) -> BTreeMap<SourcePartition, u64> {
        let Change::Append { ranges, .. } = change else { return BTreeMap::new() };
        let before = |key: &SourcePartition| self.coverage.get(key).map_or(0, Coverage::offsets);
        ranges.iter().map(SourcePartition::of).map(|key| (key.clone(), before(&key))).collect()
    }

    /// I-3 over one append: coverage grew by exactly the offsets of its ranges, so none was there before.
    fn never_skips(&self, before: &BTreeMap<SourcePartition, u64>, change: &Change) -> bool {
        let Change::Append { ranges, .. } = change else { return true };
        before.iter().all(|(key, before)| {
            let own = ranges.iter().filter(|range| !range.lost && SourcePartition::of(range) == *key);
            let added: u64 = own.map(|range| range.end.abs_diff(range.start)).sum();
            self.coverage.get(key).map_or(0, Coverage::offsets) == before + added
        })
    }
}
