//! When manifests are merged (pure).
//!
//! Manifests form tiers by the number of live files: tier t holds up to `FANOUT^(t+1)`. When a commit
//! would leave `FANOUT` manifests in the tiers up to its own, they become one, which may then complete
//! the next tier. So a file's entry is rewritten at most once per tier, O(log n) times over the table's
//! life, and below the full ones there are fewer than `FANOUT` manifests per tier.

/// Manifests that make one of the next tier.
pub(crate) const FANOUT: usize = 8;
/// Merging stops at this size.
pub(crate) const TARGET_BYTES: u64 = 8 * 1024 * 1024;
/// Manifests at least this large are full: merging two would exceed the target.
const FULL_BYTES: u64 = TARGET_BYTES / 2;

/// A manifest as the plan sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Which of `runs` (all of one partition spec) a new manifest takes in. Indices, smallest run first.
pub(crate) fn plan_merge(runs: &[Run], new: Run) -> Vec<usize> {
    let mut order: Vec<usize> = (0..runs.len()).filter(|&i| runs[i].bytes < FULL_BYTES).collect();
    order.sort_by_key(|&i| (runs[i].files, runs[i].bytes));
    let mut merged = new;
    let mut taken = 0;
    loop {
        let tier = tier(merged.files);
        let within = order[taken..].iter().take_while(|&&i| self::tier(runs[i].files) <= tier).count();
        if within + 1 < FANOUT {
            break;
        }
        let before = taken;
        for &index in &order[taken..taken + within] {
            if merged.bytes + runs[index].bytes > TARGET_BYTES {
                break;
            }
            merged.files += runs[index].files;
            merged.bytes += runs[index].bytes;
            taken += 1;
        }
        if taken < before + within {
            break;
        }
    }
    order.truncate(taken);
    order
}

fn tier(files: u64) -> u32 {
    files.max(1).ilog(FANOUT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends one file at a time; returns (most manifests seen, entries written in all).
    fn append_many(commits: u64, bytes_per_file: u64) -> (usize, u64) {
        let mut runs: Vec<Run> = Vec::new();
        let (mut most, mut written) = (0, 0);
        for _ in 0..commits {
            let mut new = Run { files: 1, bytes: bytes_per_file };
            let mut taken = plan_merge(&runs, new);
            taken.sort_unstable();
            for index in taken.into_iter().rev() {
                let run = runs.swap_remove(index);
                new = Run { files: new.files + run.files, bytes: new.bytes + run.bytes };
            }
            written += new.files;
            runs.push(new);
            most = most.max(runs.len());
        }
        (most, written)
    }

    #[test]
    fn manifests_stay_few_and_entries_are_rewritten_log_n_times() {
        let (most, written) = append_many(100_000, 500);
        // Eight tiers below the full ones, 50 MB of entries in manifests of at least 4 MiB.
        assert!(most <= 7 * 6 + 12, "{most} manifests");
        assert!(written <= 100_000 * 7, "{written} entries written");
    }

    #[test]
    fn a_large_append_takes_in_the_small_ones() {
        let small = [Run { files: 1, bytes: 1000 }; 7];
        assert_eq!(plan_merge(&small, Run { files: 100, bytes: 100_000 }).len(), 7);
        assert_eq!(plan_merge(&small[..6], Run { files: 100, bytes: 100_000 }).len(), 0);
        assert_eq!(plan_merge(&small, Run { files: 9000, bytes: TARGET_BYTES }).len(), 0);
    }
}
