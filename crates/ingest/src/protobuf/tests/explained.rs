#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, Schema};

use super::{shown::schema, vectors::proto3};
use crate::{
    columns::Columns,
    protobuf::{ProtobufProgram, ProtobufSchema, table_schema},
};

const NESTED: &str = "int32 a = 1; Inner in = 2; repeated Inner list = 3; map<string, Inner> m = 4; \
                      oneof o { string s = 5; Inner i = 6; }";

/// What a rejected body is about: `field: detail`.
fn told(schema: &ProtobufSchema, table: &Schema, body: &[u8]) -> Option<String> {
    let mut program = ProtobufProgram::compile(schema, table).unwrap();
    let mut columns = Columns::new(table).unwrap();
    program.decode(&mut columns, body).unwrap_err();
    let about = program.explain(&table.fields, &mut columns, body);
    assert_eq!(columns.rows(), 0);
    assert_eq!(columns.finish().unwrap().num_rows(), 0);
    about.map(|about| format!("{}: {}", about.field.unwrap_or_default(), about.detail))
}

fn natural(text: &str, body: &[u8]) -> Option<String> {
    let schema = schema(text, None);
    told(&schema, &table_schema(&schema).unwrap(), body)
}

#[rstest]
#[case::tag_cut(&[0x80], ": the record ends before its message does")]
#[case::tag_zero(&[0, 1], ": message whose encoding is broken")]
#[case::scalar_cut(&[0x08, 0x80], "a: the record ends before its int32 does")]
#[case::other_wire_type(b"\x0a\x01x", "a: length-delimited value where int32 is wanted")]
#[case::member(b"\x12\x03\x12\x01\xff", "in.b: string that is not UTF-8 where string is wanted")]
#[case::element(b"\x1a\x00\x1a\x03\x0a\x01x", "list[].a: length-delimited value where int32 is wanted")]
#[case::element_of_element(b"\x1a\x03\x1a\x01\x80", "list[].c[]: the record ends before its int32 does")]
#[case::no_list(&[0x18, 1], "list: varint where repeated message is wanted")]
#[case::key(b"\x22\x03\x0a\x01\xff", "m: map key of type string that is not UTF-8 where string is wanted")]
#[case::no_key(&[0x22, 2, 0x08, 1], "m: varint where map key of type string is wanted")]
#[case::value(
    b"\x22\x08\x0a\x01k\x12\x03\x12\x01\xff",
    "m{}.b: string that is not UTF-8 where string is wanted"
)]
#[case::no_value(&[0x22, 2, 0x10, 1], "m{}: varint where message is wanted")]
#[case::oneof(b"\x2a\x01\xff", "s: string that is not UTF-8 where string is wanted")]
#[case::oneof_message(b"\x32\x02\x12\x05", "i.b: the record ends before its string does")]
fn the_path_is_told(#[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(natural(&proto3(NESTED), body).as_deref(), Some(expected));
}

#[rstest]
#[case(
    "google.protobuf.Timestamp f = 1;",
    b"\x0a\x06\x10\x80\x94\xeb\xdc\x03",
    "f: google.protobuf.Timestamp whose nanos are outside of one second"
)]
#[case(
    "repeated google.protobuf.Timestamp f = 1;",
    b"\x0a\x07\x08\x80\xdc\x92\x81\xb0\x07",
    "f[]: google.protobuf.Timestamp outside of the years 1 to 9999"
)]
#[case(
    "google.protobuf.Duration f = 1;",
    b"\x0a\x0d\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "f: google.protobuf.Duration outside of ten thousand years, or whose parts differ in sign"
)]
#[case(
    "google.protobuf.Value f = 1;",
    b"\x0a\x09\x11\x00\x00\x00\x00\x00\x00\xf8\x7f",
    "f: google.protobuf.Value with a number that JSON does not have"
)]
#[case(
    "google.protobuf.Int32Value f = 1;",
    b"\x0a\x03\x0a\x01x",
    "f: another encoding where wrapper of int32 is wanted"
)]
#[case("sfixed32 f = 1;", &[0x0d, 1], "f: the record ends before its sfixed32 does")]
#[case("fixed64 f = 1;", &[0x08, 1], "f: varint where fixed64 is wanted")]
#[case("bool f = 1;", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "f: bool whose encoding is broken")]
#[case("repeated bool f = 1;", b"\x0d\x00\x00\x00\x00", "f: 32-bit value where repeated bool is wanted")]
#[case(
    "int32 f = 1;",
    &[0x13; 300],
    ": more than 1048576 items in one record, or unknown groups that nest deeper than 100"
)]
fn both_types_are_told(#[case] fields: &str, #[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(natural(&proto3(fields), body).as_deref(), Some(expected));
}

#[test]
fn a_list_of_too_many_items_is_named() {
    let many = [0x08, 0x00].repeat((1 << 20) + 1);
    let expected = "f: more than 1048576 items in one record, or unknown groups that nest deeper than 100";
    assert_eq!(natural(&proto3("repeated int32 f = 1;"), &many).as_deref(), Some(expected));
}

#[test]
fn a_required_field_that_is_missing_is_named() {
    let text = "syntax = \"proto2\"; message M { optional N n = 1; } message N { required int32 a = 1; }";
    assert_eq!(natural(text, &[0x0a, 0]).as_deref(), Some("n.a: nothing where int32 is required"));
}

#[test]
fn the_column_of_a_wider_table_is_told() {
    let schema = schema(&proto3("int64 n = 1; bytes b = 2;"), None);
    let table = Schema::new(
        0,
        vec![
            Field::optional(1, "n", PrimitiveType::Double.into()),
            Field::optional(2, "b", PrimitiveType::String.into()),
        ],
    );
    // 2^53 + 1.
    let odd = [0x08, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(told(&schema, &table, &odd).as_deref(), Some("n: int64 that double cannot hold exactly"));
    let expected = "b: bytes that is not UTF-8 where string is wanted";
    assert_eq!(told(&schema, &table, b"\x12\x01\xff").as_deref(), Some(expected));
}
