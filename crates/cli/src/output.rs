//! What commands print, and how they end.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siltstone_protocol::{ErrorCode, ErrorKind};
use siltstone_spec::{Faults, Spec, TableSpec};
use siltstone_worker::WorkerError;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const INVALID: u8 = 2;
pub const CHANGES: u8 = 3;

/// The command is wrong; the message says everything.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Another error of a command, with what to look up.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: ErrorCode,
    /// True: somebody must change a setting; the exit code says so.
    pub invalid: bool,
    pub message: String,
}

impl Failure {
    /// A setting or a name is wrong.
    pub fn invalid(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, invalid: true, message: message.into() }
    }

    /// Something that the command needs is not there or does not answer.
    pub fn outside(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, invalid: false, message: message.into() }
    }

    /// Something of this machine failed.
    pub fn machine(message: impl Into<String>) -> Self {
        Self::outside(ErrorCode::MachineFailed, message)
    }

    /// Some files were not read in; which and why was told.
    pub fn source_files(table: &str, failed: u64, matched: u64) -> Self {
        let message = format!(
            "table {table}: {failed} of {matched} files cannot be read in; they hold up no other file: mend them, and \
             run it again"
        );
        Self::outside(ErrorCode::SourceFileRefused, message)
    }

    /// The spec has no table of this name.
    pub fn unknown_table(spec: &Spec, name: &str) -> Self {
        let names: Vec<&str> = spec.tables.iter().map(|table| table.name.as_str()).collect();
        let message = format!("the spec has no table {name}; it has: {}", names.join(", "));
        Self::invalid(ErrorCode::UnknownTable, message)
    }

    /// The table has no ledger yet.
    pub fn no_table_yet(table: &TableSpec) -> Self {
        let message =
            format!("table {} does not exist yet: run `siltstone apply` or `siltstone run`", table.name);
        Self::outside(ErrorCode::TableNotFound, message)
    }
}

/// Says what went wrong, under its code; on a terminal, also how to learn more.
pub fn print_error(error: &anyhow::Error) {
    let code = error_code(error);
    // Our own errors tell everything in one text; their sources say it again.
    if error.is::<WorkerError>() {
        eprintln!("error[{code}]: {error}");
    } else {
        eprintln!("error[{code}]: {error:#}");
    }
    print_hint([code]);
}

/// On a terminal: where these codes are explained.
pub fn print_hint(codes: impl IntoIterator<Item = ErrorCode>) {
    if std::io::stderr().is_terminal() {
        for code in codes {
            eprintln!("siltstone explain {code}");
        }
    }
}

/// What to look up about an error.
fn error_code(error: &anyhow::Error) -> ErrorCode {
    if let Some(error) = error.downcast_ref::<WorkerError>() {
        return error.code();
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    if let Some(faults) = error.downcast_ref::<Faults>() {
        return faults.code();
    }
    if error.is::<Invalid>() { ErrorCode::CommandRefused } else { ErrorCode::MachineFailed }
}

/// The exit code that an error means.
pub fn code_of(error: &anyhow::Error) -> u8 {
    let invalid = error.downcast_ref::<Failure>().is_some_and(|failure| failure.invalid);
    if invalid || error.is::<Invalid>() || error.is::<Faults>() {
        return INVALID;
    }
    match error.downcast_ref::<WorkerError>().map(WorkerError::kind) {
        Some(ErrorKind::Invalid) => INVALID,
        _ => FAILED,
    }
}

/// Prints a value as one JSON document.
pub fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under a heading, columns aligned; numbers are right-aligned by their form.
pub fn print_table(heading: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let number = !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || ".,- ".contains(c));
            let (before, after) = if number { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(before);
            text.push_str(cell);
            text.push_str(after);
            text.push_str("  ");
        }
        println!("{}", text.trim_end());
    };
    line(heading.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// A bar of progress on the standard error, hidden unless it is wanted and people see it. `length` is how far it goes
/// until more is known; `None`: nobody will know.
pub fn bar(template: &str, length: Option<u64>, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A byte count for people: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
