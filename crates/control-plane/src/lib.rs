//! The control plane: what workers report of tables, kept and shown; and nothing else.
//!
//! Depends on `siltstone-protocol` alone: a value of a record has no type here that could hold it. `endpoints` is the
//! one table of what can be asked and by whom; `inventory` applies reports; `store` is the database, in which
//! `housekeeping` keeps order; `crypto` seals what is in it, and `reseal` does so anew; `backup` copies it; `auth` and
//! `oidc` say who did what, and `audit` writes it down; `presence` is held in memory only.

pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod clock;
pub mod commands;
pub mod config;
pub mod console;
pub mod crypto;
pub mod endpoints;
pub mod housekeeping;
pub mod id;
pub mod inventory;
pub mod oidc;
pub mod presence;
pub mod problem;
pub mod reseal;
pub mod serve;
pub mod setup;
pub mod store;
pub mod tenants;
