//! How fast JSON records become columns, on one core.
//!
//! The record is an order of seven members. `serde_json` reading it into a borrowed struct, without columns,
//! is the bound of a decoder built on it, and here for scale.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siltstone_ingest::{columns::Columns, json::JsonProgram};
use siltstone_protocol::{Field, PrimitiveType, Schema};
use siltstone_spec::model::ExtraFields;

const ROWS: usize = 8192;

fn schema() -> Schema {
    let column = |id, name, data_type: PrimitiveType| Field::optional(id, name, data_type.into());
    Schema::new(
        0,
        vec![
            column(1, "id", PrimitiveType::Long),
            column(2, "customer_id", PrimitiveType::Long),
            column(3, "ts", PrimitiveType::Timestamptz),
            column(4, "amount", PrimitiveType::Double),
            column(5, "status", PrimitiveType::String),
            column(6, "country", PrimitiveType::String),
            column(7, "note", PrimitiveType::String),
        ],
    )
}

struct Order {
    members: Vec<(&'static str, String)>,
}

/// Seeded orders, so that every run reads the same.
fn orders() -> Vec<Order> {
    const STATUS: [&str; 5] = ["new", "paid", "packed", "shipped", "returned"];
    const COUNTRY: [&str; 6] = ["DE", "FR", "US", "JP", "BR", "IN"];
    const WORDS: [&str; 8] = ["leave", "at", "the", "door", "gift", "wrapped", "please", "call"];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    (0..ROWS)
        .map(|row| {
            let mut note = String::new();
            let length = 40 + random(40);
            while note.len() < length {
                note.push_str(WORDS[random(WORDS.len())]);
                note.push(' ');
            }
            note.truncate(length);
            let members = vec![
                ("id", (10_000_000 + row).to_string()),
                ("customer_id", random(1_000_000).to_string()),
                ("ts", (1_780_000_000_000 + row * 37).to_string()),
                ("amount", format!("{}.{:02}", random(1000), random(100))),
                ("status", format!("\"{}\"", STATUS[random(STATUS.len())])),
                ("country", format!("\"{}\"", COUNTRY[random(COUNTRY.len())])),
                ("note", format!("\"{note}\"")),
            ];
            Order { members }
        })
        .collect()
}

fn render(orders: &[Order], order: &[usize], colon: &str, extra: &str) -> Vec<Vec<u8>> {
    let record = |members: &Order| {
        let members = order.iter().map(|at| &members.members[*at]);
        let members: Vec<_> = members.map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        format!("{{{}{extra}}}", members.join(",")).into_bytes()
    };
    orders.iter().map(record).collect()
}

#[derive(serde::Deserialize)]
struct BorrowedOrder<'a> {
    id: i64,
    customer_id: i64,
    ts: i64,
    amount: f64,
    status: &'a str,
    country: &'a str,
    note: &'a str,
}

fn decode(c: &mut Criterion) {
    let orders = orders();
    let schema = schema();
    let mut group = c.benchmark_group("json_orders");
    group.throughput(Throughput::Elements(ROWS as u64));
    let forms: [(&str, &[usize], &str, &str); 4] = [
        ("schema_order", &[0, 1, 2, 3, 4, 5, 6], ":", ""),
        ("other_order", &[6, 4, 2, 0, 1, 3, 5], ":", ""),
        ("spaced_sparse", &[0, 2, 3, 6], ": ", ""),
        (
            "unknown_members",
            &[0, 1, 2, 3, 4, 5, 6],
            ":",
            r#","meta":{"v":1,"tags":["a","b"]},"trace":"0af7651916cd43dd""#,
        ),
    ];
    for (name, order, colon, extra) in forms {
        let records = render(&orders, order, colon, extra);
        let program = JsonProgram::compile(&schema, ExtraFields::Ignore).unwrap();
        let mut columns = Columns::new(&schema).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                for record in &records {
                    program.decode(&mut columns, record).unwrap();
                }
                black_box(columns.finish().unwrap())
            });
        });
    }
    let records = render(&orders, &[0, 1, 2, 3, 4, 5, 6], ":", "");
    group.bench_function("serde_json_struct_no_columns", |b| {
        b.iter(|| {
            for record in &records {
                let order: BorrowedOrder<'_> = serde_json::from_slice(record).unwrap();
                black_box((order.id, order.customer_id, order.ts, order.amount));
                black_box((order.status, order.country, order.note));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
