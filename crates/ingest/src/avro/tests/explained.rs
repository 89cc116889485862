#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, Schema};

use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};

const NESTED: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"int"},
    {"name":"in","type":{"type":"record","name":"In","fields":[
        {"name":"s","type":["null","string"]},
        {"name":"list","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
            {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"b","type":"boolean"}]}}},
        {"name":"m","type":{"type":"map","values":["null","string"]}},
        {"name":"u","type":["null","int","string"]},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["SECRET"]}}]}}]}"#;
/// `i64::MAX`.
const MOST: &[u8] = &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
/// 2^53 + 1.
const ODD: &[u8] = &[0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];

/// What a rejected body is about: `field: detail`.
fn told(writer: &AvroSchema, table: &Schema, body: &[u8]) -> Option<String> {
    let program = AvroProgram::compile(writer, table).unwrap();
    let mut columns = Columns::new(table).unwrap();
    program.decode(&mut columns, body).unwrap_err();
    let about = program.explain(&table.fields, &mut columns, body);
    assert_eq!(columns.rows(), 0);
    assert_eq!(columns.finish().unwrap().num_rows(), 0);
    about.map(|about| format!("{}: {}", about.field.unwrap_or_default(), about.detail))
}

fn nested(body: &[u8]) -> Option<String> {
    let writer = AvroSchema::parse(NESTED, []).unwrap();
    told(&writer, &table_schema(&writer).unwrap(), body)
}

#[rstest]
#[case::cut(&[], "id: the record ends before its int does")]
#[case::varint(&[0x80, 0x80, 0x80, 0x80, 0x10], "id: int whose encoding is broken")]
#[case::branch(&[2, 4], "in.s: union branch that the writer's schema does not have")]
#[case::text(&[2, 2, 2, 0xff], "in.s: string that is not UTF-8 where string is wanted")]
#[case::cut_text(&[2, 2, 6, b'x'], "in.s: the record ends before its string does")]
#[case::boolean(&[2, 0, 2, 0, 2], "in.list[].b: boolean that is neither 0 nor 1")]
#[case::block(&[2, 0, 4], "in.list: the record ends before its array does")]
#[case::key(&[2, 0, 0, 2, 2, 0xff], "in.m: map key that is not UTF-8 where string is wanted")]
#[case::value(
    &[2, 0, 0, 2, 2, b'k', 2, 2, 0xff],
    "in.m{}: string that is not UTF-8 where string is wanted"
)]
#[case::value_branch(&[2, 0, 0, 2, 2, b'k', 4], "in.m{}: union branch that the writer's schema does not have")]
#[case::union(&[2, 0, 0, 0, 6], "in.u: union branch that the writer's schema does not have")]
#[case::member(&[2, 0, 0, 0, 4, 2, 0xff], "in.u.string: string that is not UTF-8 where string is wanted")]
#[case::symbol(&[2, 0, 0, 0, 0, 2], "in.e: enum symbol that the writer's schema does not have")]
#[case::tail(&[2, 0, 0, 0, 0, 0, 9], ": bytes after the last field of the writer's schema")]
fn the_path_is_told(#[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(nested(body).as_deref(), Some(expected));
}

#[test]
fn the_path_goes_through_elements_and_stops_at_a_collection_that_is_too_large() {
    let late = [&[2, 0, 2], MOST].concat();
    let expected = "in.list[].t: timestamp-millis outside the range of microseconds";
    assert_eq!(nested(&late).as_deref(), Some(expected));
    let mut many = vec![2, 0, 0x80, 0x80, 0x80, 0x02];
    many.resize(many.len() + (2 << 20), 0);
    let expected = "in.list: more than 1048576 items in arrays and maps of one record";
    assert_eq!(nested(&many).as_deref(), Some(expected));
}

#[rstest]
#[case(r#""bytes""#, "string", &[2, 0xff], "bytes that is not UTF-8 where string is wanted")]
#[case(r#""long""#, "double", ODD, "long that double cannot hold exactly")]
#[case(r#""long""#, "float", ODD, "long that float cannot hold exactly")]
#[case(r#"["int"]"#, "float", &[0x82, 0x80, 0x80, 0x10], "union branch that the writer's schema does not have")]
#[case(r#"{"type":"int","logicalType":"time-millis"}"#, "time", &[1], "time-millis outside of one day")]
#[case(r#"{"type":"long","logicalType":"time-micros"}"#, "time", &[1], "time-micros outside of one day")]
#[case(
    r#"{"type":"long","logicalType":"local-timestamp-millis"}"#,
    "timestamp",
    MOST,
    "local-timestamp-millis outside the range of microseconds"
)]
#[case(
    r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}"#,
    "decimal(4, 1)",
    &[4, 0x27, 0x10],
    "decimal that does not fit decimal(4, 1)"
)]
#[case(r#"{"type":"string","logicalType":"uuid"}"#, "uuid", b"\x06abc", "string that is no uuid")]
#[case(r#"{"type":"fixed","name":"F","size":2}"#, "binary", b"x", "the record ends before its fixed does")]
#[case(r#"{"type":"int","logicalType":"date"}"#, "date", &[0x80], "the record ends before its date does")]
fn both_types_are_told(
    #[case] avro: &str,
    #[case] column: &str,
    #[case] body: &[u8],
    #[case] expected: &str,
) {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{avro}}}]}}"#);
    let column: PrimitiveType = column.parse().unwrap();
    let table = Schema::new(0, vec![Field::optional(1, "f", column.into())]);
    let writer = AvroSchema::parse(&text, []).unwrap();
    assert_eq!(told(&writer, &table, body), Some(format!("f: {expected}")));
}
