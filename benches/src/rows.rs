//! The workloads. Row `i` is a pure function of `i` (splitmix64), so that tables can be compared by content.
//!
//! - `orders`: 7 fields, 179 bytes as JSON, 104 as Avro; 200,000 customers, 6 states, 50 countries, notes of
//!   40 to 80 characters, timestamps up to 60 s out of order.
//! - `wide`: 16 fields, 512 bytes of Avro. `wide-two-ids` alternates between two writer schemas, record
//!   by record.

use std::io::Write;

use clap::ValueEnum;

pub const BASE_MS: i64 = 1_767_225_600_000;
pub const STEP_MS: i64 = 173;
const SEED: u64 = 20_261_122;
const JITTER_MS: u64 = 60_000;
const STATUS: [&str; 6] = ["created", "payment_pending", "paid", "shipped", "delivered", "cancelled"];
/// Percent, cumulative.
const STATUS_UP_TO: [u64; 6] = [10, 15, 40, 60, 92, 100];
const COUNTRIES: [&str; 50] = [
    "Argentina",
    "Australia",
    "Austria",
    "Belgium",
    "Brazil",
    "Bulgaria",
    "Canada",
    "Chile",
    "China",
    "Colombia",
    "Croatia",
    "Czechia",
    "Denmark",
    "Egypt",
    "Estonia",
    "Finland",
    "France",
    "Germany",
    "Ghana",
    "Greece",
    "Hungary",
    "Iceland",
    "India",
    "Indonesia",
    "Ireland",
    "Israel",
    "Italy",
    "Japan",
    "Kenya",
    "Latvia",
    "Lithuania",
    "Malaysia",
    "Mexico",
    "Morocco",
    "Netherlands",
    "New Zealand",
    "Nigeria",
    "Norway",
    "Peru",
    "Poland",
    "Portugal",
    "Romania",
    "Singapore",
    "Spain",
    "Sweden",
    "Switzerland",
    "Thailand",
    "Turkey",
    "United Kingdom",
    "United States",
];
const SYLLABLES: [&str; 16] =
    ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ro", "su", "ta"];

/// A workload's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    OrdersAvro,
    OrdersJson,
    WideAvro,
    WideTwoIds,
    WideProtobuf,
}

impl Shape {
    /// The schema that the registry endpoint has under this id.
    pub fn schema_of_id(id: u32) -> Option<String> {
        match id {
            1 => Some(orders_schema()),
            2 => Some(wide_schema(false)),
            3 => Some(wide_schema(true)),
            4 => Some(wide_proto()),
            _ => None,
        }
    }

    /// Appends the value of row `i`; returns its key.
    pub fn write(self, i: u64, out: &mut Vec<u8>) -> u64 {
        match self {
            Self::OrdersAvro => Order::of(i).write_avro(out),
            Self::OrdersJson => Order::of(i).write_json(out),
            Self::WideAvro => write_wide(i, 2, out),
            Self::WideTwoIds => write_wide(i, 2 + (i / 4 % 2) as u32, out),
            Self::WideProtobuf => write_wide_protobuf(i, out),
        }
    }
}

fn mix(i: u64, field: u64) -> u64 {
    let mut z =
        (i.wrapping_mul(16).wrapping_add(field)).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(SEED);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

struct Order {
    id: u64,
    customer_id: u64,
    ts_ms: i64,
    cents: u64,
    status: &'static str,
    country: &'static str,
    note: String,
}

impl Order {
    fn of(i: u64) -> Self {
        let percent = mix(i, 4) % 100;
        let status = STATUS_UP_TO.iter().position(|up_to| percent < *up_to).unwrap_or(0);
        Self {
            id: i,
            customer_id: mix(i, 1) % 200_000 + 1,
            ts_ms: BASE_MS + i as i64 * STEP_MS + (mix(i, 2) % JITTER_MS) as i64,
            cents: mix(i, 3) % 100_000 + 1,
            status: STATUS[status],
            country: COUNTRIES[(mix(i, 5) % 50) as usize],
            note: note(i),
        }
    }

    fn write_avro(&self, out: &mut Vec<u8>) -> u64 {
        frame(out, 1);
        long(out, self.id as i64);
        long(out, self.customer_id as i64);
        long(out, self.ts_ms);
        out.extend((self.cents as f64 / 100.0).to_le_bytes());
        string(out, self.status);
        string(out, self.country);
        string(out, &self.note);
        self.customer_id
    }

    fn write_json(&self, out: &mut Vec<u8>) -> u64 {
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            r#"{{"id":{},"customer_id":{},"ts":{},"amount":{}.{:02},"status":"{}","country":"{}","note":"{}"}}"#,
            self.id,
            self.customer_id,
            self.ts_ms,
            self.cents / 100,
            self.cents % 100,
            self.status,
            self.country,
            self.note
        );
        self.customer_id
    }
}

/// Sixteen pseudo-words, cut to 40 to 80 characters.
fn note(i: u64) -> String {
    let length = (mix(i, 6) % 41 + 40) as usize;
    let mut text = String::with_capacity(160);
    for index in mix(i, 7).to_le_bytes().into_iter().chain(mix(i, 8).to_le_bytes()) {
        if !text.is_empty() {
            text.push(' ');
        }
        word(index as usize, &mut text);
    }
    text.truncate(length);
    text.truncate(text.trim_end().len());
    while text.len() < length {
        text.push('x');
    }
    text
}

fn word(index: usize, text: &mut String) {
    let (a, b) = (index / 16, index % 16);
    text.push_str(SYLLABLES[a]);
    text.push_str(SYLLABLES[b]);
    if !(a + b).is_multiple_of(3) {
        text.push_str(SYLLABLES[(a * 7 + b * 3) % 16]);
    }
}

fn orders_schema() -> String {
    r#"{"type":"record","name":"Order","namespace":"lab","fields":[{"name":"id","type":"long"},{"name":"customer_id","type":"long"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"amount","type":"double"},
    {"name":"status","type":"string"},{"name":"country","type":"string"},{"name":"note","type":"string"}]}"#
        .to_owned()
}

/// Sixteen fields; the second id has them in another order of two, as a re-registered schema may.
fn wide_schema(swapped: bool) -> String {
    let mut fields = vec![
        r#"{"name":"id","type":"long"}"#.to_owned(),
        r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}"#.to_owned(),
        r#"{"name":"active","type":"boolean"}"#.to_owned(),
        r#"{"name":"count","type":"int"}"#.to_owned(),
        r#"{"name":"ratio","type":"double"}"#.to_owned(),
        r#"{"name":"score","type":"float"}"#.to_owned(),
    ];
    fields.extend((0..10).map(|n| format!(r#"{{"name":"s{n}","type":["null","string"],"default":null}}"#)));
    if swapped {
        fields.swap(3, 4);
    }
    format!(r#"{{"type":"record","name":"Wide","namespace":"lab","fields":[{}]}}"#, fields.join(","))
}

fn write_wide(i: u64, id: u32, out: &mut Vec<u8>) -> u64 {
    frame(out, id);
    let key = mix(i, 1) % 1_000_000;
    long(out, key as i64);
    long(out, (BASE_MS + i as i64) * 1000 + (mix(i, 2) % 1000) as i64);
    out.push((mix(i, 3) % 2) as u8);
    let ratio = (mix(i, 5) % 1_000_000) as f64 / 1000.0;
    if id == 3 {
        out.extend(ratio.to_le_bytes());
        long(out, (mix(i, 4) % 10_000) as i64);
    } else {
        long(out, (mix(i, 4) % 10_000) as i64);
        out.extend(ratio.to_le_bytes());
    }
    out.extend(((mix(i, 6) % 1000) as f32 / 10.0).to_le_bytes());
    let mut text = String::new();
    for n in 0..10u64 {
        long(out, 1);
        wide_text(i, n, &mut text);
        string(out, &text);
    }
    key
}

/// The first five repeat much, the others little; 512 bytes a record in all.
fn wide_text(i: u64, n: u64, text: &mut String) {
    text.clear();
    let mut random = if n < 5 { mix(i % 50 + n, 7) } else { mix(i, 7 + n) };
    while text.len() < 46 {
        word((random % 256) as usize, text);
        text.push(' ');
        random = mix(random, 9);
    }
    text.truncate(46);
}

/// The same columns as those of `wide_schema`.
fn wide_proto() -> String {
    let texts: String = (0..10).map(|n| format!("optional string s{n} = {}; ", n + 7)).collect();
    format!(
        "syntax = \"proto3\"; package lab; import \"google/protobuf/timestamp.proto\"; message Wide {{ \
         int64 id = 1; google.protobuf.Timestamp at = 2; bool active = 3; int32 count = 4; double ratio = 5; \
         float score = 6; {texts}}}"
    )
}

/// The same values as those of `write_wide`.
fn write_wide_protobuf(i: u64, out: &mut Vec<u8>) -> u64 {
    frame(out, 4);
    out.push(0); // The first message.
    let key = mix(i, 1) % 1_000_000;
    field(out, 1, 0, key);
    let (millis, micros) = (BASE_MS as u64 + i, mix(i, 2) % 1000);
    let mut at = Vec::with_capacity(16);
    field(&mut at, 1, 0, millis / 1000);
    field(&mut at, 2, 0, (millis % 1000 * 1000 + micros) * 1000);
    field(out, 2, 2, at.len() as u64);
    out.extend(&at);
    field(out, 3, 0, mix(i, 3) % 2);
    field(out, 4, 0, mix(i, 4) % 10_000);
    out.push(5 << 3 | 1);
    out.extend(((mix(i, 5) % 1_000_000) as f64 / 1000.0).to_le_bytes());
    out.push(6 << 3 | 5);
    out.extend(((mix(i, 6) % 1000) as f32 / 10.0).to_le_bytes());
    let mut text = String::new();
    for n in 0..10u64 {
        wide_text(i, n, &mut text);
        field(out, n + 7, 2, text.len() as u64);
        out.extend(text.as_bytes());
    }
    key
}

/// A Protobuf tag and the varint after it.
fn field(out: &mut Vec<u8>, number: u64, wire: u64, value: u64) {
    varint(out, number << 3 | wire);
    varint(out, value);
}

fn frame(out: &mut Vec<u8>, id: u32) {
    out.push(0);
    out.extend(id.to_be_bytes());
}

pub fn long(out: &mut Vec<u8>, value: i64) {
    varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn varint(out: &mut Vec<u8>, mut rest: u64) {
    while rest > 0x7f {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend(text.as_bytes());
}
