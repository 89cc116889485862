//! Where a table's consumer stands: for each owned partition, what is committed, what is on its way,
//! and what comes next.
//!
//! Per partition `committed <= submitted <= next`. A flush takes `[submitted, next)`; when it has
//! landed, `committed` follows. After a refusal everything falls back to the ledger.

use std::collections::BTreeMap;

use siltstone_protocol::OffsetRange;

/// One owned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// End of what the ledger covers.
    pub committed: i64,
    /// End of what was handed to a flush.
    pub submitted: i64,
    /// The next offset to consume.
    pub next: i64,
    /// Timestamp of the newest consumed record, milliseconds.
    pub last_timestamp_ms: i64,
}

/// All owned partitions of one topic.
#[derive(Debug, Default)]
pub struct Positions {
    owned: BTreeMap<i32, Position>,
}

impl Positions {
    /// Takes a partition over at a committed position.
    pub fn begin(&mut self, partition: i32, committed: i64) {
        let position = Position { committed, submitted: committed, next: committed, last_timestamp_ms: 0 };
        self.owned.insert(partition, position);
    }

    /// Gives partitions up.
    pub fn remove(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i32, &Position)> {
        self.owned.iter().map(|(partition, position)| (*partition, position))
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.owned.keys().copied().collect()
    }

    /// A record of this partition was consumed. False: the partition is not owned, the record is
    /// older than what was consumed, and must be passed over.
    #[inline]
    pub fn advance(&mut self, partition: i32, offset: i64, timestamp_ms: Option<i64>) -> bool {
        match self.owned.get_mut(&partition) {
            Some(position) if offset >= position.next => {
                position.next = offset + 1;
                if let Some(timestamp_ms) = timestamp_ms {
                    position.last_timestamp_ms = timestamp_ms;
                }
                true
            }
            _ => false,
        }
    }

    /// True when a record at this offset is still to be consumed.
    #[inline]
    pub fn wants(&self, partition: i32, offset: i64) -> bool {
        self.owned.get(&partition).is_some_and(|position| offset >= position.next)
    }

    /// The end of a partition was seen at this offset: positions without records are passed.
    pub fn pass(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.owned.get_mut(&partition) {
            position.next = position.next.max(offset);
        }
    }

    /// True when something was consumed that no flush has taken.
    pub fn has_unsubmitted(&self) -> bool {
        self.owned.values().any(|position| position.next > position.submitted)
    }

    /// The ranges of the next flush; they count as submitted from now on.
    pub fn submit(&mut self, cluster: &str, topic: &str) -> Vec<OffsetRange> {
        let mut ranges = Vec::new();
        for (partition, position) in &mut self.owned {
            if position.next > position.submitted {
                ranges.push(OffsetRange {
                    cluster: cluster.to_owned(),
                    topic: topic.to_owned(),
                    partition: *partition,
                    start: position.submitted,
                    end: position.next,
                    lost: false,
                });
                position.submitted = position.next;
            }
        }
        ranges
    }

    /// A flush of these ranges has landed.
    pub fn commit(&mut self, ranges: &[OffsetRange]) {
        for range in ranges {
            if let Some(position) = self.owned.get_mut(&range.partition) {
                position.committed = position.committed.max(range.end);
            }
        }
    }

    /// Committed position of every owned partition.
    pub fn committed(&self) -> Vec<(i32, i64)> {
        self.owned.iter().map(|(partition, position)| (*partition, position.committed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other_and_gaps_are_covered() {
        let mut positions = Positions::default();
        positions.begin(0, 10);
        assert!(positions.advance(0, 12, None), "a gap before the first record is natural");
        assert!(!positions.advance(0, 12, None), "a record delivered twice is passed over");
        assert!(!positions.advance(1, 0, None), "a partition that is not owned is passed over");
        let first = positions.submit("c", "t");
        assert_eq!((first[0].start, first[0].end), (10, 13));
        positions.pass(0, 15);
        let second = positions.submit("c", "t");
        assert_eq!((second[0].start, second[0].end), (13, 15));
        assert!(positions.submit("c", "t").is_empty());
        positions.commit(&first);
        assert_eq!(positions.committed(), vec![(0, 13)]);
    }
}
