//! What happens to one record: decoded into the current batch, or sent on its way as rejected.
//!
//! Every record moves its partition's position exactly once, in the same call in which its row or
//! its rejection is buffered; so the ranges of a flush and its rows always agree (I-3).
//!
//! Where the table's transforms can fail, that is known of a row only when its batch is closed: until then what is
//! needed of its record is kept ([`Undecided`]).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use siltstone_ingest::{
    IngestError, Record, Visit,
    dead_letter::{About, DeadLetters, FailedRow, Place},
    decoder::{Decoder, Finished, Pushed, SchemaNeed},
};
use siltstone_protocol::{RejectReason, RejectedCount, Schema};
use siltstone_spec::{DlqMode, TableSpec};

use super::undecided::{Decided, Undecided};
use crate::{
    error::{ForTable, WorkerError},
    positions::Positions,
};

/// A batch is closed at this many rows or bytes, so that builders stay small and growth is cheap.
const BATCH_ROWS_MAX: usize = 65_536;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Records beside which a larger one begins a batch of its own.
const UNDECIDED_BYTES_MAX: usize = 32 << 20;

/// A record that waits for its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanting {
    pub need: SchemaNeed,
    pub partition: i32,
    pub offset: i64,
}

/// Why the intake takes no more records for now.
#[derive(Debug)]
pub enum Halt {
    /// The next record's schema must be learned first.
    NeedsSchema(Wanting),
    /// A record was rejected and the spec says stop; it is not consumed.
    Rejected { place: Place, reason: RejectReason, about: Option<Box<About>> },
    /// The buffer reached its limit.
    Full,
    /// A batch could not be closed: a bug.
    Failed(IngestError),
}

impl Halt {
    /// The schema that it waits for, if it is for one.
    ///
    /// # Errors
    /// What stops the table: a record, with `dlq_mode: stop`; a bug.
    pub(crate) fn need(self, spec: &TableSpec) -> Result<Option<Wanting>, WorkerError> {
        match self {
            Self::Full => Ok(None),
            Self::NeedsSchema(wanting) => Ok(Some(wanting)),
            Self::Failed(error) => Err(error).for_table(&spec.name),
            Self::Rejected { place, reason, about } => Err(WorkerError::RejectedRecord {
                table: spec.name.clone(),
                topic: spec.topic.clone(),
                partition: place.partition,
                offset: place.offset,
                reason,
                schema_id: place.schema_id,
                about,
            }),
        }
    }
}

/// Why nothing of the buffer may be committed, however often it is asked for: its positions and its rows disagree.
#[derive(Debug, Clone)]
enum Broken {
    /// A record behind the positions that the spec says to stop at.
    Stop(Place, Arc<About>),
    /// Rows are lost, or one too many is there.
    Bug(IngestError),
}

impl Broken {
    fn halt(&self) -> Halt {
        match self {
            Self::Stop(place, about) => Halt::Rejected {
                place: *place,
                reason: RejectReason::TransformFailed,
                about: Some(Box::new(About::clone(about))),
            },
            Self::Bug(error) => Halt::Failed(error.clone()),
        }
    }
}

/// The buffer of one table and everything that fills it.
pub struct Intake {
    pub decoder: Decoder,
    pub positions: Positions,
    /// The schema of the rows being decoded; `None` before the table exists.
    pub schema: Option<Arc<Schema>>,
    dead_letters: DeadLetters,
    dlq_mode: DlqMode,
    dead_batches: Vec<RecordBatch>,
    dead_batches_bytes: usize,
    batches: Vec<RecordBatch>,
    batches_bytes: usize,
    rows: u64,
    input_bytes: u64,
    input_bytes_max: u64,
    /// Memory at which no more is taken until the buffer was looked at.
    held_max: u64,
    rejected: BTreeMap<RejectReason, u64>,
    oldest: Option<Instant>,
    now: Instant,
    now_ms: i64,
    halt: Option<Halt>,
    /// Records of the rows being decoded, as long as their transforms may fail.
    undecided: Option<Undecided>,
    /// Only [`Self::clear`] mends it.
    broken: Option<Broken>,
    /// Records and bytes since the last reading, for metrics.
    taken: (u64, u64),
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("rows", &self.rows)
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

/// The content of a buffer, taken out for a flush.
#[derive(Debug)]
pub struct Taken {
    pub schema: Option<Arc<Schema>>,
    pub batches: Vec<RecordBatch>,
    pub dead_letters: Vec<RecordBatch>,
    pub rejected: Vec<RejectedCount>,
}

impl Intake {
    pub fn new(
        decoder: Decoder,
        schema: Option<Arc<Schema>>,
        dead_letters: DeadLetters,
        dlq_mode: DlqMode,
        input_bytes_max: u64,
        now: Instant,
    ) -> Self {
        Self {
            undecided: None,
            broken: None,
            decoder,
            positions: Positions::default(),
            schema,
            dead_letters,
            dlq_mode,
            dead_batches: Vec::new(),
            dead_batches_bytes: 0,
            batches: Vec::new(),
            batches_bytes: 0,
            rows: 0,
            input_bytes: 0,
            input_bytes_max,
            held_max: u64::MAX,
            rejected: BTreeMap::new(),
            oldest: None,
            now,
            now_ms: 0,
            halt: None,
            taken: (0, 0),
        }
    }

    /// Sets how much memory the next poll may fill. A single record is taken whatever its size.
    pub fn hold_at_most(&mut self, bytes: u64) {
        self.held_max = bytes;
    }

    /// Sets the clock for the records of the next poll.
    pub fn tick(&mut self, now: Instant, now_ms: i64) {
        self.now = now;
        self.now_ms = now_ms;
    }

    /// Takes one record, or says why not (see [`Self::take_halt`]).
    pub fn take(&mut self, record: &Record<'_>) -> Visit {
        if self.is_halted() {
            return Visit::Blocked;
        }
        if !self.positions.wants(record.partition, record.offset) {
            return Visit::Taken;
        }
        if self.undecided_bytes() > 0 && self.undecided_bytes() + record.size() > UNDECIDED_BYTES_MAX {
            self.close_batch();
            if self.halt.is_some() {
                return Visit::Blocked;
            }
        }
        match self.decoder.push(record) {
            Pushed::Row => {
                self.rows += 1;
                if self.is_undecided()
                    && let Err(error) = self.keep_undecided(record)
                {
                    self.fail(Broken::Bug(error));
                    return Visit::Blocked;
                }
            }
            Pushed::Skipped(reason) => *self.rejected.entry(reason).or_default() += 1,
            Pushed::Rejected { reason, schema_id } => match self.dlq_mode {
                DlqMode::Stop => {
                    let place = Place { partition: record.partition, offset: record.offset, schema_id };
                    let about = self.decoder.about().cloned().map(Box::new);
                    self.halt = Some(Halt::Rejected { place, reason, about });
                    return Visit::Blocked;
                }
                DlqMode::Skip => *self.rejected.entry(reason).or_default() += 1,
                DlqMode::DeadLetter => {
                    if !self.bury(record, reason, schema_id) {
                        return Visit::Blocked;
                    }
                    *self.rejected.entry(reason).or_default() += 1;
                }
            },
            Pushed::Full => {
                self.close_batch();
                return if self.halt.is_some() { Visit::Blocked } else { self.take(record) };
            }
            Pushed::NeedsSchema(need) => {
                let (partition, offset) = (record.partition, record.offset);
                self.halt = Some(Halt::NeedsSchema(Wanting { need, partition, offset }));
                return Visit::Blocked;
            }
        }
        self.positions.advance(record.partition, record.offset, record.timestamp_ms);
        self.oldest.get_or_insert(self.now);
        let bytes = (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        self.input_bytes += bytes;
        self.taken.0 += 1;
        self.taken.1 += bytes;
        let bytes = self.decoder.bytes() + self.undecided_bytes();
        if self.decoder.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
            self.close_batch();
        }
        let is_full = self.input_bytes >= self.input_bytes_max || self.bytes() >= self.held_max;
        if is_full && self.halt.is_none() {
            self.halt = Some(Halt::Full);
        }
        Visit::Taken
    }

    fn is_halted(&mut self) -> bool {
        if let (None, Some(broken)) = (&self.halt, &self.broken) {
            self.halt = Some(broken.halt());
        }
        self.halt.is_some()
    }

    /// What came first is what is told.
    fn fail(&mut self, broken: Broken) {
        self.halt = Some(self.broken.get_or_insert(broken).halt());
    }

    /// Whether the record of the row that was just decoded must be kept: rows and records stay in step even where
    /// transforms cease to fail within a batch.
    fn is_undecided(&self) -> bool {
        let is_begun = self.undecided.as_ref().is_some_and(|undecided| !undecided.is_empty());
        self.dlq_mode != DlqMode::Skip && (is_begun || self.decoder.can_fail())
    }

    fn keep_undecided(&mut self, record: &Record<'_>) -> Result<(), IngestError> {
        let undecided = match &mut self.undecided {
            Some(undecided) => undecided,
            none => none.insert(match self.dlq_mode {
                DlqMode::DeadLetter => Undecided::letters(self.dead_letters.like()?),
                DlqMode::Stop | DlqMode::Skip => Undecided::places(),
            }),
        };
        undecided.keep(record, self.decoder.rows(), self.decoder.schema_id(record), self.now_ms)
    }

    fn undecided_bytes(&self) -> usize {
        self.undecided.as_ref().map_or(0, Undecided::bytes)
    }

    /// What is to be done about these rows of the batch.
    fn decide(&mut self, failed: Vec<FailedRow>) -> Result<Decided, IngestError> {
        match &mut self.undecided {
            Some(undecided) => undecided.decide(failed),
            None if failed.is_empty() || self.dlq_mode == DlqMode::Skip => Ok(Decided::Nothing),
            None => Err(IngestError::internal("a row failed whose record was not kept")),
        }
    }

    /// Takes a rejected record into the dead letters. False: they cannot take it (see the halt).
    fn bury(&mut self, record: &Record<'_>, reason: RejectReason, schema_id: Option<u32>) -> bool {
        if self.dead_letters.push_about(record, reason, schema_id, self.decoder.about(), self.now_ms) {
            return true;
        }
        match self.dead_letters.finish() {
            Ok(batch) => self.keep_dead(batch),
            Err(error) => {
                self.fail(Broken::Bug(error));
                return false;
            }
        }
        if self.dead_letters.push_about(record, reason, schema_id, self.decoder.about(), self.now_ms) {
            return true;
        }
        self.halt = Some(Halt::Full);
        false
    }

    fn keep_dead(&mut self, batch: Option<RecordBatch>) {
        if let Some(batch) = batch {
            self.dead_batches_bytes += batch.get_array_memory_size();
            self.dead_batches.push(batch);
        }
    }

    /// Why records were blocked since the last call, if they were.
    pub fn take_halt(&mut self) -> Option<Halt> {
        self.halt.take()
    }

    /// Closes the batch being decoded. A failure is kept as the halt.
    pub fn close_batch(&mut self) {
        let closed = match self.decoder.close() {
            Ok(Some(finished)) => self.keep(finished),
            Ok(None) => self.decide(Vec::new()).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            self.fail(Broken::Bug(error));
        }
    }

    fn keep(&mut self, finished: Finished) -> Result<(), IngestError> {
        let Finished { batch, filtered, failed } = finished;
        if let Some(batch) = batch {
            self.batches_bytes += batch.get_array_memory_size();
            self.batches.push(batch);
        }
        let (filtered, unfit) = (filtered as u64, failed.len() as u64);
        self.rows = self.rows.saturating_sub(filtered + unfit);
        if filtered > 0 {
            *self.rejected.entry(RejectReason::Filtered).or_default() += filtered;
        }
        match self.decide(failed)? {
            Decided::Nothing => {}
            Decided::Letters(letters) => self.keep_dead(Some(letters)),
            Decided::Stop(place, about) => {
                self.fail(Broken::Stop(place, about));
                return Ok(());
            }
        }
        if unfit > 0 {
            *self.rejected.entry(RejectReason::TransformFailed).or_default() += unfit;
        }
        Ok(())
    }

    /// Memory held by buffered rows and dead letters, bytes.
    pub fn bytes(&self) -> u64 {
        let rows = self.batches_bytes + self.decoder.bytes() + self.undecided_bytes();
        (rows + self.dead_batches_bytes + self.dead_letters.bytes()) as u64
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Buffered records that become no row.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub fn input_bytes(&self) -> u64 {
        self.input_bytes
    }

    /// Time since the oldest buffered record was taken.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.oldest.map(|oldest| now.saturating_duration_since(oldest))
    }

    /// Records and input bytes taken since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.taken)
    }

    /// Empties the buffer into a flush.
    ///
    /// # Errors
    /// `Rejected`: the positions are past a record at which the spec says to stop, so the buffer must not be committed.
    /// `Failed`: a batch could not be closed, so rows of the positions' ranges are lost. Both until it is cleared.
    pub fn take_buffer(&mut self) -> Result<Taken, Halt> {
        self.close_batch();
        match self.dead_letters.finish() {
            Ok(batch) => self.keep_dead(batch),
            Err(error) => self.fail(Broken::Bug(error)),
        }
        if let Some(broken) = &self.broken {
            return Err(broken.halt());
        }
        let dead_letters = std::mem::take(&mut self.dead_batches);
        let rejected = std::mem::take(&mut self.rejected)
            .into_iter()
            .map(|(reason, records)| RejectedCount { reason, records })
            .collect();
        let batches = std::mem::take(&mut self.batches);
        self.reset_counts();
        Ok(Taken { schema: self.schema.clone(), batches, dead_letters, rejected })
    }

    /// Throws away everything buffered: its ranges are not ours to commit.
    ///
    /// # Errors
    /// `Internal` when a builder cannot be emptied.
    pub fn clear(&mut self) -> Result<(), IngestError> {
        self.decoder.discard()?;
        self.undecided = None;
        self.dead_letters = self.dead_letters.like()?;
        self.broken = None;
        self.dead_batches.clear();
        self.batches.clear();
        self.rejected.clear();
        self.halt = None;
        self.reset_counts();
        Ok(())
    }

    fn reset_counts(&mut self) {
        self.batches_bytes = 0;
        self.dead_batches_bytes = 0;
        self.rows = 0;
        self.input_bytes = 0;
        self.oldest = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use siltstone_ingest::Headers;

    use super::*;

    const SPEC: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092'], schema_registry: {url: 'http://localhost'}}]
destination_bucket_url: file:///tmp
tables: [{name: a.b, source_cluster_name: lab, source_topic: t, source_format: avro}]
";

    #[test]
    fn one_poll_fills_what_it_may_and_a_record_at_least() {
        let spec = siltstone_spec::parse(SPEC, "spec.yaml", &|_| None).unwrap();
        let decoder = Decoder::new(&spec.tables[0], None).unwrap();
        let letters = DeadLetters::new("lab", "t").unwrap();
        let mut intake = Intake::new(decoder, None, letters, DlqMode::DeadLetter, u64::MAX, Instant::now());
        intake.positions.begin(0, 0);
        let value = vec![b'x'; 1000];
        let record = |offset| Record {
            partition: 0,
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(&value),
            headers: Headers::empty(),
        };
        intake.hold_at_most(100_000);
        let taken = (0..).take_while(|offset| intake.take(&record(*offset)) == Visit::Taken).count();
        assert!(matches!(intake.take_halt(), Some(Halt::Full)));
        assert!((50..=100).contains(&taken), "{taken} records of a thousand bytes in a hundred thousand");
        assert!(intake.bytes() < 110_000);
        intake.hold_at_most(0);
        let next = i64::try_from(taken).unwrap();
        assert_eq!(intake.take(&record(next)), Visit::Taken);
        assert_eq!(intake.take(&record(next + 1)), Visit::Blocked);
        let taken = intake.take_buffer().unwrap();
        let rows: usize = taken.dead_letters.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((rows as i64, intake.bytes()), (next + 1, 0));
    }

    const CAST: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092']}]
destination_bucket_url: file:///tmp
tables:
  - name: a.b
    source_cluster_name: lab
    source_topic: t
    source_format: json
    input_schema: {fields: [{name: k, type: long}, {name: n, type: string}]}
    transforms: {filter: k <> 3, cast: {n: int}}
";

    fn cast(dlq_mode: DlqMode) -> Intake {
        let spec = siltstone_spec::parse(CAST, "spec.yaml", &|_| None).unwrap();
        let schema = siltstone_ingest::decoder::initial_schema(&spec.tables[0], None);
        let schema = futures::executor::block_on(schema).unwrap().unwrap();
        let decoder = Decoder::new(&spec.tables[0], Some(schema)).unwrap();
        let letters = DeadLetters::new("lab", "t").unwrap();
        let mut intake = Intake::new(decoder, None, letters, dlq_mode, u64::MAX, Instant::now());
        intake.positions.begin(0, 0);
        intake
    }

    /// Takes records until it is blocked.
    fn fill(intake: &mut Intake, values: &[&str]) -> usize {
        let mut taken = 0;
        for (offset, value) in (0..).zip(values) {
            let (key, headers) = (Some(b"key".as_slice()), [("h", Some(b"v".as_slice()))]);
            let headers = Headers::pairs(&headers);
            let record = Record {
                partition: 0,
                offset,
                timestamp_ms: Some(1),
                key,
                value: Some(value.as_bytes()),
                headers,
            };
            if intake.take(&record) == Visit::Blocked {
                match intake.take_halt() {
                    Some(Halt::NeedsSchema(Wanting { need, .. })) => {
                        let learned = futures::executor::block_on(intake.decoder.learn(need, None));
                        assert_eq!(learned, Ok(siltstone_ingest::decoder::Learned::Ready));
                        assert_eq!(intake.take(&record), Visit::Taken);
                    }
                    _ => return taken,
                }
            }
            taken += 1;
        }
        taken
    }

    const VALUES: [&str; 6] = [
        r#"{"k":0,"n":"7"}"#,
        r#"{"k":1,"n":"x"}"#,
        r#"{"k":"no"}"#,
        r#"{"k":3,"n":"y"}"#,
        r#"{"k":4,"n":"z"}"#,
        r#"{"k":5,"n":null}"#,
    ];

    #[test]
    fn rows_that_fail_when_their_batch_is_closed_are_dead_letters_as_they_came() {
        use arrow::array::AsArray;
        use arrow::datatypes::Int64Type;
        let mut intake = cast(DlqMode::DeadLetter);
        assert_eq!(fill(&mut intake, &VALUES), 6);
        assert!(intake.bytes() > 0);
        let taken = intake.take_buffer().unwrap();
        let counts: Vec<_> =
            taken.rejected.iter().map(|count| (count.reason.as_str(), count.records)).collect();
        assert_eq!(counts, [("wrong_type", 1), ("filtered", 1), ("transform_failed", 2)]);
        assert_eq!(taken.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
        let mut letters = Vec::new();
        for batch in &taken.dead_letters {
            for row in 0..batch.num_rows() {
                let offset = batch.column(3).as_primitive::<Int64Type>().value(row);
                let value = batch.column(6).as_binary::<i32>().value(row);
                let reason = batch.column(9).as_string::<i32>().value(row);
                letters.push((offset, String::from_utf8(value.to_vec()).unwrap(), reason.to_owned()));
                if reason == "transform_failed" {
                    let told = [11, 12].map(|column| batch.column(column).as_string::<i32>().value(row));
                    assert_eq!(told, ["n", "string that is no int"]);
                }
                assert_eq!(batch.column(5).as_binary::<i32>().value(row), b"key");
                assert_eq!(batch.column(7).as_list::<i32>().value(row).len(), 1);
            }
        }
        letters.sort();
        let expected = [(1, "transform_failed"), (2, "wrong_type"), (4, "transform_failed")];
        for (letter, (offset, reason)) in letters.iter().zip(expected) {
            assert_eq!((letter.0, letter.2.as_str()), (offset, reason));
            assert_eq!(letter.1, VALUES[usize::try_from(offset).unwrap()]);
        }
        assert_eq!((letters.len(), intake.bytes(), intake.rows()), (3, 0, 0));
    }

    #[test]
    fn rows_that_fail_are_counted_where_none_are_kept() {
        let mut intake = cast(DlqMode::Skip);
        assert_eq!(fill(&mut intake, &VALUES), 6);
        assert!(intake.undecided.is_none(), "no record is copied that nobody will ask for");
        let taken = intake.take_buffer().unwrap();
        assert!(taken.dead_letters.is_empty());
        assert_eq!(taken.rejected.iter().map(|count| count.records).sum::<u64>(), 4);
    }

    #[test]
    fn a_record_to_stop_at_is_told_with_its_field() {
        let mut intake = cast(DlqMode::Stop);
        assert_eq!(fill(&mut intake, &VALUES[..1]), 1);
        let (partition, offset, timestamp_ms, key) = (0, 1, None, None);
        let (value, headers) = (Some(VALUES[2].as_bytes()), Headers::empty());
        let record = Record { partition, offset, timestamp_ms, key, value, headers };
        assert_eq!(intake.take(&record), Visit::Blocked);
        let spec = siltstone_spec::parse(CAST, "spec.yaml", &|_| None).unwrap().tables.remove(0);
        let error = intake.take_halt().unwrap().need(&spec).unwrap_err().to_string();
        assert_eq!(
            error,
            "table a.b: record rejected at topic t, partition 0, offset 1: wrong_type at k: string where long is \
             wanted; mend the producer, or set dlq_mode: dead_letter to keep such records aside, or dlq_mode: skip"
        );
    }

    #[test]
    fn a_row_to_stop_at_keeps_the_buffer_from_being_committed() {
        let mut intake = cast(DlqMode::Stop);
        assert_eq!(fill(&mut intake, &VALUES[..2]), 2);
        assert_eq!(intake.undecided_bytes(), 2 * size_of::<Place>());
        intake.close_batch();
        let is_first = |halt: &Halt| {
            matches!(halt, Halt::Rejected { place: Place { partition: 0, offset: 1, schema_id: None }, .. })
        };
        assert!(intake.take_halt().as_ref().is_some_and(is_first));
        for _ in 0..2 {
            assert!(intake.take_buffer().as_ref().is_err_and(is_first), "whoever asks, and however often");
        }
        let spec = siltstone_spec::parse(CAST, "spec.yaml", &|_| None).unwrap().tables.remove(0);
        let error = intake.take_buffer().unwrap_err().need(&spec).unwrap_err().to_string();
        assert_eq!(
            error,
            "table a.b: record rejected at topic t, partition 0, offset 1: transform_failed at n: string that is no \
             int; mend the producer, change transforms, or set dlq_mode: dead_letter to keep such records aside, or \
             dlq_mode: skip"
        );
        intake.clear().unwrap();
        assert_eq!(intake.take_buffer().unwrap().batches.len(), 0);
    }

    #[test]
    fn a_batch_that_lost_rows_keeps_the_buffer_from_being_committed() {
        let mut intake = cast(DlqMode::DeadLetter);
        assert_eq!(fill(&mut intake, &VALUES[..2]), 2);
        // Without its record, the row that fails is lost.
        intake.undecided = None;
        intake.close_batch();
        assert!(matches!(intake.take_halt(), Some(Halt::Failed(_))));
        assert_eq!(fill(&mut intake, &VALUES), 0, "nothing more is taken");
        for _ in 0..2 {
            assert!(matches!(intake.take_buffer(), Err(Halt::Failed(_))), "whoever asks, and however often");
        }
        intake.clear().unwrap();
        assert_eq!((intake.take_buffer().unwrap().batches.len(), intake.bytes()), (0, 0));
    }
}
