//! Which encoding pays for a column, from a sample of the sorted flush.
//!
//! | column | few distinct values in the sample | many |
//! | --- | --- | --- |
//! | integers, dates, times, decimals up to 18 digits | dictionary | DELTA_BINARY_PACKED |
//! | others | dictionary | plain |
//!
//! A dictionary of mostly distinct values costs a hash per row and is thrown away in the end. Delta makes
//! sorted and clustered integers small before the codec sees them. Columns in lists and maps keep the
//! dictionary.

use std::{collections::HashSet, hash::Hash};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use parquet::{basic::Encoding, file::properties::WriterPropertiesBuilder, schema::types::ColumnPath};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

/// Samples smaller than this decide nothing: a dictionary of a small file costs little.
const SAMPLE_MIN: usize = 512;

pub(super) fn choose(
    mut properties: WriterPropertiesBuilder,
    schema: &Schema,
    sample: &[ArrayRef],
) -> WriterPropertiesBuilder {
    for (field, array) in schema.fields.iter().zip(sample) {
        properties = column(properties, field, array, Vec::new());
    }
    properties
}

fn column(
    mut properties: WriterPropertiesBuilder,
    field: &Field,
    array: &ArrayRef,
    mut path: Vec<String>,
) -> WriterPropertiesBuilder {
    path.push(field.name.clone());
    match &field.data_type {
        Type::Struct(fields) if matches!(array.data_type(), DataType::Struct(_)) => {
            for (member, array) in fields.iter().zip(array.as_struct().columns()) {
                properties = column(properties, member, array, path.clone());
            }
            properties
        }
        Type::Primitive(primitive) => leaf(properties, *primitive, array, ColumnPath::new(path)),
        _ => properties,
    }
}

fn leaf(
    properties: WriterPropertiesBuilder,
    primitive: PrimitiveType,
    array: &ArrayRef,
    path: ColumnPath,
) -> WriterPropertiesBuilder {
    let Some((values, distinct)) = distinct(array) else { return properties };
    if values < SAMPLE_MIN {
        return properties;
    }
    use PrimitiveType as P;
    let integer = match primitive {
        P::Int | P::Long | P::Date | P::Time | P::Timestamp | P::Timestamptz => true,
        P::Decimal { precision, .. } => precision <= 18,
        _ => false,
    };
    match integer {
        true if distinct * 16 > values => properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
        false if distinct * 2 > values => properties.set_column_dictionary_enabled(path, false),
        _ => properties,
    }
}

/// Values that are not null, and distinct ones among them.
fn distinct(array: &ArrayRef) -> Option<(usize, usize)> {
    fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> (usize, usize)
    where
        T::Native: Hash + Eq,
    {
        count(array.as_primitive::<T>().iter().flatten())
    }
    fn count<V: Hash + Eq>(values: impl Iterator<Item = V>) -> (usize, usize) {
        let mut all = 0;
        let distinct: HashSet<V> = values.inspect(|_| all += 1).collect();
        (all, distinct.len())
    }
    Some(match array.data_type() {
        DataType::Int32 => primitive::<Int32Type>(array),
        DataType::Int64 => primitive::<Int64Type>(array),
        DataType::Date32 => primitive::<Date32Type>(array),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(array),
        DataType::Timestamp(..) => primitive::<TimestampMicrosecondType>(array),
        DataType::Decimal128(..) => primitive::<Decimal128Type>(array),
        DataType::Float32 => count(array.as_primitive::<Float32Type>().iter().flatten().map(f32::to_bits)),
        DataType::Float64 => count(array.as_primitive::<Float64Type>().iter().flatten().map(f64::to_bits)),
        DataType::Utf8 => count(array.as_string::<i32>().iter().flatten()),
        DataType::Binary => count(array.as_binary::<i32>().iter().flatten()),
        DataType::FixedSizeBinary(_) => count(array.as_fixed_size_binary().iter().flatten()),
        _ => return None,
    })
}
