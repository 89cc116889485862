#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema};

use super::shown::{Case, row, schema};
use crate::{
    columns::Columns,
    protobuf::{MessagePath, ProtobufFile, ProtobufProgram},
};

pub(super) fn proto3(fields: &str) -> String {
    format!(
        "syntax = \"proto3\";\nimport \"google/protobuf/timestamp.proto\";\nimport \"google/protobuf/duration.proto\";\n\
         import \"google/protobuf/struct.proto\";\nimport \"google/protobuf/wrappers.proto\";\n\
         message M {{ {fields} }}\nmessage Inner {{ int32 a = 1; string b = 2; repeated int32 c = 3; }}\n\
         enum E {{ ZERO = 0; ONE = 1; }}\n"
    )
}

/// The examples of https://protobuf.dev/programming-guides/encoding.
#[rstest]
#[case("optional int32 a = 1;", &[0x08, 0x96, 0x01], "{a:150}")]
#[case("string b = 2;", b"\x12\x07testing", r#"{b:"testing"}"#)]
#[case("Inner c = 3;", &[0x1a, 0x03, 0x08, 0x96, 0x01], r#"{c:{a:150,b:"",c:[]}}"#)]
#[case(
    "string d = 4; repeated int32 e = 6;",
    b"\x22\x05hello\x32\x06\x03\x8e\x02\x9e\xa7\x05",
    r#"{d:"hello",e:[3,270,86942]}"#
)]
#[case(
    "string d = 4; repeated int32 e = 6;",
    b"\x30\x01\x22\x05hello\x30\x02\x30\x03",
    r#"{d:"hello",e:[1,2,3]}"#
)]
#[case("repeated int32 e = 6;", b"\x32\x02\x03\x04\x30\x05\x32\x00\x32\x01\x06", "{e:[3,4,5,6]}")]
#[case("int32 a = 1;", b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "{a:-2}")]
#[case("int32 a = 1;", b"\x08\xfe\xff\xff\xff\x0f", "{a:-2}")]
#[case("sint32 a = 1;", b"\x08\xff\xff\xff\xff\x0f", "{a:-2147483648}")]
#[case("uint64 a = 1;", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "{a:18446744073709551615}")]
#[case("fixed64 a = 1;", b"\x09\xff\xff\xff\xff\xff\xff\xff\xff", "{a:18446744073709551615}")]
#[case("uint32 a = 1;", b"\x08\xff\xff\xff\xff\x0f", "{a:4294967295}")]
#[case("sfixed32 a = 1;", b"\x0d\xff\xff\xff\xff", "{a:-1}")]
#[case("bool a = 1;", b"\x08\x80\x01", "{a:true}")]
#[case(
    "int32 a = 1; optional int32 b = 2; E c = 3; Inner d = 4; map<string, int32> e = 5;",
    b"",
    r#"{a:0,b:null,c:"ZERO",d:null,e:<>}"#
)]
#[case(
    "E a = 1; repeated E b = 2;",
    b"\x08\x01\x12\x0d\x00\x09\xfb\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
    r#"{a:"ONE",b:["ZERO","9","-5","ONE"]}"#
)]
fn bytes_of_the_specification_are_read(#[case] fields: &str, #[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(Case::new(&proto3(fields)).row(body).as_deref(), Ok(expected));
}

#[rstest]
#[case::last_scalar("int32 a = 1;", b"\x08\x01\x08\x02", "{a:2}")]
#[case::merged(
    "Inner d = 4;",
    b"\x22\x04\x08\x01\x18\x07\x22\x05\x12\x01x\x18\x08",
    r#"{d:{a:1,b:"x",c:[7,8]}}"#
)]
#[case::last_of_oneof("oneof o { int32 a = 1; string b = 2; }", b"\x08\x01\x12\x01x", r#"{a:null,b:"x"}"#)]
#[case::oneof_and_back(
    "oneof o { Inner a = 1; string b = 2; }",
    b"\x0a\x02\x08\x05\x12\x01x\x0a\x03\x12\x01y",
    r#"{a:{a:0,b:"y",c:[]},b:null}"#
)]
#[case::oneof_merged(
    "oneof o { Inner a = 1; string b = 2; }",
    b"\x0a\x02\x08\x05\x0a\x03\x12\x01y",
    r#"{a:{a:5,b:"y",c:[]},b:null}"#
)]
#[case::last_of_key(
    "map<string, int32> m = 1;",
    b"\x0a\x05\x0a\x01a\x10\x01\x0a\x05\x0a\x01b\x10\x02\x0a\x05\x0a\x01a\x10\x03",
    r#"{m:<"a"=>3,"b"=>2>}"#
)]
#[case::bare_entry("map<int32, Inner> m = 1;", b"\x0a\x00", r#"{m:<0=>{a:0,b:"",c:[]}>}"#)]
#[case::value_before_key("map<int32, string> m = 1;", b"\x0a\x05\x12\x01v\x08\x07", r#"{m:<7=>"v">}"#)]
#[case::unknown_fields(
    "int32 a = 1;",
    b"\x10\x05\x1d\x00\x00\x00\x00\x08\x07\x22\x01x\x2b\x08\x01\x2c",
    "{a:7}"
)]
#[case::time("google.protobuf.Timestamp t = 1;", b"\x0a\x05\x08\x01\x10\xe7\x07", "{t:1000000}")]
#[case::before_1970(
    "google.protobuf.Timestamp t = 1;",
    b"\x0a\x0e\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\xe8\x07",
    "{t:-999999}"
)]
#[case::duration(
    "google.protobuf.Duration d = 1;",
    b"\x0a\x16\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "{d:-1000001}"
)]
#[case::wrapper(
    "google.protobuf.Int32Value a = 1; google.protobuf.StringValue b = 2;",
    b"\x0a\x00",
    "{a:0,b:null}"
)]
fn values_in_several_pieces_and_known_messages(
    #[case] fields: &str,
    #[case] body: &[u8],
    #[case] expected: &str,
) {
    assert_eq!(Case::new(&proto3(fields)).row(body).as_deref(), Ok(expected));
}

#[rstest]
#[case::tag_zero("int32 a = 1;", &[0x00, 0x01], RejectReason::Malformed)]
#[case::wire_type_6("int32 a = 1;", &[0x0e], RejectReason::Malformed)]
#[case::huge_tag("int32 a = 1;", &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], RejectReason::Malformed)]
#[case::varint_cut("int32 a = 1;", &[0x08, 0x80], RejectReason::Truncated)]
#[case::varint_long("int32 a = 1;", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", RejectReason::Malformed)]
#[case::fixed_cut("double a = 1;", &[0x09, 1, 2, 3], RejectReason::Truncated)]
#[case::length_cut("string a = 1;", &[0x0a, 0x05, b'x'], RejectReason::Truncated)]
#[case::length_huge(
    "string a = 1;",
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    RejectReason::Truncated
)]
#[case::utf8("string a = 1;", &[0x0a, 0x02, 0xc3, 0x28], RejectReason::InvalidUtf8)]
#[case::utf8_key("map<string, int32> a = 1;", &[0x0a, 0x03, 0x0a, 0x01, 0xff], RejectReason::InvalidUtf8)]
#[case::other_wire_type("int32 a = 1;", b"\x0a\x01x", RejectReason::WrongType)]
#[case::group_open("int32 a = 1;", &[0x13, 0x18, 0x01], RejectReason::Truncated)]
#[case::group_crossed("int32 a = 1;", &[0x13, 0x1c], RejectReason::Malformed)]
#[case::group_end("int32 a = 1;", &[0x14], RejectReason::Malformed)]
#[case::group_end_of_a_field("int32 a = 1;", &[0x0c], RejectReason::Malformed)]
#[case::groups_deep("int32 a = 1;", &[0x13; 300], RejectReason::TooDeep)]
#[case::packed_cut("repeated fixed32 a = 1;", &[0x0a, 0x05, 1, 2, 3, 4, 5], RejectReason::Truncated)]
#[case::year_10000(
    "google.protobuf.Timestamp t = 1;",
    b"\x0a\x07\x08\x80\xdc\x92\x81\xb0\x07",
    RejectReason::OutOfRange
)]
#[case::nanos(
    "google.protobuf.Timestamp t = 1;",
    b"\x0a\x06\x10\x80\x94\xeb\xdc\x03",
    RejectReason::BadTimestamp
)]
#[case::signs(
    "google.protobuf.Duration d = 1;",
    b"\x0a\x0d\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    RejectReason::OutOfRange
)]
#[case::json_nan(
    "google.protobuf.Value v = 1;",
    b"\x0a\x09\x11\x00\x00\x00\x00\x00\x00\xf8\x7f",
    RejectReason::OutOfRange
)]
fn broken_records_are_rejected(#[case] fields: &str, #[case] body: &[u8], #[case] reason: RejectReason) {
    let mut case = Case::new(&proto3(fields));
    assert_eq!(case.row(body), Err(reason));
    assert_eq!(case.columns.finish().unwrap().num_rows(), 0);
}

#[test]
fn a_required_field_of_proto2_must_be_there() {
    let mut case = Case::new(
        "syntax = \"proto2\"; message M { required int32 a = 1; optional int32 b = 2 [default = 9]; }",
    );
    assert_eq!(case.row(&[0x10, 0x01]), Err(RejectReason::MissingField));
    assert_eq!(case.row(&[0x08, 0x01]).as_deref(), Ok("{a:1,b:null}"));
}

#[test]
fn json_is_sorted_escaped_and_bounded() {
    let mut case = Case::new(&proto3("google.protobuf.ListValue v = 1;"));
    let field = |tag: u8, body: &[u8]| [&[tag], varint(body.len()).as_slice(), body].concat();
    // A value that is a list of the value before, 200 times.
    let nested = (0..200).fold(Vec::new(), |value, _| field(0x32, &field(0x0a, &value)));
    let deep = field(0x0a, &field(0x0a, &nested));
    assert_eq!(case.row(&deep), Err(RejectReason::TooDeep));
    let one = b"\x0a\x1b\x0a\x09\x11\x00\x00\x00\x00\x00\x00\x45\x40\x0a\x05\x1a\x03\"\n\\\x0a\x02\x08\x00\x0a\x03\x32\x01\x0a";
    assert_eq!(case.row(one), Err(RejectReason::Truncated), "the last list is cut");
    let one = b"\x0a\x1b\x0a\x09\x11\x00\x00\x00\x00\x00\x00\x45\x40\x0a\x05\x1a\x03\"\n\\\x0a\x02\x08\x00\x0a\x03\x1a\x01x";
    assert_eq!(case.row(one).unwrap(), format!("{{v:{:?}}}", r#"[42,"\"\n\\",null,"x"]"#));
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Confluent's wire format: "0, or a count and so many indexes", as zigzag varints.
#[rstest]
#[case(&[0x00, 0xaa], Some("A"), &[0xaa])]
#[case(&[0x02, 0x00, 0xaa], Some("A"), &[0xaa])]
#[case(&[0x02, 0x02], Some("B"), &[])]
#[case(&[0x04, 0x02, 0x00, 0x08], Some("B.C"), &[0x08])]
#[case(&[0x06, 0x02, 0x00, 0x02, 0x08], Some("B.C.E"), &[0x08])]
#[case(&[0x02, 0x04], None, &[])]
#[case(&[0x04, 0x00, 0x00], None, &[])]
fn message_indexes_choose_the_message(#[case] body: &[u8], #[case] name: Option<&str>, #[case] rest: &[u8]) {
    let text = "syntax = \"proto3\"; message A { int32 a = 1; } message B { int32 b = 1; message C { int32 c = 1; \
                message D { int32 d = 1; } message E { int32 e = 1; } } }";
    let file = ProtobufFile::compile(text, &[]).unwrap();
    let (path, left) = MessagePath::read(body).unwrap();
    assert_eq!((file.at(&path).as_ref().map(|schema| schema.name()), left), (name, rest));
}

#[rstest]
#[case(&[])]
#[case(&[0x01])]
#[case(&[0x02])]
#[case(&[0x02, 0x01])]
#[case(&[0x80])]
#[case(&[0xff, 0xff, 0xff, 0xff, 0x0f])]
#[case(&[0x10, 0, 0, 0, 0, 0, 0, 0, 0])]
fn impossible_message_indexes_are_bad_framing(#[case] body: &[u8]) {
    assert_eq!(MessagePath::read(body), Err(RejectReason::BadFraming));
}

/// A table that came of other schemas: wider types, more columns, columns that became optional.
#[test]
fn narrower_messages_are_widened_exactly() {
    let schema = schema(&proto3("int32 a = 1; int64 b = 2; float c = 3; string d = 4; uint64 e = 5;"), None);
    let kind = |text: &str| text.parse::<PrimitiveType>().unwrap().into();
    let table = Schema::new(
        0,
        vec![
            Field::optional(1, "e", kind("decimal(20, 0)")),
            Field::optional(2, "a", kind("long")),
            Field::optional(3, "more", kind("date")),
            Field::optional(4, "b", kind("double")),
            Field::required(5, "c", kind("double")),
            Field::optional(6, "d", kind("binary")),
        ],
    );
    let mut program = ProtobufProgram::compile(&schema, &table).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    let odd = [0x10, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(program.decode(&mut columns, &odd), Err(RejectReason::OutOfRange), "2^53 + 1 is no double");
    program.decode(&mut columns, b"\x08\x05\x10\x06\x1d\x00\x00\xc0\x3f\x22\x01x").unwrap();
    let batch = columns.finish().unwrap();
    assert_eq!(row(&batch, 0), "{e:0,a:5,more:null,b:6.0,c:1.5,d:[120]}");
}
