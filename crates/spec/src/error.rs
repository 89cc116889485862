//! What can be wrong with a spec. No fault shows a value: only where it stands and what is allowed.

use std::fmt;

use siltstone_protocol::{ErrorCode, ErrorKind, Transform};

use crate::limits;

/// One fault of a spec file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// From 1; 0 when the fault is the file's as a whole.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Dotted, with list positions: `tables[0].files.compression`. Empty for the whole file.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// All faults of a spec file, in the order of their lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file's name, as given.
    pub file: String,
    pub faults: Vec<Fault>,
}

impl Faults {
    pub(crate) fn new(file: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup();
        Self { file: file.to_owned(), faults }
    }

    /// The fault of a file that cannot be read at all.
    pub(crate) fn whole_file(file: &str, message: impl Into<String>) -> Self {
        let fault = Fault { line: 0, column: 0, path: String::new(), message: message.into() };
        Self { file: file.to_owned(), faults: vec![fault] }
    }

    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::SpecInvalid
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().take(limits::FAULTS_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if fault.line > 0 {
                write!(f, ":{}:{}", fault.line, fault.column)?;
            }
            if !fault.path.is_empty() {
                write!(f, ": {}", fault.path)?;
            }
            write!(f, ": {}", fault.message)?;
        }
        let more = self.faults.len().saturating_sub(limits::FAULTS_MAX);
        if more > 0 {
            write!(f, "\n{}: and {more} more faults", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A valid spec does not fit the table's schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    #[error("table {table}: {field} names the unknown column {column}{}", near(.nearest))]
    UnknownColumn { table: String, field: &'static str, column: String, nearest: Option<String> },
    #[error(
        "table {table}: {field} names {column}, which lies inside a list or map; \
         only columns and struct members can be named"
    )]
    InsideCollection { table: String, field: &'static str, column: String },
    #[error(
        "table {table}: {field} cannot use {transform} on {column} of type {data_type}; it takes {allowed}"
    )]
    WrongType {
        table: String,
        field: &'static str,
        column: String,
        transform: Transform,
        data_type: String,
        allowed: &'static str,
    },
    #[error(
        "table {table}: partition field name {name} is taken by a column or another partition field; \
         add `as <name>`"
    )]
    NameTaken { table: String, name: String },
    #[error(
        "table {table}: partition_by uses {column} twice with {transform}, which splits nothing further; \
         remove one"
    )]
    Redundant { table: String, column: String, transform: Transform },
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl SpecError {
    /// The message where the table is told otherwise.
    pub(crate) fn without_table(&self) -> String {
        let text = self.to_string();
        text.split_once(": ").map_or(text.clone(), |(_, message)| message.to_owned())
    }

    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// What to look up.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownColumn { .. } => ErrorCode::UnknownColumn,
            Self::InsideCollection { .. } | Self::WrongType { .. } => ErrorCode::ColumnNotUsable,
            Self::NameTaken { .. } | Self::Redundant { .. } => ErrorCode::PartitionFieldRefused,
        }
    }
}
