//! `server`, on Postgres.
#[path = "server.rs"]
mod server;
