//! The table spec: one YAML grammar, validated into plain data.
//!
//! Absent on purpose: I/O of any kind but reading the spec file and the environment it refers to.

pub mod model;
pub mod secret;

pub use model::*;
pub use secret::Secret;
