#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use futures::executor::block_on;
use siltstone_protocol::{ErrorKind, PrimitiveType, RejectReason, Schema};
use siltstone_spec::{DlqMode, InputSchema, SchemaMode, SourceFormat, TableSpec, Tombstones, WireFormat};

use crate::{
    Headers, Record,
    columns::arrow_schema,
    decoder::{Decoder, KAFKA_COLUMN, Learned, Pushed, SchemaNeed, initial_schema},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};

const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"}]}"#;
const V2: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"long"},{"name":"note","type":["null","string"],"default":null}]}"#;
const OTHER: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"string"}]}"#;

fn spec() -> TableSpec {
    let text = "source_clusters:\n  - name: c\n    bootstrap_brokers: [{hostname: b, port: 9092}]\n    \
                schema_registry: {url: \"http://registry.internal\"}\n\
                destination_bucket_url: \"file:///lake\"\ntables:\n  - name: shop.orders\n    \
                source_cluster_name: c\n    source_topic: orders\n    source_format: avro\n    \
                wire_format: confluent\n    schema_mode: registry\n    formats: [iceberg]\n";
    siltstone_spec::parse(text, "spec.yaml", &|_| None).unwrap().tables.remove(0)
}

fn avro(id: u32, schema: &str) -> RegisteredSchema {
    RegisteredSchema { id, format: RegistryFormat::Avro, schema: schema.to_owned(), references: vec![] }
}

fn registry() -> FixedRegistry {
    let registry = FixedRegistry::new();
    registry.put("orders-value", avro(1, V1));
    registry.put("orders-value", avro(2, V2));
    registry.put("elsewhere", avro(3, OTHER));
    registry.put("elsewhere", RegisteredSchema { format: RegistryFormat::Json, ..avro(4, "{}") });
    registry
}

fn record(value: Option<&[u8]>) -> Record<'_> {
    Record { partition: 3, offset: 70, timestamp_ms: Some(5), key: None, value, headers: Headers::empty() }
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

/// Pushes as a worker does: learns what is needed and lets the table grow.
fn push(
    decoder: &mut Decoder,
    record: &Record<'_>,
    registry: &FixedRegistry,
    done: &mut Vec<RecordBatch>,
) -> Pushed {
    for _ in 0..8 {
        let need = match decoder.push(record) {
            Pushed::NeedsSchema(need) => need,
            outcome => return outcome,
        };
        if let Learned::Evolves(schema) = block_on(decoder.learn(need, Some(registry))).unwrap() {
            done.extend(decoder.finish().unwrap());
            decoder.set_table_schema(schema).unwrap();
        }
    }
    panic!("it never learns")
}

fn rejected(reason: RejectReason, schema_id: Option<u32>) -> Pushed {
    Pushed::Rejected { reason, schema_id }
}

/// A decoder whose table exists, and what was finished on the way.
fn decode(spec: &TableSpec, values: &[Vec<u8>]) -> (Vec<Pushed>, Vec<RecordBatch>) {
    let (mut decoder, registry) = (Decoder::new(spec, None).unwrap(), registry());
    let mut batches = Vec::new();
    let outcomes = values
        .iter()
        .map(|value| push(&mut decoder, &record(Some(value)), &registry, &mut batches))
        .collect();
    batches.extend(decoder.finish().unwrap());
    (outcomes, batches)
}

#[test]
fn interleaved_ids_share_a_batch_after_one_evolution() {
    let mut values = vec![framed(1, &[2])];
    for row in 0..10u8 {
        values.push(framed(1 + u32::from(row % 2), if row % 2 == 0 { &[4] } else { &[6, 2, 2, b'n'] }));
    }
    let (outcomes, batches) = decode(&spec(), &values);
    assert!(outcomes.iter().all(|outcome| *outcome == Pushed::Row));
    let rows: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(rows, [2, 9], "one batch before the table grew, one after");
    assert_eq!(batches[0].column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert_eq!(batches[1].column(0).as_primitive::<Int64Type>().values()[..3], [3, 2, 3]);
    let notes = batches[1].column(1).as_string::<i32>();
    assert_eq!((notes.value(0), notes.is_null(1)), ("n", true));
}

#[test]
fn a_rejection_says_what_it_is_about() {
    let (mut decoder, registry, mut done) = (Decoder::new(&spec(), None).unwrap(), registry(), Vec::new());
    let mut about = |value: &[u8]| {
        push(&mut decoder, &record(Some(value)), &registry, &mut done);
        decoder.about().map(|about| (about.field.clone(), about.detail.clone()))
    };
    let told = |field: Option<&str>, detail: &str| Some((field.map(str::to_owned), detail.to_owned()));
    assert_eq!(about(&framed(1, &[2])), None);
    assert_eq!(about(&framed(3, &[2, b'x'])), told(Some("id"), "records have string for a column of int"));
    assert_eq!(about(&framed(1, &[])), told(Some("id"), "the record ends before its int does"));
    let left = "bytes after the last field of the writer's schema";
    assert_eq!(about(&framed(1, &[2, 2])), told(None, left));
    assert_eq!(about(&[0, 0, 0, 1]), None);
    assert_eq!(about(&framed(1, &[4])), None);
}

#[test]
fn what_nobody_asks_about_is_not_looked_into() {
    let spec = TableSpec { dlq_mode: DlqMode::Skip, ..spec() };
    let (mut decoder, registry, mut done) = (Decoder::new(&spec, None).unwrap(), registry(), Vec::new());
    let mut push = |value: &[u8]| push(&mut decoder, &record(Some(value)), &registry, &mut done);
    assert_eq!(push(&framed(1, &[2])), Pushed::Row);
    assert_eq!(push(&framed(1, &[])), rejected(RejectReason::Truncated, Some(1)));
    assert!(decoder.about().is_none());
}

#[test]
fn what_the_table_cannot_take_is_rejected_with_its_reason() {
    let (mut decoder, registry, mut done) = (Decoder::new(&spec(), None).unwrap(), registry(), Vec::new());
    let mut outcome = |value: &[u8]| push(&mut decoder, &record(Some(value)), &registry, &mut done);
    assert_eq!(outcome(&framed(1, &[2])), Pushed::Row);
    assert_eq!(outcome(&framed(3, &[2, b'x'])), rejected(RejectReason::IncompatibleSchema, Some(3)));
    assert_eq!(outcome(&framed(4, b"{}")), rejected(RejectReason::WrongSchemaFormat, Some(4)));
    assert_eq!(outcome(&framed(9, &[])), rejected(RejectReason::UnknownSchemaId, Some(9)));
    assert_eq!(outcome(&framed(1, &[])), rejected(RejectReason::Truncated, Some(1)));
    assert_eq!(outcome(&framed(1, &[2, 2])), rejected(RejectReason::TrailingBytes, Some(1)));
    assert_eq!(outcome(&[0, 0, 0, 1]), rejected(RejectReason::BadFraming, None));
    assert_eq!(outcome(&[1, 0, 0, 0, 1, 2]), rejected(RejectReason::BadFraming, None));
    assert_eq!(outcome(&framed(1, &[4])), Pushed::Row);
    let requests = registry.requests();
    assert_eq!(outcome(&framed(3, &[2, b'x'])), rejected(RejectReason::IncompatibleSchema, Some(3)));
    assert_eq!(registry.requests(), requests, "a refusal is remembered");
    let batch = decoder.finish().unwrap().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
}

#[test]
fn an_unknown_id_is_asked_for_again_after_a_while() {
    let (mut decoder, registry, mut done) = (Decoder::new(&spec(), None).unwrap(), registry(), Vec::new());
    let value = framed(50, &[2]);
    let mut outcomes = |decoder: &mut Decoder, count: usize| -> Vec<Pushed> {
        (0..count).map(|_| push(decoder, &record(Some(&value)), &registry, &mut done)).collect()
    };
    let unknown = rejected(RejectReason::UnknownSchemaId, Some(50));
    assert!(outcomes(&mut decoder, 300).iter().all(|outcome| *outcome == unknown));
    let asked = registry.requests();
    assert!((2..5).contains(&asked), "asked {asked} times");
    registry.put("orders-value", avro(50, V1));
    assert_eq!(outcomes(&mut decoder, 1000).last(), Some(&Pushed::Row));
}

#[test]
fn an_outage_is_an_error_and_loses_nothing() {
    let (mut decoder, registry) = (Decoder::new(&spec(), None).unwrap(), registry());
    registry.set_outage(true);
    let value = framed(1, &[2]);
    let need = SchemaNeed::Id(1);
    assert_eq!(decoder.push(&record(Some(&value))), Pushed::NeedsSchema(need));
    let error = block_on(decoder.learn(need, Some(&registry))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    registry.set_outage(false);
    assert_eq!(push(&mut decoder, &record(Some(&value)), &registry, &mut Vec::new()), Pushed::Row);
}

#[test]
fn tombstones_follow_the_spec() {
    let mut spec = TableSpec { tombstones: Tombstones::Skip, ..spec() };
    let tombstone = record(None);
    let skipped = Decoder::new(&spec, None).unwrap().push(&tombstone);
    assert_eq!(skipped, Pushed::Skipped(RejectReason::NullValue));
    spec.tombstones = Tombstones::Reject;
    assert_eq!(Decoder::new(&spec, None).unwrap().push(&tombstone), rejected(RejectReason::NullValue, None));
    spec.tombstones = Tombstones::Row;
    let mut decoder = Decoder::new(&spec, None).unwrap();
    // The id column is required in both versions: a row of nulls cannot be.
    let outcome = push(&mut decoder, &tombstone, &registry(), &mut Vec::new());
    assert_eq!(outcome, rejected(RejectReason::NullValue, None));
    let mut decoder = Decoder::new(&raw(Tombstones::Row), None).unwrap();
    assert_eq!(push(&mut decoder, &tombstone, &registry(), &mut Vec::new()), Pushed::Row);
    let batch = decoder.finish().unwrap().unwrap();
    assert!(batch.column(0).is_null(0));
    assert_eq!(batch.column(1).as_struct().column(2).as_primitive::<Int64Type>().value(0), 70);
}

fn raw(tombstones: Tombstones) -> TableSpec {
    TableSpec {
        source_format: SourceFormat::Raw,
        wire_format: WireFormat::Raw,
        schema_mode: SchemaMode::None,
        kafka_metadata: true,
        tombstones,
        ..spec()
    }
}

#[test]
fn every_row_carries_its_coordinates() {
    let spec = TableSpec { kafka_metadata: true, ..spec() };
    let (mut decoder, registry, mut done) = (Decoder::new(&spec, None).unwrap(), registry(), Vec::new());
    let headers = [("h", Some(&b"v"[..])), ("n", None)];
    let (first, second) = (framed(1, &[2]), framed(2, &[4, 0]));
    for (value, offset) in [(&first, 5), (&second, 6), (&first, 9)] {
        let record =
            Record { offset, key: Some(b"k"), headers: Headers::pairs(&headers), ..record(Some(value)) };
        assert_eq!(push(&mut decoder, &record, &registry, &mut done), Pushed::Row);
    }
    let broken = framed(1, &[]);
    assert!(matches!(decoder.push(&record(Some(&broken))), Pushed::Rejected { .. }));
    assert_eq!(done[0].schema().fields().last().unwrap().name(), KAFKA_COLUMN, "last when the table begins");
    let batch = decoder.finish().unwrap().unwrap();
    let table = decoder.table_schema().unwrap();
    let names: Vec<_> = table.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["id", KAFKA_COLUMN, "note"], "and stays where it is when the table grows");
    assert_eq!(batch.schema(), arrow_schema(table).unwrap());
    let own = batch.column(1).as_struct();
    assert_eq!(own.column(0).as_string::<i32>().value(0), "orders");
    assert_eq!(own.column(1).as_primitive::<Int32Type>().value(0), 3);
    assert_eq!(own.column(2).as_primitive::<Int64Type>().values(), &[6, 9]);
    assert_eq!(own.column(4).as_binary::<i32>().value(1), b"k");
    let headers = own.column(5).as_list::<i32>().value(1);
    assert_eq!((headers.len(), headers.as_struct().column(1).is_null(1)), (2, true));
}

#[test]
fn a_spec_can_carry_the_schema() {
    let spec = TableSpec {
        wire_format: WireFormat::Raw,
        schema_mode: SchemaMode::Inline(InputSchema::Avro(V1.to_owned())),
        ..spec()
    };
    let (outcomes, batches) = decode(&spec, &[vec![2], vec![], vec![4]]);
    assert_eq!(outcomes, [Pushed::Row, rejected(RejectReason::Truncated, None), Pushed::Row]);
    assert_eq!(batches[0].num_rows(), 2);
    let initial = block_on(initial_schema(&spec, None)).unwrap().unwrap();
    assert_eq!(initial.fields[0].data_type, PrimitiveType::Int.into());
}

#[test]
fn json_records_go_the_same_way() {
    let columns =
        Schema::new(0, vec![siltstone_protocol::Field::optional(1, "id", PrimitiveType::Long.into())]);
    let spec = TableSpec {
        source_format: SourceFormat::Json,
        wire_format: WireFormat::Raw,
        schema_mode: SchemaMode::Inline(InputSchema::Fields(columns)),
        kafka_metadata: true,
        ..spec()
    };
    let (outcomes, batches) = decode(&spec, &[br#"{"id":7}"#.to_vec(), b"{".to_vec(), b"{}".to_vec()]);
    assert_eq!(outcomes[0], Pushed::Row);
    assert!(matches!(outcomes[1], Pushed::Rejected { .. }));
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(batches[0].num_columns(), 2);
}

#[test]
fn the_first_schema_is_that_of_the_subject() {
    let spec = TableSpec { kafka_metadata: true, ..spec() };
    let schema = block_on(initial_schema(&spec, Some(&registry()))).unwrap().unwrap();
    let names: Vec<_> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["id", "note", KAFKA_COLUMN]);
    assert_eq!(block_on(initial_schema(&spec, Some(&FixedRegistry::new()))), Ok(None));
    assert_eq!(block_on(initial_schema(&spec, None)).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn memory_is_measured_and_a_batch_must_be_empty_to_change() {
    let (mut decoder, registry) = (Decoder::new(&raw(Tombstones::Skip), None).unwrap(), registry());
    let value = vec![7u8; 100_000];
    for _ in 0..20 {
        assert_eq!(push(&mut decoder, &record(Some(&value)), &registry, &mut Vec::new()), Pushed::Row);
    }
    assert!((2_000_000..2_600_000).contains(&decoder.bytes()), "{}", decoder.bytes());
    let schema = decoder.table_schema().unwrap().clone();
    assert!(decoder.set_table_schema(schema).is_err());
    assert_eq!(decoder.finish().unwrap().unwrap().num_rows(), 20);
    assert_eq!((decoder.rows(), decoder.bytes()), (0, 0));
    assert!(decoder.finish().unwrap().is_none());
    let large = vec![0; (64 << 20) + 1];
    assert_eq!(decoder.push(&record(Some(&large))), rejected(RejectReason::TooLarge, None));
}

#[test]
fn nothing_of_a_record_is_shown() {
    let mut decoder = Decoder::new(&raw(Tombstones::Skip), None).unwrap();
    push(&mut decoder, &record(Some(b"canary")), &registry(), &mut Vec::new());
    assert!(!format!("{decoder:?}").contains("canary"));
    assert!(!format!("{:?}", record(Some(b"canary"))).contains("canary"));
}
