//! Table schemas in Delta's terms.
//!
//! | column | Delta | remark |
//! | --- | --- | --- |
//! | int, long, float, double, boolean, date, string, binary, decimal | the same | int is `integer` |
//! | timestamptz | timestamp | |
//! | timestamp | timestamp_ntz | the table then needs reader 3, writer 7 |
//! | uuid, fixed | binary | Delta has neither; files that Delta shows do not mark uuids, which Spark may refuse |
//! | time | refused | Delta has no time of day; over a file with one, as `long`, its readers disagree |
//! | struct, list, map | struct, array, map | |
//!
//! A partition column of the Delta table is what the table partitions by itself (identity) and what
//! partition values hold exactly, in every reader; the table is in [`super::partition`]. Files hold every
//! column, so the others are read from them, and the files' statistics prune as partition values would.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};
use siltstone_protocol::{
    ErrorCode, Field, Format, PartitionSpec, PrimitiveType, Schema, SchemaHistory, Transform, Type,
    path::{ELEMENT, MAP_KEY, MAP_VALUE, inside},
};

use super::actions::Protocol;
use crate::{error::LakeError, ledger::LedgerState};

/// Characters that Delta without column mapping does not take in column names.
const NAME_FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Checks that a table of this schema can be shown as Delta. Any partition spec can.
///
/// # Errors
/// `CannotShow`, naming the column and what to do.
pub fn check_table(table: &str, schema: &Schema) -> Result<(), LakeError> {
    check_fields(table, "", &schema.fields)
}

/// Whether a change may be one from which on Delta's readers must know column mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// A person asked for it, and was told.
    MayBegin,
    /// Only if it is so already.
    AsItIs,
}

/// Checks that Delta can show a table that becomes this: the rows it holds, and those to come.
///
/// # Errors
/// `CannotShow`, naming the column and what to do.
pub(super) fn check_change(state: &LedgerState, schema: &Schema, mapping: Mapping) -> Result<(), LakeError> {
    let history = SchemaHistory::of(state.schemas.values().chain([schema]));
    let begins = history.is_mapped(schema.schema_id) && !history.is_mapped(state.schema.schema_id);
    let is_unasked = begins && mapping == Mapping::AsItIs;
    let mapped = history.is_mapped(schema.schema_id) && !is_unasked;
    let held: BTreeSet<i32> = state.live_files.values().map(|file| file.schema_id).collect();
    let held = held.iter().filter_map(|id| state.schemas.get(id));
    held.chain([&state.schema]).try_for_each(|old| check_evolution(&state.name, old, schema, mapped))?;
    if !is_unasked {
        return Ok(());
    }
    // What comparing the schemas does not show: a name that a column had which left, if only by case.
    let column = called_otherwise(&history, "", &schema.fields).unwrap_or_default();
    let why = "has the name of a column that was there before, and Delta without column mapping takes it for that one";
    Err(refuse_change(&state.name, &column, why))
}

/// The first column that files call otherwise than the schema does.
fn called_otherwise(history: &SchemaHistory, prefix: &str, fields: &[Field]) -> Option<String> {
    fields.iter().find_map(|field| {
        let path = format!("{prefix}{}", field.name);
        if history.name_in_files(field) != field.name {
            return Some(path);
        }
        called_otherwise_inside(history, &path, &field.data_type)
    })
}

fn called_otherwise_inside(history: &SchemaHistory, path: &str, data_type: &Type) -> Option<String> {
    match data_type {
        Type::Primitive(_) => None,
        Type::Struct(members) => called_otherwise(history, &format!("{path}."), members),
        Type::List { element, .. } => called_otherwise_inside(history, &inside(path, ELEMENT), element),
        Type::Map { key, value, .. } => called_otherwise_inside(history, &inside(path, MAP_KEY), key)
            .or_else(|| called_otherwise_inside(history, &inside(path, MAP_VALUE), value)),
    }
}

/// Checks that the partition columns that a Delta log declares can be filled from files of this spec.
///
/// # Errors
/// `CannotShow`, naming the column and what to do; `Invalid` for a log of an earlier build.
pub(super) fn check_partition_columns(
    table: &str,
    columns: &[String],
    schema: &Schema,
    spec: &PartitionSpec,
) -> Result<(), LakeError> {
    check_log_columns(table, columns, schema)?;
    let filled = partition_columns(schema, [spec]);
    match columns.iter().find(|column| !filled.contains(column)) {
        None => Ok(()),
        Some(column) => Err(cannot_show(
            table,
            column,
            "is a partition column of the Delta table, whose partitioning cannot change",
            "keep the column itself in partition_by beside the new fields, or make a new table",
        )),
    }
}

/// Checks that the partition columns that a Delta log declares are of types that partition values hold.
///
/// # Errors
/// `Invalid`: an earlier build declared others; names the column and what to do.
pub(super) fn check_log_columns(table: &str, columns: &[String], schema: &Schema) -> Result<(), LakeError> {
    let exact = |column: &&String| schema.column(column).is_some_and(|field| is_exact(&field.data_type));
    match columns.iter().find(|column| !exact(column)) {
        None => Ok(()),
        Some(column) => Err(LakeError::invalid(
            format_args!("table {table}: column {column}"),
            "is a partition column in the Delta log, put there by an earlier build, though partition values \
             do not hold it exactly (the empty string reads as null); delete data/_delta_log to have the log \
             rebuilt from the ledger",
        )
        .coded(ErrorCode::FormatCannotShow)),
    }
}

/// Checks that a Delta table can follow from one schema to the next: columns may be added, dropped and become
/// optional. Without column mapping Delta finds columns by name, so ids keep their names, and names their ids.
/// Types stay: type widening is a feature without which a reader refuses the whole table, and delta-rs, which makes
/// our checkpoints too, does not have it.
///
/// # Errors
/// `CannotShow`, naming the column and what to do.
pub(super) fn check_evolution(
    table: &str,
    old: &Schema,
    new: &Schema,
    mapped: bool,
) -> Result<(), LakeError> {
    check_fields(table, "", &new.fields)?;
    check_same(table, "", &old.fields, &new.fields, mapped)
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
        Type::List { element, .. } => check_type(table, &inside(path, ELEMENT), element),
        Type::Map { key, value, .. } => {
            check_type(table, &inside(path, MAP_KEY), key)?;
            check_type(table, &inside(path, MAP_VALUE), value)
        }
    }
}

fn check_same(
    table: &str,
    prefix: &str,
    old: &[Field],
    new: &[Field],
    mapped: bool,
) -> Result<(), LakeError> {
    for before in old {
        let path = format!("{prefix}{}", before.name);
        let Some(after) = new.iter().find(|field| field.id == before.id) else {
            if !mapped && new.iter().any(|field| field.name == before.name) {
                return Err(refuse_change(
                    table,
                    &path,
                    "was dropped and added anew; Delta would read the old values",
                ));
            }
            continue;
        };
        if !mapped && after.name != before.name {
            return Err(refuse_change(
                table,
                &path,
                "was renamed, which Delta without column mapping cannot follow",
            ));
        }
        check_same_type(table, &path, &before.data_type, &after.data_type, mapped)?;
    }
    Ok(())
}

/// The same type, whatever may be null inside it; members of structs come at every depth.
fn check_same_type(table: &str, path: &str, old: &Type, new: &Type, mapped: bool) -> Result<(), LakeError> {
    match (old, new) {
        (Type::Struct(old), Type::Struct(new)) => check_same(table, &format!("{path}."), old, new, mapped),
        (Type::List { element: old, .. }, Type::List { element: new, .. }) => {
            check_same_type(table, &inside(path, ELEMENT), old, new, mapped)
        }
        (Type::Map { key: old_key, value: old, .. }, Type::Map { key, value: new, .. }) => {
            if old.count_members() < new.count_members() {
                let why = "got members inside a map; delta-rs reads no file from before such a change";
                return Err(refuse_change(table, path, why));
            }
            check_same_type(table, &inside(path, MAP_KEY), old_key, key, mapped)?;
            check_same_type(table, &inside(path, MAP_VALUE), old, new, mapped)
        }
        _ if to_delta(old, Nullability::Ignored, None) == to_delta(new, Nullability::Ignored, None) => Ok(()),
        _ => Err(refuse_change(
            table,
            path,
            "changed its type, which Delta without type widening cannot follow",
        )),
    }
}

/// A column that Delta does not have in any table.
fn refuse(table: &str, column: &str, why: &str) -> LakeError {
    cannot_show(table, column, why, "leave delta out of the table's formats or change the column")
}

/// A change that a Delta table cannot follow.
fn refuse_change(table: &str, column: &str, why: &str) -> LakeError {
    cannot_show(
        table,
        column,
        why,
        "keep the column as it is and add the new one under another name, or make a new table",
    )
}

fn cannot_show(table: &str, column: &str, why: &str, way_out: &str) -> LakeError {
    LakeError::CannotShow {
        table: table.to_owned(),
        format: Format::Delta,
        column: column.to_owned(),
        why: why.to_owned(),
        way_out: way_out.to_owned(),
    }
}

/// The partition columns of a Delta table: top-level columns of exact types by which every one of these
/// specs partitions (identity). A log begins with all specs that the table ever had, since its files have them.
pub(super) fn partition_columns<'s>(
    schema: &Schema,
    specs: impl IntoIterator<Item = &'s PartitionSpec> + Clone,
) -> Vec<String> {
    let is_split_by = |column: &Field, spec: &PartitionSpec| {
        spec.fields.iter().any(|field| field.source_id == column.id && field.transform == Transform::Identity)
    };
    let in_all = |column: &Field| specs.clone().into_iter().all(|spec| is_split_by(column, spec));
    let columns = schema.fields.iter().filter(|column| is_exact(&column.data_type) && in_all(column));
    columns.map(|column| column.name.clone()).collect()
}

/// True when partition values hold each value of the type, and null, so that every reader finds it again.
fn is_exact(data_type: &Type) -> bool {
    use PrimitiveType as P;
    matches!(data_type, Type::Primitive(P::Boolean | P::Int | P::Long | P::Decimal { .. }))
}

/// The schema string of a `metaData` action; `mapping`: with the columns' names in files.
pub(super) fn schema_string(schema: &Schema, mapping: Option<&SchemaHistory>) -> String {
    struct_json(&schema.fields, Nullability::Kept, mapping).to_string()
}

/// The least protocol that shows this schema.
///
/// Column mapping is told as a table feature, though reader version 2 has it too: delta-rs does not look at that
/// version when it reads as a PyArrow data set, and then takes every renamed column for null. What is listed, it
/// refuses.
pub(super) fn protocol(schema: &Schema, mapped: bool) -> Protocol {
    let has_ntz = schema.fields.iter().any(|field| has_timestamp_ntz(&field.data_type));
    let features = [(has_ntz, "timestampNtz"), (mapped, "columnMapping")];
    let reader: Vec<_> = features.iter().filter(|(used, _)| *used).map(|(_, name)| *name).collect();
    if reader.is_empty() {
        let (min_reader_version, min_writer_version) = (1, 2);
        return Protocol {
            min_reader_version,
            min_writer_version,
            reader_features: None,
            writer_features: None,
        };
    }
    // From writer version 7 on every feature in use is listed; a column that is not nullable uses `invariants`.
    let writer = reader.iter().copied().chain(["invariants"]).collect();
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(reader),
        writer_features: Some(writer),
    }
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

fn struct_json(fields: &[Field], nulls: Nullability, mapping: Option<&SchemaHistory>) -> Value {
    let fields = fields.iter().map(|field| {
        let metadata = match mapping {
            None => json!({}),
            Some(history) => json!({
                "delta.columnMapping.id": field.id,
                "delta.columnMapping.physicalName": history.name_in_files(field),
            }),
        };
        json!({
            "name": field.name,
            "type": to_delta(&field.data_type, nulls, mapping),
            "nullable": nulls.of(field.required),
            "metadata": metadata,
        })
    });
    json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() })
}

fn to_delta(data_type: &Type, nulls: Nullability, mapping: Option<&SchemaHistory>) -> Value {
    match data_type {
        Type::Primitive(primitive) => Value::String(primitive_name(*primitive)),
        Type::Struct(fields) => struct_json(fields, nulls, mapping),
        Type::List { element, element_required, .. } => json!({
            "type": "array",
            "elementType": to_delta(element, nulls, mapping),
            "containsNull": nulls.of(*element_required),
        }),
        Type::Map { key, value, value_required, .. } => json!({
            "type": "map",
            "keyType": to_delta(key, nulls, mapping),
            "valueType": to_delta(value, nulls, mapping),
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
    use siltstone_protocol::PartitionField;

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
        let text = schema_string(&plain, None);
        assert_eq!(
            text,
            r#"{"fields":[{"metadata":{},"name":"a","nullable":false,"type":"integer"},{"metadata":{},"name":"b","nullable":true,"type":"decimal(38,3)"},{"metadata":{},"name":"c","nullable":true,"type":"binary"},{"metadata":{},"name":"d","nullable":true,"type":{"containsNull":false,"elementType":"timestamp","type":"array"}}],"type":"struct"}"#
        );
        assert_eq!(protocol(&plain, false).min_reader_version, 1);
        let ntz = schema(vec![Field::optional(1, "t", PrimitiveType::Timestamp.into())]);
        assert_eq!(protocol(&ntz, false).min_writer_version, 7);
    }

    fn identity(source_id: i32) -> PartitionField {
        let transform = Transform::Identity;
        PartitionField { source_id, field_id: 999 + source_id, name: format!("p{source_id}"), transform }
    }

    #[test]
    fn only_exact_types_are_partition_columns() {
        use PrimitiveType as P;
        let exact = [P::Boolean, P::Int, P::Long, P::Decimal { precision: 38, scale: 10 }];
        let others = [
            P::String,
            P::Date,
            P::Timestamp,
            P::Timestamptz,
            P::Float,
            P::Double,
            P::Binary,
            P::Fixed(3),
            P::Uuid,
        ];
        for (types, are) in [(exact.as_slice(), true), (others.as_slice(), false)] {
            for primitive in types {
                let table = schema(vec![Field::optional(1, "a", (*primitive).into())]);
                check_table("t", &table).unwrap();
                let spec = PartitionSpec { spec_id: 0, fields: vec![identity(1)] };
                assert_eq!(partition_columns(&table, [&spec]) == ["a"], are, "{primitive}");
            }
        }
    }

    #[test]
    fn a_partition_column_is_one_in_every_spec() {
        let columns = [(1, "a"), (2, "b")];
        let table =
            schema(columns.map(|(id, name)| Field::optional(id, name, PrimitiveType::Int.into())).to_vec());
        let spec =
            |ids: &[i32]| PartitionSpec { spec_id: 0, fields: ids.iter().copied().map(identity).collect() };
        assert_eq!(partition_columns(&table, [&spec(&[2, 1])]), ["a", "b"]);
        assert_eq!(partition_columns(&table, [&spec(&[2, 1]), &spec(&[2])]), ["b"]);
        assert!(partition_columns(&table, [&spec(&[2, 1]), &spec(&[])]).is_empty());
    }

    #[test]
    fn the_columns_of_a_log_stay_partition_columns() {
        let table = schema(vec![
            Field::optional(1, "n", PrimitiveType::Int.into()),
            Field::optional(2, "word", PrimitiveType::String.into()),
        ]);
        let spec = |fields: Vec<i32>| PartitionSpec {
            spec_id: 3,
            fields: fields.into_iter().map(identity).collect(),
        };
        let check = |column: &str, fields| {
            check_partition_columns("t", &[column.to_owned()], &table, &spec(fields))
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("n", vec![2, 1]), Ok(()));
        assert!(check("n", vec![2]).unwrap_err().contains("column n: is a partition column of the Delta"));
        assert!(check("word", vec![2]).unwrap_err().contains("delete data/_delta_log"));
    }

    #[test]
    fn what_delta_cannot_show_is_refused_by_name() {
        let time = schema(vec![Field::optional(1, "t", PrimitiveType::Time.into())]);
        let error = check_table("shop.orders", &time).unwrap_err();
        assert!(error.to_string().starts_with("table shop.orders: column t: is a time of day"), "{error}");
        let old = schema(vec![Field::optional(1, "a", PrimitiveType::Int.into())]);
        for (new, part) in [
            (Field::optional(1, "b", PrimitiveType::Int.into()), "was renamed"),
            (Field::optional(1, "a", PrimitiveType::Long.into()), "changed its type"),
            (Field::optional(2, "a", PrimitiveType::Int.into()), "was dropped and added anew"),
        ] {
            let error = check_evolution("t", &old, &schema(vec![new]), false).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let grown = schema(vec![old.fields[0].clone(), Field::optional(2, "b", PrimitiveType::Int.into())]);
        check_evolution("t", &old, &grown, false).unwrap();
    }
}
