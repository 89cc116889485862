//! Rows of offsets that are ingested anew: found by their coordinates, and left out of the files that hold them.
//!
//! Files are told apart by the bounds of their coordinates first; of those that may hold such rows only the columns
//! with coordinates are read. What was found of a file holds for as long as the file is live: files never change.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use futures::{StreamExt, TryStreamExt, stream};
use siltstone_compaction::{CompactionPlan, CompactionPolicy, Trigger};
use siltstone_datafile::{DeletedRows, FileDetails, RewriteOptions, read_batches};
use siltstone_lakehouse::{LedgerState, ledger::Intervals};
use siltstone_protocol::{Field, FileEntry, OffsetRange, Schema, Type};
use siltstone_spec::{CompactionPolicy as PolicySpec, Files, TableSpec};

use super::{
    commit::{too_large, without_coordinates},
    reader::{LETTERS_APART_MAX, apart},
};
use crate::{
    error::{ForTable, WorkerError},
    table::Table,
};

/// Files whose details are asked for in one go, and how many of them at once.
const DETAILS_MAX: usize = 1_000;
const DETAILS_AT_ONCE: usize = 16;
/// Rows whose positions are kept between the look and the cut; those of more rows are looked for again.
const POSITIONS_MAX: u64 = 4_000_000;

/// Offsets of one topic, by partition.
pub(super) type Offsets = BTreeMap<i32, Intervals>;

/// The offsets of these ranges.
pub(super) fn offsets_of(ranges: &[OffsetRange]) -> Offsets {
    let mut offsets = Offsets::new();
    for range in ranges {
        offsets.entry(range.partition).or_default().insert(range.start, range.end);
    }
    offsets
}

/// Which rows are meant: those of these offsets.
#[derive(Debug, Clone)]
pub(super) struct Old {
    columns: Coordinates,
    cluster: String,
    topic: String,
    offsets: Offsets,
}

/// Where a table keeps what its rows were read from.
#[derive(Debug, Clone)]
struct Coordinates {
    /// The columns alone, to be read.
    schema: Schema,
    /// Name of the struct that holds them, if one does.
    inside: Option<String>,
    partition_id: i32,
    offset_id: i32,
}

impl Coordinates {
    fn of(schema: &Schema, inside: Option<&str>) -> Option<Self> {
        let members: &[Field] = match inside {
            None => &schema.fields,
            Some(name) => match &schema.column(name)?.data_type {
                Type::Struct(members) => members,
                _ => return None,
            },
        };
        let id = |name: &str| members.iter().find(|field| field.name == name).map(|field| field.id);
        let kept = |field: &Field| match inside {
            Some(name) => field.name == name,
            None => ["cluster", "topic", "partition", "offset"].contains(&field.name.as_str()),
        };
        let fields = schema.fields.iter().filter(|field| kept(field)).cloned().collect();
        Some(Self {
            partition_id: id("partition")?,
            offset_id: id("offset")?,
            schema: Schema::new(schema.schema_id, fields),
            inside: inside.map(str::to_owned),
        })
    }
}

impl Old {
    /// Rows of a table with `kafka_metadata`; `None` where rows do not say what they were read from.
    pub(super) fn rows(schema: &Schema, ranges: &[OffsetRange]) -> Option<Self> {
        let columns = Coordinates::of(schema, Some(siltstone_ingest::decoder::KAFKA_COLUMN))?;
        Some(Self::new(columns, ranges.first()?, offsets_of(ranges)))
    }

    /// Rows of a dead-letter table, of the source of `range`.
    pub(super) fn dead_letters(schema: &Schema, range: &OffsetRange, offsets: Offsets) -> Option<Self> {
        Some(Self::new(Coordinates::of(schema, None)?, range, offsets))
    }

    fn new(columns: Coordinates, range: &OffsetRange, offsets: Offsets) -> Self {
        Self { columns, cluster: range.cluster.clone(), topic: range.topic.clone(), offsets }
    }

    /// False: some row of the file does not say what it was read from.
    fn tells_of_all(&self, details: &FileDetails) -> bool {
        details.columns.get(&self.columns.offset_id).is_some_and(|stats| stats.nulls == Some(0))
    }

    /// False: no row of the file can be meant.
    fn may_be_in(&self, details: &FileDetails) -> bool {
        let bounds = |id: i32| details.columns.get(&id)?.integer_bounds();
        let (partitions, offsets) = (bounds(self.columns.partition_id), bounds(self.columns.offset_id));
        self.offsets.iter().any(|(&partition, held)| {
            partitions.is_none_or(|(lower, upper)| (lower..=upper).contains(&i64::from(partition)))
                && offsets.is_none_or(|(lower, upper)| held.touches(lower, upper.saturating_add(1)))
        })
    }

    /// Adds the rows of a batch, which comes after `before` rows, that are meant.
    fn find(&self, batch: &RecordBatch, before: u64, found: &mut Meant) -> Option<()> {
        let column = |name: &str| match &self.columns.inside {
            None => batch.column_by_name(name),
            Some(inside) => batch.column_by_name(inside)?.as_struct_opt()?.column_by_name(name),
        };
        let partitions = column("partition")?.as_primitive_opt::<Int32Type>()?;
        let offsets = column("offset")?.as_primitive_opt::<Int64Type>()?;
        let topics = column("topic")?.as_string_opt::<i32>()?;
        let clusters = match self.columns.inside {
            None => Some(column("cluster")?.as_string_opt::<i32>()?),
            Some(_) => None,
        };
        let mut places = Vec::new();
        for row in 0..batch.num_rows() {
            let (partition, offset) = (partitions.value(row), offsets.value(row));
            let held = self.offsets.get(&partition);
            if !held.is_some_and(|held| held.touches(offset, offset.saturating_add(1))) {
                continue;
            }
            let elsewhere = topics.value(row) != self.topic
                || clusters.is_some_and(|clusters| clusters.value(row) != self.cluster);
            if !elsewhere {
                found.positions.push(before + row as u64);
                // Only of dead letters it matters which they are.
                places.extend(clusters.map(|_| (partition, offset)));
            }
        }
        // In order each is laid behind the others.
        places.sort_unstable();
        for (partition, offset) in places {
            found.places.entry(partition).or_default().insert(offset, offset.saturating_add(1));
        }
        Some(())
    }
}

/// The rows of a file that are meant: where they are, and what a dead letter among them was read from.
#[derive(Debug, Default)]
struct Meant {
    positions: Vec<u64>,
    places: Offsets,
}

/// A file that holds such rows.
#[derive(Debug)]
struct Found {
    /// How many rows leave.
    rows: u64,
    /// Of dead letters: their offsets.
    places: Offsets,
    /// Where they are; `None`: every row leaves, or they are too many to keep.
    positions: Option<Arc<DeletedRows>>,
    /// What stays of the file, once that is written.
    stays: Option<Vec<FileEntry>>,
}

/// The files of a table without their old rows, kept over several looks at the table.
#[derive(Debug)]
pub(super) struct Cuts {
    old: Old,
    policy: CompactionPolicy,
    files: Files,
    limits: RewriteOptions,
    /// By path; `None`: the file holds no such row.
    seen: BTreeMap<String, Option<Found>>,
    /// Rows whose positions were kept.
    kept: u64,
    /// Stretches that the offsets of the dead letters are, file by file.
    apart: usize,
}

impl Cuts {
    pub(super) fn new(old: Old, policy: &PolicySpec, files: &Files, limits: RewriteOptions) -> Self {
        let policy = CompactionPolicy::from(policy);
        Self { old, policy, files: files.clone(), limits, seen: BTreeMap::new(), kept: 0, apart: 0 }
    }

    /// Finds the rows in what is live in this state; nothing is written.
    ///
    /// # Errors
    /// `Invalid`: rows do not say what they were read from, or dead letters are too scattered. Those of the store.
    pub(super) async fn look(&mut self, table: &Table, state: &LedgerState) -> Result<(), WorkerError> {
        self.seen.retain(|path, _| state.live_files.contains_key(path));
        self.apart = self.seen.values().flatten().map(|found| apart(&found.places)).sum();
        let fresh = state.live_files.values().filter(|file| !self.seen.contains_key(&file.path));
        let fresh: Vec<FileEntry> = fresh.cloned().collect();
        for files in fresh.chunks(DETAILS_MAX) {
            for (file, may_hold) in self.told_apart(table, state, files).await? {
                let found = if may_hold { self.find(table, &file).await? } else { None };
                self.seen.insert(file.path, found);
            }
        }
        Ok(())
    }

    /// Brings the cuts to what is live in this state.
    ///
    /// # Errors
    /// As [`Self::look`]; `Conflict` when a file left meanwhile: look at a newer state.
    pub(super) async fn follow(&mut self, table: &Table, state: &LedgerState) -> Result<(), WorkerError> {
        self.look(table, state).await?;
        let uncut = |(path, found): (&String, &Option<Found>)| {
            found.as_ref().is_some_and(|found| found.stays.is_none()).then(|| path.clone())
        };
        let paths: Vec<String> = self.seen.iter().filter_map(uncut).collect();
        for path in paths {
            let (Some(Some(found)), Some(file)) = (self.seen.get(&path), state.live_files.get(&path)) else {
                continue;
            };
            let stays = self.cut(table, state, file, found).await?;
            if let Some(Some(found)) = self.seen.get_mut(&path) {
                (found.stays, found.positions) = (Some(stays), None);
            }
        }
        Ok(())
    }

    /// These files, and whether each may hold such rows.
    async fn told_apart(
        &self,
        table: &Table,
        state: &LedgerState,
        files: &[FileEntry],
    ) -> Result<Vec<(FileEntry, bool)>, WorkerError> {
        let looks = files.iter().cloned().map(|file| async move {
            let details = table.details.get_or_read(&table.store, &table.location, &file, state).await;
            let details = details.for_table(&table.name)?;
            // Dead letters always do.
            if self.old.columns.inside.is_some() && !self.old.tells_of_all(&details) {
                return Err(without_coordinates(&table.name));
            }
            Ok::<_, WorkerError>((file, self.old.may_be_in(&details)))
        });
        stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(DETAILS_AT_ONCE).try_collect().await
    }

    async fn find(&mut self, table: &Table, file: &FileEntry) -> Result<Option<Found>, WorkerError> {
        let Meant { positions, places } = self.meant(table, file).await?;
        let rows = positions.len() as u64;
        if rows == 0 {
            return Ok(None);
        }
        self.apart += apart(&places);
        not_too_scattered(table, self.apart)?;
        let is_kept = rows < file.rows && self.kept + rows <= POSITIONS_MAX;
        if is_kept {
            self.kept += rows;
        }
        let positions = is_kept.then(|| Arc::new(DeletedRows::new(positions)));
        Ok(Some(Found { rows, places, positions, stays: None }))
    }

    /// Writes what stays of a file.
    async fn cut(
        &self,
        table: &Table,
        state: &LedgerState,
        file: &FileEntry,
        found: &Found,
    ) -> Result<Vec<FileEntry>, WorkerError> {
        if found.rows == file.rows {
            return Ok(Vec::new());
        }
        let deleted = match &found.positions {
            Some(positions) => Arc::clone(positions),
            None => Arc::new(DeletedRows::new(self.meant(table, file).await?.positions)),
        };
        let plan = CompactionPlan { trigger: Trigger::DeletedRows, inputs: vec![file.clone()] };
        let job = siltstone_compaction::job(&plan, state, &self.policy, &self.files, &table.token_key);
        let internal = |what| WorkerError::Internal { table: table.name.clone(), what };
        let mut job = job.ok_or_else(|| internal("a live file is of a partition spec that is not known"))?;
        job.layout.host = table.host.clone();
        for input in &mut job.inputs {
            input.deleted = Some(Arc::clone(&deleted));
        }
        let rewritten = siltstone_compaction::rewrite(job, &table.store, &table.location, &self.limits).await;
        let rewritten = rewritten.for_table(&table.name)?;
        for written in &rewritten.added {
            table.details.insert(written.details.clone());
        }
        Ok(rewritten.added.into_iter().map(|file| file.entry).collect())
    }

    async fn meant(&self, table: &Table, file: &FileEntry) -> Result<Meant, WorkerError> {
        let batches = read_batches(&table.store, &table.location, file, &self.old.columns.schema).await;
        let mut batches = batches.for_table(&table.name)?;
        let (mut found, mut before) = (Meant::default(), 0);
        while let Some(batch) = batches.try_next().await.for_table(&table.name)? {
            let what = "the columns of the records' coordinates are not what they were made as";
            let internal = || WorkerError::Internal { table: table.name.clone(), what };
            self.old.find(&batch, before, &mut found).ok_or_else(internal)?;
            not_too_scattered(table, apart(&found.places))?;
            before += batch.num_rows() as u64;
        }
        Ok(found)
    }

    /// The offsets of the dead letters that were found.
    pub(super) fn places(&self) -> Offsets {
        let mut all: Vec<(i32, i64, i64)> = Vec::new();
        for (&partition, held) in self.seen.values().flatten().flat_map(|found| &found.places) {
            all.extend(held.as_slice().iter().map(|&(from, to)| (partition, from, to)));
        }
        // In order each is laid behind the others.
        all.sort_unstable();
        let mut places = Offsets::new();
        for (partition, from, to) in all {
            places.entry(partition).or_default().insert(from, to);
        }
        places
    }

    /// True when all files that hold such rows are live in this state.
    pub(super) fn are_live(&self, state: &LedgerState) -> bool {
        let mut holding = self.seen.iter().filter(|(_, found)| found.is_some());
        holding.all(|(path, _)| state.live_files.contains_key(path))
    }

    /// How many rows leave.
    pub(super) fn rows(&self) -> u64 {
        self.seen.values().flatten().map(|found| found.rows).sum()
    }

    /// Files that leave, and the files with what stays of them.
    pub(super) fn change(&self) -> (Vec<String>, Vec<FileEntry>) {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (path, found) in &self.seen {
            let Some(found) = found else { continue };
            removed.push(path.clone());
            added.extend(found.stays.iter().flatten().cloned());
        }
        (removed, added)
    }
}

fn not_too_scattered(table: &Table, stretches: usize) -> Result<(), WorkerError> {
    if stretches <= LETTERS_APART_MAX {
        return Ok(());
    }
    let problem =
        format!("its dead letters in the range are more than {LETTERS_APART_MAX} stretches of offsets");
    Err(too_large(&table.name, &problem))
}

/// Those of these places of which a dead-letter table has no row.
///
/// # Errors
/// Those of the store.
pub(crate) async fn lacking_letters(
    spec: &TableSpec,
    table: &Table,
    state: &LedgerState,
    like: &OffsetRange,
    mut places: Vec<(i32, i64)>,
) -> Result<Vec<(i32, i64)>, WorkerError> {
    let mut offsets = Offsets::new();
    for &(partition, offset) in &places {
        offsets.entry(partition).or_default().insert(offset, offset.saturating_add(1));
    }
    let Some(old) = Old::dead_letters(&state.schema, like, offsets) else { return Ok(places) };
    let mut cuts = Cuts::new(old, &spec.compaction, &spec.files, RewriteOptions::default());
    cuts.look(table, state).await?;
    let found = cuts.places();
    places.retain(|&(partition, offset)| {
        let held = found.get(&partition);
        !held.is_some_and(|held| held.covers(offset, offset.saturating_add(1)))
    });
    Ok(places)
}
