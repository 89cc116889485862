//! The control plane's view of the tables: what workers reported, and nothing else.
//!
//! Depends on `siltstone-protocol` alone: a value of a record has no type here that could hold it.
