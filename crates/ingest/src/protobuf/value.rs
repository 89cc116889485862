//! Values of scalars, and of the well-known messages that are one value.

use std::{cmp::Ordering, io::Write as _};

use siltstone_protocol::RejectReason;

use super::{
    cursor::{Cursor, Range, Wire},
    decode::{FOREIGN, Outcome, Walk, builder},
    program::{Leaf, Symbols, Value},
    scratch::Slot,
};
use crate::{
    columns::{Binary, Column, Utf8},
    trail::Notes,
};

/// 0001-01-01 to 9999-12-31, seconds: the bounds that `timestamp.proto` gives.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years, seconds: the bounds that `duration.proto` gives.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;
const NANOS: i64 = 1_000_000_000;

impl Leaf {
    /// What an absent field without presence is.
    #[inline]
    pub(super) fn default_bits(&self) -> u64 {
        match self {
            // As on the wire: sign-extended.
            Self::Enum(symbols) | Self::EnumToBytes(symbols) => i64::from(symbols.default).cast_unsigned(),
            _ => 0,
        }
    }

    /// Appends one value, given its bits or where in `body` it lies.
    #[inline]
    pub(super) fn append(&self, body: &[u8], bits: u64, column: &mut Column) -> Outcome {
        match self {
            Self::Bool => builder!(column, Boolean).push(bits != 0),
            Self::Int(number) => builder!(column, Int32).push(number.of(bits) as i32),
            Self::Long(number) => builder!(column, Int64).push(number.of(bits)),
            Self::IntegerToFloat(number) => builder!(column, Float32).push(exact_f32(number.of(bits))?),
            Self::IntegerToDouble(number) => builder!(column, Float64).push(exact_f64(number.of(bits))?),
            Self::Decimal(factor) => {
                let unscaled = i128::from(bits).checked_mul(*factor).ok_or(RejectReason::OutOfRange)?;
                builder!(column, Decimal).push(unscaled)?;
            }
            Self::Float => builder!(column, Float32).push(f32::from_bits(bits as u32)),
            Self::FloatToDouble => builder!(column, Float64).push(f64::from(f32::from_bits(bits as u32))),
            Self::Double => builder!(column, Float64).push(f64::from_bits(bits)),
            Self::Text | Self::BytesToText => builder!(column, Utf8).push(Range::from_bits(bits).of(body))?,
            Self::Bytes => builder!(column, Binary).push(Range::from_bits(bits).of(body))?,
            Self::Enum(symbols) => symbol(symbols, bits, builder!(column, Utf8))?,
            Self::EnumToBytes(symbols) => symbol_bytes(symbols, bits, builder!(column, Binary))?,
        }
        Ok(())
    }

    /// The order of two keys of a map.
    pub(super) fn compare(&self, body: &[u8], a: u64, b: u64) -> Ordering {
        match self {
            Self::Text | Self::BytesToText | Self::Bytes => {
                Range::from_bits(a).of(body).cmp(Range::from_bits(b).of(body))
            }
            Self::Bool => (a != 0).cmp(&(b != 0)),
            Self::Int(number)
            | Self::Long(number)
            | Self::IntegerToFloat(number)
            | Self::IntegerToDouble(number) => number.of(a).cmp(&number.of(b)),
            _ => a.cmp(&b),
        }
    }
}

/// An enum's name; of a number without a name its digits.
fn symbol(symbols: &Symbols, bits: u64, column: &mut Utf8) -> Outcome {
    let number = bits as u32 as i32;
    match symbols.name(number) {
        Some(name) => column.push_str(name),
        None => digits(number, |text| column.push(text)),
    }
}

fn symbol_bytes(symbols: &Symbols, bits: u64, column: &mut Binary) -> Outcome {
    let number = bits as u32 as i32;
    match symbols.name(number) {
        Some(name) => column.push(name.as_bytes()),
        None => digits(number, |text| column.push(text)),
    }
}

#[cold]
fn digits(number: i32, push: impl FnOnce(&[u8]) -> Outcome) -> Outcome {
    let mut text = [0u8; 12];
    let mut rest = &mut text[..];
    write!(rest, "{number}").map_err(|_| RejectReason::OutOfRange)?;
    let length = 12 - rest.len();
    push(text.get(..length).unwrap_or_default())
}

/// The number as a float, if it is the same number.
fn exact_f64(value: i64) -> Result<f64, RejectReason> {
    let float = value as f64;
    if float as i128 == i128::from(value) { Ok(float) } else { Err(RejectReason::OutOfRange) }
}

fn exact_f32(value: i64) -> Result<f32, RejectReason> {
    let float = value as f32;
    if float as i128 == i128::from(value) { Ok(float) } else { Err(RejectReason::OutOfRange) }
}

impl<N: Notes> Walk<'_, N> {
    /// A well-known message.
    pub(super) fn known(&mut self, value: &Value, slot: Slot, column: &mut Column) -> Outcome {
        match value {
            Value::Wrapper(leaf, wire) => {
                let mut bits = leaf.default_bits();
                self.fields_of(slot, |number, of, found| match number {
                    1 if of == *wire => {
                        bits = found;
                        Ok(())
                    }
                    1 => Err(RejectReason::WrongType),
                    _ => Ok(()),
                })?;
                leaf.append(self.body, bits, column)
            }
            Value::Timestamp => {
                let (seconds, nanos) = self.seconds_and_nanos(slot)?;
                if !(0..NANOS).contains(&nanos) {
                    return Err(RejectReason::BadTimestamp);
                }
                if !TIMESTAMP_SECONDS.contains(&seconds) {
                    return Err(RejectReason::OutOfRange);
                }
                builder!(column, Int64).push(seconds * 1_000_000 + nanos / 1000);
                Ok(())
            }
            Value::Duration => {
                let (seconds, nanos) = self.seconds_and_nanos(slot)?;
                let same_sign = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
                if !DURATION_SECONDS.contains(&seconds) || nanos.abs() >= NANOS || !same_sign {
                    return Err(RejectReason::OutOfRange);
                }
                builder!(column, Int64).push(seconds * 1_000_000 + nanos.div_euclid(1000));
                Ok(())
            }
            Value::FieldMask => {
                let body = self.body;
                let builder = builder!(column, List);
                let paths = builder!(builder.items(), Utf8);
                self.fields_of(slot, |number, wire, bits| match (number, wire) {
                    (1, Wire::Bytes) => paths.push(Range::from_bits(bits).of(body)),
                    (1, _) => Err(RejectReason::WrongType),
                    _ => Ok(()),
                })?;
                builder.end()
            }
            Value::Dynamic(dynamic) => self.dynamic(*dynamic, slot, builder!(column, Utf8)),
            Value::Leaf(_) | Value::Struct(_) => Err(FOREIGN),
        }
    }

    /// Every field of a message in pieces, in order.
    fn fields_of(&self, slot: Slot, mut see: impl FnMut(u32, Wire, u64) -> Outcome) -> Outcome {
        let mut piece = slot.first();
        while let Some(value) = piece {
            let mut cursor = Cursor::new(self.body, Range::from_bits(value.bits));
            while !cursor.is_empty() {
                let (number, wire) = cursor.tag()?;
                see(number, wire, cursor.value(number, wire)?)?;
            }
            piece = self.scratch.next(value);
        }
        Ok(())
    }

    fn seconds_and_nanos(&self, slot: Slot) -> Result<(i64, i64), RejectReason> {
        let (mut seconds, mut nanos) = (0, 0);
        self.fields_of(slot, |number, wire, bits| {
            match (number, wire) {
                (1, Wire::Varint) => seconds = bits.cast_signed(),
                (2, Wire::Varint) => nanos = i64::from(bits as u32 as i32),
                (1 | 2, _) => return Err(RejectReason::WrongType),
                _ => {}
            }
            Ok(())
        })?;
        Ok((seconds, nanos))
    }
}
