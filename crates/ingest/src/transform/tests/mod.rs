#![allow(clippy::unwrap_used, clippy::panic)]

mod casts;
mod filters;
mod protection;
mod random;
mod vault;

use arrow::array::RecordBatch;
use arrow_json::ReaderBuilder;
use siltstone_protocol::Schema;
use siltstone_spec::{InputSchema, SchemaMode, TableSpec, transform::outcome};
use std::sync::Arc;

use super::{Applied, Keys, Transform};
use crate::{columns::arrow_schema, dead_letter::told};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A table of these columns, with this in its spec.
fn table(fields: &str, more: &str) -> TableSpec {
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:1']}}]\ndestination_bucket_url: file:///lake\n\
         tables:\n  - name: t\n    source_cluster_name: c\n    source_topic: t\n    source_format: json\n    \
         input_schema: {{fields: {fields}}}\n{more}"
    );
    let env = |_: &str| Some(String::from_utf8(KEY.to_vec()).unwrap());
    match siltstone_spec::parse(&text, "s.yaml", &env) {
        Ok(mut spec) => spec.tables.remove(0),
        Err(faults) => panic!("{faults}"),
    }
}

fn source(table: &TableSpec) -> Schema {
    match &table.schema_mode {
        SchemaMode::Inline(InputSchema::Fields(schema)) => schema.clone(),
        _ => panic!("the fields stand in the spec"),
    }
}

/// Random bytes that repeat.
fn keys() -> Keys {
    let next = std::sync::atomic::AtomicU8::new(1);
    let random = move |bytes: &mut [u8]| {
        bytes.fill_with(|| next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    };
    Keys::derive(KEY, Arc::new(random)).unwrap()
}

fn transform(table: &TableSpec) -> Transform {
    let source = source(table);
    let made = outcome(table, &source).unwrap();
    Transform::compile(table, &source, &made, (&made.schema(), &made.schema()), &keys()).unwrap()
}

fn batch(table: &TableSpec, rows: &str) -> RecordBatch {
    let schema = arrow_schema(&source(table)).unwrap();
    let mut decoder = ReaderBuilder::new(schema).build_decoder().unwrap();
    decoder.decode(rows.as_bytes()).unwrap();
    decoder.flush().unwrap().unwrap()
}

fn apply(fields: &str, more: &str, rows: &str) -> Applied {
    let table = table(fields, more);
    transform(&table).apply(batch(&table, rows)).unwrap()
}

/// One column's values as texts.
fn column(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let array = batch.column_by_name(name).unwrap();
    let options = arrow::util::display::FormatOptions::default();
    let shown = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| (!array.is_null(row)).then(|| shown.value(row).to_string())).collect()
}

fn texts(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| (*value != "null").then(|| (*value).to_owned())).collect()
}

#[test]
fn columns_are_taken_renamed_made_and_nested_ones_rebuilt() {
    let fields = "[{name: id, type: long, required: true}, {name: cust, type: {struct: [{name: id, type: int}, \
                  {name: mail, type: string}]}}, {name: tags, type: list<string>}, {name: note, type: string}]";
    let more = "    transforms:\n      drop: [note]\n      rename: {cust: customer, cust.mail: email}\n      \
                cast: {customer.id: string}\n      constant: {region: {type: string, value: eu}, \
                since: {type: timestamptz, value: '2026-01-31T12:00:00Z'}}\n    protect: {customer.email: mask}\n";
    let rows = r#"{"id":1,"cust":{"id":7,"mail":"ann@example.com"},"tags":["a",null],"note":"x"}
{"id":2,"cust":null,"tags":[]}
{"id":3,"cust":{"id":null,"mail":null},"tags":null}"#;
    let applied = apply(fields, more, rows);
    assert_eq!((applied.filtered, applied.failed.len()), (0, 0));
    let batch = applied.batch;
    assert_eq!(column(&batch, "id"), texts(&["1", "2", "3"]));
    assert_eq!(
        column(&batch, "customer"),
        texts(&["{id: 7, email: ***@******e.com}", "null", "{id: , email: }"])
    );
    assert_eq!(column(&batch, "tags"), texts(&["[a, ]", "[]", "null"]));
    assert_eq!(column(&batch, "region"), texts(&["eu"; 3]));
    assert_eq!(column(&batch, "since"), texts(&["2026-01-31T12:00:00Z"; 3]));
    assert_eq!(batch.num_columns(), 5);
}

#[test]
fn rows_that_cannot_be_cast_are_named_and_the_others_stay() {
    let fields = "[{name: n, type: string}, {name: s, type: {struct: [{name: d, type: string}]}}, {name: k, type: long}]";
    let more = "    transforms: {filter: k <> 3, cast: {n: int, s.d: date}}\n";
    let rows = r#"{"n":"1","s":{"d":"2026-01-31"},"k":0}
{"n":"x","s":{"d":"2026-01-31"},"k":1}
{"n":"2","s":{"d":"soon"},"k":2}
{"n":"y","s":{"d":"soon"},"k":3}
{"n":"99999999999","s":null,"k":4}
{"n":null,"s":{"d":null},"k":5}
{"n":"6","s":null,"k":null}
{"n":"z","s":{"d":"later"},"k":7}"#;
    let applied = apply(fields, more, rows);
    assert_eq!(
        told(&applied.failed),
        [
            "1 n: string that is no int",
            "2 s.d: string that is no date",
            "4 n: string that is no int",
            "7 n: string that is no int"
        ],
        "each with its place in what came and the first of the table's columns"
    );
    assert_eq!(applied.filtered, 2, "the third by its value, the last because null is not true");
    assert_eq!(column(&applied.batch, "k"), texts(&["0", "5"]));
    assert_eq!(column(&applied.batch, "n"), texts(&["1", "null"]));
}

#[test]
fn a_wider_table_gets_what_it_needs() {
    let fields = "[{name: a, type: int}, {name: s, type: {struct: [{name: x, type: int}]}}, \
                  {name: l, type: {list: {struct: [{name: y, type: float}]}}}, {name: m, type: 'map<string, int>'}]";
    let table = table(fields, "    transforms: {rename: {a: b}}\n");
    let wide = "[{name: s, type: {struct: [{name: w, type: string}, {name: x, type: long}]}}, {name: other, type: date}, \
                {name: b, type: long}, \
                {name: l, type: {list: {struct: [{name: y, type: double}, {name: z, type: int}]}}}, \
                {name: m, type: 'map<string, long>'}]";
    let target = source(&self::table(wide, ""));
    let from = source(&table);
    let made = outcome(&table, &from).unwrap();
    let transform = Transform::compile(&table, &from, &made, (&target, &target), &keys()).unwrap();
    assert!(!transform.can_fail());
    let rows = r#"{"a":1,"s":{"x":2},"l":[{"y":0.5},null],"m":{"k":3}}
{"a":null,"s":null,"l":null,"m":null}"#;
    let applied = transform.apply(batch(&table, rows)).unwrap();
    assert_eq!(applied.batch.schema(), arrow_schema(&target).unwrap());
    let batch = applied.batch;
    assert_eq!(column(&batch, "s"), texts(&["{w: , x: 2}", "null"]));
    assert_eq!(column(&batch, "other"), texts(&["null", "null"]));
    assert_eq!(column(&batch, "b"), texts(&["1", "null"]));
    assert_eq!(column(&batch, "l"), texts(&["[{y: 0.5, z: }, ]", "null"]));
    assert_eq!(column(&batch, "m"), texts(&["{k: 3}", "null"]));
}

fn into(from: &str, wide: &str) -> (TableSpec, Transform) {
    let table = table(from, "    transforms: {filter: k >= 0}\n");
    let (source, target) = (source(&table), source(&self::table(wide, "")));
    let made = outcome(&table, &source).unwrap();
    let transform = Transform::compile(&table, &source, &made, (&target, &target), &keys()).unwrap();
    (table, transform)
}

#[test]
fn what_a_wider_column_cannot_hold_as_it_is_fails_its_row_wherever_it_stands() {
    for (from, to, good, bad) in [
        ("long", "double", "9007199254740992", "9007199254740993"),
        ("long", "float", "16777216", "9223372036854775807"),
        ("int", "float", "-16777216", "16777217"),
        ("binary", "string", "\"6869\"", "\"ff\""),
    ] {
        let columns = |of: &str| {
            format!(
                "[{{name: k, type: int}}, {{name: v, type: {of}}}, \
                 {{name: s, type: {{struct: [{{name: v, type: {of}}}]}}}}, \
                 {{name: l, type: {{list: {{struct: [{{name: v, type: {of}}}]}}}}}}, \
                 {{name: m, type: 'map<string, {of}>'}}]"
            )
        };
        let (table, transform) = into(&columns(from), &columns(to));
        assert!(transform.can_fail());
        let row = |k: i32, values: [&str; 4]| {
            let [v, s, l, m] = values;
            format!(
                r#"{{"k":{k},"v":{v},"s":{{"v":{s}}},"l":[{{"v":{good}}},null,{{"v":{l}}}],"m":{{"a":{m},"b":null}}}}"#
            )
        };
        let rows = [
            row(-1, [bad; 4]),
            row(1, [good; 4]),
            row(2, [bad, good, good, good]),
            row(3, [good, bad, good, good]),
            r#"{"k":4,"v":null,"s":null,"l":[],"m":null}"#.to_owned(),
            row(5, [good, good, bad, good]),
            row(6, [good, good, good, bad]),
            row(7, [good; 4]),
        ];
        let applied = transform.apply(batch(&table, &rows.join("\n"))).unwrap();
        let detail = match from {
            "binary" => "binary that is not UTF-8 where string is wanted".to_owned(),
            _ => format!("{from} that {to} cannot hold exactly"),
        };
        let expected = ["2 v", "3 s.v", "5 l[].v", "6 m{}"].map(|at| format!("{at}: {detail}"));
        assert_eq!((applied.filtered, told(&applied.failed)), (1, expected.to_vec()));
        assert_eq!(column(&applied.batch, "k"), texts(&["1", "4", "7"]));
        let values = column(&applied.batch, "v");
        assert!(values[0].is_some() && values[1].is_none() && values[0] == values[2]);
        let v = values[0].as_deref().unwrap();
        assert_eq!(column(&applied.batch, "s")[0], Some(format!("{{v: {v}}}")));
        assert_eq!(column(&applied.batch, "l")[2], Some(format!("[{{v: {v}}}, , {{v: {v}}}]")));
        assert_eq!(column(&applied.batch, "m")[2], Some(format!("{{a: {v}, b: }}")));
    }
}

#[test]
fn a_cast_that_is_asked_for_may_round() {
    let more = "    transforms: {cast: {v: double}}\n";
    let table = table("[{name: v, type: long}]", more);
    assert!(!transform(&table).can_fail());
    let applied = transform(&table).apply(batch(&table, "{\"v\":9007199254740993}")).unwrap();
    assert_eq!(applied.batch.num_rows(), 1);
}

#[test]
fn a_constant_is_what_it_says_or_none() {
    let more = "    transforms: {constant: {c: {type: long, value: 9007199254740993}}}\n";
    let table = table("[{name: v, type: int}]", more);
    let target = source(&self::table("[{name: v, type: int}, {name: c, type: double}]", ""));
    let from = source(&table);
    let made = outcome(&table, &from).unwrap();
    let error = Transform::compile(&table, &from, &made, (&target, &target), &keys()).unwrap_err();
    assert!(error.to_string().starts_with("transforms.constant.c is invalid: "), "{error}");
}

#[test]
fn what_no_text_can_say_fails_its_row_before_it_is_protected() {
    use arrow::array::{ArrayRef, Date32Array};
    let more = "    protect: {d: mask}\n";
    let table = table("[{name: d, type: date}]", more);
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(i32::MAX), None, Some(0)]));
    let batch = RecordBatch::try_new(arrow_schema(&source(&table)).unwrap(), vec![days]).unwrap();
    let transform = transform(&table);
    assert!(transform.can_fail());
    let applied = transform.apply(batch).unwrap();
    assert_eq!(told(&applied.failed), ["0 d: date that does not fit string"]);
    assert_eq!(column(&applied.batch, "d"), texts(&["null", "****-01-01"]));
}

/// The schema with names of members of structs changed, wherever those stand.
fn renamed(schema: &Schema) -> Schema {
    use siltstone_protocol::{Field, Type};
    fn inside(data_type: &Type) -> Type {
        match data_type {
            Type::Primitive(of) => Type::Primitive(*of),
            Type::Struct(members) => {
                let member = |field: &Field| {
                    let data_type = inside(&field.data_type);
                    Field { name: format!("{}_old", field.name), data_type, ..field.clone() }
                };
                Type::Struct(members.iter().map(member).collect())
            }
            Type::List { element_id, element_required, element } => Type::List {
                element_id: *element_id,
                element_required: *element_required,
                element: Box::new(inside(element)),
            },
            Type::Map { key_id, key, value_id, value_required, value } => Type::Map {
                key_id: *key_id,
                key: Box::new(inside(key)),
                value_id: *value_id,
                value_required: *value_required,
                value: Box::new(inside(value)),
            },
        }
    }
    let column = |field: &Field| Field { data_type: inside(&field.data_type), ..field.clone() };
    Schema::new(schema.schema_id, schema.fields.iter().map(column).collect())
}

#[test]
fn members_that_records_call_otherwise_are_laid_out_under_the_tables_names() {
    let fields = "[{name: a, type: int}, {name: s, type: {struct: [{name: x, type: int}, \
                  {name: t, type: {struct: [{name: y, type: string}]}}]}}, \
                  {name: l, type: {list: {struct: [{name: z, type: int}]}}}, \
                  {name: m, type: {map: {key: string, value: {struct: [{name: v, type: int}]}}}}]";
    let rows = r#"{"a":1,"s":{"x":2,"t":{"y":"b"}},"l":[{"z":3},null],"m":{"k":{"v":4}}}
{"a":null,"s":null,"l":null,"m":null}"#;
    // Structs that are taken as they are, and one that is built anew.
    for more in ["    transforms: {rename: {a: b}}\n", "    transforms: {cast: {s.x: long}}\n"] {
        let table = table(fields, more);
        let from = source(&table);
        let made = outcome(&table, &from).unwrap();
        let called = made.schema();
        let target = renamed(&called);
        assert_ne!(called, target);
        let transform = Transform::compile(&table, &from, &made, (&called, &target), &keys()).unwrap();
        let applied = transform.apply(batch(&table, rows)).unwrap();
        assert_eq!(applied.batch.schema(), arrow_schema(&target).unwrap(), "{more}");
        let batch = applied.batch;
        assert_eq!(column(&batch, "s"), texts(&["{x_old: 2, t_old: {y_old: b}}", "null"]), "{more}");
        assert_eq!(column(&batch, "l"), texts(&["[{z_old: 3}, ]", "null"]), "{more}");
        assert_eq!(column(&batch, "m"), texts(&["{k: {v_old: 4}}", "null"]), "{more}");
    }
}

#[test]
fn what_stands_in_a_struct_that_is_null_breaks_no_required_member() {
    use arrow::{
        array::{ArrayRef, Int32Array, StructArray},
        buffer::NullBuffer,
        datatypes::{DataType, Fields},
    };
    let members = |schema: &DataType| -> Fields {
        match schema {
            DataType::Struct(fields) => fields.clone(),
            _ => panic!("it is a struct"),
        }
    };
    let table = table("[{name: s, type: {struct: [{name: t, type: {struct: [{name: y, type: int}]}}]}}]", "");
    let strict = "[{name: s, type: {struct: [{name: t, required: true, type: {struct: [{name: y, type: int, \
                  required: true}]}}]}}]";
    let (from, target) = (source(&table), source(&self::table(strict, "")));
    let made = outcome(&table, &from).unwrap();
    let transform = Transform::compile(&table, &from, &made, (&target, &target), &keys()).unwrap();
    let schema = arrow_schema(&from).unwrap();
    let outer = members(schema.field(0).data_type());
    let inner = members(outer[0].data_type());
    let y: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let t: ArrayRef = Arc::new(StructArray::new(inner, vec![y], None));
    let s: ArrayRef = Arc::new(StructArray::new(outer, vec![t], Some(NullBuffer::from(vec![true, false]))));
    let applied = transform.apply(RecordBatch::try_new(schema, vec![s]).unwrap()).unwrap();
    assert_eq!(applied.batch.schema(), arrow_schema(&target).unwrap());
    assert_eq!(column(&applied.batch, "s"), texts(&["{t: {y: 1}}", "null"]));
}
