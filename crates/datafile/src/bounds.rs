//! Column bounds from Parquet chunk statistics: safe, never too tight.
//!
//! 1. A row group whose values are all null says nothing and changes nothing.
//! 2. A row group with values but without a minimum or maximum takes away that bound of the whole file.
//! 3. Minimum and maximum are compared as their type demands (decimals as numbers, bytes unsigned).
//! 4. Strings and binary are cut to 16 characters or bytes: the lower bound is a prefix; the upper bound is
//!    rounded up to the next string of that length, and left out when there is none.
//! 5. UUIDs compare unsigned here and, half by half, signed in older Java readers. Bounds are given only
//!    where both orders agree: not across the sign of the first half, and one step wider in that half.
//! 6. Zeros of floats are widened to -0.0 below and +0.0 above.
//!
//! A minimum that the encoder had cut is still a lower bound, a cut maximum was rounded up by it: both are
//! used.

use std::cmp::Ordering;

use iceberg::spec::Datum;
use parquet::file::statistics::Statistics;
use siltstone_protocol::PrimitiveType;

use crate::partition::{iceberg_type, least_bytes};

/// Characters of a string, or bytes of binary, that a bound keeps.
pub(crate) const BOUND_LENGTH: usize = 16;

/// Bounds of one column while row groups are added.
#[derive(Clone)]
pub(crate) struct Bounds {
    primitive: PrimitiveType,
    lower: Side,
    upper: Side,
}

#[derive(Clone)]
enum Side {
    /// No value seen.
    Nothing,
    Known(Value),
    /// Some value is not bounded.
    Unknown,
}

/// A statistic as something that compares.
#[derive(Clone, PartialEq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Float(f32),
    Double(f64),
    Decimal(i128),
    Bytes(Vec<u8>),
}

impl Value {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => Some(a.total_cmp(b)),
            (Self::Double(a), Self::Double(b)) => Some(a.total_cmp(b)),
            (Self::Decimal(a), Self::Decimal(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl Bounds {
    pub(crate) fn new(primitive: PrimitiveType) -> Self {
        Self { primitive, lower: Side::Nothing, upper: Side::Nothing }
    }

    /// Adds a row group with `values` entries (nulls among them).
    pub(crate) fn add(&mut self, statistics: Option<&Statistics>, values: u64) {
        let nulls = statistics.and_then(Statistics::null_count_opt);
        if values == 0 || nulls == Some(values) {
            return;
        }
        let (lower, upper) = match statistics {
            Some(statistics) => {
                (read(statistics, self.primitive, true), read(statistics, self.primitive, false))
            }
            None => (None, None),
        };
        self.lower = merge(&self.lower, lower, Ordering::Less);
        self.upper = merge(&self.upper, upper, Ordering::Greater);
    }

    /// Lower and upper bound of the file.
    pub(crate) fn finish(self) -> (Option<Datum>, Option<Datum>) {
        let primitive = self.primitive;
        if primitive == PrimitiveType::Uuid {
            return match (self.lower, self.upper) {
                (Side::Known(Value::Bytes(lower)), Side::Known(Value::Bytes(upper))) => uuids(&lower, &upper),
                _ => (None, None),
            };
        }
        let lower = match self.lower {
            Side::Known(value) => lower_datum(value, primitive),
            _ => None,
        };
        let upper = match self.upper {
            Side::Known(value) => upper_datum(value, primitive),
            _ => None,
        };
        (lower, upper)
    }
}

fn merge(side: &Side, value: Option<Value>, wins: Ordering) -> Side {
    match (side, value) {
        (Side::Unknown, _) | (_, None) => Side::Unknown,
        (Side::Nothing, Some(value)) => Side::Known(value),
        (Side::Known(old), Some(value)) => match value.compare(old) {
            Some(order) if order == wins => Side::Known(value),
            Some(_) => Side::Known(old.clone()),
            None => Side::Unknown,
        },
    }
}

/// The minimum or maximum of a chunk, `None` when it is absent, NaN, or not of the column's type.
fn read(statistics: &Statistics, primitive: PrimitiveType, lower: bool) -> Option<Value> {
    macro_rules! side {
        ($stats:expr) => {
            if lower { $stats.min_opt() } else { $stats.max_opt() }
        };
    }
    use PrimitiveType as P;
    Some(match (statistics, primitive) {
        (Statistics::Boolean(s), P::Boolean) => Value::Boolean(*side!(s)?),
        (Statistics::Int32(s), P::Int | P::Date) => Value::Integer((*side!(s)?).into()),
        (Statistics::Int64(s), P::Long | P::Time | P::Timestamp | P::Timestamptz) => {
            Value::Integer(*side!(s)?)
        }
        // A file from before the column was widened.
        (Statistics::Int32(s), P::Long) => Value::Integer((*side!(s)?).into()),
        (Statistics::Float(s), P::Float) => float(*side!(s)?, lower)?,
        (Statistics::Float(s), P::Double) => double((*side!(s)?).into(), lower)?,
        (Statistics::Double(s), P::Double) => double(*side!(s)?, lower)?,
        (Statistics::Int32(s), P::Decimal { .. }) => Value::Decimal((*side!(s)?).into()),
        (Statistics::Int64(s), P::Decimal { .. }) => Value::Decimal((*side!(s)?).into()),
        (Statistics::FixedLenByteArray(s), P::Decimal { .. }) => Value::Decimal(decimal(side!(s)?.data())?),
        (Statistics::FixedLenByteArray(s), P::Uuid) => {
            Value::Bytes(side!(s)?.data().to_vec()).checked(|bytes| bytes.len() == 16)?
        }
        (Statistics::FixedLenByteArray(s), P::Fixed(_)) => Value::Bytes(side!(s)?.data().to_vec()),
        (Statistics::ByteArray(s), P::String | P::Binary) => Value::Bytes(side!(s)?.data().to_vec()),
        _ => return None,
    })
}

impl Value {
    fn checked(self, test: impl Fn(&[u8]) -> bool) -> Option<Self> {
        match &self {
            Self::Bytes(bytes) if !test(bytes) => None,
            _ => Some(self),
        }
    }
}

fn float(value: f32, lower: bool) -> Option<Value> {
    let value = if value == 0.0 { if lower { -0.0 } else { 0.0 } } else { value };
    (!value.is_nan()).then_some(Value::Float(value))
}

fn double(value: f64, lower: bool) -> Option<Value> {
    let value = if value == 0.0 { if lower { -0.0 } else { 0.0 } } else { value };
    (!value.is_nan()).then_some(Value::Double(value))
}

/// A two's-complement big-endian number of at most 16 bytes.
fn decimal(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut wide = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
    let start = 16_usize.checked_sub(bytes.len())?;
    wide[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

fn lower_datum(value: Value, primitive: PrimitiveType) -> Option<Datum> {
    match (value, primitive) {
        (Value::Bytes(bytes), PrimitiveType::String) => {
            let text = std::str::from_utf8(&bytes).ok()?;
            let end = text.char_indices().nth(BOUND_LENGTH).map_or(text.len(), |(end, _)| end);
            Some(Datum::string(&text[..end]))
        }
        (Value::Bytes(bytes), PrimitiveType::Binary | PrimitiveType::Fixed(_)) => {
            datum(&bytes[..bytes.len().min(BOUND_LENGTH)], primitive)
        }
        (value, _) => exact_datum(value, primitive),
    }
}

fn upper_datum(value: Value, primitive: PrimitiveType) -> Option<Datum> {
    match (value, primitive) {
        (Value::Bytes(bytes), PrimitiveType::String) => {
            upper_string(std::str::from_utf8(&bytes).ok()?).map(Datum::string)
        }
        (Value::Bytes(bytes), PrimitiveType::Binary | PrimitiveType::Fixed(_)) => {
            datum(&upper_bytes(&bytes)?, primitive)
        }
        (value, _) => exact_datum(value, primitive),
    }
}

/// The text, or the least text of at most 16 characters above all that begin as it does.
fn upper_string(text: &str) -> Option<String> {
    let mut kept: Vec<char> = text.chars().take(BOUND_LENGTH).collect();
    if kept.len() == text.chars().count() {
        return Some(text.to_owned());
    }
    while let Some(last) = kept.pop() {
        // After U+D7FF come the surrogates, which are no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            kept.push(next);
            return Some(kept.into_iter().collect());
        }
    }
    None
}

fn upper_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() <= BOUND_LENGTH {
        return Some(bytes.to_vec());
    }
    let mut kept = bytes[..BOUND_LENGTH].to_vec();
    while let Some(last) = kept.pop() {
        if last < 0xff {
            kept.push(last + 1);
            return Some(kept);
        }
    }
    None
}

/// Bounds of UUIDs that hold whether halves compare signed or unsigned.
fn uuids(lower: &[u8], upper: &[u8]) -> (Option<Datum>, Option<Datum>) {
    let half = |bytes: &[u8]| bytes.first_chunk::<8>().map(|half| i64::from_be_bytes(*half));
    let widened = half(lower).zip(half(upper)).and_then(|(lower, upper)| {
        let (below, above) = (lower.checked_sub(1)?, upper.checked_add(1)?);
        let signs = [below, lower, upper, above].map(|half| half < 0);
        (signs == [true; 4] || signs == [false; 4]).then_some((below, above))
    });
    let Some((below, above)) = widened else { return (None, None) };
    let bound = |half: i64, rest: u8| datum(&[half.to_be_bytes(), [rest; 8]].concat(), PrimitiveType::Uuid);
    (bound(below, 0xff), bound(above, 0))
}

fn exact_datum(value: Value, primitive: PrimitiveType) -> Option<Datum> {
    match value {
        Value::Boolean(value) => datum(&[u8::from(value)], primitive),
        Value::Integer(value) if matches!(primitive, PrimitiveType::Int | PrimitiveType::Date) => {
            datum(&i32::try_from(value).ok()?.to_le_bytes(), primitive)
        }
        Value::Integer(value) => datum(&value.to_le_bytes(), primitive),
        Value::Float(value) => datum(&value.to_le_bytes(), primitive),
        Value::Double(value) => datum(&value.to_le_bytes(), primitive),
        Value::Decimal(value) => datum(least_bytes(&value.to_be_bytes()), primitive),
        Value::Bytes(bytes) => datum(&bytes, primitive),
    }
}

fn datum(bytes: &[u8], primitive: PrimitiveType) -> Option<Datum> {
    Datum::try_from_bytes(bytes, iceberg_type(primitive)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
