//! Compaction: which files of a table are to become fewer, larger ones.
//!
//! Planning is a pure function of the ledger's state; rewriting and committing are separate steps.
//! Absent on purpose: I/O in a plan.

pub mod plan;

pub use plan::{Plan, Policy, plan};
