//! How far a bounded run has come, for a progress bar: plain counters, read by whoever draws.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters over all tables of a run.
#[derive(Debug, Default)]
pub struct Progress {
    records_total: AtomicU64,
    records_consumed: AtomicU64,
    rows_committed: AtomicU64,
    bytes_consumed: AtomicU64,
}

/// One reading of [`Progress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Offsets between the committed positions and the ends seen at the start.
    pub records_total: u64,
    pub records_consumed: u64,
    pub rows_committed: u64,
    /// Input bytes of keys and values.
    pub bytes_consumed: u64,
}

impl Progress {
    pub fn read(&self) -> Reading {
        Reading {
            records_total: self.records_total.load(Ordering::Relaxed),
            records_consumed: self.records_consumed.load(Ordering::Relaxed),
            rows_committed: self.rows_committed.load(Ordering::Relaxed),
            bytes_consumed: self.bytes_consumed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn expect(&self, records: u64) {
        self.records_total.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn consumed(&self, records: u64, bytes: u64) {
        self.records_consumed.fetch_add(records, Ordering::Relaxed);
        self.bytes_consumed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, rows: u64) {
        self.rows_committed.fetch_add(rows, Ordering::Relaxed);
    }
}
