//! `google.protobuf.Struct`, `Value` and `ListValue` as JSON text.
//!
//! Members of objects come sorted by name, because a Protobuf map has no order. Whole numbers below 2^53 have no
//! point. A value without a kind is `null`. NaN and the infinities are no JSON: `out_of_range`.

use std::io::Write as _;

use siltstone_protocol::RejectReason;

use super::{
    cursor::{Cursor, Range, Wire},
    decode::{Outcome, Walk},
    kind::Dynamic,
    scratch::{Scratch, Slot},
};
use crate::{columns::Utf8, trail::Notes};

/// Values nest at most this deep, as in the official parsers.
pub(super) const DEPTH_MAX: usize = 100;
/// Whole numbers below this are exact.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl<N: Notes> Walk<'_, N> {
    pub(super) fn dynamic(&mut self, dynamic: Dynamic, slot: Slot, column: &mut Utf8) -> Outcome {
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        let written = self.write(dynamic, slot, &mut text);
        let pushed = written.and_then(|()| column.push(&text));
        self.scratch.text = text;
        pushed
    }

    fn write(&mut self, dynamic: Dynamic, slot: Slot, text: &mut Vec<u8>) -> Outcome {
        let Some(first) = slot.first() else { return Err(RejectReason::Malformed) };
        if self.scratch.next(first).is_none() {
            return Writer { body: self.body, scratch: self.scratch, text }.message(
                dynamic,
                Range::from_bits(first.bits),
                DEPTH_MAX,
            );
        }
        // In pieces: put together. No known encoder writes this.
        let mut whole = Vec::new();
        let mut piece = Some(first);
        while let Some(value) = piece {
            whole.extend_from_slice(Range::from_bits(value.bits).of(self.body));
            piece = self.scratch.next(value);
        }
        written_apart(&whole, dynamic, DEPTH_MAX, text)
    }
}

/// Writes a message that had to be put together.
fn written_apart(whole: &[u8], dynamic: Dynamic, depth: usize, text: &mut Vec<u8>) -> Outcome {
    let end = u32::try_from(whole.len()).map_err(|_| RejectReason::TooLarge)?;
    let mut scratch = Scratch::default();
    Writer { body: whole, scratch: &mut scratch, text }.message(dynamic, Range { start: 0, end }, depth)
}

struct Writer<'a> {
    body: &'a [u8],
    scratch: &'a mut Scratch,
    text: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn message(&mut self, dynamic: Dynamic, part: Range, depth: usize) -> Outcome {
        let depth = depth.checked_sub(1).ok_or(RejectReason::TooDeep)?;
        match dynamic {
            Dynamic::Struct => self.object(part, depth),
            Dynamic::List => self.list(part, depth),
            Dynamic::Value => self.value(part, depth),
        }
    }

    fn value(&mut self, part: Range, depth: usize) -> Outcome {
        let mut cursor = Cursor::new(self.body, part);
        let mut kind: Option<(u32, u64)> = None;
        let mut pieces = 0;
        while !cursor.is_empty() {
            let (number, wire) = cursor.tag()?;
            match (number, wire) {
                (1 | 4, Wire::Varint) | (2, Wire::Fixed64) | (3 | 5 | 6, Wire::Bytes) => {
                    pieces = match kind {
                        Some((before, _)) if before == number => pieces + 1,
                        _ => 1,
                    };
                    kind = Some((number, cursor.value(number, wire)?));
                }
                (1..=6, _) => return Err(RejectReason::WrongType),
                _ => cursor.pass(number, wire)?,
            }
        }
        match kind {
            None | Some((1, _)) => self.text.extend_from_slice(b"null"),
            Some((2, bits)) => self.number(f64::from_bits(bits))?,
            Some((3, bits)) => self.string(Range::from_bits(bits))?,
            Some((4, bits)) => self.text.extend_from_slice(if bits != 0 { b"true" } else { b"false" }),
            Some((of, bits)) => {
                let dynamic = if of == 5 { Dynamic::Struct } else { Dynamic::List };
                if pieces > 1 {
                    return self.merged(dynamic, of, part, depth);
                }
                return self.message(dynamic, Range::from_bits(bits), depth);
            }
        }
        Ok(())
    }

    /// A member that comes several times is one message in pieces, but for pieces before another member.
    #[cold]
    fn merged(&mut self, dynamic: Dynamic, member: u32, part: Range, depth: usize) -> Outcome {
        let mut cursor = Cursor::new(self.body, part);
        let mut whole = Vec::new();
        while !cursor.is_empty() {
            let (number, wire) = cursor.tag()?;
            let bits = cursor.value(number, wire)?;
            match number {
                number if number == member => {
                    whole.extend_from_slice(Range::from_bits(bits).of(self.body));
                }
                1..=6 => whole.clear(),
                _ => {}
            }
        }
        written_apart(&whole, dynamic, depth, self.text)
    }

    fn list(&mut self, part: Range, depth: usize) -> Outcome {
        let mut cursor = Cursor::new(self.body, part);
        self.text.push(b'[');
        let mut items = 0u32;
        while !cursor.is_empty() {
            match cursor.tag()? {
                (1, Wire::Bytes) => {
                    let item = cursor.bytes()?;
                    if items > 0 {
                        self.text.push(b',');
                    }
                    items += 1;
                    self.message(Dynamic::Value, item, depth)?;
                }
                (1, _) => return Err(RejectReason::WrongType),
                (number, wire) => cursor.pass(number, wire)?,
            }
        }
        self.text.push(b']');
        Ok(())
    }

    fn object(&mut self, part: Range, depth: usize) -> Outcome {
        let base = self.scratch.members.len();
        let mut cursor = Cursor::new(self.body, part);
        while !cursor.is_empty() {
            match cursor.tag()? {
                (1, Wire::Bytes) => {
                    let member = self.member(cursor.bytes()?)?;
                    self.scratch.members.push(member);
                }
                (1, _) => return Err(RejectReason::WrongType),
                (number, wire) => cursor.pass(number, wire)?,
            }
        }
        let body = self.body;
        let members = self.scratch.members.get_mut(base..).unwrap_or_default();
        // Of one name the last comes last: its place in the record is the greater one.
        members.sort_unstable_by(|(a, at), (b, other)| {
            a.of(body).cmp(b.of(body)).then((at.start, at.end).cmp(&(other.start, other.end)))
        });
        self.text.push(b'{');
        let end = self.scratch.members.len();
        let mut written = 0u32;
        for place in base..end {
            let Some((name, value)) = self.scratch.members.get(place).copied() else { break };
            let next = self.scratch.members.get(place + 1).filter(|_| place + 1 < end);
            if next.is_some_and(|(next, _)| next.of(body) == name.of(body)) {
                continue;
            }
            if written > 0 {
                self.text.push(b',');
            }
            written += 1;
            self.string(name)?;
            self.text.push(b':');
            self.message(Dynamic::Value, value, depth)?;
        }
        self.scratch.members.truncate(base);
        self.text.push(b'}');
        Ok(())
    }

    /// Name and value of one entry.
    fn member(&mut self, entry: Range) -> Result<(Range, Range), RejectReason> {
        let mut cursor = Cursor::new(self.body, entry);
        // Empty, and in the right place to be ordered by.
        let nothing = Range { start: entry.end, end: entry.end };
        let (mut name, mut value) = (nothing, nothing);
        while !cursor.is_empty() {
            match cursor.tag()? {
                (1, Wire::Bytes) => name = cursor.bytes()?,
                (2, Wire::Bytes) => value = cursor.bytes()?,
                (1 | 2, _) => return Err(RejectReason::WrongType),
                (number, wire) => cursor.pass(number, wire)?,
            }
        }
        Ok((name, value))
    }

    fn string(&mut self, part: Range) -> Outcome {
        let text = std::str::from_utf8(part.of(self.body)).map_err(|_| RejectReason::InvalidUtf8)?;
        serde_json::to_writer(&mut *self.text, text).map_err(|_| RejectReason::Malformed)
    }

    fn number(&mut self, number: f64) -> Outcome {
        if !number.is_finite() {
            return Err(RejectReason::OutOfRange);
        }
        let whole =
            number.fract() == 0.0 && number.abs() < WHOLE_MAX && (number != 0.0 || number.is_sign_positive());
        let written = if whole {
            write!(self.text, "{}", number as i64).is_ok()
        } else {
            serde_json::to_writer(&mut *self.text, &number).is_ok()
        };
        if written { Ok(()) } else { Err(RejectReason::Malformed) }
    }
}
