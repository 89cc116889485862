//! How fast Avro and Protobuf records become columns, on one core.
//!
//! `orders`: seven fields, about 100 bytes. `wide`: sixteen fields, about 512 bytes, in both. `decoder`: the same
//! orders with Confluent framing through the whole decoder: all of an older schema id, all of a newer one with a field
//! more, and of both in turn. At the end it prints what a record costs in turn against the mean of both alone.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
    decoder::Decoder,
    protobuf::{self, ProtobufFile, ProtobufProgram},
};

use self::support::{
    ORDERS, ROWS, Random, decode, framed, long, orders, registry, spec, text, wide, wide_protobuf,
};

/// Passes of each stream for the ratio; the quickest counts.
const PASSES: usize = 60;

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

/// The orders' schema with a field more.
fn newer_schema() -> String {
    let fields = ORDERS.strip_suffix("]}").unwrap();
    format!(r#"{fields},{{"name":"channel","type":["null","string"],"default":null}}]}}"#)
}

/// The same orders by both schemas, framed, and in turn.
fn streams() -> [(&'static str, Vec<Vec<u8>>); 3] {
    let mut random = Random(11);
    let bodies = orders();
    let newer = |body: &Vec<u8>| {
        let mut body = body.clone();
        long(&mut body, 1);
        text(&mut body, 3, &mut random);
        framed(2, &body)
    };
    let newer: Vec<Vec<u8>> = bodies.iter().map(newer).collect();
    let older: Vec<Vec<u8>> = bodies.iter().map(|body| framed(1, body)).collect();
    let pairs = older.iter().zip(&newer).enumerate();
    let in_turn = pairs.map(|(row, (older, newer))| if row % 2 == 0 { older } else { newer }.clone());
    let in_turn = in_turn.collect();
    [("older", older), ("newer", newer), ("in_turn", in_turn)]
}

fn decoder(criterion: &mut Criterion) {
    let newer = newer_schema();
    let registry = registry(&[ORDERS, &newer]);
    let streams = streams();
    // The table has the newer columns, whatever comes.
    let first = &streams[1].1[..1];
    let decoder = || {
        let mut decoder = Decoder::new(&spec(""), None).unwrap();
        assert_eq!(decode(&mut decoder, &registry, first), 1);
        decoder
    };
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, values) in &streams {
        let mut decoder = decoder();
        group.bench_function(format!("orders/{name}"), |bencher| {
            bencher.iter(|| decode(&mut decoder, &registry, values));
        });
    }
    group.finish();
    let mut best = [Duration::MAX; 3];
    let mut decoders = [decoder(), decoder(), decoder()];
    for _ in 0..PASSES {
        for (((_, values), decoder), best) in streams.iter().zip(&mut decoders).zip(&mut best) {
            let began = Instant::now();
            assert_eq!(decode(decoder, &registry, values), ROWS);
            *best = began.elapsed().min(*best);
        }
    }
    print_ratio(best);
}

#[allow(clippy::print_stderr)]
fn print_ratio([older, newer, in_turn]: [Duration; 3]) {
    let mean = (older + newer).as_secs_f64() / 2.0;
    eprintln!("decoder/orders: two schema ids in turn cost {:.3} of one", in_turn.as_secs_f64() / mean);
}

criterion_group!(benches, programs, protobuf_program, decoder);
criterion_main!(benches);
