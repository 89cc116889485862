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
use crate::columns::arrow_schema;

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
{"n":"6","s":null,"k":null}"#;
    let applied = apply(fields, more, rows);
    assert_eq!(applied.failed, [1, 2, 4]);
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
