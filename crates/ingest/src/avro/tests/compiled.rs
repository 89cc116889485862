#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};

use super::model::{Cell, read};
use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};

/// `i64::MAX` as a varint.
const MOST: [u8; 10] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
/// One bit more than 64.
const TOO_LONG: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
const MILLIS: &str = r#"{"type":"long","logicalType":"timestamp-millis"}"#;

fn writer(avro: &str) -> AvroSchema {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{avro}}}]}}"#);
    AvroSchema::parse(&text, []).unwrap()
}

/// Decodes one field into a column of this type.
fn decode(avro: &str, column: &str, body: &[u8]) -> Result<Cell, RejectReason> {
    let column: PrimitiveType = column.parse().unwrap();
    let table = Schema::new(0, vec![Field::optional(1, "f", column.into())]);
    let program = AvroProgram::compile(&writer(avro), &table).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    program.decode(&mut columns, body)?;
    Ok(read(columns.finish().unwrap().column(0), 0))
}

fn number(value: i128) -> Result<Cell, RejectReason> {
    Ok(Cell::Number(value))
}

fn float(value: f64) -> Result<Cell, RejectReason> {
    Ok(Cell::Float(value.to_bits()))
}

#[test]
fn narrower_writers_are_widened_exactly() {
    assert_eq!(decode(r#""int""#, "long", &[0x03]), number(-2));
    assert_eq!(decode(r#""int""#, "double", &[0x03]), float(-2.0));
    assert_eq!(decode(r#""int""#, "float", &[0x03]), float(-2.0));
    assert_eq!(decode(r#""long""#, "double", &[0x04]), float(2.0));
    assert_eq!(decode(r#""float""#, "double", &1.5f32.to_le_bytes()), float(1.5));
    assert_eq!(decode(r#""string""#, "binary", &[0x02, b'x']), Ok(Cell::Bytes(b"x".to_vec())));
    assert_eq!(decode(r#""bytes""#, "string", &[0x02, b'x']), Ok(Cell::Bytes(b"x".to_vec())));
    assert_eq!(decode(r#""bytes""#, "string", &[0x02, 0xff]), Err(RejectReason::InvalidUtf8));
    let fixed = r#"{"type":"fixed","name":"F","size":2}"#;
    assert_eq!(decode(fixed, "binary", b"ab"), Ok(Cell::Bytes(b"ab".to_vec())));
    // 2^53 + 1 is no double, i64::MAX neither.
    let odd = [0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    assert_eq!(decode(r#""long""#, "long", &odd), number((1 << 53) + 1));
    assert_eq!(decode(r#""long""#, "double", &odd), Err(RejectReason::OutOfRange));
    let max = MOST;
    assert_eq!(decode(r#""long""#, "long", &max), number(i128::from(i64::MAX)));
    assert_eq!(decode(r#""long""#, "double", &max), Err(RejectReason::OutOfRange));
    assert_eq!(decode(r#""long""#, "float", &max), Err(RejectReason::OutOfRange));
}

#[test]
fn decimals_are_rescaled_and_bounded() {
    let avro = r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}"#;
    assert_eq!(decode(avro, "decimal(8, 3)", &[0x02, 0xff]), number(-100));
    assert_eq!(decode(avro, "decimal(4, 1)", &[0x06, 0, 0x27, 0x0f]), number(9999));
    assert_eq!(decode(avro, "decimal(4, 1)", &[0x04, 0x27, 0x10]), Err(RejectReason::OutOfRange));
    assert_eq!(decode(avro, "decimal(4, 1)", &[0x00]), Err(RejectReason::Malformed));
    let long: Vec<u8> = [vec![0x2a], vec![0xff; 20], vec![0x9c]].concat();
    assert_eq!(decode(avro, "decimal(4, 1)", &long), number(-100), "redundant sign bytes");
    let huge: Vec<u8> = [vec![0x2a], vec![0x01], vec![0; 20]].concat();
    assert_eq!(decode(avro, "decimal(4, 1)", &huge), Err(RejectReason::OutOfRange));
}

#[rstest]
#[case::varint(r#""long""#, "long", &[0x80; 11], RejectReason::Malformed)]
#[case::varint_overflow(r#""long""#, "long", &TOO_LONG, RejectReason::Malformed)]
#[case::varint_cut(r#""long""#, "long", &[0x80], RejectReason::Truncated)]
#[case::int_overflow(r#""int""#, "int", &[0x80, 0x80, 0x80, 0x80, 0x10], RejectReason::Malformed)]
#[case::boolean(r#""boolean""#, "boolean", &[2], RejectReason::Malformed)]
#[case::negative_length(r#""string""#, "string", &[0x01], RejectReason::Malformed)]
#[case::long_length(r#""string""#, "string", &MOST, RejectReason::Truncated)]
#[case::utf8(r#""string""#, "string", &[0x04, 0xc3, 0x28], RejectReason::InvalidUtf8)]
#[case::branch(r#"["null","int"]"#, "int", &[0x04, 0x02], RejectReason::Malformed)]
#[case::negative_branch(r#"["null","int"]"#, "int", &[0x01], RejectReason::Malformed)]
#[case::symbol(r#"{"type":"enum","name":"E","symbols":["A"]}"#, "string", &[0x02], RejectReason::Malformed)]
#[case::tail(r#""int""#, "int", &[0x02, 0x02], RejectReason::TrailingBytes)]
#[case::uuid(r#"{"type":"string","logicalType":"uuid"}"#, "uuid", b"\x06abc", RejectReason::BadLength)]
#[case::time(r#"{"type":"long","logicalType":"time-micros"}"#, "time", &[0x01], RejectReason::OutOfRange)]
#[case::millis(MILLIS, "timestamptz", &MOST, RejectReason::OutOfRange)]
fn broken_values_are_rejected(
    #[case] avro: &str,
    #[case] column: &str,
    #[case] body: &[u8],
    #[case] reason: RejectReason,
) {
    assert_eq!(decode(avro, column, body), Err(reason));
}

#[test]
fn uuids_come_as_text_and_as_bytes() {
    let text = b"\x480123abcd-ABCD-0123-4567-89abcdef0123";
    let expected =
        vec![1, 0x23, 0xab, 0xcd, 0xab, 0xcd, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23];
    let string = r#"{"type":"string","logicalType":"uuid"}"#;
    assert_eq!(decode(string, "uuid", text), Ok(Cell::Bytes(expected.clone())));
    let fixed = r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#;
    assert_eq!(decode(fixed, "uuid", &expected), Ok(Cell::Bytes(expected.clone())));
    for bad in [&b"\x480123abcd-ABCD-0123-4567-89abcdef012z"[..], b"\x480123abcdAABCD-0123-4567-89abcdef0123"]
    {
        assert_eq!(decode(string, "uuid", bad), Err(RejectReason::BadLength));
    }
}

/// Runs a body for `array<int>`.
fn list(body: &[u8]) -> Result<Cell, RejectReason> {
    let writer = writer(r#"{"type":"array","items":"int"}"#);
    let table = table_schema(&writer).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    AvroProgram::compile(&writer, &table).unwrap().decode(&mut columns, body)?;
    Ok(read(columns.finish().unwrap().column(0), 0))
}

#[test]
fn blocks_of_every_form_are_read_and_bombs_are_not() {
    let items = |items: &[i128]| Ok(Cell::List(items.iter().map(|item| Cell::Number(*item)).collect()));
    assert_eq!(list(&[0x00]), items(&[]));
    assert_eq!(list(&[0x04, 0x02, 0x04, 0x02, 0x06, 0x00]), items(&[1, 2, 3]));
    assert_eq!(list(&[0x03, 0x04, 0x02, 0x04, 0x00]), items(&[1, 2]), "with a size in bytes");
    assert_eq!(list(&[0x03, 0x05, 0x02, 0x04, 0x00]), Err(RejectReason::Malformed));
    assert_eq!(list(&[0x04, 0x02]), Err(RejectReason::Truncated));
    assert_eq!(list(&MOST), Err(RejectReason::Truncated));
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00];
    assert_eq!(list(&least), Err(RejectReason::Malformed), "its magnitude is no number");
    let mut many = vec![0x80, 0x80, 0x80, 0x02];
    many.resize(many.len() + (2 << 20), 0);
    assert_eq!(list(&many), Err(RejectReason::TooDeep));
}

#[rstest]
#[case::unknown(r#""int""#, vec![Field::optional(1, "g", PrimitiveType::Int.into())], "no such column")]
#[case::narrower(r#""long""#, vec![Field::optional(1, "f", PrimitiveType::Int.into())], "does not fit")]
#[case::nullable(
    r#"["null","int"]"#,
    vec![Field::required(1, "f", PrimitiveType::Int.into())],
    "lets it be null"
)]
#[case::missing(
    r#""int""#,
    vec![
        Field::optional(1, "f", PrimitiveType::Int.into()),
        Field::required(2, "g", PrimitiveType::Int.into()),
    ],
    "does not have it"
)]
#[case::shape(r#""int""#, vec![Field::optional(1, "f", Type::Struct(vec![]))], "does not fit")]
fn a_table_that_must_change_first_is_named(
    #[case] avro: &str,
    #[case] columns: Vec<Field>,
    #[case] why: &str,
) {
    let error = AvroProgram::compile(&writer(avro), &Schema::new(0, columns)).unwrap_err().to_string();
    assert!(
        error.contains(why)
            && (error.contains("at f:") || error.contains("at f ") || error.contains("at g ")),
        "{error}"
    );
}

#[test]
fn columns_that_the_writer_lacks_are_null() {
    let table = Schema::new(
        0,
        vec![
            Field::optional(1, "a", Type::Struct(vec![Field::required(2, "b", PrimitiveType::Int.into())])),
            Field::optional(3, "f", PrimitiveType::Long.into()),
            Field::optional(4, "z", PrimitiveType::String.into()),
        ],
    );
    let program = AvroProgram::compile(&writer(r#""int""#), &table).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    program.decode(&mut columns, &[0x02]).unwrap();
    let batch = columns.finish().unwrap();
    let cells: Vec<_> = batch.columns().iter().map(|column| read(column, 0)).collect();
    assert_eq!(cells, [Cell::Null, Cell::Number(1), Cell::Null]);
}
