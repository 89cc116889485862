//! Files for tables with transforms: what their columns become, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array};
use futures::executor::block_on;
use siltstone_protocol::{Field, PrimitiveType as P, Schema, SchemaHistory};
use siltstone_spec::TableSpec;

use super::spec_of_avro as spec;
use crate::{
    columns::arrow_schema,
    dead_letter::told,
    decoder::{ColumnStage, ColumnsLearned, FileTable, Learned, Pushed, SchemaNeed, initial_schema},
    files::FileFormat,
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};

const WRITER: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":"string"},
    {"name":"mail","type":["null","string"],"default":null}]}"#;
const OLDER: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},{"name":"n","type":"string"}]}"#;
const TRANSFORMS: &str = "    kafka_metadata: true\n    transforms: {filter: id <> 3, rename: {n: name}, cast: {name: int}}\n    \
     protect: {mail: hash, _kafka.key: hash}\n    protection: {key: '${KEY}'}\n";

fn registry(schema: Option<&str>) -> FixedRegistry {
    let registry = FixedRegistry::new();
    if let Some(schema) = schema {
        let (format, schema, references) = (RegistryFormat::Avro, schema.to_owned(), vec![]);
        registry.put("t-value", RegisteredSchema { id: 1, format, schema, references });
    }
    registry
}

fn table(spec: &TableSpec, schema: Option<&str>) -> FileTable {
    block_on(FileTable::open(spec, Some(&registry(schema)), true)).unwrap()
}

fn live(spec: &TableSpec) -> Schema {
    block_on(initial_schema(spec, Some(&registry(Some(WRITER))))).unwrap().unwrap()
}

/// Columns of a Parquet file that lets everything be null.
fn columns(names: &[(&str, P)]) -> Schema {
    let fields = (1..).zip(names).map(|(id, (name, of))| Field::optional(id, *name, (*of).into()));
    Schema::new(0, fields.collect())
}

fn stage(table: &FileTable, natural: &Schema, live: &Schema) -> ColumnStage {
    let mut columns = table.like(natural, live).unwrap();
    // As a file is mapped that is to be like this.
    let new = natural.fields.iter().filter(|field| columns.column(&field.name).is_none());
    let new: Vec<Field> = new.cloned().collect();
    columns.fields.extend(new);
    match table.learn(&columns, Some((live, &SchemaHistory::default()))).unwrap() {
        ColumnsLearned::Ready(stage) => stage,
        ColumnsLearned::Evolves(schema) => panic!("{schema:?}"),
    }
}

fn batch(stage: &ColumnStage) -> RecordBatch {
    let arrow = arrow_schema(stage.source()).unwrap();
    let arrays = arrow.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "id" => Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
            "n" => Arc::new(StringArray::from(vec!["7", "seven", "x", "8"])),
            "mail" => Arc::new(StringArray::from(vec!["ann@example.com"; 4])),
            _ => new_null_array(field.data_type(), 4),
        }
    });
    RecordBatch::try_new(Arc::clone(&arrow), arrays.collect()).unwrap()
}

#[test]
fn columns_go_the_way_of_records() {
    let spec = spec(TRANSFORMS);
    let (table, live) = (table(&spec, Some(WRITER)), live(&spec));
    let natural = columns(&[("id", P::Long), ("n", P::String), ("mail", P::String)]);
    let stage = stage(&table, &natural, &live);
    assert!(stage.source().column("id").unwrap().required, "rows without it are left out one by one");
    let finished = stage.apply(batch(&stage)).unwrap();
    assert_eq!(finished.filtered, 1, "the third");
    assert_eq!(told(&finished.failed), ["1 name: string that is no int"]);
    let rows = finished.batch.unwrap();
    assert_eq!(rows.schema(), arrow_schema(&live).unwrap());
    assert_eq!(rows.column_by_name("id").unwrap().as_ref(), &Int64Array::from(vec![1, 4]) as &dyn Array);
    let mails = rows.column_by_name("mail").unwrap().as_string::<i32>();
    assert!(mails.iter().all(|mail| mail.is_some_and(|mail| mail.len() == 64)));
    assert_eq!(rows.column_by_name("_kafka").unwrap().null_count(), 2);
}

#[test]
fn what_was_renamed_stays_protected() {
    let spec = spec(TRANSFORMS);
    let newer = WRITER.replace(r#""mail","#, r#""post","aliases":["mail"],"#);
    let natural = columns(&[("id", P::Long), ("n", P::String), ("post", P::String)]);
    let names = SchemaHistory::default();
    let learn = |table: &FileTable, live: &Schema| table.learn(&natural, Some((live, &names)));
    let table_of_newer = table(&spec, Some(&newer));
    let Ok(ColumnsLearned::Evolves(live)) = learn(&table_of_newer, &live(&spec)) else { panic!() };
    assert!(live.column("post").is_none() && live.column("mail").unwrap().is_called("post"));
    let Ok(ColumnsLearned::Ready(stage)) = learn(&table_of_newer, &live) else { panic!() };
    assert!(stage.source().column("mail").is_some() && stage.view().column("post").is_some());
    assert!(stage.source().column("post").is_none() && stage.view().column("mail").is_none());
    let rows = stage.apply(batch(&stage)).unwrap().batch.unwrap();
    let mails = rows.column_by_name("mail").unwrap().as_string::<i32>();
    assert!(mails.iter().all(|mail| mail.is_some_and(|mail| mail.len() == 64)));
    // Where nobody tells that it is the same field, the table's alias must not let it in.
    let error = learn(&table(&spec, None), &live).unwrap_err();
    assert!(error.to_string().contains("column mail is protected"), "{error}");
}

#[test]
fn a_file_makes_a_table_as_a_record_would() {
    let spec = spec(TRANSFORMS);
    let strip = |schema: &Schema| -> Vec<(String, String)> {
        let of = |field: &Field| (field.name.clone(), format!("{:?}", field.data_type));
        schema.fields.iter().map(of).collect()
    };
    let wanted = strip(&live(&spec));
    let table = table(&spec, None);
    let natural = columns(&[("id", P::Long), ("n", P::String), ("mail", P::String)]);
    let Ok(ColumnsLearned::Evolves(schema)) = table.learn(&natural, None) else { panic!() };
    assert_eq!(strip(&schema), wanted);
    let mut decoder = table.decoder(FileFormat::Avro, WRITER, None).unwrap();
    let Ok(Learned::Evolves(schema)) = block_on(decoder.learn(SchemaNeed::Latest, None)) else { panic!() };
    assert_eq!(strip(&schema), wanted);
    decoder.set_table_schema(schema).unwrap();
    assert_eq!(block_on(decoder.learn(SchemaNeed::Latest, None)), Ok(Learned::Ready));
    let body = [2, 2, b'7', 2, 6, b'a', b'n', b'n'];
    assert_eq!(decoder.push_first(&body), (Pushed::Row, Some(body.len())));
    assert!(decoder.can_fail());
    let rows = decoder.close().unwrap().unwrap().batch.unwrap();
    assert_eq!(rows.column_by_name("_kafka").unwrap().null_count(), 1);
    assert_eq!(rows.column_by_name("mail").unwrap().as_string::<i32>().value(0).len(), 64);
}

#[test]
fn older_files_lack_what_later_schemas_have() {
    let spec = spec(TRANSFORMS);
    let live = live(&spec);
    let mut decoder = table(&spec, Some(WRITER)).decoder(FileFormat::Avro, OLDER, Some(&live)).unwrap();
    assert_eq!(block_on(decoder.learn(SchemaNeed::Latest, None)), Ok(Learned::Ready));
    let older = columns(&[("id", P::Int), ("n", P::String)]);
    let stage = stage(&table(&spec, Some(WRITER)), &older, &live);
    assert!(stage.source().column("mail").is_some());
    // A filter over a column that nobody knows cannot judge.
    let error = table(&spec, None)
        .learn(&columns(&[("n", P::String)]), Some((&live, &SchemaHistory::default())))
        .unwrap_err();
    assert!(error.to_string().contains("the source has no column id"), "{error}");
}

#[test]
fn what_cannot_be_is_refused() {
    let hidden = spec("    kafka_metadata: true\n    transforms: {filter: _kafka is not null}\n");
    let live = live(&hidden);
    let natural = columns(&[("id", P::Long), ("n", P::String), ("mail", P::String)]);
    let error = table(&hidden, None).learn(&natural, Some((&live, &SchemaHistory::default()))).unwrap_err();
    assert!(error.to_string().contains("records of files have no _kafka"), "{error}");
    let mut decoder = table(&hidden, None).decoder(FileFormat::Avro, WRITER, Some(&live)).unwrap();
    let error = block_on(decoder.learn(SchemaNeed::Latest, None)).unwrap_err();
    assert!(error.to_string().contains("records of files have no _kafka"), "{error}");
    // A mistyped name must let nothing through.
    let mistyped = spec("    protect: {mial: mask}\n");
    let error = table(&mistyped, None).learn(&natural, None).unwrap_err();
    assert!(error.to_string().contains("did you mean mail?"), "{error}");
    // The table's columns are those after its transforms: they do not tell what lines hold.
    let masked = spec("    protect: {mail: mask}\n");
    let error = table(&masked, None).decoder(FileFormat::Json, "", Some(&live)).unwrap_err();
    assert!(error.to_string().contains("register the schema"), "{error}");
    assert!(table(&masked, Some(WRITER)).decoder(FileFormat::Json, "", Some(&live)).is_ok());
    assert!(table(&spec(""), None).decoder(FileFormat::Json, "", Some(&live)).is_ok());
}
