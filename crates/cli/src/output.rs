//! What commands print, and how they end.

use siltstone_protocol::ErrorKind;
use siltstone_worker::WorkerError;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const INVALID: u8 = 2;
pub const CHANGES: u8 = 3;

/// The command or the spec is wrong; the message says everything.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The exit code that an error means.
pub fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Invalid>() {
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

/// A byte count for people: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
