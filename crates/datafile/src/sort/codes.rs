//! Key columns as unsigned codes that sort as the values do.
//!
//! | column | code |
//! | --- | --- |
//! | boolean, integers, dates, times | value minus least value of the flush |
//! | float, double | bits in total order, every NaN the greatest; minus least |
//! | decimal | unscaled value minus least; its top 64 bits when the range is larger |
//! | string, binary, fixed, uuid of few distinct values | rank among them |
//! | the same otherwise | eight bytes after the prefix that all values share |
//!
//! A code is *exact* when equal codes mean equal values. After the first one that is not, packing stops.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};

use super::{Batches, Key, pack::Word};
use crate::error::{DataFileError, Result};

/// A byte column with more distinct values than this is coded by prefix.
const DICTIONARY_MAX: usize = 4096;
/// Rows looked at before a dictionary is tried, and how many distinct values they may show.
const SAMPLE_ROWS: usize = 2048;
const SAMPLE_DISTINCT_MAX: usize = 512;
/// Key bits of the widest word.
const BITS_MAX: u32 = 96;

/// How every key that fits is coded.
pub(super) struct Plan<'a> {
    columns: Vec<Coded<'a>>,
    keys: &'a [Key],
}

struct Coded<'a> {
    code: Code<'a>,
    /// Bits in the word, a null's code included.
    bits: u32,
    /// Low bits of the code that are left out.
    shift: u32,
    exact: bool,
    has_nulls: bool,
    /// Greatest code of a value, before nulls are folded in.
    max: u64,
}

enum Code<'a> {
    /// Ordered integer minus this.
    Integer {
        least: i128,
        shift: u32,
    },
    Rank(HashMap<&'a [u8], u64>),
    /// Bytes after this many shared ones. `short`: at most 7 bytes remain, so the length is coded too.
    Prefix {
        shared: usize,
        short: bool,
    },
}

impl<'a> Plan<'a> {
    pub(super) fn new(keys: &'a [Key]) -> Result<Self> {
        let mut columns = Vec::with_capacity(keys.len());
        let mut left = BITS_MAX;
        for key in keys {
            let mut coded = coded(key)?;
            if coded.bits > left {
                coded.shift = coded.bits - left;
                coded.bits = left;
                coded.exact = false;
            }
            left -= coded.bits;
            let exact = coded.exact;
            columns.push(coded);
            if !exact {
                break;
            }
        }
        Ok(Self { columns, keys })
    }

    pub(super) fn bits(&self) -> u32 {
        self.columns.iter().map(|column| column.bits).sum()
    }

    /// The first key that equal words do not decide.
    pub(super) fn first_undecided(&self) -> Option<usize> {
        match self.columns.iter().position(|column| !column.exact) {
            Some(first) => Some(first),
            None => (self.columns.len() < self.keys.len()).then_some(self.columns.len()),
        }
    }

    /// The bits of the first `keys` keys, when words decide all of them.
    pub(super) fn exact_bits(&self, keys: usize) -> Option<u32> {
        let columns = self.columns.get(..keys)?;
        let exact = columns.iter().all(|column| column.exact);
        exact.then(|| columns.iter().map(|column| column.bits).sum())
    }

    pub(super) fn pack<W: Word>(&self, batches: &Batches) -> Result<Vec<W>> {
        let mut words: Vec<W> = Vec::with_capacity(batches.rows());
        words.extend(batches.places().map(W::new));
        for (column, key) in self.columns.iter().zip(self.keys) {
            if column.bits == 0 {
                continue;
            }
            let mut rest = words.as_mut_slice();
            for array in &key.arrays {
                let (these, after) = rest.split_at_mut(array.len());
                column.pack(array.as_ref(), key, these)?;
                rest = after;
            }
        }
        Ok(words)
    }
}

impl Coded<'_> {
    fn pack<W: Word>(&self, array: &dyn Array, key: &Key, words: &mut [W]) -> Result<()> {
        let (shift, bits, max) = (self.shift, self.bits, self.max);
        let nulls_low = self.has_nulls && !key.nulls_last;
        let null_code = if nulls_low { 0 } else { max + 1 };
        let descending = key.descending;
        let base = u64::from(nulls_low);
        let finish = |code: u64| {
            let code = if descending { max - code } else { code };
            (code + base) >> shift
        };
        let null_code = null_code >> shift;
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        let mut each = |row: usize, code: u64| words[row].push(finish(code), bits);
        match &self.code {
            Code::Integer { least, shift: range_shift } => {
                let (least, range_shift) = (*least, *range_shift);
                if nulls.is_none() {
                    integers(array, |row, value| each(row, offset(value, least, range_shift)))?;
                    return Ok(());
                }
                let nulls = nulls.cloned();
                let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                integers(array, |row, value| {
                    let code =
                        if is_null(row) { null_code } else { finish(offset(value, least, range_shift)) };
                    words[row].push(code, bits);
                })?;
            }
            Code::Rank(ranks) => {
                let mut last: (&[u8], u64) = (&[], ranks.get([].as_slice()).copied().unwrap_or(0));
                bytes(array, |row, value| {
                    let code = value.map_or(null_code, |value| {
                        if value != last.0 {
                            last = (value, ranks.get(value).copied().unwrap_or(0));
                        }
                        finish(last.1)
                    });
                    words[row].push(code, bits);
                })?;
            }
            Code::Prefix { shared, short } => bytes(array, |row, value| {
                let code = value.map_or(null_code, |value| finish(prefix(value, *shared, *short)));
                words[row].push(code, bits);
            })?,
        }
        Ok(())
    }
}

#[inline]
fn offset(value: i128, least: i128, shift: u32) -> u64 {
    ((value.wrapping_sub(least) as u128) >> shift) as u64
}

fn prefix(value: &[u8], shared: usize, short: bool) -> u64 {
    let rest = value.get(shared..).unwrap_or_default();
    let mut word = [0_u8; 8];
    if short {
        let length = rest.len().min(7);
        word[..length].copy_from_slice(&rest[..length]);
        word[7] = length as u8;
        return u64::from_be_bytes(word);
    }
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*word).min(PREFIX_MAX);
    }
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

/// The greatest prefix code: one less than the greatest word, so that a null's code fits above it.
/// (Prefixes are not exact, so two words may share a code.)
const PREFIX_MAX: u64 = u64::MAX - 1;

fn coded(key: &Key) -> Result<Coded<'_>> {
    let has_nulls = key.arrays.iter().any(|array| array.null_count() > 0);
    let is_bytes = key.arrays.first().is_some_and(|array| {
        matches!(array.data_type(), DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(_))
    });
    let (code, max, exact) = if is_bytes { code_bytes(key)? } else { code_integers(key)? };
    let codes = max + u64::from(has_nulls);
    let bits = u64::BITS - codes.leading_zeros();
    Ok(Coded { code, bits, shift: 0, exact, has_nulls, max })
}

fn code_integers(key: &Key) -> Result<(Code<'_>, u64, bool)> {
    let (mut least, mut greatest) = (i128::MAX, i128::MIN);
    for array in &key.arrays {
        let mut look = |value: i128| {
            least = least.min(value);
            greatest = greatest.max(value);
        };
        match array.nulls().filter(|nulls| nulls.null_count() > 0).cloned() {
            None => integers(array.as_ref(), |_, value| look(value))?,
            Some(nulls) => integers(array.as_ref(), |row, value| {
                if nulls.is_valid(row) {
                    look(value);
                }
            })?,
        }
    }
    if least > greatest {
        return Ok((Code::Integer { least: 0, shift: 0 }, 0, true));
    }
    // The range of two i128 fits u128; one code is kept for nulls.
    let range = greatest.wrapping_sub(least) as u128;
    let bits = u128::BITS - range.leading_zeros();
    let shift = if range < u128::from(u64::MAX) { 0 } else { bits.saturating_sub(63).max(1) };
    Ok((Code::Integer { least, shift }, (range >> shift) as u64, shift == 0))
}

fn code_bytes(key: &Key) -> Result<(Code<'_>, u64, bool)> {
    if let Some(ranks) = dictionary(key)? {
        let max = ranks.len().saturating_sub(1) as u64;
        return Ok((Code::Rank(ranks), max, true));
    }
    let mut first: Option<&[u8]> = None;
    let (mut shared, mut longest) = (usize::MAX, 0);
    for array in &key.arrays {
        bytes(array.as_ref(), |_, value| {
            let Some(value) = value else { return };
            longest = longest.max(value.len());
            let first = *first.get_or_insert(value);
            if shared > 0 {
                let same = first.iter().zip(value).take(shared).take_while(|(a, b)| a == b);
                shared = same.count().min(shared);
            }
        })?;
    }
    let shared = shared.min(longest);
    let short = longest - shared <= 7;
    Ok((Code::Prefix { shared, short }, PREFIX_MAX, short))
}

/// The ranks of all values, when there are few.
fn dictionary(key: &Key) -> Result<Option<HashMap<&[u8], u64>>> {
    let mut ranks: HashMap<&[u8], u64> = HashMap::new();
    let mut seen = 0_usize;
    let mut full = false;
    for array in &key.arrays {
        let mut last: Option<&[u8]> = None;
        bytes(array.as_ref(), |_, value| {
            if full || value == last {
                return;
            }
            last = value;
            seen += 1;
            if let Some(value) = value {
                ranks.entry(value).or_insert(0);
                let crowded = seen <= SAMPLE_ROWS && ranks.len() > SAMPLE_DISTINCT_MAX;
                full = crowded || ranks.len() > DICTIONARY_MAX;
            }
        })?;
        if full {
            return Ok(None);
        }
    }
    let mut values: Vec<&[u8]> = ranks.keys().copied().collect();
    values.sort_unstable();
    for (rank, value) in (0..).zip(values) {
        ranks.insert(value, rank);
    }
    Ok(Some(ranks))
}

/// Visits the values of a fixed-width column as ordered integers (whatever stands under nulls, too).
#[inline]
fn integers(array: &dyn Array, mut visit: impl FnMut(usize, i128)) -> Result<()> {
    macro_rules! each {
        ($type:ty) => {
            for (row, value) in array.as_primitive::<$type>().values().iter().enumerate() {
                visit(row, (*value).into());
            }
        };
    }
    match array.data_type() {
        DataType::Boolean => {
            for (row, value) in array.as_boolean().values().iter().enumerate() {
                visit(row, value.into());
            }
        }
        DataType::Int32 => each!(Int32Type),
        DataType::Int64 => each!(Int64Type),
        DataType::Date32 => each!(Date32Type),
        DataType::Time64(_) => each!(Time64MicrosecondType),
        DataType::Timestamp(..) => each!(TimestampMicrosecondType),
        DataType::Decimal128(..) => each!(Decimal128Type),
        DataType::Float32 => {
            for (row, value) in array.as_primitive::<Float32Type>().values().iter().enumerate() {
                visit(row, ordered_f32(*value).into());
            }
        }
        DataType::Float64 => {
            for (row, value) in array.as_primitive::<Float64Type>().values().iter().enumerate() {
                visit(row, ordered_f64(*value).into());
            }
        }
        _ => return Err(DataFileError::compute("coding a sort key")),
    }
    Ok(())
}

/// Integers in the order of floats: -0.0 before +0.0, every NaN last.
pub(crate) fn ordered_f64(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN.to_bits() & (i64::MAX as u64) } else { value.to_bits() } as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// As [`ordered_f64`].
pub(crate) fn ordered_f32(value: f32) -> i32 {
    let bits = if value.is_nan() { f32::NAN.to_bits() & (i32::MAX as u32) } else { value.to_bits() } as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

#[inline]
fn bytes<'a>(array: &'a dyn Array, mut visit: impl FnMut(usize, Option<&'a [u8]>)) -> Result<()> {
    match array.data_type() {
        DataType::Utf8 => {
            array.as_string::<i32>().iter().enumerate().for_each(|(row, v)| visit(row, v.map(str::as_bytes)));
        }
        DataType::Binary => array.as_binary::<i32>().iter().enumerate().for_each(|(row, v)| visit(row, v)),
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary().iter().enumerate().for_each(|(row, v)| visit(row, v));
        }
        _ => return Err(DataFileError::compute("coding a sort key")),
    }
    Ok(())
}
