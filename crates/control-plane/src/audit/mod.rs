//! The audit log: every authentication and authorisation decision, and every change.
//!
//! Append-only, one hash chain for each organisation (`chain`). Entries are written in groups by one task; a change is
//! answered only after its entry is durable, a mere read does not wait. [`verify`] checks a whole chain;
//! [`AuditExport`] sends every entry to a Kafka topic, if the config names one.

pub mod chain;
mod export;
mod log;

pub use chain::{AuditEntry, ChainFault, Outcome};
pub use export::AuditExport;
pub use log::{AuditLog, Event, before, note_everywhere, prune, verify};
