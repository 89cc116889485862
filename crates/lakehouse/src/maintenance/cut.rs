//! Row TTL of files that hold old rows beside others: they are cut, which is to be rewritten without those.
//!
//! A file is due when its oldest row stayed for a grace longer than it should. Files that span less time than the
//! grace leave whole before that, and are never rewritten; and between two cuts of the same rows lies the grace, so
//! a row is rewritten for this at most as many times as the grace goes into the age at which rows leave, and once more.
//!
//! 1. [`Janitor::files_to_cut`] plans, by the bounds in footers: a row without a time is in no bound, and stays.
//! 2. The caller rewrites (`siltstone_datafile::rewrite` with [`TimeColumn::old`](super::TimeColumn::old)).
//! 3. [`Janitor::commit_cuts`] commits what is still live; the new files of others are orphans.

use serde::Serialize;
use siltstone_protocol::{Change, ErrorKind, FileEntry};

use super::{Janitor, RowsOptions, rows::CONFLICTS_MAX};
use crate::{crash_point, error::LakeError, ledger::Committed};

/// What cutting did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CutReport {
    /// Files that were rewritten, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Old rows that left with it.
    pub rows: u64,
    /// Bytes of the new files; of a dry run 0.
    pub output_bytes: u64,
    /// Files that are due and left to a later round: there were too many, others changed them, or they cannot be
    /// read.
    pub left_files: u64,
}

/// A file and what takes its place.
#[derive(Debug, Clone)]
pub struct Cut {
    pub file: FileEntry,
    /// Durable; with fewer rows than the file.
    pub added: Vec<FileEntry>,
}

impl Janitor {
    /// The files that are due, those with the oldest rows first. Files whose every row is old are not among them.
    ///
    /// # Errors
    /// `Unavailable`: call again.
    pub async fn files_to_cut(
        &mut self,
        options: &RowsOptions<'_>,
        grace_ms: i64,
    ) -> Result<Vec<FileEntry>, LakeError> {
        let state = self.state().await?;
        self.learn_times(&state, options).await?;
        let before_us = options.before_ms.saturating_mul(1_000);
        let due_us = options.before_ms.saturating_sub(grace_ms).saturating_mul(1_000);
        let due = |file: &FileEntry| {
            let times = self.times.get(&file.path)?;
            let leaves_whole = times.end.is_some_and(|end| end <= before_us);
            times.oldest.filter(|oldest| *oldest <= due_us && !leaves_whole)
        };
        let files = state.live_files.values();
        let mut due: Vec<(i64, &FileEntry)> = files.filter_map(|file| Some((due(file)?, file))).collect();
        due.sort_unstable_by_key(|(oldest, file)| (*oldest, &file.path));
        Ok(due.into_iter().map(|(_, file)| file.clone()).collect())
    }

    /// Commits cuts by one entry. Returns those that landed, with the version: a file that is not live any more
    /// is not cut. `commit_id` makes a fresh id.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`: plan again.
    pub async fn commit_cuts(
        &mut self,
        mut cuts: Vec<Cut>,
        now_ms: i64,
        commit_id: &mut (dyn FnMut() -> String + Send),
    ) -> Result<Option<(u64, Vec<Cut>)>, LakeError> {
        for _ in 0..CONFLICTS_MAX {
            let mut state = self.state().await?;
            cuts.retain(|cut| state.live_files.get(&cut.file.path) == Some(&cut.file));
            if cuts.is_empty() {
                return Ok(None);
            }
            let change = Change::Delete {
                removed: cuts.iter().map(|cut| cut.file.path.clone()).collect(),
                added: cuts.iter().flat_map(|cut| cut.added.iter().cloned()).collect(),
            };
            crash_point!("maintenance.before_cut");
            // Cutting very much may come after the clean-up of its own files.
            self.ledger.confirm_files(&state, &change, now_ms).await?;
            match self.ledger.commit(&mut state, change, &commit_id(), now_ms).await {
                Ok(Committed::At(version)) => return Ok(Some((version, cuts))),
                Ok(Committed::AlreadyCovered) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        let state = self.state().await?;
        let (table, version) = (state.name, state.version);
        Err(LakeError::Contended { table, version, attempts: CONFLICTS_MAX })
    }
}
