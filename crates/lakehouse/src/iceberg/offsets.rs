//! `siltstone.offsets` of a snapshot: where each source partition goes on, for people and lag tools.
//!
//! The ledger alone decides where consumption goes on; this is a copy of it. It is left out of the
//! summary when it would be large, because every retained snapshot holds one.

use std::collections::BTreeMap;

use siltstone_protocol::OffsetRange;

use crate::ledger::LedgerState;

use super::metadata::{OFFSETS, Snapshot};

const OFFSETS_BYTES_MAX: usize = 32 * 1024;

/// Next positions by cluster, topic and partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets(BTreeMap<String, BTreeMap<String, BTreeMap<i32, i64>>>);

/// A change of position by one entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Move {
    Append(OffsetRange),
    Reset(OffsetRange),
}

impl Offsets {
    pub(crate) fn of(state: &LedgerState) -> Self {
        let mut offsets = Self::default();
        for (source, coverage) in &state.coverage {
            if let Some(next) = coverage.next() {
                *offsets.at(&source.cluster, &source.topic, source.partition) = next;
            }
        }
        offsets
    }

    /// Those of the snapshot before. `None` when it has none, so nothing can be added to them.
    pub(crate) fn after(parent: Option<&Snapshot>) -> Option<Self> {
        match parent {
            None => Some(Self::default()),
            Some(parent) => serde_json::from_str(parent.summary.get(OFFSETS)?).ok().map(Self),
        }
    }

    pub(crate) fn apply(&mut self, moves: &[Move]) {
        for change in moves {
            let (Move::Append(range) | Move::Reset(range)) = change;
            let next = self.at(&range.cluster, &range.topic, range.partition);
            // A backfill fills a hole below the position and does not move it.
            *next = if matches!(change, Move::Reset(_)) { range.end } else { range.end.max(*next) };
        }
    }

    pub(crate) fn to_summary(&self) -> Option<String> {
        serde_json::to_string(&self.0).ok().filter(|text| text.len() <= OFFSETS_BYTES_MAX)
    }

    fn at(&mut self, cluster: &str, topic: &str, partition: i32) -> &mut i64 {
        let topics = self.0.entry(cluster.to_owned()).or_default();
        topics.entry(topic.to_owned()).or_default().entry(partition).or_insert(i64::MIN)
    }
}
