//! What the projection promises, read back through the `iceberg` crate's own readers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absorb;
mod codec;
mod cost;
mod failures;
mod foreign;
mod model;
mod overwrite;
mod readers;
mod rest;
mod rig;
mod show;
mod stub;
