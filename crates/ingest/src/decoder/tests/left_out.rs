//! Columns that nobody looks at: passed over in the bytes of records.

#![allow(clippy::unwrap_used, clippy::panic)]

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int32Type, Int64Type},
};
use futures::executor::block_on;
use siltstone_protocol::{Field, RejectReason, Schema, Type};
use siltstone_spec::{ExtraFields, SourceFormat, TableSpec};

use super::spec_of_avro as spec;
use crate::{
    Headers, Record,
    decoder::{Decoder, FileTable, Finished, Learned, Pushed, SchemaNeed, initial_schema},
    files::FileFormat,
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};

const WIDE: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"texts","type":{"type":"array","items":"string"}},
    {"name":"id","type":"long"},
    {"name":"n","type":["null","string"]},
    {"name":"s","type":{"type":"record","name":"S","fields":[{"name":"v","type":"string"},{"name":"x","type":"double"},
        {"name":"w","type":"string"}]}},
    {"name":"last","type":"int"}]}"#;
const PROTO: &str = "syntax = \"proto3\"; message M { repeated string texts = 1; int64 id = 2; optional string n = 3; \
                     S s = 4; oneof o { int32 left = 5; string right = 6; } } \
                     message S { string v = 1; double x = 2; string w = 3; }";

/// A decoder whose table follows its records.
struct Rig {
    decoder: Decoder,
    registry: FixedRegistry,
    format: RegistryFormat,
    grown: usize,
}

impl Rig {
    fn new(spec: &TableSpec, format: RegistryFormat, schema: &str) -> Self {
        let decoder = Decoder::new(spec, None).unwrap();
        let rig = Self { decoder, registry: FixedRegistry::new(), format, grown: 0 };
        rig.register(1, schema);
        rig
    }

    fn register(&self, id: u32, schema: &str) {
        let (schema, format) = (schema.to_owned(), self.format);
        self.registry.put("t-value", RegisteredSchema { id, format, schema, references: vec![] });
    }

    fn push(&mut self, id: u8, body: &[u8]) -> Pushed {
        let value = [&[0, 0, 0, 0, id], body].concat();
        let (value, headers) = (Some(value.as_slice()), Headers::empty());
        let record = Record { partition: 0, offset: 7, timestamp_ms: None, key: Some(b"k"), value, headers };
        for _ in 0..8 {
            let need = match self.decoder.push(&record) {
                Pushed::NeedsSchema(need) => need,
                outcome => return outcome,
            };
            let learned = block_on(self.decoder.learn(need, Some(&self.registry))).unwrap();
            if let Learned::Evolves(schema) = learned {
                self.decoder.set_table_schema(schema).unwrap();
                self.grown += 1;
            }
        }
        panic!("it never learns")
    }

    fn close(&mut self) -> Finished {
        self.decoder.close().unwrap().unwrap()
    }

    /// What is built of records: names, of members too.
    fn built(&self) -> String {
        shown(&self.decoder.batch.as_ref().unwrap().body.fields)
    }

    fn about(&self) -> Option<String> {
        let about = self.decoder.about()?;
        Some(format!("{}: {}", about.field.as_deref().unwrap_or_default(), about.detail))
    }
}

fn shown(fields: &[Field]) -> String {
    let one = |field: &Field| match &field.data_type {
        Type::Struct(members) => format!("{}({})", field.name, shown(members)),
        _ => field.name.clone(),
    };
    fields.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn protobuf(more: &str) -> TableSpec {
    TableSpec { source_format: SourceFormat::Protobuf, ..spec(more) }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&[(bytes.len() * 2) as u8], bytes].concat()
}

/// One of [`WIDE`], with this in `texts`, `n` and `s.v`.
fn wide(id: i8, texts: &[u8], n: &[u8], v: &[u8]) -> Vec<u8> {
    let id = ((id << 1) ^ (id >> 7)) as u8;
    let mut body = [&[2], &text(texts)[..], &[0, id, 2], &text(n), &text(v)].concat();
    body.extend(1.5f64.to_le_bytes());
    body.extend([0, 2]);
    body
}

fn longs(batch: &RecordBatch, column: usize) -> Vec<i64> {
    batch.column(column).as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn what_nobody_looks_at_is_not_built() {
    for (more, built) in [
        ("    transforms: {select: [id]}\n", "id"),
        ("    transforms: {select: [id, s.x]}\n", "id s(x)"),
        ("    transforms: {drop: [texts, s.v, last]}\n", "id n s(x w)"),
        ("    transforms: {drop: [s.v, s.x, s.w]}\n", "texts id n last"),
        ("    protect: {s: drop, texts: drop}\n", "id n last"),
        ("    transforms: {select: [id], filter: \"n <> 'b'\"}\n", "id n"),
        // Who looks into a struct has all of it.
        ("    transforms: {select: [id, s.x], filter: \"s.v <> 'b'\"}\n", "id s(v x w)"),
        ("    transforms: {select: [s.x, n], rename: {s.x: ex, n: name}, cast: {s.ex: string}}\n", "n s(x)"),
        ("    transforms: {select: [last], constant: {c: {type: int, value: 1}}}\n", "last"),
        (
            "    kafka_metadata: true\n    transforms: {select: [id]}\n    protect: {_kafka.headers: drop}\n",
            "id",
        ),
        ("    transforms: {filter: id > 0}\n", "texts id n s(v x w) last"),
    ] {
        let mut rig = Rig::new(&spec(more), RegistryFormat::Avro, WIDE);
        assert_eq!(rig.push(1, &wide(1, b"t", b"a", b"v")), Pushed::Row, "{more}");
        assert_eq!(rig.built(), built, "{more}");
        assert_eq!(rig.close().batch.unwrap().num_rows(), 1, "{more}");
    }
}

#[test]
fn rows_are_as_if_all_had_been_built() {
    let spec = spec("    transforms: {select: [id, s.x, last], filter: \"n = 'a'\", rename: {s.x: ex}}\n");
    let mut rig = Rig::new(&spec, RegistryFormat::Avro, WIDE);
    for (id, n) in [(1, b"a"), (2, b"b"), (3, b"a")] {
        assert_eq!(rig.push(1, &wide(id, b"some", n, b"v")), Pushed::Row);
    }
    let closed = rig.close();
    assert_eq!(closed.filtered, 1);
    let batch = closed.batch.unwrap();
    assert_eq!(shown(&rig.decoder.table_schema().unwrap().fields), "id s(ex) last");
    assert_eq!(longs(&batch, 0), [1, 3]);
    let inner = batch.column(1).as_struct();
    assert_eq!(inner.column_names(), ["ex"]);
    assert_eq!(inner.column(0).as_primitive::<Float64Type>().values(), &[1.5, 1.5]);
    assert_eq!(batch.column(2).as_primitive::<Int32Type>().values(), &[1, 1]);
}

#[test]
fn a_record_whose_left_out_bytes_are_broken_is_rejected() {
    let mut rig = Rig::new(&spec("    transforms: {select: [id, s.x]}\n"), RegistryFormat::Avro, WIDE);
    // A text that is not UTF-8 is none of the table's.
    assert_eq!(rig.push(1, &wide(1, b"\xff", b"\xff", b"\xff")), Pushed::Row);
    let rejected = |reason| Pushed::Rejected { reason, schema_id: Some(1) };
    assert_eq!(rig.push(1, &[2, 8, b't']), rejected(RejectReason::Truncated));
    assert_eq!(rig.about().as_deref(), Some("texts: the record ends before its array does"));
    assert_eq!(rig.push(1, &[0, 2, 4]), rejected(RejectReason::Malformed));
    assert_eq!(rig.about().as_deref(), Some("n: union whose encoding is broken"));
    assert_eq!(rig.push(1, &[0, 2, 0, 6, b'v']), rejected(RejectReason::Truncated));
    assert_eq!(rig.about().as_deref(), Some("s.v: the record ends before its string does"));
    let good = wide(2, b"", b"", b"");
    assert_eq!(rig.push(1, &[&good[..], &[0]].concat()), rejected(RejectReason::TrailingBytes));
    assert_eq!(rig.push(1, &good), Pushed::Row);
    assert_eq!(longs(&rig.close().batch.unwrap(), 0), [1, 2]);
}

#[test]
fn a_left_out_column_that_comes_or_goes_changes_no_table() {
    let mut rig = Rig::new(&spec("    transforms: {select: [id]}\n"), RegistryFormat::Avro, WIDE);
    assert_eq!(rig.push(1, &wide(1, b"t", b"n", b"v")), Pushed::Row);
    let fewer = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
        {"name":"more","type":{"type":"map","values":["null","boolean"]}}]}"#;
    rig.register(2, fewer);
    assert_eq!(rig.push(2, &[4, 4, 2, b'a', 0, 2, b'b', 2, 1, 0]), Pushed::Row);
    assert_eq!(rig.push(1, &wide(3, b"t", b"n", b"v")), Pushed::Row);
    assert_eq!(rig.push(2, &[8, 0]), Pushed::Row);
    assert_eq!((rig.grown, rig.built().as_str()), (1, "id"));
    assert_eq!(longs(&rig.close().batch.unwrap(), 0), [1, 2, 3, 4]);
    // A type that no source takes beside the one before is refused, as if it were looked at.
    rig.register(
        3,
        r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":"int"}]}"#,
    );
    let refused = Pushed::Rejected { reason: RejectReason::IncompatibleSchema, schema_id: Some(3) };
    assert_eq!(rig.push(3, &[2, 2]), refused);
}

#[test]
fn a_table_of_nothing_of_the_records_counts_them() {
    let more = "    kafka_metadata: true\n    transforms: {drop: [texts, id, n, s, last], \
                constant: {c: {type: int, value: 3}}}\n";
    let mut rig = Rig::new(&spec(more), RegistryFormat::Avro, WIDE);
    for id in 0..3 {
        assert_eq!(rig.push(1, &wide(id, b"t", b"n", b"v")), Pushed::Row);
    }
    assert_eq!(rig.built(), "");
    assert_eq!(rig.decoder.rows(), 3);
    let batch = rig.close().batch.unwrap();
    assert_eq!(batch.column_by_name("c").unwrap().as_primitive::<Int32Type>().values(), &[3; 3]);
    let own = batch.column_by_name("_kafka").unwrap().as_struct();
    assert_eq!(own.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values(), &[7; 3]);
}

#[test]
fn messages_fare_alike() {
    let spec = protobuf("    transforms: {select: [id, s.x, left], filter: \"n = 'a'\"}\n");
    let mut rig = Rig::new(&spec, RegistryFormat::Protobuf, PROTO);
    let x = [0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f];
    let s = [&[0x22, 12, 0x0a, 1, 0xff], &x[..]].concat();
    // The index of the message, then fields.
    let body = |id: u8, n: &[u8], more: &[u8]| {
        [&[0, 0x0a, 1, 0xff, 0x10, id, 0x1a, n.len() as u8], n, &s[..], more].concat()
    };
    assert_eq!(rig.push(1, &body(1, b"a", &[0x28, 5])), Pushed::Row);
    assert_eq!(rig.push(1, &body(2, b"b", &[0x28, 5])), Pushed::Row);
    // The other member of the oneof came last.
    assert_eq!(rig.push(1, &body(3, b"a", &[0x28, 5, 0x32, 1, b'r'])), Pushed::Row);
    let cut = Pushed::Rejected { reason: RejectReason::Truncated, schema_id: Some(1) };
    assert_eq!(rig.push(1, &body(4, b"a", &[0x0a, 9])), cut);
    assert_eq!(rig.about().as_deref(), Some(": the record ends before its message does"));
    assert_eq!((rig.grown, rig.built().as_str()), (1, "id n s(x) left"));
    let closed = rig.close();
    assert_eq!(closed.filtered, 1);
    let batch = closed.batch.unwrap();
    assert_eq!(longs(&batch, 0), [1, 3]);
    assert_eq!(batch.column(1).as_struct().column(0).as_primitive::<Float64Type>().values(), &[1.5, 1.5]);
    let left: Vec<_> = batch.column(2).as_primitive::<Int32Type>().iter().collect();
    assert_eq!(left, [Some(5), None]);
    assert!(batch.column(2).is_valid(0));
}

#[test]
fn left_out_members_of_json_are_as_unknown_ones() {
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},"s":{"type":"object",
        "properties":{"v":{"type":"string"},"x":{"type":"number"}},"required":["v"]}},"required":["id"]}"#;
    let json = |more: &str| TableSpec { source_format: SourceFormat::Json, ..spec(more) };
    let mut rig = Rig::new(&json("    transforms: {drop: [s.v]}\n"), RegistryFormat::Json, schema);
    assert_eq!(rig.push(1, br#"{"id": 1, "s": {"v": 5, "x": 1.5}}"#), Pushed::Row);
    assert_eq!(rig.push(1, br#"{"id": 2, "s": {"x": 1.5}}"#), Pushed::Row);
    assert_eq!(rig.built(), "id s(x)");
    assert_eq!(longs(&rig.close().batch.unwrap(), 0), [1, 2]);
    // Where unknown ones reject a record, these are known.
    let strict = json("    transforms: {drop: [s.v]}\n");
    let strict = TableSpec { extra_fields: ExtraFields::Reject, ..strict };
    let mut rig = Rig::new(&strict, RegistryFormat::Json, schema);
    assert_eq!(rig.push(1, br#"{"id": 1, "s": {"v": "v", "x": 1.5}}"#), Pushed::Row);
    assert_eq!(rig.built(), "id s(v x)");
}

#[test]
fn records_of_files_are_passed_over_to_their_ends() {
    let spec = spec("    transforms: {select: [id]}\n");
    let registry = FixedRegistry::new();
    let table = block_on(FileTable::open(&spec, Some(&registry), false)).unwrap();
    let mut decoder = table.decoder(FileFormat::Avro, WIDE, None).unwrap();
    let mut live: Option<Schema> = None;
    while let Learned::Evolves(schema) = block_on(decoder.learn(SchemaNeed::Latest, None)).unwrap() {
        live = Some(schema.clone());
        decoder.set_table_schema(schema).unwrap();
    }
    assert_eq!(shown(&live.unwrap().fields), "id");
    let (first, second) = (wide(1, b"\xff", b"n", b"v"), wide(2, b"", b"", b""));
    let both = [&first[..], &second[..]].concat();
    assert_eq!(decoder.skip_first(&both), Some(first.len()));
    assert_eq!(decoder.push_first(&both), (Pushed::Row, Some(first.len())));
    assert_eq!(decoder.push_first(&both[first.len()..]), (Pushed::Row, Some(second.len())));
    let cut = Pushed::Rejected { reason: RejectReason::Truncated, schema_id: None };
    assert_eq!(decoder.push_first(&first[..first.len() - 3]), (cut, None));
    assert_eq!(longs(&decoder.close().unwrap().unwrap().batch.unwrap(), 0), [1, 2]);
}

#[test]
fn a_plan_asks_for_the_same_table() {
    let spec = spec("    transforms: {select: [id, s.x], filter: \"n = 'a'\"}\n");
    let rig = Rig::new(&spec, RegistryFormat::Avro, WIDE);
    let schema = block_on(initial_schema(&spec, Some(&rig.registry))).unwrap().unwrap();
    assert_eq!(shown(&schema.fields), "id s(x)");
}

#[test]
fn what_is_left_of_json_takes_the_records_that_all_of_it_takes() {
    let json = |more: &str| TableSpec { source_format: SourceFormat::Json, ..spec(more) };
    // The only column that is left is `value`, and a record that is no object is none of its values.
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},"value":{"type":"integer"}}}"#;
    let more = "    kafka_metadata: true\n    transforms: {select: [value]}\n";
    let mut rig = Rig::new(&json(more), RegistryFormat::Json, schema);
    let rejected = Pushed::Rejected { reason: RejectReason::WrongType, schema_id: Some(1) };
    assert_eq!(rig.push(1, b"5"), rejected);
    assert_eq!(rig.push(1, br#"{"id": 1, "value": 5}"#), Pushed::Row);
    assert_eq!(rig.built(), "id value");
    assert_eq!(longs(&rig.close().batch.unwrap(), 0), [5]);
    // Where it was the only one before, one is.
    let more =
        "    kafka_metadata: true\n    transforms: {drop: [value], constant: {c: {type: int, value: 3}}}\n";
    let mut rig = Rig::new(&json(more), RegistryFormat::Json, r#"{"type":"integer"}"#);
    assert_eq!(rig.push(1, b"5"), Pushed::Row);
    assert_eq!(rig.built(), "value");
    let batch = rig.close().batch.unwrap();
    assert!(batch.column_by_name("value").is_none());
    assert_eq!(batch.column_by_name("c").unwrap().as_primitive::<Int32Type>().values(), &[3]);
    // And where it is not, once records of another schema came.
    rig.register(2, r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#);
    assert_eq!(rig.push(2, br#"{"id": 1}"#), Pushed::Row);
    assert_eq!(rig.push(1, b"5"), Pushed::Row);
}

#[test]
fn a_line_that_is_no_object_is_no_value_of_what_is_left() {
    let writer = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
        {"name":"value","type":"long"}]}"#;
    let more = "    kafka_metadata: true\n    event_types: {take: [R], column: kind}\n    transforms: {drop: [id]}\n";
    let (spec, registry) = (spec(more), FixedRegistry::new());
    let (format, schema, references) = (RegistryFormat::Avro, writer.to_owned(), vec![]);
    registry.put("t-value", RegisteredSchema { id: 1, format, schema, references });
    let table = block_on(FileTable::open(&spec, Some(&registry), true)).unwrap();
    let mut decoder = table.decoder(FileFormat::Json, "", None).unwrap();
    while let Learned::Evolves(schema) = block_on(decoder.learn(SchemaNeed::Latest, None)).unwrap() {
        decoder.set_table_schema(schema).unwrap();
    }
    let mut push = |value: &[u8]| {
        let (value, headers) = (Some(value), Headers::empty());
        decoder.push(&Record { partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers })
    };
    assert_eq!(push(b"5"), Pushed::Rejected { reason: RejectReason::WrongType, schema_id: None });
    assert_eq!(push(br#"{"id": 1, "value": 5}"#), Pushed::Row);
    assert_eq!(longs(&decoder.close().unwrap().unwrap().batch.unwrap(), 0), [5]);
}

#[test]
fn a_tombstone_is_a_row_where_only_what_is_left_out_is_required() {
    let spec = spec("    tombstones: row\n    kafka_metadata: true\n    transforms: {select: [n]}\n");
    let mut rig = Rig::new(&spec, RegistryFormat::Avro, WIDE);
    assert_eq!(rig.push(1, &wide(1, b"t", b"a", b"v")), Pushed::Row);
    let headers = Headers::empty();
    let record =
        Record { partition: 0, offset: 8, timestamp_ms: None, key: Some(b"k"), value: None, headers };
    assert_eq!(rig.decoder.push(&record), Pushed::Row);
    let batch = rig.close().batch.unwrap();
    let texts: Vec<_> = batch.column(0).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("a"), None]);
}
