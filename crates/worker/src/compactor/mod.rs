//! Keeps the files of a table few, large and disjoint, beside ingestion.
//!
//! 1. [`Ranges`] knows the key ranges of live files: from details at hand, else from a bounded number of
//!    footers a round.
//! 2. A [`round`](Compactor::round) plans (`siltstone_compaction::plan`, pure), rewrites its plans one after
//!    the other, and commits each as a `Replace`. A commit that finds an input gone is dropped and
//!    counted: the new files are orphans.
//! 3. [`run`](Compactor::run) does rounds for as long as the worker runs, at the pace that the spec allows
//!    ([`Pace`]), and only for its [`Share`] of the plans: those of the source partitions it owns.
//!
//! Nothing here is state: a worker that dies in the middle leaves orphans and nothing else. Two workers
//! with the same plan waste work; the ledger lets one of them through.

mod compact;
mod pace;
mod ranges;
mod share;
mod work;

pub use compact::{CompactionSummary, compact};
pub use pace::Pace;
pub use ranges::Ranges;
pub use share::{Owned, Share};
pub use work::{Compactor, Round};
