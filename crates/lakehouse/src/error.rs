//! What can go wrong below the pipeline, by what the caller should do next.
//!
//! Absent on purpose: text of dependencies. Object stores, JSON and Parquet readers quote requests and
//! contents in their errors; here a failure is a closed code, with the object's path beside it.

mod catalog;

use std::fmt;

use siltstone_datafile::DataFileError;
use siltstone_protocol::{ErrorCode, ErrorKind, Format};

pub use catalog::{CatalogFault, CatalogFaultCode};

/// A failure of the store, the ledger or a projection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The store refused or did not answer. Nothing was decided by it.
    #[error("{operation} {path}: {fault}")]
    Store { operation: &'static str, path: String, fault: StoreFault },
    /// An Iceberg REST catalog refused or did not answer.
    #[error("catalog {catalog}: {operation} {table}: {fault}")]
    Catalog { catalog: String, operation: &'static str, table: String, fault: CatalogFault },
    /// A commit may have landed or not. Call again with the same commit id.
    #[error(
        "table {table}: outcome of commit {commit_id} at version {version} is unknown ({fault}); \
         try the same commit again"
    )]
    Unknown { table: String, version: u64, commit_id: String, fault: StoreFault },
    /// The committer's view is stale: drop what is buffered and start from the ledger.
    #[error(
        "table {table}: offsets {start}..{end} of {cluster}/{topic}/{partition} do not fit version \
         {version}, which goes on at {}; drop the buffer and start from the ledger", next_text(*.next)
    )]
    Fenced {
        table: String,
        version: u64,
        cluster: String,
        topic: String,
        partition: i32,
        start: i64,
        end: i64,
        next: Option<i64>,
    },
    /// A file that waited too long for its commit was cleaned up: write its rows again.
    #[error(
        "table {table}: version {version}: file {file} was cleaned up before its commit; drop the buffer and \
         start from the ledger, and raise retention.orphans when this comes often"
    )]
    Swept { table: String, version: u64, file: String },
    /// Others moved the table first: look again and decide anew.
    #[error("table {table}: version {version}: {problem}")]
    Conflict { table: String, version: u64, problem: String },
    /// A request or a setting that a person must change.
    #[error("{subject}: {problem}")]
    Invalid { code: ErrorCode, subject: String, problem: String },
    /// A format has no form for what a table is, or is to become.
    #[error("table {table}: column {column}: {why}; {way_out}")]
    CannotShow { table: String, format: Format, column: String, why: String, way_out: String },
    /// A stored object breaks its format.
    #[error("{path}: {problem}")]
    Data { path: String, problem: String },
    /// Someone else changed a projection in a way that cannot be reconciled.
    #[error("table {table}: {format} version {version} was written by another program and {problem}")]
    Foreign { table: String, format: &'static str, version: u64, problem: String },
    /// Too many rounds lost against other committers.
    #[error("table {table}: gave up after {attempts} attempts at version {version}; try again")]
    Contended { table: String, version: u64, attempts: u32 },
    /// A data file could not be read or written.
    #[error(transparent)]
    DataFile(#[from] DataFileError),
    /// A bug in this program.
    #[error("{subject}: {problem} (a bug in siltstone)")]
    Internal { subject: String, problem: String },
}

impl LakeError {
    /// A store's failure, its text mapped to a code.
    pub fn store(
        operation: &'static str,
        path: &object_store::path::Path,
        error: &object_store::Error,
    ) -> Self {
        Self::Store { operation, path: path.to_string(), fault: StoreFault::of(error) }
    }

    /// A stored object that breaks its format.
    pub fn data(path: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Data { path: path.to_string(), problem: problem.to_string() }
    }

    /// A stored JSON object that cannot be read: position and category, nothing of its contents.
    pub fn json(path: impl fmt::Display, error: &serde_json::Error) -> Self {
        let category = match error.classify() {
            serde_json::error::Category::Io => "unreadable",
            serde_json::error::Category::Syntax => "not JSON",
            serde_json::error::Category::Data => "JSON of an unexpected form",
            serde_json::error::Category::Eof => "JSON cut short",
        };
        Self::data(path, format_args!("{category} at line {} column {}", error.line(), error.column()))
    }

    /// A request that a person must change: what the ledger does not take, unless [`Self::coded`] says otherwise.
    pub fn invalid(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        let code = ErrorCode::LedgerChangeRefused;
        Self::Invalid { code, subject: subject.to_string(), problem: problem.to_string() }
    }

    /// An `Invalid` under this code.
    #[must_use]
    pub fn coded(mut self, other: ErrorCode) -> Self {
        if let Self::Invalid { code, .. } = &mut self {
            *code = other;
        }
        self
    }

    /// A bug in this program.
    pub fn internal(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Internal { subject: subject.to_string(), problem: problem.to_string() }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { fault, .. } => fault.kind(),
            Self::Catalog { fault, .. } => fault.kind(),
            Self::Unknown { .. } => ErrorKind::Unavailable,
            Self::Fenced { .. } | Self::Swept { .. } => ErrorKind::Fenced,
            Self::Conflict { .. } | Self::Contended { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } | Self::CannotShow { .. } | Self::Foreign { .. } => ErrorKind::Invalid,
            Self::Data { .. } => ErrorKind::Data,
            Self::DataFile(error) => error.kind(),
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store { fault, .. } => fault.error_code(),
            Self::Catalog { fault, .. } => fault.error_code(),
            Self::Unknown { .. } => ErrorCode::CommitOutcomeUnknown,
            Self::Fenced { .. } => ErrorCode::WorkerOvertaken,
            Self::Swept { .. } => ErrorCode::FileSwept,
            Self::Conflict { .. } | Self::Contended { .. } => ErrorCode::CommitConflict,
            Self::Invalid { code, .. } => *code,
            Self::CannotShow { .. } => ErrorCode::FormatCannotShow,
            Self::Data { .. } => ErrorCode::StoredDataBroken,
            Self::Foreign { .. } => ErrorCode::ForeignChange,
            Self::DataFile(error) => error.code(),
            Self::Internal { .. } => ErrorCode::InternalError,
        }
    }
}

/// Where a partition goes on, as text.
fn next_text(next: Option<i64>) -> String {
    next.map_or_else(|| "any offset".to_owned(), |next| next.to_string())
}

/// How a store failed: a code, the HTTP status and the store's own error code where there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault {
    pub code: StoreFaultCode,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// The store's error code, e.g. `NoSuchBucket`: letters only.
    pub store_code: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFaultCode {
    NotFound,
    AlreadyExists,
    Precondition,
    PermissionDenied,
    Unauthenticated,
    Unreachable,
    Timeout,
    NotSupported,
    InvalidConfiguration,
    /// A file system's answer.
    Io(std::io::ErrorKind),
    Other,
}

impl StoreFault {
    /// The code of a store's error. Nothing of its text is kept but an error code of letters.
    pub fn of(error: &object_store::Error) -> Self {
        use object_store::Error;
        let code = match error {
            Error::NotFound { .. } => StoreFaultCode::NotFound,
            Error::AlreadyExists { .. } => StoreFaultCode::AlreadyExists,
            Error::Precondition { .. } | Error::NotModified { .. } => StoreFaultCode::Precondition,
            Error::PermissionDenied { .. } => StoreFaultCode::PermissionDenied,
            Error::Unauthenticated { .. } => StoreFaultCode::Unauthenticated,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => StoreFaultCode::NotSupported,
            Error::UnknownConfigurationKey { .. } | Error::InvalidPath { .. } => {
                StoreFaultCode::InvalidConfiguration
            }
            other => code_of_chain(other),
        };
        let text = error.to_string();
        Self { code, status: status_in(&text), store_code: store_code_in(&text) }
    }

    /// What the caller should do. Refused credentials count as unavailable: they are often renewed
    /// under a running worker; the probe at start turns them into a refusal.
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            StoreFaultCode::NotSupported | StoreFaultCode::InvalidConfiguration => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }

    /// What to look up.
    pub fn error_code(&self) -> ErrorCode {
        use StoreFaultCode as Code;
        match self.code {
            Code::NotFound => ErrorCode::StoreNotFound,
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Io(std::io::ErrorKind::PermissionDenied) => ErrorCode::StoreAccessRefused,
            Code::NotSupported | Code::InvalidConfiguration => ErrorCode::StoreSettingRefused,
            Code::AlreadyExists
            | Code::Precondition
            | Code::Unreachable
            | Code::Timeout
            | Code::Io(_)
            | Code::Other => ErrorCode::StoreUnavailable,
        }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            StoreFaultCode::NotFound => f.write_str("not found")?,
            StoreFaultCode::AlreadyExists => f.write_str("already exists")?,
            StoreFaultCode::Precondition => f.write_str("precondition failed")?,
            StoreFaultCode::PermissionDenied => {
                f.write_str("permission denied; grant read, write, list and delete there")?
            }
            StoreFaultCode::Unauthenticated => {
                f.write_str("credentials missing or refused; check those of the environment")?
            }
            StoreFaultCode::Unreachable => {
                f.write_str("the store cannot be reached; check endpoint and network")?
            }
            StoreFaultCode::Timeout => f.write_str("the store did not answer in time")?,
            StoreFaultCode::NotSupported => f.write_str("the store does not support this")?,
            StoreFaultCode::InvalidConfiguration => {
                f.write_str("invalid store configuration; check the options of destination_bucket_url")?
            }
            StoreFaultCode::Io(kind) => write!(f, "{kind}")?,
            StoreFaultCode::Other => f.write_str("the store failed")?,
        }
        match (&self.status, &self.store_code) {
            (Some(status), Some(code)) => write!(f, " (HTTP {status}, {code})"),
            (Some(status), None) => write!(f, " (HTTP {status})"),
            (None, Some(code)) => write!(f, " ({code})"),
            (None, None) => Ok(()),
        }
    }
}

/// The deepest cause that has a code. Depth is bounded against a cyclic chain.
fn code_of_chain(error: &object_store::Error) -> StoreFaultCode {
    const DEPTH_MAX: usize = 16;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    for _ in 0..DEPTH_MAX {
        let Some(current) = cause else { break };
        if let Some(http) = current.downcast_ref::<object_store::client::HttpError>() {
            use object_store::client::HttpErrorKind as Kind;
            return match http.kind() {
                Kind::Timeout => StoreFaultCode::Timeout,
                Kind::Connect | Kind::Request | Kind::Interrupted => StoreFaultCode::Unreachable,
                _ => StoreFaultCode::Other,
            };
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return StoreFaultCode::Io(io.kind());
        }
        cause = current.source();
    }
    StoreFaultCode::Other
}

fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn store_code_in(text: &str) -> Option<String> {
    const LENGTH_MAX: usize = 40;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = !code.is_empty() && code.len() <= LENGTH_MAX && code.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| code.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_text_is_reduced_to_codes() {
        let body = "Error performing PUT http://h/b in 1ms - Server returned non-2xx status code: 403 Forbidden: \
                    <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>";
        let error = object_store::Error::PermissionDenied { path: "b".into(), source: body.into() };
        let lake = LakeError::store("put", &"b".into(), &error);
        assert_eq!(
            lake.to_string(),
            "put b: permission denied; grant read, write, list and delete there (HTTP 403, SignatureDoesNotMatch)"
        );
        assert!(!format!("{lake:?}").contains("AKIASECRET"));
    }

    #[test]
    fn json_errors_quote_nothing() {
        let error = serde_json::from_str::<u64>("\"secret-value\"").unwrap_err();
        let lake = LakeError::json("x.json", &error);
        assert_eq!(lake.to_string(), "x.json: JSON of an unexpected form at line 1 column 14");
    }
}
