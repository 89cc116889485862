//! `RecordSource`: where records come from, in order and without loss.
//!
//! The contract, which one suite proves for every source:
//! 1. Positions come from the caller alone (`assign`, `seek`); the group's own offsets are never read.
//! 2. Within a partition offsets only rise, until the caller moves the position.
//! 3. A record for which `visit` answered `Blocked` is delivered again by the next poll, before any later record of
//!    its partition, unless its partition was released, lost or moved meanwhile.
//! 4. After `Revoked` or `Lost` was returned nothing of those partitions is delivered until they are assigned again.
//! 5. A paused source delivers no record, but its polls still report events.
//! 6. `EndOfPartition` comes after every record below its offset was taken.
//!
//! Absent on purpose: decoding, buffering beyond one batch, async.

use std::time::Duration;

use siltstone_spec::Start;

use crate::{error::IngestError, record::Record};

/// What the visitor did with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    Taken,
    /// No room now: deliver this record again by the next poll, and end this poll.
    Blocked,
}

/// What happened beside records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// The group gave us these partitions: answer with `assign`.
    Assigned(Vec<i32>),
    /// The group wants these partitions back: commit or drop, then answer with `release`.
    Revoked(Vec<i32>),
    /// The session is gone: nothing may be committed from buffers of these partitions. Answer with `release`.
    Lost(Vec<i32>),
    /// Everything below `offset`, the next offset to be fetched, was delivered.
    EndOfPartition { partition: i32, offset: i64 },
    /// The broker does not have the position that the partition was assigned at.
    OffsetOutOfRange { partition: i32 },
}

/// The readable range of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset which the broker still has.
    pub low: i64,
    /// End: the last stable offset, so that nothing of an open transaction counts.
    pub high: i64,
}

/// Records of one topic, driven by one thread.
pub trait RecordSource: Send {
    /// Hands over what is ready, waiting at most `timeout` for the first; at most `max` records, in offset order
    /// within a partition.
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<Vec<SourceEvent>, IngestError>;

    /// Answer to `Assigned`: begin each partition at this offset (from the ledger).
    fn assign(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError>;

    /// Answer to `Revoked` and `Lost`: give the partitions back. Until called, the group waits.
    fn release(&mut self, partitions: &[i32]) -> Result<(), IngestError>;

    /// Moves assigned partitions.
    fn seek(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError>;

    /// Stops delivery of all assigned partitions, also of those assigned later; poll still serves events.
    fn pause(&mut self) -> Result<(), IngestError>;

    fn resume(&mut self) -> Result<(), IngestError>;

    /// Tells the group the positions, for lag tools only; asynchronous, failures are logged.
    fn publish_positions(&mut self, positions: &[(i32, i64)]);

    /// All partitions of the topic, ascending.
    fn partitions(&mut self) -> Result<Vec<i32>, IngestError>;

    fn watermarks(&mut self, partition: i32) -> Result<Watermarks, IngestError>;

    /// Where a partition without committed position begins.
    fn start_offset(&mut self, partition: i32, start: &Start) -> Result<i64, IngestError>;

    /// Leaves the group. Nothing is delivered afterwards.
    fn close(&mut self);
}
