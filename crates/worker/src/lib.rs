//! The worker: everything between a topic and the tables that readers see.
//!
//! 1. [`table`] opens a table: its ledger, its details cache, its token key.
//! 2. [`ingest`] polls a topic on a thread of its own, decodes each record into column builders and
//!    hands over full buffers.
//! 3. [`flush`] sorts and writes a buffer as data files, then commits them to the ledger.
//! 4. [`projector`] shows every ledger entry in the table's formats.
//! 5. [`maintenance`] applies retention, on a schedule or by hand.
//! 6. [`absorb`] takes in what other programs did to the table's formats.
//! 7. [`import`] reads files of history in.
//! 8. [`control`] reports to the control plane, beside all of this and never in its way.
//! 9. `readers` serves a read-only catalog of the tables.
//! 10. [`reingest`] reads history: holes of a table, and ranges that are to be replaced; [`replay`] makes rows of dead
//!     letters that can be rows by now.
//! 10. [`run`] supervises the tables: one table's failure never stops another.
//!
//! State lives in the ledger; everything here can be killed at any instruction.

pub mod absorb;
pub mod apply;
mod commit;
pub mod compactor;
pub mod control;
mod dead_letters;
pub mod error;
pub mod flush;
mod formats;
pub mod http;
pub mod identity;
pub mod import;
pub mod ingest;
pub mod inspect;
pub mod maintenance;
pub mod metrics;
pub mod positions;
pub mod progress;
pub mod projector;
mod readers;
pub mod readiness;
pub mod reingest;
pub mod replay;
pub mod run;
pub mod runtime;
mod summary;
pub mod table;
mod unshown;

pub use error::WorkerError;
pub use run::{RunOptions, run};
pub use summary::{RunSummary, TableSummary};
