//! Backups: a whole database in a form that belongs to neither engine, made while the server runs.
//!
//! 1. A backup is a folder: `manifest.json`, and for each table `TABLE.jsonl.gz`, one row a line, an array of its
//!    columns' values (bytes in base64). The manifest says the tables' columns, rows and SHA-256, and the migrations.
//! 2. It shows one moment: all of it is read in one snapshot, which holds nobody up. It appears under its name when it
//!    is whole and on disk. It needs memory for a few rows, whatever the database holds.
//! 3. What is sealed in the database is sealed in it: to read it takes the master key, which is not in it.
//! 4. It is restored into an empty database of either engine, all of it or nothing, by this version of the program or
//!    a later one. Restoring from a folder of backups takes the newest, or the newest at or before a time.
//! 5. After that, workers find that less is held than was acknowledged, and send what is missing, or an image.

mod export;
mod restore;
mod schedule;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

pub use self::{export::backup, restore::restore, schedule::keep};
use crate::store::{Column, Step, StoreError};

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Before the time in a backup's name.
const PREFIX: &str = "control-plane-";
const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";
/// Of a backup that is not whole yet.
const PART: &str = ".part";

/// A backup cannot be made or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no backup: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("there is no backup in {}, or none from so early on", path.display())]
    Missing { path: PathBuf },
    #[error("the database is not empty; name a new one in the config, and restore into that")]
    NotEmpty,
    #[error("the reader or writer of files ended")]
    Ended,
}

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    program_version: String,
    /// The moment that it shows, milliseconds since 1970 UTC.
    at_ms: i64,
    migrations: Vec<Step>,
    /// Those that others refer to come first.
    tables: Vec<TablePart>,
}

/// A table in a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TablePart {
    name: String,
    columns: Vec<Column>,
    rows: u64,
    /// Of the file, hexadecimal.
    sha256: String,
}

impl TablePart {
    fn file(&self) -> String {
        format!("{}.jsonl.gz", self.name)
    }
}

/// A backup in a folder of backups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub at_ms: i64,
    pub path: PathBuf,
}

/// The backups in a folder, oldest first.
///
/// # Errors
/// It cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Found>, BackupError> {
    let failed = |source| BackupError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(time) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if let Ok(at) = NaiveDateTime::parse_from_str(time, TIME) {
            found.push(Found { at_ms: at.and_utc().timestamp_millis(), path: entry.path() });
        }
    }
    found.sort();
    Ok(found)
}

/// The folder itself when it is a backup; else the newest backup in it, at or before a time.
///
/// # Errors
/// There is none.
pub fn choose(directory: &Path, at_ms: Option<i64>) -> Result<PathBuf, BackupError> {
    if directory.join(MANIFEST).exists() {
        let at = manifest(directory)?.at_ms;
        let is_early = at_ms.is_none_or(|wanted| at <= wanted);
        let missing = || BackupError::Missing { path: directory.to_owned() };
        return is_early.then(|| directory.to_owned()).ok_or_else(missing);
    }
    let mut all = list(directory)?;
    all.retain(|one| at_ms.is_none_or(|wanted| one.at_ms <= wanted));
    let missing = || BackupError::Missing { path: directory.to_owned() };
    Ok(all.pop().ok_or_else(missing)?.path)
}

/// A time as people write it: `2026-11-26T13:00:00Z`, or milliseconds since 1970 UTC.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis());
    let wrong = "a time is like 2026-11-26T13:00:00Z, or milliseconds since 1970 UTC";
    time.or_else(|_| text.parse()).map_err(|_| wrong.to_owned())
}

/// A time as people read it.
fn shown_time(at_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn name_of(at_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
    format!("{PREFIX}{}", time.format(TIME))
}

fn manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let path = backup.join(MANIFEST);
    let failed = |source| BackupError::Io { path: path.clone(), source };
    let damaged = |what| BackupError::Damaged { path: backup.to_owned(), what };
    if fs::metadata(&path).map_err(failed)?.len() > MANIFEST_BYTES_MAX {
        return Err(damaged("its manifest is too long"));
    }
    let text = fs::read(&path).map_err(failed)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| damaged("its manifest cannot be read"))?;
    if manifest.format != FORMAT {
        return Err(damaged("its format is of a newer program; restore it with that one"));
    }
    // Names become parts of statements and paths.
    let is_word = |name: &str| {
        !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    let are_words =
        |table: &TablePart| is_word(&table.name) && table.columns.iter().all(|one| is_word(&one.name));
    if !manifest.tables.iter().all(are_words) {
        return Err(damaged("its manifest names what cannot be a table"));
    }
    Ok(manifest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_backup_before_a_time_is_chosen() {
        let directory = tempfile::TempDir::new().unwrap();
        for at_ms in [1_000, 3_500, 2_000] {
            fs::create_dir(directory.path().join(name_of(at_ms))).unwrap();
        }
        fs::create_dir(directory.path().join(format!("{}{PART}", name_of(9_000)))).unwrap();
        fs::write(directory.path().join("note"), "").unwrap();
        let times: Vec<_> = list(directory.path()).unwrap().into_iter().map(|one| one.at_ms).collect();
        assert_eq!(times, [1_000, 2_000, 3_500]);
        for (wanted, found) in [(None, 3_500), (Some(3_499), 2_000), (Some(2_000), 2_000)] {
            assert_eq!(choose(directory.path(), wanted).unwrap(), directory.path().join(name_of(found)));
        }
        assert!(matches!(choose(directory.path(), Some(999)), Err(BackupError::Missing { .. })));
        assert_eq!(parse_time(&shown_time(3_500)), Ok(3_500));
        assert_eq!(parse_time("3500"), Ok(3_500));
        assert!(parse_time("yesterday").is_err());
    }
}
