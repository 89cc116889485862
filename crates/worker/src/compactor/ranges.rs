//! Key ranges of live files, by path.
//!
//! The ledger holds no value of a row, so ranges come from the details of files: those written here lately
//! are at hand, those of others are in the footers. A bounded number of footers is read a round; a file
//! whose range is not known yet is planned for its size, not for its overlap.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, stream};
use siltstone_compaction::{FileFacts, TableState};
use siltstone_datafile::KeyRange;
use siltstone_lakehouse::LedgerState;
use siltstone_protocol::FileEntry;

use crate::{
    error::{ForTable, WorkerError},
    table::Table,
};

/// Footers read at once.
const READS_AT_ONCE: usize = 16;
/// Ranges kept; beyond that files go without.
const KEPT_MAX: usize = 200_000;

/// What is known of the live files' key ranges.
#[derive(Debug, Default)]
pub struct Ranges {
    by_path: HashMap<String, Option<KeyRange>>,
}

impl Ranges {
    /// Forgets files that are gone, and learns of others, newest first, by reading at most so many footers.
    ///
    /// # Errors
    /// Those of the store, and of files that are not what the ledger says.
    pub async fn learn(
        &mut self,
        table: &Table,
        state: &LedgerState,
        reads_max: usize,
    ) -> Result<(), WorkerError> {
        self.by_path.retain(|path, _| state.live_files.contains_key(path));
        if state.sort_order.fields.is_empty() {
            return Ok(());
        }
        let room = KEPT_MAX.saturating_sub(self.by_path.len());
        let unknown = |file: &&FileEntry| !self.by_path.contains_key(&file.path);
        let missing: Vec<&FileEntry> = state.live_files.values().rev().filter(unknown).take(room).collect();
        let mut reads = Vec::new();
        for file in missing {
            match table.details.get(&file.path) {
                Some(details) => {
                    self.by_path.insert(file.path.clone(), details.key_range.clone());
                }
                None if reads.len() < reads_max => reads.push(file),
                None => {}
            }
        }
        let read = |file: &FileEntry| {
            let file = file.clone();
            async move {
                let details = table.details.get_or_read(&table.store, &table.location, &file, state).await;
                details.map(|details| (file.path, details.key_range.clone()))
            }
        };
        let mut answers = stream::iter(reads.into_iter().map(read)).buffer_unordered(READS_AT_ONCE);
        while let Some(answer) = answers.next().await {
            let (path, range) = answer.for_table(&table.name)?;
            self.by_path.insert(path, range);
        }
        Ok(())
    }

    /// The table as plans are made from it, without these files.
    pub fn state<'a>(&'a self, state: &'a LedgerState, without: &HashSet<String>) -> TableState<'a> {
        let files = state.live_files.values().filter(|file| !without.contains(&file.path));
        let facts = |file: &'a FileEntry| {
            FileFacts::of(file).with_key_range(self.by_path.get(&file.path).and_then(Option::as_ref))
        };
        TableState { files: files.map(facts).collect(), sort_order_id: state.sort_order.order_id }
    }
}
