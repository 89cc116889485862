//! `store`, on Postgres.
#[path = "store.rs"]
mod store;
