//! `people`, on Postgres.
#[path = "people/main.rs"]
mod people;
