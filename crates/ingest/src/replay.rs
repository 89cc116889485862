//! Records in memory, with the contract of a Kafka source: for tests, and for anything that replays records.
//!
//! `ReplayTopic` plays the broker (shared, records may be added and expired while sources read), `ReplaySource` the
//! consumer, `ReplayGroup` the group: it scripts what is assigned, revoked and lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use siltstone_protocol::ErrorCode;
use siltstone_spec::Start;

use crate::{
    error::IngestError,
    record::{Headers, OwnedHeader, Record},
    source::{RecordSource, SourceEvent, Visit, Watermarks},
};

/// Records of one partition delivered in a row before the next partition has its turn.
const RUN: usize = 16;

/// A record that owns its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReplayRecord {
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<OwnedHeader>,
}

impl std::fmt::Debug for ReplayRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplayRecord(..)")
    }
}

impl ReplayRecord {
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// A topic in memory.
#[derive(Debug, Clone)]
pub struct ReplayTopic {
    logs: Arc<Mutex<BTreeMap<i32, Log>>>,
}

#[derive(Debug, Default)]
struct Log {
    low: i64,
    end: i64,
    /// Offsets may have gaps, as after compaction or around transactions.
    records: BTreeMap<i64, Arc<ReplayRecord>>,
}

impl ReplayTopic {
    pub fn new(partitions: i32) -> Self {
        let logs = (0..partitions).map(|partition| (partition, Log::default())).collect();
        Self { logs: Arc::new(Mutex::new(logs)) }
    }

    /// Appends a record and returns its offset.
    pub fn push(&self, partition: i32, record: ReplayRecord) -> i64 {
        let mut logs = self.lock();
        let log = logs.entry(partition).or_default();
        let offset = log.end;
        log.records.insert(offset, Arc::new(record));
        log.end += 1;
        offset
    }

    /// Appends offsets that carry no record.
    pub fn skip(&self, partition: i32, offsets: i64) {
        self.lock().entry(partition).or_default().end += offsets.max(0);
    }

    /// Forgets every record below `offset`, as retention does.
    pub fn expire(&self, partition: i32, offset: i64) {
        let mut logs = self.lock();
        let log = logs.entry(partition).or_default();
        log.records = log.records.split_off(&offset);
        log.low = offset;
        log.end = log.end.max(offset);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, partition: i32) -> Option<Watermarks> {
        self.lock().get(&partition).map(|log| Watermarks { low: log.low, high: log.end })
    }
}

/// Scripts the group of one source; events are reported by its next polls, one rebalance at a time.
#[derive(Debug, Clone, Default)]
pub struct ReplayGroup {
    inner: Arc<Mutex<Group>>,
}

#[derive(Debug, Default)]
struct Group {
    script: VecDeque<SourceEvent>,
    published: BTreeMap<i32, i64>,
}

impl ReplayGroup {
    pub fn assign(&self, partitions: &[i32]) {
        self.lock().script.push_back(SourceEvent::Assigned(partitions.to_vec()));
    }

    pub fn revoke(&self, partitions: &[i32]) {
        self.lock().script.push_back(SourceEvent::Revoked(partitions.to_vec()));
    }

    pub fn lose(&self, partitions: &[i32]) {
        self.lock().script.push_back(SourceEvent::Lost(partitions.to_vec()));
    }

    /// What `publish_positions` told so far.
    pub fn published(&self) -> BTreeMap<i32, i64> {
        self.lock().published.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Cursor {
    next: i64,
    /// The end or an impossible position was reported for this position.
    reported: bool,
}

/// A consumer of a `ReplayTopic`.
#[derive(Debug)]
pub struct ReplaySource {
    topic: ReplayTopic,
    group: ReplayGroup,
    cursors: BTreeMap<i32, Cursor>,
    offered: BTreeSet<i32>,
    unreleased: BTreeSet<i32>,
    paused: bool,
    closed: bool,
}

impl ReplaySource {
    /// A source that is offered every partition.
    pub fn new(topic: &ReplayTopic) -> Self {
        let group = ReplayGroup::default();
        let partitions: Vec<i32> = topic.lock().keys().copied().collect();
        group.assign(&partitions);
        Self::with_group(topic, group)
    }

    /// A source that is offered what `group` scripts.
    pub fn with_group(topic: &ReplayTopic, group: ReplayGroup) -> Self {
        Self {
            topic: topic.clone(),
            group,
            cursors: BTreeMap::new(),
            offered: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            paused: false,
            closed: false,
        }
    }

    pub fn group(&self) -> ReplayGroup {
        self.group.clone()
    }

    /// The next step of the group, unless one is still unanswered.
    fn rebalance(&mut self) -> Option<SourceEvent> {
        let answered = self.offered.is_empty() && self.unreleased.is_empty();
        let lost = matches!(self.group.lock().script.front(), Some(SourceEvent::Lost(_)));
        if !answered && !lost {
            return None;
        }
        let event = self.group.lock().script.pop_front()?;
        match &event {
            SourceEvent::Assigned(partitions) => self.offered = partitions.iter().copied().collect(),
            SourceEvent::Revoked(partitions) | SourceEvent::Lost(partitions) => {
                self.offered.clear();
                self.unreleased = partitions.iter().copied().collect();
            }
            SourceEvent::EndOfPartition { .. } | SourceEvent::OffsetOutOfRange { .. } => {}
        }
        Some(event)
    }

    /// The next record of a partition, or what is to be said about its position.
    fn next(&mut self, partition: i32) -> (Option<(i64, Arc<ReplayRecord>)>, Option<SourceEvent>) {
        let logs = self.topic.lock();
        let (Some(log), Some(cursor)) = (logs.get(&partition), self.cursors.get_mut(&partition)) else {
            return (None, None);
        };
        let event = if cursor.next < log.low || cursor.next > log.end {
            SourceEvent::OffsetOutOfRange { partition }
        } else if let Some((offset, record)) = log.records.range(cursor.next..).next() {
            return (Some((*offset, Arc::clone(record))), None);
        } else {
            if cursor.next < log.end {
                (cursor.next, cursor.reported) = (log.end, false);
            }
            SourceEvent::EndOfPartition { partition, offset: log.end }
        };
        let news = !std::mem::replace(&mut cursor.reported, true);
        (None, news.then_some(event))
    }

    fn pass(
        &mut self,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
        events: &mut Vec<SourceEvent>,
    ) -> (usize, bool) {
        let partitions: Vec<i32> =
            self.cursors.keys().copied().filter(|partition| !self.unreleased.contains(partition)).collect();
        let mut delivered = 0;
        for partition in partitions {
            for _ in 0..RUN {
                if delivered == max {
                    return (delivered, false);
                }
                let (found, event) = self.next(partition);
                events.extend(event);
                let Some((offset, record)) = found else { break };
                let lent = Record {
                    partition,
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: Headers::owned(&record.headers),
                };
                if visit(&lent) == Visit::Blocked {
                    return (delivered, true);
                }
                if let Some(cursor) = self.cursors.get_mut(&partition) {
                    *cursor = Cursor { next: offset + 1, reported: false };
                }
                delivered += 1;
            }
        }
        (delivered, false)
    }
}

impl RecordSource for ReplaySource {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<Vec<SourceEvent>, IngestError> {
        let deadline = Instant::now() + timeout;
        let mut events = Vec::new();
        while !self.closed {
            events.extend(self.rebalance());
            if !events.is_empty() {
                break;
            }
            let (mut delivered, mut blocked) = (0, false);
            while !self.paused && !blocked && delivered < max {
                let (more, stopped) = self.pass(max - delivered, visit, &mut events);
                (delivered, blocked) = (delivered + more, stopped);
                if more == 0 {
                    break;
                }
            }
            if delivered > 0 || blocked || !events.is_empty() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(events)
    }

    fn assign(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        for (partition, next) in positions {
            if !self.offered.remove(partition) {
                return Err(IngestError::internal(format!(
                    "partition {partition} assigned without an offer"
                )));
            }
            self.cursors.insert(*partition, Cursor { next: *next, reported: false });
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[i32]) -> Result<(), IngestError> {
        for partition in partitions {
            if !self.unreleased.remove(partition) {
                return Err(IngestError::internal(format!(
                    "partition {partition} released without a request"
                )));
            }
            self.cursors.remove(partition);
        }
        Ok(())
    }

    fn seek(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        for (partition, next) in positions {
            let Some(cursor) = self.cursors.get_mut(partition) else {
                return Err(IngestError::internal(format!(
                    "seek in partition {partition}, which is not assigned"
                )));
            };
            *cursor = Cursor { next: *next, reported: false };
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), IngestError> {
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), IngestError> {
        self.paused = false;
        Ok(())
    }

    fn publish_positions(&mut self, positions: &[(i32, i64)]) {
        self.group.lock().published.extend(positions.iter().copied());
    }

    fn partitions(&mut self) -> Result<Vec<i32>, IngestError> {
        Ok(self.topic.lock().keys().copied().collect())
    }

    fn watermarks(&mut self, partition: i32) -> Result<Watermarks, IngestError> {
        self.topic.range(partition).ok_or_else(|| IngestError::NotFound {
            code: ErrorCode::TopicNotFound,
            what: format!("partition {partition} of the replayed topic"),
            check: "check the partition's number".to_owned(),
        })
    }

    fn start_offset(&mut self, partition: i32, start: &Start) -> Result<i64, IngestError> {
        let Watermarks { low, high } = self.watermarks(partition)?;
        Ok(match start {
            Start::Earliest => low,
            Start::Latest => high,
            Start::Offsets(offsets) => offsets.get(&partition).copied().unwrap_or(low),
            Start::Timestamp(millis) => {
                let logs = self.topic.lock();
                let young = |record: &ReplayRecord| record.timestamp_ms.is_some_and(|time| time >= *millis);
                logs.get(&partition)
                    .and_then(|log| log.records.iter().find(|(_, record)| young(record)))
                    .map_or(high, |(offset, _)| *offset)
            }
        })
    }

    fn close(&mut self) {
        self.closed = true;
        self.cursors.clear();
    }
}
