//! Which offsets of a topic are to be read (again): pure, from what is asked for, what the topic has, and what the
//! ledger covers.
//!
//! A backfill reads what nobody committed: holes of the coverage below the position, which is the live workers'.
//! A reset reads what lies below the position, committed or not. What the topic no longer has cannot be read: a
//! backfill passes it over, a reset is refused, because it would take rows away and bring none. A topic that ends
//! before the position was made anew: its offsets are of other records, and both are refused.

use serde::Serialize;
use siltstone_lakehouse::ledger::Coverage;
use siltstone_spec::TableSpec;

use crate::error::WorkerError;

/// One partition as it was asked for: half-open `[from, to)`, and what the topic has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    /// First offset that the topic has, and the end of what can be read.
    pub low: i64,
    pub high: i64,
}

/// What is to be done with one partition. Ranges are half-open, ascending and apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionPlan {
    pub partition: i32,
    pub ranges: Vec<(i64, i64)>,
    /// The partition has no position yet: live consumption is to begin here.
    pub begins_at: Option<i64>,
    /// Offsets that were asked for and are committed already.
    pub held: u64,
    /// Offsets that were asked for, not committed, and no longer in the topic.
    pub gone: u64,
    /// Offsets that were asked for at and after the position: live workers read them.
    pub ahead: u64,
}

impl PartitionPlan {
    /// Offsets to read.
    pub fn offsets(&self) -> u64 {
        self.ranges.iter().map(|&(from, to)| to.abs_diff(from)).sum()
    }
}

/// What a backfill reads of a partition.
pub(super) fn backfill(wanted: Wanted, coverage: Option<&Coverage>) -> PartitionPlan {
    let Wanted { partition, low, high, .. } = wanted;
    let (from, to) = (wanted.from.max(0), wanted.to.min(high));
    let mut plan = PartitionPlan { partition, ..PartitionPlan::default() };
    if from >= to {
        return plan;
    }
    let position = coverage.and_then(Coverage::next);
    let end = position.map_or(to, |position| position.min(to));
    plan.begins_at = position.is_none().then_some(to);
    plan.ahead = distance(end.max(from), to);
    let (mut at, mut held) = (from, 0);
    let mut gap = |start: i64, stop: i64| {
        plan.gone += distance(start, stop.min(low));
        let start = start.max(low);
        if start < stop {
            plan.ranges.push((start, stop));
        }
    };
    for &(start, stop) in coverage.map_or(&[][..], Coverage::intervals) {
        let (start, stop) = (start.clamp(at, end.max(at)), stop.clamp(at, end.max(at)));
        if at < start {
            gap(at, start);
        }
        held += distance(start, stop);
        at = at.max(stop);
    }
    if at < end {
        gap(at, end);
    }
    plan.held = held;
    plan
}

/// What a reset reads of a partition anew; offsets that it lacks are in `gone`.
pub(super) fn reset(wanted: Wanted, coverage: Option<&Coverage>) -> PartitionPlan {
    let Wanted { partition, low, .. } = wanted;
    let Some(position) = coverage.and_then(Coverage::next) else {
        return PartitionPlan { partition, ..PartitionPlan::default() };
    };
    // Below the first commit there is nothing to take away: what the topic lacks there is no loss.
    let first = coverage.and_then(|held| held.intervals().first()).map_or(position, |&(start, _)| start);
    let from = if wanted.from < first { wanted.from.max(low).min(first) } else { wanted.from };
    let to = wanted.to.min(position);
    PartitionPlan {
        partition,
        ranges: if from < to { vec![(from, to)] } else { Vec::new() },
        gone: distance(from, to.min(low)),
        ahead: distance(from.max(position), wanted.to.min(wanted.high)),
        ..PartitionPlan::default()
    }
}

/// Refuses a topic that is not the one that was read. `coverage`: of a partition.
///
/// # Errors
/// `Data`: it ends before the position.
pub(super) fn check_ends<'c>(
    spec: &TableSpec,
    wanted: &[Wanted],
    coverage: impl Fn(i32) -> Option<&'c Coverage>,
) -> Result<(), WorkerError> {
    for one in wanted {
        if let Some(position) = beyond_the_end(*one, coverage(one.partition)) {
            let (table, topic) = (spec.name.clone(), spec.topic.clone());
            let (partition, end) = (one.partition, one.high);
            return Err(WorkerError::PositionBeyondEnd { table, topic, partition, position, end });
        }
    }
    Ok(())
}

/// The position, where it lies beyond the end of what can be read: the topic is not the one that was read.
fn beyond_the_end(wanted: Wanted, coverage: Option<&Coverage>) -> Option<i64> {
    coverage.and_then(Coverage::next).filter(|position| *position > wanted.high)
}

fn distance(from: i64, to: i64) -> u64 {
    if from < to { to.abs_diff(from) } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wanted(from: i64, to: i64, low: i64, high: i64) -> Wanted {
        Wanted { partition: 3, from, to, low, high }
    }

    fn held(intervals: &[(i64, i64)]) -> Coverage {
        Coverage::from_intervals(intervals.to_vec()).unwrap()
    }

    #[test]
    fn a_backfill_reads_holes_alone() {
        let coverage = held(&[(10, 20), (30, 40), (60, 60)]);
        let plan = backfill(wanted(0, 100, 5, 80), Some(&coverage));
        assert_eq!(plan.ranges, [(5, 10), (20, 30), (40, 60)]);
        assert_eq!((plan.held, plan.gone, plan.ahead, plan.begins_at), (20, 5, 20, None));
        let plan = backfill(wanted(15, 35, 0, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.held), (vec![(20, 30)], 10));
        let plan = backfill(wanted(12, 18, 0, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.held), (vec![], 6));
        let plan = backfill(wanted(70, 75, 0, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.held, plan.ahead), (vec![], 0, 5));
        let plan = backfill(wanted(0, 50, 45, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.gone, plan.held), (vec![(45, 50)], 25, 20));
    }

    #[test]
    fn without_a_position_live_consumption_begins_behind_the_backfill() {
        let plan = backfill(wanted(0, i64::MAX, 5, 80), None);
        assert_eq!((plan.ranges, plan.begins_at, plan.gone), (vec![(5, 80)], Some(80), 5));
        assert_eq!(
            backfill(wanted(90, 95, 0, 80), None),
            PartitionPlan { partition: 3, ..Default::default() }
        );
    }

    #[test]
    fn a_reset_reads_what_was_read() {
        let coverage = held(&[(10, 20), (30, 40)]);
        let plan = reset(wanted(0, 100, 5, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.gone, plan.ahead), (vec![(5, 40)], 0, 40));
        // What it would take away and cannot bring back.
        let plan = reset(wanted(0, 35, 15, 80), Some(&coverage));
        assert_eq!((plan.ranges, plan.gone), (vec![(10, 35)], 5));
        assert_eq!(reset(wanted(0, 35, 15, 80), None).offsets(), 0);
        assert_eq!(reset(wanted(50, 60, 15, 80), Some(&coverage)).offsets(), 0);
    }

    #[test]
    fn a_topic_that_ends_before_the_position_is_another_one() {
        let coverage = held(&[(10, 20), (30, 40)]);
        assert_eq!(beyond_the_end(wanted(0, 35, 5, 39), Some(&coverage)), Some(40));
        assert_eq!(beyond_the_end(wanted(0, 35, 5, 40), Some(&coverage)), None);
        assert_eq!(beyond_the_end(wanted(0, 35, 0, 0), None), None);
    }
}
