//! Tables with transforms: schemas that come by, and what the table becomes.

#![allow(clippy::unwrap_used, clippy::panic)]

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Float64Type, Int32Type, Int64Type},
};
use futures::executor::block_on;
use siltstone_protocol::{ErrorKind, RejectReason, Schema};
use siltstone_spec::TableSpec;

use super::spec_of_avro as spec;
use crate::{
    Headers, IngestError, Record,
    dead_letter::told,
    decoder::{Decoder, Finished, Learned, Pushed, initial_schema, wanted_schema},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};

const V1: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},{"name":"n","type":"string"}]}"#;
const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":"string"},
    {"name":"mail","type":["null","string"],"default":null}]}"#;
const NESTED: [&str; 2] = [
    r#"{"type":"record","name":"R","fields":[{"name":"s","type":{"type":"record","name":"S","fields":[
        {"name":"v","type":"string"},{"name":"n","type":"double"}]}},{"name":"l","type":{"type":"array","items":"string"}}]}"#,
    r#"{"type":"record","name":"R","fields":[{"name":"s","type":{"type":"record","name":"S","fields":[
        {"name":"v","type":"bytes"},{"name":"n","type":"long"}]}},{"name":"l","type":{"type":"array","items":"bytes"}}]}"#,
];
const CLASH: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":"string"},
    {"name":"region","type":"string"}]}"#;

fn registry(schemas: &[(u32, &str)]) -> FixedRegistry {
    let registry = FixedRegistry::new();
    for (id, schema) in schemas {
        let schema = (*schema).to_owned();
        registry.put(
            "t-value",
            RegisteredSchema { id: *id, format: RegistryFormat::Avro, schema, references: vec![] },
        );
    }
    registry
}

fn text(text: &str) -> Vec<u8> {
    [&[(text.len() * 2) as u8], text.as_bytes()].concat()
}

fn zigzag(id: i8) -> u8 {
    ((id << 1) ^ (id >> 7)) as u8
}

fn v1(id: i8, n: &str) -> Vec<u8> {
    [&[0, 0, 0, 0, 1, zigzag(id)], &text(n)[..]].concat()
}

fn v2(id: i8, n: &str, mail: Option<&str>) -> Vec<u8> {
    let mail = mail.map_or_else(|| vec![0], |mail| [vec![2], text(mail)].concat());
    [&[0, 0, 0, 0, 2, zigzag(id)], &text(n)[..], &mail].concat()
}

/// A decoder that lets its table grow, and counts how often.
struct Rig {
    decoder: Decoder,
    registry: FixedRegistry,
    done: Vec<RecordBatch>,
    grown: usize,
}

impl Rig {
    fn new(spec: &TableSpec, table: Option<Schema>, schemas: &[(u32, &str)]) -> Self {
        let decoder = Decoder::new(spec, table).unwrap();
        Self { decoder, registry: registry(schemas), done: Vec::new(), grown: 0 }
    }

    fn push(&mut self, value: &[u8]) -> Result<Pushed, IngestError> {
        let headers = Headers::empty();
        let record = Record {
            partition: 0,
            offset: 7,
            timestamp_ms: Some(5),
            key: Some(b"k"),
            value: Some(value),
            headers,
        };
        for _ in 0..8 {
            let need = match self.decoder.push(&record) {
                Pushed::NeedsSchema(need) => need,
                outcome => return Ok(outcome),
            };
            if let Learned::Evolves(schema) = block_on(self.decoder.learn(need, Some(&self.registry)))? {
                self.done.extend(self.decoder.finish()?);
                self.decoder.set_table_schema(schema)?;
                self.grown += 1;
            }
        }
        panic!("it never learns")
    }

    fn close(&mut self) -> Finished {
        self.decoder.close().unwrap().unwrap()
    }
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn schemas_interleave_and_the_table_grows_once() {
    let spec = spec("    transforms: {rename: {n: name}, cast: {id: string}}\n    protect: {mail: mask}\n");
    let mut rig = Rig::new(&spec, None, &[(1, V1), (2, V2)]);
    for row in 0..6 {
        let value = if row % 2 == 0 { v1(row, "a") } else { v2(row, "b", Some("ann@example.com")) };
        assert_eq!(rig.push(&value), Ok(Pushed::Row));
    }
    // The name `mail` is in the latest schema alone, which is asked for: the table has it from the start.
    assert_eq!(rig.grown, 1);
    let batch = rig.close().batch.unwrap();
    assert_eq!(names(rig.decoder.table_schema().unwrap()), ["id", "name", "mail"]);
    assert_eq!(batch.num_rows(), 6);
    let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5"]);
    let mails: Vec<_> = batch.column(2).as_string::<i32>().iter().collect();
    assert_eq!(mails[..2], [None, Some("***@******e.com")]);
}

#[test]
fn a_source_that_grows_keeps_the_rows_before_it() {
    let spec = spec("    transforms: {filter: id >= 0, cast: {n: int}}\n");
    let mut rig = Rig::new(&spec, None, &[(1, V1)]);
    assert_eq!(rig.push(&v1(-1, "1")), Ok(Pushed::Row));
    assert_eq!(rig.push(&v1(1, "x")), Ok(Pushed::Row));
    assert_eq!(rig.push(&v1(2, "2")), Ok(Pushed::Row));
    // A column that is null in the table already: the source grows, the table does not.
    let grown = Schema::new(5, {
        let mut wider = rig.registry_schema(V2, &spec);
        wider.fields[0].data_type = siltstone_protocol::PrimitiveType::Long.into();
        wider.fields
    });
    let first = rig.close();
    assert_eq!((first.filtered, told(&first.failed)), (1, vec!["1 n: string that is no int".to_owned()]));
    rig.decoder.set_table_schema(grown).unwrap();
    assert_eq!(rig.push(&v1(3, "y")), Ok(Pushed::Row));
    assert_eq!(rig.push(&v1(-4, "4")), Ok(Pushed::Row));
    rig.registry = registry(&[(1, V1), (2, V2)]);
    assert_eq!(rig.push(&v2(5, "z", None)), Ok(Pushed::Row));
    assert_eq!(rig.push(&v2(6, "6", Some("m"))), Ok(Pushed::Row));
    assert_eq!(rig.push(&v1(7, "7")), Ok(Pushed::Row));
    assert_eq!(rig.decoder.rows(), 5);
    assert!(rig.decoder.can_fail() && rig.decoder.bytes() > 0);
    let second = rig.close();
    assert_eq!(second.filtered, 1);
    assert_eq!(
        told(&second.failed),
        ["0 n: string that is no int", "2 n: string that is no int"],
        "places count over what was closed on the way"
    );
    let batch = second.batch.unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[6, 7]);
    assert_eq!(batch.column(1).as_primitive::<Int32Type>().values(), &[6, 7]);
    assert!(rig.decoder.close().unwrap().is_none());
}

/// A worker that begins anew meets the narrower schema first: its source is that of the records.
#[test]
fn what_a_column_can_take_at_the_top_it_can_take_inside() {
    let spec = spec("    transforms: {constant: {c: {type: int, value: 1}}}\n");
    let live = block_on(initial_schema(&spec, Some(&registry(&[(1, NESTED[0])])))).unwrap().unwrap();
    let mut rig = Rig::new(&spec, Some(live.clone()), &[(1, NESTED[0]), (2, NESTED[1])]);
    let body = |v: &[u8], n: &[u8], item: &[u8]| {
        let bytes = |bytes: &[u8]| [&[(bytes.len() * 2) as u8], bytes].concat();
        [&[0, 0, 0, 0, 2], &bytes(v)[..], n, &[2], &bytes(item), &[0]].concat()
    };
    // 2^53 + 1 as an Avro long.
    let long = [0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    for value in [
        body(b"a", &[14], b"b"),
        body(b"\xff", &[14], b"b"),
        body(b"a", &long, b"b"),
        body(b"a", &[14], b"\xff"),
    ] {
        assert_eq!(rig.push(&value), Ok(Pushed::Row));
    }
    assert_eq!(rig.grown, 0);
    assert!(rig.decoder.can_fail());
    let closed = rig.close();
    assert_eq!(
        told(&closed.failed),
        [
            "1 s.v: binary that is not UTF-8 where string is wanted",
            "2 s.n: long that double cannot hold exactly",
            "3 l[]: binary that is not UTF-8 where string is wanted"
        ]
    );
    let batch = closed.batch.unwrap();
    let inner = batch.column(0).as_struct();
    assert_eq!(inner.column(0).as_string::<i32>().value(0), "a");
    assert_eq!(inner.column(1).as_primitive::<Float64Type>().values(), &[7.0]);
    assert_eq!(batch.column(1).as_list::<i32>().value(0).as_string::<i32>().value(0), "b");
}

#[test]
fn a_filter_finds_null_in_a_column_that_records_no_longer_have() {
    let live = block_on(initial_schema(&spec(""), Some(&registry(&[(2, V2)])))).unwrap().unwrap();
    let filtered = spec("    transforms: {filter: mail is null and n <> 'b'}\n");
    let mut rig = Rig::new(&filtered, Some(live.clone()), &[(1, V1)]);
    assert!(block_on(wanted_schema(&filtered, Some(&rig.registry), Some(&live))).is_ok());
    for n in ["a", "b"] {
        assert_eq!(rig.push(&v1(1, n)), Ok(Pushed::Row));
    }
    // Records that have it again.
    rig.registry = registry(&[(1, V1), (2, V2)]);
    assert_eq!(rig.push(&v2(3, "c", Some("m"))), Ok(Pushed::Row));
    assert_eq!(rig.push(&v2(4, "d", None)), Ok(Pushed::Row));
    assert_eq!(rig.grown, 0);
    let closed = rig.close();
    assert_eq!(closed.filtered, 2);
    assert_eq!(closed.batch.unwrap().column(0).as_primitive::<Int64Type>().values(), &[1, 4]);
    let mistyped = spec("    transforms: {filter: maill is null}\n");
    let mut rig = Rig::new(&mistyped, Some(live), &[(1, V1)]);
    assert!(rig.push(&v1(1, "a")).unwrap_err().to_string().contains("no column maill"));
}

#[test]
fn a_name_that_only_another_type_has_is_looked_for_there() {
    const OTHER: &str = r#"{"type":"record","name":"Other","fields":[{"name":"id","type":"int"},
        {"name":"secret","type":["null","string"],"default":null}]}"#;
    let spec = spec(
        "    event_types: {take: [R, Other], column: kind}\n    transforms: {select: [id, secret]}\n    \
         protect: {secret: mask}\n",
    );
    let mut rig = Rig::new(&spec, None, &[]);
    for (id, subject, schema) in [(1, "t-R", V1), (2, "Other", OTHER)] {
        let (schema, format) = (schema.to_owned(), RegistryFormat::Avro);
        rig.registry.put(subject, RegisteredSchema { id, format, schema, references: vec![] });
    }
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    let other = [&[0, 0, 0, 0, 2, zigzag(5), 2], &text("secret")[..]].concat();
    assert_eq!(rig.push(&other), Ok(Pushed::Row));
    assert_eq!(rig.grown, 1);
    assert_eq!(names(rig.decoder.table_schema().unwrap()), ["id", "secret", "kind"]);
    let batch = rig.close().batch.unwrap();
    let texts = |column: usize| batch.column(column).as_string::<i32>().iter().collect::<Vec<_>>();
    assert_eq!(texts(1), [None, Some("******")]);
    assert_eq!(texts(2), [Some("R"), Some("Other")]);
}

impl Rig {
    fn registry_schema(&self, text: &str, spec: &TableSpec) -> Schema {
        block_on(initial_schema(spec, Some(&registry(&[(1, text)])))).unwrap().unwrap()
    }
}

#[test]
fn rows_that_are_left_out_are_not_overlooked() {
    let spec = spec("    transforms: {filter: id > 100}\n");
    let mut rig = Rig::new(&spec, None, &[(1, V1)]);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    assert_eq!(rig.decoder.finish().unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    let closed = rig.close();
    assert!(closed.batch.is_none_or(|batch| batch.num_rows() == 0));
    assert_eq!(closed.filtered, 1);
}

#[test]
fn a_batch_that_lost_rows_is_never_complete_until_it_is_discarded() {
    let spec = spec("    transforms: {filter: id > 0}\n");
    let mut rig = Rig::new(&spec, None, &[(1, V1)]);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    // Rows whose transforms are gone: their close fails.
    let (batch, live) = (rig.decoder.batch.take(), rig.decoder.table_schema().cloned().unwrap());
    rig.decoder.set_staged_schema(live.clone()).unwrap();
    rig.decoder.batch = batch;
    for _ in 0..2 {
        assert_eq!(rig.decoder.close().unwrap_err().kind(), ErrorKind::Internal);
    }
    rig.decoder.discard().unwrap();
    assert!(rig.decoder.close().unwrap().is_none());
    rig.decoder.set_table_schema(live).unwrap();
    assert_eq!(rig.push(&v1(2, "b")), Ok(Pushed::Row));
    assert_eq!(rig.close().batch.unwrap().num_rows(), 1);
}

#[test]
fn a_name_that_nothing_answers_to_stops_a_new_table() {
    for (more, expected) in [
        ("    protect: {mial: mask}\n", "protect.mial: the table has no such column; did you mean mail?"),
        ("    transforms: {drop: [nn]}\n", "transforms.drop[0]: the source has no such column"),
        (
            "    transforms: {filter: idd > 1}\n",
            "transforms.filter: the source has no column idd; did you mean id?",
        ),
    ] {
        let mut rig = Rig::new(&spec(more), None, &[(1, V1), (2, V2)]);
        let error = rig.push(&v1(1, "a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
        let planned = block_on(initial_schema(&spec(more), Some(&rig.registry))).unwrap_err();
        assert!(planned.to_string().contains(expected), "{planned}");
    }
}

#[test]
fn a_table_that_is_there_goes_on_without_columns_that_were_to_be_left_out() {
    let live = block_on(initial_schema(&spec(""), Some(&registry(&[(1, V1)])))).unwrap().unwrap();
    let dropped = spec("    transforms: {drop: [gone]}\n    protect: {secret: drop}\n");
    let mut rig = Rig::new(&dropped, Some(live.clone()), &[(1, V1)]);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    let planned = block_on(wanted_schema(&dropped, Some(&rig.registry), Some(&live))).unwrap().unwrap();
    let told: Vec<_> = planned.notices.iter().map(|notice| notice.what.as_str()).collect();
    assert_eq!(told, ["transforms.drop[0] (gone) does nothing", "protect.secret does nothing"]);
    let mistyped = spec("    protect: {nn: mask}\n");
    let mut rig = Rig::new(&mistyped, Some(live.clone()), &[(1, V1)]);
    assert!(rig.push(&v1(1, "a")).is_err());
    assert!(block_on(wanted_schema(&mistyped, Some(&rig.registry), Some(&live))).is_err());
}

#[test]
fn a_mistyped_name_lets_no_column_into_a_table_that_is_there() {
    let narrow = block_on(initial_schema(&spec(""), Some(&registry(&[(1, V1)])))).unwrap().unwrap();
    let wide = block_on(initial_schema(&spec(""), Some(&registry(&[(2, V2)])))).unwrap().unwrap();
    for more in ["    transforms: {drop: [mial]}\n", "    protect: {mial: drop}\n"] {
        let mistyped = spec(more);
        let mut rig = Rig::new(&mistyped, Some(narrow.clone()), &[(2, V2)]);
        let error = rig.push(&v2(1, "a", None)).unwrap_err();
        assert!(error.to_string().contains("did you mean mail?"), "{error}");
        // Names that both are meant.
        let both =
            spec("    formats: [iceberg]\n    transforms: {drop: [mial]}\n    protect: {mail: mask}\n");
        let mut rig = Rig::new(&both, Some(narrow.clone()), &[(2, V2)]);
        assert_eq!(rig.push(&v2(1, "a", None)), Ok(Pushed::Row));
        // The column is there already: workers go on, and who plans is told.
        let mut rig = Rig::new(&mistyped, Some(wide.clone()), &[(2, V2)]);
        assert_eq!(rig.push(&v2(1, "a", None)), Ok(Pushed::Row));
        let error = block_on(wanted_schema(&mistyped, Some(&rig.registry), Some(&wide))).unwrap_err();
        assert!(error.to_string().contains("did you mean mail?"), "{error}");
    }
}

#[test]
fn records_of_a_later_schema_that_the_spec_cannot_take_are_rejected() {
    let spec = spec("    transforms: {constant: {region: {type: string, value: eu}}}\n");
    let mut rig = Rig::new(&spec, None, &[(1, V1)]);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    rig.registry = registry(&[(1, V1), (2, CLASH)]);
    let clash = [&[0, 0, 0, 0, 2, 2], &text("n")[..], &text("r")].concat();
    let rejected = Pushed::Rejected { reason: RejectReason::IncompatibleSchema, schema_id: Some(2) };
    assert_eq!(rig.push(&clash), Ok(rejected));
    assert_eq!(rig.push(&v1(2, "b")), Ok(Pushed::Row));
    assert_eq!(rig.close().batch.unwrap().num_rows(), 2);
}

#[test]
fn a_protection_that_the_column_cannot_take_stops_the_table() {
    let live = block_on(initial_schema(&spec(""), Some(&registry(&[(1, V1)])))).unwrap().unwrap();
    let hashed = spec("    protect: {id: hash}\n    protection: {key: '${KEY}'}\n");
    let mut rig = Rig::new(&hashed, Some(live), &[(1, V1)]);
    let error = rig.push(&v1(1, "a")).unwrap_err();
    assert!(
        error.to_string().contains("at id") && error.to_string().contains("string for a column of int"),
        "{error}"
    );
}

#[test]
fn the_key_of_a_record_is_protected_in_its_own_column() {
    let spec = spec(
        "    kafka_metadata: true\n    protect: {_kafka.key: hash, _kafka.headers: drop}\n    \
         protection: {key: '${KEY}'}\n",
    );
    let mut rig = Rig::new(&spec, None, &[(1, V1)]);
    assert_eq!(rig.push(&v1(1, "a")), Ok(Pushed::Row));
    let batch = rig.close().batch.unwrap();
    let own = batch.column(2).as_struct();
    assert_eq!(own.column_names(), ["topic", "partition", "offset", "timestamp", "key"]);
    assert_eq!(own.column(4).as_string::<i32>().value(0).len(), 64);
    assert_eq!(own.column(2).as_primitive::<Int64Type>().value(0), 7);
}

#[test]
fn a_filter_follows_a_column_to_its_new_name() {
    const OLD: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},
        {"name":"status","type":"string"}]}"#;
    const NEW: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},
        {"name":"state","type":"string","aliases":["status"]}]}"#;
    let live = block_on(initial_schema(&spec(""), Some(&registry(&[(1, OLD)])))).unwrap().unwrap();
    let filtered = spec("    transforms: {filter: \"status = 'paid'\"}\n");
    for table in [Some(live.clone()), None] {
        let mut rig = Rig::new(&filtered, table.clone(), &[(1, NEW)]);
        let planned = block_on(wanted_schema(&filtered, Some(&rig.registry), table.as_ref()));
        assert_eq!(planned.unwrap().unwrap().notices.len(), 0);
        for (id, n) in [(1, "paid"), (2, "open")] {
            assert_eq!(rig.push(&v1(id, n)), Ok(Pushed::Row));
        }
        let closed = rig.close();
        assert_eq!(closed.filtered, 1);
        let batch = closed.batch.unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int32Type>().values(), &[1]);
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "paid");
    }
    // It would lose its protection.
    let masked = spec("    transforms: {filter: \"status = 'paid'\"}\n    protect: {state: mask}\n");
    let mut rig = Rig::new(&masked, None, &[(1, NEW)]);
    assert!(rig.push(&v1(1, "paid")).unwrap_err().to_string().contains("no column status"));
}

#[test]
fn a_column_that_a_filter_finds_null_is_told_of() {
    let live = block_on(initial_schema(&spec(""), Some(&registry(&[(2, V2)])))).unwrap().unwrap();
    let filtered = spec("    transforms: {filter: mail is null}\n");
    let planned = block_on(wanted_schema(&filtered, Some(&registry(&[(1, V1)])), Some(&live)));
    let told: Vec<_> = planned.unwrap().unwrap().notices.into_iter().map(|notice| notice.what).collect();
    assert_eq!(told, ["transforms.filter finds null in mail"]);
}

#[test]
fn of_two_fields_with_the_alias_of_a_protected_one_none_comes_in_the_clear() {
    const TWICE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string","aliases":["mail"]},
        {"name":"b","type":"string","aliases":["mail"]}]}"#;
    for more in ["    protect: {mail: mask}\n", "    transforms: {drop: [mail]}\n"] {
        let error = block_on(initial_schema(&spec(more), Some(&registry(&[(1, TWICE)])))).unwrap_err();
        assert!(matches!(error, IngestError::SchemaRefused { .. }), "{error}");
        assert!(error.to_string().contains("two fields have the alias mail"), "{error}");
    }
}

/// Delta keeps the name of a column, whatever its records call it by now.
#[test]
fn a_row_that_fails_is_told_of_by_the_column_of_the_table() {
    const OLD: &str = r#"{"type":"record","name":"R","fields":[{"name":"amount","type":"double"}]}"#;
    const NEW: &str =
        r#"{"type":"record","name":"R","fields":[{"name":"total","type":"long","aliases":["amount"]}]}"#;
    let spec = spec("    transforms: {constant: {c: {type: int, value: 1}}}\n");
    let live = block_on(initial_schema(&spec, Some(&registry(&[(1, OLD)])))).unwrap().unwrap();
    let mut rig = Rig::new(&spec, Some(live), &[(2, NEW)]);
    // 2^53 + 1 as an Avro long.
    let value = [0, 0, 0, 0, 2, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    assert_eq!(rig.push(&value), Ok(Pushed::Row));
    assert_eq!(names(rig.decoder.table_schema().unwrap()), ["amount", "c"]);
    assert_eq!(told(&rig.close().failed), ["0 amount: long that double cannot hold exactly"]);
}
