#![allow(clippy::unwrap_used, clippy::panic)]

mod faults;
mod history;
mod lagging;
mod plan;
mod rows;
mod world;
