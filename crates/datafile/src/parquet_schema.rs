//! The Parquet schema of a table: Iceberg's type table (spec, appendix A) with field ids.
//!
//! Built here and not by Arrow's converter, which would write a uuid as bytes without meaning.
//!
//! The UUID annotation is left out where Delta shows the files too: Spark's own Parquet reader refuses it, at times
//! (nested columns without the vectorized reader, files read by their own schema). Iceberg's readers know a uuid by
//! the table's schema; the first files that Iceberg wrote had no annotation either.

use std::sync::Arc;

use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType},
    errors::ParquetError,
    schema::types::{Type as ParquetType, TypePtr},
};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use crate::error::{DataFileError, Result};

/// The Parquet message type of a table schema.
pub(crate) fn parquet_schema(schema: &Schema, annotate_uuids: bool) -> Result<TypePtr> {
    let fields = schema
        .fields
        .iter()
        .map(|one| field(one, annotate_uuids))
        .collect::<std::result::Result<Vec<_>, _>>();
    fields
        .and_then(|fields| ParquetType::group_type_builder("table").with_fields(fields).build())
        .map(Arc::new)
        .map_err(|_| DataFileError::encode("schema"))
}

type Built = std::result::Result<TypePtr, ParquetError>;

fn field(field: &Field, uuids: bool) -> Built {
    node(&field.name, field.id, field.required, &field.data_type, uuids)
}

fn node(name: &str, id: i32, required: bool, data_type: &Type, uuids: bool) -> Built {
    let repetition = if required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
    let group = |logical: Option<LogicalType>, fields: Vec<TypePtr>| {
        ParquetType::group_type_builder(name)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .with_id(Some(id))
            .with_fields(fields)
            .build()
            .map(Arc::new)
    };
    let repeated = |name: &str, fields: Vec<TypePtr>| {
        ParquetType::group_type_builder(name)
            .with_repetition(Repetition::REPEATED)
            .with_fields(fields)
            .build()
            .map(Arc::new)
    };
    match data_type {
        Type::Primitive(primitive) => leaf(name, id, repetition, *primitive, uuids),
        Type::Struct(fields) => {
            let fields = fields.iter().map(|one| field(one, uuids));
            group(None, fields.collect::<std::result::Result<Vec<_>, _>>()?)
        }
        Type::List { element_id, element_required, element } => {
            let element = node("element", *element_id, *element_required, element, uuids)?;
            group(Some(LogicalType::List), vec![repeated("list", vec![element])?])
        }
        Type::Map { key_id, key, value_id, value_required, value } => {
            let key = node("key", *key_id, true, key, uuids)?;
            let value = node("value", *value_id, *value_required, value, uuids)?;
            group(Some(LogicalType::Map), vec![repeated("key_value", vec![key, value])?])
        }
    }
}

fn leaf(name: &str, id: i32, repetition: Repetition, primitive: PrimitiveType, uuids: bool) -> Built {
    let micros =
        |is_adjusted_to_u_t_c| LogicalType::Timestamp { is_adjusted_to_u_t_c, unit: TimeUnit::MICROS };
    let (physical, logical, length) = match primitive {
        PrimitiveType::Boolean => (PhysicalType::BOOLEAN, None, -1),
        PrimitiveType::Int => (PhysicalType::INT32, None, -1),
        PrimitiveType::Long => (PhysicalType::INT64, None, -1),
        PrimitiveType::Float => (PhysicalType::FLOAT, None, -1),
        PrimitiveType::Double => (PhysicalType::DOUBLE, None, -1),
        PrimitiveType::Decimal { precision, scale } => {
            let logical = LogicalType::Decimal { scale: scale.into(), precision: precision.into() };
            let (physical, length) = match precision {
                0..=9 => (PhysicalType::INT32, -1),
                10..=18 => (PhysicalType::INT64, -1),
                _ => (PhysicalType::FIXED_LEN_BYTE_ARRAY, decimal_length(precision)),
            };
            (physical, Some(logical), length)
        }
        PrimitiveType::Date => (PhysicalType::INT32, Some(LogicalType::Date), -1),
        PrimitiveType::Time => {
            let time = LogicalType::Time { is_adjusted_to_u_t_c: false, unit: TimeUnit::MICROS };
            (PhysicalType::INT64, Some(time), -1)
        }
        PrimitiveType::Timestamp => (PhysicalType::INT64, Some(micros(false)), -1),
        PrimitiveType::Timestamptz => (PhysicalType::INT64, Some(micros(true)), -1),
        PrimitiveType::String => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String), -1),
        PrimitiveType::Uuid => (PhysicalType::FIXED_LEN_BYTE_ARRAY, uuids.then_some(LogicalType::Uuid), 16),
        PrimitiveType::Fixed(length) => {
            (PhysicalType::FIXED_LEN_BYTE_ARRAY, None, i32::try_from(length).unwrap_or(i32::MAX))
        }
        PrimitiveType::Binary => (PhysicalType::BYTE_ARRAY, None, -1),
    };
    let mut builder = ParquetType::primitive_type_builder(name, physical)
        .with_repetition(repetition)
        .with_logical_type(logical)
        .with_length(length)
        .with_id(Some(id));
    if let PrimitiveType::Decimal { precision, scale } = primitive {
        builder = builder.with_precision(precision.into()).with_scale(scale.into());
    }
    builder.build().map(Arc::new)
}

/// The least number of bytes that hold every unscaled value of this precision.
fn decimal_length(precision: u8) -> i32 {
    let digits = 10_f64.powi(precision.into());
    let bits = digits.log2() + 1.0;
    (bits / 8.0).ceil() as i32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parquet::{arrow::ArrowSchemaConverter, schema::types::SchemaDescriptor};

    use super::*;

    #[test]
    fn differs_from_arrows_converter_in_uuid_only() {
        let schema = crate::layout::tests::every_type();
        let ours = SchemaDescriptor::new(parquet_schema(&schema, true).unwrap());
        let arrow = crate::arrow_schema(&schema).unwrap();
        let theirs = ArrowSchemaConverter::new().convert(&arrow).unwrap();
        assert_eq!(ours.num_columns(), theirs.num_columns());
        for (ours, theirs) in ours.columns().iter().zip(theirs.columns()) {
            assert_eq!(ours.path(), theirs.path());
            assert_eq!(ours.max_def_level(), theirs.max_def_level());
            assert_eq!(ours.max_rep_level(), theirs.max_rep_level());
            if ours.logical_type_ref() == Some(&LogicalType::Uuid) {
                assert_eq!(ours.type_length(), theirs.type_length());
            } else {
                assert_eq!(ours.self_type(), theirs.self_type());
            }
        }
    }

    #[test]
    fn the_annotation_of_uuids_is_all_that_is_left_out() {
        let schema = crate::layout::tests::every_type();
        let [with, without] =
            [true, false].map(|uuids| SchemaDescriptor::new(parquet_schema(&schema, uuids).unwrap()));
        let mut uuids = 0;
        for (with, without) in with.columns().iter().zip(without.columns()) {
            assert_eq!(with.path(), without.path());
            if with.logical_type_ref() == Some(&LogicalType::Uuid) {
                uuids += 1;
                assert_eq!((without.logical_type_ref(), without.type_length()), (None, 16));
            } else {
                assert_eq!(with.self_type(), without.self_type());
            }
        }
        assert!(uuids > 0);
    }

    #[test]
    fn decimals_take_the_least_bytes() {
        let wanted = [(19, 9), (20, 9), (21, 9), (22, 10), (28, 12), (33, 14), (36, 16), (38, 16)];
        for (precision, length) in wanted {
            assert_eq!(decimal_length(precision), length, "{precision}");
        }
    }
}
