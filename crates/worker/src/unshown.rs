//! What is committed and not yet shown: since when readers have been waiting for it.

use std::{collections::VecDeque, time::Instant};

/// Commits remembered. Beyond it the newest are taken for as old as the last one before them.
const COMMITS_MAX: usize = 1024;

/// Commits that some format of the table does not show yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unshown {
    /// Ledger version, and when the oldest record in it was taken.
    commits: VecDeque<(u64, Instant)>,
}

impl Unshown {
    /// A commit whose oldest record was taken at this instant.
    pub(crate) fn committed(&mut self, version: u64, oldest: Instant) {
        let full = self.commits.len() >= COMMITS_MAX;
        match self.commits.back_mut() {
            Some(last) if full => last.0 = version,
            _ => self.commits.push_back((version, oldest)),
        }
    }

    /// Every format shows this version.
    pub(crate) fn shown(&mut self, version: u64) {
        while self.commits.front().is_some_and(|(committed, _)| *committed <= version) {
            self.commits.pop_front();
        }
    }

    /// When the oldest record that readers cannot see yet was taken, of those committed.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.commits.iter().map(|(_, oldest)| *oldest).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_commit_counts_until_every_format_shows_it() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut unshown = Unshown::default();
        assert_eq!(unshown.oldest(), None);
        unshown.committed(3, at(1));
        unshown.committed(4, at(5));
        unshown.shown(2);
        assert_eq!(unshown.oldest(), Some(at(1)));
        unshown.shown(3);
        assert_eq!(unshown.oldest(), Some(at(5)));
        unshown.shown(9);
        assert_eq!(unshown.oldest(), None);
    }

    #[test]
    fn a_format_that_stands_still_takes_no_memory() {
        let begin = Instant::now();
        let mut unshown = Unshown::default();
        let last = 10 * COMMITS_MAX as u64;
        for version in 1..=last {
            unshown.committed(version, begin + Duration::from_secs(version));
        }
        assert_eq!(unshown.commits.len(), COMMITS_MAX);
        unshown.shown(last - 1);
        assert!(unshown.oldest().is_some(), "the newest is not shown yet");
        unshown.shown(last);
        assert_eq!(unshown.oldest(), None);
    }
}
