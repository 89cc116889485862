//! The words that may leave the user's network, and nothing else.
//!
//! Everything here is metadata: table and column names, types, file paths, counts, offsets.
//! A ledger entry ([`entry::Entry`]) is at once the durable commit record in the user's bucket and
//! the message a worker reports, so a user can read in the bucket exactly what is reported.
//!
//! Absent on purpose: Arrow, bytes, free-form JSON values, free text. No type here can hold a key,
//! a value, a header or an error message that might quote one.

pub mod entry;
pub mod error;
pub mod layout;
pub mod reason;
pub mod report;
pub mod schema;

pub use entry::{Change, Effort, Entry, FileEntry, Format, OffsetRange, RejectedCount};
pub use error::ErrorKind;
pub use layout::{NullOrder, PartitionField, PartitionSpec, SortDirection, SortField, SortOrder, Transform};
pub use reason::RejectReason;
pub use report::{Ack, ControlPlane, Report};
pub use schema::{Field, PrimitiveType, Schema, Type};
