//! The records of one file after the other, as batches of the table.
//!
//! What a file holds at once decides what is reserved for it: most need the least that is reserved for any. One with a
//! larger block, line or window is begun again with more, until all that readers have together is not enough for it.

use std::sync::Arc;

use siltstone_ingest::{
    decoder::{Decoder, Learned, Pushed, SchemaNeed},
    files::{ContainerFile, FileFault, FileFormat, FileInput, Lines, Room, unpacked},
};
use siltstone_protocol::{ErrorKind, Schema, SchemaHistory};
use tokio::sync::mpsc;

use super::{
    columns::parquet,
    input::{Failure, Lost, ObjectInput},
    out::{Ended, Out, Read, Rejection},
    plan::Task,
    progress::Attempt,
    reader::{Event, FILE_BYTES_BESIDE, FILE_BYTES_MIN, READERS_SHARE, Shared},
};
use crate::error::{ForTable, WorkerError};

const SCHEMA_TRIES_MAX: u32 = 10;

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
        let mut out = Out::new(self.shared, self.events, file, task);
        let read = match file.format {
            FileFormat::Parquet => parquet(&mut out, true),
            format => self.records(&mut out, format, true),
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

    /// Has the table be made of a file's columns; its rows are not read. True: of another file, then.
    pub(super) fn found(&mut self, task: Task) -> bool {
        let Some(file) = self.shared.listed.get(task.file) else { return true };
        let mut out = Out::new(self.shared, self.events, file, task);
        let read = match file.format {
            FileFormat::Parquet => parquet(&mut out, false),
            format => self.records(&mut out, format, false),
        };
        match read {
            Ok(()) | Err(Ended::Closed) => false,
            Err(Ended::Failed(why)) => {
                self.events.blocking_send(Event::Unfit { file: task.file, why }).is_ok()
            }
            Err(Ended::Fatal(error)) => {
                // Nobody may be left to hear of it.
                let _ = self.events.blocking_send(Event::Fatal(error));
                false
            }
        }
    }

    fn records(&mut self, out: &mut Out<'_>, format: FileFormat, rows: bool) -> Read<()> {
        let shared = self.shared;
        let mut reserved = FILE_BYTES_MIN;
        loop {
            // Nothing is in hand while it waits: two that wait for more would wait for ever.
            let memory = shared.handle.block_on(shared.budget.reserve(reserved));
            let room = Room::new(reserved - FILE_BYTES_BESIDE);
            let attempt = Attempt::new(rows.then(|| Arc::clone(&shared.progress)));
            let handle = shared.handle.clone();
            let (input, failure) = ObjectInput::new(&shared.source, out.file, handle, Arc::clone(&attempt));
            let read = self.attempt(out, format, Box::new(input), room, rows);
            drop(memory);
            let (what, bytes) = match read {
                Ok(()) => return out.unchanged(),
                Err(Stopped::Ended(ended)) => return Err(ended),
                Err(Stopped::Fault(FileFault::TooLarge { what, bytes })) => (what, bytes),
                Err(Stopped::Fault(fault)) => return Err(failed(out, fault, &failure)),
            };
            let (needed, limit) = (bytes.saturating_add(FILE_BYTES_BESIDE), shared.budget.limit());
            if reserved >= limit || needed > limit {
                return Err(too_large(what, needed.max(reserved + 1), limit));
            }
            out.rewind();
            attempt.take_back();
            reserved = needed.max(2 * reserved).min(limit);
        }
    }

    fn attempt(
        &mut self,
        out: &mut Out<'_>,
        format: FileFormat,
        input: Box<dyn FileInput>,
        mut room: Room,
        rows: bool,
    ) -> Result<(), Stopped> {
        let input = unpacked(input, self.shared.packing, &mut room)?;
        match format {
            FileFormat::Json => self.lines(out, input, room),
            _ => self.container(out, input, room, rows),
        }
    }

    fn container(
        &mut self,
        out: &mut Out<'_>,
        input: Box<dyn FileInput>,
        room: Room,
        rows: bool,
    ) -> Result<(), Stopped> {
        let mut file = ContainerFile::open(input, room)?;
        let schema = file.schema().to_owned();
        let mut decoder = self.decoder(out, FileFormat::Avro, schema)?;
        if !rows {
            self.keep(FileFormat::Avro, file.schema().to_owned(), decoder);
            return Ok(());
        }
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
                    (Pushed::Row, Some(length)) => {
                        out.keep(&decoder, number, rest.get(..length).unwrap_or_default())?;
                        at += length;
                    }
                    (Pushed::Rejected { reason, .. }, Some(length)) => {
                        let (value, about) = (rest.get(..length), decoder.about());
                        out.reject(Rejection { number, value, reason, about })?;
                        at += length;
                    }
                    (Pushed::Rejected { reason, .. }, None) => {
                        // Where it ends nobody can say, so the others of the block are lost with it.
                        let (value, about) = (Some(rest), decoder.about());
                        out.reject(Rejection { number, value, reason, about })?;
                        for lost in number + 1..block.first + block.records {
                            out.next = lost;
                            if out.is_full(&decoder) {
                                out.batch(&mut decoder)?;
                            }
                            out.reject(Rejection { number: lost, value: None, reason, about: None })?;
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

    fn lines(&mut self, out: &mut Out<'_>, input: Box<dyn FileInput>, room: Room) -> Result<(), Stopped> {
        let mut decoder = self.decoder(out, FileFormat::Json, String::new())?;
        let mut lines = Lines::new(input, room);
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
                Pushed::Row => out.keep(&decoder, number, line)?,
                Pushed::Rejected { reason, .. } | Pushed::Skipped(reason) => {
                    let (value, about) = (Some(line), decoder.about());
                    out.reject(Rejection { number, value, reason, about })?;
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
        let decoder = self.shared.table.decoder(format, &writer, schema);
        let mut decoder = decoder.map_err(|error| Ended::Failed(error.to_string()))?;
        if let Some(known) = &known {
            decoder.set_history(SchemaHistory::clone(&known.names));
        }
        self.learn(out, &mut decoder)?;
        Ok(decoder)
    }

    /// Has the decoder and the table know the schema of the file.
    fn learn(&self, out: &Out<'_>, decoder: &mut Decoder) -> Read<()> {
        let Shared { handle, registry, spec, .. } = self.shared;
        for _ in 0..SCHEMA_TRIES_MAX {
            match handle.block_on(decoder.learn(SchemaNeed::Latest, registry.as_deref())) {
                Ok(Learned::Ready) => return Ok(()),
                Ok(Learned::Refused(reason)) => {
                    return Err(Ended::Failed(format!("the table cannot take its schema: {reason}")));
                }
                Ok(Learned::Stops(error)) => return Err(Ended::Failed(error.to_string())),
                Ok(Learned::Evolves(schema)) => {
                    let known = out.ask(schema)?;
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
fn failed(out: &Out<'_>, fault: FileFault, failure: &Failure) -> Ended {
    let behind = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match behind {
        Some(Lost::Replaced) => out.replaced(),
        // Other files would not come either.
        Some(Lost::Store(error)) if error.kind() == ErrorKind::Unavailable => {
            Ended::Fatal(WorkerError::Lake { table: out.shared.spec.name.clone(), source: Box::new(error) })
        }
        Some(Lost::Store(error)) => Ended::Failed(error.to_string()),
        None => Ended::Failed(fault.to_string()),
    }
}

/// All that readers have is not enough for a part of the file.
fn too_large(what: &str, needed: u64, limit: u64) -> Ended {
    let (mib, memory) = (needed.div_ceil(1 << 20), (READERS_SHARE * needed).div_ceil(1 << 20));
    Ended::Failed(format!(
        "{what} takes {mib} MiB or more to be read, and all files together may take {} MiB, a quarter of --memory; give it at \
         least --memory {memory}MiB",
        limit >> 20
    ))
}
