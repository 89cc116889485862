use proptest::prelude::*;
use siltstone_datafile::KeyRange;

use super::*;
use crate::simulation::{Table, quiet};

const MIB: u64 = 1 << 20;

fn entry(number: usize, bytes: u64, token: Option<&str>) -> FileEntry {
    FileEntry {
        path: format!("data/{number:08}.parquet"),
        bytes,
        rows: bytes,
        schema_id: 0,
        spec_id: 0,
        sort_order_id: 1,
        partition_token: token.map(str::to_owned),
    }
}

fn range(first: u32, last: u32) -> KeyRange {
    KeyRange::new(1, &first.to_be_bytes(), &last.to_be_bytes())
}

fn policy() -> CompactionPolicy {
    CompactionPolicy { target_size: 512 * MIB, ..CompactionPolicy::default() }
}

/// Plans for files of one partition, all over all keys, made at 0, seen at `now_ms`.
fn plans(bytes: &[u64], policy: &CompactionPolicy, now_ms: i64) -> Vec<(Trigger, Vec<u64>)> {
    let entries: Vec<FileEntry> =
        bytes.iter().enumerate().map(|(number, bytes)| entry(number, *bytes, None)).collect();
    let range = range(0, 100);
    let facts = |entry| FileFacts { made_ms: 0, ..FileFacts::of(entry).with_key_range(Some(&range)) };
    let state = TableState { files: entries.iter().map(facts).collect(), sort_order_id: 1 };
    let sizes = |plan: CompactionPlan| {
        let mut sizes: Vec<u64> = plan.inputs.iter().map(|file| file.bytes).collect();
        sizes.sort_unstable();
        (plan.trigger, sizes)
    };
    plan(&state, policy, now_ms).into_iter().map(sizes).collect()
}

#[test]
fn a_busy_partition_waits_for_a_full_tier() {
    assert_eq!(plans(&[MIB; 63], &policy(), 0), []);
    assert_eq!(plans(&[MIB; 64], &policy(), 0), [(Trigger::SmallFiles, vec![MIB; 64])]);
    // Sizes that differ much do not fill one tier: the largest would be rewritten for little.
    let sizes: Vec<u64> = (0..64).map(|n| MIB << (n / 8)).collect();
    assert_eq!(plans(&sizes, &policy(), 0), []);
}

#[test]
fn a_quiet_partition_is_merged_below_a_full_tier() {
    let quiet = 600_000;
    assert_eq!(plans(&[MIB, MIB], &policy(), quiet - 1), []);
    assert_eq!(plans(&[MIB, MIB], &policy(), quiet), [(Trigger::Quiet, vec![MIB, MIB])]);
    assert_eq!(plans(&[MIB], &policy(), quiet * 1000), []);
    // Much for little is left, until the partition is quiet for long.
    assert_eq!(plans(&[MIB, 50 * MIB], &policy(), quiet), []);
    assert_eq!(plans(&[MIB, 50 * MIB], &policy(), quiet * 24), [(Trigger::Quiet, vec![MIB, 50 * MIB])]);
    // A file that is large enough waits for others of its size.
    assert_eq!(plans(&[MIB, 100 * MIB], &policy(), quiet * 24), []);
    let four = [100 * MIB; 4];
    assert_eq!(plans(&four, &policy(), quiet), [(Trigger::Quiet, four.to_vec())]);
    // Five large files over the same keys: one more than may overlap.
    let large = [600 * MIB, 601 * MIB, 602 * MIB, 603 * MIB, 604 * MIB];
    assert_eq!(plans(&large, &policy(), quiet), [(Trigger::Overlap, vec![600 * MIB, 601 * MIB])]);
    assert_eq!(plans(&large[1..], &policy(), quiet), []);
}

#[test]
fn unknown_ranges_and_other_orders_are_not_planned_for_their_overlap() {
    let entries: Vec<FileEntry> = (0..9).map(|number| entry(number, 600 * MIB, None)).collect();
    let old = KeyRange::new(7, &[0], &[9]);
    for range in [None, Some(&old)] {
        let facts = |entry| FileFacts::of(entry).with_key_range(range);
        let state = TableState { files: entries.iter().map(facts).collect(), sort_order_id: 1 };
        assert_eq!(plan(&state, &policy(), i64::MAX), []);
    }
}

#[test]
fn a_file_with_many_deleted_rows_is_rewritten_alone() {
    let entries = [entry(0, 600 * MIB, None), entry(1, 600 * MIB, None)];
    let few = FileFacts::of(&entries[0]).with_deleted_rows(MIB);
    let many = FileFacts::of(&entries[1]).with_deleted_rows(100 * MIB);
    let state = TableState { files: vec![few, many], sort_order_id: 1 };
    let plans = plan(&state, &policy(), 0);
    assert_eq!(plans.len(), 1);
    assert_eq!((plans[0].trigger, &plans[0].inputs[..]), (Trigger::DeletedRows, &entries[1..]));
}

#[test]
fn a_merge_beyond_the_bounds_goes_piece_by_piece_in_key_order() {
    let policy = CompactionPolicy { max_inputs: 4, max_overlap: 1, ..policy() };
    // One wide file over ten narrow ones.
    let mut entries = vec![entry(0, 600 * MIB, None)];
    let mut ranges = vec![range(0, 1000)];
    for number in 1..=10 {
        entries.push(entry(number, 300 * MIB, None));
        ranges.push(range(number as u32 * 50, number as u32 * 50 + 50));
    }
    let facts =
        entries.iter().zip(&ranges).map(|(entry, range)| FileFacts::of(entry).with_key_range(Some(range)));
    let state = TableState { files: facts.collect(), sort_order_id: 1 };
    let plans = plan(&state, &policy, i64::MAX);
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].inputs, entries[..4]);
}

#[test]
fn a_backlog_counts_what_a_plan_would_take() {
    let entries: Vec<FileEntry> = (0..200).map(|number| entry(number, MIB, None)).collect();
    let state = TableState { files: entries.iter().map(FileFacts::of).collect(), sort_order_id: 0 };
    let few = CompactionPolicy { max_plans: 1, ..policy() };
    assert_eq!(plan(&state, &few, 0).len(), 1);
    let backlog = backlog(&state, &few, 0);
    assert_eq!(backlog, Backlog { plans: 3, files: 192, bytes: 192 * MIB, depth: 0 });
}

fn any_policy() -> impl Strategy<Value = CompactionPolicy> {
    (2_usize..6, 2_usize..40, 1_usize..6, 1_u64..40, any::<bool>()).prop_map(
        |(min_inputs, max_inputs, max_overlap, targets, sorted)| CompactionPolicy {
            target_size: 100,
            min_inputs,
            max_inputs: max_inputs.max(min_inputs),
            max_overlap,
            max_bytes: 200 + targets * 100,
            cluster: if sorted { Clustering::Sort } else { Clustering::Hilbert },
            ..CompactionPolicy::default()
        },
    )
}

/// (bytes, first key, keys, partition, deleted share in percent)
type AnyFile = (u64, u32, u32, u8, u8);

fn any_files() -> impl Strategy<Value = Vec<AnyFile>> {
    proptest::collection::vec((1_u64..160, 0_u32..2000, 0_u32..2000, 0_u8..3, 0_u8..30), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn plans_are_bounded_disjoint_and_of_one_partition(
        files in any_files(), policy in any_policy(), quiet: bool,
    ) {
        let token = |part: u8| ["a", "b", "c"][part as usize];
        let entries: Vec<FileEntry> = files
            .iter()
            .enumerate()
            .map(|(number, file)| entry(number, file.0, Some(token(file.3))))
            .collect();
        let ranges: Vec<KeyRange> = files.iter().map(|file| range(file.1, file.1 + file.2)).collect();
        let facts = entries.iter().zip(&ranges).zip(&files).map(|((entry, range), file)| {
            FileFacts::of(entry)
                .with_key_range((file.2 % 5 > 0).then_some(range))
                .with_deleted_rows(entry.rows * u64::from(file.4) / 100)
        });
        let state = TableState { files: facts.collect(), sort_order_id: 1 };
        let now = if quiet { i64::MAX } else { 0 };
        let made = plan(&state, &policy, now);
        prop_assert!(made.len() <= policy.max_plans);
        let mut seen = HashSet::new();
        for plan in &made {
            prop_assert!(plan.inputs.len() <= policy.max_inputs && plan.bytes() <= policy.max_bytes.max(160));
            prop_assert!(plan.inputs.len() > 1 || plan.trigger == Trigger::DeletedRows);
            for file in &plan.inputs {
                prop_assert!(seen.insert(&file.path), "{} is in two plans", file.path);
                prop_assert!(entries.contains(file));
                prop_assert_eq!(&file.partition_token, &plan.inputs[0].partition_token);
            }
        }
        // The order of the list does not matter.
        let mut turned = state.clone();
        turned.files.reverse();
        let key = |plan: &CompactionPlan| {
            let mut paths: Vec<String> = plan.inputs.iter().map(|file| file.path.clone()).collect();
            paths.sort_unstable();
            paths
        };
        let mut again: Vec<_> = plan(&turned, &policy, now).iter().map(key).collect();
        let mut made: Vec<_> = made.iter().map(key).collect();
        again.sort_unstable();
        made.sort_unstable();
        prop_assert_eq!(made, again);
    }

    #[test]
    fn planning_and_rewriting_comes_to_rest(files in any_files(), policy in any_policy()) {
        let mut table = Table::new(policy.clone());
        for (bytes, first, keys, part, _) in &files {
            table.add(*bytes, *first, first + keys, u32::from(*part), 0);
        }
        let rows = table.rows();
        let rounds = table.compact_until_quiet(quiet(&policy), 500);
        prop_assert!(rounds < 500, "it does not come to rest");
        prop_assert_eq!(table.rows(), rows);
        if policy.cluster == Clustering::Sort && policy.max_inputs > 20 && policy.max_bytes > 2000 {
            for depth in table.depths() {
                prop_assert!(depth <= policy.max_overlap, "{depth} runs over one key");
            }
        }
    }
}
