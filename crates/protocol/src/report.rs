//! What happened to a table: ledger entries, with what the spec's `disclose` opted into.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{disclosed::FileStatistics, entry::Entry};

/// Entries in one report at most.
pub const ENTRIES_MAX: usize = 1_000;

/// Ledger entries of one table, in version order, since the last acknowledged version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Which table it is.
    pub table: TableIdentity,
    /// Entries with consecutive versions, at most [`ENTRIES_MAX`].
    pub entries: Vec<Entry>,
    /// Of files that these entries add: what `disclose` in the spec names. Empty by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<FileStatistics>,
}

/// Which table a message is about, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableIdentity {
    /// The table's name in its spec.
    pub name: String,
    /// The table's URL, e.g. `s3://bucket/prefix/table`, without options and credentials: files' paths begin here.
    pub location: String,
    /// SHA-256 (hex) of the table's spec, without secrets: tells that two workers run different specs.
    pub spec_digest: String,
    /// What the topic's records are encoded in.
    pub source_format: ReportedFormat,
}

/// How a source topic's records are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportedFormat {
    Avro,
    Json,
    Protobuf,
    Raw,
}

/// What the control plane holds of a table after a report or an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The newest version held; the next report starts right after it. `None`: nothing yet.
    pub version: Option<u64>,
    /// What was sent does not join on to what is held: entries are missing between them, or the table was made
    /// anew. Nothing of it was taken. Send what follows `version`, or an image when those entries are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
}
