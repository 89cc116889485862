//! Protobuf through the whole decoder: framing, messages of one schema, versions of it, references.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use futures::executor::block_on;
use siltstone_protocol::RejectReason;
use siltstone_spec::TableSpec;

use crate::{
    Headers, Record,
    decoder::{Decoder, Learned, Pushed, initial_schema},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat, SchemaReference},
};

const V1: &str =
    "syntax = \"proto3\"; package s; message Order { int32 id = 1; } message Other { bool x = 1; }";
const V2: &str = "syntax = \"proto3\"; package s; import \"note.proto\"; \
                  message Order { int32 id = 1; int32 count = 2; n.Note note = 3; message In { int32 id = 1; } } \
                  message Other { bool x = 1; }";
const NOTE: &str = "syntax = \"proto3\"; package n; message Note { string text = 1; }";
const LOOP: &str = "syntax = \"proto3\"; message Order { int32 id = 1; Order next = 2; }";

fn spec(more: &str) -> TableSpec {
    let text = format!(
        "source_clusters:\n  - name: c\n    bootstrap_brokers: [{{hostname: b, port: 9092}}]\n    \
         schema_registry: {{url: \"http://registry.internal\"}}\n\
         destination_bucket_url: \"file:///lake\"\ntables:\n  - name: shop.orders\n    \
         source_cluster_name: c\n    source_topic: orders\n    source_format: protobuf\n{more}"
    );
    siltstone_spec::parse(&text, "spec.yaml", &|_| None).unwrap().tables.remove(0)
}

fn registry() -> FixedRegistry {
    let registry = FixedRegistry::new();
    let schema = |id, text: &str| RegisteredSchema {
        id,
        format: RegistryFormat::Protobuf,
        schema: text.to_owned(),
        references: vec![],
    };
    let note = SchemaReference {
        name: "note.proto".to_owned(),
        subject: "note".to_owned(),
        version: 1,
        schema: NOTE.to_owned(),
    };
    registry.put("orders-value", schema(1, V1));
    registry.put("orders-value", RegisteredSchema { references: vec![note], ..schema(2, V2) });
    registry.put("elsewhere", schema(3, LOOP));
    registry.put("elsewhere", RegisteredSchema { format: RegistryFormat::Avro, ..schema(4, "\"int\"") });
    registry
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

fn rejected(reason: RejectReason, schema_id: Option<u32>) -> Pushed {
    Pushed::Rejected { reason, schema_id }
}

fn push(decoder: &mut Decoder, value: &[u8], done: &mut Vec<RecordBatch>) -> Pushed {
    let headers = Headers::empty();
    let record =
        Record { partition: 0, offset: 0, timestamp_ms: None, key: None, value: Some(value), headers };
    for _ in 0..8 {
        let need = match decoder.push(&record) {
            Pushed::NeedsSchema(need) => need,
            outcome => return outcome,
        };
        if let Learned::Evolves(schema) = block_on(decoder.learn(need, Some(&registry()))).unwrap() {
            done.extend(decoder.finish().unwrap());
            decoder.set_table_schema(schema).unwrap();
        }
    }
    panic!("it never learns")
}

fn decode(spec: &TableSpec, values: &[Vec<u8>]) -> (Vec<Pushed>, Vec<RecordBatch>) {
    let (mut decoder, mut batches) = (Decoder::new(spec, None).unwrap(), Vec::new());
    let outcomes = values.iter().map(|value| push(&mut decoder, value, &mut batches)).collect();
    batches.extend(decoder.finish().unwrap());
    (outcomes, batches)
}

#[test]
fn versions_share_a_batch_after_one_evolution() {
    let old = framed(1, b"\x00\x08\x01");
    let new = framed(2, b"\x00\x08\x02\x10\x05\x1a\x03\x0a\x01x");
    let bare = framed(2, b"\x02\x00");
    let (outcomes, batches) = decode(&spec(""), &[old.clone(), new.clone(), old, bare, new]);
    assert_eq!(outcomes, [Pushed::Row; 5]);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(batches[1].column(0).as_primitive::<Int32Type>().values(), &[2, 1, 0, 2]);
    let counts = batches[1].column(1).as_primitive::<Int32Type>();
    let counts: Vec<_> = counts.iter().collect();
    assert_eq!(
        counts,
        [Some(5), None, Some(0), Some(5)],
        "null where the schema had no such field, else a value"
    );
    let notes = batches[1].column(2).as_struct();
    assert_eq!((notes.is_null(1), notes.is_null(2)), (true, true));
    assert_eq!(notes.column(0).as_string::<i32>().value(3), "x");
}

#[test]
fn what_the_table_cannot_take_is_rejected_with_its_reason() {
    let values = [
        framed(1, b"\x00\x08\x01"),
        framed(1, b""),
        framed(1, b"\x02\x04\x08\x01"),
        framed(1, b"\x04\x00\x00\x08\x01"),
        framed(1, b"\x00\x08"),
        framed(3, b"\x00\x08\x01"),
        framed(4, b"\x00\x08\x01"),
        framed(9, b"\x00\x08\x01"),
        vec![0, 0, 0],
    ];
    let (outcomes, batches) = decode(&spec(""), &values);
    assert_eq!(
        outcomes,
        [
            Pushed::Row,
            rejected(RejectReason::BadFraming, None),
            rejected(RejectReason::BadFraming, Some(1)),
            rejected(RejectReason::BadFraming, Some(1)),
            rejected(RejectReason::Truncated, Some(1)),
            rejected(RejectReason::IncompatibleSchema, Some(3)),
            rejected(RejectReason::WrongSchemaFormat, Some(4)),
            rejected(RejectReason::UnknownSchemaId, Some(9)),
            rejected(RejectReason::BadFraming, None),
        ]
    );
    assert_eq!(batches[0].num_rows(), 1);
}

#[test]
fn a_table_takes_every_message_or_the_one_it_names() {
    let values =
        [framed(1, b"\x00\x08\x07"), framed(1, b"\x02\x02\x08\x01"), framed(2, b"\x04\x00\x00\x08\x08")];
    let (outcomes, batches) = decode(&spec(""), &values);
    assert_eq!(outcomes, [Pushed::Row; 3]);
    let last = batches.last().unwrap();
    let schema = last.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "x"]);
    let other = rejected(RejectReason::IncompatibleSchema, Some(1));
    for name in ["s.Order", "Order"] {
        let (outcomes, _) = decode(&spec(&format!("    message_type: {name}\n")), &values);
        assert_eq!(outcomes[..2], [Pushed::Row, other], "{name}");
    }
    let (outcomes, _) = decode(&spec("    message_type: s.Other\n"), &values);
    assert_eq!(outcomes[..2], [other, Pushed::Row]);
    let initial = block_on(initial_schema(&spec("    message_type: s.Order.In\n"), Some(&registry())));
    assert_eq!(initial.unwrap().unwrap().fields.len(), 1);
}

#[test]
fn bare_messages_have_the_schema_of_the_spec_or_the_latest() {
    let inline = "    message_type: s.Other\n    input_schema:\n      protobuf: |\n        syntax = \"proto3\";\n        \
                  package s;\n        message Order { int32 id = 1; }\n        message Other { bool x = 1; } // ${HOME}\n";
    let (outcomes, batches) = decode(&spec(inline), &[b"\x08\x01".to_vec(), vec![], vec![0x08]]);
    assert_eq!(outcomes, [Pushed::Row, Pushed::Row, rejected(RejectReason::Truncated, None)]);
    let bits = batches[0].column(0).as_boolean();
    assert_eq!((bits.value(0), bits.value(1)), (true, false));
    let framed_inline = format!("{inline}    wire_format: confluent\n");
    let (outcomes, _) = decode(&spec(&framed_inline), &[framed(77, b"\x02\x02\x08\x01"), vec![0x08, 0x01]]);
    assert_eq!(outcomes, [Pushed::Row, rejected(RejectReason::BadFraming, None)]);
    let latest = spec("    schema_mode: registry_latest\n");
    let (outcomes, batches) = decode(&latest, &[b"\x08\x03\x10\x04".to_vec()]);
    assert_eq!((outcomes, batches[0].num_columns()), (vec![Pushed::Row], 3));
}

#[test]
fn a_faulty_spec_says_where() {
    let spec =
        spec("    message_type: s.None\n    input_schema: {protobuf: \"syntax = 'proto3'; message A {}\"}\n");
    let error = block_on(initial_schema(&spec, None)).unwrap_err().to_string();
    assert!(error.contains("s.None") && error.contains("message_type"), "{error}");
}
