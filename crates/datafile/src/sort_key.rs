//! Sort keys as bytes that compare as the rows do, and the range of them that a file holds.
//!
//! | part | bytes |
//! | --- | --- |
//! | null | one byte, below or above that of a value, as the null order says |
//! | boolean, integers, dates, times, decimals | big-endian, sign flipped |
//! | float, double | their ordered integers (`sort::codes`) |
//! | string, binary | zero bytes escaped as `00 ff`, ended by `00 00` |
//! | fixed, uuid | as they are |
//!
//! A descending key has its value's bytes inverted. The form is kept in footers: it must not change.
//! One row at a time: for bounds and boundaries, not for sorting.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{DataFileError, Result},
    partition::{hex, unhex},
    sort::{Key, ordered_f32, ordered_f64},
};

/// Bytes of a key that a range keeps.
const KEY_BYTES_MAX: usize = 256;

/// The least and the greatest sort key of a file's rows, as bytes that compare as keys do.
///
/// No row lies outside: long keys are cut, the last one then rounded up. It holds values of rows, so
/// `Debug` says its order alone.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    order_id: i64,
    first: Arc<[u8]>,
    last: Arc<[u8]>,
}

impl KeyRange {
    /// A range of these keys, cut to what is kept.
    pub fn new(order_id: i64, first: &[u8], last: &[u8]) -> Self {
        let first = &first[..first.len().min(KEY_BYTES_MAX)];
        Self { order_id, first: first.into(), last: rounded_up(last).into() }
    }

    /// The sort order by which these are keys.
    pub fn order_id(&self) -> i64 {
        self.order_id
    }

    pub fn first(&self) -> &[u8] {
        &self.first
    }

    pub fn last(&self) -> &[u8] {
        &self.last
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        let stored = Stored { order_id: self.order_id, first: hex(&self.first), last: hex(&self.last) };
        serde_json::to_string(&stored).map_err(|_| DataFileError::encode("the footer"))
    }

    pub(crate) fn from_json(text: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        Some(Self {
            order_id: stored.order_id,
            first: unhex(&stored.first)?.into(),
            last: unhex(&stored.last)?.into(),
        })
    }
}

impl std::fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRange").field("order_id", &self.order_id).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stored {
    order_id: i64,
    first: String,
    last: String,
}

/// The key, or the least bytes of the kept length that are above all that begin with the same.
fn rounded_up(key: &[u8]) -> Vec<u8> {
    if key.len() <= KEY_BYTES_MAX {
        return key.to_vec();
    }
    let mut kept = key[..KEY_BYTES_MAX].to_vec();
    while let Some(byte) = kept.pop() {
        if byte < 0xff {
            kept.push(byte + 1);
            return kept;
        }
    }
    // All bytes are the greatest: nothing shorter is above, so nothing is cut.
    key.to_vec()
}

/// The key of one row of one batch.
pub(crate) fn key_bytes(keys: &[Key], batch: usize, row: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(16 * keys.len());
    for key in keys {
        push(&mut out, key.arrays[batch].as_ref(), row, key.descending, key.nulls_last)?;
    }
    Ok(out)
}

/// Appends one value.
pub(crate) fn push(
    out: &mut Vec<u8>,
    array: &dyn Array,
    row: usize,
    descending: bool,
    nulls_last: bool,
) -> Result<()> {
    if array.is_null(row) {
        out.push(null_byte(nulls_last));
        return Ok(());
    }
    out.push(VALUE_BYTE);
    let start = out.len();
    push_value(out, array, row)?;
    if descending {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

const VALUE_BYTE: u8 = 1;

/// Below or above [`VALUE_BYTE`].
pub(crate) fn null_byte(nulls_last: bool) -> u8 {
    if nulls_last { 2 } else { 0 }
}

fn push_value(out: &mut Vec<u8>, array: &dyn Array, row: usize) -> Result<()> {
    macro_rules! integer {
        ($type:ty, $sign:expr) => {{
            let value = array.as_primitive::<$type>().value(row) ^ $sign;
            out.extend_from_slice(&value.to_be_bytes());
        }};
    }
    match array.data_type() {
        DataType::Boolean => out.push(array.as_boolean().value(row).into()),
        DataType::Int32 => integer!(Int32Type, i32::MIN),
        DataType::Int64 => integer!(Int64Type, i64::MIN),
        DataType::Date32 => integer!(Date32Type, i32::MIN),
        DataType::Time64(_) => integer!(Time64MicrosecondType, i64::MIN),
        DataType::Timestamp(..) => integer!(TimestampMicrosecondType, i64::MIN),
        DataType::Decimal128(..) => integer!(Decimal128Type, i128::MIN),
        DataType::Float32 => {
            let value = ordered_f32(array.as_primitive::<Float32Type>().value(row)) ^ i32::MIN;
            out.extend_from_slice(&value.to_be_bytes());
        }
        DataType::Float64 => {
            let value = ordered_f64(array.as_primitive::<Float64Type>().value(row)) ^ i64::MIN;
            out.extend_from_slice(&value.to_be_bytes());
        }
        DataType::Utf8 => push_escaped(out, array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => push_escaped(out, array.as_binary::<i32>().value(row)),
        DataType::FixedSizeBinary(_) => out.extend_from_slice(array.as_fixed_size_binary().value(row)),
        _ => return Err(DataFileError::compute("reading a sort key")),
    }
    Ok(())
}

fn push_escaped(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::Field as ArrowField;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        layout::tests::every_type,
        testing::{self, Cell},
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn bytes_compare_as_values_do(seed in any::<u64>(), descending: bool, nulls_last: bool) {
            let arrow = crate::arrow_schema(&every_type()).unwrap();
            let plain = |field: &&Arc<ArrowField>| !field.data_type().is_nested();
            let mut rng = testing::rng(seed);
            for field in arrow.fields().iter().filter(plain) {
                let array = testing::array(field, 24, &mut rng);
                let keys = [Key { arrays: vec![Arc::clone(&array)], descending, nulls_last }];
                for a in 0..array.len() {
                    for b in 0..array.len() {
                        let (left, right) = (Cell::of(&array, a), Cell::of(&array, b));
                        let wanted = match (left == Cell::Null, right == Cell::Null) {
                            (true, true) => std::cmp::Ordering::Equal,
                            (true, false) if nulls_last => std::cmp::Ordering::Greater,
                            (true, false) => std::cmp::Ordering::Less,
                            (false, true) if nulls_last => std::cmp::Ordering::Less,
                            (false, true) => std::cmp::Ordering::Greater,
                            _ if descending => left.order(&right).reverse(),
                            _ => left.order(&right),
                        };
                        let (left, right) = (key_bytes(&keys, 0, a).unwrap(), key_bytes(&keys, 0, b).unwrap());
                        prop_assert_eq!(left.cmp(&right), wanted, "{}", field.name());
                    }
                }
            }
        }

        #[test]
        fn a_cut_range_holds_its_keys(first: Vec<u8>, last: Vec<u8>, length in 0_usize..600) {
            let (mut first, mut last) = (first, last);
            first.resize(length, 0xff);
            last.resize(length, 0xff);
            let range = KeyRange::new(3, &first, &last);
            prop_assert!(range.first() <= first.as_slice() && range.last() >= last.as_slice());
            prop_assert_eq!(KeyRange::from_json(&range.to_json().unwrap()).unwrap(), range);
        }
    }
}
