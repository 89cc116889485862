//! How fast Avro and Protobuf records become columns, on one core.
//!
//! `orders`: seven fields, about 100 bytes. `wide`: sixteen fields, about 512 bytes, in both. `decoder`: the same
//! orders with Confluent framing through the whole decoder, of one schema id and of two
//! in turn, the newer of which renames a column.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::{
    Headers, Record,
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
    decoder::{Decoder, Learned, Pushed},
    protobuf::{self, ProtobufFile, ProtobufProgram},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};
use siltstone_spec::TableSpec;

const ROWS: usize = 8192;
const ORDERS: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"customer_id","type":"long"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"amount","type":"double"},
    {"name":"status","type":"string"},{"name":"country","type":"string"},
    {"name":"note","type":["null","string"]}]}"#;

/// A linear congruential generator, so that every run reads the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn long(to: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn text(to: &mut Vec<u8>, length: u64, random: &mut Random) {
    long(to, length.cast_signed());
    to.extend((0..length).map(|_| b'a' + random.below(26) as u8));
}

fn orders() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    (0..ROWS as i64)
        .map(|row| {
            let mut body = Vec::new();
            long(&mut body, 10_000_000 + row);
            long(&mut body, random.below(1_000_000).cast_signed());
            long(&mut body, 1_780_000_000_000_000 + row * 37_000);
            body.extend((random.below(100_000) as f64 / 100.0).to_le_bytes());
            text(&mut body, 4 + row.cast_unsigned() % 5, &mut random);
            text(&mut body, 2, &mut random);
            long(&mut body, 1);
            let length = 40 + random.below(40);
            text(&mut body, length, &mut random);
            body
        })
        .collect()
}

/// Eight longs, four doubles, four strings of about 110 bytes.
fn wide() -> (String, Vec<Vec<u8>>) {
    let types = ["\"long\"", "\"double\"", "\"long\"", "\"string\""];
    let fields: Vec<String> = (0..16)
        .map(|index| format!(r#"{{"name":"f{index}","type":["null",{}]}}"#, types[index % 4]))
        .collect();
    let schema = format!(r#"{{"type":"record","name":"Wide","fields":[{}]}}"#, fields.join(","));
    let mut random = Random(9);
    let record = |random: &mut Random| {
        let mut body = Vec::new();
        for index in 0..16 {
            if random.below(20) == 0 {
                long(&mut body, 0);
                continue;
            }
            long(&mut body, 1);
            match index % 4 {
                1 => body.extend((random.below(1 << 30) as f64).to_le_bytes()),
                3 => {
                    let length = 95 + random.below(25);
                    text(&mut body, length, random);
                }
                _ => long(&mut body, random.below(1 << 31).cast_signed()),
            }
        }
        body
    };
    let records = (0..ROWS).map(|_| record(&mut random)).collect();
    (schema, records)
}

fn programs(criterion: &mut Criterion) {
    let (wide_schema, wide_records) = wide();
    for (name, schema, records) in
        [("orders", ORDERS, orders()), ("wide", wide_schema.as_str(), wide_records)]
    {
        let writer = AvroSchema::parse(schema, []).unwrap();
        let table = table_schema(&writer).unwrap();
        let program = AvroProgram::compile(&writer, &table).unwrap();
        let mut columns = Columns::new(&table).unwrap();
        let bytes: usize = records.iter().map(Vec::len).sum();
        let mut group = criterion.benchmark_group("avro");
        for (unit, throughput) in
            [("rows", Throughput::Elements(ROWS as u64)), ("bytes", Throughput::Bytes(bytes as u64))]
        {
            group.throughput(throughput);
            group.bench_function(format!("{name}/{unit}"), |bencher| {
                bencher.iter(|| {
                    for record in &records {
                        program.decode(&mut columns, black_box(record)).unwrap();
                    }
                    columns.finish().unwrap().num_rows()
                });
            });
        }
    }
}

/// The records of `wide`, with the same values.
fn wide_protobuf() -> (String, Vec<Vec<u8>>) {
    let types = ["int64", "double", "int64", "string"];
    let fields: String =
        (0..16).map(|index| format!("optional {} f{index} = {};", types[index % 4], index + 1)).collect();
    let schema = format!("syntax = \"proto3\"; message Wide {{ {fields} }}");
    let mut random = Random(9);
    let varint = |to: &mut Vec<u8>, mut rest: u64| {
        while rest >= 0x80 {
            to.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        to.push(rest as u8);
    };
    let record = |random: &mut Random| {
        let mut body = Vec::new();
        for index in 0..16u64 {
            if random.below(20) == 0 {
                continue;
            }
            let tag = (index + 1) << 3;
            match index % 4 {
                1 => {
                    varint(&mut body, tag | 1);
                    body.extend((random.below(1 << 30) as f64).to_le_bytes());
                }
                3 => {
                    let length = 95 + random.below(25);
                    varint(&mut body, tag | 2);
                    varint(&mut body, length);
                    body.extend((0..length).map(|_| b'a' + random.below(26) as u8));
                }
                _ => {
                    varint(&mut body, tag);
                    varint(&mut body, random.below(1 << 31));
                }
            }
        }
        body
    };
    let records = (0..ROWS).map(|_| record(&mut random)).collect();
    (schema, records)
}

fn protobuf_program(criterion: &mut Criterion) {
    let (text, records) = wide_protobuf();
    let message = ProtobufFile::compile(&text, &[]).unwrap().message(None).unwrap();
    let table = protobuf::table_schema(&message).unwrap();
    let mut program = ProtobufProgram::compile(&message, &table).unwrap();
    let mut columns = Columns::new(&table).unwrap();
    let bytes: usize = records.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("protobuf");
    for (unit, throughput) in
        [("rows", Throughput::Elements(ROWS as u64)), ("bytes", Throughput::Bytes(bytes as u64))]
    {
        group.throughput(throughput);
        group.bench_function(format!("wide/{unit}"), |bencher| {
            bencher.iter(|| {
                for record in &records {
                    program.decode(&mut columns, black_box(record)).unwrap();
                }
                columns.finish().unwrap().num_rows()
            });
        });
    }
}

fn spec() -> TableSpec {
    let spec = "source_clusters: [{name: c, bootstrap_brokers: ['b:9092'], \
                schema_registry: {url: 'http://registry.internal'}}]\n\
                destination_bucket_url: file:///lake\n\
                tables: [{name: orders, source_cluster_name: c, source_topic: orders, source_format: avro, \
                wire_format: confluent, schema_mode: registry, formats: [iceberg]}]\n";
    siltstone_spec::parse(spec, "spec.yaml", &|_| None).unwrap().tables.remove(0)
}

fn decoder(criterion: &mut Criterion) {
    let registry = FixedRegistry::new();
    // The same bytes; the second schema has another name for a column, and the table that of the newer one.
    let renamed = r#""remark","aliases":["note"]"#;
    for (id, schema) in [(1, ORDERS.to_owned()), (2, ORDERS.replace(r#""note""#, renamed))] {
        let schema = RegisteredSchema { id, format: RegistryFormat::Avro, schema, references: vec![] };
        registry.put("orders-value", schema);
    }
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Elements(ROWS as u64));
    for ids in [1u32, 2] {
        let framed = |(row, body): (usize, Vec<u8>)| {
            let id = 1 + row as u32 % ids;
            [&[0], &id.to_be_bytes()[..], &body].concat()
        };
        let values: Vec<Vec<u8>> = orders().into_iter().enumerate().map(framed).collect();
        let mut decoder = Decoder::new(&spec(), None).unwrap();
        group.bench_function(format!("orders/{ids}_ids"), |bencher| {
            bencher.iter(|| {
                for (offset, value) in (0..).zip(&values) {
                    let value = Some(black_box(value.as_slice()));
                    let headers = Headers::empty();
                    let record =
                        Record { partition: 0, offset, timestamp_ms: None, key: None, value, headers };
                    push(&mut decoder, &record, &registry);
                }
                decoder.finish().unwrap().map(|batch| batch.num_rows())
            });
        });
    }
}

fn push(decoder: &mut Decoder, record: &Record<'_>, registry: &FixedRegistry) {
    loop {
        match decoder.push(record) {
            Pushed::Row => return,
            Pushed::NeedsSchema(need) => {
                let learned = futures::executor::block_on(decoder.learn(need, Some(registry))).unwrap();
                if let Learned::Evolves(schema) = learned {
                    decoder.set_table_schema(schema).unwrap();
                }
            }
            other => assert_eq!(other, Pushed::Row),
        }
    }
}

criterion_group!(benches, programs, protobuf_program, decoder);
criterion_main!(benches);
