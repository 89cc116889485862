//! Files of history into a table, each record once.
//!
//! 1. `list` finds the files that a pattern means, `plan` (pure) holds them against what the ledger has of them.
//! 2. Where there is no table and the spec tells no columns, the first file that does makes it, in the order of
//!    paths; JSON lines do not.
//! 3. `reader` threads read files side by side, from the first record that the table lacks: `records` (by
//!    `ingest::files`) and `columns` (by `datafile::ParquetFile`) turn them into batches of the table, after its
//!    transforms: nothing else is buffered, spilled or written. `out` keeps account of what they hand over.
//! 4. `writer` takes the batches of all readers into one bulk writer, so that few large sorted files come of any
//!    number of partitions, and commits: dead letters first, then one `Append` with exactly the ranges of records
//!    whose rows its files hold.
//! 5. When another import was first with a file of a commit, what is buffered is dropped, and the plan made anew.
//!
//! What a file is: its URL and what the store says of its content, as two keyed digests. A file whose content changed
//! since a part of it was read is told from one that is new, and refused by name.
//!
//! Everything can be killed at any instruction: the ledger says where each file is to be read on. Paths may hold
//! values, so they are in what is told to the caller, and in no log line, ledger entry or metric.

mod columns;
mod commits;
mod input;
mod list;
mod out;
mod plan;
mod progress;
mod reader;
mod records;
mod writer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use siltstone_datafile::MemoryBudget;
pub use siltstone_ingest::files::{FileFormat, Packing};
use siltstone_ingest::{
    HttpRegistry, SchemaRegistry,
    decoder::{FileTable, initial_schema},
};
use siltstone_lakehouse::{LakeError, TableStore, store};
use siltstone_protocol::ErrorCode;
use siltstone_spec::{SourceFiles, Spec, TableSpec};
use tokio::sync::watch;

pub use self::progress::{ImportProgress, ImportReading};
use self::{
    list::SourceFile,
    plan::{Plan, Task},
    reader::{READERS_SHARE, Readers},
    writer::{Ended, Writer},
};
use crate::{
    error::{ForTable, WorkerError},
    identity::Identity,
    projector,
    table::{self, Table},
};

/// The least memory that an import takes.
pub const MEMORY_MIN: u64 = 256 << 20;
/// What the process holds beside buffers: the program, clients, lists of files.
const PROCESS_BYTES: u64 = 56 << 20;
/// Plans in a row that may be the same although others were first, and the pause before the next.
const ALIKE_MAX: u32 = 20;
const ALIKE_PAUSE: Duration = Duration::from_secs(1);
/// What is said of a table before it exists, where nothing tells its columns.
const NO_COLUMNS: &str = "does not exist, and JSON files do not tell its columns; give it a schema in the spec (schema_mode, \
                          input_schema), or create it with its first records";
/// Failures that are told one by one.
const FAILURES_TOLD: usize = 20;

/// How files are to be read.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// `None`: by the end of each file's name.
    pub format: Option<FileFormat>,
    pub packing: Packing,
    /// All that is held at once, bytes; at least [`MEMORY_MIN`].
    pub memory_bytes: u64,
    /// Files read at once at most; memory may have room for fewer.
    pub parallel: usize,
    pub spill_dir: PathBuf,
    /// Spilled bytes at which what was read is committed.
    pub spill_bytes_max: u64,
    /// Files that changed since a part of them was read are read on where that ended.
    pub resume_changed: bool,
    /// Only say what would be read.
    pub dry_run: bool,
}

/// What an import did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImportSummary {
    pub table: String,
    /// Ledger version at the end; `None`: the table does not exist.
    pub version: Option<u64>,
    pub dry_run: bool,
    /// True: it was told to stop with files left.
    pub stopped: bool,
    pub files: FileCounts,
    /// Size of the files that were read, or are to be.
    pub bytes: u64,
    pub rows: u64,
    pub rejected: u64,
    pub commits: u64,
    pub data_files: u64,
    pub data_bytes: u64,
    pub spilled_bytes: u64,
    /// The first files that could not be read, and why.
    pub failures: Vec<FileFailure>,
}

/// Source files by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FileCounts {
    pub matched: u64,
    /// The table had all of their records before.
    pub held: u64,
    /// Read to the end, or to be read.
    pub read: u64,
    pub failed: u64,
}

/// A source file that was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFailure {
    pub file: String,
    pub why: String,
}

impl ImportSummary {
    pub(crate) fn fail(&mut self, file: String, why: String) {
        self.files.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(FileFailure { file, why });
        }
    }
}

/// Reads files into a table, which is created when there is none. `progress` hears of it.
///
/// # Errors
/// Those of stores, ledger and registry. A file that cannot be read is none, unless it is a record that the table's
/// `dlq_mode` stops at: it is in the summary.
pub async fn import(
    spec: &Spec,
    table_spec: &TableSpec,
    files: &SourceFiles,
    options: &ImportOptions,
    stop: watch::Receiver<bool>,
    progress: Arc<ImportProgress>,
) -> Result<ImportSummary, WorkerError> {
    let name = &table_spec.name;
    if options.memory_bytes < MEMORY_MIN {
        let message = format!("files are read into tables with at least {}MiB of memory", MEMORY_MIN >> 20);
        return Err(WorkerError::Spec { code: ErrorCode::CommandRefused, table: name.clone(), message });
    }
    let lake = store::open(&spec.destination).map_err(WorkerError::from)?;
    let source = store::open_source(files).map_err(WorkerError::from)?;
    let listed = list::list(&source, files, options.format).await.for_table(name)?;
    let registry = registry(spec, table_spec)?;
    let json = listed.iter().any(|file| file.format == FileFormat::Json);
    let table = FileTable::open(table_spec, registry.as_deref(), json).await.for_table(name)?;
    let import = Import {
        spec: table_spec.clone(),
        table,
        registry,
        lake,
        source,
        listed: Arc::new(listed),
        options: options.clone(),
        identity: Arc::default(),
        progress,
    };
    let mut summary =
        ImportSummary { table: name.clone(), dry_run: options.dry_run, ..ImportSummary::default() };
    import.run(&mut summary, stop).await?;
    Ok(summary)
}

fn registry(spec: &Spec, table_spec: &TableSpec) -> Result<Option<Arc<dyn SchemaRegistry>>, WorkerError> {
    match spec.cluster_of(table_spec).and_then(|cluster| cluster.schema_registry.as_ref()) {
        Some(registry) => Ok(Some(Arc::new(HttpRegistry::new(registry).for_table(&table_spec.name)?))),
        None => Ok(None),
    }
}

/// One import of one table.
struct Import {
    spec: TableSpec,
    /// What its files are read for.
    table: FileTable,
    registry: Option<Arc<dyn SchemaRegistry>>,
    lake: TableStore,
    source: Arc<dyn object_store::ObjectStore>,
    listed: Arc<Vec<SourceFile>>,
    options: ImportOptions,
    identity: Arc<Identity>,
    progress: Arc<ImportProgress>,
}

impl Import {
    async fn run(self, summary: &mut ImportSummary, stop: watch::Receiver<bool>) -> Result<(), WorkerError> {
        summary.files.matched = self.listed.len() as u64;
        let mut table = Table::open(&self.lake, &self.spec).await?.map(Arc::new);
        if self.options.dry_run {
            let plan = self.plan(table.as_deref()).await?;
            self.tell(&plan, summary);
            summary.version = table.map(|table| table.version());
            return Ok(());
        }
        table::probe(&self.lake, std::slice::from_ref(&self.spec)).await?;
        if table.is_none() {
            table = self.create().await?;
        }
        if table.is_none() && self.listed.iter().all(|file| file.format == FileFormat::Json) {
            let (table, message) = (self.spec.name.clone(), NO_COLUMNS.to_owned());
            return Err(WorkerError::Spec { code: ErrorCode::CommandRefused, table, message });
        }
        let mut writer = Writer::new(&self, table, stop).await?;
        if writer.table().is_none() && self.found(&mut writer, summary).await? == Ended::Stopped {
            summary.stopped = true;
            return Ok(());
        }
        let (mut before, mut alike): (Vec<Task>, u32) = (Vec::new(), 0);
        // Each round but the last ends because others read something in: there is less to read then.
        for round in 0.. {
            let mut plan = self.plan(writer.table().as_deref()).await?;
            plan.tasks.retain(|task| !writer.has_failed(task.file));
            if writer.table().is_none() {
                // The others that are left were told why they did not make it.
                for task in plan.tasks.drain(..) {
                    writer.give_up(task.file, format!("the table {NO_COLUMNS}"), summary);
                }
            }
            if round == 0 {
                let given_up = summary.files.failed;
                self.tell(&plan, summary);
                summary.files.read = 0;
                self.progress.expect(plan.tasks.len() as u64 + given_up, summary.bytes);
            }
            if plan.tasks.is_empty() {
                break;
            }
            if plan.tasks == before {
                // Others are between their dead letters and their rows.
                alike += 1;
                if alike > ALIKE_MAX {
                    let version = writer.table().map_or(0, |table| table.version());
                    let (table, attempts) = (self.spec.name.clone(), alike);
                    return Err(LakeError::Contended { table, version, attempts }).for_table(&self.spec.name);
                }
                tokio::time::sleep(self.identity.jitter(ALIKE_PAUSE)).await;
            } else {
                alike = 0;
                before.clone_from(&plan.tasks);
            }
            writer.resumed = plan.tasks.iter().filter(|task| task.resumed).map(|task| task.file).collect();
            match self.round(plan.tasks, &mut writer, summary).await? {
                Ended::Read => break,
                Ended::Stopped => {
                    summary.stopped = true;
                    break;
                }
                Ended::Overtaken => {
                    tracing::info!(table = %self.spec.name, "others read files in first, planning anew");
                }
            }
        }
        writer.tell(summary);
        if let Some(table) = writer.table() {
            projector::catch_up_all(&table).await?;
            summary.version = Some(table.version());
        }
        // One that was killed may have left dead letters that no format shows.
        if let Some(letters) = Table::open_dead_letters(&self.lake, &self.spec).await? {
            projector::catch_up_all(&letters).await?;
        }
        Ok(())
    }

    /// The table that the spec alone makes; `None`: the first file decides.
    async fn create(&self) -> Result<Option<Arc<Table>>, WorkerError> {
        let name = &self.spec.name;
        let schema = initial_schema(&self.spec, self.registry.as_deref()).await.for_table(name)?;
        let Some(schema) = schema else { return Ok(None) };
        let (id, now_ms) = (self.identity.commit_id(), self.identity.now_ms());
        let table = Table::open_or_create(&self.lake, &self.spec, schema, &id, now_ms).await?;
        Ok(Some(Arc::new(table)))
    }

    /// Has the first file that tells its columns make the table, so that which it is does not hang on which reader is
    /// faster. Files before it that make none are read like all others once there is a table, and given up if there is
    /// none.
    async fn found(
        &self,
        writer: &mut Writer<'_>,
        summary: &mut ImportSummary,
    ) -> Result<Ended, WorkerError> {
        let mut tasks = Plan::of_nothing_held(&self.listed).tasks;
        tasks.retain(|task| self.listed[task.file].format != FileFormat::Json);
        let (readers, mut events) = Readers::found(self, tasks, MemoryBudget::new(self.readers_bytes()));
        let ended = writer.take_all(0, &mut events, summary).await;
        drop(events);
        readers.join().await;
        let unfit = std::mem::take(&mut writer.unfit);
        if writer.table().is_none() {
            for (file, why) in unfit {
                writer.give_up(file, why, summary);
            }
        }
        ended
    }

    async fn plan(&self, table: Option<&Table>) -> Result<Plan, WorkerError> {
        let Some(table) = table else { return Ok(Plan::of_nothing_held(&self.listed)) };
        let imports = table.refresh().await?.imports;
        Ok(plan::plan(&self.listed, &imports, &table.token_key, self.options.resume_changed))
    }

    fn tell(&self, plan: &Plan, summary: &mut ImportSummary) {
        summary.files.held = plan.held;
        summary.files.read = plan.tasks.len() as u64;
        summary.bytes = plan.tasks.iter().map(|task| self.listed[task.file].bytes).sum();
        for file in &plan.changed {
            let why =
                "it was changed since records of it were read into the table; give it another name, or read \
                       on where that ended with --resume-changed"
                    .to_owned();
            summary.fail(self.listed[*file].url.clone(), why);
        }
    }

    /// Reads files until none is left, or others were first with one.
    async fn round(
        &self,
        tasks: Vec<Task>,
        writer: &mut Writer<'_>,
        summary: &mut ImportSummary,
    ) -> Result<Ended, WorkerError> {
        let budget = MemoryBudget::new(self.readers_bytes());
        let files = tasks.len();
        let (readers, mut events) = Readers::start(self, tasks, writer.known(), budget);
        let ended = writer.take_all(files, &mut events, summary).await;
        // Readers end when nobody takes what they read.
        drop(events);
        readers.join().await;
        ended
    }

    fn readers_bytes(&self) -> u64 {
        self.options.memory_bytes / READERS_SHARE
    }

    /// The rest is for rows that were read.
    fn rows_bytes(&self) -> u64 {
        self.options.memory_bytes - self.readers_bytes() - PROCESS_BYTES
    }
}
