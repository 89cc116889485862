//! When files are compacted, and how much one plan and one round may take.

use std::time::Duration;

use siltstone_spec::Clustering;

/// Plans of one round, unless the caller says otherwise.
const PLANS_MAX: usize = 64;
/// Bytes that one plan reads at most, in multiples of the target size.
const PLAN_TARGETS_MAX: u64 = 64;
/// Files of one size that wait for each other: each rewrite makes a file about this much larger.
const FAN_IN_MAX: usize = 64;

/// When files are compacted. The defaults of a spec come from `siltstone-spec`.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionPolicy {
    /// Files are made near this size, bytes; below half of it a file is small.
    pub target_size: u64,
    /// Fewer small files than this are left alone, but in a quiet partition. At least 2.
    pub min_inputs: usize,
    /// No plan takes more files than this.
    pub max_inputs: usize,
    /// More sorted runs than this over one key are merged once the partition is quiet.
    pub max_overlap: usize,
    /// A partition without a new file for this long is quiet.
    pub quiet_after: Duration,
    pub cluster: Clustering,
    /// No plan reads more bytes than this.
    pub max_bytes: u64,
    /// No round makes more plans than this.
    pub max_plans: usize,
    /// A file with at least this share of deleted rows is rewritten, even alone.
    pub max_deleted_share: f64,
}

impl CompactionPolicy {
    /// Similar files that a busy partition collects before they are merged: the fan-in of a tier. Each
    /// rewrite of a row multiplies its file's size by about this, so rewrites are few.
    pub(crate) fn fan_in(&self) -> usize {
        self.max_inputs.min(FAN_IN_MAX).max(self.min_inputs).max(2)
    }

    pub(crate) fn is_small(&self, bytes: u64) -> bool {
        bytes < self.target_size / 2
    }
}

impl From<&siltstone_spec::CompactionPolicy> for CompactionPolicy {
    fn from(spec: &siltstone_spec::CompactionPolicy) -> Self {
        Self {
            target_size: spec.target_size,
            min_inputs: spec.min_inputs as usize,
            max_inputs: spec.max_inputs as usize,
            max_overlap: spec.max_overlap as usize,
            quiet_after: spec.quiet_after,
            cluster: spec.cluster,
            max_bytes: spec.target_size.saturating_mul(PLAN_TARGETS_MAX),
            max_plans: PLANS_MAX,
            max_deleted_share: 0.1,
        }
    }
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        let target_size = 512 << 20;
        Self {
            target_size,
            min_inputs: 4,
            max_inputs: 64,
            max_overlap: 4,
            quiet_after: Duration::from_secs(600),
            cluster: Clustering::Sort,
            max_bytes: target_size * PLAN_TARGETS_MAX,
            max_plans: PLANS_MAX,
            max_deleted_share: 0.1,
        }
    }
}
