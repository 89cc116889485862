//! Orders as Avro records, seven fields of about 100 bytes, wider records in both formats, and how a decoder takes a
//! stream of them.

#![allow(clippy::unwrap_used, reason = "benchmarks")]

use std::hint::black_box;

use siltstone_ingest::{
    Headers, Record,
    decoder::{Decoder, Learned, Pushed},
    registry::{FixedRegistry, RegisteredSchema, RegistryFormat},
};
use siltstone_spec::TableSpec;

pub(crate) const ROWS: usize = 8192;
pub(crate) const ORDERS: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"customer_id","type":"long"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"amount","type":"double"},
    {"name":"status","type":"string"},{"name":"country","type":"string"},
    {"name":"note","type":["null","string"]}]}"#;

/// A linear congruential generator, so that every run reads the same.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(crate) fn long(to: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

pub(crate) fn text(to: &mut Vec<u8>, length: u64, random: &mut Random) {
    long(to, length.cast_signed());
    to.extend((0..length).map(|_| b'a' + random.below(26) as u8));
}

pub(crate) fn orders() -> Vec<Vec<u8>> {
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
pub(crate) fn wide() -> (String, Vec<Vec<u8>>) {
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

/// The records of `wide`, with the same values.
pub(crate) fn wide_protobuf() -> (String, Vec<Vec<u8>>) {
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

/// A record as Confluent's serializers frame it.
pub(crate) fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

/// A registry of these schemas of Avro, with ids from 1 on; the last is the subject's latest.
pub(crate) fn registry(schemas: &[&str]) -> FixedRegistry {
    registry_of(RegistryFormat::Avro, schemas)
}

pub(crate) fn registry_of(format: RegistryFormat, schemas: &[&str]) -> FixedRegistry {
    let registry = FixedRegistry::new();
    for (id, schema) in (1..).zip(schemas) {
        let schema = (*schema).to_owned();
        registry.put("orders-value", RegisteredSchema { id, format, schema, references: vec![] });
    }
    registry
}

/// The table of the orders, with this besides in its spec.
pub(crate) fn spec(more: &str) -> TableSpec {
    let spec = "source_clusters: [{name: c, bootstrap_brokers: ['b:9092'], \
                schema_registry: {url: 'http://registry.internal'}}]\n\
                destination_bucket_url: file:///lake\n\
                tables: [{name: orders, source_cluster_name: c, source_topic: orders, source_format: avro, \
                wire_format: confluent, schema_mode: registry"
        .to_owned();
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    siltstone_spec::parse(&(spec + more + "}]\n"), "spec.yaml", &env).unwrap().tables.remove(0)
}

/// Takes all records into one batch; how many rows it has.
pub(crate) fn decode(decoder: &mut Decoder, registry: &FixedRegistry, values: &[Vec<u8>]) -> usize {
    for (offset, value) in (0..).zip(values) {
        let value = Some(black_box(value.as_slice()));
        let headers = Headers::empty();
        let record = Record { partition: 0, offset, timestamp_ms: None, key: None, value, headers };
        push(decoder, &record, registry);
    }
    let batch = decoder.close().unwrap().and_then(|finished| finished.batch);
    batch.map_or(0, |batch| batch.num_rows())
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
