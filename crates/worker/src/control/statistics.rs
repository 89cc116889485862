//! What the spec's `disclose` list opts into, of the files that a message names.
//!
//! Values come from the details of files at hand, else from their footers, of which a bounded number is read. Nothing
//! is read when the spec discloses nothing, which is the default.

use futures::{StreamExt, stream};
use siltstone_lakehouse::LedgerState;
use siltstone_protocol::{
    ErrorKind, FileEntry,
    disclosed::{Disclosure, FileStatistics},
};

use crate::{
    error::{ForTable, WorkerError},
    table::Table,
};

/// Footers read at once.
const READS_AT_ONCE: usize = 8;
/// Footers read for one message; files beyond go without statistics.
const READS_MAX: usize = 2_000;

/// Statistics of these files, as far as they are still live.
///
/// # Errors
/// `Unavailable`: the store did not answer. A file that is gone by now has none.
pub(super) async fn of_files<'a>(
    table: &Table,
    state: &LedgerState,
    disclosure: &Disclosure,
    files: impl Iterator<Item = &'a FileEntry>,
) -> Result<Vec<FileStatistics>, WorkerError> {
    if disclosure.is_nothing() {
        return Ok(Vec::new());
    }
    let live = files.filter(|file| state.live_files.contains_key(&file.path)).take(READS_MAX);
    let reads = live.map(|file| of_file(table, state, disclosure, file));
    let mut answers = stream::iter(reads.collect::<Vec<_>>()).buffered(READS_AT_ONCE);
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        all.extend(answer?);
    }
    Ok(all)
}

async fn of_file(
    table: &Table,
    state: &LedgerState,
    disclosure: &Disclosure,
    file: &FileEntry,
) -> Result<Option<FileStatistics>, WorkerError> {
    let (Some(schema), Some(spec)) =
        (state.schemas.get(&file.schema_id), state.partition_specs.get(&file.spec_id))
    else {
        return Ok(None);
    };
    if let Some(details) = table.details.get(&file.path) {
        return Ok(details.disclosed(disclosure, schema, spec));
    }
    // Not kept: the cache is for what projections are about to show.
    match siltstone_datafile::read_details(&table.store, &table.location, file, schema, spec).await {
        Ok(details) => Ok(details.disclosed(disclosure, schema, spec)),
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error).for_table(&table.name),
        Err(_) => Ok(None),
    }
}
