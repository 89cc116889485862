//! One record into one row: where the values lie first, then the columns in turn.

use siltstone_protocol::RejectReason;

use super::{
    cursor::{Cursor, Range, Wire},
    program::{Absent, Fields, Leaf, MapOp, Op, ProtobufProgram, Value},
    scratch::{Entry, Frame, Scratch, Slot},
};
use crate::{
    columns::{Column, Columns, Map},
    trail::{At, Notes},
};

/// Items of all lists and maps of one record, and pieces of its messages: one byte of an item can become many null
/// columns.
pub(super) const ITEMS_MAX: usize = 1 << 20;
/// Columns that were not made from the program's table schema. A bug of the caller; no record can cause it.
pub(super) const FOREIGN: RejectReason = RejectReason::IncompatibleSchema;
/// Entries of a map among which doubles are found by looking at every pair.
const PAIRS_MAX: usize = 8;

pub(super) type Outcome = Result<(), RejectReason>;

impl ProtobufProgram {
    /// Appends the record as one row. On a reject the columns are as they were.
    pub fn decode(&mut self, columns: &mut Columns, body: &[u8]) -> Outcome {
        self.walk(columns, body, ())
    }

    /// `notes`: get where a fault is.
    pub(super) fn walk<N: Notes>(&mut self, columns: &mut Columns, body: &[u8], notes: N) -> Outcome {
        self.scratch.begin();
        let mut walk = Walk { body, scratch: &mut self.scratch, items: ITEMS_MAX, notes };
        let outcome = u32::try_from(body.len())
            .map_err(|_| RejectReason::TooLarge)
            .and_then(|end| walk.message(&self.row, Slot::of(Range { start: 0, end }), columns.columns()));
        match outcome {
            Ok(()) => columns.end_row(),
            Err(_) => columns.rollback(columns.mark()),
        }
        outcome
    }
}

pub(super) struct Walk<'a, N> {
    pub(super) body: &'a [u8],
    pub(super) scratch: &'a mut Scratch,
    /// Items that this record may still have.
    items: usize,
    notes: N,
}

/// The builder that the instruction was compiled for.
macro_rules! builder {
    ($column:expr, $kind:ident) => {
        match $column {
            Column::$kind(builder) => builder,
            _ => return Err(FOREIGN),
        }
    };
}
pub(super) use builder;

impl<N: Notes> Walk<'_, N> {
    fn item(&mut self) -> Outcome {
        self.items = self.items.checked_sub(1).ok_or(RejectReason::TooDeep)?;
        Ok(())
    }

    /// Why a value of this encoding is none of the schema's type.
    #[cold]
    fn stray(&mut self, wire: Wire) -> RejectReason {
        self.notes.note(At::Found(wire.name()));
        RejectReason::WrongType
    }

    /// The message whose pieces are in `slot`. The depth is the schema's, which is bounded.
    fn message(&mut self, fields: &Fields, slot: Slot, columns: &mut [Column]) -> Outcome {
        let frame = self.scratch.open(fields.steps.len() + fields.oneofs);
        let mut piece = slot.first();
        while let Some(value) = piece {
            self.note(fields, frame, Range::from_bits(value.bits))?;
            piece = self.scratch.next(value);
        }
        for (index, step) in fields.steps.iter().enumerate() {
            let slot = self.scratch.slot(frame, index);
            let column = columns.get_mut(step.column).ok_or(FOREIGN)?;
            let appended = self.field(&step.op, step.wire, slot, column);
            appended.inspect_err(|_| self.notes.note(At::Member(step.column)))?;
        }
        for index in &fields.absent {
            columns.get_mut(*index).ok_or(FOREIGN)?.append_null();
        }
        self.scratch.close(frame);
        Ok(())
    }

    /// Notes where the values of each field lie.
    fn note(&mut self, fields: &Fields, frame: Frame, part: Range) -> Outcome {
        let mut cursor = Cursor::new(self.body, part);
        while !cursor.is_empty() {
            let (number, wire) = cursor.tag()?;
            let found = fields.lookup.find(number);
            let known = found.and_then(|index| Some((index, fields.steps.get(index)?)));
            let Some((index, step)) = known else {
                cursor.pass(number, wire)?;
                if let Some(index) = found {
                    self.passed(fields, frame, index, wire);
                }
                continue;
            };
            let packed = wire != step.wire;
            if packed && !(wire == Wire::Bytes && step.op.is_packable(step.wire)) {
                if wire == Wire::GroupEnd {
                    return Err(RejectReason::Malformed);
                }
                let reason = self.stray(wire);
                self.notes.note(At::Member(step.column));
                return Err(reason);
            }
            let value = cursor.value(number, wire);
            let bits = value.inspect_err(|_| self.notes.note(At::Member(step.column)))?;
            if let Some(oneof) = step.oneof {
                self.choose(frame, fields.steps.len() + oneof, index);
            }
            if step.op.is_single() {
                self.scratch.set(frame, index, bits);
            } else {
                self.item().inspect_err(|_| self.notes.note(At::Member(step.column)))?;
                self.scratch.add(frame, index, bits, packed)?;
            }
        }
        Ok(())
    }

    /// A field that has no column was the last of its oneof: none of the others counts.
    fn passed(&mut self, fields: &Fields, frame: Frame, index: usize, wire: Wire) {
        let passed = index.checked_sub(fields.steps.len()).and_then(|place| fields.passed.get(place));
        let Some(passed) = passed.filter(|passed| passed.wire == wire) else { return };
        let oneof = fields.steps.len() + passed.oneof;
        if let Some(before) = self.scratch.slot(frame, oneof).first() {
            self.scratch.clear(frame, before.bits as usize);
            self.scratch.clear(frame, oneof);
        }
    }

    /// Of a oneof only the last member counts.
    fn choose(&mut self, frame: Frame, oneof: usize, index: usize) {
        if let Some(before) = self.scratch.slot(frame, oneof).first() {
            if before.bits == index as u64 {
                return;
            }
            self.scratch.clear(frame, before.bits as usize);
        }
        self.scratch.set(frame, oneof, index as u64);
    }

    #[inline]
    fn field(&mut self, op: &Op, wire: Wire, slot: Slot, column: &mut Column) -> Outcome {
        match op {
            Op::One { value, absent } => match (slot.first(), absent) {
                (Some(_), _) => self.value(value, slot, column),
                (None, Absent::Null) => {
                    column.append_null();
                    Ok(())
                }
                (None, Absent::Default) => self.default(value, column),
                (None, Absent::Missing) => Err(RejectReason::MissingField),
            },
            Op::Many(value) => {
                let builder = builder!(column, List);
                let mut next = slot.first();
                while let Some(item) = next {
                    next = self.scratch.next(item);
                    let appended = match value {
                        Value::Leaf(leaf) if item.packed => {
                            self.packed(leaf, wire, Range::from_bits(item.bits), builder.items())
                        }
                        Value::Leaf(leaf) => leaf.append(self.body, item.bits, builder.items()),
                        value => {
                            let one = Slot::of(Range::from_bits(item.bits));
                            self.value(value, one, builder.items())
                        }
                    };
                    appended.inspect_err(|_| self.notes.note(At::Element))?;
                }
                builder.end()
            }
            Op::Map(map) => self.map(map, slot, builder!(column, Map)),
        }
    }

    #[inline]
    fn value(&mut self, value: &Value, slot: Slot, column: &mut Column) -> Outcome {
        match value {
            Value::Leaf(leaf) => leaf.append(self.body, slot.first().map_or(0, |value| value.bits), column),
            Value::Struct(fields) => {
                let builder = builder!(column, Struct);
                self.message(fields, slot, builder.members())?;
                builder.end();
                Ok(())
            }
            value => self.known(value, slot, column),
        }
    }

    fn default(&mut self, value: &Value, column: &mut Column) -> Outcome {
        match value {
            Value::Leaf(leaf) => leaf.append(self.body, leaf.default_bits(), column),
            value => self.value(value, Slot::empty(), column),
        }
    }

    fn packed(&mut self, leaf: &Leaf, wire: Wire, run: Range, items: &mut Column) -> Outcome {
        let mut cursor = Cursor::new(self.body, run);
        while !cursor.is_empty() {
            self.item()?;
            leaf.append(self.body, cursor.value(0, wire)?, items)?;
        }
        Ok(())
    }

    fn map(&mut self, map: &MapOp, slot: Slot, builder: &mut Map) -> Outcome {
        let base = self.scratch.entries.len();
        let mut next = slot.first();
        while let Some(entry) = next {
            next = self.scratch.next(entry);
            let entry = Range::from_bits(entry.bits);
            let key = self.key(map, entry).inspect_err(|_| self.notes.note(At::Key))?;
            let order = (self.scratch.entries.len() - base) as u32;
            self.scratch.entries.push(Entry { key, entry, order, replaced: false });
        }
        let body = self.body;
        if let Some(entries) = self.scratch.entries.get_mut(base..) {
            mark_replaced(&map.key, body, entries);
        }
        let end = self.scratch.entries.len();
        for place in base..end {
            let Some(Entry { key, entry, replaced: false, .. }) = self.scratch.entries.get(place).copied()
            else {
                continue;
            };
            let pushed = map.key.append(self.body, key, builder.keys());
            pushed.inspect_err(|_| self.notes.note(At::Key))?;
            self.map_value(map, entry, builder.values()).inspect_err(|_| self.notes.note(At::Value))?;
        }
        self.scratch.entries.truncate(base);
        builder.end()
    }

    fn key(&mut self, map: &MapOp, entry: Range) -> Result<u64, RejectReason> {
        let mut cursor = Cursor::new(self.body, entry);
        let mut key = map.key.default_bits();
        while !cursor.is_empty() {
            match cursor.tag()? {
                (1, wire) if wire == map.key_wire => key = cursor.value(1, wire)?,
                (1, wire) => return Err(self.stray(wire)),
                (number, wire) => cursor.pass(number, wire)?,
            }
        }
        Ok(key)
    }

    fn map_value(&mut self, map: &MapOp, entry: Range, values: &mut Column) -> Outcome {
        let frame = self.scratch.open(1);
        let mut cursor = Cursor::new(self.body, entry);
        while !cursor.is_empty() {
            match cursor.tag()? {
                (2, wire) if wire == map.value_wire => {
                    let bits = cursor.value(2, wire)?;
                    match map.value {
                        Value::Leaf(_) => self.scratch.set(frame, 0, bits),
                        _ => {
                            self.item()?;
                            self.scratch.add(frame, 0, bits, false)?;
                        }
                    }
                }
                (2, wire) => return Err(self.stray(wire)),
                (number, wire) => cursor.pass(number, wire)?,
            }
        }
        let slot = self.scratch.slot(frame, 0);
        match slot.first() {
            Some(_) => self.value(&map.value, slot, values)?,
            None => self.default(&map.value, values)?,
        }
        self.scratch.close(frame);
        Ok(())
    }
}

/// Marks entries whose key comes again; leaves them in their order.
fn mark_replaced(key: &Leaf, body: &[u8], entries: &mut [Entry]) {
    if entries.len() <= PAIRS_MAX {
        for place in 1..entries.len() {
            let (before, from) = entries.split_at_mut(place);
            let Some(last) = from.first() else { return };
            for entry in before.iter_mut().filter(|entry| key.compare(body, entry.key, last.key).is_eq()) {
                entry.replaced = true;
            }
        }
        return;
    }
    entries.sort_unstable_by(|a, b| key.compare(body, a.key, b.key).then(a.order.cmp(&b.order)));
    for place in 1..entries.len() {
        if let Some([before, after]) = entries.get_mut(place - 1..=place)
            && key.compare(body, before.key, after.key).is_eq()
        {
            before.replaced = true;
        }
    }
    entries.sort_unstable_by_key(|entry| entry.order);
}
