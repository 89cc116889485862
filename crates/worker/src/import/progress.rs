//! How far an import has come, for a progress bar: plain counters, read by whoever draws.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counters of one import.
#[derive(Debug, Default)]
pub struct ImportProgress {
    files_total: AtomicU64,
    files_done: AtomicU64,
    bytes_total: AtomicU64,
    bytes_read: AtomicU64,
    rows_read: AtomicU64,
    rows_committed: AtomicU64,
}

/// One reading of [`ImportProgress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportReading {
    pub files_total: u64,
    pub files_done: u64,
    /// Size of the files, as they are stored.
    pub bytes_total: u64,
    pub bytes_read: u64,
    pub rows_read: u64,
    pub rows_committed: u64,
}

impl ImportProgress {
    pub fn read(&self) -> ImportReading {
        ImportReading {
            files_total: self.files_total.load(Ordering::Relaxed),
            files_done: self.files_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            rows_read: self.rows_read.load(Ordering::Relaxed),
            rows_committed: self.rows_committed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_back(&self, bytes: u64) {
        self.bytes_read.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn rows(&self, rows: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, rows: u64) {
        self.rows_committed.fetch_add(rows, Ordering::Relaxed);
    }
}

/// The bytes of one attempt at a file. One that is begun again reads them again.
#[derive(Debug)]
pub(super) struct Attempt {
    /// `None`: the file is only looked at.
    progress: Option<Arc<ImportProgress>>,
    bytes: AtomicU64,
}

impl Attempt {
    pub(super) fn new(progress: Option<Arc<ImportProgress>>) -> Arc<Self> {
        Arc::new(Self { progress, bytes: AtomicU64::new(0) })
    }

    pub(super) fn bytes(&self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.bytes(bytes);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn take_back(&self) {
        if let Some(progress) = &self.progress {
            progress.take_back(self.bytes.swap(0, Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_read_again_count_once() {
        let progress = Arc::new(ImportProgress::default());
        Attempt::new(None).bytes(7);
        let (first, other) =
            (Attempt::new(Some(Arc::clone(&progress))), Attempt::new(Some(Arc::clone(&progress))));
        first.bytes(5);
        other.bytes(2);
        first.take_back();
        first.take_back();
        assert_eq!(progress.read().bytes_read, 2);
    }
}
