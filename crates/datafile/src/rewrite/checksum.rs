//! An order-independent checksum of rows over all their columns: equal for the same rows in any order.
//!
//! Each value is hashed with its column's number, a row's hashes are added and mixed, and the rows' are
//! added. A row lost, doubled, or mixed from two changes it.

use arrow::{
    array::{Array, ArrowPrimitiveType, AsArray},
    datatypes::{
        ArrowNativeType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type,
        Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
    },
};

use crate::error::{DataFileError, Result};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const NULL: u64 = 0x5851_f42d_4c95_7f2d;

/// Rows and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) rows: u64,
    sum: u64,
}

impl Checksum {
    /// Adds rows, each by the sum of its columns' hashes.
    pub(super) fn add(&mut self, rows: &[u64]) {
        self.rows += rows.len() as u64;
        self.sum = rows.iter().fold(self.sum, |sum, row| sum.wrapping_add(mix(*row, SEED)));
    }
}

/// The product of two words, folded: every bit of the result depends on every bit of both.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ SEED) * u128::from(b | 1);
    (product as u64) ^ (product >> 64) as u64
}

/// Adds the hash of a column's values to each row's sum.
pub(super) fn add_column(rows: &mut [u64], column: u64, array: &dyn Array) -> Result<()> {
    let seed = mix(column.wrapping_add(1), SEED);
    macro_rules! values {
        ($type:ty, $word:expr) => {{
            let word = $word;
            primitive::<$type>(rows, seed, array, |value| word(value))
        }};
    }
    match array.data_type() {
        DataType::Int32 => values!(Int32Type, |value: i32| value as u64),
        DataType::Int64 => values!(Int64Type, |value: i64| value as u64),
        DataType::Date32 => values!(Date32Type, |value: i32| value as u64),
        DataType::Time64(_) => values!(Time64MicrosecondType, |value: i64| value as u64),
        DataType::Timestamp(..) => values!(TimestampMicrosecondType, |value: i64| value as u64),
        DataType::Float32 => values!(Float32Type, |value: f32| u64::from(value.to_bits())),
        DataType::Float64 => values!(Float64Type, |value: f64| value.to_bits()),
        DataType::Decimal128(..) => {
            values!(Decimal128Type, |value: i128| mix(value as u64, (value >> 64) as u64 ^ NULL))
        }
        DataType::Boolean => {
            let array = array.as_boolean();
            each(rows, seed, array, |row| u64::from(array.value(row)));
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            each(rows, seed, array, |row| bytes(array.value(row).as_bytes()));
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            each(rows, seed, array, |row| bytes(array.value(row)));
        }
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            each(rows, seed, array, |row| bytes(array.value(row)));
        }
        DataType::Struct(_) => {
            let array = array.as_struct();
            let mut members = vec![0; array.len()];
            for (number, member) in (0..).zip(array.columns()) {
                add_column(&mut members, number, member.as_ref())?;
            }
            each(rows, seed, array, |row| members[row]);
        }
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            let elements = elements(array.values().as_ref())?;
            let offsets = array.value_offsets();
            each(rows, seed, array, |row| fold(&elements, offsets[row], offsets[row + 1]));
        }
        DataType::Map(..) => {
            let array = array.as_map();
            let elements = elements(array.entries())?;
            let offsets = array.value_offsets();
            each(rows, seed, array, |row| fold(&elements, offsets[row], offsets[row + 1]));
        }
        _ => return Err(DataFileError::compute("taking a checksum")),
    }
    Ok(())
}

fn primitive<T: ArrowPrimitiveType>(
    rows: &mut [u64],
    seed: u64,
    array: &dyn Array,
    word: impl Fn(T::Native) -> u64,
) where
    T::Native: ArrowNativeType,
{
    let array = array.as_primitive::<T>();
    if array.null_count() == 0 {
        for (row, value) in rows.iter_mut().zip(array.values().iter()) {
            *row = row.wrapping_add(mix(word(*value), seed));
        }
        return;
    }
    each(rows, seed, array, |row| word(array.value(row)));
}

fn each(rows: &mut [u64], seed: u64, array: &dyn Array, word: impl Fn(usize) -> u64) {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    for (index, row) in rows.iter_mut().enumerate() {
        let null = nulls.is_some_and(|nulls| nulls.is_null(index));
        *row = row.wrapping_add(if null { mix(NULL, !seed) } else { mix(word(index), seed) });
    }
}

fn elements(values: &dyn Array) -> Result<Vec<u64>> {
    let mut elements = vec![0; values.len()];
    add_column(&mut elements, 0, values)?;
    Ok(elements)
}

fn fold(elements: &[u64], start: i32, end: i32) -> u64 {
    let elements = &elements[start as usize..end as usize];
    elements.iter().fold(elements.len() as u64, |hash, element| mix(hash, *element))
}

#[inline]
fn bytes(value: &[u8]) -> u64 {
    let mut hash = value.len() as u64;
    let (blocks, rest) = value.as_chunks::<16>();
    for block in blocks {
        let (low, high) = (word(&block[..8]), word(&block[8..]));
        hash = mix(hash ^ low, high ^ NULL);
    }
    let (low, high) = rest.split_at(rest.len().min(8));
    mix(hash ^ word(low), word(high) ^ NULL)
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::{RecordBatch, UInt32Array},
        compute::take_record_batch,
    };
    use rand::{Rng, seq::SliceRandom};

    use super::*;
    use crate::{layout::tests::every_type, testing};

    fn checksum(batches: &[RecordBatch]) -> Checksum {
        let mut sum = Checksum::default();
        for batch in batches {
            let mut rows = vec![0; batch.num_rows()];
            for (number, column) in (0..).zip(batch.columns()) {
                add_column(&mut rows, number, column.as_ref()).unwrap();
            }
            sum.add(&rows);
        }
        sum
    }

    #[test]
    fn order_and_cuts_do_not_matter_and_every_cell_does() {
        for seed in 0..20 {
            let mut rng = testing::rng(seed);
            let batch = testing::batch(&every_type(), 60, &mut rng);
            let whole = checksum(std::slice::from_ref(&batch));
            let mut order: Vec<u32> = (0..60).collect();
            order.shuffle(&mut rng);
            let shuffled = take_record_batch(&batch, &UInt32Array::from(order.clone())).unwrap();
            assert_eq!(checksum(&[shuffled.slice(20, 40), shuffled.slice(0, 20)]), whole);
            // One column of one row from another row.
            let column = rng.random_range(0..batch.num_columns());
            let from = rng.random_range(1..60);
            let mut mixed: Vec<u32> = (0..60).collect();
            mixed[0] = from;
            let other = take_record_batch(&batch, &UInt32Array::from(mixed)).unwrap();
            let mut columns = batch.columns().to_vec();
            let same =
                columns[column].slice(0, 1).to_data() == columns[column].slice(from as usize, 1).to_data();
            columns[column] = other.column(column).clone();
            let mixed = RecordBatch::try_new(batch.schema(), columns).unwrap();
            assert_eq!(checksum(&[mixed]) == whole, same, "seed {seed}, column {column}");
            // One row doubled, another lost.
            order[0] = order[1];
            let doubled = take_record_batch(&batch, &UInt32Array::from(order)).unwrap();
            assert_eq!(checksum(&[doubled]).rows, 60);
        }
    }
}
