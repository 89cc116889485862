//! The ledger: the one place where a table changes.
//!
//! 1. Read the newest checkpoint and the entries after it: the state at version `v` ([`log`], [`checkpoint`]).
//! 2. Look for the commit's own id among the newest commits: a retry may already have landed.
//! 3. Check that the change fits that state: offset ranges fit the [`coverage`] (I-3), removed files
//!    are live, ids are new ([`admit`]).
//! 4. Create entry `v + 1` with `PutMode::Create`. This put is the commit ([`commit`]).
//! 5. When the reply says "exists", or does not come: read the entry back. Our commit id in it means
//!    that we committed. Another id: apply it and go to 2, at most `CONFLICTS_MAX` times. Nothing
//!    there: put again, the same bytes at the same version.
//!
//! Layout below the table's location: `_siltstone/ledger/<20 digits>.json`,
//! `_siltstone/checkpoints/<20 digits>.json` (the newest three), `_siltstone/token.key`.
//!
//! Invariant I-3: no offset is committed twice or skipped. Absent on purpose: nothing here knows Iceberg,
//! Delta or the control plane. Entries are protocol messages, so a user can read what we report.

mod admit;
mod again;
mod checkpoint;
mod commit;
mod coverage;
mod expire;
mod imports;
mod intervals;
mod live_files;
mod log;
mod revisions;
mod shared_map;
mod state;
mod token;
mod totals;

#[cfg(test)]
mod tests;

pub use admit::{FILES_PER_ENTRY_MAX, RANGES_PER_ENTRY_MAX};
pub use commit::Committed;
pub use coverage::Coverage;
pub use expire::ExpirableEntries;
pub use imports::{Import, Imports};
pub use intervals::Intervals;
pub use live_files::LiveFiles;
pub use log::Ledger;
pub(crate) use log::read;
pub use revisions::Revision;
pub use shared_map::SharedMap;
pub use state::{LastAbsorb, LedgerState, SourcePartition};
pub use token::path_digest;
pub use totals::Totals;
