//! Tests of the decoder and of the mapping, with what they share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrow_json;
mod mapping;
mod random;
mod values;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use siltstone_protocol::{Field, RejectReason, Schema, Type};
use siltstone_spec::model::ExtraFields;

use super::{Hints, JsonProgram};
use crate::columns::Columns;

/// A value of a batch, whatever its column's type.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Bool(bool),
    Whole(i128),
    /// The bits of a double.
    Real(u64),
    Text(String),
    Bytes(Vec<u8>),
    Items(Vec<Cell>),
    Entries(Vec<(Cell, Cell)>),
}

fn cell(array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    let all = |array: ArrayRef| (0..array.len()).map(|row| cell(&array, row)).collect::<Vec<_>>();
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Whole(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float32 => Cell::Real(f64::from(array.as_primitive::<Float32Type>().value(row)).to_bits()),
        DataType::Float64 => Cell::Real(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => Cell::Whole(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Date32 => Cell::Whole(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time64(_) => Cell::Whole(array.as_primitive::<Time64MicrosecondType>().value(row).into()),
        DataType::Timestamp(..) => {
            Cell::Whole(array.as_primitive::<TimestampMicrosecondType>().value(row).into())
        }
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        DataType::Struct(_) => {
            Cell::Items(array.as_struct().columns().iter().map(|member| cell(member, row)).collect())
        }
        DataType::List(_) => Cell::Items(all(array.as_list::<i32>().value(row))),
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let keys = (0..entries.len()).map(|row| cell(entries.column(0), row));
            let values = (0..entries.len()).map(|row| cell(entries.column(1), row));
            Cell::Entries(keys.zip(values).collect())
        }
        other => panic!("no column has type {other}"),
    }
}

/// The rows of a batch.
fn rows(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| cell(column, row)).collect())
        .collect()
}

fn one_column(data_type: impl Into<Type>) -> Schema {
    Schema::new(0, vec![Field::optional(1, "c", data_type.into())])
}

/// Decodes records one after the other into one batch.
fn decode_all(
    program: &JsonProgram,
    schema: &Schema,
    records: &[Vec<u8>],
) -> (Vec<Result<(), RejectReason>>, RecordBatch) {
    let mut columns = Columns::new(schema).unwrap();
    let results = records.iter().map(|record| {
        let result = program.decode(&mut columns, record);
        let rows = columns.rows();
        assert!(columns.columns().iter().all(|column| column.len() == rows), "columns are aligned");
        result
    });
    let results = results.collect();
    (results, columns.finish().unwrap())
}

/// The row of a single record, or why there is none.
fn decode_one(schema: &Schema, hints: &Hints, record: impl AsRef<[u8]>) -> Result<Vec<Cell>, RejectReason> {
    let program = JsonProgram::compile_with_hints(schema, ExtraFields::Ignore, hints).unwrap();
    let (results, batch) = decode_all(&program, schema, &[record.as_ref().to_vec()]);
    results[0].map(|()| rows(&batch).remove(0))
}
