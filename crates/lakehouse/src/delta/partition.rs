//! Partition values as the Delta protocol writes them: texts, of which the empty one means null.
//!
//! | type | partition column | why |
//! | --- | --- | --- |
//! | boolean, int, long, decimal | yes | one text for each value, read back by every reader |
//! | string | no | the empty string reads as null |
//! | binary, fixed, uuid | no | bytes are written as text, by each reader in its own way; empty reads as null |
//! | date | no | no text for years outside 0000 to 9999, and one such record would stop the table |
//! | timestamp, timestamptz | no | as date; without a zone the text is read in the reader's own |
//! | float, double | no | readers spell NaN and the infinities differently |
//! | time | no | Delta has no such type |

use std::collections::BTreeMap;

use chrono::NaiveDate;
use iceberg::spec::{Literal, PrimitiveLiteral};
use siltstone_datafile::FileDetails;
use siltstone_protocol::{PartitionSpec, PrimitiveType, Schema, Transform, Type};

use crate::error::LakeError;

/// The values of the Delta partition columns of one file.
///
/// # Errors
/// `Invalid`: the file's partition spec does not have one of the columns as an identity field.
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
            super::schema::check_partition_columns(table, columns, schema, spec)?;
            return Err(LakeError::internal(&details.path, "a partition column without a partition field"));
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
        (PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(unscaled)) => {
            Some(decimal(*unscaled, scale))
        }
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => Some(value.to_string()),
        (PrimitiveType::Int | PrimitiveType::Long, PrimitiveLiteral::Int(value)) => Some(value.to_string()),
        (PrimitiveType::Int | PrimitiveType::Long, PrimitiveLiteral::Long(value)) => Some(value.to_string()),
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
            (PrimitiveType::Long, L::Long(i64::MIN), "-9223372036854775808"),
            (PrimitiveType::Decimal { precision: 38, scale: 3 }, L::Int128(-5), "-0.005"),
            (
                PrimitiveType::Decimal { precision: 38, scale: 0 },
                L::Int128(i128::from(u64::MAX)),
                "18446744073709551615",
            ),
            (PrimitiveType::Boolean, L::Boolean(true), "true"),
        ];
        for (primitive, literal, expected) in cases {
            assert_eq!(text(primitive, &literal).as_deref(), Some(expected));
        }
        assert_eq!(text(PrimitiveType::String, &L::String(String::new())), None);
        assert_eq!(text(PrimitiveType::Date, &L::Int(0)), None);
    }
}
