//! Compaction: which files of a table are to become fewer, larger, disjoint ones, and their rewrite.
//!
//! 1. [`TableState`] is what is known of the live files: ledger entries, and key ranges from their details.
//! 2. [`plan`] is a pure function of it: bounded, and a fixed point (what a plan made is not chosen again).
//! 3. [`rewrite`] merges the inputs of one plan into new files, checked row by row, and commits nothing.
//! 4. [`Rewritten::into_change`] is the ledger's `Replace`; committing it, or dropping it when an input is
//!    gone, is the caller's.
//!
//! Absent on purpose: I/O in a plan; the ledger in a rewrite.

mod facts;
mod plan;
mod policy;
mod rewrite;
mod runs;
#[cfg(test)]
mod simulation;

pub use facts::{FileFacts, TableState};
pub use plan::{Backlog, CompactionPlan, Trigger, backlog, plan};
pub use policy::CompactionPolicy;
pub use rewrite::{Rewritten, job, rewrite};
