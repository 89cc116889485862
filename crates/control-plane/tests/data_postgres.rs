//! `data`, on Postgres.
#[path = "data.rs"]
mod data;
