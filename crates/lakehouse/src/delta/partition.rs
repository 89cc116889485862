//! Partition values as the Delta protocol writes them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use iceberg::spec::{Literal, PrimitiveLiteral};
use siltstone_datafile::FileDetails;
use siltstone_protocol::{PartitionSpec, PrimitiveType, Schema, Transform, Type};

use crate::error::LakeError;

/// The values of the Delta partition columns of one file.
///
/// # Errors
/// `Invalid`: the file's partition spec no longer has one of the columns as an identity field.
pub(super) fn values(
    table: &str,
    columns: &[String],
    details: &FileDetails,
    schema: &Schema,
    spec: &PartitionSpec,
) -> Result<BTreeMap<String, Option<String>>, LakeError> {
    let mut values = BTreeMap::new();
    for column in columns {
        let field = schema.column(column);
        let at = field.and_then(|field| {
            spec.fields.iter().position(|p| p.source_id == field.id && p.transform == Transform::Identity)
        });
        let (Some(field), Some(at)) = (field, at) else {
            return Err(LakeError::invalid(
                format_args!("table {table}: column {column}"),
                format_args!(
                    "is a partition column of the Delta table, whose partitioning cannot change, but spec {} \
                     does not partition by its value; keep the field, or leave delta out of the table's \
                     formats",
                    spec.spec_id
                ),
            ));
        };
        let value = match details.partition.get(at) {
            Some(Some(Literal::Primitive(literal))) => match &field.data_type {
                Type::Primitive(primitive) => Some(text(*primitive, literal)),
                _ => None,
            },
            Some(None) => Some(None),
            _ => None,
        };
        let mismatch =
            || LakeError::data(&details.path, format_args!("has no partition value for column {column}"));
        let value: Option<String> = value.ok_or_else(mismatch)?;
        values.insert(column.clone(), value);
    }
    Ok(values)
}

/// A value as text; `None` for what the protocol cannot write.
fn text(primitive: PrimitiveType, literal: &PrimitiveLiteral) -> Option<String> {
    match (primitive, literal) {
        (PrimitiveType::Date, PrimitiveLiteral::Int(days)) => date(*days),
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => {
            Some(DateTime::from_timestamp_micros(*micros)?.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
        }
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => {
            Some(DateTime::from_timestamp_micros(*micros)?.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
        (PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(unscaled)) => {
            Some(decimal(*unscaled, scale))
        }
        (_, PrimitiveLiteral::Boolean(value)) => Some(value.to_string()),
        (_, PrimitiveLiteral::Int(value)) => Some(value.to_string()),
        (_, PrimitiveLiteral::Long(value)) => Some(value.to_string()),
        (_, PrimitiveLiteral::Float(value)) => Some(value.0.to_string()),
        (_, PrimitiveLiteral::Double(value)) => Some(value.0.to_string()),
        (_, PrimitiveLiteral::String(value)) => Some(value.clone()),
        _ => None,
    }
}

/// `YYYY-MM-DD` of days since 1970; `None` outside four-digit years.
pub(super) fn date(days: i32) -> Option<String> {
    let date =
        NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::TimeDelta::days(days.into()))?;
    (0..=9999).contains(&chrono::Datelike::year(&date)).then(|| date.format("%Y-%m-%d").to_string())
}

/// A decimal with all its digits.
pub(super) fn decimal(unscaled: i128, scale: u8) -> String {
    let (sign, digits) = (if unscaled < 0 { "-" } else { "" }, unscaled.unsigned_abs().to_string());
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_protocol_says() {
        use PrimitiveLiteral as L;
        let cases = [
            (PrimitiveType::Int, L::Int(-3), "-3"),
            (PrimitiveType::Date, L::Int(19_723), "2024-01-01"),
            (PrimitiveType::Timestamptz, L::Long(1_704_067_200_000_001), "2024-01-01T00:00:00.000001Z"),
            (PrimitiveType::Timestamp, L::Long(-1), "1969-12-31 23:59:59.999999"),
            (PrimitiveType::Decimal { precision: 38, scale: 3 }, L::Int128(-5), "-0.005"),
            (
                PrimitiveType::Decimal { precision: 38, scale: 0 },
                L::Int128(i128::from(u64::MAX)),
                "18446744073709551615",
            ),
            (PrimitiveType::Boolean, L::Boolean(true), "true"),
            (PrimitiveType::String, L::String("a=b".into()), "a=b"),
        ];
        for (primitive, literal, expected) in cases {
            assert_eq!(text(primitive, &literal).as_deref(), Some(expected));
        }
    }
}
