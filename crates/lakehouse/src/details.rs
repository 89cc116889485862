//! What projections need of a data file beyond its ledger entry.
//!
//! 1. The writer of a file puts its details here after the flush.
//! 2. A projection that shows the file takes them from here; no read of the store.
//! 3. A projection in another process, or after a restart, reads them from the file's footer. Both ways
//!    give the same answer.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use object_store::{ObjectStore, path::Path};
use siltstone_datafile::FileDetails;
use siltstone_protocol::FileEntry;

use crate::{error::LakeError, ledger::LedgerState};

/// Files whose details are kept, unless the maker says otherwise.
pub const DETAILS_MAX: usize = 4096;

/// Details by file path, bounded by count; the oldest leave first.
pub struct DetailsCache {
    files_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_path: HashMap<String, Arc<FileDetails>>,
    order: VecDeque<String>,
}

impl DetailsCache {
    /// A cache of at most `files_max` files, at least one.
    pub fn new(files_max: usize) -> Self {
        Self { files_max: files_max.max(1), held: Mutex::default() }
    }

    /// Keeps the details of a file. Data files never change, so the first ones stay.
    pub fn insert(&self, details: FileDetails) -> Arc<FileDetails> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.by_path.get(&details.path) {
            return Arc::clone(known);
        }
        let details = Arc::new(details);
        held.order.push_back(details.path.clone());
        held.by_path.insert(details.path.clone(), Arc::clone(&details));
        while held.order.len() > self.files_max {
            if let Some(oldest) = held.order.pop_front() {
                held.by_path.remove(&oldest);
            }
        }
        details
    }

    /// The details if they are held.
    pub fn get(&self, path: &str) -> Option<Arc<FileDetails>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).by_path.get(path).cloned()
    }

    /// The details, from here or from the file's footer.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the file is gone or is not what the entry says.
    pub async fn get_or_read(
        &self,
        store: &Arc<dyn ObjectStore>,
        table_location: &Path,
        entry: &FileEntry,
        state: &LedgerState,
    ) -> Result<Arc<FileDetails>, LakeError> {
        if let Some(details) = self.get(&entry.path) {
            return Ok(details);
        }
        let unknown = |what: &str, id: i32| LakeError::Data {
            path: entry.path.clone(),
            problem: format!("names {what} {id}, which the ledger does not know"),
        };
        let schema = state.schemas.get(&entry.schema_id).ok_or_else(|| unknown("schema", entry.schema_id))?;
        let spec = state
            .partition_specs
            .get(&entry.spec_id)
            .ok_or_else(|| unknown("partition spec", entry.spec_id))?;
        let details = siltstone_datafile::read_details(store, table_location, entry, schema, spec).await?;
        Ok(self.insert(details))
    }
}

impl Default for DetailsCache {
    fn default() -> Self {
        Self::new(DETAILS_MAX)
    }
}

impl fmt::Debug for DetailsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.held.lock().unwrap_or_else(PoisonError::into_inner).order.len();
        f.debug_struct("DetailsCache").field("files", &files).field("files_max", &self.files_max).finish()
    }
}
