//! One window of dead letters through the intake: rows as data files, and what became of each letter.
//!
//! Letters are read file by file, in bounded memory: what is decoded is written whenever it fills its part of the
//! budget. The files are committed together, for a window is one commit.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::{Array, AsArray, BinaryArray, ListArray, RecordBatch, StringArray, StructArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use futures::TryStreamExt;
use siltstone_datafile::{WrittenFile, read_batches, write_sorted};
use siltstone_ingest::{
    Headers, Record, Visit,
    dead_letter::DeadLetters,
    decoder::{Decoder, Learned},
};
use siltstone_lakehouse::{SourcePartition, crash_point};
use siltstone_protocol::{Change, ErrorKind, RejectReason, Schema, SchemaHistory};
use siltstone_spec::{DlqMode, TableSpec};

use super::{
    Replay, ReplaySummary,
    plan::{Fate, Letter, Place, Sources},
    survey::{Places, Spans, Survey},
};
use crate::{
    commit::{self, Landed},
    dead_letters::columns_are_off,
    error::{ForTable, WorkerError},
    formats,
    ingest::{Intake, Wanting},
};

/// What is decoded is written when it holds this part of the budget: 1 over so much. The rest is for sorting and
/// encoding.
const ROWS_SHARE: u64 = 4;
const SCHEMA_TRIES_MAX: u32 = 10;

/// Letters on their way.
pub(super) struct Window<'a> {
    replay: &'a Replay<'a>,
    sources: &'a Sources,
    letters: Vec<Letter>,
    /// One for each topic, by the source that stands for it.
    lanes: BTreeMap<u32, Intake>,
    tried: u64,
    rows: u64,
    /// Every record that became no row, by the reason now.
    rejected: BTreeMap<RejectReason, u64>,
    files: Vec<WrittenFile>,
}

/// What became of a window.
pub(super) struct Tried {
    pub(super) letters: Vec<Letter>,
    pub(super) files: Vec<WrittenFile>,
    pub(super) rows: u64,
    tried: u64,
    rejected: BTreeMap<RejectReason, u64>,
}

impl Tried {
    /// Adds the window to what is told.
    pub(super) fn tell(&self, summary: &mut ReplaySummary) {
        summary.tried += self.tried;
        summary.rows += self.rows;
        let mut passed_over = self.rejected.clone();
        for letter in &self.letters {
            if let Fate::Rejected(reason) = letter.fate {
                *summary.still_rejected.entry(reason).or_default() += 1;
                let count = passed_over.entry(reason).or_default();
                *count = count.saturating_sub(1);
            }
        }
        for (reason, count) in passed_over.into_iter().filter(|(_, count)| *count > 0) {
            *summary.passed_over.entry(reason).or_default() += count;
        }
    }
}

impl<'a> Window<'a> {
    pub(super) fn new(replay: &'a Replay<'a>, letters: Vec<Letter>, sources: &'a Sources) -> Self {
        Self {
            replay,
            sources,
            letters,
            lanes: BTreeMap::new(),
            tried: 0,
            rows: 0,
            rejected: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    /// Reads the records of the window's letters and pushes them. `told` hears of how many.
    pub(super) async fn read(
        &mut self,
        found: &Survey,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), WorkerError> {
        let letters = Arc::clone(&self.replay.letters);
        let schema = letters.state.lock().await.schema.clone();
        let wanted = self.letters.iter().filter(|letter| letter.fate == Fate::Wanted);
        let wanted: Vec<Place> = wanted.map(|letter| letter.place).collect();
        for (entry, spans) in &found.files {
            if !holds_one(spans, &wanted) {
                continue;
            }
            let batches = read_batches(&letters.store, &letters.location, entry, &schema).await;
            let mut batches = batches.for_table(&letters.name)?;
            while let Some(batch) = batches.try_next().await.for_table(&letters.name)? {
                self.push(&batch).await?;
                told(self.tried);
            }
        }
        Ok(())
    }

    /// Writes what is still held.
    pub(super) async fn finish(mut self) -> Result<Tried, WorkerError> {
        let lanes: Vec<u32> = self.lanes.keys().copied().collect();
        for lane in lanes {
            self.write(lane).await?;
        }
        // A letter whose record was not found keeps its fate, and is not settled.
        let Self { letters, files, rows, tried, rejected, .. } = self;
        Ok(Tried { letters, files, rows, tried, rejected })
    }

    async fn push(&mut self, batch: &RecordBatch) -> Result<(), WorkerError> {
        let off = || columns_are_off(&self.replay.letters);
        let places = Places::of(batch).ok_or_else(off)?;
        let records = Records::of(batch).ok_or_else(off)?;
        for row in 0..batch.num_rows() {
            let Some(at) = self.wanted(&places, row) else { continue };
            let lane = self.sources.lane(self.letters[at].place.source);
            self.tried += 1;
            if records.is_cut(&places, row) {
                // Its bytes were too many to keep: nothing can come of it.
                self.letters[at].fate = Fate::Rejected(RejectReason::TooLarge);
                *self.rejected.entry(RejectReason::TooLarge).or_default() += 1;
                continue;
            }
            let headers = records.headers(row);
            let record = Record {
                partition: places.partition.value(row),
                offset: places.offset.value(row),
                timestamp_ms: records.timestamp_ms(row),
                key: bytes_at(records.key, row),
                value: bytes_at(records.value, row),
                headers: Headers::pairs(&headers),
            };
            self.letters[at].fate = Fate::Settled;
            self.take(lane, &record).await?;
        }
        Ok(())
    }

    /// The letter of a row, if it is to be tried.
    fn wanted(&self, places: &Places<'_>, row: usize) -> Option<usize> {
        let at = self.find(places.known(row, self.sources)?)?;
        self.letters.get(at).filter(|letter| letter.fate == Fate::Wanted).map(|_| at)
    }

    fn find(&self, place: Place) -> Option<usize> {
        self.letters.binary_search_by_key(&place, |letter| letter.place).ok()
    }

    async fn take(&mut self, lane: u32, record: &Record<'_>) -> Result<(), WorkerError> {
        let name = &self.replay.main.name;
        if !self.lanes.contains_key(&lane) {
            let intake = self.intake(lane).await?;
            self.lanes.insert(lane, intake);
        }
        let room = self.replay.budget.limit() / ROWS_SHARE;
        loop {
            let intake = self.lane(lane)?;
            // Letters come in no order: each is where its partition begins.
            intake.positions.begin(record.partition, record.offset);
            if intake.take(record) == Visit::Taken {
                break;
            }
            let what = "a dead letter was neither taken nor rejected";
            let internal = || WorkerError::Internal { table: name.clone(), what };
            match intake.take_halt().ok_or_else(internal)?.need(self.replay.table_spec)? {
                Some(wanting) => self.learn(lane, wanting).await?,
                None => self.write(lane).await?,
            }
        }
        let held: u64 = self.lanes.values().map(Intake::bytes).sum();
        let fullest = self.lanes.iter().max_by_key(|(_, intake)| intake.bytes()).map(|(lane, _)| *lane);
        if let Some(fullest) = fullest.filter(|_| held >= room) {
            self.write(fullest).await?;
        }
        Ok(())
    }

    /// The same way in as that of live records. What is rejected is kept, for it says which records these are.
    async fn intake(&self, lane: u32) -> Result<Intake, WorkerError> {
        let name = &self.replay.main.name;
        let spec = self.spec(lane)?;
        let (schema, history) = {
            let state = self.replay.main.state.lock().await;
            (state.schema.clone(), state.schema_history())
        };
        let mut decoder = Decoder::new(&spec, Some(schema.clone())).for_table(name)?;
        decoder.set_history(history);
        let letters = DeadLetters::new(&spec.cluster, &spec.topic).for_table(name)?;
        let mode = DlqMode::DeadLetter;
        let mut intake =
            Intake::new(decoder, Some(Arc::new(schema)), letters, mode, u64::MAX, Instant::now());
        intake.tick(Instant::now(), self.replay.identity.now_ms());
        Ok(intake)
    }

    /// The table's spec, of the source that a lane stands for.
    fn spec(&self, lane: u32) -> Result<TableSpec, WorkerError> {
        let name = &self.replay.main.name;
        let SourcePartition { cluster, topic, .. } = self.sources.at(lane).ok_or_else(|| no_lane(name))?;
        let mut spec = self.replay.table_spec.clone();
        (spec.cluster, spec.topic) = (cluster.clone(), topic.clone());
        Ok(spec)
    }

    fn lane(&mut self, lane: u32) -> Result<&mut Intake, WorkerError> {
        let table = &self.replay.main.name;
        self.lanes.get_mut(&lane).ok_or_else(|| no_lane(table))
    }

    /// Gets to know a schema; the table grows by the rules of live ingestion.
    async fn learn(&mut self, lane: u32, wanting: Wanting) -> Result<(), WorkerError> {
        let replay = self.replay;
        let cluster = self.sources.at(lane).map(|source| &source.cluster);
        let registry = cluster.and_then(|cluster| replay.registries.get(cluster)).cloned();
        let spec = self.spec(lane)?;
        for _ in 0..SCHEMA_TRIES_MAX {
            let decoder = &mut self.lane(lane)?.decoder;
            let learned = decoder.learn(wanting.need, registry.as_deref()).await;
            let schema = match learned.for_table(&replay.main.name)? {
                Learned::Evolves(schema) => schema,
                Learned::Stops(error) => {
                    return Err(wanting.incompatible(&spec, error.to_string()));
                }
                Learned::Ready | Learned::Refused(_) => return Ok(()),
            };
            if let Some(reason) = formats::not_shown(&replay.main, &schema).await? {
                let decoder = &mut self.lane(lane)?.decoder;
                return formats::give_up(&spec, wanting, reason, decoder);
            }
            self.write(lane).await?;
            if replay.options.dry_run {
                let history = self.lane(lane)?.decoder.history().clone().and(&schema);
                self.go_on_with(lane, schema, history)?;
                continue;
            }
            self.evolve(lane, schema).await?;
        }
        let what = "the table's schema did not settle";
        Err(WorkerError::Internal { table: replay.main.name.clone(), what })
    }

    async fn evolve(&mut self, lane: u32, schema: Schema) -> Result<(), WorkerError> {
        let replay = self.replay;
        let known = self.lane(lane)?.schema.as_ref().map(|schema| schema.schema_id);
        let present = replay.main.refresh().await?;
        if known != Some(present.schema.schema_id) {
            // A worker was first: look at the record against its schema.
            let history = present.schema_history();
            return self.go_on_with(lane, present.schema, history);
        }
        let (id, patience) = (replay.identity.commit_id(), replay.patience());
        let change = Change::SetSchema { schema };
        match commit::commit(&replay.main, change, &id, "replay_schema", patience).await? {
            Landed::At(_) => crash_point!("replay.schema_set"),
            Landed::AlreadySo => {}
            Landed::Refused(error) if error.kind() == ErrorKind::Conflict => {}
            Landed::Refused(error) => return Err(error).for_table(&replay.main.name),
            Landed::Stopped => return Err(WorkerError::Stopped { table: replay.main.name.clone() }),
        }
        let present = replay.main.refresh().await?;
        let history = present.schema_history();
        self.go_on_with(lane, present.schema, history)
    }

    fn go_on_with(&mut self, lane: u32, schema: Schema, history: SchemaHistory) -> Result<(), WorkerError> {
        let name = self.replay.main.name.clone();
        let intake = self.lane(lane)?;
        intake.decoder.set_history(history);
        intake.decoder.set_table_schema(schema.clone()).for_table(&name)?;
        intake.schema = Some(Arc::new(schema));
        Ok(())
    }

    /// Writes what a lane holds, and notes which letters were rejected again.
    async fn write(&mut self, lane: u32) -> Result<(), WorkerError> {
        let replay = self.replay;
        let name = &replay.main.name;
        let btree_map::Entry::Occupied(mut held) = self.lanes.entry(lane) else { return Ok(()) };
        let taken = match held.get_mut().take_buffer() {
            Ok(taken) => taken,
            Err(halt) => return halt.need(replay.table_spec).map(drop),
        };
        for count in &taken.rejected {
            *self.rejected.entry(count.reason).or_default() += count.records;
        }
        for batch in &taken.dead_letters {
            let places = Places::of(batch).ok_or_else(|| columns_are_off(&replay.letters))?;
            for row in 0..batch.num_rows() {
                let Some(at) = places.known(row, self.sources).and_then(|place| self.find(place)) else {
                    continue;
                };
                let reason = places.reason.value(row);
                let reason = RejectReason::ALL.iter().find(|known| known.as_str() == reason);
                self.letters[at].fate = reason.map_or(Fate::Open, |reason| Fate::Rejected(*reason));
            }
        }
        self.rows += taken.batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let Some(schema) = taken.schema.filter(|_| !replay.options.dry_run && !taken.batches.is_empty())
        else {
            return Ok(());
        };
        let layout = replay.main.layout(schema).await;
        let written = write_sorted(taken.batches, &layout, &replay.main.store, &replay.main.location).await;
        self.files.extend(written.for_table(name)?);
        Ok(())
    }
}

fn no_lane(table: &str) -> WorkerError {
    WorkerError::Internal { table: table.to_owned(), what: "a lane of the replay is gone" }
}

/// True when one of these places, which are in order, lies in one of the spans.
fn holds_one(spans: &Spans, wanted: &[Place]) -> bool {
    spans.iter().any(|(&source, &(first, last))| {
        let at = wanted.partition_point(|place| *place < Place { source, offset: first });
        wanted.get(at).is_some_and(|place| *place <= Place { source, offset: last })
    })
}

/// The records of a batch of dead letters.
struct Records<'a> {
    timestamp: &'a arrow::array::TimestampMicrosecondArray,
    key: &'a BinaryArray,
    value: &'a BinaryArray,
    headers: &'a ListArray,
    header: &'a StructArray,
    names: &'a StringArray,
    contents: &'a BinaryArray,
    schema_id: &'a arrow::array::Int64Array,
}

impl<'a> Records<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let headers: &ListArray = batch.column_by_name("headers")?.as_list_opt()?;
        let header = headers.values().as_struct_opt()?;
        Some(Self {
            timestamp: batch.column_by_name("timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?,
            key: batch.column_by_name("key")?.as_binary_opt()?,
            value: batch.column_by_name("value")?.as_binary_opt()?,
            headers,
            header,
            names: header.column(0).as_string_opt()?,
            contents: header.column(1).as_binary_opt()?,
            schema_id: batch.column_by_name("schema_id")?.as_primitive_opt::<Int64Type>()?,
        })
    }

    /// True when the letter is of a record that was larger than a column takes: it has the coordinates alone.
    fn is_cut(&self, places: &Places<'_>, row: usize) -> bool {
        self.value.is_null(row)
            && (places.reason.value(row) != RejectReason::NullValue.as_str() || self.schema_id.is_valid(row))
    }

    fn timestamp_ms(&self, row: usize) -> Option<i64> {
        self.timestamp.is_valid(row).then(|| self.timestamp.value(row).div_euclid(1000))
    }

    fn headers(&self, row: usize) -> Vec<(&'a str, Option<&'a [u8]>)> {
        if self.headers.is_null(row) {
            return Vec::new();
        }
        let offsets = self.headers.value_offsets();
        let (start, end) = (offsets[row], offsets[row + 1]);
        (start..end)
            .filter_map(|at| usize::try_from(at).ok())
            .filter(|at| self.header.is_valid(*at))
            .map(|at| {
                let name = if self.names.is_valid(at) { self.names.value(at) } else { "" };
                (name, bytes_at(self.contents, at))
            })
            .collect()
    }
}

fn bytes_at(column: &BinaryArray, row: usize) -> Option<&[u8]> {
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_only_for_letters_that_it_may_hold() {
        let wanted = [(0, 5), (0, 90), (2, 7)].map(|(source, offset)| Place { source, offset });
        let holds = |spans: &[(u32, (i64, i64))]| holds_one(&spans.iter().copied().collect(), &wanted);
        assert!(holds(&[(0, (0, 5))]) && holds(&[(0, (90, 99))]) && holds(&[(1, (0, 9)), (2, (7, 7))]));
        // Between the first and the last that is wanted, and none of them.
        assert!(!holds(&[(0, (6, 89)), (1, (0, 99))]) && !holds(&[(2, (0, 6))]) && !holds(&[]));
        assert!(!holds_one(&Spans::from([(0, (0, 9))]), &[]));
    }
}
