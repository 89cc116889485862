//! Partition transforms on Arrow arrays, as the Iceberg spec defines them (spec, "Partition transforms"
//! and appendix B).
//!
//! Written here and not taken from the `iceberg` crate: that one panics or wraps on dates out of chrono's
//! range and at the ends of the integers, hashes through an `io::Read`, and goes by way of a calendar for
//! each row. Truncation that would leave the integer's range wraps, as in the Java implementation.

mod hash;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Date32Array, Int32Array, PrimitiveArray, StringArray,
        new_null_array,
    },
    datatypes::{
        DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, Time64MicrosecondType,
        TimestampMicrosecondType,
    },
};
use siltstone_protocol::{PrimitiveType, Transform};

use crate::error::{DataFileError, Result};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// The type of a transform's results.
///
/// # Errors
/// `Transform` when the spec does not allow the transform on this type.
pub fn result_type(transform: Transform, source: PrimitiveType) -> Result<PrimitiveType> {
    use PrimitiveType as P;
    let allowed = match transform {
        Transform::Identity | Transform::Void => Some(source),
        Transform::Bucket(_) => match source {
            P::Boolean | P::Float | P::Double => None,
            _ => Some(P::Int),
        },
        Transform::Truncate(_) => match source {
            P::Int | P::Long | P::Decimal { .. } | P::String | P::Binary => Some(source),
            _ => None,
        },
        Transform::Year | Transform::Month | Transform::Day => match source {
            P::Date | P::Timestamp | P::Timestamptz if transform == Transform::Day => Some(P::Date),
            P::Date | P::Timestamp | P::Timestamptz => Some(P::Int),
            _ => None,
        },
        Transform::Hour => match source {
            P::Timestamp | P::Timestamptz => Some(P::Int),
            _ => None,
        },
    };
    allowed.ok_or_else(|| DataFileError::Transform {
        transform: transform.to_string(),
        data_type: source.to_string(),
    })
}

/// Applies a transform to a column; nulls stay null.
///
/// # Errors
/// `Transform` when the spec does not allow the transform on this type.
pub fn transform(transform: Transform, source: &ArrayRef) -> Result<ArrayRef> {
    let refused = || DataFileError::Transform {
        transform: transform.to_string(),
        data_type: source.data_type().to_string(),
    };
    match transform {
        Transform::Identity => Ok(Arc::clone(source)),
        Transform::Void => Ok(new_null_array(source.data_type(), source.len())),
        Transform::Bucket(buckets) => bucket(buckets, source).ok_or_else(refused),
        Transform::Truncate(width) => truncate(width, source).ok_or_else(refused),
        Transform::Year => months(source, |months| months.div_euclid(12)).ok_or_else(refused),
        Transform::Month => months(source, |months| months).ok_or_else(refused),
        Transform::Day => {
            let days = days(source).ok_or_else(refused)?;
            Ok(Arc::new(days))
        }
        Transform::Hour => match source.data_type() {
            DataType::Timestamp(..) => {
                let hour = |micros: i64| saturate(micros.div_euclid(MICROS_PER_HOUR));
                Ok(Arc::new(source.as_primitive::<TimestampMicrosecondType>().unary::<_, Int32Type>(hour)))
            }
            _ => Err(refused()),
        },
    }
}

/// Hours and days of any 64-bit count of microseconds fit but for hours past the year 246,000.
fn saturate(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

fn days(source: &ArrayRef) -> Option<Date32Array> {
    match source.data_type() {
        DataType::Date32 => Some(source.as_primitive::<Date32Type>().clone()),
        DataType::Timestamp(..) => {
            let day = |micros: i64| saturate(micros.div_euclid(MICROS_PER_DAY));
            Some(source.as_primitive::<TimestampMicrosecondType>().unary(day))
        }
        _ => None,
    }
}

fn months(source: &ArrayRef, part: impl Fn(i32) -> i32) -> Option<ArrayRef> {
    let months: Int32Array = days(source)?.unary(|day| part(months_since_1970(day)));
    Some(Arc::new(months))
}

/// Months from January 1970 of a day in the proleptic Gregorian calendar.
/// (The arithmetic is Howard Hinnant's `civil_from_days`: eras of 400 years beginning in March.)
fn months_since_1970(day: i32) -> i32 {
    let shifted = i64::from(day) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    // Months since March of year 0, to which January and February of the next year belong.
    saturate((era * 400 + year_of_era - 1970) * 12 + march_month + 2)
}

fn bucket(buckets: u32, source: &ArrayRef) -> Option<ArrayRef> {
    let buckets = i32::try_from(buckets).ok().filter(|buckets| *buckets > 0)?;
    let of = |hash: u32| (hash & 0x7fff_ffff) as i32 % buckets;
    let long = |value: i64| of(hash::murmur3(&value.to_le_bytes()));
    let decimal = |value: i128| of(hash::murmur3(crate::partition::least_bytes(&value.to_be_bytes())));
    let bytes = |value: Option<&[u8]>| value.map(|value| of(hash::murmur3(value)));
    let result: Int32Array = match source.data_type() {
        DataType::Int32 => source.as_primitive::<Int32Type>().unary(|value| long(value.into())),
        DataType::Int64 => source.as_primitive::<Int64Type>().unary(long),
        DataType::Decimal128(..) => source.as_primitive::<Decimal128Type>().unary(decimal),
        DataType::Date32 => source.as_primitive::<Date32Type>().unary(|value| long(value.into())),
        DataType::Time64(_) => source.as_primitive::<Time64MicrosecondType>().unary(long),
        DataType::Timestamp(..) => source.as_primitive::<TimestampMicrosecondType>().unary(long),
        DataType::Utf8 => source.as_string::<i32>().iter().map(|v| bytes(v.map(str::as_bytes))).collect(),
        DataType::Binary => source.as_binary::<i32>().iter().map(bytes).collect(),
        DataType::FixedSizeBinary(_) => source.as_fixed_size_binary().iter().map(bytes).collect(),
        _ => return None,
    };
    Some(Arc::new(result))
}

fn truncate(width: u32, source: &ArrayRef) -> Option<ArrayRef> {
    let length = width as usize;
    Some(match source.data_type() {
        DataType::Int32 => {
            // A width beyond i32 truncates as in 64 bits; only the result is cut to 32.
            let of = |v: i32| i64::from(v).wrapping_sub(i64::from(v).rem_euclid(width.into())) as i32;
            Arc::new(source.as_primitive::<Int32Type>().unary::<_, Int32Type>(of))
        }
        DataType::Int64 => {
            let of = |v: i64| v.wrapping_sub(v.rem_euclid(width.into()));
            Arc::new(source.as_primitive::<Int64Type>().unary::<_, Int64Type>(of))
        }
        data_type @ DataType::Decimal128(..) => {
            let of = |v: i128| v.wrapping_sub(v.rem_euclid(width.into()));
            let result: PrimitiveArray<Decimal128Type> = source.as_primitive::<Decimal128Type>().unary(of);
            Arc::new(result.with_data_type(data_type.clone()))
        }
        DataType::Utf8 => {
            let cut = |v: &str| v.char_indices().nth(length).map_or(v.len(), |(end, _)| end);
            let values = source.as_string::<i32>().iter();
            Arc::new(values.map(|v| v.map(|v| &v[..cut(v)])).collect::<StringArray>())
        }
        DataType::Binary => {
            let values = source.as_binary::<i32>().iter();
            Arc::new(values.map(|v| v.map(|v| &v[..v.len().min(length)])).collect::<BinaryArray>())
        }
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
