//! The records of one file after the other, as batches of the table.
//!
//! Each record is a row or a rejection, and the range that goes out with a batch holds exactly its records, so that
//! an import which ends anywhere goes on with the next record.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use siltstone_datafile::{DataFileError, ParquetFile};
use siltstone_ingest::{
    Headers, IngestError, Record,
    dead_letter::{About, DeadLetters},
    decoder::{Decoder, Learned, Pushed, SchemaNeed},
    files::{ContainerFile, FileFault, FileFormat, FileInput, Lines, file_table, unpacked},
};
use siltstone_lakehouse::LakeError;
use siltstone_protocol::{ErrorKind, RejectReason, Schema, SchemaHistory};
use siltstone_spec::{
    DlqMode,
    evolve::{Merge, Rules, merge},
    plan::given_up,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    input::{Failure, ObjectInput},
    list::SourceFile,
    plan::{Task, source_of},
    reader::{Event, FILE_BYTES_MIN, Known, Rows, Shared},
};
use crate::error::{ForTable, WorkerError, rejection};

/// A batch is handed over at this many rows or bytes.
const BATCH_ROWS_MAX: usize = 65_536;
const BATCH_BYTES_MAX: usize = 4 << 20;
const SCHEMA_TRIES_MAX: u32 = 10;
/// What stands for the cluster in dead letters of files: the topic is the file's digest, the offset the record.
pub(super) const CLUSTER: &str = "files";
/// The header of a dead letter that names its file.
const FILE_HEADER: &str = "siltstone.file";

/// Why reading a file ended before its end.
enum Ended {
    /// Nobody takes what is read.
    Closed,
    Failed(String),
    Fatal(WorkerError),
}

type Read<T> = Result<T, Ended>;

/// A reader's thread: what it keeps from file to file.
pub(super) struct Reading<'a> {
    shared: &'a Shared,
    events: &'a mpsc::Sender<Event>,
    /// The decoder of the file before, and the schema that it was made for.
    decoder: Option<(FileFormat, String, Decoder)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(shared: &'a Shared, events: &'a mpsc::Sender<Event>) -> Self {
        Self { shared, events, decoder: None }
    }

    /// Reads a file. False: nobody takes what is read.
    pub(super) fn file(&mut self, task: Task) -> bool {
        let Some(file) = self.shared.listed.get(task.file) else { return true };
        let mut out = Out {
            shared: self.shared,
            events: self.events,
            file,
            number: task.file,
            start: task.start,
            next: task.start,
            dead_letters: None,
            dead_bytes: 0,
            rejected: BTreeMap::new(),
        };
        let read = match file.format {
            FileFormat::Parquet => parquet(&mut out),
            format => self.records(&mut out, format),
        };
        let event = match read {
            Ok(()) => Event::End { file: task.file, at: out.next },
            Err(Ended::Failed(why)) => {
                self.decoder = None;
                Event::Failed { file: task.file, why }
            }
            Err(Ended::Fatal(error)) => Event::Fatal(error),
            Err(Ended::Closed) => return false,
        };
        self.events.blocking_send(event).is_ok()
    }

    fn records(&mut self, out: &mut Out<'_>, format: FileFormat) -> Read<()> {
        let shared = self.shared;
        let _memory = shared.handle.block_on(shared.budget.reserve(FILE_BYTES_MIN));
        let (input, failure) = ObjectInput::new(
            &shared.source,
            out.file,
            shared.handle.clone(),
            std::sync::Arc::clone(&shared.progress),
        );
        let input = unpacked(Box::new(input), shared.packing)
            .map_err(|fault| failed(&shared.spec.name, fault, &failure))?;
        let read = match format {
            FileFormat::Json => self.lines(out, input),
            _ => self.container(out, input),
        };
        read.map_err(|ended| match ended {
            Stopped::Fault(fault) => failed(&shared.spec.name, fault, &failure),
            Stopped::Ended(ended) => ended,
        })
    }

    fn container(&mut self, out: &mut Out<'_>, input: Box<dyn FileInput>) -> Result<(), Stopped> {
        let mut file = ContainerFile::open(input)?;
        let schema = file.schema().to_owned();
        let mut decoder = self.decoder(out, FileFormat::Avro, schema)?;
        let from = out.next;
        while let Some(block) = file.next_block(from)? {
            let mut at = 0;
            for number in block.first..block.first + block.records {
                let rest = block.bytes.get(at..).unwrap_or_default();
                if number < from {
                    let length = decoder.skip_first(rest);
                    at += length.ok_or(FileFault::Damaged("a record that was read before cannot be read"))?;
                    continue;
                }
                let (pushed, length) = loop {
                    match decoder.push_first(rest) {
                        (Pushed::Full, _) => out.batch(&mut decoder)?,
                        other => break other,
                    }
                };
                match (pushed, length) {
                    (Pushed::Row, Some(length)) => at += length,
                    (Pushed::Rejected { reason, .. }, Some(length)) => {
                        out.reject(number, rest.get(..length), reason, decoder.about())?;
                        at += length;
                    }
                    (Pushed::Rejected { reason, .. }, None) => {
                        // Where it ends nobody can say, so the others of the block are lost with it.
                        out.reject(number, Some(rest), reason, decoder.about())?;
                        for lost in number + 1..block.first + block.records {
                            out.next = lost;
                            if out.is_full(&decoder) {
                                out.batch(&mut decoder)?;
                            }
                            out.reject(lost, None, reason, None)?;
                        }
                        at = block.bytes.len();
                        out.next = block.first + block.records;
                        break;
                    }
                    _ => return Err(FileFault::Damaged("a record of it cannot be decoded").into()),
                }
                out.next = number + 1;
                if out.is_full(&decoder) {
                    out.batch(&mut decoder)?;
                }
            }
            if at != block.bytes.len() {
                return Err(FileFault::Damaged("a block of it holds more than its records").into());
            }
        }
        out.batch(&mut decoder)?;
        self.keep(FileFormat::Avro, file.schema().to_owned(), decoder);
        Ok(())
    }

    fn lines(&mut self, out: &mut Out<'_>, input: Box<dyn FileInput>) -> Result<(), Stopped> {
        let mut decoder = self.decoder(out, FileFormat::Json, String::new())?;
        let mut lines = Lines::new(input);
        let from = out.next;
        while let Some((number, line)) = lines.next_line()? {
            if number < from {
                continue;
            }
            let record = out.record(number, Some(line));
            let pushed = loop {
                match decoder.push(&record) {
                    Pushed::Full => out.batch(&mut decoder)?,
                    pushed => break pushed,
                }
            };
            match pushed {
                Pushed::Row => {}
                Pushed::Rejected { reason, .. } | Pushed::Skipped(reason) => {
                    out.reject(number, Some(line), reason, decoder.about())?;
                }
                _ => return Err(FileFault::Damaged("a line of it cannot be decoded").into()),
            }
            out.next = number + 1;
            if out.is_full(&decoder) {
                out.batch(&mut decoder)?;
            }
        }
        out.batch(&mut decoder)?;
        self.keep(FileFormat::Json, String::new(), decoder);
        Ok(())
    }

    fn keep(&mut self, format: FileFormat, writer: String, decoder: Decoder) {
        self.decoder = Some((format, writer, decoder));
    }

    /// A decoder of records of this schema, for the table as it is by then.
    fn decoder(&mut self, out: &Out<'_>, format: FileFormat, writer: String) -> Read<Decoder> {
        let known = self.shared.known();
        let schema = known.as_ref().map(|known| &*known.schema);
        let same = |(of, schema, _): &(FileFormat, String, Decoder)| (*of, schema) == (format, &writer);
        if let Some((.., decoder)) = self.decoder.take().filter(same)
            && decoder.table_schema().map(|schema| schema.schema_id) == schema.map(|schema| schema.schema_id)
        {
            return Ok(decoder);
        }
        let spec = file_table(&self.shared.spec, format, Some(&writer), schema);
        let decoder = Decoder::new(&spec, schema.cloned());
        let mut decoder = decoder.map_err(|error| Ended::Failed(error.to_string()))?;
        if let Some(known) = &known {
            decoder.set_history(SchemaHistory::clone(&known.names));
        }
        out.learn(&mut decoder)?;
        Ok(decoder)
    }
}

/// Why a file of records was not read to its end.
enum Stopped {
    Fault(FileFault),
    Ended(Ended),
}

impl From<FileFault> for Stopped {
    fn from(fault: FileFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Ended> for Stopped {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// What is wrong: the file, or the way to it.
fn failed(table: &str, fault: FileFault, failure: &Failure) -> Ended {
    let behind: Option<LakeError> = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match behind {
        // Other files would not come either.
        Some(error) if error.kind() == ErrorKind::Unavailable => {
            Ended::Fatal(WorkerError::Lake { table: table.to_owned(), source: Box::new(error) })
        }
        Some(error) => Ended::Failed(error.to_string()),
        None => Ended::Failed(fault.to_string()),
    }
}

/// What is wrong with a Parquet file, or the way to it.
fn unreadable(table: &str, error: DataFileError) -> Ended {
    match error.kind() {
        ErrorKind::Unavailable => {
            Ended::Fatal(WorkerError::DataFile { table: table.to_owned(), source: Box::new(error) })
        }
        _ => Ended::Failed(error.to_string()),
    }
}

/// A Parquet file, row group after row group.
fn parquet(out: &mut Out<'_>) -> Read<()> {
    let shared = out.shared;
    let table = shared.spec.name.as_str();
    // A small file is held whole as soon as it is open.
    let mut memory = shared.handle.block_on(shared.budget.reserve(FILE_BYTES_MIN));
    let open = ParquetFile::open(&shared.source, &out.file.path, out.file.bytes);
    let file = shared.handle.block_on(open).map_err(|error| unreadable(table, error))?;
    if file.held_bytes() > FILE_BYTES_MIN {
        // Given back first: two that wait for more with something in hand would wait for ever.
        drop(memory);
        memory = shared.handle.block_on(shared.budget.reserve(file.held_bytes()));
    }
    let _memory = memory;
    let (known, view) = settle(out, &file)?;
    let rows = file.rows_from(&known.schema, &view, out.next).map_err(|error| unreadable(table, error))?;
    let (bytes, all) = (u128::from(out.file.bytes), u128::from(file.rows().max(1)));
    let share = |rows: u64| u64::try_from(bytes * u128::from(rows) / all).unwrap_or(0);
    let mut told_bytes = share(out.next);
    shared.progress.bytes(told_bytes);
    for batch in rows.map_err(|fault| Ended::Failed(fault.to_string()))? {
        let batch = batch.map_err(|error| unreadable(table, error))?;
        for (number, reason) in &batch.rejected {
            out.reject(*number, None, *reason, None)?;
        }
        out.next = batch.start + batch.rows;
        out.send((batch.batch.num_rows() > 0).then_some(batch.batch))?;
        shared.progress.bytes(share(out.next).saturating_sub(told_bytes));
        told_bytes = share(out.next);
    }
    // Its parts were asked for one by one.
    let head = shared.handle.block_on(shared.source.head(&out.file.path));
    match head {
        Ok(head) if head.size == out.file.bytes && head.e_tag == out.file.etag => Ok(()),
        Ok(_) => Err(Ended::Failed("it was changed while it was read; try again".to_owned())),
        Err(_) => Err(Ended::Failed("the object store does not answer; try again".to_owned())),
    }
}

/// The table, once it takes the rows of this file, and its schema as the file calls the columns.
fn settle(out: &Out<'_>, file: &ParquetFile) -> Read<(Known, Schema)> {
    let natural =
        |table: Option<&Schema>| file.schema(table).map_err(|fault| Ended::Failed(fault.to_string()));
    for _ in 0..SCHEMA_TRIES_MAX {
        let Some(known) = out.shared.known() else {
            out.ask(natural(None)?)?;
            continue;
        };
        let natural = natural(Some(&known.schema))?;
        if let Some((column, how)) = given_up(&known.names, &known.schema, &natural) {
            return Err(Ended::Failed(IngestError::GivenUp { column, how }.to_string()));
        }
        let last_field_id = known.names.last_field_id();
        let rules = Rules { last_field_id, ..Rules::of(&out.shared.spec) };
        match merge(&known.schema, &natural, rules) {
            Merge::Same { view } => return Ok((known, view)),
            Merge::Evolves(schema) => {
                out.ask(schema)?;
            }
            Merge::Refused(mismatch) => {
                let why = format!("column {}: {mismatch}", mismatch.field);
                return Err(Ended::Failed(why));
            }
        }
    }
    Err(Ended::Failed("the table's schema did not settle".to_owned()))
}

/// What of a file goes out.
struct Out<'a> {
    shared: &'a Shared,
    events: &'a mpsc::Sender<Event>,
    file: &'a SourceFile,
    number: usize,
    /// The first record that did not go out yet, and the one after the last that was read.
    start: u64,
    next: u64,
    dead_letters: Option<DeadLetters>,
    /// What those hold, about.
    dead_bytes: usize,
    rejected: BTreeMap<RejectReason, u64>,
}

impl Out<'_> {
    fn record<'r>(&self, number: u64, value: Option<&'r [u8]>) -> Record<'r> {
        let offset = i64::try_from(number).unwrap_or(i64::MAX);
        let headers = Headers::empty();
        Record { partition: 0, offset, timestamp_ms: None, key: None, value, headers }
    }

    /// Rows that the decoder holds, and everything else up to here.
    fn batch(&mut self, decoder: &mut Decoder) -> Read<()> {
        let batch = decoder.finish().for_table(&self.shared.spec.name).map_err(Ended::Fatal)?;
        self.send(batch)
    }

    fn send(&mut self, batch: Option<RecordBatch>) -> Read<()> {
        let dead_letters = match &mut self.dead_letters {
            Some(letters) => letters.finish().for_table(&self.shared.spec.name).map_err(Ended::Fatal)?,
            None => None,
        };
        self.dead_bytes = 0;
        if self.start == self.next && batch.is_none() && dead_letters.is_none() {
            return Ok(());
        }
        let rows = Rows {
            file: self.number,
            start: self.start,
            end: self.next,
            batch,
            dead_letters,
            rejected: std::mem::take(&mut self.rejected),
        };
        self.shared.progress.rows(self.next - self.start);
        self.start = self.next;
        self.events.blocking_send(Event::Rows(rows)).map_err(|_| Ended::Closed)
    }

    /// A record that cannot be a row. It stays with the rows before it: they go out together.
    fn reject(
        &mut self,
        number: u64,
        value: Option<&[u8]>,
        reason: RejectReason,
        about: Option<&About>,
    ) -> Read<()> {
        let spec = &self.shared.spec;
        match spec.dlq_mode {
            DlqMode::Skip => {}
            DlqMode::Stop => {
                return Err(Ended::Fatal(WorkerError::SourceFile {
                    table: spec.name.clone(),
                    file: self.file.url.clone(),
                    what: format!(
                        "record {number}: {}; mend the file, or set dlq_mode to dead_letter or skip",
                        rejection(reason, None, about)
                    ),
                }));
            }
            DlqMode::DeadLetter => self.bury(number, value, reason, about)?,
        }
        *self.rejected.entry(reason).or_default() += 1;
        Ok(())
    }

    fn bury(
        &mut self,
        number: u64,
        value: Option<&[u8]>,
        reason: RejectReason,
        about: Option<&About>,
    ) -> Read<()> {
        let Some(known) = self.shared.known() else {
            return Err(Ended::Failed("it has no record that tells the table's columns".to_owned()));
        };
        let letters = match &mut self.dead_letters {
            Some(letters) => letters,
            none => {
                let source = source_of(self.file, &known.token_key);
                let letters = DeadLetters::new(CLUSTER, &source).for_table(&self.shared.spec.name);
                none.insert(letters.map_err(Ended::Fatal)?)
            }
        };
        let headers = [(FILE_HEADER, Some(self.file.url.as_bytes()))];
        let offset = i64::try_from(number).unwrap_or(i64::MAX);
        let (timestamp_ms, key, headers) = (None, None, Headers::pairs(&headers));
        let record = Record { partition: 0, offset, timestamp_ms, key, value, headers };
        let now_ms = self.shared.identity.now_ms();
        // What is larger than everything that may be held is told without its bytes.
        let taken = letters.push_about(&record, reason, None, about, now_ms)
            || letters.push_about(&Record { value: None, ..record }, reason, None, about, now_ms);
        self.dead_bytes = letters.bytes();
        if taken { Ok(()) } else { Err(Ended::Failed("its rejected records cannot be kept".to_owned())) }
    }

    /// True when what was read should go out.
    fn is_full(&self, decoder: &Decoder) -> bool {
        decoder.rows() >= BATCH_ROWS_MAX || decoder.bytes().max(self.dead_bytes) >= BATCH_BYTES_MAX
    }

    /// Has the decoder and the table know the schema of the file.
    fn learn(&self, decoder: &mut Decoder) -> Read<()> {
        let Shared { handle, registry, spec, .. } = self.shared;
        for _ in 0..SCHEMA_TRIES_MAX {
            match handle.block_on(decoder.learn(SchemaNeed::Latest, registry.as_deref())) {
                Ok(Learned::Ready) => return Ok(()),
                Ok(Learned::Refused(reason)) => {
                    return Err(Ended::Failed(format!("the table cannot take its schema: {reason}")));
                }
                Ok(Learned::Stops(error)) => return Err(Ended::Failed(error.to_string())),
                Ok(Learned::Evolves(schema)) => {
                    let known = self.ask(schema)?;
                    decoder.set_history(SchemaHistory::clone(&known.names));
                    let set = decoder.set_table_schema(Schema::clone(&known.schema));
                    set.for_table(&spec.name).map_err(Ended::Fatal)?;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let (table, source) = (spec.name.clone(), Box::new(error));
                    return Err(Ended::Fatal(WorkerError::Ingest { table, source }));
                }
                Err(error) => return Err(Ended::Failed(error.to_string())),
            }
        }
        Err(Ended::Failed("the table's schema did not settle".to_owned()))
    }

    /// Asks for the table to become this.
    fn ask(&self, schema: Schema) -> Read<Known> {
        let (answer, answered) = oneshot::channel();
        let wants = Event::Wants { schema, answer };
        self.events.blocking_send(wants).map_err(|_| Ended::Closed)?;
        let known = answered.blocking_recv().map_err(|_| Ended::Closed)?;
        let known = known.ok_or_else(|| {
            Ended::Failed("a format of the table has no form for what its schema would become".to_owned())
        })?;
        self.shared.set_known(known.clone());
        Ok(known)
    }
}
