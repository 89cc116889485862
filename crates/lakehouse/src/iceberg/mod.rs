//! The Iceberg projection: shows the ledger as an Iceberg table, format version 2.
//!
//! 1. [`table`] reads the newest metadata version and asks the ledger for the entries after the version
//!    that it shows (`siltstone.version`).
//! 2. [`steps`] turns them into steps: runs of appends are one snapshot.
//! 3. [`draft`] writes manifests ([`encode`], merged as [`tiers`] says) and manifest lists for each, and
//!    changes a copy of the metadata ([`metadata`]).
//! 4. [`bucket`] creates the next metadata version by put-if-absent. When another worker was first, all
//!    begins again from what it wrote; entries it showed are not shown twice. Or, when the spec names an Iceberg REST
//!    catalog, [`rest`] commits the same difference there, and the catalog keeps the metadata.
//!
//! A commit is four puts (manifest, manifest list, metadata, hint), however long the table's history:
//! head, manifest list and recent manifests are kept in memory, and a lost race tells when they are stale.
//!
//! Invariant I-4: the live files of a snapshot of ours are those of the ledger at its `siltstone.version`.
//! Absent on purpose: the `iceberg` crate's catalogs, transactions, storage and manifest writer
//! (why: [`encode`], [`metadata`]); its spec types are used and every metadata file is parsed by it.

mod bucket;
mod data_file;
mod decode;
mod draft;
mod encode;
mod fault;
mod manifests;
mod metadata;
mod offsets;
mod published;
mod reachable;
mod rest;
mod steps;
mod summary;
mod table;
mod tiers;

#[cfg(test)]
mod tests;

pub use published::{Newest, Published, PublishedMetadata};
pub use reachable::Reachable;
pub use rest::{RestTable, VendedCredentials};
pub use table::{Expired, IcebergTable};
