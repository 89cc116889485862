//! The decoder: one record after another into the current batch.

use std::fmt;

use arrow::array::RecordBatch;
use siltstone_protocol::{RejectReason, Schema, SchemaHistory};
use siltstone_spec::model::{DlqMode, SchemaMode, SourceFormat, TableSpec, Tombstones, WireFormat};

use super::{
    batch::Batch,
    programs::{Key, Program, Programs, Slot},
    staged::Stage,
    wire,
};
use crate::{
    IngestError, Record,
    dead_letter::{About, FailedRow},
    protobuf::MessagePath,
};

/// Key and value of one record, bytes.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// A batch holds less than this in memory, so that no column comes near the end of its 32-bit offsets.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is a row of the batch.
    Row,
    /// It is passed over, as the spec says (tombstones).
    Skipped(RejectReason),
    /// It cannot be a row. The batch is as before.
    Rejected { reason: RejectReason, schema_id: Option<u32> },
    /// Call [`Decoder::learn`], then push the record again.
    NeedsSchema(SchemaNeed),
    /// The batch is as large as one may be: [`Decoder::finish`] it, then push the record again.
    Full,
}

/// A batch that is done: every row that was pushed is in it, or was left out by the table's transforms.
#[derive(Debug)]
pub struct Finished {
    /// `None` when no row is left.
    pub batch: Option<RecordBatch>,
    /// Rows that the filter left out.
    pub filtered: usize,
    /// Rows that could not be changed as the spec says, by their places in push order, ascending: `transform_failed`.
    pub failed: Vec<FailedRow>,
}

/// A schema that the decoder does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaNeed {
    /// The one with this id in the registry.
    Id(u32),
    /// One of several messages of the schema with this id.
    Message { id: u32, path: MessagePath },
    /// The table's own: from the spec, or the latest of its subject.
    Latest,
}

impl SchemaNeed {
    pub(super) fn key(self) -> Key {
        match self {
            Self::Id(id) => Key::of(Some(id)),
            Self::Message { id, path } => Key { id: Some(id), message: path },
            Self::Latest => Key::of(None),
        }
    }
}

/// Turns the records of one topic into batches of one table.
pub struct Decoder {
    pub(super) table: TableSpec,
    /// None before the table exists, and while nothing is known of its records.
    pub(super) batch: Option<Batch>,
    pub(super) programs: Programs,
    /// What the table's schemas so far say of its columns.
    pub(super) history: SchemaHistory,
    /// For a table with transforms.
    pub(super) stage: Option<Stage>,
    about: Option<About>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, batch, .. } = self;
        f.debug_struct("Decoder").field("table", &table.name).field("batch", batch).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for this table. `table_schema` is the ledger's; `None` before the table exists.
    pub fn new(table: &TableSpec, table_schema: Option<Schema>) -> Result<Self, IngestError> {
        let stage = Stage::of(table)?;
        let mut decoder = Self {
            table: table.clone(),
            batch: None,
            programs: Programs::default(),
            history: SchemaHistory::default(),
            stage,
            about: None,
        };
        if let Some(schema) = table_schema {
            decoder.set_table_schema(schema)?;
        }
        Ok(decoder)
    }

    /// True when each record carries the id of its schema.
    pub(super) fn is_by_id(&self) -> bool {
        self.table.source_format != SourceFormat::Raw
            && self.table.wire_format == WireFormat::Confluent
            && self.table.schema_mode == SchemaMode::Registry
    }

    /// Decodes one record into the current batch. Never partial: on anything but `Row` the batch is as
    /// before.
    pub fn push(&mut self, record: &Record<'_>) -> Pushed {
        self.about = None;
        if self.bytes() >= BATCH_BYTES_MAX {
            return Pushed::Full;
        }
        if record.size() > RECORD_BYTES_MAX {
            self.about = Some(About::of_record("key and value have more than 64 MiB together"));
            return Pushed::Rejected { reason: RejectReason::TooLarge, schema_id: None };
        }
        let Some(value) = record.value else { return self.tombstone(record) };
        let (key, body) = match self.unframed(value) {
            Ok(framed) => framed,
            Err(reason) => return Pushed::Rejected { reason, schema_id: None },
        };
        let rejected = |reason| Pushed::Rejected { reason, schema_id: key.id };
        let is_asked = self.is_asked();
        match (self.programs.find(key), &mut self.batch) {
            (Some(Slot::Ready(program, name)), Some(batch)) => {
                let mark = batch.columns.mark();
                let written = program
                    .decode(&mut batch.columns, body)
                    .and_then(|()| batch.add_own(record, name.as_deref(), mark));
                match written {
                    Ok(()) => {
                        batch.grown(value.len());
                        Pushed::Row
                    }
                    Err(reason) => {
                        batch.columns.rollback(mark);
                        if is_asked {
                            self.about = program.explain(&batch.body.fields, &mut batch.columns, body);
                        }
                        rejected(reason)
                    }
                }
            }
            (Some(Slot::Refused { reason: RejectReason::OtherEventType, .. }), _) => {
                Pushed::Skipped(RejectReason::OtherEventType)
            }
            (Some(Slot::Refused { reason, about, seen, retry_after }), _) => {
                *seen = seen.saturating_add(1);
                // A registry may lag behind its producers.
                if *seen > *retry_after {
                    return Pushed::NeedsSchema(self.need(key));
                }
                self.about = about.as_deref().cloned();
                rejected(*reason)
            }
            _ => Pushed::NeedsSchema(self.need(key)),
        }
    }

    /// Whether anybody asks what rejected records are about: to tell it, they are decoded once more.
    fn is_asked(&self) -> bool {
        self.table.dlq_mode != DlqMode::Skip
    }

    /// What the record that was rejected last is about; `None` too where rejected records are passed over.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Decodes the first of the Avro records that `bodies` holds one after the other, as container files do, into
    /// the current batch. Also says how many bytes it takes; `None`: it is broken so that nobody can say.
    pub fn push_first(&mut self, bodies: &[u8]) -> (Pushed, Option<usize>) {
        if self.bytes() >= BATCH_BYTES_MAX {
            return (Pushed::Full, None);
        }
        self.about = None;
        let (key, is_asked) = (Key::of(None), self.is_asked());
        let (Some(Slot::Ready(Program::Avro(program), _)), Some(batch)) =
            (self.programs.find(key), &mut self.batch)
        else {
            return (Pushed::NeedsSchema(self.need(key)), None);
        };
        match program.decode_first(&mut batch.columns, bodies) {
            Ok(length) => {
                batch.grown(length);
                (Pushed::Row, Some(length))
            }
            Err(reason) => {
                let length = program.skip_first(bodies).ok();
                let body = length.and_then(|length| bodies.get(..length)).unwrap_or(bodies);
                if is_asked {
                    self.about = program.explain(&batch.body.fields, &mut batch.columns, body);
                }
                (Pushed::Rejected { reason, schema_id: None }, length)
            }
        }
    }

    /// How many bytes the first of the Avro records takes that `bodies` holds; `None` when nobody can say, or the
    /// schema is not known yet.
    pub fn skip_first(&mut self, bodies: &[u8]) -> Option<usize> {
        match self.programs.find(Key::of(None)) {
            Some(Slot::Ready(Program::Avro(program), _)) => program.skip_first(bodies).ok(),
            _ => None,
        }
    }

    fn need(&self, key: Key) -> SchemaNeed {
        match key.id {
            None => SchemaNeed::Latest,
            Some(id) if self.table.source_format == SourceFormat::Protobuf => {
                SchemaNeed::Message { id, path: key.message }
            }
            Some(id) => SchemaNeed::Id(id),
        }
    }

    /// What decides how to decode, and the body.
    #[inline]
    fn unframed<'v>(&self, value: &'v [u8]) -> Result<(Key, &'v [u8]), RejectReason> {
        if self.table.source_format == SourceFormat::Raw || self.table.wire_format == WireFormat::Raw {
            return Ok((Key::of(None), value));
        }
        let (id, body) = wire::confluent(value)?;
        let (message, body) = match self.table.source_format {
            SourceFormat::Protobuf => MessagePath::read(body)?,
            _ => (MessagePath::FIRST, body),
        };
        Ok((if self.is_by_id() { Key { id: Some(id), message } } else { Key::of(None) }, body))
    }

    fn tombstone(&mut self, record: &Record<'_>) -> Pushed {
        let rejected = Pushed::Rejected { reason: RejectReason::NullValue, schema_id: None };
        match (self.table.tombstones, &mut self.batch) {
            (Tombstones::Skip, _) => Pushed::Skipped(RejectReason::NullValue),
            (Tombstones::Reject, _) => rejected,
            (Tombstones::Row, None) => Pushed::NeedsSchema(SchemaNeed::Latest),
            (Tombstones::Row, Some(batch)) if batch.has_required => rejected,
            (Tombstones::Row, Some(batch)) => {
                let mark = batch.columns.mark();
                batch.columns.columns().iter_mut().for_each(|column| column.append_null());
                batch.columns.end_row();
                if let Err(reason) = batch.add_own(record, None, mark) {
                    batch.columns.rollback(mark);
                    return Pushed::Rejected { reason, schema_id: None };
                }
                batch.grown(0);
                Pushed::Row
            }
        }
    }

    /// What the ledger says of the table's columns so far: nothing that it gave up comes back, and no id.
    pub fn set_history(&mut self, history: SchemaHistory) {
        self.history = history;
    }

    pub fn history(&self) -> &SchemaHistory {
        &self.history
    }

    /// The ledger's schema changed, by this worker or another. Only with an empty batch, after
    /// [`Decoder::finish`].
    pub fn set_table_schema(&mut self, schema: Schema) -> Result<(), IngestError> {
        if self.rows() > 0 {
            return Err(IngestError::internal("a table's schema was set while a batch has rows"));
        }
        self.programs.clear();
        if self.stage.is_some() {
            return self.set_staged_schema(schema);
        }
        self.batch = Some(self.batch_of(schema, &[])?);
        Ok(())
    }

    /// An empty batch of these columns.
    pub(super) fn batch_of(&self, schema: Schema, absent: &[String]) -> Result<Batch, IngestError> {
        let metadata = self.table.kafka_metadata.then_some(self.table.topic.as_str());
        let event_type = self.table.event_types.as_ref().and_then(|types| types.column.as_deref());
        Batch::new(schema, metadata, event_type, absent)
    }

    /// The table's schema that batches have; `None` before the table exists.
    pub fn table_schema(&self) -> Option<&Schema> {
        match &self.stage {
            Some(stage) => stage.table.as_ref(),
            None => self.batch.as_ref().map(|batch| &batch.schema),
        }
    }

    /// Rows of the current batch.
    pub fn rows(&self) -> usize {
        let closed = self.stage.as_ref().map_or(0, Stage::closed_rows);
        closed + self.batch.as_ref().map_or(0, Batch::rows)
    }

    /// Memory that the current batch holds. Cheap: measured now and then, estimated upwards in between.
    #[inline]
    pub fn bytes(&self) -> usize {
        let closed = self.stage.as_ref().map_or(0, Stage::closed_bytes);
        closed + self.batch.as_ref().map_or(0, |batch| batch.measured + batch.unmeasured)
    }

    /// True when rows may be among [`Finished::failed`]: keep their records until the batch is closed.
    pub fn can_fail(&self) -> bool {
        self.stage.as_ref().is_some_and(Stage::can_fail)
    }

    /// The id of a record's schema, where records carry one.
    pub fn schema_id(&self, record: &Record<'_>) -> Option<u32> {
        let (key, _) = self.unframed(record.value?).ok()?;
        key.id
    }

    /// As [`Self::close`], where no transform may leave out a row.
    ///
    /// # Errors
    /// `Internal` when one did: the caller must not think that all of them are in the batch.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, IngestError> {
        match self.close()? {
            None => Ok(None),
            Some(Finished { batch, filtered: 0, failed }) if failed.is_empty() => Ok(batch),
            Some(_) => Err(IngestError::internal("rows were left out where all were expected")),
        }
    }

    /// The rows so far, in push order; `None` when there are none. The next batch begins.
    ///
    /// # Errors
    /// `Internal`: rows are lost, and what is left is not all that was pushed. [`Self::discard`] it.
    pub fn close(&mut self) -> Result<Option<Finished>, IngestError> {
        if self.stage.is_some() {
            return self.finish_staged();
        }
        match &mut self.batch {
            Some(batch) if batch.columns.rows() > 0 => {
                Ok(Some(Finished { batch: Some(batch.finish()?), filtered: 0, failed: Vec::new() }))
            }
            _ => Ok(None),
        }
    }

    /// Throws the rows so far away, whatever is wrong with them. The next batch begins.
    ///
    /// # Errors
    /// `Internal` when the columns cannot be made anew.
    pub fn discard(&mut self) -> Result<(), IngestError> {
        if let Some(stage) = &mut self.stage {
            stage.discard();
        }
        if let Some(batch) = &self.batch {
            self.batch = Some(self.batch_of(batch.schema.clone(), &batch.absent())?);
        }
        Ok(())
    }
}
