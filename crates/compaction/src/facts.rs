//! What a plan is made from: ledger entries, and what their details add.

use siltstone_datafile::KeyRange;
use siltstone_protocol::FileEntry;

/// The live files of a table, and the order that new ones are sorted by.
#[derive(Debug, Clone, Default)]
pub struct TableState<'a> {
    pub files: Vec<FileFacts<'a>>,
    /// The table's present sort order; 0: none.
    pub sort_order_id: i64,
}

/// One live file. Ledger entries hold no value of a row, so the key range comes from the file's details
/// ([`siltstone_datafile::FileDetails::key_range`]), which are read inside the user's network.
#[derive(Debug, Clone, Copy)]
pub struct FileFacts<'a> {
    pub entry: &'a FileEntry,
    /// When the file was made, milliseconds since 1970 UTC.
    pub made_ms: i64,
    /// Its least and greatest sort key, when known. Unknown ranges are never planned for their overlap.
    pub key_range: Option<&'a KeyRange>,
    /// Rows of it that are deleted by other files.
    pub deleted_rows: u64,
}

impl<'a> FileFacts<'a> {
    /// The facts that the entry alone gives: a file's name tells when it was made.
    pub fn of(entry: &'a FileEntry) -> Self {
        Self { entry, made_ms: made_ms(&entry.path), key_range: None, deleted_rows: 0 }
    }

    #[must_use]
    pub fn with_key_range(mut self, range: Option<&'a KeyRange>) -> Self {
        self.key_range = range;
        self
    }

    #[must_use]
    pub fn with_deleted_rows(mut self, rows: u64) -> Self {
        self.deleted_rows = rows;
        self
    }
}

/// The time in a file's name; 0 for names that others gave.
fn made_ms(path: &str) -> i64 {
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".parquet").unwrap_or(name);
    ulid::Ulid::from_string(name).ok().and_then(|ulid| i64::try_from(ulid.timestamp_ms()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_when_its_file_was_made() {
        let name = ulid::Ulid::from_parts(1_767_225_600_000, 7).to_string().to_lowercase();
        assert_eq!(made_ms(&format!("data/{name}.parquet")), 1_767_225_600_000);
        assert_eq!(made_ms("data/part-0.parquet"), 0);
    }
}
