//! Sample orders: row `i` is a pure function of `i`, so that runs can be compared.

/// The schema as the registry endpoint hands it out.
pub const SCHEMA: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
  {"name": "order_id", "type": {"type": "string", "logicalType": "uuid"}},
  {"name": "customer_id", "type": "long"},
  {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
  {"name": "status", "type": {"type": "enum", "name": "Status",
    "symbols": ["created", "paid", "shipped", "delivered", "cancelled"]}},
  {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
    {"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}]}}},
  {"name": "coupon", "type": ["null", "string"], "default": null}
]}"#;

/// The schema's id at the registry endpoint.
pub const SCHEMA_ID: u32 = 1;
/// One order in so many is followed by a broken record.
const BROKEN_EVERY: u32 = 100;
const FIRST_ORDER_MS: i64 = 1_767_225_600_000;

/// An order's record value in Confluent's framing.
pub fn order(i: u32) -> Vec<u8> {
    let random = mix(u64::from(i));
    let mut out = vec![0];
    out.extend(SCHEMA_ID.to_be_bytes());
    let high = mix(random);
    string(&mut out, &uuid(random, high));
    long(&mut out, (high % 5_000) as i64 + 1);
    long(&mut out, FIRST_ORDER_MS + i64::from(i) * 9_000 + (random % 60_000) as i64);
    let cents = ((random >> 20) % 50_000 + 99) as i64;
    // Two's complement, big-endian: eight bytes hold any amount here.
    long(&mut out, 8);
    out.extend(cents.to_be_bytes());
    long(&mut out, [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4][(high >> 32) as usize % 12]);
    let items = random % 4 + 1;
    long(&mut out, items as i64);
    for item in 0..items {
        let sku = mix(random ^ item);
        string(&mut out, &format!("SKU-{:04}", sku % 2_000));
        long(&mut out, (sku >> 40) as i64 % 5 + 1);
    }
    long(&mut out, 0);
    if random.is_multiple_of(7) {
        long(&mut out, 1);
        string(&mut out, "WELCOME10");
    } else {
        long(&mut out, 0);
    }
    out
}

/// The broken record that follows order `i`, for some `i`.
pub fn broken(i: u32) -> Option<Vec<u8>> {
    if i % BROKEN_EVERY != BROKEN_EVERY / 2 {
        return None;
    }
    let mut value = order(i);
    match (i / BROKEN_EVERY) % 4 {
        0 => value.truncate(value.len() / 2),
        1 => value[0] = 7,
        2 => value.push(0),
        _ => value[1..5].copy_from_slice(&999u32.to_be_bytes()),
    }
    Some(value)
}

fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn uuid(high: u64, low: u64) -> String {
    let digits = format!("{high:016x}{low:016x}");
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 0x7f {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend(text.as_bytes());
}
