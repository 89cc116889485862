//! File statistics in Delta's JSON, made here because a wrong bound makes readers skip live rows.
//!
//! - Decimals are JSON numbers with every digit.
//! - Timestamps are cut to milliseconds, the lower bound down and the upper bound up.
//! - A float column has no bounds when it may hold NaN, or when a bound is not finite.
//! - Strings come cut to 16 characters, the upper bound rounded up (`siltstone_datafile` does it).
//! - A column has both bounds or none. Lists, maps, binary, uuid, fixed and partition columns have none.
//! - Booleans have bounds, which the protocol allows and few writers make: a reader that takes a missing
//!   bound for "no match" (`deltalake` 1.6 for Python, as a PyArrow data set) then finds its rows. It still
//!   misses rows by a filter on a float column of a file with NaN, as it does in tables of its own.

use std::fmt::Write as _;

use chrono::DateTime;
use iceberg::spec::{Datum, PrimitiveLiteral};
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use super::partition::{date, decimal};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Min,
    Max,
    Nulls,
}

/// The `stats` text of an `add` action.
pub(super) fn stats(details: &FileDetails, schema: &Schema, partition_columns: &[String]) -> String {
    let columns: Vec<&Field> =
        schema.fields.iter().filter(|field| !partition_columns.contains(&field.name)).collect();
    let mut text = format!("{{\"numRecords\":{}", details.rows);
    for (name, part) in [("minValues", Part::Min), ("maxValues", Part::Max), ("nullCount", Part::Nulls)] {
        if let Some(object) = object(details, &columns, part) {
            // Infallible: writing to a string.
            let _ = write!(text, ",\"{name}\":{object}");
        }
    }
    text.push('}');
    text
}

/// One JSON object over columns or struct members; `None` when nothing is known.
fn object(details: &FileDetails, fields: &[&Field], part: Part) -> Option<String> {
    let members: Vec<String> = fields
        .iter()
        .filter_map(|field| {
            let value = match &field.data_type {
                Type::Primitive(primitive) => leaf(details.columns.get(&field.id)?, *primitive, part)?,
                Type::Struct(members) => object(details, &members.iter().collect::<Vec<_>>(), part)?,
                Type::List { .. } | Type::Map { .. } => return None,
            };
            Some(format!("{}:{value}", quoted(&field.name)))
        })
        .collect();
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}

fn leaf(stats: &ColumnStats, primitive: PrimitiveType, part: Part) -> Option<String> {
    if part == Part::Nulls {
        return stats.nulls.map(|nulls| nulls.to_string());
    }
    let is_float = matches!(primitive, PrimitiveType::Float | PrimitiveType::Double);
    if is_float && stats.nans != Some(0) {
        return None;
    }
    let lower = bound(primitive, stats.lower.as_ref()?, Part::Min)?;
    let upper = bound(primitive, stats.upper.as_ref()?, Part::Max)?;
    Some(if part == Part::Min { lower } else { upper })
}

fn bound(primitive: PrimitiveType, datum: &Datum, part: Part) -> Option<String> {
    match (primitive, datum.literal()) {
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => Some(value.to_string()),
        (PrimitiveType::Int | PrimitiveType::Long, PrimitiveLiteral::Int(value)) => Some(value.to_string()),
        (PrimitiveType::Int | PrimitiveType::Long, PrimitiveLiteral::Long(value)) => Some(value.to_string()),
        (PrimitiveType::Float, PrimitiveLiteral::Float(value)) => number(value.0.into()),
        (PrimitiveType::Double, PrimitiveLiteral::Double(value)) => number(value.0),
        (PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(value)) => {
            Some(decimal(*value, scale))
        }
        (PrimitiveType::Date, PrimitiveLiteral::Int(days)) => date(*days).map(|text| quoted(&text)),
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => instant(*micros, part, "Z"),
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => instant(*micros, part, ""),
        (PrimitiveType::String, PrimitiveLiteral::String(text)) => Some(quoted(text)),
        _ => None,
    }
}

fn instant(micros: i64, part: Part, zone: &str) -> Option<String> {
    let below = micros.div_euclid(1000);
    let exact = micros.rem_euclid(1000) == 0;
    let millis = if part == Part::Max && !exact { below.checked_add(1)? } else { below };
    let time = DateTime::from_timestamp_millis(millis)?;
    let in_range = (0..=9999).contains(&chrono::Datelike::year(&time));
    in_range.then(|| format!("\"{}{zone}\"", time.format("%Y-%m-%dT%H:%M:%S%.3f")))
}

fn number(value: f64) -> Option<String> {
    value.is_finite().then(|| serde_json::Number::from_f64(value).map(|number| number.to_string()))?
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn column(lower: Datum, upper: Datum, nans: Option<u64>) -> ColumnStats {
        ColumnStats { size_bytes: 1, values: 2, nulls: Some(1), nans, lower: Some(lower), upper: Some(upper) }
    }

    fn details(columns: BTreeMap<i32, ColumnStats>) -> FileDetails {
        FileDetails {
            path: "data/x.parquet".into(),
            rows: 2,
            bytes: 9,
            spec_id: 0,
            partition: vec![],
            columns,
            split_offsets: vec![],
            key_range: None,
        }
    }

    #[test]
    fn bounds_are_safe_and_exact() {
        let schema = Schema::new(
            0,
            vec![
                Field::optional(1, "ts", PrimitiveType::Timestamptz.into()),
                Field::optional(2, "f", PrimitiveType::Double.into()),
                Field::optional(3, "g", PrimitiveType::Double.into()),
                Field::optional(
                    4,
                    "s",
                    Type::Struct(vec![Field::optional(5, "in", PrimitiveType::String.into())]),
                ),
                Field::optional(6, "part", PrimitiveType::Int.into()),
            ],
        );
        let columns = BTreeMap::from([
            (1, column(Datum::timestamptz_micros(1_999), Datum::timestamptz_micros(2_001), None)),
            (2, column(Datum::double(0.5), Datum::double(2.5), Some(0))),
            (3, column(Datum::double(0.5), Datum::double(1.5), Some(1))),
            (5, column(Datum::string("a\"b"), Datum::string("z"), None)),
            (6, column(Datum::int(1), Datum::int(1), None)),
        ]);
        assert_eq!(
            stats(&details(columns), &schema, &["part".to_owned()]),
            r#"{"numRecords":2,"minValues":{"ts":"1970-01-01T00:00:00.001Z","f":0.5,"s":{"in":"a\"b"}},"maxValues":{"ts":"1970-01-01T00:00:00.003Z","f":2.5,"s":{"in":"z"}},"nullCount":{"ts":1,"f":1,"g":1,"s":{"in":1}}}"#
        );
    }
}
