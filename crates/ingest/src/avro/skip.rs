//! Where a record ends: the walk of `decode` without columns, and without a look at what values mean.

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
        let mut walk = Skip { cursor: Cursor::new(bodies), items: ITEMS_MAX };
        walk.fields(&self.row)?;
        Ok(bodies.len() - walk.cursor.left())
    }
}

struct Skip<'a> {
    cursor: Cursor<'a>,
    items: usize,
}

impl Skip<'_> {
    fn fields(&mut self, fields: &Fields) -> Outcome {
        fields.steps.iter().try_for_each(|step| self.value(&step.op))
    }

    fn value(&mut self, op: &Op) -> Outcome {
        let cursor = &mut self.cursor;
        match op {
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
        }
        Ok(())
    }

    /// The next block's items; `None` at the end of the collection.
    fn block(&mut self) -> Result<Option<usize>, RejectReason> {
        let count = self.cursor.block()?;
        if count > self.cursor.left() {
            return Err(RejectReason::Truncated);
        }
        self.items = self.items.checked_sub(count).ok_or(RejectReason::TooDeep)?;
        Ok((count > 0).then_some(count))
    }
}
