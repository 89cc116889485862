//! Any bytes as a Protobuf record of a schema with every type: a row or a reason, never a panic; columns stay aligned,
//! and a reject leaves no trace. The first byte chooses between that schema, reading the bytes as a schema, and
//! reading them as message indexes.

use std::{cell::RefCell, sync::LazyLock};

use siltstone_ingest::{
    columns::Columns,
    protobuf::{MessagePath, ProtobufFile, ProtobufProgram, ProtobufSchema, table_schema},
};
use siltstone_protocol::Schema;

pub(crate) const EVERY: &str = include_str!("../../src/protobuf/tests/new.proto");
/// Every field absent.
pub(crate) const GOOD: &[u8] = &[];
/// Some of every kind: scalars, packed and not, maps, JSON, pieces, an unknown group.
pub(crate) const FULL: &[u8] = &[
    0x08, 1, 0x10, 0x96, 1, 0x18, 3, 0x25, 1, 2, 3, 4, // bool, int32, sint32, sfixed32
    0x72, 3, b'a', b'b', b'c', 0x7a, 1, 0xff, 0x80, 1, 2, // string, bytes, enum
    0x8a, 2, 3, 1, 2, 3, 0x88, 2, 5, // a packed run and one more
    0x93, 0xf1, 4, 0x08, 1, 0x94, 0xf1, 4, // an unknown group
    0xf8, 0xff, 0xff, 0xff, 0x0f, 7, // far
];

static TABLE: LazyLock<(Schema, ProtobufSchema)> = LazyLock::new(|| {
    let file = ProtobufFile::compile(EVERY, &[]).expect("the schema is good");
    let schema = file.message(None).expect("the schema has a message");
    (table_schema(&schema).expect("the schema has a table"), schema)
});

thread_local! {
    static PROGRAM: RefCell<ProtobufProgram> =
        RefCell::new(ProtobufProgram::compile(&TABLE.1, &TABLE.0).expect("the table is the schema's"));
}

fn decode(columns: &mut Columns, record: &[u8]) -> bool {
    PROGRAM.with_borrow_mut(|program| program.decode(columns, record)).is_ok()
}

/// Whether a record becomes a row.
#[allow(dead_code)]
pub(crate) fn takes(record: &[u8]) -> bool {
    decode(&mut Columns::new(&TABLE.0).expect("the table is good"), record)
}

pub(crate) fn run(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    match first % 8 {
        0 => return schema(body),
        1 => {
            let read = MessagePath::read(body);
            assert!(read.is_ok_and(|(_, rest)| rest.len() < body.len()) || read.is_err());
            return;
        }
        _ => {}
    }
    let mut columns = Columns::new(&TABLE.0).expect("the table is good");
    assert!(decode(&mut columns, GOOD), "the record is good");
    let rows = 2 + usize::from(decode(&mut columns, body));
    assert!(decode(&mut columns, GOOD), "the record is good");
    assert!(columns.columns().iter().all(|column| column.len() == rows));
    let batch = columns.finish().expect("columns are whole");
    assert_eq!(batch.num_rows(), rows);
    assert_eq!(batch.slice(0, 1), batch.slice(rows - 1, 1));
}

/// What compiles has a table or is refused, and what has a table compiles.
fn schema(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(file) = ProtobufFile::compile(text, &[]) else { return };
    let Ok(schema) = file.message(None) else { return };
    let Ok(table) = table_schema(&schema) else { return };
    let mut program = ProtobufProgram::compile(&schema, &table).expect("a schema fits its own table");
    let mut columns = Columns::new(&table).expect("a table has columns");
    let row = program.decode(&mut columns, &[8; 64]);
    assert_eq!(columns.finish().expect("columns are whole").num_rows(), usize::from(row.is_ok()));
}
