//! Table schemas in Delta's terms.
//!
//! | column | Delta | remark |
//! | --- | --- | --- |
//! | int, long, float, double, boolean, date, string, binary, decimal | the same | int is `integer` |
//! | timestamptz | timestamp | |
//! | timestamp | timestamp_ntz | the table then needs reader 3, writer 7 |
//! | uuid, fixed | binary | Delta has neither; Spark 4.0 refuses to read a column that Parquet marks as uuid |
//! | time | refused | Delta has no time of day; over a file with one, as `long`, its readers disagree |
//! | struct, list, map | struct, array, map | |

use std::collections::HashSet;

use serde_json::{Value, json};
use siltstone_protocol::{Field, PartitionSpec, PrimitiveType, Schema, Transform, Type};

use super::actions::Protocol;
use crate::error::LakeError;

/// Characters that Delta without column mapping does not take in column names.
const NAME_FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Checks that a table of this schema and partition spec can be shown as Delta.
///
/// # Errors
/// `Invalid`, naming the column and what to do.
pub fn check_table(table: &str, schema: &Schema, spec: &PartitionSpec) -> Result<(), LakeError> {
    check_fields(table, "", &schema.fields)?;
    for column in partition_columns(schema, spec) {
        let data_type = schema.column(&column).map(|field| &field.data_type);
        let takes = matches!(data_type, Some(Type::Primitive(primitive)) if !matches!(
            primitive,
            PrimitiveType::Binary | PrimitiveType::Uuid | PrimitiveType::Fixed(_) | PrimitiveType::Time
        ));
        if !takes {
            return Err(refuse(table, &column, "is of a type by whose values Delta cannot partition"));
        }
    }
    Ok(())
}

/// Checks that a Delta table can follow from one schema to the next: columns may be added and become
/// optional. Delta without column mapping finds columns by name, so ids keep their names and types.
///
/// # Errors
/// `Invalid`, naming the column and what to do.
pub fn check_evolution(table: &str, old: &Schema, new: &Schema) -> Result<(), LakeError> {
    check_fields(table, "", &new.fields)?;
    check_same(table, "", &old.fields, &new.fields)
}

fn check_fields(table: &str, prefix: &str, fields: &[Field]) -> Result<(), LakeError> {
    let mut names = HashSet::new();
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        if field.name.is_empty() || field.name.contains(NAME_FORBIDDEN) {
            return Err(refuse(table, &path, "has a name with a character that Delta does not take"));
        }
        if !names.insert(field.name.to_lowercase()) {
            return Err(refuse(
                table,
                &path,
                "differs from another only by case, which Delta does not tell apart",
            ));
        }
        check_type(table, &path, &field.data_type)?;
    }
    Ok(())
}

fn check_type(table: &str, path: &str, data_type: &Type) -> Result<(), LakeError> {
    match data_type {
        Type::Primitive(PrimitiveType::Time) => {
            Err(refuse(table, path, "is a time of day, which Delta does not have"))
        }
        Type::Primitive(_) => Ok(()),
        Type::Struct(fields) => check_fields(table, &format!("{path}."), fields),
        Type::List { element, .. } => check_type(table, &format!("{path}.element"), element),
        Type::Map { key, value, .. } => {
            check_type(table, &format!("{path}.key"), key)?;
            check_type(table, &format!("{path}.value"), value)
        }
    }
}

fn check_same(table: &str, prefix: &str, old: &[Field], new: &[Field]) -> Result<(), LakeError> {
    for before in old {
        let path = format!("{prefix}{}", before.name);
        let Some(after) = new.iter().find(|field| field.id == before.id) else {
            if new.iter().any(|field| field.name == before.name) {
                return Err(refuse(
                    table,
                    &path,
                    "was dropped and added anew; Delta would read the old values",
                ));
            }
            continue;
        };
        if after.name != before.name {
            return Err(refuse(
                table,
                &path,
                "was renamed, which Delta without column mapping cannot follow",
            ));
        }
        match (&before.data_type, &after.data_type) {
            (Type::Struct(old), Type::Struct(new)) => check_same(table, &format!("{path}."), old, new)?,
            (old, new) if loosely_same(old, new) => {}
            _ => {
                return Err(refuse(
                    table,
                    &path,
                    "changed its type, which Delta without type widening cannot follow",
                ));
            }
        }
    }
    Ok(())
}

/// The same type, whatever may be null inside it.
fn loosely_same(old: &Type, new: &Type) -> bool {
    to_delta(old, Nullability::Ignored) == to_delta(new, Nullability::Ignored)
}

fn refuse(table: &str, column: &str, problem: &str) -> LakeError {
    LakeError::invalid(
        format_args!("table {table}: column {column}"),
        format_args!("{problem}; leave delta out of the table's formats or change the column"),
    )
}

/// Identity partition fields over top-level columns: the Delta table's partition columns.
pub(super) fn partition_columns(schema: &Schema, spec: &PartitionSpec) -> Vec<String> {
    let identity = spec.fields.iter().filter(|field| field.transform == Transform::Identity);
    identity
        .filter_map(|field| schema.fields.iter().find(|column| column.id == field.source_id))
        .map(|column| column.name.clone())
        .collect()
}

/// The schema string of a `metaData` action.
pub(super) fn schema_string(schema: &Schema) -> String {
    struct_json(&schema.fields, Nullability::Kept).to_string()
}

/// The least protocol that shows this schema.
pub(super) fn protocol(schema: &Schema) -> Protocol {
    if schema.fields.iter().any(|field| has_timestamp_ntz(&field.data_type)) {
        // From writer version 7 on every feature in use is listed; a column that is not nullable uses `invariants`.
        return Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: Some(vec!["timestampNtz"]),
            writer_features: Some(vec!["timestampNtz", "invariants"]),
        };
    }
    Protocol { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None }
}

fn has_timestamp_ntz(data_type: &Type) -> bool {
    match data_type {
        Type::Primitive(primitive) => *primitive == PrimitiveType::Timestamp,
        Type::Struct(fields) => fields.iter().any(|field| has_timestamp_ntz(&field.data_type)),
        Type::List { element, .. } => has_timestamp_ntz(element),
        Type::Map { key, value, .. } => has_timestamp_ntz(key) || has_timestamp_ntz(value),
    }
}

#[derive(Clone, Copy)]
enum Nullability {
    Kept,
    Ignored,
}

impl Nullability {
    fn of(self, required: bool) -> bool {
        match self {
            Self::Kept => !required,
            Self::Ignored => true,
        }
    }
}

fn struct_json(fields: &[Field], nulls: Nullability) -> Value {
    let fields = fields.iter().map(|field| {
        json!({
            "name": field.name,
            "type": to_delta(&field.data_type, nulls),
            "nullable": nulls.of(field.required),
            "metadata": {},
        })
    });
    json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() })
}

fn to_delta(data_type: &Type, nulls: Nullability) -> Value {
    match data_type {
        Type::Primitive(primitive) => Value::String(primitive_name(*primitive)),
        Type::Struct(fields) => struct_json(fields, nulls),
        Type::List { element, element_required, .. } => json!({
            "type": "array",
            "elementType": to_delta(element, nulls),
            "containsNull": nulls.of(*element_required),
        }),
        Type::Map { key, value, value_required, .. } => json!({
            "type": "map",
            "keyType": to_delta(key, nulls),
            "valueType": to_delta(value, nulls),
            "valueContainsNull": nulls.of(*value_required),
        }),
    }
}

fn primitive_name(primitive: PrimitiveType) -> String {
    match primitive {
        PrimitiveType::Int => "integer".to_owned(),
        PrimitiveType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        PrimitiveType::Timestamptz => "timestamp".to_owned(),
        PrimitiveType::Timestamp => "timestamp_ntz".to_owned(),
        PrimitiveType::Uuid | PrimitiveType::Fixed(_) => "binary".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn schema(fields: Vec<Field>) -> Schema {
        Schema::new(0, fields)
    }

    #[test]
    fn types_map_and_the_protocol_follows() {
        let plain = schema(vec![
            Field::required(1, "a", PrimitiveType::Int.into()),
            Field::optional(2, "b", PrimitiveType::Decimal { precision: 38, scale: 3 }.into()),
            Field::optional(3, "c", PrimitiveType::Uuid.into()),
            Field::optional(
                4,
                "d",
                Type::List {
                    element_id: 5,
                    element_required: true,
                    element: Box::new(PrimitiveType::Timestamptz.into()),
                },
            ),
        ]);
        let text = schema_string(&plain);
        assert_eq!(
            text,
            r#"{"fields":[{"metadata":{},"name":"a","nullable":false,"type":"integer"},{"metadata":{},"name":"b","nullable":true,"type":"decimal(38,3)"},{"metadata":{},"name":"c","nullable":true,"type":"binary"},{"metadata":{},"name":"d","nullable":true,"type":{"containsNull":false,"elementType":"timestamp","type":"array"}}],"type":"struct"}"#
        );
        assert_eq!(protocol(&plain).min_reader_version, 1);
        let ntz = schema(vec![Field::optional(1, "t", PrimitiveType::Timestamp.into())]);
        assert_eq!(protocol(&ntz).min_writer_version, 7);
    }

    #[test]
    fn what_delta_cannot_show_is_refused_by_name() {
        let time = schema(vec![Field::optional(1, "t", PrimitiveType::Time.into())]);
        let error = check_table("shop.orders", &time, &PartitionSpec::default()).unwrap_err();
        assert!(error.to_string().starts_with("table shop.orders: column t: is a time of day"), "{error}");
        let old = schema(vec![Field::optional(1, "a", PrimitiveType::Int.into())]);
        for (new, part) in [
            (Field::optional(1, "b", PrimitiveType::Int.into()), "was renamed"),
            (Field::optional(1, "a", PrimitiveType::Long.into()), "changed its type"),
            (Field::optional(2, "a", PrimitiveType::Int.into()), "was dropped and added anew"),
        ] {
            let error = check_evolution("t", &old, &schema(vec![new])).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let grown = schema(vec![old.fields[0].clone(), Field::optional(2, "b", PrimitiveType::Int.into())]);
        check_evolution("t", &old, &grown).unwrap();
    }
}
