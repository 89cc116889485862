//! People and protection: sign-on, sessions, allow-lists, requests that are asked twice, and what attackers try.
//! On SQLite; `people_postgres` is the same on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod allow_lists;
mod attacks;
#[path = "../database/mod.rs"]
mod database;
mod keys;
mod once;
mod provider;
mod sign_on;
mod support;
mod tls;
