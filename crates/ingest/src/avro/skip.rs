//! Over values that nobody wants: the walk of `decode` without columns, and without a look at what values mean. Fields
//! without a column are passed over so, and records of which only the end is looked for.

use siltstone_protocol::RejectReason;

use super::{
    cursor::Cursor,
    decode::ITEMS_MAX,
    program::{AvroProgram, Fields, Op},
};

type Outcome = Result<(), RejectReason>;

impl AvroProgram {
    /// Bytes of the first of the records that `bodies` holds.
    ///
    /// # Errors
    /// The encoding is broken, so nobody can say where it ends.
    pub fn skip_first(&self, bodies: &[u8]) -> Result<usize, RejectReason> {
        let (mut cursor, mut items) = (Cursor::new(bodies), ITEMS_MAX);
        Skip { cursor: &mut cursor, items: &mut items, is_strict: false }.fields(&self.row)?;
        Ok(bodies.len() - cursor.left())
    }
}

pub(super) struct Skip<'w, 'a> {
    pub(super) cursor: &'w mut Cursor<'a>,
    /// Items that the record may still have.
    pub(super) items: &'w mut usize,
    /// What no writer encodes is a fault, though it is clear where it ends.
    pub(super) is_strict: bool,
}

impl Skip<'_, '_> {
    fn fields(&mut self, fields: &Fields) -> Outcome {
        fields.steps.iter().try_for_each(|step| self.value(&step.op))
    }

    pub(super) fn value(&mut self, op: &Op) -> Outcome {
        let cursor = &mut *self.cursor;
        match op {
            Op::Boolean if self.is_strict => cursor.boolean().map(|_| ())?,
            Op::Int | Op::IntToLong | Op::IntToFloat | Op::IntToDouble | Op::TimeMillis if self.is_strict => {
                cursor.int().map(|_| ())?;
            }
            Op::Enum(symbols) | Op::EnumToBytes(symbols) if self.is_strict => {
                cursor.index(symbols.len()).map(|_| ())?;
            }
            Op::Boolean => cursor.take(1).map(|_| ())?,
            Op::Int
            | Op::IntToLong
            | Op::IntToFloat
            | Op::IntToDouble
            | Op::Long
            | Op::LongToFloat
            | Op::LongToDouble
            | Op::TimeMillis
            | Op::TimeMicros
            | Op::MillisToMicros
            | Op::NanosToMicros
            | Op::Enum(_)
            | Op::EnumToBytes(_) => cursor.long().map(|_| ())?,
            Op::Float | Op::FloatToDouble => cursor.take(4).map(|_| ())?,
            Op::Double => cursor.take(8).map(|_| ())?,
            Op::Text | Op::BytesToText | Op::Bytes | Op::UuidText | Op::Decimal { size: None, .. } => {
                cursor.bytes().map(|_| ())?;
            }
            Op::Fixed(size) | Op::FixedToBytes(size) | Op::Decimal { size: Some(size), .. } => {
                cursor.take(*size).map(|_| ())?;
            }
            Op::Struct(fields) => self.fields(fields)?,
            Op::List(item) => {
                while let Some(count) = self.block()? {
                    (0..count).try_for_each(|_| self.value(item))?;
                }
            }
            Op::Map(value) => {
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.cursor.bytes()?;
                        self.value(value)?;
                    }
                }
            }
            Op::Optional { null, op } => {
                if cursor.index(2)? != *null {
                    self.value(op)?;
                }
            }
            Op::Only(op) => {
                cursor.index(1)?;
                self.value(op)?;
            }
            Op::Union(branches) => {
                let branch = cursor.index(branches.members.len())?;
                if let Some(Some(step)) = branches.members.get(branch) {
                    self.value(&step.op)?;
                }
            }
            Op::Passed(passed) => self.value(&passed.op)?,
        }
        Ok(())
    }

    /// The next block's items; `None` at the end of the collection.
    fn block(&mut self) -> Result<Option<usize>, RejectReason> {
        let count = self.cursor.block()?;
        if count > self.cursor.left() {
            return Err(RejectReason::Truncated);
        }
        *self.items = self.items.checked_sub(count).ok_or(RejectReason::TooDeep)?;
        Ok((count > 0).then_some(count))
    }
}
