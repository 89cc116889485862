//! From the batches of all readers to committed entries.
//!
//! What a commit holds is all that came since the one before: rows in files, and for each source file the range of
//! records that they were read from. Rejected records are in the dead-letter table before; it keeps its own account
//! of each source file, and what it holds already is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use siltstone_datafile::{BulkOptions, BulkWriter};
use siltstone_ingest::decoder::with_own_columns;
use siltstone_protocol::{Change, RejectReason, Schema};
use tokio::sync::{mpsc, watch};

use super::{
    Import, ImportSummary,
    commits::DeadLetterFiles,
    plan::source_of,
    reader::{Event, Known, Rows},
};
use crate::{
    error::{ForTable, WorkerError},
    formats,
    metrics::Metrics,
    table::Table,
};

/// Source files of one commit.
const FILES_MAX: usize = 50_000;

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything is read and committed.
    Read,
    /// Another import was first with records of a commit, which was dropped.
    Overtaken,
    /// It was told to stop; what was read is committed.
    Stopped,
}

/// Records of one source file since the last commit.
pub(super) struct Pending {
    pub(super) source: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) complete: bool,
    /// Dead letters among them that the dead-letter table lacks.
    pub(super) dead_letters: bool,
}

/// Collects and commits.
pub(super) struct Writer<'a> {
    pub(super) import: &'a Import,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) metrics: Metrics,
    pub(super) table: Option<Arc<Table>>,
    pub(super) bulk: Option<BulkWriter>,
    pub(super) pending: BTreeMap<usize, Pending>,
    pub(super) rejected: BTreeMap<RejectReason, u64>,
    pub(super) dead_letters: Option<DeadLetterFiles>,
    /// Files that are read on where another content of the same name ended, and of which nothing is committed yet.
    pub(super) resumed: BTreeSet<usize>,
    /// Files that were given up; they are not tried again.
    failed: BTreeSet<usize>,
    /// Files that made no table, and why.
    pub(super) unfit: Vec<(usize, String)>,
    pub(super) done: Done,
}

#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) commits: u64,
    pub(super) data_files: u64,
    pub(super) data_bytes: u64,
}

impl<'a> Writer<'a> {
    pub(super) async fn new(
        import: &'a Import,
        table: Option<Arc<Table>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, WorkerError> {
        let mut writer = Self {
            import,
            stop,
            metrics: Metrics::default(),
            table: None,
            bulk: None,
            pending: BTreeMap::new(),
            rejected: BTreeMap::new(),
            dead_letters: None,
            resumed: BTreeSet::new(),
            failed: BTreeSet::new(),
            unfit: Vec::new(),
            done: Done::default(),
        };
        if let Some(table) = table {
            writer.set_table(table).await?;
        }
        Ok(writer)
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.clone()
    }

    /// The table as readers are to see it.
    pub(super) fn known(&self) -> Option<Known> {
        let (table, bulk) = (self.table.as_ref()?, self.bulk.as_ref()?);
        let (schema, names) = (bulk.schema(), bulk.names());
        Some(Known { schema, names, token_key: Arc::clone(&table.token_key) })
    }

    pub(super) fn has_failed(&self, file: usize) -> bool {
        self.failed.contains(&file)
    }

    pub(super) fn tell(&self, summary: &mut ImportSummary) {
        let Done { files, rows, rejected, commits, data_files, data_bytes } = self.done;
        summary.files.read = files;
        (summary.rows, summary.rejected, summary.commits) = (rows, rejected, commits);
        (summary.data_files, summary.data_bytes) = (data_files, data_bytes);
        summary.spilled_bytes = self.bulk.as_ref().map_or(0, |bulk| bulk.stats().spilled_bytes);
    }

    async fn set_table(&mut self, table: Arc<Table>) -> Result<(), WorkerError> {
        let schema = Arc::new(table.refresh().await?.schema);
        let options = BulkOptions {
            memory_bytes: self.import.rows_bytes(),
            spill_dir: self.import.options.spill_dir.clone(),
            spill_bytes_max: self.import.options.spill_bytes_max,
        };
        let (store, location) = (Arc::clone(&table.store), table.location.clone());
        let layout = table.layout(schema).await;
        self.bulk = Some(BulkWriter::new(layout, store, location, options).for_table(&table.name)?);
        self.table = Some(table);
        Ok(())
    }

    /// Takes what readers of so many files hand over until they end, and commits it.
    pub(super) async fn take_all(
        &mut self,
        mut files: usize,
        events: &mut mpsc::Receiver<Event>,
        summary: &mut ImportSummary,
    ) -> Result<Ended, WorkerError> {
        self.follow_dead_letters().await?;
        let mut stop = self.stop.clone();
        let mut ended = Ended::Read;
        loop {
            let event = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    ended = Ended::Stopped;
                    break;
                }
                event = events.recv() => event,
            };
            let Some(event) = event else { break };
            match event {
                Event::Rows(rows) => self.take(rows).await?,
                Event::End { file, at } => {
                    files = files.saturating_sub(1);
                    self.pending(file, at)?.complete = true;
                    self.import.progress.file_done();
                }
                Event::Failed { file, why } => {
                    files = files.saturating_sub(1);
                    self.give_up(file, why, summary);
                }
                Event::Unfit { file, why } => self.unfit.push((file, why)),
                Event::Fatal(error) => {
                    // What came before is good.
                    self.commit().await?;
                    return Err(error);
                }
                Event::Wants { schema, answer } => {
                    // A reader that is gone needs no answer.
                    let _ = answer.send(self.evolve(schema).await?);
                }
            }
            let full = self.bulk.as_ref().is_some_and(BulkWriter::is_full);
            if (full || self.pending.len() >= FILES_MAX) && !self.commit().await? {
                return Ok(Ended::Overtaken);
            }
        }
        if !self.commit().await? {
            return Ok(Ended::Overtaken);
        }
        if ended == Ended::Read && files > 0 {
            let what = "a reader ended in the middle of a file";
            return Err(WorkerError::Internal { table: self.import.spec.name.clone(), what });
        }
        Ok(ended)
    }

    /// A file that is not tried again.
    pub(super) fn give_up(&mut self, file: usize, why: String, summary: &mut ImportSummary) {
        self.failed.insert(file);
        summary.fail(self.import.listed[file].url.clone(), why);
        self.import.progress.file_done();
    }

    /// The account of a source file since the last commit, which begins at this record.
    fn pending(&mut self, file: usize, start: u64) -> Result<&mut Pending, WorkerError> {
        let import = self.import;
        let Some(table) = &self.table else {
            let what = "records came before the table exists";
            return Err(WorkerError::Internal { table: import.spec.name.clone(), what });
        };
        Ok(self.pending.entry(file).or_insert_with(|| Pending {
            source: source_of(&import.listed[file], &table.token_key),
            start,
            end: start,
            complete: false,
            dead_letters: false,
        }))
    }

    async fn take(&mut self, rows: Rows) -> Result<(), WorkerError> {
        let name = &self.import.spec.name;
        let Rows { file, start, end, batch, dead_letters, rejected } = rows;
        for (reason, records) in rejected {
            *self.rejected.entry(reason).or_default() += records;
        }
        let pending = self.pending(file, start)?;
        if pending.end != start {
            let what = "records of a source file came out of order";
            return Err(WorkerError::Internal { table: name.clone(), what });
        }
        pending.end = end;
        let source = pending.source.clone();
        for letters in dead_letters {
            if self.bury(&source, letters).await? {
                self.pending(file, start)?.dead_letters = true;
            }
        }
        if let (Some(batch), Some(bulk)) = (batch, &mut self.bulk) {
            bulk.push(batch).await.for_table(name)?;
        }
        Ok(())
    }

    /// Makes the table what a reader needs, if that can be; says what it is then.
    async fn evolve(&mut self, wanted: Schema) -> Result<Option<Known>, WorkerError> {
        let import = self.import;
        let Some(table) = self.table.clone() else {
            let name = &import.spec.name;
            // Of a table with transforms it has them already, as they are after these.
            let schema = match import.spec.has_transforms() {
                true => wanted,
                false => with_own_columns(&wanted, &import.spec).for_table(name)?,
            };
            let (id, now_ms) = (import.identity.commit_id(), import.identity.now_ms());
            let table = Table::open_or_create(&import.lake, &import.spec, schema, &id, now_ms).await?;
            tracing::info!(table = %name, location = %table.location, "table created");
            self.set_table(Arc::new(table)).await?;
            return Ok(self.known());
        };
        let state = table.refresh().await?;
        // Otherwise another reader or worker was first: the one who asks looks again.
        if wanted.schema_id == state.schema.schema_id + 1 {
            if let Some(reason) = formats::not_shown(&table, &wanted).await? {
                let siltstone_spec::plan::Reason { what, why, .. } = reason;
                tracing::warn!(table = %table.name, what, why, "a file with such a schema is not read");
                return Ok(None);
            }
            tracing::info!(table = %table.name, schema_id = wanted.schema_id, "schema grows");
            self.land(&table, Change::SetSchema { schema: wanted }).await?;
        }
        let state = table.refresh().await?;
        let names = Arc::new(state.schema_history());
        if let Some(bulk) = &mut self.bulk {
            bulk.set_schema(Arc::new(state.schema), names).for_table(&table.name)?;
        }
        Ok(self.known())
    }
}
