//! What transforms and protection cost: the same stream of orders through the decoder of a table without them, and
//! with each kind; and of the records of `wide`, with their sixteen columns and with two of them. Rates are of the
//! records' bytes, on one core.
//!
//! `none` is the way of a table without transforms. `hash`, `mask` and `encrypt` are of the same column, some 60
//! characters; `protect` is one of each kind.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::{decoder::Decoder, registry::RegistryFormat};
use siltstone_spec::{SourceFormat, TableSpec};

use self::support::{ORDERS, ROWS, decode, framed, orders, registry, registry_of, spec, wide, wide_protobuf};

/// What stands in the spec besides.
const FORMS: [(&str, &str); 7] = [
    ("none", ""),
    (
        "select_rename_cast",
        ", transforms: {select: [id, customer_id, ts, amount, status, note], rename: {customer_id: customer}, \
         cast: {amount: 'decimal(12, 2)'}}",
    ),
    // Half of the rows stay.
    ("filter", ", transforms: {filter: \"amount > 500.0 and country <> 'xx'\"}"),
    ("hash", ", protect: {note: hash}, protection: {key: '${KEY}'}"),
    ("mask", ", protect: {note: mask}"),
    ("encrypt", ", protect: {note: encrypt}, protection: {key: '${KEY}'}"),
    ("protect", ", protect: {customer_id: hash, status: mask, note: encrypt}, protection: {key: '${KEY}'}"),
];

fn transforms(criterion: &mut Criterion) {
    let registry = registry(&[ORDERS]);
    let values: Vec<Vec<u8>> = orders().iter().map(|body| framed(1, body)).collect();
    let bytes: usize = values.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("transforms");
    group.throughput(Throughput::Bytes(bytes as u64));
    for (name, more) in FORMS {
        let mut decoder = Decoder::new(&spec(more), None).unwrap();
        let rows = decode(&mut decoder, &registry, &values);
        let wanted = if name == "filter" { ROWS * 2 / 5..=ROWS * 3 / 5 } else { ROWS..=ROWS };
        assert!(wanted.contains(&rows), "{name}: {rows} rows");
        group.bench_function(format!("orders/{name}"), |bencher| {
            bencher.iter(|| decode(&mut decoder, &registry, &values));
        });
    }
    group.finish();
}

/// What is left out is passed over in the bytes.
fn select(criterion: &mut Criterion) {
    let (avro, records) = wide();
    let (protobuf, messages) = wide_protobuf();
    // The index of the message in its schema goes before it.
    let messages: Vec<Vec<u8>> = messages.iter().map(|body| [&[0], &body[..]].concat()).collect();
    let avro_registry = registry_of(RegistryFormat::Avro, &[avro.as_str()]);
    let protobuf_registry = registry_of(RegistryFormat::Protobuf, &[protobuf.as_str()]);
    let mut group = criterion.benchmark_group("transforms");
    for (name, source_format, registry, bodies) in [
        ("avro", SourceFormat::Avro, avro_registry, records),
        ("protobuf", SourceFormat::Protobuf, protobuf_registry, messages),
    ] {
        let values: Vec<Vec<u8>> = bodies.iter().map(|body| framed(1, body)).collect();
        let bytes: usize = values.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        for (form, more) in [("none", ""), ("select_2_of_16", ", transforms: {select: [f0, f15]}")] {
            let table = TableSpec { source_format, ..spec(more) };
            let mut decoder = Decoder::new(&table, None).unwrap();
            assert_eq!(decode(&mut decoder, &registry, &values), ROWS, "{name}/{form}");
            group.bench_function(format!("wide/{name}/{form}"), |bencher| {
                bencher.iter(|| decode(&mut decoder, &registry, &values));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, transforms, select);
criterion_main!(benches);
