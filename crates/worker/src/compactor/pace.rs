//! How fast a background rewrite may go, so that ingestion does not wait for it.

use std::time::Duration;

/// Bounds on the work of one table's compaction in one worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Input bytes a second, on average.
    pub bytes_per_second: Option<u64>,
    /// Share of the time in which a rewrite may run, above 0 and at most 1.
    pub busy_share: f64,
}

impl Pace {
    /// As fast as it goes.
    pub const UNBOUNDED: Self = Self { bytes_per_second: None, busy_share: 1.0 };

    /// What the spec allows.
    pub fn of(policy: &siltstone_spec::model::CompactionPolicy) -> Self {
        Self { bytes_per_second: policy.max_rate, busy_share: f64::from(policy.busy_percent) / 100.0 }
    }

    /// The rest after a rewrite of so many bytes that took so long.
    pub fn rest(&self, bytes: u64, took: Duration) -> Duration {
        let by_share = took.mul_f64(1.0 / self.busy_share.clamp(0.01, 1.0) - 1.0);
        let by_rate = self.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64).saturating_sub(took)
        });
        by_share.max(by_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_until_both_bounds_hold() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::UNBOUNDED.rest(1 << 40, second), Duration::ZERO);
        let half = Pace { bytes_per_second: None, busy_share: 0.5 };
        assert_eq!(half.rest(0, second), second);
        let rate = Pace { bytes_per_second: Some(100), busy_share: 1.0 };
        assert_eq!(rate.rest(1000, second), 9 * second);
        assert_eq!(rate.rest(50, second), Duration::ZERO);
        let both = Pace { bytes_per_second: Some(100), busy_share: 0.25 };
        assert_eq!(both.rest(150, second), 3 * second);
        assert_eq!(both.rest(1000, second), 9 * second);
    }
}
