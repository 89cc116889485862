//! The compiled form of one writer schema against one table schema.

use std::fmt;

use siltstone_protocol::Type;

/// How records of one writer schema become rows of one table schema: an instruction per writer field, in the
/// order of the bytes, each bound to its column.
pub struct AvroProgram {
    pub(super) row: Fields,
}

impl fmt::Debug for AvroProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Instructions hold enum symbols.
        f.debug_struct("AvroProgram").field("fields", &self.row.steps.len()).finish_non_exhaustive()
    }
}

/// A record: its fields in the writer's order, and the columns that it does not have.
pub(super) struct Fields {
    pub(super) steps: Box<[Step]>,
    pub(super) absent: Box<[usize]>,
}

pub(super) struct Step {
    /// Of what is passed over a number that no column has.
    pub(super) column: usize,
    pub(super) op: Op,
}

/// Reads one value and appends it to one column.
pub(super) enum Op {
    Boolean,
    Int,
    IntToLong,
    IntToFloat,
    IntToDouble,
    Long,
    LongToFloat,
    LongToDouble,
    Float,
    FloatToDouble,
    Double,
    TimeMillis,
    TimeMicros,
    MillisToMicros,
    NanosToMicros,
    Text,
    BytesToText,
    Bytes,
    Fixed(usize),
    FixedToBytes(usize),
    UuidText,
    Enum(Box<[Box<str>]>),
    EnumToBytes(Box<[Box<str>]>),
    /// Unscaled big-endian number times `factor`; `size` of a fixed base.
    Decimal {
        size: Option<usize>,
        factor: i128,
    },
    Struct(Box<Fields>),
    List(Box<Op>),
    Map(Box<Op>),
    /// Union of null and one type.
    Optional {
        null: usize,
        op: Box<Op>,
    },
    /// Union of one type.
    Only(Box<Op>),
    Union(Box<Branches>),
    /// A field that has no column.
    Passed(Box<Passed>),
}

/// How a value is passed over.
pub(super) struct Passed {
    pub(super) name: Box<str>,
    /// Of the column that it would be.
    pub(super) data_type: Type,
    pub(super) op: Op,
}

/// A general union: a struct of optional members.
pub(super) struct Branches {
    /// By branch index; `None` is null.
    pub(super) members: Box<[Option<Step>]>,
}
