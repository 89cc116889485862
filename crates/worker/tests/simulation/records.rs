//! The topic: what a record at an offset is follows from the seed alone, so every row that is found can be told.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
    },
    compute::cast,
};
use siltstone_datafile::arrow_schema;
use siltstone_ingest::{Headers, Record, dead_letter::DeadLetters};
use siltstone_protocol::{RejectReason, Schema};

use crate::scenario::{CLUSTER, SECRET, Scenario, TOPIC};

/// When the simulation begins.
pub(crate) const BEGIN_MS: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 86_400_000;

/// Spreads bits: what a record is.
fn mix(seed: u64, partition: i32, offset: i64) -> u64 {
    let mut x =
        seed ^ (u64::from(partition.unsigned_abs()) << 48) ^ offset.unsigned_abs().wrapping_mul(0x9e37_79b9);
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    x ^ (x >> 31)
}

pub(crate) fn is_rejected(scenario: &Scenario, partition: i32, offset: i64) -> bool {
    mix(scenario.seed, partition, offset) % 100 < scenario.rejected_percent
}

/// The offsets of a range that are rows, or those that are rejected.
pub(crate) fn offsets(
    scenario: &Scenario,
    partition: i32,
    start: i64,
    end: i64,
    rejected: bool,
) -> Vec<(i32, i64)> {
    let all = (start..end).filter(|offset| is_rejected(scenario, partition, *offset) == rejected);
    all.map(|offset| (partition, offset)).collect()
}

/// Source files that may be read in.
pub(crate) const SOURCES: u64 = 3;
/// Rows of source files have the numbers of partitions that the topic has not.
const SOURCES_FROM: i32 = 100;

/// The ledger's name of a source file.
pub(crate) fn source(file: u64) -> String {
    format!("{file:064x}")
}

/// How many records a source file has.
pub(crate) fn count_of_source(scenario: &Scenario, file: u64) -> u64 {
    1 + mix(scenario.seed, SOURCES_FROM, file as i64) % 6
}

/// Records of a source file, by the places that they have as rows.
pub(crate) fn places_of_source(file: u64, start: u64, end: u64) -> Vec<(i32, i64)> {
    (start..end).map(|record| (SOURCES_FROM + file as i32, record as i64)).collect()
}

/// When a row is from, microseconds; some rows have no time, some are older than rows are kept.
pub(crate) fn at_us(scenario: &Scenario, partition: i32, offset: i64) -> Option<i64> {
    let bits = mix(scenario.seed, partition, offset) >> 8;
    let age_ms = match bits % 10 {
        0 => return None,
        1..=3 => (40 + (bits >> 16) as i64 % 3) * DAY_MS,
        _ => (bits >> 16) as i64 % (3 * DAY_MS),
    };
    Some((BEGIN_MS - age_ms) * 1_000)
}

pub(crate) fn region(scenario: &Scenario, partition: i32, offset: i64) -> Option<String> {
    let bits = mix(scenario.seed, partition, offset) >> 40;
    (!bits.is_multiple_of(8)).then(|| format!("{SECRET}-{}", bits % 3))
}

/// Rows of a schema of the table; columns that it has got since the beginning are empty.
pub(crate) fn rows(scenario: &Scenario, schema: &Schema, places: &[(i32, i64)]) -> Vec<RecordBatch> {
    if places.is_empty() {
        return Vec::new();
    }
    let schema = arrow_schema(schema).unwrap();
    let of =
        |at: fn(&Scenario, i32, i64) -> Option<i64>| places.iter().map(move |(p, o)| at(scenario, *p, *o));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(places.iter().map(|(p, _)| *p).collect::<Int32Array>()),
        Arc::new(places.iter().map(|(_, o)| *o).collect::<Int64Array>()),
        Arc::new(of(at_us).collect::<TimestampMicrosecondArray>()),
        Arc::new(places.iter().map(|(p, o)| region(scenario, *p, *o)).collect::<StringArray>()),
    ];
    for field in schema.fields().iter().skip(columns.len()) {
        columns.push(new_null_array(field.data_type(), places.len()));
    }
    let columns =
        columns.iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()).unwrap());
    vec![RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()]
}

/// Rejected records, as a worker keeps them.
pub(crate) fn letters(places: &[(i32, i64)], now_ms: i64) -> Vec<RecordBatch> {
    let mut letters = DeadLetters::new(CLUSTER, TOPIC).unwrap();
    for (partition, offset) in places {
        let record = Record {
            partition: *partition,
            offset: *offset,
            timestamp_ms: None,
            key: None,
            value: Some(SECRET.as_bytes()),
            headers: Headers::empty(),
        };
        assert!(letters.push(&record, RejectReason::BadFraming, None, now_ms));
    }
    letters.finish().unwrap().into_iter().collect()
}
