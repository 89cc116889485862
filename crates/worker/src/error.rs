//! Why a table or the whole worker stopped. No message quotes a record.

use siltstone_ingest::dead_letter::About;
use siltstone_protocol::{ErrorCode, ErrorKind, RejectReason};

/// An error of the worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error("{}", about(table, source))]
    Ingest { table: String, source: Box<siltstone_ingest::IngestError> },
    #[error("{}", about(table, source))]
    DataFile { table: String, source: Box<siltstone_datafile::DataFileError> },
    #[error("{}", about(table, source))]
    Lake { table: String, source: Box<siltstone_lakehouse::LakeError> },
    #[error("{0}")]
    Store(Box<siltstone_lakehouse::LakeError>),
    #[error("table {table}: {}", without_table(table, message))]
    Spec { code: ErrorCode, table: String, message: String },
    #[error(
        "table {table}: record rejected at topic {topic}, partition {partition}, offset {offset}: {}; \
         mend the producer,{} or set dlq_mode: dead_letter to keep such records aside, or dlq_mode: skip",
        rejection(*reason, *schema_id, about.as_deref()),
        setting(*reason)
    )]
    RejectedRecord {
        table: String,
        topic: String,
        partition: i32,
        offset: i64,
        reason: RejectReason,
        /// The schema that the record names.
        schema_id: Option<u32>,
        /// The field, and the types or the limit.
        about: Option<Box<About>>,
    },
    #[error(
        "table {table}: topic {topic}, partition {partition}, offset {offset}: {}{why}; mend the producer, or set \
         on_incompatible to dead_letter or new_column instead of stop",
        schema_id.map(|id| format!("the record's schema id is {id}: ")).unwrap_or_default()
    )]
    IncompatibleSchema {
        table: String,
        topic: String,
        partition: i32,
        offset: i64,
        schema_id: Option<u32>,
        why: String,
    },
    #[error(
        "table {table}: records lost before they were read: topic {topic}, partition {partition}, \
         offsets {start} to {end} are no longer on the broker; set on_lost_range: continue to record the gap \
         and go on"
    )]
    LostRange { table: String, topic: String, partition: i32, start: i64, end: i64 },
    #[error(
        "table {table}: position {position} of topic {topic}, partition {partition}, lies beyond the end {end}: \
         the topic was truncated or made anew; restore the topic, or give the table a new name"
    )]
    PositionBeyondEnd { table: String, topic: String, partition: i32, position: i64, end: i64 },
    #[error("table {table}: its {format} form {error}")]
    Projection { code: ErrorCode, table: String, format: &'static str, error: String },
    #[error(
        "table {table}: the records from offset {offset} on of topic {topic}, partition {partition} left the topic \
         while they were read; run it again: it reads what the topic still has"
    )]
    LeftTheTopic { table: String, topic: String, partition: i32, offset: i64 },
    #[error(
        "table {table}: others committed offsets {start}..{end} of topic {topic}, partition {partition}, or part of \
         them, while they were read; what was committed stays, run it again for what is still missing"
    )]
    HoleFilled { table: String, topic: String, partition: i32, start: i64, end: i64 },
    #[error("table {table}: stopped before the end; what was committed stays, run it again for the rest")]
    Stopped { table: String },
    #[error("table {table}: {what}")]
    Internal { table: String, what: &'static str },
    /// To whoever gave the file's name, and nobody else: it may hold values.
    #[error("table {table}: file {file}: {what}")]
    SourceFile { table: String, file: String, what: String },
    #[error("{failed} of {tables} tables stopped with an error; the first: {first}")]
    Tables { failed: usize, tables: usize, first: Box<WorkerError> },
    #[error("{what}")]
    Control { what: String },
    #[error("readers_catalog: {what}")]
    ReadersCatalog { what: String },
    #[error("cannot listen on {address}: {source}; choose another address with --http")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}

impl WorkerError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ingest { source, .. } => source.kind(),
            Self::DataFile { source, .. } => source.kind(),
            Self::Lake { source, .. } | Self::Store(source) => source.kind(),
            Self::Spec { .. } | Self::Listen { .. } | Self::Control { .. } | Self::ReadersCatalog { .. } => {
                ErrorKind::Invalid
            }
            Self::RejectedRecord { .. }
            | Self::IncompatibleSchema { .. }
            | Self::SourceFile { .. }
            | Self::Projection { .. }
            | Self::LostRange { .. }
            | Self::LeftTheTopic { .. }
            | Self::PositionBeyondEnd { .. } => ErrorKind::Data,
            Self::HoleFilled { .. } => ErrorKind::Conflict,
            Self::Stopped { .. } => ErrorKind::Unavailable,
            Self::Internal { .. } => ErrorKind::Internal,
            Self::Tables { first, .. } => first.kind(),
        }
    }
}

impl WorkerError {
    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Ingest { source, .. } => source.code(),
            Self::DataFile { source, .. } => source.code(),
            Self::Lake { source, .. } | Self::Store(source) => source.code(),
            Self::Spec { code, .. } | Self::Projection { code, .. } => *code,
            Self::RejectedRecord { .. } => ErrorCode::RecordRejected,
            Self::IncompatibleSchema { .. } => ErrorCode::IncompatibleSchemaStop,
            Self::LostRange { .. } | Self::LeftTheTopic { .. } => ErrorCode::LostRange,
            Self::HoleFilled { .. } => ErrorCode::CommitConflict,
            Self::Stopped { .. } => ErrorCode::CommandStopped,
            Self::PositionBeyondEnd { .. } => ErrorCode::PositionBeyondEnd,
            Self::SourceFile { .. } => ErrorCode::SourceFileRefused,
            Self::Internal { .. } => ErrorCode::InternalError,
            Self::Tables { first, .. } => first.code(),
            Self::Control { .. } => ErrorCode::ControlPlaneRefused,
            Self::ReadersCatalog { .. } => ErrorCode::ReadersCatalogOpen,
            Self::Listen { .. } => ErrorCode::CannotListen,
        }
    }

    /// True when no broker has answered yet: more likely a wrong setting than an outage.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Ingest { source, .. }
            if matches!(**source, siltstone_ingest::IngestError::Unreachable { .. }))
    }
}

impl From<siltstone_lakehouse::LakeError> for WorkerError {
    /// An error of the bucket as a whole.
    fn from(error: siltstone_lakehouse::LakeError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// An error's text, with the table's name before it unless it begins so already.
fn about(table: &str, error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    format!("table {table}: {}", without_table(table, &text))
}

/// The text without the table's name before it.
pub(crate) fn without_table<'t>(table: &str, text: &'t str) -> &'t str {
    let named = text.strip_prefix("table ").and_then(|rest| rest.strip_prefix(table));
    named.and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text)
}

/// Why a record was rejected: the reason, the field and its types, the schema; as far as they are known.
pub(crate) fn rejection(reason: RejectReason, schema_id: Option<u32>, about: Option<&About>) -> String {
    let mut text = reason.to_string();
    if let Some(About { field, detail }) = about {
        let place = field.as_ref().map(|field| format!(" at {field}")).unwrap_or_default();
        text = format!("{text}{place}: {detail}");
    }
    match schema_id {
        Some(id) => format!("{text} (schema id {id})"),
        None => text,
    }
}

/// What beside `dlq_mode` may have such records become rows, or be passed over.
fn setting(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::NullValue => " set tombstones: skip or tombstones: row,",
        RejectReason::BadFraming => " correct wire_format,",
        RejectReason::WrongSchemaFormat => " correct source_format,",
        RejectReason::Malformed | RejectReason::Truncated | RejectReason::TrailingBytes => {
            " correct source_format, wire_format or schema_mode,"
        }
        RejectReason::UnknownField => " set extra_fields: ignore,",
        RejectReason::TransformFailed => " change transforms,",
        _ => "",
    }
}

/// Adds the table's name to an error of a lower crate.
pub(crate) trait ForTable<T> {
    fn for_table(self, table: &str) -> Result<T, WorkerError>;
}

impl<T> ForTable<T> for Result<T, siltstone_ingest::IngestError> {
    fn for_table(self, table: &str) -> Result<T, WorkerError> {
        self.map_err(|source| WorkerError::Ingest { table: table.to_owned(), source: Box::new(source) })
    }
}

impl<T> ForTable<T> for Result<T, siltstone_datafile::DataFileError> {
    fn for_table(self, table: &str) -> Result<T, WorkerError> {
        self.map_err(|source| WorkerError::DataFile { table: table.to_owned(), source: Box::new(source) })
    }
}

impl<T> ForTable<T> for Result<T, siltstone_lakehouse::LakeError> {
    fn for_table(self, table: &str) -> Result<T, WorkerError> {
        self.map_err(|source| WorkerError::Lake { table: table.to_owned(), source: Box::new(source) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use siltstone_lakehouse::LakeError;

    use super::*;

    #[test]
    fn an_error_has_the_code_of_what_it_holds() {
        let denied = object_store::Error::PermissionDenied { path: "x".to_owned(), source: "denied".into() };
        let store = LakeError::store("put", &"x".into(), &denied);
        let inner = Err::<(), _>(store).for_table("a.b").unwrap_err();
        assert_eq!(inner.code(), ErrorCode::StoreAccessRefused);
        let all = WorkerError::Tables { failed: 1, tables: 2, first: Box::new(inner) };
        assert_eq!(all.code(), ErrorCode::StoreAccessRefused);
        let refused = LakeError::invalid("x", "y");
        assert_eq!(refused.code(), ErrorCode::LedgerChangeRefused);
        assert_eq!(refused.coded(ErrorCode::TableNotFound).code(), ErrorCode::TableNotFound);
        let spec = WorkerError::Spec {
            code: ErrorCode::UnknownColumn,
            table: "a.b".to_owned(),
            message: "table a.b: sort_by names the unknown column x".to_owned(),
        };
        assert_eq!(spec.to_string(), "table a.b: sort_by names the unknown column x");
    }

    #[test]
    fn a_rejected_record_is_told_with_its_field_schema_and_setting() {
        let told = |reason, schema_id, about: Option<(Option<&str>, &str)>| {
            let about = about.map(|(field, detail)| {
                Box::new(About { field: field.map(str::to_owned), detail: detail.to_owned() })
            });
            let (table, topic) = ("a.b".to_owned(), "t".to_owned());
            let (partition, offset) = (3, 8812);
            WorkerError::RejectedRecord { table, topic, partition, offset, reason, schema_id, about }
                .to_string()
        };
        let at = "table a.b: record rejected at topic t, partition 3, offset 8812";
        let modes = "or set dlq_mode: dead_letter to keep such records aside, or dlq_mode: skip";
        assert_eq!(
            told(RejectReason::OutOfRange, Some(7), Some((Some("a[].b"), "long that does not fit int"))),
            format!(
                "{at}: out_of_range at a[].b: long that does not fit int (schema id 7); mend the producer, {modes}"
            )
        );
        assert_eq!(
            told(RejectReason::UnknownField, None, Some((None, "a member that the table does not have"))),
            format!(
                "{at}: unknown_field: a member that the table does not have; mend the producer, \
                 set extra_fields: ignore, {modes}"
            )
        );
        assert_eq!(
            told(RejectReason::NullValue, None, None),
            format!("{at}: null_value; mend the producer, set tombstones: skip or tombstones: row, {modes}")
        );
    }

    #[test]
    fn the_table_is_named_once() {
        let lake = |subject: &str| Err::<(), _>(LakeError::invalid(subject, "is wrong")).for_table("a.b");
        let told = |subject| lake(subject).map_err(|error| error.to_string());
        assert_eq!(told("table a.b: column c"), Err("table a.b: column c: is wrong".to_owned()));
        assert_eq!(told("table a.bc: column c"), Err("table a.b: table a.bc: column c: is wrong".to_owned()));
        assert_eq!(told("column c"), Err("table a.b: column c: is wrong".to_owned()));
    }
}
