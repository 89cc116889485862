//! Where the values of a message's fields lie, before they are appended to columns.
//!
//! A stack: each message being read has its slots on top of those of the message around it. Nothing is allocated
//! once it has grown to what the topic's records need.

use siltstone_protocol::RejectReason;

use super::cursor::Range;

const NONE: u32 = u32::MAX;
/// What is kept between records, slots and occurrences each.
const KEPT_MAX: usize = 1 << 16;

/// One value of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    /// The scalar's bits, or a [`Range`].
    pub(super) bits: u64,
    /// A range whose scalars are packed.
    pub(super) packed: bool,
    next: u32,
}

/// What is known of one field of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    first: Option<Value>,
    last: u32,
}

const ABSENT: Slot = Slot { first: None, last: NONE };

impl Slot {
    #[inline]
    pub(super) fn first(&self) -> Option<Value> {
        self.first
    }

    /// A message that has no bytes.
    pub(super) fn empty() -> Self {
        Self::of(Range::default())
    }

    /// A message that is in one piece.
    #[inline]
    pub(super) fn of(range: Range) -> Self {
        Self { first: Some(Value { bits: range.bits(), packed: false, next: NONE }), last: NONE }
    }
}

/// A key of a map and the entry that it is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) entry: Range,
    /// Its number within the map; a later one with the same key takes its place.
    pub(super) order: u32,
    pub(super) replaced: bool,
}

#[derive(Debug, Default)]
pub(super) struct Scratch {
    slots: Vec<Slot>,
    values: Vec<Value>,
    pub(super) entries: Vec<Entry>,
    /// Text of a dynamic value being written.
    pub(super) text: Vec<u8>,
    /// Members of the dynamic objects being written: key and value.
    pub(super) members: Vec<(Range, Range)>,
}

/// The place of one message on the stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    slots: usize,
    values: usize,
}

impl Scratch {
    /// Forgets the record before.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.slots.clear();
        self.values.clear();
        self.entries.clear();
        self.members.clear();
        self.text.clear();
        if self.values.capacity() + self.entries.capacity() + self.slots.capacity() > KEPT_MAX {
            self.values.shrink_to(KEPT_MAX / 4);
            self.entries.shrink_to(KEPT_MAX / 4);
            self.slots.shrink_to(KEPT_MAX / 4);
        }
        if self.text.capacity() + self.members.capacity() > KEPT_MAX * 16 {
            (self.text, self.members) = Default::default();
        }
    }

    /// A message of so many fields begins.
    #[inline]
    pub(super) fn open(&mut self, fields: usize) -> Frame {
        let frame = Frame { slots: self.slots.len(), values: self.values.len() };
        self.slots.resize(frame.slots + fields, ABSENT);
        frame
    }

    /// It is done.
    #[inline]
    pub(super) fn close(&mut self, frame: Frame) {
        self.slots.truncate(frame.slots);
        self.values.truncate(frame.values);
    }

    #[inline]
    pub(super) fn slot(&self, frame: Frame, index: usize) -> Slot {
        self.slots.get(frame.slots + index).copied().unwrap_or(ABSENT)
    }

    /// Field `index` has this value and no other.
    #[inline]
    pub(super) fn set(&mut self, frame: Frame, index: usize, bits: u64) {
        if let Some(slot) = self.slots.get_mut(frame.slots + index) {
            *slot = Slot { first: Some(Value { bits, packed: false, next: NONE }), last: NONE };
        }
    }

    #[inline]
    pub(super) fn clear(&mut self, frame: Frame, index: usize) {
        if let Some(slot) = self.slots.get_mut(frame.slots + index) {
            *slot = ABSENT;
        }
    }

    /// Field `index` has this value too.
    #[inline]
    pub(super) fn add(
        &mut self,
        frame: Frame,
        index: usize,
        bits: u64,
        packed: bool,
    ) -> Result<(), RejectReason> {
        let Some(slot) = self.slots.get_mut(frame.slots + index) else { return Ok(()) };
        let value = Value { bits, packed, next: NONE };
        let Some(first) = &mut slot.first else {
            slot.first = Some(value);
            return Ok(());
        };
        let place = u32::try_from(self.values.len()).map_err(|_| RejectReason::TooDeep)?;
        match self.values.get_mut(slot.last as usize) {
            Some(last) if slot.last != NONE => last.next = place,
            _ => first.next = place,
        }
        slot.last = place;
        self.values.push(value);
        Ok(())
    }

    /// The value after this one.
    #[inline]
    pub(super) fn next(&self, value: Value) -> Option<Value> {
        if value.next == NONE { None } else { self.values.get(value.next as usize).copied() }
    }
}
