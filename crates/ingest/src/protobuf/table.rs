//! Protobuf message to table schema.
//!
//! | Protobuf | column |
//! | --- | --- |
//! | `bool`, `float`, `double`, `string`, `bytes` | the same (`bytes` is binary) |
//! | `int32`, `sint32`, `sfixed32` | int |
//! | `uint32`, `fixed32`, `int64`, `sint64`, `sfixed64` | long |
//! | `uint64`, `fixed64` | decimal(20, 0) |
//! | enum | string: the value's name, of a number without a name its digits |
//! | message, group | struct |
//! | `repeated` | list |
//! | `map` | map, keys by the rows above |
//! | a member of a oneof | an optional column of its own |
//! | `google.protobuf.Timestamp` | timestamptz; nanoseconds are rounded down to microseconds |
//! | `google.protobuf.Duration` | long: microseconds, rounded down |
//! | `google.protobuf.*Value` (wrappers) | the wrapped type, optional |
//! | `google.protobuf.Struct`, `Value`, `ListValue` | string: JSON, members of objects sorted by name |
//! | `google.protobuf.FieldMask` | list of string |
//! | `google.protobuf.Any` | struct of `type_url` and `value` |
//! | `google.type.*`, `confluent.type.Decimal` | struct, as any other message |
//! | a message without fields | no column, until a later schema gives it some |
//!
//! A field without presence (proto3 without `optional`) is required: where the record does not have it, it is 0, false,
//! empty, or the enum's first value. A field with presence (`optional`, messages, oneofs) is null where the
//! record does not have it, and so is proto2's `optional`, whatever default it declares; `required` is required.
//! Lists, maps and what is in them are never null.
//!
//! Columns come in the order of the `.proto` text and are called as the fields are there. What is recursive is
//! refused by its path. A column remembers the number of its field, which tells a new name from a new field.
//!
//! Field ids are assigned depth-first from 1: a field, then what is inside it, then the next one.

use protox::prost_reflect::{FieldDescriptor, MessageDescriptor};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use super::{
    kind::{Kind, Scalar, Shape, shape},
    schema::ProtobufSchema,
};
use siltstone_spec::evolve::assign_ids;

use crate::{
    IngestError,
    trail::{ELEMENT, MAP_KEY, MAP_VALUE, dotted},
};

/// Types nest at most this deep.
const DEPTH_MAX: usize = 64;
/// Bound on columns and nested fields together; references can multiply without end.
const FIELDS_MAX: usize = 10_000;
/// Digits of 2^64 - 1.
pub(super) const UINT64_DIGITS: u8 = 20;

/// The table for records of this message.
///
/// # Errors
/// `SchemaRefused`, naming the column.
pub fn table_schema(schema: &ProtobufSchema) -> Result<Schema, IngestError> {
    let mut mapper = Mapper { active: Vec::new(), path: Vec::new(), fields: 0 };
    let mut fields = mapper.message(schema.message())?;
    if fields.is_empty() {
        return Err(mapper.refused("the message has no field that can be a column"));
    }
    assign_ids(&mut fields, &mut 0);
    Ok(Schema::new(0, fields))
}

/// Fields in the order of the text.
pub(super) fn fields(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    let numbers = message.descriptor_proto().field.iter();
    numbers.filter_map(|field| message.get_field(u32::try_from(field.number()).ok()?))
}

struct Mapper {
    /// Messages being mapped, outermost first.
    active: Vec<String>,
    path: Vec<String>,
    fields: usize,
}

impl Mapper {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        match self.path.as_slice() {
            [] => IngestError::schema_refused("of Protobuf", why),
            path => IngestError::column_refused(dotted(path), why),
        }
    }

    fn message(&mut self, message: &MessageDescriptor) -> Result<Vec<Field>, IngestError> {
        let name = message.full_name();
        if self.active.iter().any(|active| active == name) {
            return Err(self.refused(format!("message {name} contains itself; a table cannot be recursive")));
        }
        self.active.push(name.to_owned());
        let mut columns = Vec::new();
        for field in fields(message) {
            columns.extend(self.field(&field)?);
        }
        self.active.pop();
        Ok(columns)
    }

    fn field(&mut self, field: &FieldDescriptor) -> Result<Option<Field>, IngestError> {
        self.enter(field.name())?;
        let (data_type, required) = match shape(field) {
            Shape::One { kind, presence, required } => (self.value(&kind)?, required || !presence),
            Shape::Many(kind) => (self.inside(ELEMENT, &kind)?.map(list), true),
            Shape::Map { key, value } => {
                let key = self.inside(MAP_KEY, &key)?;
                (key.zip(self.inside(MAP_VALUE, &value)?).map(|(key, value)| map(key, value)), true)
            }
        };
        self.path.pop();
        let name = field.name().to_owned();
        Ok(data_type.map(|data_type| Field {
            number: Some(field.number()),
            ..Field::new(0, name, required, data_type)
        }))
    }

    fn enter(&mut self, name: &str) -> Result<(), IngestError> {
        self.fields += 1;
        self.path.push(name.to_owned());
        if self.fields > FIELDS_MAX {
            return Err(self.refused("the schema has more than 10000 fields"));
        }
        if self.path.len() > DEPTH_MAX {
            return Err(self.refused("types nest deeper than 64"));
        }
        Ok(())
    }

    fn inside(&mut self, name: &str, kind: &Kind) -> Result<Option<Type>, IngestError> {
        self.enter(name)?;
        let data_type = self.value(kind)?;
        self.path.pop();
        Ok(data_type)
    }

    /// `None`: a message that has no field with a column.
    fn value(&mut self, kind: &Kind) -> Result<Option<Type>, IngestError> {
        Ok(Some(match kind {
            Kind::Scalar(scalar) | Kind::Wrapper(scalar) => primitive(scalar).into(),
            Kind::Timestamp => PrimitiveType::Timestamptz.into(),
            Kind::Duration => PrimitiveType::Long.into(),
            Kind::FieldMask => list(PrimitiveType::String.into()),
            Kind::Dynamic(_) => PrimitiveType::String.into(),
            Kind::Message(message) => match self.message(message)? {
                members if members.is_empty() => return Ok(None),
                members => Type::Struct(members),
            },
        }))
    }
}

fn list(element: Type) -> Type {
    Type::List { element_id: 0, element_required: true, element: Box::new(element) }
}

fn map(key: Type, value: Type) -> Type {
    Type::Map { key_id: 0, key: Box::new(key), value_id: 0, value_required: true, value: Box::new(value) }
}

fn primitive(scalar: &Scalar) -> PrimitiveType {
    match scalar {
        Scalar::Bool => PrimitiveType::Boolean,
        Scalar::Int32(_) | Scalar::Sint32 => PrimitiveType::Int,
        Scalar::Uint32(_) | Scalar::Int64(_) | Scalar::Sint64 => PrimitiveType::Long,
        Scalar::Uint64(_) => PrimitiveType::Decimal { precision: UINT64_DIGITS, scale: 0 },
        Scalar::Float => PrimitiveType::Float,
        Scalar::Double => PrimitiveType::Double,
        Scalar::String | Scalar::Enum(_) => PrimitiveType::String,
        Scalar::Bytes => PrimitiveType::Binary,
    }
}
