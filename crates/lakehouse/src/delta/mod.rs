//! The Delta projection: ledger entries shown as commits of a Delta log.
//!
//! The Delta table's root is `<table>/data`, its log `<table>/data/_delta_log`: Delta's VACUUM deletes
//! what it does not know below its root, so neither Iceberg's metadata nor the ledger lies there. Paths of
//! files in the log are then just `<ulid>.parquet`.
//!
//! 1. Find the newest log version and, going back from it, the last commit of ours: its `txn` action
//!    (application `siltstone-<table uuid>`) is the ledger version shown ([`log`]).
//! 2. Take the ledger entries after it and draft one commit: a run of appends together, a replace, a
//!    delete or a schema change alone ([`draft`]).
//! 3. Create `<log version + 1>.json` with put-if-absent, which is exactly the Delta protocol's rule.
//! 4. Whatever the reply was, if that version is there, read it: ours or another worker's moves what is shown;
//!    another program's is stepped over, unless it changed the schema or the protocol. Go to 2.
//!    When it changed files, the table is apart from the ledger until they are taken in ([`crate::foreign`]).
//! 5. Every hundred versions, write a Delta checkpoint in the background ([`checkpoint`]).
//!
//! The log is written here, and not by `deltalake`'s commit builder, because that reads a snapshot per
//! attempt and refreshes it after each commit (a listing, and a replay of the commits since the last
//! checkpoint), and calls our own landed commit a conflict when its reply was lost. Here a commit is one
//! put, at any age of the table. The crate looks up `txn` beyond the log's tail, and makes checkpoints.
//!
//! What moves positions alone makes no commit of its own: what is shown moves in memory, and the `txn`
//! follows with the next files, at latest after `UNLOGGED_MAX` versions.
//!
//! Partition columns are those whose values a Delta log holds exactly ([`partition`]); they are decided by
//! the log's first commit and stay. A log of an earlier build that has others is refused, with the way out.
//!
//! **Columns that are renamed, or come back under a name that another one had**, are shown by column mapping (mode
//! `name`), which begins with the first of them and stays: files name columns as ever
//! ([`siltstone_protocol::history`]), and the log tells their names in files. DuckDB, Spark and delta-rs's queries read
//! such a table; a reader that does not know the feature refuses it. A column that is dropped needs nothing: the log
//! no longer has it.
//!
//! Absent on purpose: deletion vectors, type widening (delta-rs refuses tables with it). Changes of type, new members
//! inside maps and the loss of a partition column are refused by [`DeltaTable::check_change`]; ask it before the ledger
//! takes them.

mod actions;
mod checkpoint;
mod draft;
mod log;
mod partition;
mod retained;
mod schema;
mod stats;
mod table;

#[cfg(test)]
mod tests;

pub use retained::Named;
pub use schema::{Mapping, check_table};
pub use table::DeltaTable;
