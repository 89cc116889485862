//! From ledger entries to one Delta commit. No decision is made here, and nothing is written.
//!
//! A run of appends becomes one commit; a replace, a delete and a schema change are one each.
//!
//! A file that was replaced or deleted later, and is gone from the store, cannot be described any more. It
//! is passed over, as is its removal; what replaced it then brings rows that are new to Delta (`dataChange`).

mod resync;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet, btree_map},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, path::Path};
use siltstone_datafile::FileDetails;
use siltstone_protocol::{
    Change, Entry, ErrorCode, ErrorKind, Field, FileEntry, Format, OffsetRange, Schema, SchemaHistory,
};

use super::{
    actions::{APP_ID_PREFIX, Action, Add, CommitInfo, Metadata, OwnInfo, Protocol, Remove, Txn},
    checkpoint::{CONFIG_SCHEMA_ID, CONFIG_TABLE_UUID},
    partition,
    schema::{self, Mapping},
    stats,
};
use crate::{
    details::DetailsCache,
    error::LakeError,
    foreign::{Marker, refused},
    format::ProjectionOptions,
    ledger::LedgerState,
};

pub(super) const NO_RESYNC: &str = "changed the table, and ledger entries or files that it has yet to show are no longer \
    kept, so that its change cannot be told from theirs; to have it rebuilt from the ledger, without that change, \
    stop the workers, delete data/_delta_log and start them again";

/// A run of appends is closed when it has this many files.
const FILES_PER_COMMIT: usize = 10_000;
/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 16;
/// A first commit of more files than this is refused.
const FIRST_FILES_MAX: usize = 500_000;
const DAY_SECONDS: u64 = 24 * 3600;
/// VACUUM by another program must spare, for so long, what Delta does not name: Iceberg may.
const DELETED_FILES_DAYS_MIN: u64 = 365;

/// What drafting reads.
pub(super) struct Context<'a> {
    pub(super) store: &'a Arc<dyn ObjectStore>,
    pub(super) location: &'a Path,
    pub(super) state: &'a LedgerState,
    pub(super) details: &'a DetailsCache,
    pub(super) options: &'a ProjectionOptions,
    /// As they are called in files.
    pub(super) partition_columns: &'a [String],
    pub(super) history: SchemaHistory,
    /// The schema that Delta shows now.
    pub(super) schema_id: i32,
    /// How far Delta is apart from the ledger after this commit.
    pub(super) apart: Option<Marker>,
}

/// What takes the place of what, as Delta shows it.
pub(super) struct Swap<'a> {
    pub(super) removed: Vec<Action>,
    pub(super) added: &'a [FileEntry],
}

/// One commit to be made, or none because nothing that Delta shows has changed.
pub(super) struct Draft {
    /// The last ledger version of the draft.
    pub(super) version: u64,
    pub(super) schema_id: i32,
    pub(super) actions: Option<Vec<Action>>,
}

impl Context<'_> {
    /// The first commit: the table as the ledger's state has it.
    pub(super) async fn first(&self) -> Result<Vec<Action>, LakeError> {
        let state = self.state;
        schema::check_change(state, &state.schema, Mapping::MayBegin)?;
        if state.live_files.len() > FIRST_FILES_MAX {
            return Err(LakeError::invalid(
                &state.name,
                format_args!(
                    "a first Delta commit of {} files is too large; compact the table first",
                    state.live_files.len()
                ),
            )
            .coded(ErrorCode::ChangeTooLarge));
        }
        let commit_id = state.newest_commit_id().unwrap_or_default().to_owned();
        let mut actions = self.head(
            "CREATE TABLE",
            state.version,
            commit_id,
            state.committed_ms,
            &[],
            state.schema.schema_id,
        )?;
        actions.push(Action::Protocol(self.protocol(&state.schema)));
        actions.push(self.metadata(&state.schema, state.committed_ms));
        let files: Vec<&FileEntry> = state.live_files.values().collect();
        actions.extend(self.adds(&files, state.committed_ms, true, &mut HashSet::new()).await?);
        Ok(actions)
    }

    /// The next commit, over a prefix of these entries (there is at least one).
    pub(super) async fn next(
        &self,
        entries: &[Arc<Entry>],
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let Some(first) = entries.first() else {
            return Err(LakeError::internal(self.location, "nothing to draft"));
        };
        match &first.change {
            Change::Replace { removed, added, .. } => self.replace(first, removed, added, gone).await,
            Change::Delete { removed, added } => self.delete(first, removed, added, gone).await,
            Change::Overwrite { removed, added, .. } => {
                let removed = self.removes(removed, first.committed_ms, true, gone).await?;
                self.swap(first, Swap { removed, added }, true, gone).await
            }
            Change::Absorb { removed, added, same_rows, .. } => {
                let new = !same_rows || removed.iter().any(|path| gone.contains(path));
                let removed = self.removes(removed, first.committed_ms, new, gone).await?;
                self.swap(first, Swap { removed, added }, new, gone).await
            }
            Change::SetSchema { schema } => self.set_schema(first, schema),
            _ => self.run(entries, gone).await,
        }
    }

    /// A commit that only says how far it is shown.
    pub(super) fn mark(&self, entry: &Entry) -> Result<Vec<Action>, LakeError> {
        self.head(
            "STREAMING UPDATE",
            entry.version,
            entry.commit_id.clone(),
            entry.committed_ms,
            &[],
            self.schema_id,
        )
    }

    async fn run(&self, entries: &[Arc<Entry>], gone: &mut HashSet<String>) -> Result<Draft, LakeError> {
        let (mut adds, mut ranges, mut last) = (Vec::new(), Vec::new(), &entries[0]);
        for entry in entries {
            match &entry.change {
                Change::Append { files, ranges: own, .. } => {
                    let files: Vec<&FileEntry> = files.iter().collect();
                    adds.extend(self.adds(&files, entry.committed_ms, true, gone).await?);
                    ranges.extend_from_slice(own);
                }
                Change::Replace { .. }
                | Change::Delete { .. }
                | Change::Overwrite { .. }
                | Change::Absorb { .. }
                | Change::SetSchema { .. } => break,
                // Positions, partition specs, sort orders and formats are not seen in Delta.
                _ => {}
            }
            last = entry;
            if adds.len() >= FILES_PER_COMMIT {
                break;
            }
        }
        self.draft(last, "STREAMING UPDATE", &ranges, adds)
    }

    async fn replace(
        &self,
        entry: &Entry,
        removed: &[String],
        added: &[FileEntry],
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let brings_new = removed.iter().any(|path| gone.contains(path));
        let mut actions = self.removes(removed, entry.committed_ms, brings_new, gone).await?;
        let added: Vec<&FileEntry> = added.iter().collect();
        actions.extend(self.adds(&added, entry.committed_ms, brings_new, gone).await?);
        self.draft(entry, "OPTIMIZE", &[], actions)
    }

    /// Files of ours in the place of others.
    pub(super) async fn swap(
        &self,
        entry: &Entry,
        swap: Swap<'_>,
        data_change: bool,
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let operation = match (swap.removed.is_empty(), swap.added.is_empty()) {
            _ if !data_change => "OPTIMIZE",
            (false, true) => "DELETE",
            _ => "WRITE",
        };
        let mut actions = swap.removed;
        let added: Vec<&FileEntry> = swap.added.iter().collect();
        actions.extend(self.adds(&added, entry.committed_ms, data_change, gone).await?);
        self.draft(entry, operation, &[], actions)
    }

    /// Removals of a delete, of those of its files that are there, and the rows of them that stay.
    pub(super) async fn delete(
        &self,
        entry: &Entry,
        removed: &[String],
        added: &[FileEntry],
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let mut actions = self.removes(removed, entry.committed_ms, true, gone).await?;
        let added: Vec<&FileEntry> = added.iter().collect();
        actions.extend(self.adds(&added, entry.committed_ms, true, gone).await?);
        self.draft(entry, "DELETE", &[], actions)
    }

    fn set_schema(&self, entry: &Entry, schema: &Schema) -> Result<Draft, LakeError> {
        match self.state.schemas.get(&self.schema_id) {
            Some(shown) => {
                let mapped = self.history.is_mapped(schema.schema_id);
                schema::check_evolution(&self.state.name, shown, schema, mapped)?;
            }
            None => schema::check_table(&self.state.name, schema)?,
        }
        let protocol = self.protocol(schema);
        let upgrade = protocol.min_writer_version > 2;
        let mut actions: Vec<Action> = upgrade.then_some(Action::Protocol(protocol)).into_iter().collect();
        actions.push(self.metadata(schema, entry.committed_ms));
        let mut draft = self.draft(entry, "SET SCHEMA", &[], actions)?;
        draft.schema_id = schema.schema_id;
        Ok(draft)
    }

    fn draft(
        &self,
        last: &Entry,
        operation: &'static str,
        ranges: &[OffsetRange],
        changes: Vec<Action>,
    ) -> Result<Draft, LakeError> {
        let mut schema_id = self.schema_id;
        if let Change::SetSchema { schema } = &last.change {
            schema_id = schema.schema_id;
        }
        if changes.is_empty() {
            return Ok(Draft { version: last.version, schema_id, actions: None });
        }
        let mut actions =
            self.head(operation, last.version, last.commit_id.clone(), last.committed_ms, ranges, schema_id)?;
        actions.extend(changes);
        Ok(Draft { version: last.version, schema_id, actions: Some(actions) })
    }

    /// `commitInfo` and `txn`.
    fn head(
        &self,
        operation: &'static str,
        version: u64,
        commit_id: String,
        committed_ms: i64,
        ranges: &[OffsetRange],
        schema_id: i32,
    ) -> Result<Vec<Action>, LakeError> {
        let txn_version = i64::try_from(version);
        let txn_version =
            txn_version.map_err(|_| LakeError::internal(self.location, "version out of range"))?;
        let mut offsets: BTreeMap<String, BTreeMap<String, BTreeMap<i32, i64>>> = BTreeMap::new();
        for range in ranges {
            let topics = offsets.entry(range.cluster.clone()).or_default();
            let ends = topics.entry(range.topic.clone()).or_default();
            let end = ends.entry(range.partition).or_insert(range.end);
            *end = range.end.max(*end);
        }
        let siltstone = OwnInfo {
            version,
            commit_id,
            offsets,
            schema_id,
            partition_columns: self.partition_columns.to_vec(),
            apart: self.apart,
        };
        let info = CommitInfo {
            timestamp: committed_ms,
            operation,
            operation_parameters: BTreeMap::from([("ledgerVersion", version.to_string())]),
            engine_info: concat!("Siltstone/", env!("CARGO_PKG_VERSION")),
            is_blind_append: operation == "STREAMING UPDATE",
            siltstone,
        };
        let txn = Txn {
            app_id: app_id(&self.state.table_uuid),
            version: txn_version,
            last_updated: Some(committed_ms),
        };
        Ok(vec![Action::CommitInfo(info), Action::Txn(txn)])
    }

    fn protocol(&self, schema: &Schema) -> Protocol {
        schema::protocol(schema, self.history.is_mapped(schema.schema_id))
    }

    fn metadata(&self, schema: &Schema, committed_ms: i64) -> Action {
        let kept_days = (self.options.snapshots_age.as_secs() / DAY_SECONDS + 1).saturating_mul(2);
        let days = kept_days.max(DELETED_FILES_DAYS_MIN);
        let mut configuration = vec![
            ("delta.deletedFileRetentionDuration", format!("interval {days} days")),
            ("delta.enableExpiredLogCleanup", "false".to_owned()),
            (CONFIG_TABLE_UUID, self.state.table_uuid.clone()),
            (CONFIG_SCHEMA_ID, schema.schema_id.to_string()),
        ];
        let mapped = self.history.is_mapped(schema.schema_id);
        if mapped {
            configuration.push(("delta.columnMapping.mode", "name".to_owned()));
            let last = self.history.last_field_id().to_string();
            configuration.push(("delta.columnMapping.maxColumnId", last));
        }
        let is_called_so = |field: &&Field, name: &str| self.history.name_in_files(field) == name;
        let partition_columns = self.partition_columns.iter().map(|name| {
            let column = schema.fields.iter().find(|field| is_called_so(field, name));
            column.map_or(name, |column| &column.name).clone()
        });
        Action::Metadata(Metadata {
            id: self.state.table_uuid.clone(),
            name: self.state.name.clone(),
            format: Default::default(),
            schema_string: schema::schema_string(schema, mapped.then_some(&self.history)),
            partition_columns: partition_columns.collect(),
            configuration: configuration.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            created_time: committed_ms,
        })
    }

    async fn adds(
        &self,
        files: &[&FileEntry],
        committed_ms: i64,
        data_change: bool,
        gone: &mut HashSet<String>,
    ) -> Result<Vec<Action>, LakeError> {
        let described = self.describe(files).await?;
        let mut actions = Vec::with_capacity(described.len());
        let mut schemas: BTreeMap<i32, Cow<'_, Schema>> = BTreeMap::new();
        for (file, details) in files.iter().zip(described) {
            let Some(details) = details else {
                // Passed over, it could not be told from a file that another program removed.
                if self.apart.is_some() {
                    let version = self.state.version;
                    return Err(refused(&self.state.name, Format::Delta, version, NO_RESYNC));
                }
                gone.insert(file.path.clone());
                continue;
            };
            let schema: &Schema = match schemas.entry(file.schema_id) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(new) => new.insert(self.history.in_files(self.schema_of(file)?)),
            };
            actions.push(Action::Add(Add {
                path: relative(&file.path).to_owned(),
                partition_values: self.partition_values(file, &details, schema)?,
                size: file.bytes,
                modification_time: committed_ms,
                data_change,
                stats: stats::stats(&details, schema, self.partition_columns),
            }));
        }
        Ok(actions)
    }

    /// Removals. The ledger's state no longer has the entries, so partition values come from the details.
    async fn removes(
        &self,
        paths: &[String],
        committed_ms: i64,
        data_change: bool,
        gone: &HashSet<String>,
    ) -> Result<Vec<Action>, LakeError> {
        let paths = paths.iter().filter(|path| !gone.contains(*path));
        let schema = self.history.in_files(&self.state.schema);
        let removes = paths.map(|path| {
            let details = self.details.get(path);
            // Only a file of the partition spec in force is certain to be described without its entry.
            let values = details.as_ref().and_then(|details| {
                let spec = self.state.partition_specs.get(&details.spec_id)?;
                partition::values(&self.state.name, self.partition_columns, details, &schema, spec).ok()
            });
            let extended = values.is_some();
            Action::Remove(Remove {
                path: relative(path).to_owned(),
                deletion_timestamp: committed_ms,
                data_change,
                extended_file_metadata: extended,
                partition_values: values,
                size: details.filter(|_| extended).map(|details| details.bytes),
            })
        });
        Ok(removes.collect())
    }

    /// The details of files, in order; `None` for one that left the table since and cannot be read.
    async fn describe(&self, files: &[&FileEntry]) -> Result<Vec<Option<Arc<FileDetails>>>, LakeError> {
        // Collected first: a stream over a closure that borrows is not `Send` enough for the trait.
        let reads: Vec<_> = files.iter().map(|file| self.describe_one(file)).collect();
        stream::iter(reads).buffered(FOOTERS_AT_ONCE).try_collect().await
    }

    async fn describe_one(&self, file: &FileEntry) -> Result<Option<Arc<FileDetails>>, LakeError> {
        let details = self.details.get_or_read(self.store, self.location, file, self.state).await;
        let left = !self.state.live_files.contains_key(&file.path);
        match details {
            Err(error) if left && error.kind() == ErrorKind::Data => {
                tracing::debug!(file = %file.path, %error, "file left the table and cannot be described");
                Ok(None)
            }
            details => details.map(Some),
        }
    }

    fn partition_values(
        &self,
        file: &FileEntry,
        details: &FileDetails,
        schema: &Schema,
    ) -> Result<BTreeMap<String, Option<String>>, LakeError> {
        let missing = || LakeError::data(&file.path, "names a partition spec that the ledger does not know");
        let spec = self.state.partition_specs.get(&file.spec_id).ok_or_else(missing)?;
        partition::values(&self.state.name, self.partition_columns, details, schema, spec)
    }

    fn schema_of(&self, file: &FileEntry) -> Result<&Schema, LakeError> {
        let missing = || LakeError::data(&file.path, "names a schema that the ledger does not know");
        self.state.schemas.get(&file.schema_id).ok_or_else(missing)
    }
}

/// The `txn` application of a table.
pub(super) fn app_id(table_uuid: &str) -> String {
    format!("{APP_ID_PREFIX}{table_uuid}")
}

/// A path below the Delta root.
pub(super) fn relative(path: &str) -> &str {
    path.strip_prefix("data/").unwrap_or(path)
}
