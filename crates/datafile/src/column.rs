//! Columns by field id: from a table schema and a batch to the array a key or a partition comes from.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, make_array},
    buffer::NullBuffer,
    datatypes::{DataType, Field as ArrowField, SchemaRef},
};
use siltstone_protocol::{PrimitiveType, Schema, Type};

use crate::error::{DataFileError, Result};

/// A column or struct member: the index at every level, and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceColumn {
    pub(crate) path: Vec<usize>,
    pub(crate) primitive: PrimitiveType,
}

/// Finds a primitive column, also inside structs.
pub(crate) fn source_column(schema: &Schema, field_id: i32) -> Result<SourceColumn> {
    let unknown = || DataFileError::UnknownField { field_id, schema_id: schema.schema_id };
    let fields = schema.path_of(field_id).ok_or_else(unknown)?;
    let mut level = &schema.fields;
    let mut path = Vec::with_capacity(fields.len());
    for field in &fields {
        path.push(level.iter().position(|other| other.id == field.id).ok_or_else(unknown)?);
        if let Type::Struct(members) = &field.data_type {
            level = members;
        }
    }
    match fields.last().map(|field| &field.data_type) {
        Some(Type::Primitive(primitive)) => Ok(SourceColumn { path, primitive: *primitive }),
        _ => Err(unknown()),
    }
}

/// The array of a source column. A null struct makes its members null.
pub(crate) fn source_array(batch: &RecordBatch, column: &SourceColumn) -> Result<ArrayRef> {
    let Some((first, rest)) = column.path.split_first() else {
        return Err(DataFileError::compute("locating a column"));
    };
    let mut array = Arc::clone(batch.column(*first));
    for index in rest {
        let outer = array.as_struct();
        let inner = outer.column(*index);
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        array = if outer.null_count() == 0 { Arc::clone(inner) } else { with_nulls(inner, nulls)? };
    }
    Ok(array)
}

fn with_nulls(array: &ArrayRef, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().nulls(nulls).build();
    data.map(make_array).map_err(|_| DataFileError::compute("merging nulls of a struct"))
}

/// Brings a batch to the table's own Arrow schema, or refuses it: same columns in the same order, same
/// types (names inside, metadata and nullability may differ), and no null where the table has none.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef, schema_id: i32) -> Result<RecordBatch> {
    let mismatch = |column: &str, expected: String| DataFileError::SchemaMismatch {
        schema_id,
        column: column.to_owned(),
        expected,
    };
    if batch.num_columns() != schema.fields().len() {
        return Err(mismatch("*", format!("{} columns", schema.fields().len())));
    }
    let given = batch.schema();
    let mut columns = Vec::with_capacity(batch.num_columns());
    for ((field, given), array) in schema.fields().iter().zip(given.fields()).zip(batch.columns()) {
        if field.name() != given.name() || !given.data_type().equals_datatype(field.data_type()) {
            return Err(mismatch(field.name(), field.data_type().to_string()));
        }
        check_required(array, field, None)?;
        columns.push(Arc::clone(array));
    }
    let columns = columns.into_iter().zip(schema.fields()).map(|(array, field)| retype(&array, field));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)
        .map_err(|_| mismatch("*", "the table's nullability".to_owned()))
}

/// The same array under the table's nested field names, metadata and nullability.
pub(crate) fn retype(array: &ArrayRef, field: &ArrowField) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    retype_data(array.to_data(), field.data_type()).map(make_array)
}

fn retype_data(data: arrow::array::ArrayData, data_type: &DataType) -> Result<arrow::array::ArrayData> {
    let nested: Vec<&ArrowField> = match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| field.as_ref()).collect(),
        DataType::List(field) | DataType::Map(field, _) => vec![field.as_ref()],
        _ => Vec::new(),
    };
    let children = data.child_data().iter().zip(&nested);
    let children = children
        .map(|(child, field)| retype_data(child.clone(), field.data_type()))
        .collect::<Result<Vec<_>>>()?;
    let builder = data.into_builder().data_type(data_type.clone());
    let builder = if nested.is_empty() { builder } else { builder.child_data(children) };
    builder.build().map_err(|_| DataFileError::compute("naming nested fields"))
}

/// Refuses nulls in required fields, but those under a null parent.
fn check_required(array: &ArrayRef, field: &ArrowField, parent: Option<&NullBuffer>) -> Result<()> {
    if !field.is_nullable()
        && let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0)
    {
        let hidden = |row: usize| parent.is_some_and(|parent| parent.is_null(row));
        if (0..array.len()).any(|row| nulls.is_null(row) && !hidden(row)) {
            return Err(DataFileError::NullInRequired { column: field.name().clone() });
        }
    }
    match (field.data_type(), array.data_type()) {
        (DataType::Struct(fields), DataType::Struct(_)) => {
            let outer = array.as_struct();
            let nulls = NullBuffer::union(parent, outer.nulls());
            for (field, inner) in fields.iter().zip(outer.columns()) {
                check_required(inner, field, nulls.as_ref())?;
            }
            Ok(())
        }
        (DataType::List(element), DataType::List(_)) => {
            check_required(array.as_list::<i32>().values(), element, None)
        }
        (DataType::Map(entries, _), DataType::Map(..)) => {
            let entries_array: ArrayRef = Arc::new(array.as_map().entries().clone());
            check_required(&entries_array, entries, None)
        }
        _ => Ok(()),
    }
}
