//! Comparing rows by their values: for ties of packed codes, and as the definition of the order.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};

use super::{
    Batches, Key,
    batches::locate,
    codes::{ordered_f32, ordered_f64},
};
use crate::error::{DataFileError, Result};

type CompareColumn = Box<dyn Fn((usize, usize), (usize, usize)) -> Ordering>;

/// Compares places by a list of keys.
pub(super) struct Comparator {
    columns: Vec<CompareColumn>,
    row_bits: u32,
}

impl Comparator {
    pub(super) fn new(keys: &[Key], batches: &Batches) -> Result<Self> {
        let columns = keys.iter().map(column).collect::<Result<_>>()?;
        Ok(Self { columns, row_bits: batches.row_bits() })
    }

    pub(super) fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (locate(a, self.row_bits), locate(b, self.row_bits));
        self.columns.iter().map(|column| column(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

fn column(key: &Key) -> Result<CompareColumn> {
    let data_type = key.arrays.first().map_or(DataType::Null, |array| array.data_type().clone());
    Ok(match data_type {
        DataType::Null => Box::new(|_, _| Ordering::Equal),
        DataType::Boolean => with(key, |array| array.as_boolean().clone(), |array, row| array.value(row)),
        DataType::Int32 => primitive::<Int32Type>(key),
        DataType::Int64 => primitive::<Int64Type>(key),
        DataType::Date32 => primitive::<Date32Type>(key),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(key),
        DataType::Timestamp(..) => primitive::<TimestampMicrosecondType>(key),
        DataType::Decimal128(..) => primitive::<Decimal128Type>(key),
        DataType::Float32 => with(
            key,
            |array| array.as_primitive::<Float32Type>().clone(),
            |array, row| ordered_f32(array.value(row)),
        ),
        DataType::Float64 => with(
            key,
            |array| array.as_primitive::<Float64Type>().clone(),
            |array, row| ordered_f64(array.value(row)),
        ),
        DataType::Utf8 => {
            bytes(key, |array| array.as_string::<i32>().clone(), |a, row| a.value(row).as_bytes())
        }
        DataType::Binary => bytes(key, |array| array.as_binary::<i32>().clone(), |a, row| a.value(row)),
        DataType::FixedSizeBinary(_) => {
            bytes(key, |array| array.as_fixed_size_binary().clone(), |a, row| a.value(row))
        }
        _ => return Err(DataFileError::compute("comparing sort keys")),
    })
}

fn primitive<T: ArrowPrimitiveType>(key: &Key) -> CompareColumn
where
    T::Native: Ord,
{
    with(key, |array| array.as_primitive::<T>().clone(), |array, row| array.value(row))
}

fn with<A: Array + 'static, V: Ord>(
    key: &Key,
    cast: impl Fn(&ArrayRef) -> A,
    value: impl Fn(&A, usize) -> V + 'static,
) -> CompareColumn {
    by(key, cast, move |a, row_a, b, row_b| value(a, row_a).cmp(&value(b, row_b)))
}

fn bytes<A: Array + 'static>(
    key: &Key,
    cast: impl Fn(&ArrayRef) -> A,
    value: impl Fn(&A, usize) -> &[u8] + 'static,
) -> CompareColumn {
    by(key, cast, move |a, row_a, b, row_b| value(a, row_a).cmp(value(b, row_b)))
}

fn by<A: Array + 'static>(
    key: &Key,
    cast: impl Fn(&ArrayRef) -> A,
    compare: impl Fn(&A, usize, &A, usize) -> Ordering + 'static,
) -> CompareColumn {
    let arrays: Vec<A> = key.arrays.iter().map(cast).collect();
    let (descending, nulls_last) = (key.descending, key.nulls_last);
    Box::new(move |(batch_a, row_a), (batch_b, row_b)| {
        let (a, b) = (&arrays[batch_a], &arrays[batch_b]);
        match (a.is_null(row_a), b.is_null(row_b)) {
            (true, true) => Ordering::Equal,
            (true, false) if nulls_last => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, true) if nulls_last => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                let order = compare(a, row_a, b, row_b);
                if descending { order.reverse() } else { order }
            }
        }
    })
}
