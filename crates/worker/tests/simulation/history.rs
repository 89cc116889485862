//! What goes on beside consumption: dead letters that become rows, source files that are read in, ranges that are
//! ingested anew.
//!
//! Each is a look at the table, data files, and one entry: what the program's commands make, committed by its own
//! code. What is read, and what becomes of it, follows from the seed. Absent: the dead-letter table, which stays as it
//! is. So a record that was rejected is rejected again when its range is ingested anew, and may be replayed again.

use std::sync::Arc;

use object_store::{ObjectStoreExt, path::Path};
use siltstone_datafile::{WrittenFile, write_sorted};
use siltstone_lakehouse::{LakeError, LedgerState, SourcePartition};
use siltstone_protocol::{
    Change, ErrorKind, FileEntry, OffsetRange, RejectReason, RejectedCount, SourceFileRange,
};
use siltstone_worker::{
    WorkerError,
    flush::{Flushed, Flusher},
    table::Table,
};

use crate::{
    files::{Place, read_rows},
    records,
    scenario::{CLUSTER, Mutation, TOPIC},
    worker::{Parts, range},
};

/// Records of a source file that one entry reads in, at most.
const IMPORTED_MAX: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Replay,
    Import,
    Overwrite,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Import => "import",
            Self::Overwrite => "overwrite",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Import => "imported",
            Self::Overwrite => "overwritten",
        }
    }
}

/// One who does one of these.
pub(crate) struct History {
    parts: Arc<Parts>,
    table: Arc<Table>,
    flusher: Flusher,
    work: Work,
}

/// Does it again and again.
pub(crate) async fn go_on(parts: Arc<Parts>, table: Arc<Table>, work: Work) {
    let mut history = History::new(Arc::clone(&parts), table, work);
    loop {
        parts.world.pause(0).await;
        if let Err(error) = history.step(false).await {
            parts.failed(work.name(), &error);
        }
    }
}

impl History {
    pub(crate) fn new(parts: Arc<Parts>, table: Arc<Table>, work: Work) -> Self {
        let flusher = parts.flusher(Arc::clone(&table), None);
        Self { parts, table, flusher, work }
    }

    /// One look and one entry; `whole`: of all that there is. False: there is nothing to do.
    pub(crate) async fn step(&mut self, whole: bool) -> Result<bool, WorkerError> {
        let state = self.table.refresh().await?;
        let change = match self.work {
            Work::Replay => self.replay(&state, whole).await?,
            Work::Import => self.import(&state).await?,
            Work::Overwrite => self.overwrite(&state, whole).await?,
        };
        let Some(change) = change else { return Ok(false) };
        let what = match self.flusher.commit_change(change).await {
            Ok(Flushed::Committed { .. }) => self.work.done(),
            // Others did it, or the files waited for too long.
            Ok(_) => "too late",
            Err(error) if error.kind() == ErrorKind::Conflict => "too late",
            Err(error) => return Err(error),
        };
        self.note(what);
        Ok(true)
    }

    /// Rows of dead letters that the ledger does not have as replayed.
    async fn replay(&self, state: &LedgerState, whole: bool) -> Result<Option<Change>, WorkerError> {
        let world = &self.parts.world;
        let mut open: Vec<Place> = Vec::new();
        for partition in 0..world.scenario.partitions {
            let source = source(partition);
            let next = state.next_offset(&source).unwrap_or(0);
            let held = state.replayed.get(&source);
            let is_open = |offset: i64| !held.is_some_and(|held| held.covers(offset, offset + 1));
            let letters = records::offsets(&world.scenario, partition, 0, next, true);
            open.extend(letters.into_iter().filter(|(_, offset)| is_open(*offset)));
        }
        open.retain(|_| whole || world.chance(60));
        if open.is_empty() {
            return Ok(None);
        }
        let files = self.write(state, &open).await?;
        let replayed = open.iter().map(|(partition, offset)| range(*partition, *offset, *offset + 1));
        Ok(Some(Change::Append {
            files,
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: replayed.collect(),
            imported: Vec::new(),
            base: Some(state.version),
        }))
    }

    /// The next records of one source file.
    async fn import(&self, state: &LedgerState) -> Result<Option<Change>, WorkerError> {
        let world = &self.parts.world;
        let held = |file: u64| state.imports.get(&records::source(file)).copied().unwrap_or_default();
        let left: Vec<u64> = (0..records::SOURCES).filter(|file| !held(*file).complete).collect();
        let Some(&file) = left.get(world.below(left.len() as u64) as usize) else { return Ok(None) };
        let (start, all) = (held(file).records, records::count_of_source(&world.scenario, file));
        let end = (start + 1 + world.below(IMPORTED_MAX)).min(all);
        let files = self.write(state, &records::places_of_source(file, start, end)).await?;
        let imported = SourceFileRange { source: records::source(file), start, end, complete: end == all };
        Ok(Some(Change::Append {
            files,
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: Vec::new(),
            imported: vec![imported],
            base: None,
        }))
    }

    /// A range anew: the files that hold rows of it leave, what stays of them comes in others, with the new rows.
    async fn overwrite(&self, state: &LedgerState, whole: bool) -> Result<Option<Change>, WorkerError> {
        let world = &self.parts.world;
        let ranges = self.ranges(state, whole);
        if ranges.is_empty() {
            return Ok(None);
        }
        let is_old = |place: &Place| {
            let holds = |range: &OffsetRange| (range.start..range.end).contains(&place.1);
            ranges.iter().any(|range| range.partition == place.0 && holds(range))
        };
        let (mut removed, mut places) = (Vec::new(), Vec::new());
        let live: Vec<String> = state.live_files.keys().cloned().collect();
        for path in live {
            let Some(rows) = self.rows(&path).await? else {
                self.note("too late");
                return Ok(None);
            };
            if rows.iter().any(is_old) {
                removed.push(path);
                places.extend(rows.into_iter().filter(|place| !is_old(place)));
            }
        }
        let mut rejected = 0;
        for OffsetRange { partition, start, end, .. } in &ranges {
            places.extend(records::offsets(&world.scenario, *partition, *start, *end, false));
            rejected += records::offsets(&world.scenario, *partition, *start, *end, true).len() as u64;
        }
        let added = self.write(state, &places).await?;
        // The fault of one who does not say which version it looked at, and takes its time.
        let base = if world.mutated(Mutation::LookIgnored) {
            world.pause(world.scenario.long_pauses).await;
            self.table.refresh().await?.version
        } else {
            state.version
        };
        let count = RejectedCount { reason: RejectReason::BadFraming, records: rejected };
        let rejected = if rejected == 0 { Vec::new() } else { vec![count] };
        Ok(Some(Change::Overwrite { removed, added, ranges, base, rejected, replayed: Vec::new() }))
    }

    /// What is ingested anew: below the positions, of one partition or of several.
    fn ranges(&self, state: &LedgerState, whole: bool) -> Vec<OffsetRange> {
        let world = &self.parts.world;
        let mut ranges = Vec::new();
        for partition in 0..world.scenario.partitions {
            let next = state.next_offset(&source(partition)).unwrap_or(0);
            let (start, end) = if whole {
                (0, next)
            } else {
                let start = world.below(next as u64) as i64;
                (start, (start + 1 + world.below((next - start) as u64) as i64).min(next))
            };
            if start < end && (whole || ranges.is_empty() || world.chance(50)) {
                ranges.push(range(partition, start, end));
            }
        }
        ranges
    }

    /// Rows of a file that was live at the look. `None`: it left the table, and is gone.
    async fn rows(&self, below: &str) -> Result<Option<Vec<Place>>, WorkerError> {
        let path = Path::from(format!("{}/{below}", self.table.location));
        let bytes = match self.table.store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) => {
                let rows = read_rows(bytes).map(|rows| rows.places);
                let found = rows.as_ref().ok().cloned();
                self.parts.world.check(rows.map(drop));
                Ok(found)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(LakeError::store("read", &path, &error).into()),
        }
    }

    async fn write(&self, state: &LedgerState, places: &[Place]) -> Result<Vec<FileEntry>, WorkerError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let table = &self.table;
        let rows = records::rows(&self.parts.world.scenario, &state.schema, places);
        let layout = table.layout(Arc::new(state.schema.clone())).await;
        let written = write_sorted(rows, &layout, &table.store, &table.location).await;
        let failed = |error| WorkerError::DataFile { table: table.name.clone(), source: Box::new(error) };
        let entry = |file: WrittenFile| {
            table.details.insert(file.details);
            file.entry
        };
        Ok(written.map_err(failed)?.into_iter().map(entry).collect())
    }

    fn note(&self, what: &'static str) {
        self.parts.world.note(&self.parts.life, what, "", self.work.name());
    }
}

fn source(partition: i32) -> SourcePartition {
    SourcePartition { cluster: CLUSTER.into(), topic: TOPIC.into(), partition }
}
