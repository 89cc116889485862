//! One record into one row.

use siltstone_protocol::RejectReason;

use super::{
    cursor::Cursor,
    program::{AvroProgram, Branches, Fields, Op, Step},
    skip::Skip,
};
use crate::{
    columns::{Column, Columns, DecimalValues, FixedBytes},
    trail::{At, Notes},
};

/// Items of all lists and maps of one record: one byte of an item can become many null columns.
pub(super) const ITEMS_MAX: usize = 1 << 20;
/// Columns that were not made from the program's table schema. A bug of the caller; no record can cause it.
const FOREIGN: RejectReason = RejectReason::IncompatibleSchema;
const MICROS_PER_DAY: i64 = 86_400_000_000;

pub(super) type Outcome = Result<(), RejectReason>;

impl AvroProgram {
    /// Appends the record as one row. On a reject the columns are as they were.
    pub fn decode(&self, columns: &mut Columns, body: &[u8]) -> Outcome {
        self.walk(columns, body, (), whole).map(|_| ())
    }

    /// As [`Self::decode`], of the first of the records that `bodies` holds one after the other. Says how many
    /// bytes it takes.
    pub fn decode_first(&self, columns: &mut Columns, bodies: &[u8]) -> Result<usize, RejectReason> {
        self.walk(columns, bodies, (), |_| Ok(()))
    }

    /// `notes`: get where a fault is.
    pub(super) fn walk<N: Notes>(
        &self,
        columns: &mut Columns,
        body: &[u8],
        notes: N,
        check_left: impl FnOnce(usize) -> Outcome,
    ) -> Result<usize, RejectReason> {
        let mut walk = Walk { cursor: Cursor::new(body), items: ITEMS_MAX, notes };
        let outcome = walk.fields(&self.row, columns.columns());
        match outcome.and_then(|()| check_left(walk.cursor.left())) {
            Ok(()) => {
                columns.end_row();
                Ok(body.len() - walk.cursor.left())
            }
            Err(reason) => {
                columns.rollback(columns.mark());
                Err(reason)
            }
        }
    }
}

/// Nothing may be left after a record.
pub(super) fn whole(left: usize) -> Outcome {
    if left == 0 { Ok(()) } else { Err(RejectReason::TrailingBytes) }
}

struct Walk<'a, N> {
    cursor: Cursor<'a>,
    /// Items that this record may still have.
    items: usize,
    notes: N,
}

/// The builder that the instruction was compiled for.
macro_rules! expect {
    ($column:expr, $kind:ident) => {
        match $column {
            Column::$kind(builder) => builder,
            _ => return Err(FOREIGN),
        }
    };
}

impl<N: Notes> Walk<'_, N> {
    #[inline]
    fn fields(&mut self, fields: &Fields, columns: &mut [Column]) -> Outcome {
        for step in &fields.steps {
            self.step(step, columns).inspect_err(|_| self.notes.note(At::Member(step.column)))?;
        }
        for index in &fields.absent {
            columns.get_mut(*index).ok_or(FOREIGN)?.append_null();
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, step: &Step, columns: &mut [Column]) -> Outcome {
        match columns.get_mut(step.column) {
            Some(column) => self.value(&step.op, column),
            None => self.pass(&step.op),
        }
    }

    /// Passes over a value that no column takes.
    fn pass(&mut self, op: &Op) -> Outcome {
        let Op::Passed(passed) = op else { return Err(FOREIGN) };
        Skip { cursor: &mut self.cursor, items: &mut self.items, is_strict: true }.value(&passed.op)
    }

    fn value(&mut self, op: &Op, column: &mut Column) -> Outcome {
        let cursor = &mut self.cursor;
        match op {
            Op::Boolean => expect!(column, Boolean).push(cursor.boolean()?),
            Op::Int => expect!(column, Int32).push(cursor.int()?),
            Op::IntToLong => expect!(column, Int64).push(i64::from(cursor.int()?)),
            Op::IntToFloat => expect!(column, Float32).push(exact_f32(i64::from(cursor.int()?))?),
            Op::IntToDouble => expect!(column, Float64).push(f64::from(cursor.int()?)),
            Op::Long => expect!(column, Int64).push(cursor.long()?),
            Op::LongToFloat => expect!(column, Float32).push(exact_f32(cursor.long()?)?),
            Op::LongToDouble => expect!(column, Float64).push(exact_f64(cursor.long()?)?),
            Op::Float => expect!(column, Float32).push(f32::from_le_bytes(cursor.array()?)),
            Op::FloatToDouble => {
                expect!(column, Float64).push(f64::from(f32::from_le_bytes(cursor.array()?)))
            }
            Op::Double => expect!(column, Float64).push(f64::from_le_bytes(cursor.array()?)),
            Op::TimeMillis => expect!(column, Int64).push(time_of_day(i64::from(cursor.int()?) * 1000)?),
            Op::TimeMicros => expect!(column, Int64).push(time_of_day(cursor.long()?)?),
            Op::MillisToMicros => {
                let micros = cursor.long()?.checked_mul(1000).ok_or(RejectReason::OutOfRange)?;
                expect!(column, Int64).push(micros);
            }
            Op::NanosToMicros => expect!(column, Int64).push(cursor.long()?.div_euclid(1000)),
            Op::Text | Op::BytesToText => expect!(column, Utf8).push(cursor.bytes()?)?,
            Op::Bytes => expect!(column, Binary).push(cursor.bytes()?)?,
            Op::Fixed(size) => expect!(column, FixedBytes).push(cursor.take(*size)?)?,
            Op::FixedToBytes(size) => expect!(column, Binary).push(cursor.take(*size)?)?,
            Op::UuidText => uuid(cursor.bytes()?, expect!(column, FixedBytes))?,
            Op::Enum(symbols) => {
                let symbol = symbols.get(cursor.index(symbols.len())?).ok_or(RejectReason::Malformed)?;
                expect!(column, Utf8).push_str(symbol)?;
            }
            Op::EnumToBytes(symbols) => {
                let symbol = symbols.get(cursor.index(symbols.len())?).ok_or(RejectReason::Malformed)?;
                expect!(column, Binary).push(symbol.as_bytes())?;
            }
            Op::Decimal { size, factor } => {
                let unscaled = match size {
                    Some(size) => cursor.take(*size)?,
                    None => cursor.bytes()?,
                };
                decimal(unscaled, *factor, expect!(column, Decimal))?;
            }
            Op::Optional { null, op } => {
                if cursor.index(2)? == *null {
                    column.append_null();
                } else {
                    self.value(op, column).inspect_err(|_| self.notes.note(At::Inner))?;
                }
            }
            Op::Struct(_) | Op::List(_) | Op::Map(_) | Op::Only(_) | Op::Union(_) | Op::Passed(_) => {
                return self.nested(op, column);
            }
        }
        Ok(())
    }

    /// Kept apart so that the loop over leaves stays small. The depth is the schema's, which is bounded.
    fn nested(&mut self, op: &Op, column: &mut Column) -> Outcome {
        match op {
            Op::Struct(fields) => {
                let builder = expect!(column, Struct);
                self.fields(fields, builder.members())?;
                builder.end();
                Ok(())
            }
            Op::List(item) => {
                let builder = expect!(column, List);
                let items = builder.items();
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.value(item, items).inspect_err(|_| self.notes.note(At::Element))?;
                    }
                }
                builder.end()
            }
            Op::Map(value) => {
                let builder = expect!(column, Map);
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        let key = self.cursor.bytes();
                        let pushed = key.and_then(|key| expect!(builder.keys(), Utf8).push(key));
                        pushed.inspect_err(|_| self.notes.note(At::Key))?;
                        self.value(value, builder.values()).inspect_err(|_| self.notes.note(At::Value))?;
                    }
                }
                builder.end()
            }
            Op::Only(op) => {
                self.cursor.index(1)?;
                self.value(op, column).inspect_err(|_| self.notes.note(At::Inner))
            }
            Op::Union(branches) => self.union(branches, column),
            _ => Err(FOREIGN),
        }
    }

    /// The next block's items; `None` at the end of the collection.
    fn block(&mut self) -> Result<Option<usize>, RejectReason> {
        let count = self.cursor.block()?;
        // Every item takes a byte at least: types that take none have no column.
        if count > self.cursor.left() {
            return Err(RejectReason::Truncated);
        }
        self.items = self.items.checked_sub(count).ok_or(RejectReason::TooDeep)?;
        Ok((count > 0).then_some(count))
    }

    fn union(&mut self, branches: &Branches, column: &mut Column) -> Outcome {
        let branch = self.cursor.index(branches.members.len())?;
        let Some(Some(step)) = branches.members.get(branch) else {
            column.append_null();
            return Ok(());
        };
        let builder = expect!(column, Struct);
        if matches!(step.op, Op::Passed(_)) {
            self.pass(&step.op).inspect_err(|_| self.notes.note(At::Member(step.column)))?;
        }
        for (index, member) in builder.members().iter_mut().enumerate() {
            if index == step.column {
                self.value(&step.op, member).inspect_err(|_| self.notes.note(At::Member(index)))?;
            } else {
                member.append_null();
            }
        }
        builder.end();
        Ok(())
    }
}

/// The number as a float, if it is the same number.
#[inline]
fn exact_f64(value: i64) -> Result<f64, RejectReason> {
    let float = value as f64;
    if float as i128 == i128::from(value) { Ok(float) } else { Err(RejectReason::OutOfRange) }
}

#[inline]
fn exact_f32(value: i64) -> Result<f32, RejectReason> {
    let float = value as f32;
    if float as i128 == i128::from(value) { Ok(float) } else { Err(RejectReason::OutOfRange) }
}

#[inline]
fn time_of_day(micros: i64) -> Result<i64, RejectReason> {
    if (0..MICROS_PER_DAY).contains(&micros) { Ok(micros) } else { Err(RejectReason::OutOfRange) }
}

/// Two's complement, big-endian, of any length; redundant sign bytes are legal.
fn decimal(bytes: &[u8], factor: i128, column: &mut DecimalValues) -> Outcome {
    let first = *bytes.first().ok_or(RejectReason::Malformed)?;
    let sign: u8 = if first & 0x80 == 0 { 0 } else { 0xff };
    let (redundant, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut number = [sign; 16];
    number.iter_mut().rev().zip(kept.iter().rev()).for_each(|(to, from)| *to = *from);
    let unscaled = i128::from_be_bytes(number);
    let same_sign = (unscaled < 0) == (sign == 0xff);
    if !same_sign || redundant.iter().any(|byte| *byte != sign) {
        return Err(RejectReason::OutOfRange);
    }
    column.push(unscaled.checked_mul(factor).ok_or(RejectReason::OutOfRange)?)
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, or the 32 digits alone, in either case.
fn uuid(text: &[u8], column: &mut FixedBytes) -> Outcome {
    let mut digits = [0u8; 32];
    match text.len() {
        32 => digits.copy_from_slice(text),
        36 => {
            let hyphen = |index: usize| matches!(index, 8 | 13 | 18 | 23);
            let mut to = digits.iter_mut();
            for (index, byte) in text.iter().enumerate() {
                match (hyphen(index), to.len()) {
                    (true, _) if *byte == b'-' => {}
                    (false, 1..) => to.next().into_iter().for_each(|digit| *digit = *byte),
                    _ => return Err(RejectReason::BadLength),
                }
            }
        }
        _ => return Err(RejectReason::BadLength),
    }
    let mut bytes = [0u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(RejectReason::BadLength);
        let (high, low) = (value(pair[0])?, value(pair[1])?);
        *byte = (high << 4 | low) as u8;
    }
    column.push(&bytes)
}
