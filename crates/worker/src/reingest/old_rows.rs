//! Rows of offsets that are ingested anew: found by their coordinates, and left out of the files that hold them.
//!
//! Files are told apart by the bounds of their coordinates first; of those that may hold such rows only the columns
//! with coordinates are read. What was found of a file holds for as long as the file is live: files never change.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use futures::TryStreamExt;
use siltstone_compaction::{CompactionPlan, CompactionPolicy, Trigger};
use siltstone_datafile::{DeletedRows, FileDetails, RewriteOptions, WrittenFile, read_batches};
use siltstone_lakehouse::LedgerState;
use siltstone_protocol::{Field, FileEntry, OffsetRange, Schema, Type};
use siltstone_spec::{CompactionPolicy as PolicySpec, Files};

use super::commit::without_coordinates;
use crate::{
    error::{ForTable, WorkerError},
    table::Table,
};

/// Which rows are meant: those of these offsets.
#[derive(Debug, Clone)]
pub(super) struct Old {
    columns: Coordinates,
    cluster: String,
    topic: String,
    /// Half-open, by partition.
    ranges: BTreeMap<i32, Vec<(i64, i64)>>,
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
        Self::new(Coordinates::of(schema, Some(siltstone_ingest::decoder::KAFKA_COLUMN))?, ranges)
    }

    /// Rows of a dead-letter table.
    pub(super) fn dead_letters(schema: &Schema, ranges: &[OffsetRange]) -> Option<Self> {
        Self::new(Coordinates::of(schema, None)?, ranges)
    }

    fn new(columns: Coordinates, ranges: &[OffsetRange]) -> Option<Self> {
        let first = ranges.first()?;
        let (cluster, topic) = (first.cluster.clone(), first.topic.clone());
        let mut by_partition: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        for range in ranges {
            by_partition.entry(range.partition).or_default().push((range.start, range.end));
        }
        Some(Self { columns, cluster, topic, ranges: by_partition })
    }

    /// False: some row of the file does not say what it was read from.
    fn tells_of_all(&self, details: &FileDetails) -> bool {
        details.columns.get(&self.columns.offset_id).is_some_and(|stats| stats.nulls == Some(0))
    }

    /// False: no row of the file can be meant.
    fn may_be_in(&self, details: &FileDetails) -> bool {
        let bounds = |id: i32| details.columns.get(&id)?.integer_bounds();
        let meets = |bounds: Option<(i64, i64)>, from: i64, to: i64| {
            bounds.is_none_or(|(lower, upper)| from <= upper && lower < to)
        };
        let (partitions, offsets) = (bounds(self.columns.partition_id), bounds(self.columns.offset_id));
        self.ranges.iter().any(|(&partition, ranges)| {
            meets(partitions, partition.into(), i64::from(partition) + 1)
                && ranges.iter().any(|&(from, to)| meets(offsets, from, to))
        })
    }

    /// Positions, after `before` rows, of the rows of a batch that are meant.
    fn positions(&self, batch: &RecordBatch, before: u64, found: &mut Vec<u64>) -> Option<()> {
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
        for row in 0..batch.num_rows() {
            let elsewhere = topics.value(row) != self.topic
                || clusters.is_some_and(|clusters| clusters.value(row) != self.cluster);
            let offset = offsets.value(row);
            let meant = !elsewhere
                && self
                    .ranges
                    .get(&partitions.value(row))
                    .is_some_and(|ranges| ranges.iter().any(|&(from, to)| from <= offset && offset < to));
            if meant {
                found.push(before + row as u64);
            }
        }
        Some(())
    }
}

/// A file without its old rows.
#[derive(Debug)]
pub(super) struct Cut {
    /// What stays of it; empty when nothing does.
    pub(super) added: Vec<WrittenFile>,
    /// How many rows left.
    pub(super) rows: u64,
}

/// The files of a table without their old rows, kept over several looks at the table.
#[derive(Debug)]
pub(super) struct Cuts {
    old: Old,
    policy: CompactionPolicy,
    files: Files,
    limits: RewriteOptions,
    /// By path; `None`: the file holds no such row.
    seen: BTreeMap<String, Option<Cut>>,
}

impl Cuts {
    pub(super) fn new(old: Old, policy: &PolicySpec, files: &Files, limits: RewriteOptions) -> Self {
        let policy = CompactionPolicy::from(policy);
        Self { old, policy, files: files.clone(), limits, seen: BTreeMap::new() }
    }

    /// Brings the cuts to what is live in this state. `look_only`: counts rows and writes nothing.
    ///
    /// # Errors
    /// Those of the store; `Conflict` when a file left meanwhile: look at a newer state.
    pub(super) async fn follow(
        &mut self,
        table: &Table,
        state: &LedgerState,
        look_only: bool,
    ) -> Result<(), WorkerError> {
        self.seen.retain(|path, _| state.live_files.contains_key(path));
        let fresh = state.live_files.values().filter(|file| !self.seen.contains_key(&file.path));
        let fresh: Vec<FileEntry> = fresh.cloned().collect();
        for file in fresh {
            let cut = self.cut(table, state, &file, look_only).await?;
            self.seen.insert(file.path, cut);
        }
        Ok(())
    }

    async fn cut(
        &self,
        table: &Table,
        state: &LedgerState,
        file: &FileEntry,
        look_only: bool,
    ) -> Result<Option<Cut>, WorkerError> {
        let details = table.details.get_or_read(&table.store, &table.location, file, state).await;
        let details = details.for_table(&table.name)?;
        if !self.old.tells_of_all(&details) {
            return Err(without_coordinates(&table.name));
        }
        if !self.old.may_be_in(&details) {
            return Ok(None);
        }
        let positions = self.positions(table, file).await?;
        let rows = positions.len() as u64;
        if rows == 0 {
            return Ok(None);
        }
        if look_only || rows == file.rows {
            return Ok(Some(Cut { added: Vec::new(), rows }));
        }
        let plan = CompactionPlan { trigger: Trigger::DeletedRows, inputs: vec![file.clone()] };
        let job = siltstone_compaction::job(&plan, state, &self.policy, &self.files, &table.token_key);
        let internal = |what| WorkerError::Internal { table: table.name.clone(), what };
        let mut job = job.ok_or_else(|| internal("a live file is of a partition spec that is not known"))?;
        job.layout.host = table.host.clone();
        for input in &mut job.inputs {
            input.deleted = Some(Arc::new(DeletedRows::new(positions.clone())));
        }
        let rewritten = siltstone_compaction::rewrite(job, &table.store, &table.location, &self.limits).await;
        let rewritten = rewritten.for_table(&table.name)?;
        for written in &rewritten.added {
            table.details.insert(written.details.clone());
        }
        Ok(Some(Cut { added: rewritten.added, rows }))
    }

    async fn positions(&self, table: &Table, file: &FileEntry) -> Result<Vec<u64>, WorkerError> {
        let batches = read_batches(&table.store, &table.location, file, &self.old.columns.schema).await;
        let mut batches = batches.for_table(&table.name)?;
        let (mut found, mut before) = (Vec::new(), 0);
        while let Some(batch) = batches.try_next().await.for_table(&table.name)? {
            let what = "the columns of the records' coordinates are not what they were made as";
            let internal = || WorkerError::Internal { table: table.name.clone(), what };
            self.old.positions(&batch, before, &mut found).ok_or_else(internal)?;
            before += batch.num_rows() as u64;
        }
        Ok(found)
    }

    /// Files that leave, the files with what stays of them, and how many rows leave.
    pub(super) fn change(&self) -> (Vec<String>, Vec<FileEntry>, u64) {
        let (mut removed, mut added, mut rows) = (Vec::new(), Vec::new(), 0);
        for (path, cut) in &self.seen {
            let Some(cut) = cut else { continue };
            removed.push(path.clone());
            added.extend(cut.added.iter().map(|file| file.entry.clone()));
            rows += cut.rows;
        }
        (removed, added, rows)
    }
}
