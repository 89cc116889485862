//! The examples of the Avro specification (1.12), schemas and bytes as they stand there, and the bytes that Confluent's
//! documentation of its wire format shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{RejectReason, Type};

use super::model::{Cell, read};
use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
    decoder::wire::confluent,
    protobuf::MessagePath,
};

/// The columns of one record.
fn decode(schema: &str, body: &[u8]) -> Result<Vec<Cell>, RejectReason> {
    let writer = AvroSchema::parse(schema, []).unwrap();
    let table = table_schema(&writer).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    AvroProgram::compile(&writer, &table).unwrap().decode(&mut columns, body)?;
    let batch = columns.finish().unwrap();
    Ok(batch.columns().iter().map(|column| read(column, 0)).collect())
}

fn text(text: &str) -> Cell {
    Cell::Bytes(text.as_bytes().to_vec())
}

/// "Binary encoding": int and long values use variable-length zig-zag coding.
#[rstest]
#[case(&[0x00], 0)]
#[case(&[0x01], -1)]
#[case(&[0x02], 1)]
#[case(&[0x03], -2)]
#[case(&[0x04], 2)]
#[case(&[0x7f], -64)]
#[case(&[0x80, 0x01], 64)]
fn numbers(#[case] body: &[u8], #[case] number: i128) {
    assert_eq!(decode(r#""int""#, body), Ok(vec![Cell::Number(number)]));
    assert_eq!(decode(r#""long""#, body), Ok(vec![Cell::Number(number)]));
}

#[test]
fn complex_types() {
    assert_eq!(decode(r#""string""#, &[0x06, 0x66, 0x6f, 0x6f]), Ok(vec![text("foo")]));
    let record = r#"{"type": "record", "name": "test",
        "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]}"#;
    assert_eq!(decode(record, &[0x36, 0x06, 0x66, 0x6f, 0x6f]), Ok(vec![Cell::Number(27), text("foo")]));
    let suit = r#"{"type": "enum", "name": "Foo", "symbols": ["A", "B", "C", "D"]}"#;
    assert_eq!(decode(suit, &[0x06]), Ok(vec![text("D")]));
    let longs = r#"{"type": "array", "items": "long"}"#;
    let list = Cell::List(vec![Cell::Number(3), Cell::Number(27)]);
    assert_eq!(decode(longs, &[0x04, 0x06, 0x36, 0x00]), Ok(vec![list]));
    let union = r#"["null", "string"]"#;
    assert_eq!(decode(union, &[0x00]), Ok(vec![Cell::Null]));
    assert_eq!(decode(union, &[0x02, 0x02, 0x61]), Ok(vec![text("a")]));
    let md5 = r#"{"type": "fixed", "size": 16, "name": "md5"}"#;
    assert_eq!(decode(md5, &[7; 16]), Ok(vec![Cell::Bytes(vec![7; 16])]));
}

/// "Names" and "Complex types": what is defined in one namespace and named from another.
#[test]
fn names_of_the_specification() {
    let example = r#"{"type": "record", "name": "Example", "doc": "A simple name (attribute) and no namespace attribute",
        "fields": [
          {"name": "inheritNull", "type": {"type": "enum", "name": "Simple", "symbols": ["a", "b"]}},
          {"name": "explicitNamespace", "type": {"type": "fixed", "name": "Simple", "namespace": "explicit", "size": 12}},
          {"name": "fullName", "type": {"type": "record", "name": "a.full.Name", "namespace": "ignored", "fields": [
            {"name": "inheritNamespace", "type": {"type": "enum", "name": "Understanding", "symbols": ["d", "e"]}},
            {"name": "md5", "type": {"type": "fixed", "size": 16, "aliases": ["ns.fixed"], "name": "md5"}}]}}]}"#;
    let body: Vec<u8> = [vec![0x02], vec![9; 12], vec![0x00], vec![5; 16]].concat();
    let name = Cell::Struct(vec![text("d"), Cell::Bytes(vec![5; 16])]);
    assert_eq!(decode(example, &body), Ok(vec![text("b"), Cell::Bytes(vec![9; 12]), name]));
    let list = r#"{"type": "record", "name": "LongList", "aliases": ["LinkedLongs"], "fields": [
        {"name": "value", "type": "long"}, {"name": "next", "type": ["null", "LongList"]}]}"#;
    let error = table_schema(&AvroSchema::parse(list, []).unwrap()).unwrap_err().to_string();
    assert!(error.contains("at next") && error.contains("record LongList contains itself"), "{error}");
}

/// Aliases of fields and of named types lead to columns and to members of a union's struct, without their namespaces.
#[test]
fn aliases_of_the_specification() {
    let schema = r#"{"type": "record", "name": "R", "aliases": ["Q"], "fields": [
        {"name": "a", "type": "int", "aliases": ["b", "c"]},
        {"name": "u", "type": ["null", "int", {"type": "fixed", "name": "F", "namespace": "x", "size": 1,
            "aliases": ["y.G", "H"]}]}]}"#;
    let table = table_schema(&AvroSchema::parse(schema, []).unwrap()).unwrap();
    assert_eq!(table.fields[0].aliases, ["b", "c"]);
    let Type::Struct(members) = &table.fields[1].data_type else { panic!("a struct") };
    assert_eq!(
        (members[1].name.as_str(), members[1].aliases.as_slice()),
        ("F", &["G".to_owned(), "H".to_owned()][..])
    );
    let wrong =
        r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "aliases": "b"}]}"#;
    assert!(AvroSchema::parse(wrong, []).unwrap_err().to_string().contains("aliases of field a of R"));
}

/// Magic byte, schema id in network byte order, and for Protobuf the message indexes as zig-zag varints: `[1, 0]` is
/// `2, 1, 0`, and `[0]` a single zero.
#[test]
fn the_wire_format_of_confluent() {
    assert_eq!(confluent(&[0, 0, 0, 0, 1, 0x36]), Ok((1, &[0x36][..])));
    assert_eq!(confluent(&[0, 0x01, 0x86, 0xa1, 0xff]), Ok((0x0186_a1ff, &[][..])));
    assert_eq!(confluent(&[0, 0, 0, 0]), Err(RejectReason::BadFraming));
    assert_eq!(confluent(&[1, 0, 0, 0, 1]), Err(RejectReason::BadFraming));
    let body = [0x0a];
    let read = |indexes: &[u8]| {
        MessagePath::read(&[indexes, &body[..]].concat()).map(|(path, rest)| (path, rest.to_vec()))
    };
    let first = read(&[0]).unwrap();
    assert_eq!(first, (MessagePath::FIRST, body.to_vec()));
    assert_eq!(read(&[2, 0]).unwrap().0, MessagePath::FIRST, "the long form of the same");
    let nested = read(&[4, 2, 0]).unwrap();
    assert_eq!((nested.0 == MessagePath::FIRST, nested.1), (false, body.to_vec()));
}
