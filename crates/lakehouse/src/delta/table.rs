//! The projection itself: steps 1 to 5 of the module above.

mod foreign;
mod maintain;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{ObjectStore, path::Path};
use siltstone_protocol::{Entry, Format, PartitionSpec, Schema, SchemaHistory};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    actions::{self, Action, Seen},
    checkpoint,
    draft::{Context, app_id},
    log::Log,
    schema::{self, Mapping},
};
use crate::{
    crash_point,
    details::DetailsCache,
    error::{LakeError, StoreFault},
    foreign::{Comparison, Marker},
    format::{ProjectionOptions, TableFormat},
    ledger::{Ledger, LedgerState},
};

/// Versions shown that no `txn` in the log says yet, at most: bounds what a restart looks at again.
pub(super) const UNLOGGED_MAX: u64 = 200;
/// Ledger entries taken at once.
const ENTRIES_AT_ONCE: u64 = 256;
/// Puts of one log version without an outcome before giving up.
const UNKNOWNS_MAX: u32 = 4;
const WAIT: Duration = Duration::from_millis(50);
/// At the end, a checkpoint under way is waited for this long.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(10);
/// A checkpoint every so many log versions, ...
const CHECKPOINT_EVERY: u64 = 100;
/// ... with twice so many live files half as often, with three times so many a third as often: it costs its files.
/// Within this bound, as readers read the log after it commit by commit.
const CHECKPOINT_FILES: u64 = 100_000;
const CHECKPOINT_RARER_MAX: u64 = 10;
/// What is known of the log is looked up anew after this long without a commit, well before old commits are
/// cleaned up: put-if-absent would not notice a version that was there and is gone.
const HEAD_TRUSTED: Duration = Duration::from_secs(300);

/// A table shown as Delta.
#[derive(Debug)]
pub struct DeltaTable {
    log: Log,
    location: Path,
    options: ProjectionOptions,
    checkpoint_every: u64,
    checkpoint_task: Option<JoinHandle<()>>,
    /// What is known of the log; `None` before the first look.
    head: Option<Head>,
    /// When the head was last known to be the newest.
    validated: Instant,
}

/// The log as far as it is known.
#[derive(Debug, Clone)]
struct Head {
    log_version: u64,
    /// Ledger version shown.
    shown: u64,
    /// Ledger version that the newest `txn` says.
    logged: u64,
    app_id: String,
    /// As they are called in files.
    partition_columns: Vec<String>,
    schema_id: i32,
    /// How far Delta is apart from the ledger.
    apart: Option<Marker>,
}

impl DeltaTable {
    /// The Delta table of the table at `table_location`. `table_url` is for readers; the log names files
    /// relative to it, so it is not stored.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        table_location: Path,
        _table_url: String,
        options: ProjectionOptions,
    ) -> Self {
        Self {
            log: Log::new(store, &table_location),
            location: table_location,
            options,
            checkpoint_every: CHECKPOINT_EVERY,
            checkpoint_task: None,
            head: None,
            validated: Instant::now(),
        }
    }

    /// With a Delta checkpoint every `versions` log versions (at least 1).
    #[must_use]
    pub fn checkpoint_every(mut self, versions: u64) -> Self {
        self.checkpoint_every = versions.max(1);
        self
    }

    /// Writes a Delta checkpoint of the newest version now.
    ///
    /// # Errors
    /// `Data`: the log cannot be read, or the checkpoint not made. The table is as before.
    pub async fn checkpoint(&self) -> Result<(), LakeError> {
        checkpoint::write(Arc::clone(&self.log.store), &self.location, None).await
    }

    /// Checks that Delta can show the table after it became this. Ask before the ledger takes it, and before
    /// delta is added to a table's formats. `mapping`: whether the change may be one after which readers must know
    /// column mapping.
    ///
    /// # Errors
    /// `CannotShow`, naming the column and what to do; those of the store.
    pub async fn check_change(
        &mut self,
        state: &LedgerState,
        schema: &Schema,
        spec: &PartitionSpec,
        mapping: Mapping,
    ) -> Result<(), LakeError> {
        schema::check_change(state, schema, mapping)?;
        if *spec == state.partition_spec {
            return Ok(());
        }
        self.look().await?;
        let columns = self.head.as_ref().map_or(&[][..], |head| &head.partition_columns);
        let history = SchemaHistory::of(state.schemas.values().chain([schema]));
        schema::check_partition_columns(&state.name, columns, &history.in_files(schema), spec)
    }

    /// Forgets what is known of the log when it may be outdated.
    fn doubt(&mut self) {
        if self.validated.elapsed() >= HEAD_TRUSTED {
            self.head = None;
        }
    }

    /// Looks at the log: all of its tail the first time, what is new after that.
    async fn look(&mut self) -> Result<(), LakeError> {
        if self.head.is_none() {
            self.head = self.discover().await?;
            self.validated = Instant::now();
            return Ok(());
        }
        // Ends: each round moves to a newer version, and the log is finite.
        while let Some(head) = &self.head {
            let next = head.log_version + 1;
            let Some(seen) = self.log.read(next).await? else { break };
            self.step_over(next, seen)?;
        }
        self.validated = Instant::now();
        Ok(())
    }

    async fn discover(&self) -> Result<Option<Head>, LakeError> {
        let Some(standing) = self.log.standing().await? else { return Ok(None) };
        let log_version = standing.version;
        if let Some(Seen { own: Some((app_id, version)), info: Some(info), .. }) = standing.own {
            let apart = self.after(info.apart, &standing.foreign)?;
            return Ok(Some(Head {
                log_version,
                apart,
                shown: version,
                logged: version,
                app_id,
                partition_columns: info.partition_columns,
                schema_id: info.schema_id,
            }));
        }
        let stored = checkpoint::stored(Arc::clone(&self.log.store), &self.location).await?;
        let stored = stored.and_then(|stored| Some((stored.shown?, stored)));
        let Some((shown, stored)) = stored else {
            return Err(self.foreign(log_version, "made a Delta table here that siltstone did not create"));
        };
        // The last commit of ours lies too far back for what it says.
        let apart = self.after(Some(Marker::skipped(None, shown)), &standing.foreign)?;
        Ok(Some(Head {
            log_version,
            apart,
            shown,
            logged: shown,
            app_id: stored.app_id,
            partition_columns: stored.partition_columns,
            schema_id: stored.schema_id,
        }))
    }

    /// Moves past a commit in the log that this process did not know.
    fn step_over(&mut self, version: u64, seen: Seen) -> Result<(), LakeError> {
        let foreign = seen.own.is_none();
        if foreign {
            self.acceptable(version, &seen)?;
            let operation = seen.operation;
            tracing::info!(
                table = %self.location, version, operation,
                "stepping over a delta commit of another program"
            );
        }
        let Some(head) = &mut self.head else { return Ok(()) };
        head.log_version = version;
        if let Some((_, shown)) = seen.own {
            head.logged = head.logged.max(shown);
            head.shown = head.shown.max(shown);
        }
        if let Some(info) = seen.info {
            head.schema_id = info.schema_id;
            head.apart = info.apart;
        } else if foreign && seen.changes_files {
            head.apart = Some(Marker::foreign(head.apart, version));
        }
        Ok(())
    }

    /// How far Delta is apart after these commits of other programs, oldest last.
    fn after(&self, mut apart: Option<Marker>, foreign: &[(u64, Seen)]) -> Result<Option<Marker>, LakeError> {
        for (version, seen) in foreign.iter().rev() {
            self.acceptable(*version, seen)?;
            if seen.changes_files {
                apart = Some(Marker::foreign(apart, *version));
            }
        }
        Ok(apart)
    }

    /// Another program's commit may change files as it likes. Of the rest nothing can be taken in.
    fn acceptable(&self, version: u64, seen: &Seen) -> Result<(), LakeError> {
        let rebuild = "; to have it rebuilt from the ledger, delete data/_delta_log and restart";
        if seen.changes_table {
            return Err(
                self.foreign(version, &format!("changed its schema, properties or protocol{rebuild}"))
            );
        }
        Ok(())
    }

    fn foreign(&self, version: u64, problem: &str) -> LakeError {
        LakeError::Foreign {
            table: self.location.to_string(),
            format: Format::Delta.as_str(),
            version,
            problem: problem.to_owned(),
        }
    }

    /// Shows a table that has no log yet.
    async fn begin(&mut self, state: &LedgerState, details: &DetailsCache) -> Result<(), LakeError> {
        let schema = state.schema_history().in_files(&state.schema).into_owned();
        let partition_columns = schema::partition_columns(&schema, state.partition_specs.values());
        let schema_id = state.schema.schema_id;
        let actions = self.context(state, details, &partition_columns, schema_id).first().await?;
        match self.put(0, &actions).await? {
            None => {
                self.head = Some(Head {
                    log_version: 0,
                    shown: state.version,
                    logged: state.version,
                    app_id: app_id(&state.table_uuid),
                    partition_columns,
                    schema_id,
                    apart: None,
                });
            }
            // Another worker was first: start from what it wrote.
            Some(_) => self.look().await?,
        }
        Ok(())
    }

    /// Shows a prefix of these entries: one commit at most.
    async fn advance(
        &mut self,
        ledger: &Ledger,
        entries: &[Arc<Entry>],
        state: &LedgerState,
        details: &DetailsCache,
        gone: &mut HashSet<String>,
    ) -> Result<(), LakeError> {
        let Some(head) = self.head.clone() else { return Ok(()) };
        let mut context = self.context(state, details, &head.partition_columns, head.schema_id);
        context.apart = head.apart;
        let mut draft = self.draft(ledger, &mut context, entries, gone).await?;
        if draft.actions.is_none() && draft.version - head.logged >= UNLOGGED_MAX {
            let last = entries.iter().find(|entry| entry.version == draft.version);
            draft.actions = last.map(|entry| context.mark(entry)).transpose()?;
        }
        let apart = context.apart;
        let mut moved = Head { shown: draft.version, schema_id: draft.schema_id, apart, ..head };
        if let Some(actions) = draft.actions {
            let next = moved.log_version + 1;
            if let Some(seen) = self.put(next, &actions).await? {
                return self.step_over(next, seen);
            }
            moved.log_version = next;
            moved.logged = draft.version;
            crash_point!("delta.after_put");
        }
        self.head = Some(moved);
        self.validated = Instant::now();
        self.maybe_checkpoint(state.live_files.len() as u64);
        Ok(())
    }

    /// One conditional put. `None`: it is ours. `Some`: what has this version instead.
    ///
    /// The reply is not believed. If the version is there it is read; a commit of ours shows at least what this
    /// one does, so that it need not be told apart from another worker's.
    async fn put(&self, version: u64, actions: &[Action]) -> Result<Option<Seen>, LakeError> {
        let bytes = actions::to_bytes(actions)?;
        let path = self.log.commit_path(version);
        let mut fault: Option<StoreFault> = None;
        for attempt in 0..UNKNOWNS_MAX {
            crash_point!("delta.before_put");
            let error = match self.log.create(version, bytes.clone()).await {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            fault = Some(StoreFault::of(&error));
            crash_point!("delta.before_read_back");
            if let Some(seen) = self.log.read(version).await? {
                return Ok(Some(seen));
            }
            tokio::time::sleep(WAIT * (1 << attempt)).await;
        }
        let fault = fault.ok_or_else(|| LakeError::internal(&path, "no attempt was made"))?;
        Err(LakeError::Store { operation: "create", path: path.to_string(), fault })
    }

    fn context<'a>(
        &'a self,
        state: &'a LedgerState,
        details: &'a DetailsCache,
        partition_columns: &'a [String],
        schema_id: i32,
    ) -> Context<'a> {
        Context {
            store: &self.log.store,
            location: &self.location,
            state,
            details,
            options: &self.options,
            partition_columns,
            history: state.schema_history(),
            schema_id,
            apart: None,
        }
    }

    /// Starts a checkpoint when the log version is due; a failure is logged and nothing else.
    fn maybe_checkpoint(&mut self, files: u64) {
        let Some(head) = &self.head else { return };
        let due = head.logged == head.shown && head.log_version > 0;
        if !due || !head.log_version.is_multiple_of(self.checkpoint_every * rarer(files)) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.checkpoint_task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (store, location, version) =
            (Arc::clone(&self.log.store), self.location.clone(), head.log_version);
        self.checkpoint_task = Some(runtime.spawn(async move {
            if let Err(error) = checkpoint::write(store, &location, Some(version)).await {
                tracing::warn!(table = %location, version, %error, "delta checkpoint was not written");
            }
        }));
    }
}

/// How many times rarer checkpoints of a table with so many files are.
fn rarer(files: u64) -> u64 {
    (files / CHECKPOINT_FILES).clamp(1, CHECKPOINT_RARER_MAX)
}

#[async_trait]
impl TableFormat for DeltaTable {
    fn format(&self) -> Format {
        Format::Delta
    }

    async fn shown_version(&mut self) -> Result<Option<u64>, LakeError> {
        self.doubt();
        self.look().await?;
        Ok(self.head.as_ref().map(|head| head.shown))
    }

    async fn is_apart(&mut self) -> Result<bool, LakeError> {
        self.doubt();
        self.look().await?;
        Ok(self.head.as_ref().is_some_and(|head| head.apart.is_some()))
    }

    async fn compare(&mut self, ledger: &Ledger, state: &LedgerState) -> Result<Comparison, LakeError> {
        self.compare_head(ledger, state).await
    }

    async fn catch_up(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<u64, LakeError> {
        self.doubt();
        if self.head.is_none() {
            self.look().await?;
        }
        if self.head.is_none() {
            self.begin(state, details).await?;
        }
        if let Some(head) = &self.head {
            let history = state.schema_history();
            let schema = history.in_files(&state.schema);
            schema::check_log_columns(&state.name, &head.partition_columns, &schema)?;
        }
        let mut gone = HashSet::new();
        // Ends: each round moves to a newer log version or a newer ledger version.
        while let Some(head) = &self.head {
            if head.app_id != app_id(&state.table_uuid) {
                let problem = "shows another siltstone table; delete data/_delta_log to have it rebuilt";
                return Err(self.foreign(head.log_version, problem));
            }
            if head.shown >= state.version {
                return Ok(head.shown);
            }
            let last = state.version.min(head.shown + ENTRIES_AT_ONCE);
            match ledger.entries_kept(head.shown + 1, last).await? {
                Some(entries) => self.advance(ledger, &entries, state, details, &mut gone).await?,
                None => self.resync(state, details).await?,
            }
        }
        Err(LakeError::internal(&self.location, "the delta log went away while it was followed"))
    }

    async fn close(&mut self) {
        if let Some(task) = self.checkpoint_task.take() {
            // A checkpoint that takes longer is left to the next worker: nothing but time is lost.
            let _ = tokio::time::timeout(CHECKPOINT_PATIENCE, task).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rarer;

    #[test]
    fn checkpoints_get_rarer_with_files_within_a_bound() {
        let times = [0, 99_999, 199_999, 200_000, 1_000_000, u64::MAX].map(rarer);
        assert_eq!(times, [1, 1, 1, 2, 10, 10]);
    }
}
