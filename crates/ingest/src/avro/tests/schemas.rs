#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{PrimitiveType, Type};

use crate::avro::{AvroSchema, table_schema};

fn type_of(avro: &str) -> Result<(Type, bool), String> {
    let text = format!(
        r#"{{"type":"record","name":"R","namespace":"a.b","fields":[{{"name":"f","type":{avro}}}]}}"#
    );
    let writer = AvroSchema::parse(&text, []).map_err(|error| error.to_string())?;
    let table = table_schema(&writer).map_err(|error| error.to_string())?;
    Ok((table.fields[0].data_type.clone(), table.fields[0].required))
}

#[rstest]
#[case(r#""boolean""#, "boolean")]
#[case(r#""bytes""#, "binary")]
#[case(r#"{"type":"fixed","name":"F","size":7}"#, "fixed[7]")]
#[case(r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#, "uuid")]
#[case(r#"{"type":"fixed","name":"F","size":15,"logicalType":"uuid"}"#, "fixed[15]")]
#[case(r#"{"type":"fixed","name":"F","size":12,"logicalType":"duration"}"#, "fixed[12]")]
#[case(r#"{"type":"string","logicalType":"uuid"}"#, "uuid")]
#[case(r#"{"type":"enum","name":"E","symbols":["A"]}"#, "string")]
#[case(r#"{"type":"int","logicalType":"date"}"#, "date")]
#[case(r#"{"type":{"type":"int"},"logicalType":"date"}"#, "date")]
#[case(r#"{"type":"int","logicalType":"time-millis"}"#, "time")]
#[case(r#"{"type":"long","logicalType":"timestamp-nanos"}"#, "timestamptz")]
#[case(r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "timestamp")]
#[case(r#"{"type":"long","logicalType":"date"}"#, "long")]
#[case(r#"{"type":"string","logicalType":"colour"}"#, "string")]
#[case(r#"{"type":"bytes","logicalType":"big-decimal"}"#, "binary")]
#[case(r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":38}"#, "decimal(38, 38)")]
#[case(r#"{"type":"bytes","logicalType":"decimal","precision":4}"#, "decimal(4, 0)")]
#[case(r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#, "binary")]
fn leaves_map(#[case] avro: &str, #[case] expected: &str) {
    let expected: PrimitiveType = expected.parse().unwrap();
    assert_eq!(type_of(avro), Ok((expected.into(), true)));
    let union = type_of(&format!(r#"[{avro},"null"]"#));
    assert_eq!(union, Ok((expected.into(), false)));
}

#[rstest]
#[case::recursive(r#"["null","a.b.R"]"#, "record a.b.R contains itself")]
#[case::recursive_in_list(r#"{"type":"array","items":"R"}"#, "contains itself")]
#[case::decimal(r#"{"type":"bytes","logicalType":"decimal","precision":39}"#, "more than 38 digits")]
#[case::unknown(r#""Nowhere""#, "type a.b.Nowhere is not defined")]
#[case::nested_union(r#"["null",["int"]]"#, "directly in a union")]
#[case::array_of_null(r#"{"type":"array","items":"null"}"#, "array of null")]
#[case::empty(r#"{"type":"record","name":"Empty","fields":[]}"#, "record a.b.Empty has no field")]
#[case::twice(r#"{"type":"record","name":"R","fields":[]}"#, "defined twice")]
#[case::no_symbols(r#"{"type":"enum","name":"E"}"#, "no symbols")]
#[case::no_size(r#"{"type":"fixed","name":"E","size":-1}"#, "no valid size")]
#[case::null_alone(r#""null""#, "no field with a type")]
fn what_has_no_table_is_refused_by_name(#[case] avro: &str, #[case] why: &str) {
    let error = type_of(avro).unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[test]
fn references_resolve_in_any_order_and_keep_their_logical_type() {
    let text = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"price","type":"money.Amount"},{"name":"tax","type":["null","money.Amount"]},
        {"name":"lines","type":{"type":"array","items":"Line"}},{"name":"gone","type":"null"}]}"#;
    let line = r#"{"type":"record","name":"shop.Line","fields":[{"name":"cost","type":"money.Amount"}]}"#;
    let amount =
        r#"{"type":"fixed","name":"money.Amount","size":8,"logicalType":"decimal","precision":18,"scale":2}"#;
    let writer = AvroSchema::parse(text, [line, amount]).unwrap();
    let table = table_schema(&writer).unwrap();
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(json.matches("decimal(18, 2)").count(), 3, "{json}");
    assert!(table.column("gone").is_none(), "null alone has no column");
    let mut ids = Vec::new();
    table.visit(&mut |id| ids.push(id));
    assert_eq!(ids, [1, 2, 3, 4, 5], "depth-first");
}

#[test]
fn a_general_union_is_a_struct_of_its_branches() {
    let (data_type, required) =
        type_of(r#"["int",{"type":"fixed","name":"x.F","size":2},{"type":"array","items":"long"}]"#).unwrap();
    let Type::Struct(members) = data_type else { panic!("a struct") };
    let names: Vec<_> = members.iter().map(|member| (member.name.as_str(), member.required)).collect();
    assert_eq!(names, [("int", false), ("F", false), ("array", false)]);
    assert!(required);
}

#[test]
fn references_that_multiply_are_bounded() {
    let mut fields = String::from(r#"{"name":"f","type":"int"}"#);
    let mut documents = Vec::new();
    for level in 0..30 {
        documents.push(format!(r#"{{"type":"record","name":"L{level}","fields":[{fields}]}}"#));
        fields = format!(r#"{{"name":"a","type":"L{level}"}},{{"name":"b","type":"L{level}"}}"#);
    }
    let text = documents.pop().unwrap();
    let writer = AvroSchema::parse(&text, documents.iter().map(String::as_str)).unwrap();
    assert!(table_schema(&writer).unwrap_err().to_string().contains("more than 10000 fields"));
}

#[test]
fn docs_defaults_and_symbols_stay_out() {
    let text = r#"{"type":"record","name":"R","doc":"canary","fields":[
        {"name":"a","default":"canary","doc":"canary",
         "type":{"type":"enum","name":"E","symbols":["canary"]}}]}"#;
    let writer = AvroSchema::parse(text, []).unwrap();
    let table = table_schema(&writer).unwrap();
    let program = crate::avro::AvroProgram::compile(&writer, &table).unwrap();
    let shown = format!("{writer:?} {program:?} {}", serde_json::to_string(&table).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    let error = AvroSchema::parse(r#"{"type":"record" canary"#, []).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}
