//! What a record that does not fit is about: the field, the message's type and the column's.
//!
//! Asked for after the fact, of rejected records alone: they are walked once more, with notes, and the columns are as
//! they were. Names of fields and types only, never a value.

use siltstone_protocol::{Field, RejectReason, Type};
use siltstone_spec::resolve::kind_of;

use super::{
    cursor::{GROUPS_MAX, Wire},
    decode::ITEMS_MAX,
    dynamic::DEPTH_MAX,
    kind::Dynamic,
    program::{Fields, Leaf, Number, Op, ProtobufProgram, Value},
};
use crate::{
    columns::Columns,
    dead_letter::About,
    trail::{At, ELEMENT, MAP_VALUE, Trail, detail, dotted},
};

/// What does not fit.
#[derive(Clone, Copy)]
enum Place<'p> {
    Message(&'p Fields, &'p [Field]),
    Field(&'p Op, Wire, &'p Type),
    Value(&'p Value, Wire, &'p Type),
    Key(&'p Leaf, Wire, &'p Type),
}

impl ProtobufProgram {
    /// What a rejected record is about; `None` when that cannot be told. `table`: the columns that the program was
    /// compiled for.
    pub fn explain(&mut self, table: &[Field], columns: &mut Columns, body: &[u8]) -> Option<About> {
        let (mut trail, mark) = (Trail::default(), columns.mark());
        let walked = self.walk(columns, body, &mut trail);
        columns.rollback(mark);
        let reason = walked.err()?;
        let (mut place, mut path, mut found) = (Place::Message(&self.row, table), Vec::new(), None);
        for at in trail.inwards() {
            match at {
                At::Found(name) => found = Some(name),
                at => place = place.inside(at, &mut path)?,
            }
        }
        let detail = place.detail(reason, found)?;
        Some(About { field: (!path.is_empty()).then(|| dotted(&path)), detail })
    }
}

impl<'p> Place<'p> {
    /// One step further in.
    fn inside(self, at: At, path: &mut Vec<&'p str>) -> Option<Self> {
        Some(match (at, self) {
            (At::Member(index), place) => {
                let (fields, columns) = place.members()?;
                let step = fields.steps.iter().find(|step| step.column == index)?;
                let column = columns.get(index)?;
                path.push(&column.name);
                Place::Field(&step.op, step.wire, &column.data_type)
            }
            (At::Element, Place::Field(Op::Many(value), wire, Type::List { element, .. })) => {
                path.push(ELEMENT);
                Place::Value(value, wire, element)
            }
            (At::Value, Place::Field(Op::Map(map), _, Type::Map { value, .. })) => {
                path.push(MAP_VALUE);
                Place::Value(&map.value, map.value_wire, value)
            }
            (At::Key, Place::Field(Op::Map(map), _, Type::Map { key, .. })) => {
                Place::Key(&map.key, map.key_wire, key)
            }
            _ => return None,
        })
    }

    /// The fields of the message that is here, and their columns.
    fn members(self) -> Option<(&'p Fields, &'p [Field])> {
        match self {
            Place::Message(fields, columns) => Some((fields, columns)),
            Place::Field(Op::One { value: Value::Struct(fields), .. }, _, Type::Struct(columns))
            | Place::Value(Value::Struct(fields), _, Type::Struct(columns)) => {
                Some((&**fields, columns.as_slice()))
            }
            _ => None,
        }
    }

    /// The single value that is here.
    fn value(self) -> Option<&'p Value> {
        match self {
            Place::Field(Op::One { value, .. }, ..) => Some(value),
            Place::Value(value, ..) => Some(value),
            _ => None,
        }
    }

    fn detail(self, reason: RejectReason, found: Option<&str>) -> Option<String> {
        let writer = self.writer();
        let column = match self {
            Place::Message(..) => "table".to_owned(),
            Place::Field(_, _, column) | Place::Value(_, _, column) | Place::Key(_, _, column) => {
                kind_of(column)
            }
        };
        Some(match (reason, self.value()) {
            (RejectReason::WrongType, _) => {
                format!("{} where {writer} is wanted", found.unwrap_or("another encoding"))
            }
            (RejectReason::TooDeep, Some(Value::Dynamic(_))) => {
                format!("values in {writer} nest deeper than {DEPTH_MAX}")
            }
            (RejectReason::TooDeep, _) => format!(
                "more than {ITEMS_MAX} items in one record, or unknown groups that nest deeper than {GROUPS_MAX}"
            ),
            (RejectReason::BadTimestamp, _) => format!("{writer} whose nanos are outside of one second"),
            (RejectReason::OutOfRange, Some(Value::Timestamp)) => {
                format!("{writer} outside of the years 1 to 9999")
            }
            (RejectReason::OutOfRange, Some(Value::Duration)) => {
                format!("{writer} outside of ten thousand years, or whose parts differ in sign")
            }
            (RejectReason::OutOfRange, Some(Value::Dynamic(_))) => {
                format!("{writer} with a number that JSON does not have")
            }
            (RejectReason::OutOfRange, Some(Value::Leaf(leaf) | Value::Wrapper(leaf, _)))
                if matches!(leaf, Leaf::IntegerToFloat(_) | Leaf::IntegerToDouble(_)) =>
            {
                format!("{writer} that {column} cannot hold exactly")
            }
            (reason, _) => return detail(reason, &writer, &column),
        })
    }

    /// What Protobuf calls the type.
    fn writer(self) -> String {
        match self {
            Place::Message(..) => "message".to_owned(),
            Place::Field(Op::One { value, .. }, wire, _) => value_name(value, wire),
            Place::Value(value, wire, _) => value_name(value, wire),
            Place::Field(Op::Many(value), wire, _) => format!("repeated {}", value_name(value, wire)),
            Place::Field(Op::Map(_), ..) => "map".to_owned(),
            Place::Key(leaf, wire, _) => format!("map key of type {}", leaf_name(leaf, wire)),
        }
    }
}

fn value_name(value: &Value, wire: Wire) -> String {
    let name = match value {
        Value::Leaf(leaf) => leaf_name(leaf, wire),
        Value::Wrapper(leaf, wire) => return format!("wrapper of {}", leaf_name(leaf, *wire)),
        Value::Struct(_) => "message",
        Value::Timestamp => "google.protobuf.Timestamp",
        Value::Duration => "google.protobuf.Duration",
        Value::FieldMask => "google.protobuf.FieldMask",
        Value::Dynamic(Dynamic::Struct) => "google.protobuf.Struct",
        Value::Dynamic(Dynamic::Value) => "google.protobuf.Value",
        Value::Dynamic(Dynamic::List) => "google.protobuf.ListValue",
    };
    name.to_owned()
}

fn leaf_name(leaf: &Leaf, wire: Wire) -> &'static str {
    let fixed = wire != Wire::Varint;
    match leaf {
        Leaf::Bool => "bool",
        Leaf::Int(number)
        | Leaf::Long(number)
        | Leaf::IntegerToFloat(number)
        | Leaf::IntegerToDouble(number) => match number {
            Number::Int32 if fixed => "sfixed32",
            Number::Int32 => "int32",
            Number::Sint32 => "sint32",
            Number::Uint32 if fixed => "fixed32",
            Number::Uint32 => "uint32",
            Number::Int64 if fixed => "sfixed64",
            Number::Int64 => "int64",
            Number::Sint64 => "sint64",
        },
        Leaf::Decimal(_) if fixed => "fixed64",
        Leaf::Decimal(_) => "uint64",
        Leaf::Float | Leaf::FloatToDouble => "float",
        Leaf::Double => "double",
        Leaf::Text => "string",
        Leaf::BytesToText | Leaf::Bytes => "bytes",
        Leaf::Enum(_) | Leaf::EnumToBytes(_) => "enum",
    }
}
