//! Which dead letters are tried, and which offsets an entry may name: pure.

use std::collections::{BTreeMap, BinaryHeap};

use siltstone_lakehouse::{
    LedgerState, SourcePartition,
    ledger::{Coverage, FILES_PER_ENTRY_MAX},
};
use siltstone_protocol::{OffsetRange, RejectReason};
use siltstone_spec::Spec;

/// Letters of one commit. Rows are no more than that, so files are no more than an entry takes, and ranges neither.
pub(super) const WINDOW_LETTERS_MAX: usize = FILES_PER_ENTRY_MAX;

/// Where a letter came from: the number of its source partition, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) source: u32,
    pub(super) offset: i64,
}

impl Place {
    pub(super) const FIRST: Self = Self { source: 0, offset: i64::MIN };

    fn next(self) -> Self {
        Self { offset: self.offset.saturating_add(1), ..self }
    }
}

/// What becomes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It stays as it is, and is not tried.
    Open,
    Wanted,
    /// Tried: a row, or nothing.
    Settled,
    /// Tried, and rejected again.
    Rejected(RejectReason),
}

/// An open dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) fate: Fate,
}

/// The source partitions met so far, numbered in the order in which they were met: numbers stay.
#[derive(Debug)]
pub(super) struct Sources {
    clusters: Vec<String>,
    /// By cluster, topic and partition, so that a look makes no key.
    numbers: BTreeMap<String, BTreeMap<String, BTreeMap<i32, u32>>>,
    all: Vec<SourcePartition>,
    /// By number: the first source of the same topic.
    lanes: Vec<u32>,
}

impl Sources {
    pub(super) fn new(spec: &Spec) -> Self {
        let clusters = spec.source_clusters.iter().map(|cluster| cluster.name.clone()).collect();
        Self { clusters, numbers: BTreeMap::new(), all: Vec::new(), lanes: Vec::new() }
    }

    /// The number of a source, which it gets now if it is new.
    pub(super) fn number(&mut self, cluster: &str, topic: &str, partition: i32) -> u32 {
        if let Some(number) = self.known(cluster, topic, partition) {
            return number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let topics = self.numbers.entry(cluster.to_owned()).or_default();
        let partitions = topics.entry(topic.to_owned()).or_default();
        let neighbour = partitions.values().next().and_then(|other| self.lanes.get(*other as usize));
        self.lanes.push(neighbour.copied().unwrap_or(number));
        partitions.insert(partition, number);
        self.all.push(SourcePartition { cluster: cluster.to_owned(), topic: topic.to_owned(), partition });
        number
    }

    /// The number of a source that was met before.
    pub(super) fn known(&self, cluster: &str, topic: &str, partition: i32) -> Option<u32> {
        self.numbers.get(cluster)?.get(topic)?.get(&partition).copied()
    }

    /// One source that stands for all of its topic.
    pub(super) fn lane(&self, number: u32) -> u32 {
        self.lanes.get(number as usize).copied().unwrap_or(number)
    }

    pub(super) fn at(&self, number: u32) -> Option<&SourcePartition> {
        self.all.get(number as usize)
    }

    /// True when the spec still has the cluster.
    pub(super) fn is_readable(&self, number: u32) -> bool {
        self.at(number).is_some_and(|source| self.clusters.contains(&source.cluster))
    }
}

/// Keeps the first so many letters of any number.
#[derive(Debug)]
pub(super) struct Nearest {
    kept: BinaryHeap<Letter>,
    most: usize,
    is_cut: bool,
}

impl Nearest {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: BinaryHeap::new(), most, is_cut: false }
    }

    pub(super) fn add(&mut self, letter: Letter) {
        self.kept.push(letter);
        if self.kept.len() > self.most {
            self.is_cut = true;
            self.kept.pop();
        }
    }

    /// The letters in order, each place once; and where the next ones begin, when there are more.
    pub(super) fn finish(self) -> (Vec<Letter>, Option<Place>) {
        let mut letters = self.kept.into_sorted_vec();
        let more = letters.last().filter(|_| self.is_cut).map(|letter| letter.place.next());
        // Of a place that is there twice the greater fate stays: it is wanted if one of both is.
        letters.reverse();
        letters.dedup_by_key(|letter| letter.place);
        letters.reverse();
        (letters, more)
    }
}

/// The letters that the ledger does not have as replayed. What it did not commit yet is not tried.
pub(super) fn still_open(letters: &[Letter], sources: &Sources, state: &LedgerState) -> Vec<Letter> {
    let fate = |letter: &Letter| {
        let source = sources.at(letter.place.source)?;
        let (start, end) = (letter.place.offset, letter.place.offset.saturating_add(1));
        if is_replayed(state, source, start) {
            return None;
        }
        let committed = state.coverage.get(source).is_some_and(|coverage| coverage.covers(start, end));
        Some(Letter { fate: if committed { letter.fate } else { Fate::Open }, ..*letter })
    };
    letters.iter().filter_map(fate).collect()
}

/// True when offsets of letters that are to be tried may have been ingested anew since the look at version `base`.
pub(super) fn is_stale(letters: &[Letter], sources: &Sources, state: &LedgerState, base: u64) -> bool {
    let anew = |letter: &Letter| {
        let revision = sources.at(letter.place.source).and_then(|source| state.revisions.get(source));
        revision.is_some_and(|revision| revision.overwritten > base)
    };
    letters.iter().filter(|letter| letter.fate == Fate::Wanted).any(anew)
}

/// True when the ledger has the dead letter of this offset as replayed.
pub(super) fn is_replayed(state: &LedgerState, source: &SourcePartition, offset: i64) -> bool {
    state.replayed.get(source).is_some_and(|replayed| replayed.covers(offset, offset.saturating_add(1)))
}

/// What a table covers, by source.
pub(super) type Covered = BTreeMap<SourcePartition, Coverage>;

/// The ranges that hold the settled letters and no other open one. Neighbours become one range where all between them
/// was committed before the letters were looked for, and is still, and none of it was replayed before: of what came
/// into a hole since (`looked_at` lacks it) there may be letters that nobody saw.
pub(super) fn ranges(
    letters: &[Letter],
    sources: &Sources,
    looked_at: &Covered,
    state: &LedgerState,
) -> Vec<OffsetRange> {
    let is_whole = |number: u32, start: i64, end: i64| {
        let Some(source) = sources.at(number) else { return false };
        let committed = |covered: &Covered| {
            covered.get(source).is_some_and(|coverage| coverage.covers(start.saturating_sub(1), end))
        };
        committed(looked_at)
            && committed(&state.coverage)
            && !state.replayed.get(source).is_some_and(|replayed| replayed.touches(start, end))
    };
    let mut ranges: Vec<(Place, i64)> = Vec::new();
    let mut joins = false;
    for letter in letters {
        if letter.fate != Fate::Settled {
            joins = false;
            continue;
        }
        let end = letter.place.offset.saturating_add(1);
        match ranges.last_mut() {
            Some((first, last))
                if joins
                    && first.source == letter.place.source
                    && is_whole(letter.place.source, *last, end) =>
            {
                *last = end;
            }
            _ => ranges.push((letter.place, end)),
        }
        joins = true;
    }
    let range = |(first, end): (Place, i64)| {
        let SourcePartition { cluster, topic, partition } = sources.at(first.source)?.clone();
        Some(OffsetRange { cluster, topic, partition, start: first.offset, end, lost: false })
    };
    ranges.into_iter().filter_map(range).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests;
