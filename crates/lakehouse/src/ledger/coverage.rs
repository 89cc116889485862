//! Which offsets of one partition are committed: the arithmetic behind "exactly once".
//!
//! Intervals are half-open, sorted, disjoint and do not touch. Only the last may be empty: it then marks a
//! position with nothing committed right before it (a first position, or the end of a skipped range).
//!
//! Absent on purpose: leases, epochs, owners. A stale writer is refused because its range does not fit.

/// The committed intervals of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    intervals: Vec<(i64, i64)>,
}

impl Coverage {
    /// Coverage of these intervals; `None` when they are not sorted, disjoint and apart.
    pub fn from_intervals(intervals: Vec<(i64, i64)>) -> Option<Self> {
        let coverage = Self { intervals };
        coverage.holds().then_some(coverage)
    }

    pub fn intervals(&self) -> &[(i64, i64)] {
        &self.intervals
    }

    /// Where live consumption goes on; `None` before the first position.
    pub fn next(&self) -> Option<i64> {
        self.intervals.last().map(|&(_, end)| end)
    }

    /// True when a live range may be committed: it starts exactly where coverage ends, or is the first.
    pub fn admits_live(&self, start: i64, end: i64) -> bool {
        start <= end && self.next().is_none_or(|next| next == start)
    }

    /// True when a backfill range may be committed: not empty, and wholly in offsets below
    /// [`Self::next`] of which none is committed.
    pub fn admits_backfill(&self, start: i64, end: i64) -> bool {
        start < end
            && self.next().is_some_and(|next| end <= next)
            && self.intervals.iter().all(|&(from, to)| end <= from || to <= start)
    }

    /// True when every offset of the range is committed. An empty range holds no offset.
    pub fn covers(&self, start: i64, end: i64) -> bool {
        start >= end || self.intervals.iter().any(|&(from, to)| from <= start && end <= to)
    }

    /// Uncommitted ranges between committed ones.
    pub fn holes(&self) -> Vec<(i64, i64)> {
        self.intervals.windows(2).map(|pair| (pair[0].1, pair[1].0)).collect()
    }

    /// Number of committed offsets.
    pub fn offsets(&self) -> u64 {
        self.intervals.iter().map(|&(start, end)| end.abs_diff(start)).sum()
    }

    /// Commits a live or a backfill range. False, and nothing changed, when it does not fit.
    pub(super) fn commit(&mut self, start: i64, end: i64) -> bool {
        if !self.admits_live(start, end) && !self.admits_backfill(start, end) {
            return false;
        }
        let at = self.intervals.partition_point(|&(from, to)| (from, to) < (start, end));
        self.intervals.insert(at, (start, end));
        self.join();
        debug_assert!(self.holds(), "I-3: intervals sorted, disjoint, apart");
        true
    }

    /// Commits offsets below the position, whether they were committed before or not.
    pub(super) fn commit_again(&mut self, start: i64, end: i64) {
        let position = self.next();
        let mut kept: Vec<(i64, i64)> = Vec::with_capacity(self.intervals.len() + 2);
        for &(from, to) in &self.intervals {
            let parts =
                if to <= start || end <= from { [(from, to), (to, to)] } else { [(from, start), (end, to)] };
            kept.extend(parts.into_iter().filter(|(from, to)| from < to));
        }
        kept.push((start, end));
        // The last may be empty: the position.
        kept.extend(position.map(|position| (position, position)));
        kept.sort_unstable();
        self.intervals = kept;
        self.join();
        debug_assert!(self.holds() && self.next() == position, "I-3: intervals sorted, disjoint, apart");
    }

    /// Moves the position forward over offsets that nobody will commit live. False when it does not start
    /// at the position.
    pub(super) fn skip(&mut self, start: i64, end: i64) -> bool {
        if !self.admits_live(start, end) {
            return false;
        }
        self.move_to(end);
        true
    }

    /// Moves the position. Offsets at and after it are forgotten: they may be committed again.
    pub(super) fn move_to(&mut self, position: i64) {
        self.intervals.retain(|&(start, _)| start < position);
        if let Some(last) = self.intervals.last_mut() {
            last.1 = last.1.min(position);
        }
        // An empty mark of an older position means nothing once another follows it.
        self.intervals.retain(|&(start, end)| start < end);
        if self.next() != Some(position) {
            self.intervals.push((position, position));
        }
        debug_assert!(self.holds(), "I-3: intervals sorted, disjoint, apart");
    }

    /// Joins intervals that touch, and drops empty ones that are not the last.
    fn join(&mut self) {
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(self.intervals.len());
        for &(start, end) in &self.intervals {
            match joined.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                Some(last) if last.0 == last.1 => *last = (start, end),
                _ => joined.push((start, end)),
            }
        }
        self.intervals = joined;
    }

    /// The invariant of this type.
    fn holds(&self) -> bool {
        let ordered = self.intervals.windows(2).all(|pair| pair[0].0 < pair[0].1 && pair[0].1 < pair[1].0);
        ordered && self.intervals.last().is_none_or(|&(start, end)| start <= end)
    }
}
