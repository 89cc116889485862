//! What can go wrong between a topic and an Arrow batch, except a bad record.
//!
//! A bad record is no error: it is a `RejectReason`. Messages name cluster, topic, partition, offset, subject or
//! schema id, and what to look at next. Absent on purpose: any source error, because those of brokers, registries
//! and parsers may quote a record; they are mapped to closed words where they occur.

use std::fmt;

use siltstone_protocol::{ErrorCode, ErrorKind};

/// Errors of ingestion. `kind` says what the caller should do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A broker or registry did not answer, or answered that it cannot serve now.
    #[error("{what} is unavailable: {why}; it is tried again, nothing is lost")]
    Unavailable { code: ErrorCode, what: String, why: String },

    /// No broker has answered since the start.
    #[error(
        "cluster {cluster}, topic {topic}: none of the brokers {brokers} can be reached: {why}; check bootstrap_brokers, \
         and tls and sasl: a listener that expects them closes other connections without a word"
    )]
    Unreachable { cluster: String, topic: String, brokers: String, why: String },

    /// The topic, subject, version or schema id does not exist.
    #[error("{what} does not exist; {check}")]
    NotFound { code: ErrorCode, what: String, check: String },

    /// Credentials or permissions are wrong.
    #[error("{what} refused access: {why}; {check}")]
    Refused { code: ErrorCode, what: String, why: String, check: String },

    /// A setting or an answer cannot be used.
    #[error("{what} is invalid: {why}")]
    Invalid { code: ErrorCode, what: String, why: String },

    /// A writer schema (registry, spec) cannot be turned into a table or cannot be read.
    #[error("schema {part} cannot be used: {why}")]
    SchemaRefused { part: SchemaPart, why: String },

    /// The records have a column that the table gave up, and this worker's spec does not say so.
    #[error(
        "column {column} was {how} by another spec than this worker's; start the worker with that spec, or bring the \
         column back by `siltstone apply` with this one"
    )]
    GivenUp { column: String, how: &'static str },

    /// The broker no longer has records that were never committed to the table.
    #[error(
        "cluster {cluster}, topic {topic}, partition {partition}: offsets {wanted} to {low} (exclusive) are gone \
         from the broker before they were ingested; set on_lost_range: continue to record the gap and go on"
    )]
    LostRange { cluster: String, topic: String, partition: i32, wanted: i64, low: i64 },

    /// The Kafka client cannot go on and must be made anew.
    #[error(
        "the Kafka client of cluster {cluster}, topic {topic} stopped: {why}; restart the table's worker"
    )]
    ClientFatal { cluster: String, topic: String, why: String },

    /// A bug in this program; `what` names the broken expectation.
    #[error("internal error in ingest: {what}")]
    Internal { what: String },
}

/// What of a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaPart {
    /// All of it; which one, in words.
    Whole(String),
    /// The column at this path, `[]` and `{}` inside lists and maps.
    Column(String),
}

impl fmt::Display for SchemaPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(which) => f.write_str(which),
            Self::Column(path) => write!(f, "at {path}"),
        }
    }
}

impl From<siltstone_spec::evolve::Mismatch> for IngestError {
    fn from(mismatch: siltstone_spec::evolve::Mismatch) -> Self {
        let why = mismatch.to_string();
        Self::column_refused(mismatch.field, why)
    }
}

impl IngestError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } | Self::Unreachable { .. } | Self::ClientFatal { .. } => {
                ErrorKind::Unavailable
            }
            Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Invalid { .. }
            | Self::SchemaRefused { .. }
            | Self::GivenUp { .. }
            | Self::LostRange { .. } => ErrorKind::Invalid,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable { code, .. }
            | Self::NotFound { code, .. }
            | Self::Refused { code, .. }
            | Self::Invalid { code, .. } => *code,
            Self::Unreachable { .. } => ErrorCode::KafkaUnreachable,
            Self::SchemaRefused { .. } => ErrorCode::SchemaRefused,
            Self::GivenUp { .. } => ErrorCode::ColumnGivenUp,
            Self::LostRange { .. } => ErrorCode::LostRange,
            Self::ClientFatal { .. } => ErrorCode::KafkaClientStopped,
            Self::Internal { .. } => ErrorCode::InternalError,
        }
    }

    /// The error under another code than its constructor gives it.
    #[must_use]
    pub fn coded(mut self, other: ErrorCode) -> Self {
        match &mut self {
            Self::Unavailable { code, .. }
            | Self::NotFound { code, .. }
            | Self::Refused { code, .. }
            | Self::Invalid { code, .. } => *code = other,
            _ => {}
        }
        self
    }

    /// The schema registry does not serve now.
    pub fn unavailable(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unavailable { code: ErrorCode::RegistryUnavailable, what: what.into(), why: why.into() }
    }

    /// A setting of the spec that does not go with the others.
    pub fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { code: ErrorCode::SpecInvalid, what: what.into(), why: why.into() }
    }

    /// A schema that cannot be used at all.
    pub fn schema_refused(which: impl Into<String>, why: impl Into<String>) -> Self {
        Self::SchemaRefused { part: SchemaPart::Whole(which.into()), why: why.into() }
    }

    /// A schema that cannot be used for what it has at this path.
    pub fn column_refused(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self::SchemaRefused { part: SchemaPart::Column(path.into()), why: why.into() }
    }

    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }
}
