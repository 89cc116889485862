#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{
        DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};
use siltstone_protocol::RejectReason;

use crate::{
    columns::Columns,
    protobuf::{ProtobufFile, ProtobufProgram, ProtobufSchema, table_schema},
};

/// A message compiled for its own table.
pub(super) struct Case {
    pub(super) columns: Columns,
    pub(super) program: ProtobufProgram,
}

pub(super) fn schema(text: &str, name: Option<&str>) -> ProtobufSchema {
    ProtobufFile::compile(text, &[]).unwrap().message(name).unwrap()
}

impl Case {
    pub(super) fn new(text: &str) -> Self {
        Self::of(&schema(text, None))
    }

    pub(super) fn of(schema: &ProtobufSchema) -> Self {
        let table = table_schema(schema).unwrap();
        let program = ProtobufProgram::compile(schema, &table).unwrap();
        Self { columns: Columns::new(&table).unwrap(), program }
    }

    pub(super) fn decode(&mut self, body: &[u8]) -> Result<(), RejectReason> {
        self.program.decode(&mut self.columns, body)
    }

    /// The one record's row as text.
    pub(super) fn row(&mut self, body: &[u8]) -> Result<String, RejectReason> {
        self.decode(body)?;
        Ok(row(&self.columns.finish().unwrap(), 0))
    }
}

pub(super) fn row(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    members(names.zip(batch.columns().iter().map(|column| value(column, row))))
}

pub(super) fn members(members: impl Iterator<Item = (String, String)>) -> String {
    let members: Vec<String> = members.map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// Entries have no order.
pub(super) fn map(entries: impl Iterator<Item = (String, String)>) -> String {
    let mut entries: Vec<String> = entries.map(|(key, value)| format!("{key}=>{value}")).collect();
    entries.sort();
    format!("<{}>", entries.join(","))
}

pub(super) fn plain(value: impl Debug) -> String {
    format!("{value:?}")
}

fn value(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Boolean => plain(array.as_boolean().value(row)),
        DataType::Int32 => plain(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => plain(array.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(..) => plain(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Float32 => plain(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => plain(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(20, 0) => plain(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => plain(array.as_string::<i32>().value(row)),
        DataType::Binary => plain(array.as_binary::<i32>().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(|child| value(child, row));
            members(fields.iter().map(|field| field.name().clone()).zip(columns))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            list((0..items.len()).map(|item| value(&items, item)))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else { panic!("two columns") };
            map((0..entries.len()).map(|item| (value(keys, item), value(values, item))))
        }
        other => panic!("no such column type: {other}"),
    }
}
