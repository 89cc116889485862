//! A table whose files are numbers: ingest, planning and rewriting without a byte. For tests.

use std::collections::HashMap;

use siltstone_datafile::KeyRange;
use siltstone_protocol::FileEntry;

use crate::{
    CompactionPlan, CompactionPolicy, FileFacts, TableState, plan,
    runs::{Ranged, runs},
};

const ORDER: i64 = 1;

/// A time at which everything made at 0 is quiet, and quiet for long.
pub(crate) fn quiet(policy: &CompactionPolicy) -> i64 {
    i64::try_from(policy.quiet_after.as_millis()).unwrap_or(i64::MAX).saturating_mul(30)
}

struct File {
    entry: FileEntry,
    made_ms: i64,
    first: u32,
    last: u32,
    range: KeyRange,
}

pub(crate) struct Table {
    policy: CompactionPolicy,
    files: HashMap<String, File>,
    made: u64,
    pub(crate) ingested: u64,
    pub(crate) rewritten: u64,
    pub(crate) plans: usize,
}

impl Table {
    pub(crate) fn new(policy: CompactionPolicy) -> Self {
        Self { policy, files: HashMap::new(), made: 0, ingested: 0, rewritten: 0, plans: 0 }
    }

    pub(crate) fn add(&mut self, bytes: u64, first: u32, last: u32, partition: u32, now_ms: i64) {
        self.ingested += bytes;
        self.make(bytes, first, last, format!("{partition:064}"), now_ms);
    }

    fn make(&mut self, bytes: u64, first: u32, last: u32, token: String, now_ms: i64) {
        self.made += 1;
        let path = format!("data/{:012}.parquet", self.made);
        let entry = FileEntry {
            path: path.clone(),
            bytes,
            rows: bytes,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: ORDER,
            partition_token: Some(token),
        };
        let range = KeyRange::new(ORDER, &first.to_be_bytes(), &last.to_be_bytes());
        self.files.insert(path, File { entry, made_ms: now_ms, first, last, range });
    }

    fn plans(&self, now_ms: i64) -> Vec<CompactionPlan> {
        let files = self.files.values().map(|file| FileFacts {
            entry: &file.entry,
            made_ms: file.made_ms,
            key_range: Some(&file.range),
            deleted_rows: 0,
        });
        plan(&TableState { files: files.collect(), sort_order_id: ORDER }, &self.policy, now_ms)
    }

    /// One round: plans, and their rewrites. Returns how many.
    pub(crate) fn compact(&mut self, now_ms: i64) -> usize {
        let plans = self.plans(now_ms);
        for plan in &plans {
            self.rewrite(plan, now_ms);
        }
        self.plans += plans.len();
        plans.len()
    }

    /// Files of the target size and a smaller one, each from where the one before ends.
    fn rewrite(&mut self, plan: &CompactionPlan, now_ms: i64) {
        let removed: Vec<File> =
            plan.inputs.iter().filter_map(|file| self.files.remove(&file.path)).collect();
        assert_eq!(removed.len(), plan.inputs.len(), "an input is not live");
        let bytes: u64 = removed.iter().map(|file| file.entry.bytes).sum();
        let first = removed.iter().map(|file| file.first).min().unwrap_or(0);
        let last = removed.iter().map(|file| file.last).max().unwrap_or(0);
        let token = removed[0].entry.partition_token.clone().unwrap_or_default();
        self.rewritten += bytes;
        let key = |written: u64| {
            first + (u128::from(last - first) * u128::from(written) / u128::from(bytes)) as u32
        };
        let mut written = 0;
        while written < bytes {
            let size = self.policy.target_size.min(bytes - written);
            self.make(size, key(written), key(written + size), token.clone(), now_ms);
            written += size;
        }
    }

    /// Rounds until nothing is planned; files that a round makes count as made at 0.
    pub(crate) fn compact_until_quiet(&mut self, now_ms: i64, rounds_max: usize) -> usize {
        for round in 0..rounds_max {
            if self.compact(now_ms) == 0 {
                return round;
            }
            self.files.values_mut().for_each(|file| file.made_ms = 0);
        }
        rounds_max
    }

    pub(crate) fn rows(&self) -> u64 {
        self.files.values().map(|file| file.entry.rows).sum()
    }

    /// Sorted runs of each partition.
    pub(crate) fn depths(&self) -> Vec<usize> {
        let mut partitions: HashMap<Option<&str>, Vec<Ranged<'_>>> = HashMap::new();
        for file in self.files.values() {
            let (first, last) = (file.range.first(), file.range.last());
            let ranged = Ranged { file: 0, first, last };
            partitions.entry(file.entry.partition_token.as_deref()).or_default().push(ranged);
        }
        partitions.into_values().map(|files| runs(files).len()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn write_amplification(&self) -> f64 {
        (self.ingested + self.rewritten) as f64 / self.ingested as f64
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const KEYS: u32 = 1_000_000_000;

    /// A day of commits every ten seconds into a day's partition, each over all keys or (`in_time_order`)
    /// over its own; then three quiet hours. Compaction runs every minute.
    fn a_day(bytes: u64, jitter: f64, in_time_order: bool) -> (Table, usize) {
        let mut table = Table::new(CompactionPolicy::default());
        let mut rng = StdRng::seed_from_u64(7);
        let (mut now_ms, mut most) = (0, 0);
        while now_ms < DAY_MS + DAY_MS / 8 {
            if now_ms < DAY_MS {
                let size = (bytes as f64 * rng.random_range(1.0 - jitter..=1.0 + jitter)) as u64;
                let start = (now_ms / 10_000) as u32 * 1000;
                let (first, last) = if in_time_order { (start, start + 1300) } else { (0, KEYS) };
                table.add(size, first, last, 0, now_ms);
            }
            if now_ms % 60_000 == 0 {
                table.compact(now_ms);
                most = most.max(table.len());
            }
            now_ms += 10_000;
        }
        (table, most)
    }

    #[test]
    fn a_day_of_small_commits_is_rewritten_at_most_twice() {
        eprintln!("commit KiB, jitter, key order: write amplification, depth, files (most), plans");
        let kib = 1 << 10;
        for (bytes, jitter, in_time_order) in [
            (20 * kib, 0.3, false),
            (300 * kib, 0.0, false),
            (1000 * kib, 0.3, false),
            (5000 * kib, 0.3, false),
            (8_000 * kib, 0.2, false),
            (1000 * kib, 0.3, true),
            (20_000 * kib, 0.2, true),
            // 340 GiB a day: a tier is larger than max_bytes, so it is merged piece by piece.
            (40_000 * kib, 0.2, false),
        ] {
            let (table, most) = a_day(bytes, jitter, in_time_order);
            let (amplification, depths) = (table.write_amplification(), table.depths());
            eprintln!(
                "{:6} {jitter} {:6}: {amplification:.2}, {depths:?}, {} ({most}), {}",
                bytes / kib,
                if in_time_order { "time" } else { "random" },
                table.len(),
                table.plans
            );
            assert_eq!(table.rows(), table.ingested);
            let most_written = if bytes > 30_000 * kib { 4.0 } else { 3.0 };
            assert!(amplification <= most_written, "{bytes}: {amplification}");
            assert!(depths.iter().all(|depth| *depth <= 4), "{bytes}: {depths:?}");
            assert!(most < 1000, "{most} files at once");
        }
    }

    #[test]
    fn a_table_that_never_goes_quiet_stays_shallow() {
        let mut table = Table::new(CompactionPolicy::default());
        for commit in 0..60_000_i64 {
            let now_ms = commit * 10_000;
            table.add(1 << 20, 0, KEYS, 0, now_ms);
            if commit % 6 == 0 {
                table.compact(now_ms);
            }
        }
        let depth = table.depths()[0];
        eprintln!("a week: {:.2}, depth {depth}, {} files", table.write_amplification(), table.len());
        assert!(table.write_amplification() <= 4.0 && depth < 200);
    }
}
