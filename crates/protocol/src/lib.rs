//! The words that may leave the user's network, and nothing else.
//!
//! Everything here is metadata: table and column names, types, file paths, counts, offsets.
//! A ledger entry ([`entry::Entry`]) is at once the durable commit record in the user's bucket and
//! what a worker reports, so a user can read in the bucket exactly what is reported. [`message::Message`] is the
//! sealed set of what can be sent; [`disclosure`] lists every field of it, from the types themselves.
//!
//! Absent on purpose: Arrow, bytes, free-form JSON values, free text. No type here can hold a key,
//! a value, a header or an error message that might quote one, but for what the user's own spec opts into
//! ([`disclosed`]).

pub mod command;
pub mod disclosed;
pub mod disclosure;
pub mod entry;
pub mod error;
pub mod error_code;
pub mod health;
pub mod history;
pub mod image;
pub mod layout;
pub mod message;
pub mod path;
pub mod presence;
pub mod reason;
pub mod report;
pub mod schema;

pub use entry::{Change, Effort, Entry, FileEntry, Format, OffsetRange, RejectedCount, SourceFileRange};
pub use error::ErrorKind;
pub use error_code::ErrorCode;
pub use history::SchemaHistory;
pub use layout::{NullOrder, PartitionField, PartitionSpec, SortDirection, SortField, SortOrder, Transform};
pub use message::Message;
pub use reason::RejectReason;
pub use report::{Ack, Report, TableIdentity};
pub use schema::{Field, PrimitiveType, Schema, Type};
