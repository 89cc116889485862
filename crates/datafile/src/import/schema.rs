//! A Parquet file's schema as a table schema.
//!
//! | Parquet | column |
//! | --- | --- |
//! | boolean, signed and unsigned integers of up to 32 bits signed | boolean, int |
//! | 64-bit, and 32-bit unsigned integers | long; unsigned 64-bit: decimal(20, 0) |
//! | half and single, double precision | float, double |
//! | decimal of up to 38 digits | decimal; more are refused |
//! | date, time of any unit | date, time |
//! | timestamp of any unit, adjusted to UTC, and 96-bit | timestamptz; nanoseconds are rounded down |
//! | timestamp of any unit, not adjusted | timestamp, likewise |
//! | string, JSON | string; uuid where the table has one |
//! | enum, BSON, bytes | binary; string or uuid where the table has one |
//! | uuid, fixed bytes | uuid, fixed |
//! | group, list, map | struct, list, map |
//! | interval, and what is unknown | refused |
//! | always null | no column |

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema};
use parquet::{
    basic::{LogicalType, Type as PhysicalType},
    schema::types::SchemaDescriptor,
};
use siltstone_protocol::{Field, PrimitiveType as P, Schema, Type};

use super::ImportFault;

type Mapped<T> = std::result::Result<T, ImportFault>;

const DIGITS_MAX: u8 = 38;

/// Ids are assigned depth-first from 1: a field, then what is inside it, then the next one.
pub(super) fn table_schema(
    arrow: &ArrowSchema,
    parquet: &SchemaDescriptor,
    table: Option<&Schema>,
) -> Mapped<Schema> {
    let mut mapper = Mapper { parquet, leaf: 0, id: 0, path: Vec::new() };
    let like = table.map(|table| table.fields.as_slice());
    let fields = mapper.fields(arrow.fields(), like)?;
    if fields.is_empty() {
        return Err(ImportFault {
            column: "*".to_owned(),
            why: "the file has no column with a type".to_owned(),
        });
    }
    Ok(Schema::new(0, fields))
}

struct Mapper<'a> {
    parquet: &'a SchemaDescriptor,
    /// Leaf columns so far.
    leaf: usize,
    id: i32,
    path: Vec<String>,
}

impl Mapper<'_> {
    fn refused<T>(&self, why: &str) -> Mapped<T> {
        Err(ImportFault { column: self.path.join("."), why: why.to_owned() })
    }

    fn next_id(&mut self) -> i32 {
        self.id += 1;
        self.id
    }

    fn fields(&mut self, given: &Fields, like: Option<&[Field]>) -> Mapped<Vec<Field>> {
        let mut fields = Vec::with_capacity(given.len());
        for field in given {
            let like = like.and_then(|like| Field::of_name(like, field.name()));
            if field.data_type() == &DataType::Null {
                self.leaf += 1;
                continue;
            }
            let id = self.next_id();
            let data_type = self.inside(field, like.map(|like| &like.data_type))?;
            let required = required(field, like.map(|like| like.required));
            fields.push(Field::new(id, field.name(), required, data_type));
        }
        Ok(fields)
    }

    fn inside(&mut self, field: &ArrowField, like: Option<&Type>) -> Mapped<Type> {
        self.path.push(field.name().clone());
        let data_type = self.data_type(field.data_type(), like)?;
        self.path.pop();
        Ok(data_type)
    }

    fn data_type(&mut self, given: &DataType, like: Option<&Type>) -> Mapped<Type> {
        Ok(match given {
            DataType::Struct(fields) => {
                let like = match like {
                    Some(Type::Struct(members)) => Some(members.as_slice()),
                    _ => None,
                };
                let members = self.fields(fields, like)?;
                if members.is_empty() {
                    return self.refused("it is a group without members that have a type");
                }
                Type::Struct(members)
            }
            DataType::List(element) => {
                let like = match like {
                    Some(Type::List { element, element_required, .. }) => {
                        Some((&**element, *element_required))
                    }
                    _ => None,
                };
                let element_id = self.next_id();
                Type::List {
                    element_id,
                    element_required: required(element, like.map(|(_, required)| required)),
                    element: Box::new(self.inside(element, like.map(|(element, _)| element))?),
                }
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return self.refused("it is a map without keys and values");
                };
                let [key, value] = &pair[..] else {
                    return self.refused("it is a map without keys and values");
                };
                let like = match like {
                    Some(Type::Map { key, value, value_required, .. }) => {
                        Some((&**key, &**value, *value_required))
                    }
                    _ => None,
                };
                let (key_id, value_id) = (self.next_id(), self.next_id());
                Type::Map {
                    key_id,
                    key: Box::new(self.inside(key, like.map(|(key, ..)| key))?),
                    value_id,
                    value_required: required(value, like.map(|(.., required)| required)),
                    value: Box::new(self.inside(value, like.map(|(_, value, _)| value))?),
                }
            }
            leaf => self.leaf(leaf, like)?.into(),
        })
    }

    fn leaf(&mut self, given: &DataType, like: Option<&Type>) -> Mapped<P> {
        let column = self.parquet.columns().get(self.leaf);
        self.leaf += 1;
        let uuid = column.is_some_and(|column| column.logical_type_ref() == Some(&LogicalType::Uuid));
        let instant = column.is_some_and(|column| column.physical_type() == PhysicalType::INT96);
        let wants_uuid = like == Some(&Type::Primitive(P::Uuid));
        Ok(match given {
            DataType::Boolean => P::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => P::Int,
            DataType::Int64 | DataType::UInt32 => P::Long,
            DataType::UInt64 => P::Decimal { precision: 20, scale: 0 },
            DataType::Float16 | DataType::Float32 => P::Float,
            DataType::Float64 => P::Double,
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                match u8::try_from(*scale) {
                    Ok(scale) if *precision <= DIGITS_MAX && scale <= *precision => {
                        P::Decimal { precision: *precision, scale }
                    }
                    _ => return self.refused("a decimal of more than 38 digits has no column type"),
                }
            }
            DataType::Date32 => P::Date,
            DataType::Time32(_) | DataType::Time64(_) => P::Time,
            DataType::Timestamp(_, None) if !instant => P::Timestamp,
            DataType::Timestamp(..) => P::Timestamptz,
            DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(16) if wants_uuid => P::Uuid,
            DataType::Utf8 => P::String,
            DataType::Binary => P::Binary,
            DataType::FixedSizeBinary(16) if uuid => P::Uuid,
            DataType::FixedSizeBinary(length) => P::Fixed(length.unsigned_abs()),
            _ => return self.refused("its Parquet type has no column type"),
        })
    }
}

/// What the file lets be null and the table does not is decided row by row.
fn required(field: &ArrowField, like: Option<bool>) -> bool {
    like.unwrap_or(!field.is_nullable())
}
