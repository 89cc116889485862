//! Any bytes as an Avro record of a schema with every type: a row or a reason, never a panic; columns stay
//! aligned, and a reject leaves no trace. The first byte chooses between that schema and reading the bytes
//! as a schema.

use std::sync::LazyLock;

use siltstone_ingest::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};
use siltstone_protocol::Schema;

pub(crate) const EVERY: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"a","type":["null","long"]},{"name":"b","type":["boolean","null"]},
    {"name":"c","type":["null","double"]},
    {"name":"d","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}]},
    {"name":"e","type":["null",{"type":"enum","name":"E","symbols":["X","Y"]}]},
    {"name":"f","type":["null",{"type":"fixed","name":"F","size":3}]},
    {"name":"g","type":["null",{"type":"string","logicalType":"uuid"}]},
    {"name":"h","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
    {"name":"i","type":["null",{"type":"long","logicalType":"timestamp-nanos"}]},
    {"name":"j","type":["null",{"type":"int","logicalType":"time-millis"}]},
    {"name":"k","type":["null","bytes"]},
    {"name":"l","type":["null","int","string",{"type":"array","items":"E"}]},
    {"name":"m","type":["null",{"type":"map","values":{"type":"array","items":["null","float"]}}]},
    {"name":"n","type":["null",{"type":"array","items":{"type":"record","name":"I","fields":[
        {"name":"x","type":"string"},{"name":"y","type":["null","F"]}]}}]}]}"#;
/// Every field null.
pub(crate) const GOOD: &[u8] = &[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Every field set.
pub(crate) const FULL: &[u8] = &[
    2, 9, 0, 1, // a, b
    2, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // c
    2, 4, 0x30, 0x39, 2, 2, 2, 1, 2, 3, // d, e, f
    2, 72, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'-', b'9', b'a', b'b', b'c', b'-', b'd', b'e',
    b'f', b'0', b'-', b'1', b'2', b'3', b'4', b'-', b'5', b'6', b'7', b'8', b'9', b'a', b'b', b'c', b'd',
    b'e', b'f', b'0', // g
    2, 2, 2, 2, 2, 2, 2, 4, 1, 2, // h, i, j, k
    6, 2, 0, 0, // l: an array of one
    2, 2, 2, b'k', 2, 2, 0, 0, 0x80, 0x3f, 0, 0, // m
    2, 2, 2, b'x', 2, 7, 8, 9, 0, // n
];

static TABLE: LazyLock<(Schema, AvroProgram)> = LazyLock::new(|| {
    let writer = AvroSchema::parse(EVERY, []).expect("the schema is good");
    let schema = table_schema(&writer).expect("the schema has a table");
    let program = AvroProgram::compile(&writer, &schema).expect("the table is the schema's");
    (schema, program)
});

/// Whether a record becomes a row.
#[allow(dead_code)]
pub(crate) fn takes(record: &[u8]) -> bool {
    let (schema, program) = &*TABLE;
    program.decode(&mut Columns::new(schema).expect("the table is good"), record).is_ok()
}

pub(crate) fn run(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    if first % 4 == 0 {
        schema(body);
        return;
    }
    let (schema, program) = &*TABLE;
    let mut columns = Columns::new(schema).expect("the table is good");
    program.decode(&mut columns, GOOD).expect("the record is good");
    let row = program.decode(&mut columns, body);
    program.decode(&mut columns, GOOD).expect("the record is good");
    let rows = 2 + usize::from(row.is_ok());
    assert!(columns.columns().iter().all(|column| column.len() == rows));
    let batch = columns.finish().expect("columns are whole");
    assert_eq!(batch.num_rows(), rows);
    assert_eq!(batch.slice(0, 1), batch.slice(rows - 1, 1));
}

/// What parses has a table or is refused, and what has a table compiles.
fn schema(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(writer) = AvroSchema::parse(text, []) else { return };
    let Ok(table) = table_schema(&writer) else { return };
    let program = AvroProgram::compile(&writer, &table).expect("a schema fits its own table");
    let mut columns = Columns::new(&table).expect("a table has columns");
    let row = program.decode(&mut columns, &[2; 64]);
    assert_eq!(columns.finish().expect("columns are whole").num_rows(), usize::from(row.is_ok()));
}
