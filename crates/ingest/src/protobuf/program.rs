//! The compiled form of one message against one table schema.

use std::fmt;

use super::{cursor::Wire, kind::Dynamic, lookup::Lookup, scratch::Scratch};

/// How records of one message become rows of one table schema, and room to do it in.
pub struct ProtobufProgram {
    pub(super) row: Fields,
    pub(super) scratch: Scratch,
}

impl fmt::Debug for ProtobufProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Instructions hold names of enums.
        f.debug_struct("ProtobufProgram").field("fields", &self.row.steps.len()).finish_non_exhaustive()
    }
}

/// A message: its fields that have a column, and the columns that it does not have.
pub(super) struct Fields {
    pub(super) steps: Box<[Step]>,
    /// Their places in the look-up follow those of the steps.
    pub(super) passed: Box<[Passed]>,
    pub(super) lookup: Lookup,
    pub(super) oneofs: usize,
    pub(super) absent: Box<[usize]>,
}

pub(super) struct Step {
    pub(super) column: usize,
    pub(super) wire: Wire,
    /// Which oneof of the message it belongs to.
    pub(super) oneof: Option<usize>,
    pub(super) op: Op,
}

/// A member of a oneof that has no column, and takes the place of another that has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) wire: Wire,
    pub(super) oneof: usize,
}

/// Appends one field to one column.
pub(super) enum Op {
    One { value: Value, absent: Absent },
    Many(Value),
    Map(Box<MapOp>),
}

impl Op {
    /// Only the last value counts.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        matches!(self, Self::One { value: Value::Leaf(_), .. })
    }

    /// Its values may lie packed in one run of bytes.
    #[inline]
    pub(super) fn is_packable(&self, wire: Wire) -> bool {
        matches!(self, Self::Many(Value::Leaf(_))) && !matches!(wire, Wire::Bytes | Wire::Group)
    }
}

/// What an absent field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Null,
    Default,
    /// A proto2 required field.
    Missing,
}

/// One value of a field.
pub(super) enum Value {
    Leaf(Leaf),
    Struct(Box<Fields>),
    Wrapper(Leaf, Wire),
    Timestamp,
    Duration,
    FieldMask,
    Dynamic(Dynamic),
}

/// A map: its entry is a message of two fields.
pub(super) struct MapOp {
    pub(super) key: Leaf,
    pub(super) key_wire: Wire,
    pub(super) value: Value,
    pub(super) value_wire: Wire,
}

/// Appends one scalar, given as the bits that were read, or as where its bytes lie.
pub(super) enum Leaf {
    Bool,
    Int(Number),
    Long(Number),
    IntegerToFloat(Number),
    IntegerToDouble(Number),
    /// `uint64` times this.
    Decimal(i128),
    Float,
    FloatToDouble,
    Double,
    Text,
    BytesToText,
    Bytes,
    Enum(Box<Symbols>),
    EnumToBytes(Box<Symbols>),
}

/// How bits are an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Int32,
    Sint32,
    Uint32,
    Int64,
    Sint64,
}

impl Number {
    #[inline]
    pub(super) fn of(self, bits: u64) -> i64 {
        match self {
            Self::Int32 => i64::from(bits as u32 as i32),
            Self::Sint32 => i64::from(zigzag(u64::from(bits as u32)) as i32),
            Self::Uint32 => i64::from(bits as u32),
            Self::Int64 => bits.cast_signed(),
            Self::Sint64 => zigzag(bits),
        }
    }
}

#[inline]
pub(super) fn zigzag(bits: u64) -> i64 {
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

/// Names of an enum's numbers.
pub(super) struct Symbols {
    /// Of 0 and up, as long as there are names.
    pub(super) low: Box<[Box<str>]>,
    /// The others, by number.
    pub(super) others: Box<[(i32, Box<str>)]>,
    /// What an absent value is.
    pub(super) default: i32,
}

impl Symbols {
    #[inline]
    pub(super) fn name(&self, number: i32) -> Option<&str> {
        if let Some(name) = usize::try_from(number).ok().and_then(|index| self.low.get(index)) {
            return Some(name);
        }
        let place = self.others.binary_search_by_key(&number, |(of, _)| *of).ok()?;
        self.others.get(place).map(|(_, name)| name.as_ref())
    }
}
