//! What of a file goes out: batches of rows, with the rejected records among them.
//!
//! The range that goes out with a batch holds exactly its records, so that an import which ends anywhere goes on with
//! the next record. Where the table's transforms can fail, that is known of a row only when its batch is closed: until
//! then its record is kept, as it would be as a dead letter.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use siltstone_ingest::{
    Headers, Record,
    dead_letter::{About, DeadLetters},
    decoder::{Decoder, Finished},
};
use siltstone_protocol::{RejectReason, Schema};
use siltstone_spec::DlqMode;
use tokio::sync::{mpsc, oneshot};

use super::{
    list::SourceFile,
    plan::{Task, source_of},
    reader::{Event, Known, Rows, Shared},
};
use crate::error::{ForTable, WorkerError, rejection};

/// A batch is handed over at this many rows or bytes.
const BATCH_ROWS_MAX: usize = 65_536;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What stands for the cluster in dead letters of files: the topic is the file's digest, the offset the record.
const CLUSTER: &str = "files";
/// The header of a dead letter that names its file.
const FILE_HEADER: &str = "siltstone.file";

/// Why reading a file ended before its end.
pub(super) enum Ended {
    /// Nobody takes what is read.
    Closed,
    Failed(String),
    Fatal(WorkerError),
}

pub(super) type Read<T> = Result<T, Ended>;

/// A record that is no row, and what that is about.
#[derive(Clone, Copy)]
pub(super) struct Rejection<'a> {
    pub(super) number: u64,
    pub(super) value: Option<&'a [u8]>,
    pub(super) reason: RejectReason,
    pub(super) about: Option<&'a About>,
}

/// What of one file goes out.
pub(super) struct Out<'a> {
    pub(super) shared: &'a Shared,
    pub(super) file: &'a SourceFile,
    /// The record after the last that was read.
    pub(super) next: u64,
    events: &'a mpsc::Sender<Event>,
    number: usize,
    /// The first record that did not go out yet.
    start: u64,
    dead_letters: Option<DeadLetters>,
    /// What those hold, about.
    dead_bytes: usize,
    rejected: BTreeMap<RejectReason, u64>,
    /// The records of the rows that are being decoded, as long as their transforms may fail.
    undecided: Vec<u64>,
    undecided_letters: Option<DeadLetters>,
    /// Dead letters among those of the batch that was closed.
    decided: Option<RecordBatch>,
}

impl<'a> Out<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        events: &'a mpsc::Sender<Event>,
        file: &'a SourceFile,
        task: Task,
    ) -> Self {
        Self {
            shared,
            file,
            next: task.start,
            events,
            number: task.file,
            start: task.start,
            dead_letters: None,
            dead_bytes: 0,
            rejected: BTreeMap::new(),
            undecided: Vec::new(),
            undecided_letters: None,
            decided: None,
        }
    }

    /// Forgets what did not go out: it is read again.
    pub(super) fn rewind(&mut self) {
        self.next = self.start;
        (self.dead_letters, self.undecided_letters, self.decided) = (None, None, None);
        self.dead_bytes = 0;
        self.rejected.clear();
        self.undecided.clear();
    }

    pub(super) fn record<'r>(&self, number: u64, value: Option<&'r [u8]>) -> Record<'r> {
        let offset = i64::try_from(number).unwrap_or(i64::MAX);
        let headers = Headers::empty();
        Record { partition: 0, offset, timestamp_ms: None, key: None, value, headers }
    }

    /// The record became a row of the decoder's batch: it is kept while that may fail.
    pub(super) fn keep(&mut self, decoder: &Decoder, number: u64, value: &[u8]) -> Read<()> {
        if !decoder.can_fail() {
            return Ok(());
        }
        self.undecided.push(number);
        if self.shared.spec.dlq_mode != DlqMode::DeadLetter {
            return Ok(());
        }
        let mut letters = match self.undecided_letters.take() {
            Some(letters) => letters,
            None => self.letters()?,
        };
        let (value, reason, about) = (Some(value), RejectReason::TransformFailed, None);
        let kept = self.push(&mut letters, Rejection { number, value, reason, about });
        self.undecided_letters = Some(letters);
        kept
    }

    /// True when what was read should go out.
    pub(super) fn is_full(&self, decoder: &Decoder) -> bool {
        let undecided = self.undecided_letters.as_ref().map_or(0, DeadLetters::bytes);
        let bytes = (decoder.bytes() + undecided).max(self.dead_bytes);
        decoder.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX
    }

    /// Rows that the decoder holds, and everything else up to here.
    pub(super) fn batch(&mut self, decoder: &mut Decoder) -> Read<()> {
        let closed = decoder.close().for_table(&self.shared.spec.name).map_err(Ended::Fatal)?;
        let batch = match closed {
            Some(finished) => self.decide(finished)?,
            None => None,
        };
        self.send(batch)
    }

    /// Takes what became of a batch whose records were kept.
    fn decide(&mut self, finished: Finished) -> Read<Option<RecordBatch>> {
        let name = &self.shared.spec.name;
        let Finished { batch, filtered, failed } = finished;
        self.filtered(filtered);
        let numbers = std::mem::take(&mut self.undecided);
        if let Some(letters) = &mut self.undecided_letters {
            self.decided = letters.finish_failed(&failed).for_table(name).map_err(Ended::Fatal)?;
        }
        let Some(first) = failed.first() else { return Ok(batch) };
        let number = numbers.get(first.row).copied().ok_or_else(|| {
            let what = "a row failed whose record was not kept";
            Ended::Fatal(WorkerError::Internal { table: name.clone(), what })
        })?;
        let reason = RejectReason::TransformFailed;
        if self.shared.spec.dlq_mode == DlqMode::Stop {
            return Err(self.stopped(number, reason, Some(&first.about)));
        }
        *self.rejected.entry(reason).or_default() += failed.len() as u64;
        Ok(batch)
    }

    /// Counts rows that the table's filter left out.
    pub(super) fn filtered(&mut self, rows: usize) {
        if rows > 0 {
            *self.rejected.entry(RejectReason::Filtered).or_default() += rows as u64;
        }
    }

    pub(super) fn send(&mut self, batch: Option<RecordBatch>) -> Read<()> {
        let mut dead_letters: Vec<RecordBatch> = self.decided.take().into_iter().collect();
        if let Some(letters) = &mut self.dead_letters {
            let finished = letters.finish().for_table(&self.shared.spec.name);
            dead_letters.extend(finished.map_err(Ended::Fatal)?);
        }
        self.dead_bytes = 0;
        if self.start == self.next && batch.is_none() && dead_letters.is_empty() {
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
    pub(super) fn reject(&mut self, rejected: Rejection<'_>) -> Read<()> {
        let Rejection { number, reason, about, .. } = rejected;
        match self.shared.spec.dlq_mode {
            DlqMode::Skip => {}
            DlqMode::Stop => return Err(self.stopped(number, reason, about)),
            DlqMode::DeadLetter => {
                let mut letters = match self.dead_letters.take() {
                    Some(letters) => letters,
                    None => self.letters()?,
                };
                let taken = self.push(&mut letters, rejected);
                self.dead_bytes = letters.bytes();
                self.dead_letters = Some(letters);
                taken?;
            }
        }
        *self.rejected.entry(reason).or_default() += 1;
        Ok(())
    }

    fn stopped(&self, number: u64, reason: RejectReason, about: Option<&About>) -> Ended {
        Ended::Fatal(WorkerError::SourceFile {
            table: self.shared.spec.name.clone(),
            file: self.file.url.clone(),
            what: format!(
                "record {number}: {}; mend the file, or set dlq_mode to dead_letter or skip",
                rejection(reason, None, about)
            ),
        })
    }

    fn letters(&self) -> Read<DeadLetters> {
        let Some(known) = self.shared.known() else {
            return Err(Ended::Failed("it has no record that tells the table's columns".to_owned()));
        };
        let letters = DeadLetters::new(CLUSTER, &source_of(self.file, &known.token_key));
        letters.for_table(&self.shared.spec.name).map_err(Ended::Fatal)
    }

    fn push(&self, letters: &mut DeadLetters, rejected: Rejection<'_>) -> Read<()> {
        let Rejection { number, value, reason, about } = rejected;
        let headers = [(FILE_HEADER, Some(self.file.url.as_bytes()))];
        let record = Record { headers: Headers::pairs(&headers), ..self.record(number, value) };
        let now_ms = self.shared.identity.now_ms();
        // What is larger than everything that may be held is told without its bytes.
        let taken = letters.push_about(&record, reason, None, about, now_ms)
            || letters.push_about(&Record { value: None, ..record }, reason, None, about, now_ms);
        if taken { Ok(()) } else { Err(Ended::Failed("its rejected records cannot be kept".to_owned())) }
    }

    /// Asks for the table to become this.
    pub(super) fn ask(&self, schema: Schema) -> Read<Known> {
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

    /// The file has another content by now. What went out of the one that was listed stays in the table, and a new one
    /// under the same name is then refused.
    pub(super) fn replaced(&self) -> Ended {
        let next = match self.start {
            0 => "run it again to read the new one",
            _ => {
                "records of the old one are in the table: give the new one another name, or read on where that ended \
                 with --resume-changed"
            }
        };
        Ended::Failed(format!("it was replaced while it was read; {next}"))
    }

    /// Where the store tells no content from another by a tag, each part of a file was asked for without one.
    pub(super) fn unchanged(&self) -> Read<()> {
        if self.file.etag.is_some() {
            return Ok(());
        }
        match self.shared.handle.block_on(self.shared.source.head(&self.file.path)) {
            Ok(head) if self.file.is(&head) => Ok(()),
            Ok(_) => Err(self.replaced()),
            Err(_) => Err(Ended::Failed("the object store does not answer; try again".to_owned())),
        }
    }
}
