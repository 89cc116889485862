//! Message and table schema to a program.
//!
//! Fields match columns by name. A message may be narrower than the table (int to long, float or double; long to float
//! or double; float to double; string to binary and back) and may lack optional columns. Anything else must
//! first become part of the table, unless the caller says that the table has some of the fields only.

use std::collections::BTreeMap;

use protox::prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use super::{
    cursor::Wire,
    kind::{Kind, Scalar, Shape, shape},
    lookup::Lookup,
    program::{Absent, Fields, Leaf, MapOp, Number, Op, Passed, ProtobufProgram, Step, Symbols, Value},
    schema::ProtobufSchema,
    scratch::Scratch,
    table::{UINT64_DIGITS, fields},
};
use crate::{
    IngestError,
    trail::{ELEMENT, MAP_KEY, MAP_VALUE, dotted},
};

/// Backstop: a schema that nests deeper, or is recursive, has no table.
const DEPTH_MAX: usize = 64;

impl ProtobufProgram {
    /// Compiles a program for records of the schema's message into columns of `table`.
    ///
    /// # Errors
    /// `SchemaRefused`, naming the column that the table must gain, widen or make optional first.
    pub fn compile(schema: &ProtobufSchema, table: &Schema) -> Result<Self, IngestError> {
        Self::compiled(schema, table, false)
    }

    /// As [`Self::compile`], for a table of some of the fields: the others, also of messages inside, are passed over as
    /// those are that the schema does not know. Nothing is looked at but where they end: not whether a text is UTF-8,
    /// what is in a message, whether the encoding is that of the type, or whether a required field is there.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn compile_some(schema: &ProtobufSchema, table: &Schema) -> Result<Self, IngestError> {
        Self::compiled(schema, table, true)
    }

    fn compiled(schema: &ProtobufSchema, table: &Schema, passes: bool) -> Result<Self, IngestError> {
        let mut compiler = Compiler { passes, path: Vec::new() };
        let row = compiler.message(schema.message(), &table.fields)?;
        Ok(Self { row, scratch: Scratch::default() })
    }
}

struct Compiler {
    /// Fields without a column are passed over.
    passes: bool,
    path: Vec<String>,
}

impl Compiler {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        IngestError::column_refused(dotted(&self.path), why)
    }

    fn message(&mut self, message: &MessageDescriptor, columns: &[Field]) -> Result<Fields, IngestError> {
        let mut steps = Vec::new();
        let mut numbers = Vec::new();
        let mut oneofs = Vec::new();
        let mut left_out = Vec::new();
        for field in fields(message) {
            if is_empty(&field) {
                left_out.push(field); // Has no column, but may end another of its oneof.
                continue;
            }
            self.enter(field.name())?;
            let position = columns.iter().position(|column| column.name == field.name());
            let Some((column, target)) = position.and_then(|index| Some((index, columns.get(index)?))) else {
                if !self.passes {
                    return Err(self.refused("the table has no such column yet"));
                }
                left_out.push(field);
                self.path.pop();
                continue;
            };
            let (op, wire) = self.op(&field, target)?;
            let oneof = field.containing_oneof().map(|oneof| {
                let name = oneof.name().to_owned();
                oneofs.iter().position(|known| *known == name).unwrap_or_else(|| {
                    oneofs.push(name);
                    oneofs.len() - 1
                })
            });
            steps.push(Step { column, wire, oneof, op });
            numbers.push(field.number());
            self.path.pop();
        }
        let taken = |index: &usize| steps.iter().any(|step| step.column == *index);
        let absent: Vec<usize> = (0..columns.len()).filter(|index| !taken(index)).collect();
        if let Some(column) =
            absent.iter().filter_map(|index| columns.get(*index)).find(|column| column.required)
        {
            self.path.push(column.name.clone());
            return Err(self.refused("the column is required and the schema does not have it"));
        }
        let mut passed = Vec::new();
        for field in &left_out {
            if let Some(found) = passed_of(field, &oneofs) {
                passed.push(found);
                numbers.push(field.number());
            }
        }
        let (lookup, passed) = (Lookup::new(&numbers), passed.into());
        Ok(Fields { steps: steps.into(), passed, lookup, oneofs: oneofs.len(), absent: absent.into() })
    }

    fn enter(&mut self, name: &str) -> Result<(), IngestError> {
        self.path.push(name.to_owned());
        if self.path.len() > DEPTH_MAX {
            return Err(self.refused("types nest deeper than 64"));
        }
        Ok(())
    }

    fn op(&mut self, field: &FieldDescriptor, target: &Field) -> Result<(Op, Wire), IngestError> {
        let misfit = "its type does not fit the column's type";
        Ok(match (shape(field), &target.data_type) {
            (Shape::One { kind, presence, required }, data_type) => {
                let absent = match (required, presence) {
                    (true, _) => Absent::Missing,
                    (false, true) => Absent::Null,
                    (false, false) => Absent::Default,
                };
                if absent == Absent::Null && target.required {
                    return Err(self.refused("the column is required and the schema lets it be null"));
                }
                let value = self.value(&kind, data_type)?;
                (Op::One { value, absent }, wire(&kind, field.is_group()))
            }
            (Shape::Many(kind), Type::List { element, .. }) => {
                let value = self.inside(ELEMENT, &kind, element)?;
                (Op::Many(value), wire(&kind, field.is_group()))
            }
            (Shape::Map { key, value }, Type::Map { key: to_key, value: to_value, .. }) => {
                let Value::Leaf(key_leaf) = self.inside(MAP_KEY, &key, to_key)? else {
                    return Err(self.refused("its keys are no scalars"));
                };
                let map = MapOp {
                    key: key_leaf,
                    key_wire: wire(&key, false),
                    value_wire: wire(&value, false),
                    value: self.inside(MAP_VALUE, &value, to_value)?,
                };
                (Op::Map(Box::new(map)), Wire::Bytes)
            }
            _ => return Err(self.refused(misfit)),
        })
    }

    fn inside(&mut self, name: &str, kind: &Kind, target: &Type) -> Result<Value, IngestError> {
        self.enter(name)?;
        let value = self.value(kind, target)?;
        self.path.pop();
        Ok(value)
    }

    fn value(&mut self, kind: &Kind, target: &Type) -> Result<Value, IngestError> {
        use PrimitiveType as P;
        let fitting = match (kind, target) {
            (Kind::Scalar(scalar), Type::Primitive(to)) => leaf(scalar, *to).map(Value::Leaf),
            (Kind::Wrapper(scalar), Type::Primitive(to)) => {
                leaf(scalar, *to).map(|leaf| Value::Wrapper(leaf, scalar.wire()))
            }
            (Kind::Message(message), Type::Struct(members)) => {
                Some(Value::Struct(Box::new(self.message(message, members)?)))
            }
            (Kind::Timestamp, Type::Primitive(P::Timestamptz)) => Some(Value::Timestamp),
            (Kind::Duration, Type::Primitive(P::Long)) => Some(Value::Duration),
            (Kind::Dynamic(dynamic), Type::Primitive(P::String)) => Some(Value::Dynamic(*dynamic)),
            (Kind::FieldMask, Type::List { element, .. }) if **element == Type::Primitive(P::String) => {
                Some(Value::FieldMask)
            }
            _ => None,
        };
        fitting.ok_or_else(|| match target {
            Type::Primitive(to) => self.refused(format!("its type does not fit column type {to}")),
            _ => self.refused("its type does not fit the column's type"),
        })
    }
}

/// A field that has no column, if it is of a oneof of which another has one.
fn passed_of(field: &FieldDescriptor, oneofs: &[String]) -> Option<Passed> {
    let of = field.containing_oneof()?;
    let oneof = oneofs.iter().position(|known| known == of.name())?;
    let Shape::One { kind, .. } = shape(field) else { return None };
    Some(Passed { wire: wire(&kind, field.is_group()), oneof })
}

fn wire(kind: &Kind, group: bool) -> Wire {
    match kind {
        Kind::Scalar(scalar) => scalar.wire(),
        _ if group => Wire::Group,
        _ => Wire::Bytes,
    }
}

/// True when no column comes of it.
fn is_empty(field: &FieldDescriptor) -> bool {
    fn within(kind: &Kind, depth: usize) -> bool {
        match kind {
            Kind::Message(message) => depth > 0 && fields(message).all(|field| inside(&field, depth - 1)),
            _ => false,
        }
    }
    fn inside(field: &FieldDescriptor, depth: usize) -> bool {
        match shape(field) {
            Shape::One { kind, .. } | Shape::Many(kind) | Shape::Map { value: kind, .. } => {
                within(&kind, depth)
            }
        }
    }
    inside(field, DEPTH_MAX)
}

/// The instruction that turns a scalar into this column type; `None` when they do not fit.
fn leaf(scalar: &Scalar, target: PrimitiveType) -> Option<Leaf> {
    use PrimitiveType as To;
    let number = match scalar {
        Scalar::Int32(_) => Some(Number::Int32),
        Scalar::Sint32 => Some(Number::Sint32),
        Scalar::Uint32(_) => Some(Number::Uint32),
        Scalar::Int64(_) => Some(Number::Int64),
        Scalar::Sint64 => Some(Number::Sint64),
        _ => None,
    };
    Some(match (scalar, target, number) {
        (Scalar::Bool, To::Boolean, _) => Leaf::Bool,
        (_, To::Int, Some(number @ (Number::Int32 | Number::Sint32))) => Leaf::Int(number),
        (_, To::Long, Some(number)) => Leaf::Long(number),
        (_, To::Float, Some(number)) => Leaf::IntegerToFloat(number),
        (_, To::Double, Some(number)) => Leaf::IntegerToDouble(number),
        (Scalar::Uint64(_), To::Decimal { precision, scale }, _) => {
            if precision.checked_sub(scale)? < UINT64_DIGITS {
                return None;
            }
            Leaf::Decimal(10i128.checked_pow(u32::from(scale))?)
        }
        (Scalar::Float, To::Float, _) => Leaf::Float,
        (Scalar::Float, To::Double, _) => Leaf::FloatToDouble,
        (Scalar::Double, To::Double, _) => Leaf::Double,
        (Scalar::String, To::String, _) => Leaf::Text,
        (Scalar::Bytes, To::String, _) => Leaf::BytesToText,
        (Scalar::String | Scalar::Bytes, To::Binary, _) => Leaf::Bytes,
        (Scalar::Enum(of), To::String, _) => Leaf::Enum(Box::new(symbols(of))),
        (Scalar::Enum(of), To::Binary, _) => Leaf::EnumToBytes(Box::new(symbols(of))),
        _ => return None,
    })
}

/// Of several names of one number the first.
fn symbols(of: &EnumDescriptor) -> Symbols {
    let mut names = BTreeMap::new();
    for value in &of.enum_descriptor_proto().value {
        names.entry(value.number()).or_insert_with(|| Box::<str>::from(value.name()));
    }
    let mut low = Vec::new();
    while let Some(name) = i32::try_from(low.len()).ok().and_then(|next| names.remove(&next)) {
        low.push(name);
    }
    let default = of.default_value().number();
    Symbols { low: low.into(), others: names.into_iter().collect(), default }
}
