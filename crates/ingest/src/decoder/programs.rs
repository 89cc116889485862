//! Compiled programs by schema id, and message of the schema where it has several.

use std::collections::HashMap;

use siltstone_protocol::{Field, RejectReason};

use crate::{
    avro::AvroProgram,
    columns::Columns,
    dead_letter::About,
    json::JsonProgram,
    protobuf::{MessagePath, ProtobufProgram},
};

/// Ids that are kept; a topic has a few. Past it everything is learned again.
const IDS_MAX: usize = 1024;
/// Ids found without hashing.
const RECENT: usize = 4;
/// An id that the registry did not know is asked for again after this many records, then ever more rarely.
const RETRY_FIRST: u32 = 100;
const RETRY_MAX: u32 = 10_000;

/// How one record's body becomes a row.
#[derive(Debug)]
pub(super) enum Program {
    Avro(AvroProgram),
    Json(JsonProgram),
    Protobuf(ProtobufProgram),
    /// The body is the single column.
    Raw,
}

impl Program {
    /// What a record that was just rejected is about, where that can be told. `table`: what the program is for.
    #[cold]
    pub(super) fn explain(&mut self, table: &[Field], columns: &mut Columns, body: &[u8]) -> Option<About> {
        match self {
            Self::Avro(program) => program.explain(table, columns, body),
            Self::Json(program) => program.explain(columns, body),
            Self::Protobuf(program) => program.explain(table, columns, body),
            Self::Raw => None,
        }
    }

    /// One row, or the columns as they were.
    #[inline]
    pub(super) fn decode(&mut self, columns: &mut Columns, body: &[u8]) -> Result<(), RejectReason> {
        match self {
            Self::Avro(program) => program.decode(columns, body),
            Self::Json(program) => program.decode(columns, body),
            Self::Protobuf(program) => program.decode(columns, body),
            Self::Raw => raw(columns, body),
        }
    }
}

fn raw(columns: &mut Columns, body: &[u8]) -> Result<(), RejectReason> {
    let mut written = Err(RejectReason::IncompatibleSchema);
    for (index, column) in columns.columns().iter_mut().enumerate() {
        match column {
            crate::columns::Column::Binary(value) if index == 0 => written = value.push(body),
            column => column.append_null(),
        }
    }
    match written {
        Ok(()) => columns.end_row(),
        Err(_) => columns.rollback(columns.mark()),
    }
    written
}

/// What says how a record is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// None: the table's own schema.
    pub(super) id: Option<u32>,
    /// The first, where a schema is of one message.
    pub(super) message: MessagePath,
}

impl Key {
    /// Of a schema that is one message.
    #[inline]
    pub(super) fn of(id: Option<u32>) -> Self {
        Self { id, message: MessagePath::FIRST }
    }
}

/// What is known of one key.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "every record looks its program up, and most slots hold one")]
pub(super) enum Slot {
    /// With the name of the records' type.
    Ready(Program, Option<Box<str>>),
    Refused {
        reason: RejectReason,
        about: Option<Box<About>>,
        seen: u32,
        retry_after: u32,
    },
}

impl Slot {
    pub(super) fn refused(reason: RejectReason, about: Option<About>, before: Option<&Slot>) -> Self {
        let retry_after = match (reason, before) {
            (RejectReason::UnknownSchemaId, Some(Slot::Refused { retry_after, .. })) => {
                retry_after.saturating_mul(2).clamp(RETRY_FIRST, RETRY_MAX)
            }
            (RejectReason::UnknownSchemaId, _) => RETRY_FIRST,
            _ => u32::MAX,
        };
        Slot::Refused { reason, about: about.map(Box::new), seen: 0, retry_after }
    }
}

/// The programs of a table.
#[derive(Debug, Default)]
pub(super) struct Programs {
    slots: Vec<Slot>,
    by_key: HashMap<Key, usize>,
    recent: [Option<(Key, usize)>; RECENT],
    turn: usize,
}

impl Programs {
    /// What is known of this key; `None` when it should be learned (again).
    #[inline]
    pub(super) fn find(&mut self, key: Key) -> Option<&mut Slot> {
        let recent = self.recent.iter().flatten().find(|(of, _)| *of == key).map(|(_, index)| *index);
        let index = match recent {
            Some(index) => index,
            None => self.look_up(key)?,
        };
        self.slots.get_mut(index)
    }

    #[cold]
    fn look_up(&mut self, key: Key) -> Option<usize> {
        let index = *self.by_key.get(&key)?;
        self.turn = (self.turn + 1) % RECENT;
        if let Some(place) = self.recent.get_mut(self.turn) {
            *place = Some((key, index));
        }
        Some(index)
    }

    pub(super) fn insert(&mut self, key: Key, program: Program, name: Option<&str>) {
        self.put(key, Slot::Ready(program, name.map(Into::into)));
    }

    pub(super) fn refuse(&mut self, key: Key, reason: RejectReason, about: Option<About>) {
        let before = self.by_key.get(&key).and_then(|index| self.slots.get(*index));
        let slot = Slot::refused(reason, about, before);
        self.put(key, slot);
    }

    fn put(&mut self, key: Key, slot: Slot) {
        if let Some(known) = self.by_key.get(&key).and_then(|index| self.slots.get_mut(*index)) {
            *known = slot;
            return;
        }
        if self.slots.len() >= IDS_MAX {
            self.clear();
        }
        self.by_key.insert(key, self.slots.len());
        self.slots.push(slot);
    }

    /// Forgets everything: the table has changed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
