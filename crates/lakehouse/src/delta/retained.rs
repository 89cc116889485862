//! What the Delta log retains: which files its versions name, and which log files no version needs.
//!
//! A version is retained when it was the newest one at some time since the horizon. So the oldest retained
//! version is the newest that was committed before the horizon; its files, and all that were added later, are
//! named. Readers reach it from the newest checkpoint at or before it: what lies before that checkpoint can go.
//!
//! Checkpoints are the classic ones, of one part or several. A checkpoint of another kind is not counted as
//! one, so that the log before it stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use arrow::{
    array::{Array, AsArray, StructArray},
    datatypes::Int64Type,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, async_reader::ParquetObjectReader};
use serde::Deserialize;

use super::log::Log;
use crate::error::LakeError;

/// Files of the log, at most.
const LOG_FILES_MAX: usize = 4_000_000;
/// Commits read at once.
const READS_AT_ONCE: usize = 16;
/// Rows of a checkpoint decoded at once.
const BATCH_ROWS: usize = 8_192;

/// What a version of the table shows.
#[derive(Debug, Default)]
pub(super) struct ShownFiles {
    /// Every path, as 64 bits.
    digests: HashSet<u64>,
    /// Those that the caller does not know.
    pub(super) others: BTreeMap<String, AddedFile>,
}

impl ShownFiles {
    pub(super) fn contains(&self, path: &str) -> bool {
        self.digests.contains(&digest(path))
    }

    fn add(&mut self, file: AddedFile, known: &(dyn Fn(&str) -> bool + Send + Sync)) {
        self.digests.insert(digest(&file.path));
        if !known(&file.path) {
            self.others.insert(file.path.clone(), file);
        }
    }

    fn remove(&mut self, path: &str) {
        self.digests.remove(&digest(path));
        self.others.remove(path);
    }
}

/// An `add` of the log, as far as another program's is of interest.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddedFile {
    pub(super) path: String,
    #[serde(default)]
    pub(super) partition_values: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    deletion_vector: Option<serde::de::IgnoredAny>,
}

impl AddedFile {
    pub(super) fn has_deletion_vector(&self) -> bool {
        self.deletion_vector.is_some()
    }
}

/// Without path and partition values: those may be values of records.
impl std::fmt::Debug for AddedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedFile").field("size", &self.size).finish_non_exhaustive()
    }
}

fn digest(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Columns of a checkpoint that say all of an `add` that is asked for.
const ADD_COLUMNS: [&str; 4] = ["add.path", "add.size", "add.partitionValues", "add.deletionVector"];

/// A change of what is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    Added(&'a str),
    /// No retained version has the file any more.
    Left(&'a str),
}

/// One file of the log.
#[derive(Debug, Clone)]
struct LogFile {
    path: Path,
    bytes: u64,
    modified_ms: i64,
}

/// The log as it lies in the store.
#[derive(Debug, Default)]
pub(super) struct Retained {
    commits: BTreeMap<u64, LogFile>,
    /// By version: parts there are, of how many, and each one's file.
    checkpoints: BTreeMap<u64, BTreeMap<(u64, u64), LogFile>>,
    /// Checksums by version.
    others: Vec<(u64, LogFile)>,
}

/// Log files that no retained version needs.
#[derive(Debug, Default)]
pub(crate) struct Expirable {
    pub(crate) paths: Vec<Path>,
    pub(crate) bytes: u64,
}

impl Retained {
    /// Lists the log; `None` when there is none.
    pub(super) async fn list(log: &Log) -> Result<Option<Self>, LakeError> {
        let (mut retained, mut files) = (Self::default(), 0);
        let mut listing = log.store.list(Some(log.path()));
        loop {
            match listing.try_next().await {
                Ok(Some(object)) => retained.add(log, object),
                Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                Err(error) => return Err(LakeError::store("list", log.path(), &error)),
            }
            files += 1;
            if files > LOG_FILES_MAX {
                return Err(LakeError::data(log.path(), format_args!("has more than {LOG_FILES_MAX} files")));
            }
        }
        Ok((!retained.commits.is_empty() || !retained.checkpoints.is_empty()).then_some(retained))
    }

    fn add(&mut self, log: &Log, object: ObjectMeta) {
        let depth = log.path().parts_count() + 1;
        let Some(name) = object.location.filename().filter(|_| object.location.parts_count() == depth) else {
            return;
        };
        let Some((version, rest)) = name.split_once('.') else { return };
        let Some(version) = twenty(version) else { return };
        let file = LogFile {
            path: object.location.clone(),
            bytes: object.size,
            modified_ms: object.last_modified.timestamp_millis(),
        };
        match rest.split('.').collect::<Vec<_>>().as_slice() {
            ["json"] => {
                self.commits.insert(version, file);
            }
            ["crc"] => self.others.push((version, file)),
            ["checkpoint", "parquet"] => {
                self.checkpoints.entry(version).or_default().insert((1, 1), file);
            }
            ["checkpoint", part, of, "parquet"] => {
                if let (Ok(part), Ok(of)) = (part.parse(), of.parse()) {
                    self.checkpoints.entry(version).or_default().insert((part, of), file);
                }
            }
            _ => {}
        }
    }

    /// The parts of a whole checkpoint of this version.
    fn whole(&self, version: u64) -> Option<Vec<LogFile>> {
        let parts = self.checkpoints.get(&version)?;
        let sizes: BTreeSet<u64> = parts.keys().map(|(_, of)| *of).collect();
        sizes.into_iter().find_map(|of| (1..=of).map(|part| parts.get(&(part, of)).cloned()).collect())
    }

    /// The newest version that was committed before the horizon.
    fn oldest_retained(&self, before_ms: i64) -> Option<u64> {
        let old = self.commits.iter().take_while(|(_, file)| file.modified_ms < before_ms);
        old.last().map(|(version, _)| *version)
    }

    /// The newest whole checkpoint at or before a version.
    fn checkpoint_before(&self, version: u64) -> Option<u64> {
        self.checkpoints
            .range(..=version)
            .rev()
            .map(|(found, _)| *found)
            .find(|found| self.whole(*found).is_some())
    }

    /// What no version since the horizon needs, oldest first.
    pub(super) fn expirable(&self, before_ms: i64) -> Expirable {
        let mut expirable = Expirable::default();
        let Some(first) = self.oldest_retained(before_ms).and_then(|oldest| self.checkpoint_before(oldest))
        else {
            return expirable;
        };
        let parts = self
            .checkpoints
            .range(..first)
            .flat_map(|(version, parts)| parts.values().map(move |file| (*version, file)));
        let others = self.others.iter().filter(|(version, _)| *version < first);
        let commits = self.commits.range(..first).map(|(version, file)| (*version, file));
        let mut files: Vec<_> =
            commits.chain(parts).chain(others.map(|(version, file)| (*version, file))).collect();
        files.sort_by_key(|(version, _)| *version);
        for (_, file) in files.into_iter().filter(|(_, file)| file.modified_ms < before_ms) {
            expirable.bytes += file.bytes;
            expirable.paths.push(file.path.clone());
        }
        expirable
    }

    /// Tells every file that a version since the horizon names. False from `each` stops it.
    pub(super) async fn named(
        &self,
        log: &Log,
        before_ms: i64,
        each: &mut (dyn FnMut(Named<'_>) -> bool + Send),
    ) -> Result<bool, LakeError> {
        let oldest = self.oldest_retained(before_ms);
        let base =
            match oldest.and_then(|oldest| self.checkpoint_before(oldest)) {
                Some(checkpoint) => Some(checkpoint),
                None if self.commits.contains_key(&0) => None,
                None => {
                    let first = self.checkpoints.keys().find(|version| self.whole(**version).is_some());
                    Some(*first.ok_or_else(|| {
                        LakeError::data(log.path(), "has neither a beginning nor a checkpoint")
                    })?)
                }
            };
        let mut go_on = true;
        if let Some(checkpoint) = base {
            for part in self.whole(checkpoint).unwrap_or_default() {
                let mut added = |file: AddedFile| each(Named::Added(&file.path));
                go_on &= read_checkpoint(log, &part, &["add.path"], &mut added).await?;
            }
        }
        let first = base.map_or(0, |checkpoint| checkpoint + 1);
        let newest = self.commits.keys().next_back().copied();
        let Some(last) = newest.filter(|last| *last >= first) else { return Ok(go_on) };
        let reads: Vec<_> = (first..=last).map(|version| changes(log.clone(), version)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        while go_on && let Some(read) = reads.next().await {
            let (version, changes) = read?;
            let old = oldest.is_some_and(|oldest| version <= oldest);
            // A commit's own removals come first: what it removes and adds again stays.
            for path in changes.removed.iter().filter(|_| old) {
                go_on &= each(Named::Left(path));
            }
            for file in &changes.added {
                go_on &= each(Named::Added(&file.path));
            }
        }
        Ok(go_on)
    }
}

impl Retained {
    /// The files that this version shows; `known` are paths of which nothing more is asked.
    pub(super) async fn shown(
        &self,
        log: &Log,
        version: u64,
        known: &(dyn Fn(&str) -> bool + Send + Sync),
    ) -> Result<ShownFiles, LakeError> {
        let mut shown = ShownFiles::default();
        let base = self.checkpoint_before(version);
        if base.is_none() && !self.commits.contains_key(&0) {
            return Err(LakeError::data(log.path(), "has neither a beginning nor a checkpoint"));
        }
        for part in base.and_then(|base| self.whole(base)).unwrap_or_default() {
            let mut added = |file: AddedFile| {
                shown.add(file, known);
                true
            };
            read_checkpoint(log, &part, &ADD_COLUMNS, &mut added).await?;
        }
        let first = base.map_or(0, |checkpoint| checkpoint + 1);
        let reads: Vec<_> = (first..=version).map(|version| changes(log.clone(), version)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (_, changes) = read?;
            changes.removed.iter().for_each(|path| shown.remove(path));
            changes.added.into_iter().for_each(|file| shown.add(file, known));
        }
        Ok(shown)
    }
}

#[derive(Default)]
struct Changes {
    added: Vec<AddedFile>,
    removed: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    add: Option<AddedFile>,
    remove: Option<PathOnly>,
}

#[derive(Deserialize)]
struct PathOnly {
    path: String,
}

async fn changes(log: Log, version: u64) -> Result<(u64, Changes), LakeError> {
    let path = log.commit_path(version);
    let bytes = log.bytes(&path).await?;
    let bytes = bytes.ok_or_else(|| LakeError::data(&path, "is missing from the delta log"))?;
    let mut changes = Changes::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|error| LakeError::json(&path, &error))?;
        changes.added.extend(line.add);
        changes.removed.extend(line.remove.map(|remove| remove.path));
    }
    Ok((version, changes))
}

/// A checkpoint's `add` actions, of which these columns are read.
async fn read_checkpoint(
    log: &Log,
    part: &LogFile,
    columns: &[&str],
    each: &mut (dyn FnMut(AddedFile) -> bool + Send),
) -> Result<bool, LakeError> {
    let unreadable = |_| LakeError::data(&part.path, "the delta checkpoint cannot be read");
    let odd = || LakeError::data(&part.path, "is no delta checkpoint (it has no add.path)");
    let reader = ParquetObjectReader::new(std::sync::Arc::clone(&log.store), part.path.clone())
        .with_file_size(part.bytes);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(unreadable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let mut batches =
        builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(unreadable)?;
    let mut go_on = true;
    while go_on && let Some(batch) = batches.try_next().await.map_err(unreadable)? {
        let adds = batch.column_by_name("add").and_then(|column| column.as_struct_opt()).ok_or_else(odd)?;
        let paths = adds.column_by_name("path").ok_or_else(odd)?;
        let paths = Strings::of(paths.as_ref()).ok_or_else(odd)?;
        for row in (0..batch.num_rows()).filter(|row| adds.is_valid(*row)) {
            if let Some(path) = paths.get(row) {
                go_on &= each(added_file(adds, path, row));
            }
        }
    }
    Ok(go_on)
}

/// The `add` of a row, with what was read of it.
fn added_file(adds: &StructArray, path: &str, row: usize) -> AddedFile {
    let mut file = AddedFile { path: path.to_owned(), ..AddedFile::default() };
    let size = adds.column_by_name("size").and_then(|sizes| sizes.as_primitive_opt::<Int64Type>());
    file.size = size.and_then(|sizes| u64::try_from(sizes.value(row)).ok()).unwrap_or(0);
    let vector = adds.column_by_name("deletionVector");
    file.deletion_vector = vector.filter(|vector| vector.is_valid(row)).map(|_| serde::de::IgnoredAny);
    if let Some(values) = adds.column_by_name("partitionValues").and_then(|values| values.as_map_opt()) {
        let entries = values.value(row);
        let keys = Strings::of(entries.column(0).as_ref());
        let texts = Strings::of(entries.column(1).as_ref());
        if let (Some(keys), Some(texts)) = (keys, texts) {
            let pairs = (0..entries.len()).filter_map(|at| Some((keys.get(at)?, texts.get(at))));
            file.partition_values.extend(pairs.map(|(key, text)| (key.to_owned(), text.map(str::to_owned))));
        }
    }
    file
}

/// A column of text, however its writer laid it down.
enum Strings<'a> {
    Small(&'a arrow::array::StringArray),
    Large(&'a arrow::array::LargeStringArray),
    View(&'a arrow::array::StringViewArray),
}

impl<'a> Strings<'a> {
    fn of(column: &'a dyn Array) -> Option<Self> {
        let small = column.as_string_opt::<i32>().map(Self::Small);
        let large = || column.as_string_opt::<i64>().map(Self::Large);
        small.or_else(large).or_else(|| column.as_string_view_opt().map(Self::View))
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Small(text) => text.is_valid(row).then(|| text.value(row)),
            Self::Large(text) => text.is_valid(row).then(|| text.value(row)),
            Self::View(text) => text.is_valid(row).then(|| text.value(row)),
        }
    }
}

fn twenty(digits: &str) -> Option<u64> {
    (digits.len() == 20).then(|| digits.parse().ok())?
}
