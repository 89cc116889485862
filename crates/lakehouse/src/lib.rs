//! The lakehouse: one ledger per table, and the table formats that show it.
//!
//! 1. [`store`] opens the user's bucket and proves that it honours conditional puts.
//! 2. [`ledger`] is the one place where a table changes; creating an entry is the commit.
//! 3. [`format::TableFormat`] shows ledger entries as a table format: idempotent replay, no decisions.
//! 4. [`details`] holds what formats need of a file beyond its ledger entry, by cache or by footer.
//! 5. [`foreign`] says what other programs did to a format, for the ledger to take in.
//! 6. [`maintenance`] lets go of what a table no longer needs.
//!
//! Absent on purpose: Kafka, record decoding, the control plane.

pub mod crash;
pub mod delta;
pub mod details;
pub mod error;
#[cfg(any(test, feature = "test-util"))]
pub mod faults;
pub mod foreign;
pub mod format;
pub mod iceberg;
pub mod ledger;
pub mod maintenance;
pub mod store;

pub use crate::iceberg::IcebergTable;
pub use delta::DeltaTable;
pub use details::DetailsCache;
pub use error::{LakeError, StoreFault};
pub use foreign::{Apart, Comparison};
pub use format::{ProjectionOptions, TableFormat};
pub use ledger::{Committed, Coverage, Ledger, LedgerState, LiveFiles, SourcePartition, Totals};
pub use maintenance::Janitor;
pub use store::TableStore;
