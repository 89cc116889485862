//! What a record that does not fit is about: the field, the writer's type and the column's.
//!
//! Asked for after the fact, of rejected records alone: they are walked once more, with notes, and the columns are as
//! they were. Names of fields and types only, never a value.

use siltstone_protocol::{Field, PrimitiveType, RejectReason, Type};
use siltstone_spec::resolve::kind_of;

use super::{
    decode::{ITEMS_MAX, whole},
    program::{AvroProgram, Op, Step},
};
use crate::{
    columns::Columns,
    dead_letter::About,
    trail::{At, ELEMENT, MAP_VALUE, Trail, detail, dotted},
};

/// The value that does not fit, and what it is for.
#[derive(Clone, Copy)]
struct Place<'p> {
    op: &'p Op,
    column: &'p Type,
    /// The value is a key of this map.
    is_key: bool,
}

impl AvroProgram {
    /// What a rejected record is about; `None` when that cannot be told. `table`: the columns that the program was
    /// compiled for.
    pub fn explain(&self, table: &[Field], columns: &mut Columns, body: &[u8]) -> Option<About> {
        let (mut trail, mark) = (Trail::default(), columns.mark());
        let walked = self.walk(columns, body, &mut trail, whole);
        columns.rollback(mark);
        let reason = walked.err()?;
        if reason == RejectReason::TrailingBytes {
            return Some(About::of_record("bytes after the last field of the writer's schema"));
        }
        let mut path = Vec::new();
        let place = self.place(table, &trail, &mut path)?;
        Some(About { field: Some(dotted(&path)), detail: place.detail(reason)? })
    }

    fn place<'p>(&'p self, table: &'p [Field], trail: &Trail, path: &mut Vec<&'p str>) -> Option<Place<'p>> {
        let mut place: Option<Place<'p>> = None;
        for at in trail.inwards() {
            let before = place.map(|place| (place.op, place.column));
            let (op, column) = match (at, before) {
                (At::Member(index), None) => member(&self.row.steps, table, index, path)?,
                (At::Member(index), Some((Op::Struct(fields), Type::Struct(members)))) => {
                    member(&fields.steps, members, index, path)?
                }
                (At::Member(index), Some((Op::Union(branches), Type::Struct(members)))) => {
                    member(branches.members.iter().flatten(), members, index, path)?
                }
                (At::Element, Some((Op::List(item), Type::List { element, .. }))) => {
                    path.push(ELEMENT);
                    (&**item, &**element)
                }
                (At::Value, Some((Op::Map(value), Type::Map { value: column, .. }))) => {
                    path.push(MAP_VALUE);
                    (&**value, &**column)
                }
                (At::Key, Some((op @ Op::Map(_), Type::Map { key, .. }))) => (op, &**key),
                (At::Inner, Some((Op::Optional { op, .. } | Op::Only(op), column))) => (&**op, column),
                _ => return None,
            };
            place = Some(Place { op, column, is_key: at == At::Key });
        }
        place
    }
}

/// The field that column `index` is of.
fn member<'p>(
    steps: impl IntoIterator<Item = &'p Step>,
    columns: &'p [Field],
    index: usize,
    path: &mut Vec<&'p str>,
) -> Option<(&'p Op, &'p Type)> {
    let step = steps.into_iter().find(|step| step.column == index)?;
    if let Op::Passed(passed) = &step.op {
        path.push(&passed.name);
        return Some((&step.op, &passed.data_type));
    }
    let column = columns.get(index)?;
    path.push(&column.name);
    Some((&step.op, &column.data_type))
}

impl Place<'_> {
    fn detail(self, reason: RejectReason) -> Option<String> {
        let (writer, column) = (self.writer(), kind_of(self.column));
        if self.is_key {
            return detail(reason, "map key", &column);
        }
        Some(match (reason, self.op) {
            (RejectReason::TooDeep, _) => {
                format!("more than {ITEMS_MAX} items in arrays and maps of one record")
            }
            (RejectReason::Malformed, Op::Optional { .. } | Op::Only(_) | Op::Union(_)) => {
                "union branch that the writer's schema does not have".to_owned()
            }
            (RejectReason::Malformed, Op::Enum(_) | Op::EnumToBytes(_)) => {
                "enum symbol that the writer's schema does not have".to_owned()
            }
            (RejectReason::Malformed, Op::Boolean) => "boolean that is neither 0 nor 1".to_owned(),
            (RejectReason::OutOfRange, Op::MillisToMicros) => {
                format!("{writer} outside the range of microseconds")
            }
            (RejectReason::OutOfRange, Op::TimeMillis | Op::TimeMicros) => {
                format!("{writer} outside of one day")
            }
            (
                RejectReason::OutOfRange,
                Op::IntToFloat | Op::IntToDouble | Op::LongToFloat | Op::LongToDouble,
            ) => format!("{writer} that {column} cannot hold exactly"),
            (reason, _) => return detail(reason, writer, &column),
        })
    }

    /// What Avro calls the type.
    fn writer(self) -> &'static str {
        let primitive = |of| *self.column == Type::Primitive(of);
        match self.op {
            Op::Boolean => "boolean",
            Op::Int if primitive(PrimitiveType::Date) => "date",
            Op::Int | Op::IntToLong | Op::IntToFloat | Op::IntToDouble => "int",
            Op::Long if primitive(PrimitiveType::Timestamptz) => "timestamp-micros",
            Op::Long if primitive(PrimitiveType::Timestamp) => "local-timestamp-micros",
            Op::Long | Op::LongToFloat | Op::LongToDouble => "long",
            Op::Float | Op::FloatToDouble => "float",
            Op::Double => "double",
            Op::TimeMillis => "time-millis",
            Op::TimeMicros => "time-micros",
            Op::MillisToMicros if primitive(PrimitiveType::Timestamp) => "local-timestamp-millis",
            Op::MillisToMicros => "timestamp-millis",
            Op::NanosToMicros if primitive(PrimitiveType::Timestamp) => "local-timestamp-nanos",
            Op::NanosToMicros => "timestamp-nanos",
            Op::Text | Op::UuidText => "string",
            Op::BytesToText | Op::Bytes => "bytes",
            Op::Fixed(_) | Op::FixedToBytes(_) => "fixed",
            Op::Enum(_) | Op::EnumToBytes(_) => "enum",
            Op::Decimal { .. } => "decimal",
            Op::Struct(_) => "record",
            Op::List(_) => "array",
            Op::Map(_) => "map",
            Op::Optional { .. } | Op::Only(_) | Op::Union(_) => "union",
            Op::Passed(passed) => Place { op: &passed.op, ..self }.writer(),
        }
    }
}
