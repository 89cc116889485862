//! What can go wrong with data files. No variant holds a value of a row: errors of Arrow, Parquet and
//! Iceberg may quote their input, so they are reduced to the step that failed.

use object_store::path::Path;
use siltstone_protocol::{ErrorCode, ErrorKind};

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataFileError {
    /// A partition spec or sort order names a field that is no column or struct member of the schema.
    #[error(
        "field id {field_id} is not a column of schema {schema_id}: partition and sort fields must \
             name a column outside lists and maps"
    )]
    UnknownField { field_id: i32, schema_id: i32 },
    /// A transform does not take this type.
    #[error("transform {transform} does not apply to a column of type {data_type}")]
    Transform { transform: String, data_type: String },
    /// A column's type cannot be written.
    #[error("column {column} of type {data_type} cannot be {action}")]
    UnsupportedType { column: String, data_type: String, action: &'static str },
    /// A batch is not of the layout's schema.
    #[error("batch does not match schema {schema_id} at column {column}: expected {expected}")]
    SchemaMismatch { schema_id: i32, column: String, expected: String },
    /// A required column has a null.
    #[error("required column {column} has nulls")]
    NullInRequired { column: String },
    /// A flush has more rows than can be indexed.
    #[error("a flush of {rows} rows is too large to sort: flush more often")]
    TooManyRows { rows: usize },
    /// A computation on columns failed.
    #[error("{step} failed on column data")]
    Compute { step: &'static str },
    /// Encoding a file failed.
    #[error("{step} of a data file failed in the Parquet encoder")]
    Encode { step: &'static str },
    /// A stored file is not what its ledger entry says.
    #[error("data file {path} cannot be read: {fault}")]
    Corrupt { path: String, fault: &'static str },
    /// A file of somebody else is another one by now than the one that was begun.
    #[error("file {path} was replaced while it was read")]
    Replaced { path: String },
    /// The object store failed.
    #[error("object store failed on {path}: {code}")]
    Store { path: String, code: StoreCode },
    /// A rewrite would lose, double or change rows; its files must not be committed.
    #[error(
        "a rewrite read {read} rows and wrote {written}, or their checksums differ; nothing was committed"
    )]
    RowsDiffer { read: u64, written: u64 },
    /// The inputs of a rewrite are not of one partition.
    #[error("data file {path} is not of the partition that is rewritten")]
    OtherPartition { path: String },
    /// Sorted rows could not be kept on local disk.
    #[error("spilling sorted rows failed: {fault}")]
    Spill { fault: &'static str },
    /// The encoder's thread ended without a result.
    #[error("the data file encoder was stopped")]
    Stopped,
}

/// What the object store answered, without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreCode {
    #[error("not found")]
    NotFound,
    #[error("permission denied; check the credentials' rights")]
    PermissionDenied,
    #[error("not authenticated; check the credentials")]
    Unauthenticated,
    #[error("not supported by this store")]
    NotSupported,
    #[error("no answer or outcome unknown; try again")]
    Unavailable,
}

impl DataFileError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownField { .. } | Self::Transform { .. } | Self::UnsupportedType { .. } => {
                ErrorKind::Invalid
            }
            Self::NullInRequired { .. } | Self::Corrupt { .. } | Self::Replaced { .. } => ErrorKind::Data,
            Self::Spill { .. } => ErrorKind::Unavailable,
            Self::TooManyRows { .. } => ErrorKind::Invalid,
            Self::RowsDiffer { .. } | Self::OtherPartition { .. } => ErrorKind::Internal,
            Self::SchemaMismatch { .. } | Self::Compute { .. } | Self::Encode { .. } | Self::Stopped => {
                ErrorKind::Internal
            }
            Self::Store { code, .. } => match code {
                StoreCode::Unavailable => ErrorKind::Unavailable,
                StoreCode::NotFound => ErrorKind::Data,
                _ => ErrorKind::Invalid,
            },
        }
    }

    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownField { .. } => ErrorCode::UnknownColumn,
            Self::Transform { .. } | Self::UnsupportedType { .. } => ErrorCode::ColumnNotUsable,
            Self::NullInRequired { .. } => ErrorCode::NullInRequiredColumn,
            Self::TooManyRows { .. } => ErrorCode::ChangeTooLarge,
            Self::Corrupt { .. } => ErrorCode::StoredDataBroken,
            Self::Replaced { .. } => ErrorCode::SourceFileRefused,
            Self::RowsDiffer { .. } => ErrorCode::RewriteDiffers,
            Self::Spill { .. } => ErrorCode::SpillFailed,
            Self::SchemaMismatch { .. }
            | Self::Compute { .. }
            | Self::Encode { .. }
            | Self::OtherPartition { .. }
            | Self::Stopped => ErrorCode::InternalError,
            Self::Store { code, .. } => match code {
                StoreCode::NotFound => ErrorCode::StoreNotFound,
                StoreCode::PermissionDenied | StoreCode::Unauthenticated => ErrorCode::StoreAccessRefused,
                StoreCode::NotSupported => ErrorCode::StoreSettingRefused,
                StoreCode::Unavailable => ErrorCode::StoreUnavailable,
            },
        }
    }

    /// An object store's error about this path, reduced to its code.
    pub(crate) fn store(path: &Path, error: &object_store::Error) -> Self {
        use object_store::Error;
        let code = match error {
            Error::NotFound { .. } => StoreCode::NotFound,
            Error::PermissionDenied { .. } => StoreCode::PermissionDenied,
            Error::Unauthenticated { .. } => StoreCode::Unauthenticated,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => StoreCode::NotSupported,
            _ => StoreCode::Unavailable,
        };
        Self::Store { path: path.to_string(), code }
    }

    /// As [`Self::store`], for a reading that may be bound to the content which was seen before.
    pub(crate) fn read(label: &str, error: &object_store::Error) -> Self {
        match error {
            object_store::Error::Precondition { .. } => Self::Replaced { path: label.to_owned() },
            error => Self::store(&Path::from(label), error),
        }
    }

    pub(crate) fn compute(step: &'static str) -> Self {
        Self::Compute { step }
    }

    pub(crate) fn encode(step: &'static str) -> Self {
        Self::Encode { step }
    }

    pub(crate) fn corrupt(path: &str, fault: &'static str) -> Self {
        Self::Corrupt { path: path.to_owned(), fault }
    }
}

pub(crate) type Result<T> = std::result::Result<T, DataFileError>;
