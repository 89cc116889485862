//! The stages of a flush, each alone: sort, gather, encode; one thread.
//!
//! Shape: orders, 1 million rows of 7 columns in batches of 8,192, in order of arrival. Rates are rows a
//! second.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng, rngs::StdRng};
use siltstone_datafile::{
    Layout, arrow_schema,
    stages::{Batches, Encoder, EncoderOptions, Gather, SortedIndex, sort},
};
use siltstone_protocol::{
    Field, NullOrder, PartitionField, PartitionSpec, PrimitiveType as P, Schema, SortDirection, SortField,
    SortOrder, Transform,
};
use siltstone_spec::{Compression, Files};

const ROWS: usize = 1_000_000;
const BATCH: usize = 8192;
const SLICE: usize = 8192;
const STRIPE_SLICES: usize = 32;

fn schema() -> Schema {
    let columns = [
        ("id", P::Long),
        ("customer_id", P::Long),
        ("ts", P::Timestamptz),
        ("amount", P::Double),
        ("status", P::String),
        ("country", P::String),
        ("note", P::String),
    ];
    let fields = (1..).zip(columns).map(|(id, (name, p))| Field::required(id, name, p.into()));
    Schema::new(0, fields.collect())
}

fn batches(schema: &Schema) -> Batches {
    let arrow = arrow_schema(schema).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let statuses = ["new", "paid", "packed", "shipped", "delivered", "returned"];
    let countries: Vec<String> =
        (0..50_u8).map(|n| format!("{}{}", (b'A' + n / 26) as char, (b'A' + n % 26) as char)).collect();
    let mut id = 0_i64;
    let mut batches = Vec::new();
    while (id as usize) < ROWS {
        let rows = BATCH.min(ROWS - id as usize);
        let base = 1_760_000_000_000_000 + id * 1000;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(id..id + rows as i64)),
            Arc::new(Int64Array::from_iter_values((0..rows).map(|_| rng.random_range(0..200_000)))),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    (0..rows as i64).map(|row| base + row * 1000 + rng.random_range(0..5_000_000)),
                )
                .with_timezone("+00:00"),
            ),
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|_| f64::from(rng.random_range(100..1_000_000)) / 100.0),
            )),
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| statuses[rng.random_range(0..6)]))),
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| &countries[rng.random_range(0..50)]))),
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| {
                let length = rng.random_range(40..=80);
                (0..length).map(|_| rng.random_range(b'a'..=b'z') as char).collect::<String>()
            }))),
        ];
        batches.push(RecordBatch::try_new(Arc::clone(&arrow), columns).unwrap());
        id += rows as i64;
    }
    Batches::new(batches, &arrow).unwrap()
}

fn order(keys: &[i32]) -> SortOrder {
    let field = |source_id: &i32| SortField {
        transform: Transform::Identity,
        source_id: *source_id,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    SortOrder { order_id: 1, fields: keys.iter().map(field).collect() }
}

fn by_day() -> PartitionSpec {
    let field =
        PartitionField { source_id: 3, field_id: 1000, name: "day".into(), transform: Transform::Day };
    PartitionSpec { spec_id: 1, fields: vec![field] }
}

fn columns(batches: &Batches) -> Vec<Gather> {
    (0..7).map(|column| Gather::new(batches, column).unwrap()).collect()
}

fn slices(batches: &Batches, index: &SortedIndex) -> Vec<Vec<ArrayRef>> {
    let columns = columns(batches);
    let slice = |places: &[u32]| columns.iter().map(|column| column.rows(places).unwrap()).collect();
    index.rows.chunks(SLICE).map(slice).collect()
}

fn encode(schema: &Schema, order: &SortOrder, compression: Compression, slices: &[Vec<ArrayRef>]) -> u64 {
    let files =
        Files { target_size: 512 << 20, row_group_bytes: 128 << 20, compression, bloom_filters: Vec::new() };
    let layout = Layout {
        schema: Arc::new(schema.clone()),
        partition_spec: PartitionSpec::default(),
        sort_order: order.clone(),
        files,
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([0; 32]),
        host: Default::default(),
    };
    let options = EncoderOptions::new(&layout, &slices[slices.len() / 2]).unwrap();
    let mut encoder = Encoder::new(std::io::sink(), &options, ROWS, "{}").unwrap();
    for stripe in slices.chunks(STRIPE_SLICES) {
        let rows = stripe.iter().map(|slice| slice[0].len()).sum();
        encoder
            .write(rows, SLICE, |column, range| Ok(Arc::clone(&stripe[range.start / SLICE][column])))
            .unwrap();
    }
    encoder.finish().unwrap().1
}

fn stages(c: &mut Criterion) {
    let schema = schema();
    let batches = batches(&schema);
    let plain = PartitionSpec::default();
    let mut group = c.benchmark_group("orders");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, keys, spec) in [
        ("sort/customer,ts", order(&[2, 3]), &plain),
        ("sort/day|customer,ts", order(&[2, 3]), &by_day()),
        ("sort/id", order(&[1]), &plain),
        ("sort/country,status,ts", order(&[6, 5, 3]), &plain),
        ("sort/note", order(&[7]), &plain),
    ] {
        group.bench_function(name, |b| b.iter(|| black_box(sort(&batches, &schema, spec, &keys).unwrap())));
    }
    let keys = order(&[2, 3]);
    let index = sort(&batches, &schema, &plain, &keys).unwrap();
    group.bench_function("gather", |b| {
        let columns = columns(&batches);
        b.iter(|| {
            for stripe in index.rows.chunks(SLICE * STRIPE_SLICES) {
                for column in &columns {
                    stripe.chunks(SLICE).for_each(|places| drop(black_box(column.rows(places).unwrap())));
                }
            }
        });
    });
    let slices = slices(&batches, &index);
    for (name, compression) in [
        ("encode/none", Compression::None),
        ("encode/zstd1", Compression::Zstd { level: 1 }),
        ("encode/zstd3", Compression::Zstd { level: 3 }),
    ] {
        eprintln_bytes(name, encode(&schema, &keys, compression, &slices));
        group.bench_function(name, |b| b.iter(|| encode(&schema, &keys, compression, &slices)));
    }
    group.finish();
}

#[allow(clippy::print_stderr)]
fn eprintln_bytes(name: &str, bytes: u64) {
    eprintln!("{name}: {:.1} bytes a row", bytes as f64 / ROWS as f64);
}

criterion_group!(benches, stages);
criterion_main!(benches);
