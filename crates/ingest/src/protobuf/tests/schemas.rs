#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, Schema};

use super::shown::{Case, schema};
use crate::{
    protobuf::{ProtobufFile, ProtobufProgram, known, table_schema},
    registry::SchemaReference,
};

fn reference(name: &str, schema: &str) -> SchemaReference {
    SchemaReference { name: name.to_owned(), subject: "s".to_owned(), version: 1, schema: schema.to_owned() }
}

fn refusal(text: &str) -> String {
    match ProtobufFile::compile(text, &[]).and_then(|file| table_schema(&file.message(None)?)) {
        Ok(schema) => panic!("it has a table: {schema:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn types_map_as_the_table_says() {
    let text = r#"syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";
        import "google/protobuf/any.proto"; import "google/protobuf/wrappers.proto";
        message Order { uint64 z = 9; int32 a = 1; optional bytes b = 2; repeated Line lines = 3;
            map<uint32, google.protobuf.Timestamp> at = 4; oneof pay { string card = 5; bool cash = 6; }
            google.protobuf.Any any = 7; google.protobuf.DoubleValue w = 8; Nothing nothing = 10; }
        message Line { string sku = 1; } message Nothing {}"#;
    let table = table_schema(&schema(text, Some("Order"))).unwrap();
    let expected = serde_json::json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "z", "number": 9, "required": true, "type": "decimal(20, 0)"},
        {"id": 2, "name": "a", "number": 1, "required": true, "type": "int"},
        {"id": 3, "name": "b", "number": 2, "required": false, "type": "binary"},
        {"id": 4, "name": "lines", "number": 3, "required": true, "type": {"type": "list", "element-id": 5,
            "element-required": true, "element": {"type": "struct", "fields": [
                {"id": 6, "name": "sku", "number": 1, "required": true, "type": "string"}]}}},
        {"id": 7, "name": "at", "number": 4, "required": true, "type": {"type": "map", "key-id": 8, "key": "long",
            "value-id": 9, "value-required": true, "value": "timestamptz"}},
        {"id": 10, "name": "card", "number": 5, "required": false, "type": "string"},
        {"id": 11, "name": "cash", "number": 6, "required": false, "type": "boolean"},
        {"id": 12, "name": "any", "number": 7, "required": false, "type": {"type": "struct", "fields": [
            {"id": 13, "name": "type_url", "number": 1, "required": true, "type": "string"},
            {"id": 14, "name": "value", "number": 2, "required": true, "type": "binary"}]}},
        {"id": 15, "name": "w", "number": 8, "required": false, "type": "double"},
    ]});
    assert_eq!(serde_json::to_value(&table).unwrap(), expected);
}

#[rstest]
#[case::recursive(
    "message T { int32 a = 1; repeated N n = 2; } message N { T t = 1; }",
    "at n[].t: cannot be used: message T contains itself"
)]
#[case::empty("message T {}", "no field that can be a column")]
#[case::none("enum E { A = 0; }", "it has no message")]
#[case::syntax("message T { int32 a = ; }", "(line 2, column 23)")]
#[case::unknown_type("message T { Secret a = 1; }", "(line 2, column 13)")]
#[case::unknown_import("import \"a/b.proto\"; message T { int32 a = 1; }", "an import is neither")]
fn schemas_without_a_table_are_refused(#[case] text: &str, #[case] why: &str) {
    let error = refusal(&format!("syntax = \"proto3\";\n{text}"));
    assert!(
        error.contains(why) || error.contains(&why.replace(": cannot be used", " cannot be used")),
        "{error}"
    );
    assert!(!error.contains("Secret"), "{error}");
}

#[test]
fn editions_and_deep_brackets_are_refused() {
    assert!(refusal("edition = \"2023\"; message M { int32 a = 1; }").contains("proto2 or proto3"));
    let deep = format!("syntax = \"proto3\"; option (x) = {{ {} }};", "a { ".repeat(10_000));
    assert!(refusal(&deep).contains("nest deeper"));
}

/// A schema that grows by references to references; a diamond among them.
#[test]
fn references_are_imports_by_their_names() {
    let references = [
        reference("base.proto", "syntax = \"proto3\"; package b; message Base { int32 n = 1; }"),
        reference(
            "left.proto",
            "syntax = \"proto3\"; import \"base.proto\"; message Left { b.Base base = 1; }",
        ),
        reference("dir/right.proto", "syntax = \"proto2\"; import public \"base.proto\"; enum R { X = 4; }"),
    ];
    let text = "syntax = \"proto2\"; import \"left.proto\"; import \"dir/right.proto\"; \
                message M { optional Left left = 1; optional R r = 2; optional b.Base base = 3; }";
    let file = ProtobufFile::compile(text, &references).unwrap();
    let mut case = Case::of(&file.message(None).unwrap());
    let body = b"\x0a\x04\x0a\x02\x08\x05\x10\x04\x1a\x00";
    assert_eq!(case.row(body).as_deref(), Ok(r#"{left:{base:{n:5}},r:"X",base:{n:0}}"#));
    assert_eq!(file.message(Some("b.Base")).unwrap().name(), "b.Base", "what is imported can be a record");
    let cycle = [
        reference("a.proto", "syntax = \"proto3\"; import \"b.proto\"; message A {}"),
        reference("b.proto", "syntax = \"proto3\"; import \"a.proto\"; message B {}"),
    ];
    let error = ProtobufFile::compile("syntax = \"proto3\"; import \"a.proto\"; message M {}", &cycle);
    assert!(error.unwrap_err().to_string().contains("form a cycle"));
}

#[test]
fn what_registries_know_needs_no_reference() {
    for name in known::names() {
        let text = format!("syntax = \"proto3\"; import \"{name}\"; message M {{ int32 a = 1; }}");
        ProtobufFile::compile(&text, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let text = "syntax = \"proto3\"; import \"confluent/meta.proto\"; import \"confluent/type/decimal.proto\"; \
                message M { option (confluent.message_meta).doc = \"d\"; \
                confluent.type.Decimal d = 1 [(confluent.field_meta) = { params: [{ key: \"precision\", value: \"9\" }] }]; }";
    let mut case = Case::new(text);
    assert_eq!(
        case.row(b"\x0a\x07\x0a\x01\x7b\x10\x05\x18\x02").as_deref(),
        Ok("{d:{value:[123],precision:5,scale:2}}")
    );
}

#[rstest]
#[case::unknown(vec![Field::optional(1, "g", PrimitiveType::Int.into())], "no such column")]
#[case::narrower(vec![Field::optional(1, "f", PrimitiveType::Int.into())], "does not fit")]
#[case::nullable(vec![Field::required(1, "f", PrimitiveType::Long.into())], "lets it be null")]
#[case::missing(
    vec![Field::optional(1, "f", PrimitiveType::Long.into()), Field::required(2, "g", PrimitiveType::Int.into())],
    "does not have it"
)]
fn a_table_that_must_change_first_is_named(#[case] columns: Vec<Field>, #[case] why: &str) {
    let schema = schema("syntax = \"proto3\"; message M { optional int64 f = 1; }", None);
    let error = ProtobufProgram::compile(&schema, &Schema::new(0, columns)).unwrap_err().to_string();
    assert!(error.contains(why) && (error.contains("at f") || error.contains("at g")), "{error}");
}
