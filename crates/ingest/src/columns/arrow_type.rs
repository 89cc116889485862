//! The Arrow type of every column type, with Iceberg's field ids in the metadata.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use siltstone_protocol::{ErrorCode, Field, PrimitiveType, Schema, Type};

use crate::IngestError;

/// The metadata key under which Parquet writers look for a field id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The Arrow schema of batches of this table schema.
pub fn arrow_schema(schema: &Schema) -> Result<SchemaRef, IngestError> {
    Ok(Arc::new(ArrowSchema::new(arrow_fields(&schema.fields)?)))
}

/// The Arrow field of one column.
pub fn arrow_field(field: &Field) -> Result<ArrowField, IngestError> {
    named(&field.name, field.id, !field.required, &field.data_type)
}

fn arrow_fields(fields: &[Field]) -> Result<Fields, IngestError> {
    fields.iter().map(arrow_field).collect()
}

fn named(name: &str, id: i32, nullable: bool, data_type: &Type) -> Result<ArrowField, IngestError> {
    let metadata = HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]);
    Ok(ArrowField::new(name, data_type_of(name, data_type)?, nullable).with_metadata(metadata))
}

fn data_type_of(name: &str, data_type: &Type) -> Result<DataType, IngestError> {
    Ok(match data_type {
        Type::Primitive(primitive) => primitive_type(name, *primitive)?,
        Type::Struct(fields) if fields.is_empty() => {
            // Neither Parquet nor Iceberg readers can hold a struct without members.
            return Err(refused(name, "it is a struct without members".to_owned()));
        }
        Type::Struct(fields) => DataType::Struct(arrow_fields(fields)?),
        Type::List { element_id, element_required, element } => {
            DataType::List(Arc::new(named("element", *element_id, !element_required, element)?))
        }
        Type::Map { key_id, key, value_id, value_required, value } => {
            let entries =
                vec![named("key", *key_id, false, key)?, named("value", *value_id, !value_required, value)?];
            let entries = ArrowField::new("key_value", DataType::Struct(entries.into()), false);
            DataType::Map(Arc::new(entries), false)
        }
    })
}

fn refused(column: &str, why: String) -> IngestError {
    IngestError::invalid(format!("column {column}"), why).coded(ErrorCode::SchemaRefused)
}

fn primitive_type(name: &str, primitive: PrimitiveType) -> Result<DataType, IngestError> {
    let too_long = |what: &str| refused(name, format!("its {what} is too large"));
    Ok(match primitive {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            if precision > 38 || scale > precision {
                return Err(too_long("decimal precision or scale"));
            }
            DataType::Decimal128(precision, i8::try_from(scale).map_err(|_| too_long("decimal scale"))?)
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        // "UTC" would need a time zone database in several readers; the offset does not.
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(length) => {
            DataType::FixedSizeBinary(i32::try_from(length).map_err(|_| too_long("fixed length"))?)
        }
        PrimitiveType::Binary => DataType::Binary,
    })
}
