//! Dead letters, once more: what can be a row by now becomes one.
//!
//! 1. `survey` looks at the live files of the dead-letter table: where its open letters are, a bounded number at a
//!    time.
//! 2. `plan` says, without reading a byte, which of them are tried, and what offsets an entry may name as replayed.
//! 3. `work` pushes the records of one window through the same intake as live ones, and writes data files.
//! 4. One `Append` commits the window: its rows are exactly those of the offsets that it names as `replayed`, so the
//!    ledger refuses a second one. Records that fail again stay dead letters.
//! 5. `mark` then rewrites the files of the dead-letter table whose letters lack `replayed_at`, or have it in error.
//!
//! The table's ledger alone knows what was replayed, here or otherwise; the marks follow it. Killed before 4: orphans.
//! Killed after it: the next run marks. Two at once: one is refused, looks again, and finds less to do. Letters whose
//! offsets were ingested anew after the survey are looked for again, by a new one.
//!
//! Absent on purpose: records that the table passes over by its spec (tombstones, say) stay nothing. They are replayed
//! like rows, for there is nothing more to do about them.

mod mark;
mod plan;
mod survey;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use siltstone_datafile::MemoryBudget;
pub use siltstone_ingest::dead_letter::REPLAYED_AT;
use siltstone_ingest::{HttpRegistry, SchemaRegistry};
use siltstone_lakehouse::{LakeError, TableStore, crash_point};
use siltstone_protocol::{Change, FileEntry, RejectReason};
use siltstone_spec::{Spec, TableSpec};
use tokio::sync::watch;

use self::{
    plan::{Fate, Letter, Place, Sources, WINDOW_LETTERS_MAX},
    survey::{Survey, survey},
    work::Window,
};
use crate::{
    commit::{self, Landed, Patience},
    dead_letters,
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    projector,
    table::Table,
};

/// A window that others keep changing is left to the next run.
const TRIES_MAX: usize = 20;

/// Which dead letters are replayed: those that everything here admits.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub reason: Option<RejectReason>,
    pub partition: Option<i32>,
    /// Offsets from this one on.
    pub from: Option<i64>,
    /// Offsets below this one.
    pub to: Option<i64>,
}

/// How a replay is done.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    pub selection: Selection,
    /// Say what would become of them; change nothing.
    pub dry_run: bool,
    pub memory_bytes: u64,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReplaySummary {
    pub table: String,
    /// False: there is no table, or it has no dead letters.
    pub exists: bool,
    pub dry_run: bool,
    /// True: it was told to stop before the end.
    pub stopped: bool,
    /// Dead letters that were tried.
    pub tried: u64,
    /// Rows that came of them.
    pub rows: u64,
    /// Tried, and passed over as the spec says, by reason.
    pub passed_over: BTreeMap<RejectReason, u64>,
    /// Tried, and rejected again, by the reason now.
    pub still_rejected: BTreeMap<RejectReason, u64>,
    /// Open, and not tried: not selected, of another source than the spec's, or not committed by the table yet.
    pub left: u64,
    /// Ledger entries of the table that hold the rows.
    pub commits: u64,
    /// Dead letters that were marked as replayed.
    pub marked: u64,
}

/// Replays the dead letters of one table, and brings the formats of both tables up to date. `progress` hears of dead
/// letters to try and tried.
///
/// # Errors
/// Those of store, ledger, registry and formats; `Conflict` when others keep being first; `Stopped` when it was told to
/// stop while a schema was on its way. What was committed before stays; another run goes on from there.
pub async fn replay(
    spec: &Spec,
    lake: &TableStore,
    table: &TableSpec,
    options: &ReplayOptions,
    stop: watch::Receiver<bool>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<ReplaySummary, WorkerError> {
    let mut summary =
        ReplaySummary { table: table.name.clone(), dry_run: options.dry_run, ..ReplaySummary::default() };
    let Some(main) = Table::open(lake, table).await? else { return Ok(summary) };
    let Some(letters) = Table::open_dead_letters(lake, table).await? else { return Ok(summary) };
    summary.exists = true;
    let replay = Replay {
        spec,
        table_spec: table,
        main: Arc::new(main),
        letters: Arc::new(letters),
        registries: registries(spec, table)?,
        options,
        budget: MemoryBudget::new(options.memory_bytes),
        identity: Identity::default(),
        metrics: Metrics::default(),
        stop,
    };
    replay.run(&mut summary, progress).await?;
    Ok(summary)
}

fn registries(
    spec: &Spec,
    table: &TableSpec,
) -> Result<BTreeMap<String, Arc<dyn SchemaRegistry>>, WorkerError> {
    let mut registries: BTreeMap<String, Arc<dyn SchemaRegistry>> = BTreeMap::new();
    for cluster in &spec.source_clusters {
        if let Some(registry) = &cluster.schema_registry {
            let client = HttpRegistry::new(registry).for_table(&table.name)?;
            registries.insert(cluster.name.clone(), Arc::new(client));
        }
    }
    Ok(registries)
}

struct Replay<'a> {
    spec: &'a Spec,
    table_spec: &'a TableSpec,
    main: Arc<Table>,
    letters: Arc<Table>,
    registries: BTreeMap<String, Arc<dyn SchemaRegistry>>,
    options: &'a ReplayOptions,
    budget: MemoryBudget,
    identity: Identity,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
}

/// How a window ended.
enum Ended {
    Done,
    Stopped,
    /// Its letters are to be looked for again.
    Stale,
}

impl Replay<'_> {
    async fn run(
        &self,
        summary: &mut ReplaySummary,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), WorkerError> {
        if !self.options.dry_run {
            let patience = || self.patience();
            if !dead_letters::bring_up(&self.letters, &self.identity, &patience).await? {
                summary.stopped = true;
                return Ok(());
            }
        }
        let mut sources = Sources::new(self.spec);
        let (mut from, mut done, mut tries) = (Place::FIRST, 0, 0);
        loop {
            let found = self.survey(&mut sources, from).await?;
            let all = done + found.letters.iter().filter(|letter| letter.fate == Fate::Wanted).count() as u64;
            let mut stale = None;
            progress(all, done);
            for letters in found.letters.chunks(WINDOW_LETTERS_MAX) {
                if *self.stop.borrow() {
                    summary.stopped = true;
                    break;
                }
                let mut told = |tried| progress(all.max(done + tried), done + tried);
                match self.window(letters, &found, &sources, summary, &mut told).await? {
                    Ended::Done => {}
                    Ended::Stopped => {
                        summary.stopped = true;
                        break;
                    }
                    Ended::Stale => {
                        stale = letters.first().map(|letter| letter.place);
                        break;
                    }
                }
                done += letters.iter().filter(|letter| letter.fate == Fate::Wanted).count() as u64;
                progress(all, done);
            }
            if let Some(place) = stale {
                tries += 1;
                if tries == TRIES_MAX {
                    return Err(self.gave_up("ingesting the same offsets anew"));
                }
                let open = |letter: &&Letter| letter.fate == Fate::Open && letter.place < place;
                summary.left += found.letters.iter().filter(open).count() as u64;
                from = place;
                continue;
            }
            summary.left += found.left;
            match found.more {
                Some(next) if !summary.stopped => from = next,
                _ => break,
            }
        }
        if self.options.dry_run {
            return Ok(());
        }
        // Marks are due even when told to stop: they are the smaller part. A second signal ends it at once.
        summary.marked = mark::mark(self).await?;
        projector::catch_up_all(&self.main).await?;
        projector::catch_up_all(&self.letters).await
    }

    async fn survey(&self, sources: &mut Sources, from: Place) -> Result<Survey, WorkerError> {
        // The table first: what it covers when it is asked, the dead letters below that do not become more.
        let main = self.main.refresh().await?;
        let letters = self.letters.refresh().await?;
        survey(&self.letters, &letters, &main, sources, &self.options.selection, from).await
    }

    /// Tries the letters of one window, and commits what came of them.
    async fn window(
        &self,
        letters: &[Letter],
        found: &Survey,
        sources: &Sources,
        summary: &mut ReplaySummary,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Ended, WorkerError> {
        for _ in 0..TRIES_MAX {
            let state = self.main.refresh().await?;
            let letters = plan::still_open(letters, sources, &state);
            if !letters.iter().any(|letter| letter.fate == Fate::Wanted) {
                return Ok(Ended::Done);
            }
            // However often they were tried: the ledger refuses what a look before an overwrite found.
            if plan::is_stale(&letters, sources, &state, found.base) {
                return Ok(Ended::Stale);
            }
            let mut window = Window::new(self, letters, sources);
            window.read(found, told).await?;
            let tried = window.finish().await?;
            crash_point!("replay.files_written");
            if self.options.dry_run {
                tried.tell(summary);
                return Ok(Ended::Done);
            }
            let replayed = plan::ranges(&tried.letters, sources, &found.coverage, &state);
            if replayed.is_empty() {
                tried.tell(summary);
                return Ok(Ended::Done);
            }
            let files: Vec<FileEntry> = tried.files.iter().map(|file| file.entry.clone()).collect();
            for file in &tried.files {
                self.main.details.insert(file.details.clone());
            }
            let change = Change::Append {
                files,
                ranges: Vec::new(),
                rejected: Vec::new(),
                replayed,
                imported: Vec::new(),
                base: Some(found.base),
            };
            let id = self.identity.commit_id();
            match commit::commit(&self.main, change, &id, "replay", self.patience()).await? {
                Landed::At(version) => {
                    crash_point!("replay.committed");
                    tracing::info!(table = %self.main.name, version, rows = tried.rows, "dead letters replayed");
                    summary.commits += 1;
                    tried.tell(summary);
                    return Ok(Ended::Done);
                }
                Landed::Stopped => return Ok(Ended::Stopped),
                // Another replay was here: what it took is found at the next look.
                Landed::AlreadySo => {}
                Landed::Refused(error) => {
                    tracing::info!(table = %self.main.name, %error, "others were first, looking again");
                }
            }
        }
        Err(self.gave_up("replaying the same dead letters"))
    }

    fn gave_up(&self, doing: &str) -> WorkerError {
        let (table, version) = (self.main.name.clone(), self.main.version());
        let problem = format!("others keep {doing}; run it again when they are done");
        let source = Box::new(LakeError::Conflict { table, version, problem });
        WorkerError::Lake { table: self.main.name.clone(), source }
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(&self.identity, &self.metrics, &self.stop)
    }
}
