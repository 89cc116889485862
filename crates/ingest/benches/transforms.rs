//! What transforms and protection cost: the same stream of orders through the decoder of a table without them, and
//! with each kind. Rates are of the records' bytes, on one core.
//!
//! `none` is the way of a table without transforms. `hash`, `mask` and `encrypt` are of the same column, some 60
//! characters; `protect` is one of each kind.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::decoder::Decoder;

use self::support::{ORDERS, ROWS, decode, framed, orders, registry, spec};

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

criterion_group!(benches, transforms);
criterion_main!(benches);
