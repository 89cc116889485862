//! The ends of a bounded run, and what the gauges show.

use super::poller::Poller;
use crate::error::ForTable;
use crate::error::WorkerError;
use crate::metrics::PartitionLabel;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

const MEASURE_EVERY: Duration = Duration::from_secs(5);

impl Poller {
    pub(super) fn set_targets(&mut self) -> Result<(), WorkerError> {
        let mut targets = BTreeMap::new();
        let mut expected = 0;
        let partitions = self.parts.source.partitions().for_table(&self.parts.spec.name)?;
        for partition in partitions {
            let marks = self.parts.source.watermarks(partition).for_table(&self.parts.spec.name)?;
            let from = self.committed_position(partition)?.unwrap_or(marks.low).max(marks.low);
            expected += u64::try_from(marks.high - from).unwrap_or(0);
            targets.insert(partition, marks.high);
        }
        self.parts.progress.expect(expected);
        self.targets = Some(targets);
        Ok(())
    }

    /// True when a bounded run has consumed its own partitions to their ends, and the ledger holds
    /// the others' (other workers of the group may own them).
    pub(super) fn targets_reached(&mut self) -> Result<bool, WorkerError> {
        let Some(targets) = &self.targets else { return Ok(false) };
        if self.waiting_for_schema.is_some() {
            return Ok(false);
        }
        let mut others = Vec::new();
        for (&partition, &target) in targets {
            let owned = self.parts.intake.positions.iter().find(|(id, _)| *id == partition);
            match owned {
                Some((_, position)) if position.next >= target => {}
                // Nothing but control records may lie between the last record and the end.
                Some(_) if self.ends_seen.get(&partition).is_some_and(|end| *end >= target) => {}
                Some(_) => return Ok(false),
                None => others.push((partition, target)),
            }
        }
        if others.is_empty() {
            return Ok(true);
        }
        if self.checked_others.elapsed() < Duration::from_millis(500) {
            return Ok(false);
        }
        self.checked_others = Instant::now();
        self.join_table()?;
        for (partition, target) in others {
            let position = match self.table() {
                Some(_) => self.committed_position(partition)?,
                None => self.early_position(partition)?,
            };
            if position.unwrap_or(0) < target {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn measure(&mut self) {
        let now = Instant::now();
        if let Some(shown) = self.parts.runtime.shown_version() {
            self.unshown.shown(shown);
        }
        let since = |at| now.saturating_duration_since(at);
        let oldest = self
            .parts
            .intake
            .age(now)
            .into_iter()
            .chain([self.submitted_at, self.unshown.oldest()].into_iter().flatten().map(since));
        let freshness = oldest.max().unwrap_or_default().as_secs_f64();
        self.parts.metrics.freshness.get_or_create(&self.label()).set(freshness);
        if self.measured.elapsed() < MEASURE_EVERY {
            return;
        }
        self.measured = now;
        let now_ms = self.parts.identity.now_ms();
        let owned: Vec<_> = self.parts.intake.positions.iter().map(|(id, at)| (id, *at)).collect();
        for (partition, position) in owned {
            // A broker that does not answer shows in the log of its client; the gauge keeps its value.
            let Ok(marks) = self.parts.source.watermarks(partition) else { continue };
            let lag = (marks.high - position.next).max(0);
            let seconds = if lag > 0 && position.last_timestamp_ms > 0 {
                (now_ms - position.last_timestamp_ms).max(0) as f64 / 1000.0
            } else {
                0.0
            };
            let label = PartitionLabel { table: self.name().to_owned(), partition };
            self.parts.metrics.lag_records.get_or_create(&label).set(lag);
            self.parts.metrics.lag_seconds.get_or_create(&label).set(seconds);
        }
    }
}
