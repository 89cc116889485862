//! A set of offsets of one partition, as half-open intervals: sorted, disjoint, apart, none empty.

/// Offsets of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(i64, i64)>);

impl Intervals {
    pub fn as_slice(&self) -> &[(i64, i64)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when every offset of the range is in the set. An empty range holds no offset.
    pub fn covers(&self, start: i64, end: i64) -> bool {
        let at = self.first_after(start);
        start >= end || self.0.get(at).is_some_and(|&(from, to)| from <= start && end <= to)
    }

    /// True when some offset of the range is in the set.
    pub fn touches(&self, start: i64, end: i64) -> bool {
        let at = self.first_after(start);
        start < end && self.0.get(at).is_some_and(|&(from, _)| from < end)
    }

    pub fn insert(&mut self, start: i64, end: i64) {
        if start >= end {
            return;
        }
        // Neighbours that touch become one.
        let first = self.0.partition_point(|&(_, to)| to < start);
        let last = self.0.partition_point(|&(from, _)| from <= end);
        let joined = self.0.get(first..last).unwrap_or_default();
        let from = joined.first().map_or(start, |&(from, _)| from.min(start));
        let to = joined.last().map_or(end, |&(_, to)| to.max(end));
        self.0.splice(first..last, [(from, to)]);
    }

    pub(super) fn remove(&mut self, start: i64, end: i64) {
        if start >= end {
            return;
        }
        let first = self.first_after(start);
        let last = self.0.partition_point(|&(from, _)| from < end).max(first);
        let cut = self.0.get(first..last).unwrap_or_default();
        let before = cut.first().map(|&(from, _)| (from, start));
        let after = cut.last().map(|&(_, to)| (end, to));
        let left: Vec<_> = before.into_iter().chain(after).filter(|(from, to)| from < to).collect();
        self.0.splice(first..last, left);
    }

    /// Index of the first interval that ends after this offset.
    fn first_after(&self, offset: i64) -> usize {
        self.0.partition_point(|&(_, to)| to <= offset)
    }
}

impl TryFrom<Vec<(i64, i64)>> for Intervals {
    type Error = &'static str;

    fn try_from(intervals: Vec<(i64, i64)>) -> Result<Self, Self::Error> {
        let apart = intervals.windows(2).all(|pair| pair[0].1 < pair[1].0);
        let proper = intervals.iter().all(|&(from, to)| from < to);
        if apart && proper { Ok(Self(intervals)) } else { Err("intervals are sorted and apart") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Against a plain set of numbers, over every order of a small world.
    #[test]
    fn it_is_a_set() {
        let (mut set, mut plain, mut seed) = (Intervals::default(), BTreeSet::new(), 7_u64);
        for round in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = i64::try_from(seed >> 33).unwrap_or(0) % 40;
            let end = start + i64::try_from((seed >> 20) % 9).unwrap_or(0) - 1;
            assert_eq!(set.covers(start, end), (start..end).all(|offset| plain.contains(&offset)));
            assert_eq!(set.touches(start, end), (start..end).any(|offset| plain.contains(&offset)));
            if (seed >> 50).is_multiple_of(2) {
                set.insert(start, end);
                plain.extend(start..end);
            } else {
                set.remove(start, end);
                (start..end).for_each(|offset| {
                    plain.remove(&offset);
                });
            }
            let held: BTreeSet<i64> = set.as_slice().iter().flat_map(|&(from, to)| from..to).collect();
            assert_eq!(held, plain, "round {round}");
            assert_eq!(Intervals::try_from(set.as_slice().to_vec()).as_ref(), Ok(&set));
        }
    }
}
