//! Cuts files: rewrites those that hold old rows beside others without the old ones.
//!
//! Rewrites are done one after the other, at the pace of compaction and with memory from the budget. Several go
//! into one ledger entry. What a round does not come to is the next one's; a file that others took meanwhile is
//! dropped, and its new files are orphans.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use siltstone_compaction::{CompactionPlan, CompactionPolicy, Trigger};
use siltstone_datafile::{MemoryBudget, RewriteOptions, count_old};
use siltstone_lakehouse::{
    crash_point,
    maintenance::{Cut, CutReport, Janitor, RowsOptions},
};
use siltstone_protocol::FileEntry;
use siltstone_spec::{Files, TableSpec};
use tokio::time::Instant;

use crate::{
    compactor::Pace,
    error::{ForTable, WorkerError},
    identity::Identity,
    table::Table,
};

/// A file is cut when its oldest row stayed longer by this part of the age at which rows leave: 1 over so much.
const GRACE_SHARE: i64 = 8;
/// Files that one round cuts at most, and bytes after which it stops.
const FILES_MAX: usize = 1_000;
const BYTES_MAX: u64 = 64 << 30;
/// Cuts that one ledger entry holds at most, and bytes of files after which it is closed.
const ENTRY_FILES_MAX: usize = 64;
const ENTRY_BYTES_MAX: u64 = 4 << 30;
/// Share of the memory budget that one rewrite reserves.
const MEMORY_SHARE: u64 = 4;
const MEMORY_MAX: u64 = 512 << 20;

/// Cuts the files of one table.
#[derive(Debug)]
pub(super) struct Cutter {
    files: Files,
    policy: CompactionPolicy,
    pace: Pace,
    identity: Arc<Identity>,
    budget: MemoryBudget,
    /// Files that cannot be cut, until the worker starts again.
    given_up: HashSet<String>,
}

/// Cuts on their way to the ledger.
#[derive(Default)]
struct Batch {
    cuts: Vec<(Cut, u64)>,
    bytes: u64,
}

impl Cutter {
    pub(super) fn new(spec: &TableSpec, identity: Arc<Identity>, budget: MemoryBudget) -> Self {
        Self {
            files: spec.files.clone(),
            policy: CompactionPolicy::from(&spec.compaction),
            pace: Pace::of(&spec.compaction),
            identity,
            budget,
            given_up: HashSet::new(),
        }
    }

    pub(super) fn at(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Cuts what is due, or says what it would cut. `age_ms`: at which rows leave.
    ///
    /// # Errors
    /// Those of the store and the ledger. What was committed before stays.
    pub(super) async fn round(
        &mut self,
        table: &Table,
        janitor: &mut Janitor,
        options: &RowsOptions<'_>,
        age_ms: i64,
    ) -> Result<CutReport, WorkerError> {
        let mut files = janitor.files_to_cut(options, age_ms / GRACE_SHARE).await.for_table(&table.name)?;
        let due = files.len() as u64;
        if !self.given_up.is_empty() {
            let paths: HashSet<&String> = files.iter().map(|file| &file.path).collect();
            self.given_up.retain(|path| paths.contains(path));
        }
        {
            let lacking = table.lacking.lock().unwrap_or_else(PoisonError::into_inner);
            files.retain(|file| !self.given_up.contains(&file.path) && !lacking.contains(&file.path));
        }
        let mut bytes = 0;
        let within = |file: &FileEntry| {
            let fits = bytes < BYTES_MAX;
            bytes += file.bytes;
            fits
        };
        files = files.into_iter().take(FILES_MAX).take_while(within).collect();
        let mut report = CutReport::default();
        if options.dry_run {
            self.look(table, &files, options, &mut report).await?;
        } else {
            self.cut_all(table, janitor, files, options, &mut report).await?;
        }
        report.left_files = due.saturating_sub(report.files);
        Ok(report)
    }

    /// What a dry run tells.
    async fn look(
        &self,
        table: &Table,
        files: &[FileEntry],
        options: &RowsOptions<'_>,
        report: &mut CutReport,
    ) -> Result<(), WorkerError> {
        let schema = table.state.lock().await.schema.clone();
        let old = options.column.old(options.before_ms);
        for file in files {
            let rows = count_old(&table.store, &table.location, file, &schema, old).await;
            report.rows += rows.for_table(&table.name)?;
            report.files += 1;
            report.bytes += file.bytes;
        }
        Ok(())
    }

    async fn cut_all(
        &mut self,
        table: &Table,
        janitor: &mut Janitor,
        files: Vec<FileEntry>,
        options: &RowsOptions<'_>,
        report: &mut CutReport,
    ) -> Result<(), WorkerError> {
        let mut batch = Batch::default();
        for file in files {
            let began = Instant::now();
            let bytes = file.bytes;
            if let Some(cut) = self.cut(table, file, options).await? {
                batch.cuts.push(cut);
                batch.bytes += bytes;
            }
            if batch.cuts.len() >= ENTRY_FILES_MAX || batch.bytes >= ENTRY_BYTES_MAX {
                self.land(table, janitor, std::mem::take(&mut batch), report).await?;
            }
            tokio::time::sleep(self.pace.rest(bytes, began.elapsed())).await;
        }
        self.land(table, janitor, batch, report).await
    }

    /// Rewrites one file without its old rows, and says how many they were. `None`: it is left as it is.
    async fn cut(
        &mut self,
        table: &Table,
        file: FileEntry,
        options: &RowsOptions<'_>,
    ) -> Result<Option<(Cut, u64)>, WorkerError> {
        let memory = self.budget.reserve((self.budget.limit() / MEMORY_SHARE).min(MEMORY_MAX)).await;
        let plan = CompactionPlan { trigger: Trigger::DeletedRows, inputs: vec![file.clone()] };
        let state = table.refresh().await?;
        let job = siltstone_compaction::job(&plan, &state, &self.policy, &self.files, &table.token_key);
        let Some(mut job) = job else { return Ok(None) };
        job.layout.host = table.host.clone();
        job.old = Some(options.column.old(options.before_ms));
        let limits = RewriteOptions { memory_bytes: memory.bytes(), ..RewriteOptions::default() };
        let rewritten = siltstone_compaction::rewrite(job, &table.store, &table.location, &limits).await;
        drop(memory);
        let rewritten = match rewritten {
            Ok(rewritten) => rewritten,
            Err(error) if error.kind().is_retryable() => return Err(error).for_table(&table.name),
            Err(error) => {
                tracing::error!(
                    table = %table.name, %error, code = %error.code(), file = file.path,
                    "a file cannot be rewritten without its old rows; it is left until the worker starts again"
                );
                self.given_up.insert(file.path);
                return Ok(None);
            }
        };
        let rows = rewritten.stats.old_rows;
        if rows == 0 {
            // Its bounds said otherwise; what was written is an orphan.
            tracing::warn!(table = %table.name, file = file.path, "a file has no row that its bounds call old");
            self.given_up.insert(file.path);
            return Ok(None);
        }
        for written in &rewritten.added {
            table.details.insert(written.details.clone());
        }
        let added = rewritten.added.into_iter().map(|written| written.entry).collect();
        Ok(Some((Cut { file, added }, rows)))
    }

    async fn land(
        &self,
        table: &Table,
        janitor: &mut Janitor,
        batch: Batch,
        report: &mut CutReport,
    ) -> Result<(), WorkerError> {
        if batch.cuts.is_empty() {
            return Ok(());
        }
        crash_point!("maintenance.cut_written");
        let (cuts, rows): (Vec<Cut>, Vec<u64>) = batch.cuts.into_iter().unzip();
        let rows: std::collections::HashMap<String, u64> =
            cuts.iter().map(|cut| cut.file.path.clone()).zip(rows).collect();
        let now_ms = self.identity.now_ms();
        let landed = janitor.commit_cuts(cuts, now_ms, &mut || self.identity.commit_id()).await;
        let Some((version, landed)) = landed.for_table(&table.name)? else { return Ok(()) };
        table.announce(version);
        for cut in &landed {
            report.files += 1;
            report.bytes += cut.file.bytes;
            report.rows += rows.get(&cut.file.path).copied().unwrap_or(0);
            report.output_bytes += cut.added.iter().map(|file| file.bytes).sum::<u64>();
        }
        Ok(())
    }
}
