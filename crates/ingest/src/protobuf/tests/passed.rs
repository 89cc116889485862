#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{RejectReason, Schema, Type};

use super::{
    shown::{Case, row, schema},
    vectors::proto3,
};
use crate::{
    columns::Columns,
    protobuf::{ProtobufProgram, ProtobufSchema, table_schema},
};

const ONEOF: &str = "oneof o { Inner a = 1; string b = 2; int32 c = 3; }";

fn decode(schema: &ProtobufSchema, table: &Schema, body: &[u8]) -> Result<String, RejectReason> {
    let mut program = ProtobufProgram::compile_some(schema, table).unwrap();
    let mut columns = Columns::new(table).unwrap();
    program.decode(&mut columns, body)?;
    Ok(row(&columns.finish().unwrap(), 0))
}

/// The row of a table that has column `a` alone.
fn row_of_a(text: &str, body: &[u8]) -> Result<String, RejectReason> {
    let schema = schema(text, None);
    let mut table = table_schema(&schema).unwrap();
    table.fields.retain(|field| field.name == "a");
    decode(&schema, &table, body)
}

#[rstest]
#[case::text("int32 a = 1; string b = 2;", b"\x08\x07\x12\x01\xff", "{a:7}")]
#[case::other_encoding("int32 a = 1; string b = 2;", b"\x10\x05\x08\x07", "{a:7}")]
#[case::message("int32 a = 1; Inner b = 2;", b"\x12\x02\xff\xff\x08\x07", "{a:7}")]
#[case::list("int32 a = 1; repeated int32 b = 2;", b"\x12\x02\x05\x06\x10\x05\x08\x07", "{a:7}")]
#[case::map("int32 a = 1; map<string, int32> b = 2;", b"\x12\x01\xff\x08\x07", "{a:7}")]
#[case::chosen(ONEOF, b"\x0a\x02\x08\x05", r#"{a:{a:5,b:"",c:[]}}"#)]
#[case::chosen_before_another(ONEOF, b"\x0a\x02\x08\x05\x12\x01x", "{a:null}")]
#[case::chosen_after_another(ONEOF, b"\x12\x01x\x0a\x02\x08\x05", r#"{a:{a:5,b:"",c:[]}}"#)]
#[case::chosen_again(ONEOF, b"\x0a\x02\x08\x05\x12\x01x\x18\x01\x0a\x03\x12\x01y", r#"{a:{a:0,b:"y",c:[]}}"#)]
#[case::no_member(ONEOF, b"\x0a\x02\x08\x05\x10\x01", r#"{a:{a:5,b:"",c:[]}}"#)]
fn fields_without_a_column_are_passed_over(
    #[case] fields: &str,
    #[case] body: &[u8],
    #[case] expected: &str,
) {
    assert_eq!(row_of_a(&proto3(fields), body).as_deref(), Ok(expected));
}

#[rstest]
#[case(b"\x12\x05x", RejectReason::Truncated)]
#[case(b"\x10\x80", RejectReason::Truncated)]
#[case(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", RejectReason::Malformed)]
#[case(b"\x14", RejectReason::Malformed)]
fn where_they_end_must_be_clear(#[case] body: &[u8], #[case] reason: RejectReason) {
    assert_eq!(row_of_a(&proto3("int32 a = 1; string b = 2;"), body), Err(reason));
}

#[test]
fn a_required_field_without_a_column_may_be_missing() {
    let text = "syntax = \"proto2\"; message M { optional int32 a = 1; required int32 b = 2; }";
    assert_eq!(row_of_a(text, &[0x08, 0x07]).as_deref(), Ok("{a:7}"));
}

#[test]
fn members_of_messages_are_passed_over() {
    let schema = schema(&proto3("Inner in = 1;"), None);
    let mut table = table_schema(&schema).unwrap();
    let Type::Struct(members) = &mut table.fields[0].data_type else { panic!("a message") };
    members.retain(|member| member.name != "b");
    let body = b"\x0a\x05\x12\x01\xff\x08\x07";
    assert_eq!(decode(&schema, &table, body).as_deref(), Ok("{in:{a:7,c:[]}}"));
}

#[rstest]
#[case(b"\x0a\x01x\x12\x00", "{err:null}")]
#[case(b"\x12\x00\x0a\x01x", r#"{err:"x"}"#)]
fn an_empty_message_ends_another_of_its_oneof(#[case] body: &[u8], #[case] expected: &str) {
    let text = proto3("oneof r { string err = 1; Nothing ok = 2; }") + "message Nothing {}\n";
    let schema = schema(&text, None);
    assert_eq!(Case::of(&schema).row(body).as_deref(), Ok(expected));
    assert_eq!(decode(&schema, &table_schema(&schema).unwrap(), body).as_deref(), Ok(expected));
}
