//! Bounds on what a message may hold, beyond its size: names, versions, counts.

use siltstone_protocol::{
    Change, Entry, FileEntry, OffsetRange, TableIdentity,
    disclosed::FileStatistics,
    image::{FILES_MAX, Image},
    report::{ENTRIES_MAX, Report},
};

use crate::problem::Problem;

const NAME_MAX: usize = 255;
const LOCATION_MAX: usize = 2_048;
const PATH_MAX: usize = 1_024;
const PARTS_MAX: u32 = 10_000;

/// What can be checked of a message without looking anything up.
pub trait Check {
    /// # Errors
    /// What is wrong, and what would be right.
    fn check(&self) -> Result<(), Problem>;
}

/// Checks a message.
///
/// # Errors
/// `Invalid`.
pub fn check(message: &impl Check) -> Result<(), Problem> {
    message.check()
}

impl Check for Report {
    fn check(&self) -> Result<(), Problem> {
        identity(&self.table)?;
        if self.entries.len() > ENTRIES_MAX {
            return Err(Problem::invalid(format!("entries: at most {ENTRIES_MAX}")));
        }
        let mut before: Option<&Entry> = None;
        for entry in &self.entries {
            let follows = before.is_none_or(|before| {
                entry.version == before.version + 1 && entry.table_uuid == before.table_uuid
            });
            if !follows || i64::try_from(entry.version).is_err() {
                return Err(Problem::invalid(
                    "entries: versions of one table, each one more than the one before",
                ));
            }
            text("table_uuid", &entry.table_uuid, 64)?;
            text("commit_id", &entry.commit_id, 64)?;
            match &entry.change {
                Change::Append { files, ranges, replayed, imported, .. } => {
                    files.iter().try_for_each(file)?;
                    ranges.iter().chain(replayed).try_for_each(range)?;
                    imported.iter().try_for_each(|file| text("source", &file.source, 64))?;
                }
                Change::Overwrite { added, ranges, replayed, .. } => {
                    added.iter().try_for_each(file)?;
                    ranges.iter().chain(replayed).try_for_each(range)?;
                }
                Change::Replace { added, .. } | Change::Absorb { added, .. } => {
                    added.iter().try_for_each(file)?
                }
                Change::ResetPositions { ranges } => ranges.iter().try_for_each(range)?,
                _ => {}
            }
            before = Some(entry);
        }
        statistics(&self.statistics)
    }
}

impl Check for Image {
    fn check(&self) -> Result<(), Problem> {
        identity(&self.table)?;
        text("table_uuid", &self.table_uuid, 64)?;
        text("image_id", &self.image_id, 64)?;
        if self.parts == 0 || self.parts > PARTS_MAX || self.part >= self.parts {
            return Err(Problem::invalid(format!("part: below parts, which are 1 to {PARTS_MAX}")));
        }
        if self.files.len() > FILES_MAX {
            return Err(Problem::invalid(format!("files: at most {FILES_MAX}")));
        }
        if i64::try_from(self.version).is_err() {
            return Err(Problem::invalid("version: too large"));
        }
        self.files.iter().try_for_each(file)?;
        self.ranges.iter().try_for_each(range)?;
        statistics(&self.statistics)
    }
}

fn identity(table: &TableIdentity) -> Result<(), Problem> {
    text("table.name", &table.name, NAME_MAX)?;
    text("table.location", &table.location, LOCATION_MAX)?;
    text("table.spec_digest", &table.spec_digest, 64)
}

fn file(file: &FileEntry) -> Result<(), Problem> {
    text("path", &file.path, PATH_MAX)?;
    if i64::try_from(file.rows).is_err() || i64::try_from(file.bytes).is_err() {
        return Err(Problem::invalid("files: rows and bytes below 2^63"));
    }
    Ok(())
}

fn range(range: &OffsetRange) -> Result<(), Problem> {
    text("cluster", &range.cluster, NAME_MAX)?;
    text("topic", &range.topic, NAME_MAX)?;
    if range.start < 0 || range.end < range.start {
        return Err(Problem::invalid("ranges: 0 <= start <= end"));
    }
    Ok(())
}

fn statistics(statistics: &[FileStatistics]) -> Result<(), Problem> {
    statistics.iter().try_for_each(|of_file| text("statistics.path", of_file.path(), PATH_MAX))
}

/// A name: not empty, bounded, without control characters (a zero byte would end a text in the database).
fn text(field: &str, text: &str, max: usize) -> Result<(), Problem> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{field}: 1 to {max} bytes without control characters")));
    }
    Ok(())
}
