//! Names of a spec to field ids of a schema, by Iceberg's rules about which transform takes which type.
//!
//! Ids are those of a new table: spec 0, partition fields from 1000, sort order 1 (0 when unsorted).
//! `adopt_*` gives a changed spec or order its id beside those that the table already has.

use siltstone_protocol::{
    Field, PartitionField, PartitionSpec, PrimitiveType, Schema, SortField, SortOrder, Transform, Type,
    layout::PARTITION_FIELD_ID_START,
};

use crate::{error::SpecError, model::TableSpec, nearest::nearest};

/// The partition spec of a new table.
///
/// # Errors
/// A column is unknown, inside a list or map, or of a type that the transform does not take; a name is
/// taken; two fields split alike.
pub fn partition_spec(table: &TableSpec, schema: &Schema) -> Result<PartitionSpec, SpecError> {
    let mut fields: Vec<PartitionField> = Vec::with_capacity(table.partition_by.len());
    for (by, field_id) in table.partition_by.iter().zip(PARTITION_FIELD_ID_START..) {
        let source = source(table, "partition_by", &by.column, schema)?;
        check_type(table, "partition_by", &by.column, by.transform, &source.data_type)?;
        let is_own_column = by.transform == Transform::Identity && by.name == by.column;
        let taken = fields.iter().any(|field| field.name == by.name)
            || (!is_own_column && schema.column(&by.name).is_some());
        if taken {
            return Err(SpecError::NameTaken { table: table.name.clone(), name: by.name.clone() });
        }
        let alike = |field: &&PartitionField| {
            field.source_id == source.id && splits_alike(field.transform, by.transform)
        };
        if fields.iter().find(alike).is_some() {
            return Err(SpecError::Redundant {
                table: table.name.clone(),
                column: by.column.clone(),
                transform: by.transform,
            });
        }
        let name = by.name.clone();
        fields.push(PartitionField { source_id: source.id, field_id, name, transform: by.transform });
    }
    Ok(PartitionSpec { spec_id: 0, fields })
}

/// The sort order of a new table.
///
/// # Errors
/// A column is unknown, inside a list or map, or not of a primitive type.
pub fn sort_order(table: &TableSpec, schema: &Schema) -> Result<SortOrder, SpecError> {
    let mut fields = Vec::with_capacity(table.sort_by.len());
    for by in &table.sort_by {
        let source = source(table, "sort_by", &by.column, schema)?;
        check_type(table, "sort_by", &by.column, Transform::Identity, &source.data_type)?;
        fields.push(SortField {
            transform: Transform::Identity,
            source_id: source.id,
            direction: by.direction,
            null_order: by.null_order,
        });
    }
    Ok(SortOrder { order_id: i64::from(!fields.is_empty()), fields })
}

/// `wanted` with the ids it has beside the specs the table ever had: those of an equal spec, or the
/// next free ones. A field keeps the id of an earlier field of the same column and transform.
pub fn adopt_partition_spec(wanted: &PartitionSpec, history: &[PartitionSpec]) -> PartitionSpec {
    if let Some(known) = history.iter().find(|known| same_partitions(known, wanted)) {
        return known.clone();
    }
    let known = || history.iter().flat_map(|spec| &spec.fields);
    let spec_id = history.iter().map(|spec| spec.spec_id + 1).max().unwrap_or(0);
    let mut free = known().map(|field| field.field_id + 1).max().unwrap_or(PARTITION_FIELD_ID_START);
    let fields = wanted.fields.iter().map(|field| {
        let earlier =
            known().find(|known| known.source_id == field.source_id && known.transform == field.transform);
        let field_id = earlier.map_or(free, |earlier| earlier.field_id);
        free += i32::from(earlier.is_none());
        PartitionField { field_id, ..field.clone() }
    });
    PartitionSpec { spec_id, fields: fields.collect() }
}

/// `wanted` with the id of an equal order of the table, or the next free one; 0 is unsorted.
pub fn adopt_sort_order(wanted: &SortOrder, history: &[SortOrder]) -> SortOrder {
    if wanted.fields.is_empty() {
        return SortOrder::default();
    }
    if let Some(known) = history.iter().find(|known| known.fields == wanted.fields) {
        return known.clone();
    }
    let order_id = history.iter().map(|order| order.order_id + 1).max().unwrap_or(1).max(1);
    SortOrder { order_id, fields: wanted.fields.clone() }
}

/// True when both split rows the same way under the same names, whatever their ids.
pub(crate) fn same_partitions(left: &PartitionSpec, right: &PartitionSpec) -> bool {
    let key = |field: &PartitionField| (field.source_id, field.transform, field.name.clone());
    left.fields.iter().map(key).eq(right.fields.iter().map(key))
}

/// Two time transforms of one column split alike in Iceberg's eyes: the finer implies the coarser.
pub(crate) fn splits_alike(left: Transform, right: Transform) -> bool {
    let is_time = |t| matches!(t, Transform::Year | Transform::Month | Transform::Day | Transform::Hour);
    let same_kind = |left, right| std::mem::discriminant(&left) == std::mem::discriminant(&right);
    same_kind(left, right) || (is_time(left) && is_time(right))
}

fn source<'a>(
    table: &TableSpec,
    field: &'static str,
    column: &str,
    schema: &'a Schema,
) -> Result<&'a Field, SpecError> {
    if let Some(found) = schema.field_at(column) {
        return Ok(found);
    }
    let (table, column) = (table.name.clone(), column.to_owned());
    if crosses_collection(schema, &column) {
        return Err(SpecError::InsideCollection { table, field, column });
    }
    let mut known = Vec::new();
    paths(&schema.fields, "", &mut known);
    let nearest = nearest(&column, known.iter().map(String::as_str)).map(str::to_owned);
    Err(SpecError::UnknownColumn { table, field, column, nearest })
}

fn crosses_collection(schema: &Schema, column: &str) -> bool {
    column.match_indices('.').any(|(end, _)| {
        let outer = schema.field_at(&column[..end]);
        outer.is_some_and(|field| matches!(field.data_type, Type::List { .. } | Type::Map { .. }))
    })
}

/// Dotted paths of all columns and struct members.
pub(crate) fn paths(fields: &[Field], prefix: &str, out: &mut Vec<String>) {
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        if let Type::Struct(members) = &field.data_type {
            paths(members, &format!("{path}."), out);
        }
        out.push(path);
    }
}

fn check_type(
    table: &TableSpec,
    field: &'static str,
    column: &str,
    transform: Transform,
    data_type: &Type,
) -> Result<(), SpecError> {
    let (takes, allowed) = match data_type {
        Type::Primitive(primitive) => (takes(transform, *primitive), allowed(transform)),
        _ => (false, allowed(transform)),
    };
    if takes {
        return Ok(());
    }
    Err(SpecError::WrongType {
        table: table.name.clone(),
        field,
        column: column.to_owned(),
        transform,
        data_type: kind_of(data_type),
        allowed,
    })
}

/// The table of Iceberg's spec, "Partition Transforms".
fn takes(transform: Transform, primitive: PrimitiveType) -> bool {
    use PrimitiveType as P;
    match transform {
        Transform::Identity | Transform::Void => true,
        Transform::Bucket(_) => !matches!(primitive, P::Boolean | P::Float | P::Double),
        Transform::Truncate(_) => {
            matches!(primitive, P::Int | P::Long | P::Decimal { .. } | P::String | P::Binary)
        }
        Transform::Year | Transform::Month | Transform::Day => {
            matches!(primitive, P::Date | P::Timestamp | P::Timestamptz)
        }
        Transform::Hour => matches!(primitive, P::Timestamp | P::Timestamptz),
    }
}

fn allowed(transform: Transform) -> &'static str {
    match transform {
        Transform::Identity | Transform::Void => "any primitive type",
        Transform::Bucket(_) => {
            "int, long, decimal, date, time, timestamp, timestamptz, string, uuid, fixed, binary"
        }
        Transform::Truncate(_) => "int, long, decimal, string, binary",
        Transform::Year | Transform::Month | Transform::Day => "date, timestamp, timestamptz",
        Transform::Hour => "timestamp, timestamptz",
    }
}

/// What a type is called in messages, without what is inside it.
pub fn kind_of(data_type: &Type) -> String {
    match data_type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "struct".to_owned(),
        Type::List { .. } => "list".to_owned(),
        Type::Map { .. } => "map".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
