#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{RejectReason, Schema, Type};

use super::model::{Cell, read};
use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};

/// `i64::MAX` as a varint.
const MOST: [u8; 10] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
const SYMBOL: &str = r#"{"type":"enum","name":"E","symbols":["A"]}"#;

/// A program for a field of this type, which has no column, and the number behind it, which has one.
fn compiled(avro: &str) -> (AvroProgram, Schema) {
    let text = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{avro}}},{{"name":"n","type":"int"}}]}}"#
    );
    let writer = AvroSchema::parse(&text, []).unwrap();
    let mut table = table_schema(&writer).unwrap();
    table.fields.retain(|field| field.name == "n");
    (AvroProgram::compile_some(&writer, &table).unwrap(), table)
}

fn decode(avro: &str, body: &[u8]) -> Result<Cell, RejectReason> {
    let (program, table) = compiled(avro);
    let mut columns = Columns::new(&table).unwrap();
    program.decode(&mut columns, body)?;
    assert_eq!(program.skip_first(&[body, b"more"].concat()), Ok(body.len()));
    Ok(read(columns.finish().unwrap().column(0), 0))
}

#[rstest]
#[case::text(r#""string""#, &[0x04, 0xc3, 0x28])]
#[case::time(r#"{"type":"long","logicalType":"time-micros"}"#, &[0x01])]
#[case::millis(r#"{"type":"long","logicalType":"timestamp-millis"}"#, &MOST)]
#[case::uuid(r#"{"type":"string","logicalType":"uuid"}"#, b"\x06abc")]
#[case::decimal(r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}"#, &[0x04, 0x27, 0x10])]
#[case::key(r#"{"type":"map","values":"int"}"#, &[0x02, 0x02, 0xff, 0x02, 0x00])]
#[case::blocks(r#"{"type":"array","items":"string"}"#, &[0x03, 0x06, 0x02, 0xff, 0x00, 0x02, 0x00, 0x00])]
#[case::record(r#"{"type":"record","name":"I","fields":[{"name":"x","type":["null","string"]}]}"#, &[0x02, 0x02, 0xff])]
#[case::union(r#"["null","int","string"]"#, &[0x04, 0x02, 0xff])]
#[case::only(r#"["string"]"#, &[0x00, 0x02, 0xff])]
fn what_a_value_means_is_not_looked_at(#[case] avro: &str, #[case] value: &[u8]) {
    let body = [value, &[0x0e]].concat();
    assert_eq!(decode(avro, &body), Ok(Cell::Number(7)));
}

#[rstest]
#[case::varint(r#""long""#, &[0x80; 11], RejectReason::Malformed)]
#[case::varint_cut(r#""long""#, &[0x80], RejectReason::Truncated)]
#[case::int_overflow(r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10, 0x0e], RejectReason::Malformed)]
#[case::boolean(r#""boolean""#, &[2, 0x0e], RejectReason::Malformed)]
#[case::symbol(SYMBOL, &[0x02, 0x0e], RejectReason::Malformed)]
#[case::negative_length(r#""string""#, &[0x01, 0x0e], RejectReason::Malformed)]
#[case::long_length(r#""string""#, &MOST, RejectReason::Truncated)]
#[case::cut(r#"{"type":"fixed","name":"F","size":2}"#, &[1], RejectReason::Truncated)]
#[case::branch(r#"["null","int"]"#, &[0x04, 0x02, 0x0e], RejectReason::Malformed)]
#[case::block(r#"{"type":"array","items":"int"}"#, &[0x03, 0x05, 0x02, 0x04, 0x00, 0x0e], RejectReason::Malformed)]
#[case::items(r#"{"type":"array","items":"int"}"#, &MOST, RejectReason::Truncated)]
#[case::behind(r#""int""#, &[0x02], RejectReason::Truncated)]
#[case::tail(r#""int""#, &[0x02, 0x0e, 0x00], RejectReason::TrailingBytes)]
fn how_a_value_is_encoded_is(#[case] avro: &str, #[case] body: &[u8], #[case] reason: RejectReason) {
    assert_eq!(decode(avro, body), Err(reason));
}

#[test]
fn items_that_are_passed_over_count() {
    let mut many = vec![0x80, 0x80, 0x80, 0x02];
    many.resize(many.len() + (2 << 20), 0);
    assert_eq!(decode(r#"{"type":"array","items":"int"}"#, &many), Err(RejectReason::TooDeep));
}

#[rstest]
#[case(r#""string""#, &[0x06, b'x'], "f: the record ends before its string does")]
#[case(r#"{"type":"int","logicalType":"date"}"#, &[0x80], "f: the record ends before its date does")]
#[case(r#""boolean""#, &[2], "f: boolean whose encoding is broken")]
#[case(r#"["null","int"]"#, &[0x04], "f: union whose encoding is broken")]
#[case(r#""int""#, &[0x02], "n: the record ends before its int does")]
fn the_field_is_told(#[case] avro: &str, #[case] body: &[u8], #[case] expected: &str) {
    let (program, table) = compiled(avro);
    let mut columns = Columns::new(&table).unwrap();
    program.decode(&mut columns, body).unwrap_err();
    let about = program.explain(&table.fields, &mut columns, body).unwrap();
    assert_eq!(format!("{}: {}", about.field.unwrap(), about.detail), expected);
}

#[test]
fn a_member_of_a_union_that_has_no_column_leaves_the_others_null() {
    let text = r#"{"type":"record","name":"R","fields":[{"name":"u","type":["null","int","string"]}]}"#;
    let writer = AvroSchema::parse(text, []).unwrap();
    let mut table = table_schema(&writer).unwrap();
    let Type::Struct(members) = &mut table.fields[0].data_type else { panic!("a union of two") };
    members.retain(|member| member.name == "int");
    let program = AvroProgram::compile_some(&writer, &table).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    for body in [&[0x00][..], &[0x02, 0x0e], &[0x04, 0x02, 0xff]] {
        program.decode(&mut columns, body).unwrap();
    }
    assert_eq!(program.decode(&mut columns, &[0x04, 0x04, b'x']), Err(RejectReason::Truncated));
    let about = program.explain(&table.fields, &mut columns, &[0x04, 0x04, b'x']).unwrap();
    assert_eq!(about.field.as_deref(), Some("u.string"));
    let batch = columns.finish().unwrap();
    let cells: Vec<_> = (0..batch.num_rows()).map(|row| read(batch.column(0), row)).collect();
    let one = |cell| Cell::Struct(vec![cell]);
    assert_eq!(cells, [Cell::Null, one(Cell::Number(7)), one(Cell::Null)]);
}
