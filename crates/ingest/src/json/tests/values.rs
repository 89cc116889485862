//! What each column takes, value by value.

use rstest::rstest;
use siltstone_protocol::{
    Field, PrimitiveType, PrimitiveType as P, RejectReason,
    RejectReason::{
        BadLength, BadTimestamp, InvalidUtf8, Malformed, MissingField, OutOfRange, TooDeep, TrailingBytes,
        Truncated, UnknownField, WrongType,
    },
    Schema, Type,
};
use siltstone_spec::model::ExtraFields;

use super::{Cell, decode_all, decode_one, one_column};
use crate::json::{Encoding, Hints, JsonProgram};

const D92: P = P::Decimal { precision: 9, scale: 2 };
const D38: P = P::Decimal { precision: 38, scale: 0 };

fn column(data_type: impl Into<Type>, value: &str) -> Result<Cell, RejectReason> {
    decode_one(&one_column(data_type), &Hints::default(), format!(r#"{{"c":{value}}}"#))
        .map(|mut row| row.remove(0))
}

#[rstest]
#[case(P::Long, "0", Ok(0))]
#[case(P::Long, "-0", Ok(0))]
#[case(P::Long, "9223372036854775807", Ok(i64::MAX.into()))]
#[case(P::Long, "-9223372036854775808", Ok(i64::MIN.into()))]
#[case(P::Long, "9223372036854775808", Err(OutOfRange))]
#[case(P::Long, "123456789012345678901234567890123456789012345678901234567890", Err(OutOfRange))]
#[case(P::Long, "1.0", Ok(1))]
#[case(P::Long, "1e3", Ok(1000))]
#[case(P::Long, "120e-1", Ok(12))]
#[case(P::Long, "0e999999999999999999999", Ok(0))]
#[case(P::Long, "1e999999999999999999999", Err(OutOfRange))]
#[case(P::Long, "1e-999999999999999999999", Err(OutOfRange))]
#[case(P::Long, "1.5", Err(OutOfRange))]
#[case(P::Long, "9007199254740993", Ok(9_007_199_254_740_993))]
#[case(P::Long, "\"1\"", Err(WrongType))]
#[case(P::Long, "true", Err(WrongType))]
#[case(P::Long, "[1]", Err(WrongType))]
#[case(P::Long, "01", Err(Malformed))]
#[case(P::Long, "1.", Err(Malformed))]
#[case(P::Long, "1e", Err(Malformed))]
#[case(P::Long, "+1", Err(Malformed))]
#[case(P::Long, "-", Err(Malformed))]
#[case(P::Long, "1x", Err(Malformed))]
#[case(P::Long, "nul", Err(Malformed))]
#[case(P::Int, "2147483647", Ok(i32::MAX.into()))]
#[case(P::Int, "2147483648", Err(OutOfRange))]
#[case(P::Int, "-2147483648", Ok(i32::MIN.into()))]
#[case(D92, "12.34", Ok(1234))]
#[case(D92, "-12.3", Ok(-1230))]
#[case(D92, "12.3400", Ok(1234))]
#[case(D92, "12.345", Err(OutOfRange))]
#[case(D92, "1.2e3", Ok(120_000))]
#[case(D92, "9999999.99", Ok(999_999_999))]
#[case(D92, "10000000", Err(OutOfRange))]
#[case(D92, "\"12.34\"", Ok(1234))]
#[case(D92, "\"+007.50\"", Ok(750))]
#[case(D92, "\"twelve\"", Err(WrongType))]
#[case(D92, "\"\"", Err(WrongType))]
#[case(D92, "true", Err(WrongType))]
#[case(D38, "99999999999999999999999999999999999999", Ok(10i128.pow(38) - 1))]
#[case(D38, "100000000000000000000000000000000000000", Err(OutOfRange))]
#[case(D38, "18446744073709551615", Ok(u64::MAX.into()))]
#[case(P::Date, "\"1970-01-02\"", Ok(1))]
#[case(P::Date, "-3", Ok(-3))]
#[case(P::Date, "3000000000", Err(OutOfRange))]
#[case(P::Date, "\"1970-1-2\"", Err(BadTimestamp))]
#[case(P::Date, "1.5", Err(BadTimestamp))]
#[case(P::Time, "\"00:00:01.5\"", Ok(1_500_000))]
#[case(P::Time, "86399999", Ok(86_399_999_000))]
#[case(P::Time, "86400000", Err(OutOfRange))]
#[case(P::Time, "\"25:00:00\"", Err(BadTimestamp))]
#[case(P::Timestamptz, "\"1970-01-01T01:00:00+01:00\"", Ok(0))]
#[case(P::Timestamptz, "\"1970\\u002d01-01T00:00:00Z\"", Ok(0))]
#[case(P::Timestamptz, "\"1970-01-01T00:00:00\"", Err(BadTimestamp))]
#[case(P::Timestamptz, "1500", Ok(1_500_000))]
#[case(P::Timestamptz, "1.7e12", Ok(1_700_000_000_000_000))]
#[case(P::Timestamptz, "1.5", Err(BadTimestamp))]
#[case(P::Timestamptz, "9223372036854775807", Err(OutOfRange))]
#[case(P::Timestamptz, "true", Err(WrongType))]
#[case(P::Timestamp, "\"1970-01-01T00:00:01\"", Ok(1_000_000))]
#[case(P::Timestamp, "\"1970-01-01T00:00:01Z\"", Err(BadTimestamp))]
#[case(P::Timestamp, "-1", Ok(-1000))]
fn whole_numbers(
    #[case] data_type: PrimitiveType,
    #[case] value: &str,
    #[case] expected: Result<i128, RejectReason>,
) {
    assert_eq!(column(data_type, value), expected.map(Cell::Whole));
}

#[rstest]
#[case(P::Double, "0.1", Ok(0.1))]
#[case(P::Double, "12.34", Ok(12.34))]
#[case(P::Double, "-0", Ok(-0.0))]
#[case(P::Double, "123456789012345678", Ok(123_456_789_012_345_678.0))]
#[case(P::Double, "2.2250738585072011e-308", Ok(2.225_073_858_507_201e-308))]
#[case(P::Double, "1e999", Err(OutOfRange))]
#[case(P::Double, "\"NaN\"", Ok(f64::NAN))]
#[case(P::Double, "\"-Infinity\"", Ok(f64::NEG_INFINITY))]
#[case(P::Double, "\"1.5\"", Err(WrongType))]
#[case(P::Double, "NaN", Err(Malformed))]
#[case(P::Double, "false", Err(WrongType))]
#[case(P::Float, "0.1", Ok(f64::from(0.1f32)))]
#[case(P::Float, "1e39", Err(OutOfRange))]
#[case(P::Float, "\"Infinity\"", Ok(f64::INFINITY))]
fn real_numbers(
    #[case] data_type: PrimitiveType,
    #[case] value: &str,
    #[case] expected: Result<f64, RejectReason>,
) {
    assert_eq!(column(data_type, value), expected.map(|value| Cell::Real(value.to_bits())));
}

#[rstest]
#[case(r#""""#, Ok(""))]
#[case(r#""plain""#, Ok("plain"))]
#[case(r#""with \" \\ \/ \b \f \n \r \t inside""#, Ok("with \" \\ / \u{8} \u{c} \n \r \t inside"))]
#[case(r#""\u0041\u00e9\u20ac""#, Ok("A\u{e9}\u{20ac}"))]
#[case(r#""\ud83d\ude00""#, Ok("\u{1f600}"))]
#[case(r#""\u0000""#, Ok("\0"))]
#[case(r#""é€😀 twenty bytes and more""#, Ok("é€😀 twenty bytes and more"))]
#[case(r#""\ud83d""#, Err(InvalidUtf8))]
#[case(r#""\ude00\ud83d""#, Err(InvalidUtf8))]
#[case(r#""\ud83dx""#, Err(InvalidUtf8))]
#[case(r#""\ud83d\u0041""#, Err(InvalidUtf8))]
#[case(r#""\x""#, Err(Malformed))]
#[case(r#""\u12g4""#, Err(Malformed))]
#[case(r#""\u+123""#, Err(Malformed))]
#[case("\"line\nbreak\"", Err(Malformed))]
#[case("\"long enough for a word\u{1}\"", Err(Malformed))]
#[case("1", Err(WrongType))]
#[case("{}", Err(WrongType))]
fn strings(#[case] value: &str, #[case] expected: Result<&str, RejectReason>) {
    assert_eq!(column(P::String, value), expected.map(|text| Cell::Text(text.to_owned())));
}

#[rstest]
#[case(P::Boolean, "true", Ok(Cell::Bool(true)))]
#[case(P::Boolean, "false", Ok(Cell::Bool(false)))]
#[case(P::Boolean, "1", Err(WrongType))]
#[case(P::Boolean, "\"true\"", Err(WrongType))]
#[case(P::Boolean, "null", Ok(Cell::Null))]
#[case(P::Uuid, "\"00000000-0000-0000-0000-00000000000a\"", Ok(Cell::Bytes([&[0; 15][..], &[10]].concat())))]
#[case(P::Uuid, "\"0\"", Err(BadLength))]
#[case(P::Uuid, "0", Err(WrongType))]
#[case(P::Binary, "\"AQID\"", Ok(Cell::Bytes(vec![1, 2, 3])))]
#[case(P::Binary, "\"AQI\"", Ok(Cell::Bytes(vec![1, 2])))]
#[case(P::Binary, "\"_-8=\"", Ok(Cell::Bytes(vec![0xff, 0xef])))]
#[case(P::Binary, "\"\\u0041QID\"", Ok(Cell::Bytes(vec![1, 2, 3])))]
#[case(P::Binary, "\"A!\"", Err(Malformed))]
#[case(P::Binary, "[1]", Err(WrongType))]
#[case(P::Fixed(3), "\"AQID\"", Ok(Cell::Bytes(vec![1, 2, 3])))]
#[case(P::Fixed(3), "\"AQI=\"", Err(BadLength))]
fn other_leaves(
    #[case] data_type: PrimitiveType,
    #[case] value: &str,
    #[case] expected: Result<Cell, RejectReason>,
) {
    assert_eq!(column(data_type, value), expected);
}

fn nested() -> Schema {
    let long = || Type::from(P::Long);
    let list = Type::List { element_id: 6, element_required: true, element: Box::new(long()) };
    let map = Type::Map {
        key_id: 8,
        key: Box::new(P::String.into()),
        value_id: 9,
        value_required: false,
        value: Box::new(long()),
    };
    let inner =
        vec![Field::required(4, "a", long()), Field::optional(5, "l", list), Field::optional(7, "m", map)];
    Schema::new(0, vec![Field::required(1, "id", long()), Field::optional(2, "s", Type::Struct(inner))])
}

fn whole(value: i128) -> Cell {
    Cell::Whole(value)
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

#[rstest]
#[case(r#"{"id":1}"#, Ok(Cell::Null))]
#[case(r#" { "s" : null , "id" : 1 } "#, Ok(Cell::Null))]
#[case("\u{feff}{\"id\":1}", Ok(Cell::Null))]
#[case(r#"{"id":1,"s":{"a":2}}"#, Ok(Cell::Items(vec![whole(2), Cell::Null, Cell::Null])))]
#[case(
    r#"{"id":1,"s":{"m":{"x":1,"y":null},"l":[3,4],"a":2}}"#,
    Ok(Cell::Items(vec![
        whole(2),
        Cell::Items(vec![whole(3), whole(4)]),
        Cell::Entries(vec![(text("x"), whole(1)), (text("y"), Cell::Null)]),
    ]))
)]
#[case(
    r#"{"\u0069d":1,"s":{"a":2,"l":[],"m":{}}}"#,
    Ok(Cell::Items(vec![whole(2), Cell::Items(vec![]), Cell::Entries(vec![])]))
)]
#[case(r#"{"id":1,"x":{"y":[1,"\ud800",{}]},"s":{"a":2,"z":0}}"#, Ok(Cell::Items(vec![whole(2), Cell::Null, Cell::Null])))]
#[case("{}", Err(MissingField))]
#[case(r#"{"id":null}"#, Err(MissingField))]
#[case(r#"{"id":1,"s":{}}"#, Err(MissingField))]
#[case(r#"{"id":1,"s":{"a":1,"l":[null]}}"#, Err(MissingField))]
#[case(r#"{"id":1,"s":[]}"#, Err(WrongType))]
#[case(r#"{"id":1,"s":{"a":1,"l":{}}}"#, Err(WrongType))]
#[case(r#"{"id":1,"s":{"a":1,"m":[]}}"#, Err(WrongType))]
#[case(r#"{"id":1,"id":1}"#, Err(Malformed))]
#[case(r#"{"s":null,"id":1,"s":null}"#, Err(Malformed))]
#[case(r#"{"id":1,"s":{"a":1,"m":{"k":1,"\u006b":2}}}"#, Err(Malformed))]
#[case(r#"{"id":1,}"#, Err(Malformed))]
#[case(r#"{"id":1,"s":{"a":1,"l":[1,]}}"#, Err(Malformed))]
#[case(r#"{"id" 1}"#, Err(Malformed))]
#[case(r#"{id:1}"#, Err(Malformed))]
#[case(r#"{"id":1 "s":null}"#, Err(Malformed))]
#[case(r#"{"id":1}{"id":2}"#, Err(TrailingBytes))]
#[case(r#"{"id":1} x"#, Err(TrailingBytes))]
#[case("", Err(Truncated))]
#[case("  ", Err(Truncated))]
#[case("{", Err(Truncated))]
#[case(r#"{"id"#, Err(Truncated))]
#[case(r#"{"id":"#, Err(Truncated))]
#[case(r#"{"id":1"#, Err(Truncated))]
#[case(r#"{"id":1,"s":nul"#, Err(Truncated))]
#[case(r#"{"id":1,"x":tru"#, Err(Truncated))]
#[case(r#"{"id":1,"x":"\"#, Err(Truncated))]
#[case(r#"{"id":1,"x":"\u00"#, Err(Truncated))]
#[case(r#"{"id":1,"x":01}"#, Err(Malformed))]
#[case(r#"{"id":1,"x":"\q"}"#, Err(Malformed))]
#[case("[]", Err(WrongType))]
#[case("null", Err(WrongType))]
#[case("x", Err(Malformed))]
#[case("\0", Err(Malformed))]
fn records(#[case] record: &str, #[case] expected: Result<Cell, RejectReason>) {
    let row = decode_one(&nested(), &Hints::default(), record);
    assert_eq!(row, expected.map(|cell| vec![whole(1), cell]));
}

#[test]
fn bytes_that_are_not_utf8_are_refused_wherever_they_stand() {
    for record in [&b"{\"id\":1,\"x\":\"\xff\"}"[..], b"{\"id\":1}\xff", b"\xc3"] {
        assert_eq!(decode_one(&nested(), &Hints::default(), record), Err(InvalidUtf8));
    }
}

#[test]
fn many_keys_of_a_map_are_compared_too() {
    let mut keys: Vec<String> = (0..40).map(|key| format!("\"k{key}\":{key}")).collect();
    let record = |keys: &[String]| format!(r#"{{"id":1,"s":{{"a":1,"m":{{{}}}}}}}"#, keys.join(","));
    assert!(decode_one(&nested(), &Hints::default(), record(&keys)).is_ok());
    keys.push("\"k7\":0".to_owned());
    assert_eq!(decode_one(&nested(), &Hints::default(), record(&keys)), Err(Malformed));
}

#[test]
fn nesting_ends_at_the_bound() {
    let unknown = |depth: usize| format!(r#"{{"id":1,"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(decode_one(&nested(), &Hints::default(), unknown(63)).is_ok());
    assert_eq!(decode_one(&nested(), &Hints::default(), unknown(64)), Err(TooDeep));
    assert_eq!(decode_one(&nested(), &Hints::default(), "[".repeat(1 << 20)), Err(WrongType));
    assert_eq!(
        decode_one(&nested(), &Hints::default(), format!("{{\"x\":{}", "[".repeat(1 << 20))),
        Err(TooDeep)
    );
}

#[test]
fn unknown_members_are_rejected_where_the_table_says_so() {
    let program = JsonProgram::compile(&nested(), ExtraFields::Reject).unwrap();
    let records = [r#"{"id":1,"x":1}"#, r#"{"id":1,"s":{"a":1,"x":1}}"#, r#"{"id":1}"#]
        .map(|text| text.as_bytes().to_vec());
    let (results, _) = decode_all(&program, &nested(), &records);
    assert_eq!(results, [Err(UnknownField), Err(UnknownField), Ok(())]);
}

#[test]
fn a_bare_value_goes_to_the_single_column() {
    let schema = Schema::new(0, vec![Field::required(1, "value", P::Long.into())]);
    let decode = |record: &str| decode_one(&schema, &Hints::default(), record);
    assert_eq!(decode(" 5 "), Ok(vec![whole(5)]));
    assert_eq!(decode(r#"{"value":5}"#), Ok(vec![whole(5)]));
    assert_eq!(decode("5 5"), Err(TrailingBytes));
    assert_eq!(decode("null"), Err(MissingField));
    assert_eq!(decode("\"x\""), Err(WrongType));
}

#[test]
fn hints_tell_how_a_value_is_written() {
    let fields = vec![Field::optional(1, "any", P::String.into()), Field::optional(2, "price", D92.into())];
    let schema = Schema::new(0, fields);
    let encodings =
        [(vec!["any".to_owned()], Encoding::RawJson), (vec!["price".to_owned()], Encoding::Base64Decimal)];
    let hints = Hints { encodings: encodings.into(), bare: false };
    let decode = |record: &str| decode_one(&schema, &hints, record);
    assert_eq!(
        decode(r#"{"any": {"a": [1, "x"]} ,"price":"BNI="}"#),
        Ok(vec![text(r#"{"a": [1, "x"]}"#), whole(1234)])
    );
    assert_eq!(decode(r#"{"any":"x","price":12.34}"#), Ok(vec![text(r#""x""#), whole(1234)]));
    assert_eq!(decode(r#"{"any":null,"price":"12.34"}"#), Err(Malformed));
    let bare = Hints { encodings: [(vec!["value".to_owned()], Encoding::RawJson)].into(), bare: true };
    let schema = Schema::new(0, vec![Field::optional(1, "value", P::String.into())]);
    assert_eq!(decode_one(&schema, &bare, r#"{"value":1}"#), Ok(vec![text(r#"{"value":1}"#)]));
}

#[test]
fn tables_that_json_cannot_fill_are_refused() {
    let map = Type::Map {
        key_id: 2,
        key: Box::new(P::Long.into()),
        value_id: 3,
        value_required: false,
        value: Box::new(P::Long.into()),
    };
    assert!(JsonProgram::compile(&one_column(map), ExtraFields::Ignore).is_err());
    let twice = vec![Field::optional(1, "a", P::Long.into()), Field::optional(2, "a", P::Long.into())];
    assert!(JsonProgram::compile(&Schema::new(0, twice), ExtraFields::Ignore).is_err());
}
