//! The plan: which files of each partition are merged, and why. Pure; no file is in two plans.
//!
//! Files are grouped by partition (spec and token). In each group, in this order:
//!
//! 1. **Overlap.** Files are divided into sorted runs (`runs`). A quiet partition with more than
//!    `max_overlap` runs has its smallest ones merged into one.
//! 2. **Small files.** A busy partition collects `fan_in` units of about one size (a small file, or a run of
//!    larger files that others overlap) and merges them into one run: tiers, in which each rewrite of a row
//!    makes its run many times larger, so that rewrites are few. A quiet partition merges what small
//!    files it has left.
//! 3. **Deleted rows.** A file with many of them is rewritten, even alone.
//!
//! A fixed point: a merge leaves one run, of which at most one file is small. It is chosen again only with
//! others of its size, or when the depth demands it. A quiet partition comes to rest with one file below an
//! eighth of the target size, few between that and half of it, and `max_overlap` runs.
//!
//! Bounded: no plan takes more than `max_inputs` files and `max_bytes`. A merge that is larger is done piece
//! by piece in key order.

use std::collections::{HashMap, HashSet};

use siltstone_protocol::FileEntry;
use siltstone_spec::Clustering;

use crate::{
    CompactionPolicy, FileFacts, TableState,
    runs::{Ranged, overlapping, runs as runs_of},
};

/// A partition that is quiet this many times longer than `quiet_after` is merged whatever that costs.
const LONG_QUIET: u128 = 24;
/// A file of at least this share of the target size is no leftover: it waits for others of its size.
const LEFTOVER_SHARE: u64 = 8;
/// Sizes within this factor (as a power of two) are one tier.
const TIER_BITS: u32 = 2;

/// Why files were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// A tier is full.
    SmallFiles,
    /// Too many runs over one key.
    Overlap,
    /// Small files of a partition that went quiet.
    Quiet,
    DeletedRows,
}

impl Trigger {
    /// The trigger's stable name, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SmallFiles => "small_files",
            Self::Overlap => "overlap",
            Self::Quiet => "quiet",
            Self::DeletedRows => "deleted_rows",
        }
    }
}

/// Files of one partition that are merged into one sorted run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPlan {
    pub trigger: Trigger,
    pub inputs: Vec<FileEntry>,
}

impl CompactionPlan {
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.bytes).sum()
    }

    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }
}

/// What waits to be compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Plans, files and bytes, without regard to `max_plans`.
    pub plans: usize,
    pub files: usize,
    pub bytes: u64,
    /// The most sorted runs over one partition.
    pub depth: usize,
}

/// A plan by places in the state's list.
struct Draft {
    trigger: Trigger,
    files: Vec<usize>,
}

/// The plans for these files at this time, those first that remove the most files.
pub fn plan(state: &TableState<'_>, policy: &CompactionPolicy, now_ms: i64) -> Vec<CompactionPlan> {
    let (mut drafts, _) = drafts(state, policy, now_ms);
    drafts.sort_by(|a, b| b.files.len().cmp(&a.files.len()).then_with(|| path(state, a).cmp(path(state, b))));
    drafts.truncate(policy.max_plans);
    let entry = |file: &usize| state.files[*file].entry.clone();
    let plan = |draft: Draft| CompactionPlan {
        trigger: draft.trigger,
        inputs: draft.files.iter().map(entry).collect(),
    };
    drafts.into_iter().map(plan).collect()
}

/// What [`plan`] would choose without a bound on plans.
pub fn backlog(state: &TableState<'_>, policy: &CompactionPolicy, now_ms: i64) -> Backlog {
    let (drafts, depth) = drafts(state, policy, now_ms);
    let files = || drafts.iter().flat_map(|draft| &draft.files);
    Backlog {
        plans: drafts.len(),
        files: files().count(),
        bytes: files().map(|file| state.files[*file].entry.bytes).sum(),
        depth,
    }
}

fn path<'a>(state: &TableState<'a>, draft: &Draft) -> &'a str {
    draft.files.first().map_or("", |file| state.files[*file].entry.path.as_str())
}

fn drafts(state: &TableState<'_>, policy: &CompactionPolicy, now_ms: i64) -> (Vec<Draft>, usize) {
    let mut group_of: HashMap<(i32, Option<&str>), usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (file, facts) in state.files.iter().enumerate() {
        let key = (facts.entry.spec_id, facts.entry.partition_token.as_deref());
        let group = *group_of.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(file);
    }
    drop(group_of);
    let mut drafts = Vec::new();
    let mut depth = 0;
    for files in groups {
        let mut group = Group::new(state, policy, now_ms, files);
        depth = depth.max(group.runs.len());
        group.plan();
        drafts.append(&mut group.drafts);
    }
    (drafts, depth)
}

/// The files of one partition while they are planned.
struct Group<'a> {
    state: &'a TableState<'a>,
    policy: &'a CompactionPolicy,
    /// In path order: as they were made. Everywhere below a file is its place in here.
    files: Vec<usize>,
    /// Sorted runs of the files whose range in the table's order is known. Empty when nothing is sorted.
    runs: Vec<Vec<Ranged<'a>>>,
    /// How long the newest file is there, milliseconds.
    quiet_ms: u128,
    taken: HashSet<usize>,
    drafts: Vec<Draft>,
}

impl<'a> Group<'a> {
    fn new(
        state: &'a TableState<'a>,
        policy: &'a CompactionPolicy,
        now_ms: i64,
        mut files: Vec<usize>,
    ) -> Self {
        files.sort_unstable_by_key(|file| &state.files[*file].entry.path);
        let newest = files.iter().map(|file| state.files[*file].made_ms).max().unwrap_or(now_ms);
        let quiet_ms = u128::try_from(now_ms.saturating_sub(newest)).unwrap_or(0);
        let runs = Vec::new();
        let mut group =
            Self { state, policy, files, runs, quiet_ms, taken: HashSet::new(), drafts: Vec::new() };
        group.runs = runs_of((0..group.files.len()).filter_map(|file| group.ranged(file)).collect());
        group
    }

    fn plan(&mut self) {
        if self.files.len() > 1 {
            if self.quiet_ms >= self.policy.quiet_after.as_millis() {
                self.merge_overlap();
                self.merge_leftovers();
            } else {
                self.merge_tiers();
            }
        }
        self.rewrite_deleted();
    }

    /// Rule 1: the smallest runs become one, so that `max_overlap` are left.
    fn merge_overlap(&mut self) {
        let keep = self.policy.max_overlap.max(1);
        if self.runs.len() <= keep {
            return;
        }
        let mut runs = self.runs.clone();
        runs.sort_by_key(|run| run.iter().map(|file| self.bytes(file.file)).sum::<u64>());
        let merged = runs.len() - keep + 1;
        self.merge_runs(runs.into_iter().take(merged).flatten().collect());
    }

    /// Rule 2, busy: units of about one size, `fan_in` of them.
    fn merge_tiers(&mut self) {
        let mut units: Vec<(u32, Vec<usize>)> = Vec::new();
        let tier = |bytes: u64| (u64::BITS - bytes.leading_zeros()) / TIER_BITS;
        for file in self.small() {
            units.push((tier(self.bytes(file)), vec![file]));
        }
        for run in &self.runs {
            let large: Vec<usize> =
                run.iter().map(|file| file.file).filter(|file| !self.is_small(*file)).collect();
            if !large.is_empty() {
                units.push((tier(large.iter().map(|file| self.bytes(*file)).sum()), large));
            }
        }
        // Stable: within a tier in the order in which they were made, which often is that of the keys.
        units.sort_by_key(|unit| unit.0);
        let full: Vec<Vec<usize>> = units
            .chunk_by(|a, b| a.0 == b.0)
            .flat_map(|tier| tier.chunks_exact(self.policy.fan_in()))
            .map(|units| units.iter().flat_map(|unit| unit.1.iter().copied()).collect())
            .collect();
        for files in full {
            if files.iter().any(|file| !self.is_small(*file)) {
                self.merge_runs(files.iter().filter_map(|file| self.ranged(*file)).collect());
            } else {
                self.push_bounded(Trigger::SmallFiles, files);
            }
        }
    }

    /// Rule 2, quiet: the small files that are left, unless the largest would be rewritten for little.
    fn merge_leftovers(&mut self) {
        let mut small: Vec<usize> = self.small().collect();
        let leftover = |file: &usize| self.bytes(*file) < self.policy.target_size / LEFTOVER_SHARE;
        if small.iter().filter(|file| !leftover(file)).count() < self.policy.min_inputs {
            small.retain(leftover);
        }
        if self.quiet_ms < self.policy.quiet_after.as_millis().saturating_mul(LONG_QUIET) {
            small.sort_by_key(|file| self.bytes(*file));
            while let Some(largest) = small.last() {
                let sum: u64 = small.iter().map(|file| self.bytes(*file)).sum();
                if sum / 2 >= self.bytes(*largest) {
                    break;
                }
                small.pop();
            }
        }
        if small.len() > 1 {
            let first = |file: &usize| self.facts(*file).key_range.map(|range| range.first());
            small.sort_by(|a, b| first(a).cmp(&first(b)).then(a.cmp(b)));
            self.push_bounded(Trigger::Quiet, small);
        }
    }

    /// Rule 3.
    fn rewrite_deleted(&mut self) {
        for file in 0..self.files.len() {
            let facts = self.facts(file);
            let share = facts.deleted_rows as f64 / facts.entry.rows.max(1) as f64;
            if facts.deleted_rows > 0 && share >= self.policy.max_deleted_share && !self.is_taken(file) {
                self.push(Trigger::DeletedRows, vec![file]);
            }
        }
    }

    /// Merges the files of some runs where they overlap, piece by piece when a piece is too large.
    fn merge_runs(&mut self, files: Vec<Ranged<'a>>) {
        for group in overlapping(files) {
            let mut bytes = 0_u64;
            let fits = |file: &&Ranged<'_>| {
                bytes = bytes.saturating_add(self.bytes(file.file));
                bytes <= self.policy.max_bytes
            };
            let within: Vec<usize> =
                group.iter().take(self.policy.max_inputs).take_while(fits).map(|file| file.file).collect();
            if within.len() > 1 {
                self.push(Trigger::Overlap, within);
            }
        }
    }

    /// Plans of at most `max_inputs` files and `max_bytes`, in this order of files; none of one file.
    fn push_bounded(&mut self, trigger: Trigger, files: Vec<usize>) {
        let (mut inputs, mut bytes) = (Vec::new(), 0_u64);
        for file in files {
            let own = self.bytes(file);
            if inputs.len() == self.policy.max_inputs || bytes.saturating_add(own) > self.policy.max_bytes {
                self.push(trigger, std::mem::take(&mut inputs));
                bytes = 0;
            }
            inputs.push(file);
            bytes += own;
        }
        self.push(trigger, inputs);
    }

    fn push(&mut self, trigger: Trigger, files: Vec<usize>) {
        if files.len() > 1 || (trigger == Trigger::DeletedRows && !files.is_empty()) {
            self.taken.extend(&files);
            let files = files.into_iter().map(|file| self.files[file]).collect();
            self.drafts.push(Draft { trigger, files });
        }
    }

    fn small(&self) -> impl Iterator<Item = usize> {
        (0..self.files.len()).filter(|file| self.is_small(*file) && !self.is_taken(*file))
    }

    fn is_small(&self, file: usize) -> bool {
        self.policy.is_small(self.bytes(file))
    }

    fn is_taken(&self, file: usize) -> bool {
        self.taken.contains(&file)
    }

    fn bytes(&self, file: usize) -> u64 {
        self.facts(file).entry.bytes
    }

    fn facts(&self, file: usize) -> &FileFacts<'a> {
        &self.state.files[self.files[file]]
    }

    /// The file's range in the table's present order, when rows are sorted by it and it is known.
    fn ranged(&self, file: usize) -> Option<Ranged<'a>> {
        let facts = self.facts(file);
        let order_id = self.state.sort_order_id;
        let by_order = self.policy.cluster == Clustering::Sort && order_id != 0;
        let sorted = by_order && facts.entry.sort_order_id == order_id;
        let range = facts.key_range.filter(|range| sorted && range.order_id() == order_id)?;
        Some(Ranged { file, first: range.first(), last: range.last() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
