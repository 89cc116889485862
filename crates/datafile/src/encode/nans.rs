//! Counting NaN while columns pass by: Parquet's own statistics do not.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Float32Type, Float64Type, SchemaRef},
};

use crate::FIELD_ID_KEY;

/// Zero for every float column outside lists and maps.
pub(super) fn zeros(schema: &SchemaRef) -> BTreeMap<i32, u64> {
    fn visit(field: &Field, out: &mut BTreeMap<i32, u64>) {
        match field.data_type() {
            DataType::Float32 | DataType::Float64 => {
                out.extend(field_id(field).map(|id| (id, 0)));
            }
            DataType::Struct(fields) => fields.iter().for_each(|field| visit(field, out)),
            _ => {}
        }
    }
    let mut out = BTreeMap::new();
    schema.fields().iter().for_each(|field| visit(field, &mut out));
    out
}

fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID_KEY)?.parse().ok()
}

/// Adds the NaN of a column. `parent`: the nulls of the structs around it.
pub(super) fn count(
    counts: &mut BTreeMap<i32, u64>,
    field: &Field,
    array: &ArrayRef,
    parent: Option<&NullBuffer>,
) {
    let nans = match array.data_type() {
        DataType::Float32 => count_in::<Float32Type>(array.as_primitive(), parent, |value| value.is_nan()),
        DataType::Float64 => count_in::<Float64Type>(array.as_primitive(), parent, |value| value.is_nan()),
        DataType::Struct(_) => {
            let (DataType::Struct(fields), array) = (field.data_type(), array.as_struct()) else { return };
            let nulls = NullBuffer::union(parent, array.nulls());
            for (field, member) in fields.iter().zip(array.columns()) {
                count(counts, field, member, nulls.as_ref());
            }
            return;
        }
        _ => return,
    };
    if let Some(sum) = field_id(field).and_then(|id| counts.get_mut(&id)) {
        *sum += nans;
    }
}

fn count_in<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    parent: Option<&NullBuffer>,
    is_nan: impl Fn(T::Native) -> bool,
) -> u64 {
    let all = array.values().iter().filter(|value| is_nan(**value)).count() as u64;
    let nulls = NullBuffer::union(parent, array.nulls());
    match nulls {
        Some(nulls) if all > 0 => {
            let values = array.values().iter().enumerate();
            values.filter(|(row, value)| is_nan(**value) && nulls.is_valid(*row)).count() as u64
        }
        _ => all,
    }
}
