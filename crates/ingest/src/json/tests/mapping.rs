//! JSON Schemas and the tables they become.

use rstest::rstest;

use crate::{
    IngestError,
    json::{Encoding, table_schema, table_schema_with_hints},
    registry::SchemaReference,
};

/// The columns of a schema in short: `name: type`, `!` where required.
fn columns(json_schema: &str, references: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let reference = |(name, schema): &(&str, &str)| SchemaReference {
        name: (*name).to_owned(),
        subject: String::new(),
        version: 1,
        schema: (*schema).to_owned(),
    };
    let references: Vec<_> = references.iter().map(reference).collect();
    let schema = table_schema(json_schema, &references).map_err(|error| error.to_string())?;
    Ok(schema
        .fields
        .iter()
        .map(|field| {
            let data_type = serde_json::to_string(&field.data_type).unwrap();
            format!(
                "{}{}: {}",
                field.name,
                if field.required { "!" } else { "" },
                data_type.trim_matches('"')
            )
        })
        .collect())
}

fn property(schema: &str) -> String {
    let mut columns = columns(&format!(r#"{{"type":"object","properties":{{"c":{schema}}}}}"#), &[]).unwrap();
    columns.remove(0).strip_prefix("c: ").unwrap().to_owned()
}

#[rstest]
#[case(r#"{"type":"integer"}"#, "long")]
#[case(r#"{"type":"integer","minimum":0,"maximum":10}"#, "long")]
#[case(r#"{"type":"integer","format":"int32"}"#, "int")]
#[case(r#"{"type":"integer","format":"uint64"}"#, "decimal(20, 0)")]
#[case(r#"{"type":"integer","connect.type":"int8"}"#, "int")]
#[case(r#"{"type":"integer","connect.type":"int64"}"#, "long")]
#[case(r#"{"type":"integer","connect.type":"int32","title":"org.apache.kafka.connect.data.Date"}"#, "date")]
#[case(r#"{"type":"integer","connect.type":"int32","title":"org.apache.kafka.connect.data.Time"}"#, "time")]
#[case(
    r#"{"type":"integer","connect.type":"int64","title":"org.apache.kafka.connect.data.Timestamp"}"#,
    "timestamptz"
)]
#[case(r#"{"type":"number"}"#, "double")]
#[case(r#"{"type":"number","connect.type":"float32"}"#, "float")]
#[case(r#"{"type":"number","connect.type":"float64"}"#, "double")]
#[case(
    r#"{"type":"number","connect.type":"bytes","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"4"}}"#,
    "decimal(38, 4)"
)]
#[case(
    r#"{"type":"string","connect.type":"bytes","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2","connect.decimal.precision":"9"}}"#,
    "decimal(9, 2)"
)]
#[case(r#"{"type":"string","format":"decimal","precision":12,"scale":2}"#, "decimal(12, 2)")]
#[case(r#"{"type":"string","format":"decimal"}"#, "string")]
#[case(r#"{"type":"string"}"#, "string")]
#[case(r#"{"type":"string","format":"date-time"}"#, "timestamptz")]
#[case(r#"{"type":"string","format":"local-date-time"}"#, "timestamp")]
#[case(r#"{"type":"string","format":"date"}"#, "date")]
#[case(r#"{"type":"string","format":"time"}"#, "time")]
#[case(r#"{"type":"string","format":"uuid"}"#, "uuid")]
#[case(r#"{"type":"string","format":"email"}"#, "string")]
#[case(r#"{"type":"string","contentEncoding":"base64"}"#, "binary")]
#[case(r#"{"type":"string","connect.type":"bytes"}"#, "binary")]
#[case(r#"{"type":"boolean"}"#, "boolean")]
#[case(r#"{"enum":["a","b"]}"#, "string")]
#[case(r#"{"enum":["a",null]}"#, "string")]
#[case(r#"{"enum":[1,2]}"#, "long")]
#[case(r#"{"const":true}"#, "boolean")]
#[case(r#"{"type":["integer","number","null"]}"#, "double")]
#[case(r#"{"oneOf":[{"type":"integer"},{"type":"null"}]}"#, "long")]
#[case(r#"{"anyOf":[{"type":"integer"},{"type":"number"}]}"#, "double")]
#[case(
    r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
    r#"{"type":"map","key-id":2,"key":"string","value-id":3,"value-required":true,"value":"long"}"#
)]
#[case(
    r#"{"type":"object","patternProperties":{".*":{"type":["string","null"]}},"additionalProperties":false}"#,
    r#"{"type":"map","key-id":2,"key":"string","value-id":3,"value-required":false,"value":"string"}"#
)]
#[case(
    r#"{"type":"array","items":{"type":["null","string"]}}"#,
    r#"{"type":"list","element-id":2,"element-required":false,"element":"string"}"#
)]
fn a_property_becomes_a_column(#[case] schema: &str, #[case] data_type: &str) {
    assert_eq!(property(schema), data_type);
}

#[rstest]
#[case("{}")]
#[case("true")]
#[case(r#"{"type":["integer","string"]}"#)]
#[case(r#"{"oneOf":[{"type":"integer"},{"type":"object","properties":{"a":{}}}]}"#)]
#[case(r#"{"type":"object"}"#)]
#[case(r#"{"type":"object","additionalProperties":true}"#)]
#[case(r#"{"type":"array"}"#)]
#[case(r#"{"type":"array","items":[{"type":"integer"},{"type":"string"}]}"#)]
#[case(r#"{"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"string"}}"#)]
#[case(r#"{"enum":[1,"a"]}"#)]
#[case(r#"{"type":"null"}"#)]
fn what_has_no_type_is_kept_as_its_text(#[case] schema: &str) {
    let object = format!(r#"{{"properties":{{"c":{schema}}}}}"#);
    let (table, hints) = table_schema_with_hints(&object, &[]).unwrap();
    assert_eq!(table.fields[0].data_type, siltstone_protocol::PrimitiveType::String.into());
    assert_eq!(hints.encodings, [(vec!["c".to_owned()], Encoding::RawJson)].into());
}

#[test]
fn a_whole_schema() {
    let schema = r##"{
      "$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
      "required": ["id", "note", "buyer"],
      "allOf": [{"$ref": "#/$defs/audited"}],
      "properties": {
        "zip": {"type": "string"},
        "id": {"type": "integer", "description": "d", "default": 5},
        "note": {"type": ["string", "null"]},
        "buyer": {"$ref": "#/definitions/person"},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"],
          "properties": {"sku": {"$ref": "sku.json"}, "price": {"$ref": "http://x.example/common.json#/$defs/money"}}}},
        "never": false
      },
      "definitions": {"person": {"type": "object", "properties": {"name": {"type": "string"}}}},
      "$defs": {"audited": {"properties": {"at": {"type": "string", "format": "date-time"}}, "required": ["at"]}}
    }"##;
    let references = [
        ("sku.json", r#"{"type":"string"}"#),
        (
            "common",
            r##"{"$id":"http://x.example/common.json","$defs":{"money":{"$ref":"#/$defs/amount"},"amount":{"type":"number"}}}"##,
        ),
    ];
    assert_eq!(
        columns(schema, &references).unwrap(),
        [
            "zip: string".to_owned(),
            "id!: long".to_owned(),
            "note: string".to_owned(),
            r#"buyer!: {"type":"struct","fields":[{"id":5,"name":"name","required":false,"type":"string"}]}"#.to_owned(),
            concat!(
                r#"lines: {"type":"list","element-id":7,"element-required":true,"element":{"type":"struct","fields":["#,
                r#"{"id":8,"name":"sku","required":true,"type":"string"},"#,
                r#"{"id":9,"name":"price","required":false,"type":"double"}]}}"#
            )
            .to_owned(),
            "at!: timestamptz".to_owned(),
        ]
    );
}

#[test]
fn connect_orders_its_properties_by_index() {
    let schema = r#"{"type":"object","properties":{
        "b":{"connect.index":1,"oneOf":[{"type":"null"},{"type":"integer","connect.type":"int16"}]},
        "a":{"connect.index":0,"type":"string"}}}"#;
    assert_eq!(columns(schema, &[]).unwrap(), ["a: string", "b: int"]);
}

#[test]
fn records_that_are_no_objects_have_one_column() {
    let (schema, hints) = table_schema_with_hints(r#"{"type":"array","items":{}}"#, &[]).unwrap();
    assert_eq!(schema.fields[0].name, "value");
    assert!(hints.bare && schema.fields[0].required);
    let path = vec!["value".to_owned(), "[]".to_owned()];
    assert_eq!(hints.encodings, [(path, Encoding::RawJson)].into());
    assert_eq!(columns(r#"{"type":["integer","null"]}"#, &[]).unwrap(), ["value: long"]);
    assert_eq!(columns("true", &[]).unwrap(), ["value: string"]);
}

#[rstest]
#[case(r##"{"properties":{"next":{"$ref":"#"}}}"##, "recursive")]
#[case(r##"{"properties":{"a":{"type":"array","items":{"$ref":"#/$defs/n"}}},"$defs":{"n":{"properties":{"secret":{"$ref":"#/$defs/n"}}}}}"##, "a[].secret")]
#[case(r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##, "recursive")]
#[case(r#"{"properties":{"a":{"$ref":"other.json"}}}"#, "points at nothing")]
#[case(r#"{"properties":{"a":{"type":"canary"}}}"#, "none of JSON Schema's")]
#[case(r#"{"properties":{"":{"type":"string"}}}"#, "empty name")]
#[case(r#"{"properties":{"a":{"type":"string","format":"decimal","scale":50}}}"#, "precision")]
#[case(r#"{"properties":{"a":"canary}"#, "not a JSON document")]
fn what_no_table_can_hold_is_refused_by_name(#[case] schema: &str, #[case] part: &str) {
    let error = columns(schema, &[]).unwrap_err();
    assert!(error.contains(part), "{error}");
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn a_refusal_has_the_column_apart_from_its_text() {
    let why = "a type is none of JSON Schema's";
    let nested = r#"{"properties":{"a":{"type":"array","items":{"type":"canary"}}}}"#;
    assert_eq!(table_schema(nested, &[]), Err(IngestError::column_refused("a[]", why)));
    let unnamed = r#"{"properties":{"":{"type":"string"}}}"#;
    let whole = IngestError::schema_refused("of JSON", "a property has an empty name");
    assert_eq!(table_schema(unnamed, &[]), Err(whole));
}

#[test]
fn references_that_multiply_are_bounded() {
    let mut definitions = vec![r#""d0":{"type":"integer"}"#.to_owned()];
    for level in 1..40 {
        let below = level - 1;
        definitions.push(format!(
            r##""d{level}":{{"properties":{{"a":{{"$ref":"#/$defs/d{below}"}},"b":{{"$ref":"#/$defs/d{below}"}}}}}}"##
        ));
    }
    let schema = format!(r##"{{"$ref":"#/$defs/d39","$defs":{{{}}}}}"##, definitions.join(","));
    assert!(columns(&schema, &[]).unwrap_err().contains("too many fields"));
    let deep = format!("{}{{\"type\":\"integer\"}}{}", r#"{"items":"#.repeat(100), "}".repeat(100));
    assert!(columns(&deep, &[]).unwrap_err().contains("too deep"));
}
