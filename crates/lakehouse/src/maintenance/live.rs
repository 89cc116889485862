//! What names a file: everything that a vacuum must leave, as a set of [`Names`].
//!
//! Order matters. 1. What projections show. 2. The ledger's state. 3. Entries that they have yet to show, and
//! entries by which files left lately. 4. Iceberg's snapshots. 5. Delta's versions. A file that moves from one to
//! the next meanwhile is in the earlier or in the later; one that comes to be meanwhile is young.

use std::{sync::Arc, time::Duration};

use siltstone_protocol::{Change, Entry, FileEntry};

use super::{
    Janitor, before,
    names::{Full, Names, Slice},
};
use crate::{delta::Named, error::LakeError, ledger::LedgerState};

/// Entries read at once, going back from the newest.
const ENTRIES_AT_ONCE: u64 = 256;
/// Files that left are known from this many of the newest entries at most. When there are more within the age asked
/// for, no data file is deleted: any of them may have left by an entry that was not read.
pub(super) const ENTRIES_BACK_MAX: u64 = 1_000_000;
/// Committers' clocks may differ by this much.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// Everything that is named.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) names: Names,
    /// The newest version of Iceberg's metadata.
    pub(super) metadata_newest: Option<u64>,
    /// Every data file that left lately is among the names.
    pub(super) knows_left: bool,
}

impl Janitor {
    /// The names of one slice; `None` when it has more than `names_max`.
    pub(super) async fn live(
        &mut self,
        slice: Slice,
        names_max: usize,
        left_since_ms: i64,
        now_ms: i64,
    ) -> Result<Option<Live>, LakeError> {
        let mut names = Names::new(slice, names_max);
        let mut state = self.state().await?;
        let shown = self.shown_by_all(&state).await?;
        // Again: what a projection shows from now on is in this state, or in an entry after `shown`.
        self.ledger.refresh(&mut state).await?;
        let own = state.live_files.keys().try_for_each(|path| names.insert(path));
        if own.is_err() {
            return Ok(None);
        }
        let Ok(knows_left) = self.recent(&state, shown, left_since_ms, &mut names).await? else {
            return Ok(None);
        };
        let mut each = |path: &str| names.insert(path).is_ok();
        let (metadata_newest, whole) = self.iceberg.named(&mut each).await?;
        if !whole {
            return Ok(None);
        }
        // A set of its own: a name that Delta lets go of may still be another's.
        let mut delta = Names::new(slice, names_max);
        let mut each = |named: Named<'_>| match named {
            Named::Added(path) => delta.insert(path).is_ok(),
            Named::Left(path) => {
                delta.remove(path);
                true
            }
        };
        let versions_since_ms = before(now_ms, self.policy.projection.snapshots_age);
        let whole = self.delta.named(versions_since_ms.min(left_since_ms), &mut each).await?;
        if !whole || names.merge(delta).is_err() {
            return Ok(None);
        }
        Ok(Some(Live { names, metadata_newest, knows_left }))
    }

    /// Files of entries that a projection has yet to show, and of entries since `left_since_ms`. False: there are
    /// more entries than are read.
    async fn recent(
        &self,
        state: &LedgerState,
        shown: u64,
        left_since_ms: i64,
        names: &mut Names,
    ) -> Result<Result<bool, Full>, LakeError> {
        let since_ms = before(left_since_ms, CLOCKS_DIFFER);
        let floor = state.version.saturating_sub(self.entries_back_max).min(shown);
        let mut last = state.version;
        while last > floor {
            let first = (last + 1).saturating_sub(ENTRIES_AT_ONCE).max(floor + 1);
            // An entry that is no longer kept: those before it are older than any age asked for here, and a
            // projection that would show them goes on from the state.
            let entries = match self.ledger.entries_kept(first, last).await? {
                Some(entries) => entries,
                None => self.kept_of(first, last).await?,
            };
            let matters = |entry: &&Arc<Entry>| entry.version > shown || entry.committed_ms >= since_ms;
            for entry in entries.iter().filter(matters) {
                if files_of(entry).try_for_each(|path| names.insert(path)).is_err() {
                    return Ok(Err(Full));
                }
            }
            let whole = entries.len() as u64 == last + 1 - first;
            let old = entries.first().is_some_and(|entry| entry.committed_ms < since_ms);
            if !whole || (old && first <= shown + 1) {
                return Ok(Ok(true));
            }
            last = first - 1;
        }
        Ok(Ok(floor == 0))
    }

    /// Those of these entries that are kept: the newest ones.
    async fn kept_of(&self, first: u64, last: u64) -> Result<Vec<Arc<Entry>>, LakeError> {
        let mut kept = Vec::new();
        for version in (first..=last).rev() {
            match self.ledger.entry(version).await? {
                Some(entry) => kept.push(entry),
                None => break,
            }
        }
        Ok(kept)
    }
}

/// Every file that an entry brings or takes away.
fn files_of(entry: &Entry) -> impl Iterator<Item = &str> {
    let (added, removed): (&[FileEntry], &[String]) = match &entry.change {
        Change::Append { files, .. } => (files, &[]),
        Change::Replace { removed, added, .. }
        | Change::Delete { removed, added }
        | Change::Overwrite { removed, added, .. }
        | Change::Absorb { removed, added, .. } => (added, removed),
        _ => (&[], &[]),
    };
    added.iter().map(|file| file.path.as_str()).chain(removed.iter().map(String::as_str))
}
