//! Takes into the ledger what other programs did to a table in one of its formats.
//!
//! 1. Ask each format whether it is apart from the ledger; when nobody else writes, that is all, and costs one or
//!    two requests.
//! 2. Bring the format up to the ledger and compare: files of ours that are gone, files that are not ours.
//! 3. Read those (delete files applied) and lay their rows down as files of ours, in bounded memory.
//! 4. Commit one `Absorb`; the projectors show it, and all formats agree again. When others moved what it is
//!    about, it is dropped: the next round looks anew.
//!
//! What cannot be taken in stops that format's projection, with an error that says the way out; ingestion and the
//! other formats go on. Nothing here is state: a worker that dies in the middle leaves orphans.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use siltstone_datafile::{Layout, MemoryBudget, WrittenFile, read_foreign, write_sorted};
use siltstone_lakehouse::{Apart, Comparison, TableFormat, crash_point, foreign};
use siltstone_protocol::{Change, ErrorCode, ErrorKind, Format};
use tokio::sync::watch;

use crate::{
    commit::{self, Landed, Patience},
    compactor::{Owned, Share},
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::{FormatLabel, Metrics},
    projector,
    table::Table,
};

/// A worker asks the formats this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Rounds of catching up and comparing; a table that moves faster is looked at again later.
const LOOKS_MAX: usize = 5;
/// Share of the memory budget that is reserved, and how much of that is filled with rows before they are written:
/// sorting and encoding take the rest.
const MEMORY_SHARE: u64 = 8;
const MEMORY_MAX: u64 = 256 << 20;
const ROWS_SHARE: u64 = 3;

/// Watches the formats of one table. Everything it knows can be known anew.
pub struct Absorber {
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    identity: Arc<Identity>,
    budget: MemoryBudget,
    watched: BTreeMap<Format, Watched>,
}

struct Watched {
    projection: Box<dyn TableFormat>,
    /// Where the format stood when what it held could not be read.
    unreadable: Option<u64>,
}

impl std::fmt::Debug for Absorber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Absorber").field("table", &self.table.name).finish_non_exhaustive()
    }
}

impl Absorber {
    pub fn new(
        table: Arc<Table>,
        metrics: Arc<Metrics>,
        identity: Arc<Identity>,
        budget: MemoryBudget,
    ) -> Self {
        Self { table, metrics, identity, budget, watched: BTreeMap::new() }
    }

    /// Rounds until `stop` turns true, in the worker to which the group gave this table's share.
    pub async fn run(mut self, owned: watch::Receiver<Owned>, mut stop: watch::Receiver<bool>) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.identity.jitter(pause)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if !Share::Of(owned.borrow().clone()).has_key(&self.table.name) {
                continue;
            }
            match self.round(&mut stop).await {
                Ok(_) => pause = LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(
                        table = %self.table.name, %error, code = %error.code(),
                        "taking in what other programs did failed, trying again later"
                    );
                    self.metrics.retry(&self.table.name, "absorb");
                    pause = (pause * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Takes in what other programs did to each format. Returns how many entries were committed.
    ///
    /// # Errors
    /// Those that may pass. A format that cannot be reconciled is halted ([`Table::halted`]).
    pub async fn round(&mut self, stop: &mut watch::Receiver<bool>) -> Result<usize, WorkerError> {
        let formats = self.table.state.lock().await.formats.clone();
        self.watched.retain(|format, _| formats.contains(format));
        let mut committed = 0;
        for format in formats {
            if *stop.borrow() || self.table.halted(format).is_some() {
                continue;
            }
            let table = self.table.clone();
            let watched = self
                .watched
                .entry(format)
                .or_insert_with(|| Watched { projection: table.projection_of(format), unreadable: None });
            let task = Task {
                table: &self.table,
                metrics: &self.metrics,
                identity: &self.identity,
                budget: &self.budget,
            };
            match task.absorb(watched, stop).await {
                Ok(true) => {
                    committed += 1;
                    // What it holds of the format is much, and not needed to look again.
                    self.watched.remove(&format);
                }
                Ok(false) => {}
                Err(error) if error.kind().is_retryable() => return Err(error),
                Err(error) => self.table.halt(format, Halted::from(&error)),
            }
            self.table.lacking.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(committed)
    }

    /// The formats that were halted, with what is wrong.
    pub fn halted(&self) -> Vec<(Format, Halted)> {
        let formats = [Format::Iceberg, Format::Delta].into_iter();
        formats.filter_map(|format| Some((format, self.table.halted(format)?))).collect()
    }
}

struct Task<'a> {
    table: &'a Arc<Table>,
    metrics: &'a Metrics,
    identity: &'a Identity,
    budget: &'a MemoryBudget,
}

impl Task<'_> {
    /// True when an entry was committed.
    async fn absorb(
        &self,
        watched: &mut Watched,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<bool, WorkerError> {
        let name = &self.table.name;
        if !watched.projection.is_apart().await.for_table(name)? {
            return Ok(false);
        }
        let Some(apart) = self.look(watched.projection.as_mut()).await? else { return Ok(false) };
        self.table
            .lacking
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(apart.removed.iter().cloned());
        let laid_down = tokio::select! {
            laid_down = self.lay_down(&apart) => laid_down,
            _ = stop.wait_for(|stop| *stop) => return Ok(false),
        };
        let added = match laid_down {
            Ok(added) => added,
            Err(error) if error.kind().is_retryable() => return Err(error),
            // What was read may have been replaced meanwhile: look once more.
            Err(error) if watched.unreadable != Some(apart.seen) => {
                tracing::warn!(
                    table = %name, %error, code = %error.code(),
                    "files of another program cannot be read, looking again"
                );
                watched.unreadable = Some(apart.seen);
                return Ok(false);
            }
            Err(error) => {
                let why = crate::error::without_table(name, &error.to_string()).to_owned();
                return Err(foreign::not_readable(name, apart.format, apart.seen, &why)).for_table(name);
            }
        };
        watched.unreadable = None;
        crash_point!("absorb.files_written");
        if !self.land(&apart, added, stop).await? {
            return Ok(false);
        }
        crash_point!("absorb.committed");
        // Before the next format is looked at, so that one change at a time is told to it.
        projector::catch_up(self.table, watched.projection.as_mut()).await?;
        Ok(true)
    }

    /// What there is to take in; `None`: nothing, or the table moves too fast.
    async fn look(&self, projection: &mut dyn TableFormat) -> Result<Option<Box<Apart>>, WorkerError> {
        let name = &self.table.name;
        for _ in 0..LOOKS_MAX {
            let state = self.table.refresh().await?;
            for caught_up in [false, true] {
                match projection.compare(&self.table.ledger, &state).await.for_table(name)? {
                    Comparison::Agrees => return Ok(None),
                    Comparison::Apart(apart) => return Ok(Some(apart)),
                    // Another projector moved the format past this state.
                    Comparison::Behind if caught_up => {}
                    Comparison::Behind => {
                        let shown = projection.catch_up(&self.table.ledger, &state, &self.table.details);
                        shown.await.for_table(name)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Lays the rows of other programs' files down as files of ours, in the order of the table.
    async fn lay_down(&self, apart: &Apart) -> Result<Vec<WrittenFile>, WorkerError> {
        let name = &self.table.name;
        if apart.files.is_empty() {
            return Ok(Vec::new());
        }
        let memory = self.budget.reserve((self.budget.limit() / MEMORY_SHARE).min(MEMORY_MAX)).await;
        let schema = Arc::new(self.table.state.lock().await.schema.clone());
        let layout = self.table.layout(schema.clone()).await;
        let room = usize::try_from(memory.bytes() / ROWS_SHARE).unwrap_or(usize::MAX);
        let (mut batches, mut bytes, mut added) = (Vec::new(), 0, Vec::new());
        for file in &apart.files {
            let mut rows =
                read_foreign(&self.table.store, file, &schema, &layout.names).await.for_table(name)?;
            while let Some(batch) = rows.try_next().await.for_table(name)? {
                bytes += batch.get_array_memory_size();
                batches.push(batch);
                if bytes >= room {
                    self.write(std::mem::take(&mut batches), &layout, &mut added).await?;
                    bytes = 0;
                }
            }
        }
        self.write(batches, &layout, &mut added).await?;
        Ok(added)
    }

    async fn write(
        &self,
        batches: Vec<RecordBatch>,
        layout: &Layout,
        added: &mut Vec<WrittenFile>,
    ) -> Result<(), WorkerError> {
        let name = &self.table.name;
        added.extend(
            write_sorted(batches, layout, &self.table.store, &self.table.location).await.for_table(name)?,
        );
        if added.len() > siltstone_lakehouse::ledger::FILES_PER_ENTRY_MAX {
            let message =
                "the rows that another program changed make more files than one ledger entry takes; \
                           raise files.target_size, or coarsen partition_by"
                    .to_owned();
            return Err(WorkerError::Spec { code: ErrorCode::ChangeTooLarge, table: name.clone(), message });
        }
        Ok(())
    }

    /// Commits what was laid down, counts it and says it. False: it was dropped.
    async fn land(
        &self,
        apart: &Apart,
        added: Vec<WrittenFile>,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, WorkerError> {
        let rows: u64 = added.iter().map(|file| file.entry.rows).sum();
        let rows_removed: u64 = {
            let state = self.table.state.lock().await;
            apart.removed.iter().filter_map(|path| Some(state.live_files.get(path)?.rows)).sum()
        };
        for file in &added {
            self.table.details.insert(file.details.clone());
        }
        let files = added.len() as u64;
        let change = Change::Absorb {
            format: apart.format,
            base: apart.base,
            seen: apart.seen,
            removed: apart.removed.clone(),
            added: added.into_iter().map(|file| file.entry).collect(),
            absorbed: apart.absorbed.clone(),
            same_rows: apart.same_rows && rows == rows_removed,
        };
        let commit_id = self.identity.commit_id();
        let patience = Patience::new(self.identity, self.metrics, stop);
        match commit::commit(self.table, change, &commit_id, "absorb_commit", patience).await? {
            Landed::At(_) => {}
            Landed::Refused(error) => {
                tracing::info!(table = %self.table.name, %error, "others were first, looking again later");
                return Ok(false);
            }
            Landed::AlreadySo | Landed::Stopped => return Ok(false),
        }
        let format = apart.format.as_str();
        let label = FormatLabel { table: self.table.name.clone(), format };
        let commits = apart.commits.values().sum();
        self.metrics.foreign_commits.get_or_create(&label).inc_by(commits);
        self.metrics.absorbed_files.get_or_create(&label).inc_by(apart.files.len() as u64);
        self.metrics.absorbed_rows.get_or_create(&label).inc_by(rows);
        let operations: Vec<String> =
            apart.commits.iter().map(|(said, times)| format!("{said} {times}")).collect();
        tracing::info!(
            table = %self.table.name,
            format,
            commits,
            operations = operations.join(", "),
            files_removed = apart.removed.len(),
            rows_removed,
            files_read = apart.files.len(),
            files_added = files,
            rows_added = rows,
            files_outside = apart.outside,
            "another program changed the table; its change is taken into the ledger"
        );
        Ok(true)
    }
}

/// What is wrong with a format that was halted, or whose projection has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halted {
    pub kind: ErrorKind,
    pub code: ErrorCode,
    pub why: String,
}

impl From<&WorkerError> for Halted {
    fn from(error: &WorkerError) -> Self {
        Self { kind: error.kind(), code: error.code(), why: error.to_string() }
    }
}

impl Halted {
    /// The error of whoever waits for this format.
    pub(crate) fn error(&self, table: &str, format: &'static str) -> WorkerError {
        let error = format!("has stopped: {}", crate::error::without_table(table, &self.why));
        WorkerError::Projection { code: self.code, table: table.to_owned(), format, error }
    }
}
