//! Reads ranges of a topic through the same intake as live consumption, into data files that nothing names yet.
//!
//! 1. Each partition is read range after range; what lies between them is passed over.
//! 2. Full batches go to the bulk writer, which lays down few large sorted files however many partitions there are.
//! 3. A record of another schema has the table grow as live consumption would (`schemas`), and goes on.
//! 4. A [`Unit`] is all that was read since the one before, with exactly the offsets that it was read from.
//!
//! Runs on a thread of its own: the Kafka client blocks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use siltstone_datafile::{BulkOptions, BulkWriter, WrittenFile, write_sorted};
use siltstone_ingest::{
    KafkaSource, RecordSource, SchemaRegistry, SourceEvent, Visit, dead_letter::DeadLetters, decoder::Decoder,
};
use siltstone_lakehouse::ledger::RANGES_PER_ENTRY_MAX;
use siltstone_protocol::{FileEntry, OffsetRange, RejectReason, RejectedCount};
use tokio::runtime::Handle;

use super::{
    PartitionPlan,
    commit::{Committer, Unit, joined, stopped},
    old_rows::Offsets,
};
use crate::{
    error::{ForTable, WorkerError},
    flush::rejected_places,
    ingest::Intake,
    progress::Progress,
    table::Table,
};

const POLL_TIMEOUT: Duration = Duration::from_millis(200);
const POLL_RECORDS_MAX: usize = 10_000;
/// The intake is emptied into the bulk writer when it holds this much.
const INTAKE_BYTES_MAX: u64 = 32 << 20;
/// Dead letters are written when they hold this much.
const DEAD_LETTERS_BYTES_MAX: usize = 16 << 20;

/// Stretches of offsets that dead letters may be in memory. A reset ends well with so many only where few of the
/// stretches between them stay settled: its entry names each of those. With more than [`RANGES_PER_ENTRY_MAX`] it is
/// refused before anything is committed.
pub(super) const LETTERS_APART_MAX: usize = 4_000_000;
/// A backfill closes a unit when its dead letters are so many stretches: as many may be settled between them, and an
/// entry names no more than twice that.
const UNIT_LETTERS_APART_MAX: usize = RANGES_PER_ENTRY_MAX / 2;

/// Half-open ranges by partition, ascending.
pub(super) type Ranges = BTreeMap<i32, VecDeque<(i64, i64)>>;

/// What becomes of the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Each is an entry: what the other readers read is of use when one fails.
    Units,
    /// All of them are one entry.
    Whole,
}

impl Reading {
    /// Stretches of offsets that the dead letters of one unit may be.
    fn letters_apart_max(self) -> usize {
        match self {
            Self::Units => UNIT_LETTERS_APART_MAX,
            Self::Whole => LETTERS_APART_MAX,
        }
    }
}

/// What a reader is made of.
pub(super) struct ReaderParts {
    pub(super) committer: Arc<Committer>,
    pub(super) source: KafkaSource,
    pub(super) registry: Option<Arc<dyn SchemaRegistry>>,
    pub(super) table: Arc<Table>,
    pub(super) handle: Handle,
    pub(super) options: BulkOptions,
    pub(super) progress: Arc<Progress>,
    pub(super) reading: Reading,
    /// Turns true when nobody takes units any more.
    pub(super) given_up: Arc<AtomicBool>,
}

/// Reads what it was told, unit by unit.
pub(super) struct Reader {
    pub(super) parts: ReaderParts,
    pub(super) intake: Intake,
    pub(super) writer: BulkWriter,
    /// Where the open range of each partition ends.
    ends: BTreeMap<i32, i64>,
    later: Ranges,
    dead_batches: Vec<RecordBatch>,
    dead_files: Vec<FileEntry>,
    /// Offsets of the dead letters since the last unit.
    letters: Offsets,
    ranges: Vec<OffsetRange>,
    rejected: BTreeMap<RejectReason, u64>,
}

impl Reader {
    pub(super) fn new(parts: ReaderParts) -> Result<Self, WorkerError> {
        let spec = &parts.committer.spec;
        let state = parts.handle.block_on(parts.table.refresh())?;
        let schema = state.schema.clone();
        let letters = DeadLetters::new(&spec.cluster, &spec.topic).for_table(&spec.name)?;
        let mut decoder = Decoder::new(spec, Some(schema.clone())).for_table(&spec.name)?;
        decoder.set_history(state.schema_history());
        let schema = Arc::new(schema);
        let now = Instant::now();
        let intake = Intake::new(decoder, Some(Arc::clone(&schema)), letters, spec.dlq_mode, u64::MAX, now);
        let layout = parts.handle.block_on(parts.table.layout(schema));
        let (store, location) = (parts.table.store.clone(), parts.table.location.clone());
        let writer = BulkWriter::new(layout, store, location, parts.options.clone()).for_table(&spec.name)?;
        Ok(Self {
            parts,
            intake,
            writer,
            ends: BTreeMap::new(),
            later: Ranges::new(),
            dead_batches: Vec::new(),
            dead_files: Vec::new(),
            letters: Offsets::new(),
            ranges: Vec::new(),
            rejected: BTreeMap::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.parts.table.name
    }

    /// Reads the ranges. `land` takes each unit; when it is told to stop, what was read so far is the last one.
    ///
    /// # Errors
    /// `Stopped`, also when nobody takes units any more; those of brokers, registry, store; what `land` returns.
    pub(super) fn run(
        &mut self,
        ranges: Ranges,
        land: &mut dyn FnMut(Unit) -> Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        self.begin(ranges)?;
        while !self.ends.is_empty() {
            if self.parts.given_up.load(Ordering::Relaxed) {
                return Err(stopped(&self.parts.table));
            }
            if *self.parts.committer.stop.borrow() {
                let unit = self.unit()?;
                land(unit)?;
                return Err(stopped(&self.parts.table));
            }
            let reached = self.poll()?;
            self.act_on_halt()?;
            // What it rejected is counted as stretches once it is empty.
            let rejected = usize::try_from(self.intake.rejected()).unwrap_or(usize::MAX);
            if self.intake.bytes() >= INTAKE_BYTES_MAX
                || rejected >= self.parts.reading.letters_apart_max() / 4
            {
                self.empty()?;
            }
            for partition in reached {
                self.end_range(partition)?;
            }
            if self.writer.is_full() || apart(&self.letters) >= self.parts.reading.letters_apart_max() {
                let unit = self.unit()?;
                land(unit)?;
            }
        }
        let unit = self.unit()?;
        land(unit)
    }

    fn begin(&mut self, ranges: Ranges) -> Result<(), WorkerError> {
        self.later = ranges;
        let mut first = Vec::new();
        for (partition, ranges) in &mut self.later {
            if let Some((from, to)) = ranges.pop_front() {
                self.intake.positions.begin(*partition, from);
                self.ends.insert(*partition, to);
                first.push((*partition, from));
            }
        }
        self.parts.source.begin_at(&first).for_table(&self.parts.table.name)
    }

    /// Takes what is there; the partitions whose open range is read.
    fn poll(&mut self) -> Result<BTreeSet<i32>, WorkerError> {
        let Self { parts, intake, ends, .. } = self;
        let mut reached = BTreeSet::new();
        intake.hold_at_most(INTAKE_BYTES_MAX);
        intake.tick(Instant::now(), parts.committer.identity.now_ms());
        let polled = parts.source.poll(POLL_TIMEOUT, POLL_RECORDS_MAX, &mut |record| match ends
            .get(&record.partition)
        {
            Some(end) if record.offset < *end => intake.take(record),
            Some(_) => {
                reached.insert(record.partition);
                Visit::Taken
            }
            None => Visit::Taken,
        });
        for event in polled.for_table(&parts.table.name)? {
            match event {
                SourceEvent::EndOfPartition { partition, offset }
                    if ends.get(&partition).is_some_and(|end| offset >= *end) =>
                {
                    reached.insert(partition);
                }
                SourceEvent::OffsetOutOfRange { partition } => return Err(self.lost(partition)),
                _ => {}
            }
        }
        let (records, bytes) = intake.take_counts();
        parts.progress.consumed(records, bytes);
        Ok(reached)
    }

    fn lost(&self, partition: i32) -> WorkerError {
        let at = self.intake.positions.iter().find(|(id, _)| *id == partition).map(|(_, at)| at.next);
        WorkerError::LeftTheTopic {
            table: self.name().to_owned(),
            topic: self.parts.committer.spec.topic.clone(),
            partition,
            offset: at.unwrap_or_default(),
        }
    }

    /// A partition's open range is read: the next one, or no more of it.
    fn end_range(&mut self, partition: i32) -> Result<(), WorkerError> {
        // A halt may have kept records of it back.
        let Some(end) = self.ends.get(&partition).copied() else { return Ok(()) };
        // Positions without records at its end are part of it.
        self.intake.positions.pass(partition, end);
        self.submit();
        let name = &self.parts.table.name;
        match self.later.get_mut(&partition).and_then(VecDeque::pop_front) {
            Some((from, to)) => {
                self.intake.positions.begin(partition, from);
                self.ends.insert(partition, to);
                self.parts.source.seek(&[(partition, from)]).for_table(name)
            }
            None => {
                self.intake.positions.remove(&[partition]);
                self.ends.remove(&partition);
                self.parts.source.leave(partition).for_table(name)
            }
        }
    }

    fn submit(&mut self) {
        let spec = &self.parts.committer.spec;
        self.ranges.extend(self.intake.positions.submit(&spec.cluster, &spec.topic));
    }

    /// The intake's rows to the writer, its dead letters to files of their table.
    pub(super) fn empty(&mut self) -> Result<(), WorkerError> {
        let taken = match self.intake.take_buffer() {
            Ok(taken) => taken,
            Err(halt) => return halt.need(&self.parts.committer.spec).map(drop),
        };
        for count in taken.rejected {
            *self.rejected.entry(count.reason).or_default() += count.records;
        }
        for batch in taken.batches {
            let pushed = self.parts.handle.block_on(self.writer.push(batch));
            pushed.for_table(&self.parts.table.name)?;
        }
        for (partition, offset) in rejected_places(&taken.dead_letters) {
            self.letters.entry(partition).or_default().insert(offset, offset.saturating_add(1));
        }
        self.dead_batches.extend(taken.dead_letters);
        let held: usize = self.dead_batches.iter().map(RecordBatch::get_array_memory_size).sum();
        if held >= DEAD_LETTERS_BYTES_MAX { self.write_dead_letters() } else { Ok(()) }
    }

    fn write_dead_letters(&mut self) -> Result<(), WorkerError> {
        let batches = std::mem::take(&mut self.dead_batches);
        if batches.is_empty() {
            return Ok(());
        }
        let ReaderParts { handle, committer, .. } = &self.parts;
        let files = handle.block_on(async {
            let table = committer.letters().await?;
            let schema = Arc::new(table.state.lock().await.schema.clone());
            let layout = table.layout(schema).await;
            let written = write_sorted(batches, &layout, &table.store, &table.location).await;
            let entry = |file: WrittenFile| {
                table.details.insert(file.details);
                file.entry
            };
            let written = written.for_table(&table.name)?;
            Ok::<Vec<FileEntry>, WorkerError>(written.into_iter().map(entry).collect())
        })?;
        self.dead_files.extend(files);
        Ok(())
    }

    /// Everything that was read since the last unit, in durable files.
    fn unit(&mut self) -> Result<Unit, WorkerError> {
        self.empty()?;
        self.write_dead_letters()?;
        self.submit();
        let files = self.parts.handle.block_on(self.writer.finish()).for_table(&self.parts.table.name)?;
        let entry = |file: WrittenFile| {
            self.parts.table.details.insert(file.details);
            file.entry
        };
        let rejected = std::mem::take(&mut self.rejected).into_iter();
        Ok(Unit {
            files: files.into_iter().map(entry).collect(),
            dead_letters: std::mem::take(&mut self.dead_files),
            letters: std::mem::take(&mut self.letters),
            ranges: joined(std::mem::take(&mut self.ranges)),
            rejected: rejected.map(|(reason, records)| RejectedCount { reason, records }).collect(),
        })
    }
}

/// A reader's thread. Where all units are one entry, a failure ends the other readers too.
pub(super) fn read_all(
    parts: ReaderParts,
    ranges: Ranges,
    units: &mpsc::Sender<(Unit, mpsc::Sender<()>)>,
) -> Result<(), WorkerError> {
    let (table, given_up, reading) = (Arc::clone(&parts.table), Arc::clone(&parts.given_up), parts.reading);
    let ended = Reader::new(parts).and_then(|mut reader| {
        reader.run(ranges, &mut |unit| {
            let (done, wait) = mpsc::channel();
            // After a failure, which is told there, nobody takes units any more, and none is dealt with.
            units.send((unit, done)).map_err(|_| stopped(&table))?;
            wait.recv().map_err(|_| stopped(&table))
        })
    });
    if ended.is_err() && reading == Reading::Whole {
        given_up.store(true, Ordering::Relaxed);
    }
    ended
}

/// How many stretches these offsets are.
pub(super) fn apart(letters: &Offsets) -> usize {
    letters.values().map(|held| held.as_slice().len()).sum()
}

/// The partitions over so many readers, the largest first to whom has least.
pub(super) fn shares(plans: &[PartitionPlan], readers: usize) -> Vec<Ranges> {
    let mut plans: Vec<_> = plans.iter().filter(|plan| plan.offsets() > 0).collect();
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.offsets()));
    let mut shares: Vec<(u64, Ranges)> = vec![(0, Ranges::new()); readers.min(plans.len()).max(1)];
    for plan in plans {
        if let Some((offsets, ranges)) = shares.iter_mut().min_by_key(|(offsets, _)| *offsets) {
            *offsets += plan.offsets();
            ranges.insert(plan.partition, plan.ranges.iter().copied().collect());
        }
    }
    shares.into_iter().map(|(_, ranges)| ranges).filter(|ranges| !ranges.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_what_there_is_to_read() {
        let plan = |partition, to| PartitionPlan { partition, ranges: vec![(0, to)], ..Default::default() };
        let plans = [plan(0, 10), plan(1, 100), plan(2, 0), plan(3, 60), plan(4, 50)];
        let of = |readers| {
            let shares = shares(&plans, readers);
            shares.iter().map(|ranges| ranges.keys().copied().collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(of(2), [vec![0, 1], vec![3, 4]]);
        assert_eq!(of(1), [vec![0, 1, 3, 4]]);
        assert_eq!(of(9).len(), 4);
    }
}
