//! One type's values as another's. What a type cannot hold becomes null: the caller compares nulls before and after.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, PrimitiveArray,
        StringBuilder, TimestampMicrosecondArray,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
        TimestampMicrosecondType,
    },
    util::display::FormatOptions,
};
use siltstone_protocol::{Field, PrimitiveType};

use crate::{IngestError, columns::arrow_field};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The Arrow type of a column type.
pub(super) fn arrow_type(data_type: PrimitiveType) -> Result<DataType, IngestError> {
    arrow_field(&Field::optional(0, "value", data_type.into())).map(|field| field.data_type().clone())
}

/// # Errors
/// `Internal` for a pair of types that [`siltstone_spec::transform::castable`] refuses.
pub(super) fn cast(
    array: &ArrayRef,
    from: PrimitiveType,
    to: PrimitiveType,
) -> Result<ArrayRef, IngestError> {
    use PrimitiveType as P;
    let target = arrow_type(to)?;
    Ok(match (from, to) {
        _ if array.data_type() == &target => Arc::clone(array),
        (P::Uuid, P::String) => uuid_texts(array.as_fixed_size_binary()),
        (P::String, P::Uuid) => uuids(array)?,
        (P::Fixed(_), P::String) => by_arrow(&by_arrow(array, &DataType::Binary)?, &target)?,
        // Arrow overflows, or fails, at dates and times far away.
        (P::Date, P::Timestamp | P::Timestamptz) => {
            let micros = |day: i32| i64::from(day).checked_mul(MICROS_PER_DAY);
            let days = array.as_primitive::<Date32Type>();
            with_zone(&days.unary_opt::<_, TimestampMicrosecondType>(micros), &target)
        }
        (P::Timestamp | P::Timestamptz, P::Date) => {
            let day = |micros: i64| i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok();
            let micros = array.as_primitive::<TimestampMicrosecondType>();
            Arc::new(micros.unary_opt::<_, Date32Type>(day))
        }
        (P::Date, P::String) => date_texts(array),
        (P::Timestamp, P::Timestamptz) | (P::Timestamptz, P::Timestamp) => {
            with_zone(array.as_primitive(), &target)
        }
        (P::Timestamp | P::Timestamptz, P::String) => timestamp_texts(array, from == P::Timestamptz),
        (P::String, P::Timestamptz) => {
            // Where no zone is said, it is UTC.
            by_arrow(array, &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())))?
        }
        _ => by_arrow(array, &target)?,
    })
}

/// As [`cast`], but null for a whole number that the floating-point type has not.
pub(super) fn exact(
    array: &ArrayRef,
    from: PrimitiveType,
    to: PrimitiveType,
) -> Result<ArrayRef, IngestError> {
    use PrimitiveType as P;
    let float = |number: i64| {
        let float = number as f32;
        (float as i128 == i128::from(number)).then_some(float)
    };
    let double = |number: i64| {
        let double = number as f64;
        (double as i128 == i128::from(number)).then_some(double)
    };
    Ok(match (from, to) {
        (P::Int, P::Float) => {
            let numbers = array.as_primitive::<Int32Type>();
            Arc::new(numbers.unary_opt::<_, Float32Type>(|number| float(number.into())))
        }
        (P::Long, P::Float) => Arc::new(array.as_primitive::<Int64Type>().unary_opt::<_, Float32Type>(float)),
        (P::Long, P::Double) => {
            Arc::new(array.as_primitive::<Int64Type>().unary_opt::<_, Float64Type>(double))
        }
        _ => cast(array, from, to)?,
    })
}

fn by_arrow(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, IngestError> {
    let options = CastOptions { safe: true, format_options: FormatOptions::default() };
    cast_with_options(array, target, &options)
        .map_err(|_| IngestError::internal("a cast that was checked is refused"))
}

/// The same microseconds, with the target's zone or without one.
fn with_zone(micros: &TimestampMicrosecondArray, target: &DataType) -> ArrayRef {
    let zone = match target {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let values: TimestampMicrosecondArray =
        PrimitiveArray::new(micros.values().clone(), micros.nulls().cloned());
    Arc::new(values.with_timezone_opt(zone))
}

/// `2026-01-31`, with a sign before years that have not four digits.
fn date_texts(array: &ArrayRef) -> ArrayRef {
    let days = array.as_primitive::<Date32Type>();
    let mut out = StringBuilder::with_capacity(days.len(), days.len() * 10);
    for day in days {
        let date = day.and_then(chrono::NaiveDate::from_epoch_days);
        out.append_option(date.map(|date| date.to_string()));
    }
    Arc::new(out.finish())
}

/// `2026-01-31T12:00:00Z`, with as many digits after the point as it needs; without `Z` where there is no zone.
fn timestamp_texts(array: &ArrayRef, zoned: bool) -> ArrayRef {
    let micros = array.as_primitive::<TimestampMicrosecondType>();
    let mut out = StringBuilder::with_capacity(micros.len(), micros.len() * 24);
    for micros in micros {
        let time = micros.and_then(chrono::DateTime::from_timestamp_micros);
        out.append_option(time.map(|time| {
            let mut text = time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string();
            if zoned {
                text.push('Z');
            }
            text
        }));
    }
    Arc::new(out.finish())
}

fn uuid_texts(array: &FixedSizeBinaryArray) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 36);
    for value in array {
        out.append_option(value.map(|bytes| {
            let mut text = String::with_capacity(36);
            for (index, byte) in bytes.iter().enumerate() {
                if matches!(index, 4 | 6 | 8 | 10) {
                    text.push('-');
                }
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
            text
        }));
    }
    Arc::new(out.finish())
}

fn uuids(array: &ArrayRef) -> Result<ArrayRef, IngestError> {
    let wrong = || IngestError::internal("a uuid has the wrong length");
    let texts = array.as_string::<i32>();
    let mut out = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    for text in texts {
        match text.and_then(uuid) {
            Some(bytes) => out.append_value(bytes).map_err(|_| wrong())?,
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// 32 hexadecimal digits, with hyphens where a uuid has them or without any.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens = text.len() == 36;
    let mut digits = 0;
    let mut bytes = [0u8; 16];
    for (index, c) in text.chars().enumerate() {
        if hyphens && matches!(index, 8 | 13 | 18 | 23) {
            if c != '-' {
                return None;
            }
            continue;
        }
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | u8::try_from(c.to_digit(16)?).ok()?;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}
