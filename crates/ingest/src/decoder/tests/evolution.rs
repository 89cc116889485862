//! Older and newer writer schemas in turn, in one table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use futures::executor::block_on;
use siltstone_protocol::RejectReason;
use siltstone_spec::TableSpec;

use crate::{
    Headers, Record,
    decoder::{Decoder, Learned, Pushed},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};

const OLD: &str = r#"{"type":"record","name":"R","fields":[{"name":"old","type":"int"}]}"#;
const NEW: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"new","type":"long","aliases":["old"]},{"name":"note","type":"string","default":"-"}]}"#;
const TEXT: &str = r#"{"type":"record","name":"R","fields":[{"name":"old","type":"string"}]}"#;
const TREE: &str = r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]}]}"#;

fn spec(more: &str) -> TableSpec {
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:9092'], schema_registry: {{url: 'http://r'}}}}]\n\
         destination_bucket_url: file:///lake\n\
         tables: [{{name: t, source_cluster_name: c, source_topic: t, source_format: avro{more}}}]\n"
    );
    siltstone_spec::parse(&text, "spec.yaml", &|_| None).unwrap().tables.remove(0)
}

fn registry() -> FixedRegistry {
    let registry = FixedRegistry::new();
    for (id, schema) in [(1, OLD), (2, NEW), (3, TEXT), (4, TREE)] {
        let (format, schema) = (RegistryFormat::Avro, schema.to_owned());
        registry.put("t-value", RegisteredSchema { id, format, schema, references: vec![] });
    }
    registry
}

/// Records of these ids in turn: what became of each, how often the table changed, and the last batch.
fn decode(spec: &TableSpec, records: &[(u32, &[u8])]) -> (Vec<Pushed>, usize, Option<RecordBatch>) {
    let (mut decoder, registry, mut changes) = (Decoder::new(spec, None).unwrap(), registry(), 0);
    let outcomes = records.iter().map(|(id, body)| {
        let value = [&[0], &id.to_be_bytes()[..], body].concat();
        let (key, headers) = (None, Headers::empty());
        let record =
            Record { partition: 0, offset: 0, timestamp_ms: None, key, value: Some(&value), headers };
        loop {
            let need = match decoder.push(&record) {
                Pushed::NeedsSchema(need) => need,
                outcome => return outcome,
            };
            if let Learned::Evolves(schema) = block_on(decoder.learn(need, Some(&registry))).unwrap() {
                decoder.finish().unwrap();
                decoder.set_table_schema(schema).unwrap();
                changes += 1;
                assert!(changes < 10, "it does not settle");
            }
        }
    });
    let outcomes = outcomes.collect();
    (outcomes, changes, decoder.finish().unwrap())
}

#[test]
fn a_renamed_and_widened_column_takes_both() {
    let spec = spec(", formats: [iceberg]");
    let records: &[(u32, &[u8])] = &[(1, &[2]), (2, &[4, 2, b'x']), (1, &[6]), (2, &[8, 0])];
    let (outcomes, changes, batch) = decode(&spec, records);
    assert_eq!((outcomes.as_slice(), changes), (&[Pushed::Row; 4][..], 2));
    let batch = batch.unwrap();
    assert_eq!(batch.schema().field(0).name(), "new");
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[2, 3, 4]);
    let notes = batch.column(1).as_string::<i32>();
    // A default is for readers of Avro: the row of a writer that did not know the field is null.
    assert_eq!((notes.value(0), notes.is_null(1), notes.value(2)), ("x", true, ""));
}

#[test]
fn where_nothing_can_be_widened_another_column_takes_what_does_not_fit() {
    let spec = spec(", on_incompatible: new_column");
    let records: &[(u32, &[u8])] = &[(1, &[2]), (2, &[4, 2, b'x']), (3, &[2, b't']), (1, &[6]), (2, &[8, 0])];
    let (outcomes, changes, batch) = decode(&spec, records);
    assert_eq!((outcomes.as_slice(), changes), (&[Pushed::Row; 5][..], 3));
    let batch = batch.unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["old", "old_long", "note", "old_string"]);
    let (narrow, wide) =
        (batch.column(0).as_primitive::<Int32Type>(), batch.column(1).as_primitive::<Int64Type>());
    assert_eq!((narrow.is_null(0), narrow.value(1), narrow.is_null(2)), (true, 3, true));
    assert_eq!((wide.is_null(0), wide.is_null(1), wide.value(2)), (true, true, 4));
    assert_eq!(batch.column(3).as_string::<i32>().value(0), "t");
    // What is no column at all is rejected all the same.
    let rejected = Pushed::Rejected { reason: RejectReason::IncompatibleSchema, schema_id: Some(4) };
    assert_eq!(decode(&spec, &[(1, &[2]), (4, &[0])]).0, [Pushed::Row, rejected]);
}

#[test]
fn a_dead_letter_names_the_column_that_its_schema_is_refused_for() {
    let (mut decoder, registry) = (Decoder::new(&spec(""), None).unwrap(), registry());
    let value = [0u8, 0, 0, 0, 4, 0];
    let (key, headers) = (None, Headers::empty());
    let record = Record { partition: 0, offset: 0, timestamp_ms: None, key, value: Some(&value), headers };
    let Pushed::NeedsSchema(need) = decoder.push(&record) else { panic!("it knows no schema yet") };
    let refused = Learned::Refused(RejectReason::IncompatibleSchema);
    assert_eq!(block_on(decoder.learn(need, Some(&registry))), Ok(refused));
    let rejected = Pushed::Rejected { reason: RejectReason::IncompatibleSchema, schema_id: Some(4) };
    assert_eq!(decoder.push(&record), rejected);
    let about = decoder.about().unwrap();
    let why = "record R contains itself; a table cannot be recursive";
    assert_eq!((about.field.as_deref(), about.detail.as_str()), (Some("next"), why));
}

#[test]
fn a_table_that_stops_says_what_does_not_fit() {
    let spec = spec(", on_incompatible: stop, formats: [iceberg]");
    let (mut decoder, registry) = (Decoder::new(&spec, None).unwrap(), registry());
    for (id, said) in [
        (1, None),
        (3, Some("schema at old cannot be used: records have string for a column of int")),
        (4, Some("schema at next cannot be used: record R contains itself; a table cannot be recursive")),
        (1, None),
    ] {
        let learned = block_on(decoder.learn(crate::decoder::SchemaNeed::Id(id), Some(&registry))).unwrap();
        match learned {
            Learned::Evolves(schema) => decoder.set_table_schema(schema).unwrap(),
            Learned::Ready => assert_eq!(said, None),
            Learned::Stops(error) => assert_eq!(Some(error.to_string().as_str()), said),
            Learned::Refused(reason) => panic!("{reason}"),
        }
    }
}
