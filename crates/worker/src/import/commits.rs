//! One entry for what was read since the last one.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::Int64Type,
};
use siltstone_datafile::{WrittenFile, write_sorted};
use siltstone_lakehouse::{
    crash_point,
    ledger::{FILES_PER_ENTRY_MAX, Imports},
};
use siltstone_protocol::{Change, ErrorCode, RejectedCount, SourceFileRange};

use super::writer::Writer;
use crate::{
    commit::{self, Landed, Patience},
    dead_letters::columns_are_off,
    error::{ForTable, WorkerError},
    projector,
    table::Table,
};

/// Dead letters are written when they hold this much.
const DEAD_LETTERS_BYTES_MAX: usize = 8 << 20;

/// The dead-letter table, and what is on its way there.
pub(super) struct DeadLetterFiles {
    table: Arc<Table>,
    /// What it holds of source files.
    held: Imports,
    batches: Vec<RecordBatch>,
    bytes: usize,
    files: Vec<WrittenFile>,
}

impl Writer<'_> {
    /// Commits what came since the last time. False: others were first, and all of it is dropped.
    pub(super) async fn commit(&mut self) -> Result<bool, WorkerError> {
        let Some(table) = self.table.clone().filter(|_| !self.pending.is_empty()) else { return Ok(true) };
        crash_point!("import.begin");
        let files = self.lay_down(&table).await?;
        crash_point!("import.files_written");
        let committed = self.commit_dead_letters().await? && self.commit_rows(&table, files).await?;
        if !committed {
            self.drop_all();
            return Ok(false);
        }
        self.pending.clear();
        projector::catch_up_all(&table).await?;
        Ok(true)
    }

    /// Makes data files of the rows.
    async fn lay_down(&mut self, table: &Table) -> Result<Vec<WrittenFile>, WorkerError> {
        let Some(bulk) = &mut self.bulk else { return Ok(Vec::new()) };
        let mut patience = Patience::new(&self.import.identity, &self.metrics, &self.stop);
        let files = loop {
            match bulk.finish().await {
                Ok(files) => break files,
                Err(error) if error.kind().is_retryable() => {
                    tracing::warn!(table = %table.name, %error, "writing data files failed, trying again");
                    if !patience.wait(&table.name, "write").await {
                        return Err(error).for_table(&table.name);
                    }
                }
                Err(error) => return Err(error).for_table(&table.name),
            }
        };
        if files.len() <= FILES_PER_ENTRY_MAX {
            return Ok(files);
        }
        let message =
            "the rows that were read make more files than one ledger entry takes; coarsen partition_by, or \
                       commit more often with a lower --spill-limit"
                .to_owned();
        Err(WorkerError::Spec { code: ErrorCode::ChangeTooLarge, table: table.name.clone(), message })
    }

    async fn commit_rows(&mut self, table: &Table, files: Vec<WrittenFile>) -> Result<bool, WorkerError> {
        let rows = files.iter().map(|file| file.entry.rows).sum();
        let bytes: u64 = files.iter().map(|file| file.entry.bytes).sum();
        let data_files = files.len() as u64;
        let rejected: u64 = self.rejected.values().sum();
        let range = |(file, pending): (&usize, &super::writer::Pending)| SourceFileRange {
            source: pending.source.clone(),
            start: if self.resumed.contains(file) { 0 } else { pending.start },
            end: pending.end,
            complete: pending.complete,
        };
        let entry = |file: WrittenFile| {
            table.details.insert(file.details);
            file.entry
        };
        let counts = self.rejected.iter();
        let change = Change::Append {
            files: files.into_iter().map(entry).collect(),
            ranges: Vec::new(),
            rejected: counts
                .map(|(reason, records)| RejectedCount { reason: *reason, records: *records })
                .collect(),
            replayed: Vec::new(),
            imported: self.pending.iter().map(range).collect(),
            base: None,
        };
        if !self.land(table, change).await? {
            return Ok(false);
        }
        crash_point!("import.committed");
        self.rejected.clear();
        self.resumed.retain(|file| !self.pending.contains_key(file));
        let done = &mut self.done;
        done.files += self.pending.values().filter(|pending| pending.complete).count() as u64;
        done.rows += rows;
        done.rejected += rejected;
        done.commits += 1;
        done.data_files += data_files;
        done.data_bytes += bytes;
        self.import.progress.committed(rows);
        tracing::info!(table = %table.name, rows, data_files, "read in from files");
        Ok(true)
    }

    /// False: the table went on in a way that this does not fit.
    pub(super) async fn land(&self, table: &Table, change: Change) -> Result<bool, WorkerError> {
        let commit_id = self.import.identity.commit_id();
        let patience = Patience::new(&self.import.identity, &self.metrics, &self.stop);
        match commit::commit(table, change, &commit_id, "import_commit", patience).await? {
            Landed::At(_) => Ok(true),
            Landed::AlreadySo => Ok(false),
            Landed::Refused(error) => {
                tracing::info!(table = %table.name, %error, "a commit was refused");
                Ok(false)
            }
            Landed::Stopped => Err(WorkerError::Stopped { table: table.name.clone() }),
        }
    }

    fn drop_all(&mut self) {
        if let Some(bulk) = &mut self.bulk {
            bulk.clear();
        }
        if let Some(letters) = &mut self.dead_letters {
            letters.batches.clear();
            letters.files.clear();
            letters.bytes = 0;
        }
        self.pending.clear();
        self.rejected.clear();
    }

    /// Learns what the dead-letter table holds by now.
    pub(super) async fn follow_dead_letters(&mut self) -> Result<(), WorkerError> {
        if let Some(letters) = &mut self.dead_letters {
            letters.held = Imports::clone(&letters.table.refresh().await?.imports);
        }
        Ok(())
    }

    /// Takes rejected records of a source file. False: the dead-letter table holds all of them.
    pub(super) async fn bury(&mut self, source: &str, batch: RecordBatch) -> Result<bool, WorkerError> {
        let import = self.import;
        let letters = match &mut self.dead_letters {
            Some(letters) => letters,
            none => {
                let (id, now_ms) = (import.identity.commit_id(), import.identity.now_ms());
                let table =
                    Table::open_or_create_dead_letters(&import.lake, &import.spec, &id, now_ms).await?;
                let held = Imports::clone(&table.refresh().await?.imports);
                let (batches, files) = (Vec::new(), Vec::new());
                none.insert(DeadLetterFiles { table: Arc::new(table), held, batches, bytes: 0, files })
            }
        };
        let held = letters.held.get(source).copied().unwrap_or_default();
        let off = || columns_are_off(&letters.table);
        let fresh = if held.complete { None } else { lacking(&batch, held.records).ok_or_else(off)? };
        let Some(fresh) = fresh else { return Ok(false) };
        letters.bytes += fresh.get_array_memory_size();
        letters.batches.push(fresh);
        if letters.bytes >= DEAD_LETTERS_BYTES_MAX {
            letters.write().await?;
        }
        Ok(true)
    }

    /// The dead-letter table first: it never lags behind, and filters what it has. False: others were first.
    async fn commit_dead_letters(&mut self) -> Result<bool, WorkerError> {
        let Some(letters) = &mut self.dead_letters else { return Ok(true) };
        letters.write().await?;
        if letters.files.is_empty() {
            return Ok(true);
        }
        let mut imported = Vec::new();
        for pending in self.pending.values().filter(|pending| pending.dead_letters) {
            let start = letters.held.get(&pending.source).map_or(0, |held| held.records);
            let (source, end, complete) = (pending.source.clone(), pending.end, pending.complete);
            imported.push(SourceFileRange { source, start, end, complete });
        }
        let files = std::mem::take(&mut letters.files).into_iter();
        let entry = |file: WrittenFile| {
            letters.table.details.insert(file.details);
            file.entry
        };
        let change = Change::Append {
            files: files.map(entry).collect(),
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: Vec::new(),
            imported,
            base: None,
        };
        let table = Arc::clone(&letters.table);
        if !self.land(&table, change).await? {
            return Ok(false);
        }
        crash_point!("import.dead_letters_committed");
        projector::catch_up_all(&table).await?;
        self.follow_dead_letters().await?;
        Ok(true)
    }
}

impl DeadLetterFiles {
    async fn write(&mut self) -> Result<(), WorkerError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let Table { name, store, location, .. } = &*self.table;
        let schema = Arc::new(self.table.state.lock().await.schema.clone());
        let layout = self.table.layout(schema).await;
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        self.files.append(&mut write_sorted(batches, &layout, store, location).await.for_table(name)?);
        Ok(())
    }
}

/// The rows from this record on; `Some(None)`: there are none.
fn lacking(batch: &RecordBatch, from: u64) -> Option<Option<RecordBatch>> {
    let numbers = batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?;
    let fresh = |number: &i64| u64::try_from(*number).is_ok_and(|number| number >= from);
    let keep: BooleanArray = numbers.values().iter().map(|number| Some(fresh(number))).collect();
    let batch = filter_record_batch(batch, &keep).ok()?;
    Some((batch.num_rows() > 0).then_some(batch))
}
