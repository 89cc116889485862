//! The Arrow types that stand for a table's columns: the one table of them.
//!
//! Every field at every depth carries its Iceberg field id under [`FIELD_ID_KEY`]. String and binary are
//! plain `Utf8` and `Binary`, since some readers refuse the view types.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use crate::error::{DataFileError, Result};

/// Metadata key of the field id, as the Parquet reader and writer know it.
pub const FIELD_ID_KEY: &str = parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// The time zone of `timestamptz` columns.
pub(crate) const UTC: &str = "+00:00";

/// The Arrow schema of a table schema.
///
/// # Errors
/// `UnsupportedType`: a fixed or decimal column is larger than Arrow can hold.
pub fn arrow_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields = schema.fields.iter().map(arrow_field).collect::<Result<Fields>>()?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

fn arrow_field(field: &Field) -> Result<ArrowField> {
    let data_type = arrow_type(&field.data_type, &field.name)?;
    Ok(with_id(ArrowField::new(&field.name, data_type, !field.required), field.id))
}

fn with_id(field: ArrowField, id: i32) -> ArrowField {
    field.with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
}

fn arrow_type(data_type: &Type, column: &str) -> Result<DataType> {
    Ok(match data_type {
        Type::Primitive(primitive) => {
            arrow_primitive(*primitive).ok_or_else(|| DataFileError::UnsupportedType {
                column: column.to_owned(),
                data_type: primitive.to_string(),
                action: "held in memory",
            })?
        }
        Type::Struct(fields) => DataType::Struct(fields.iter().map(arrow_field).collect::<Result<Fields>>()?),
        Type::List { element_id, element_required, element } => {
            let element = ArrowField::new("element", arrow_type(element, column)?, !element_required);
            DataType::List(Arc::new(with_id(element, *element_id)))
        }
        Type::Map { key_id, key, value_id, value_required, value } => {
            let key = with_id(ArrowField::new("key", arrow_type(key, column)?, false), *key_id);
            let value = ArrowField::new("value", arrow_type(value, column)?, !value_required);
            let entries = Fields::from(vec![key, with_id(value, *value_id)]);
            DataType::Map(Arc::new(ArrowField::new("key_value", DataType::Struct(entries), false)), false)
        }
    })
}

/// The Arrow type of a primitive, `None` when Arrow cannot hold it.
pub(crate) fn arrow_primitive(primitive: PrimitiveType) -> Option<DataType> {
    Some(match primitive {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale }
            if (1..=38).contains(&precision) && scale <= precision =>
        {
            DataType::Decimal128(precision, i8::try_from(scale).ok()?)
        }
        PrimitiveType::Decimal { .. } => return None,
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(length) => DataType::FixedSizeBinary(i32::try_from(length).ok()?),
        PrimitiveType::Binary => DataType::Binary,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ids(data_type: &DataType, out: &mut Vec<i32>) {
        let mut take = |field: &ArrowField| {
            out.push(field.metadata().get(FIELD_ID_KEY).map_or(0, |id| id.parse().unwrap()));
            ids(field.data_type(), out);
        };
        match data_type {
            DataType::Struct(fields) => fields.iter().for_each(|field| take(field)),
            DataType::List(field) => take(field),
            DataType::Map(entries, false) => match entries.data_type() {
                DataType::Struct(fields) => fields.iter().for_each(|field| take(field)),
                _ => unreachable!(),
            },
            _ => {}
        }
    }

    #[test]
    fn every_field_bears_its_id() {
        let schema = crate::layout::tests::every_type();
        let mut wanted = Vec::new();
        schema.visit(&mut |id| wanted.push(id));
        let mut found = Vec::new();
        ids(&DataType::Struct(arrow_schema(&schema).unwrap().fields().clone()), &mut found);
        assert_eq!(found, wanted);
    }
}
