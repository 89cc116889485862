//! The plan: groups of small files of one partition, each to become one file.
//!
//! 1. Live files are grouped by partition (spec id and token), schema and sort order.
//! 2. In each group files below half the target size are candidates, smallest first.
//! 3. A plan takes candidates until their sum reaches the target; fewer than `min_inputs` make none.
//!
//! A fixed point: what a plan makes is at least as large as the sum of its inputs' rows allow, and a
//! group left with fewer than `min_inputs` small files is not planned again.

use std::collections::BTreeMap;

use siltstone_protocol::FileEntry;

/// When files are compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Files are made near this size, bytes.
    pub target_bytes: u64,
    /// Fewer inputs than this are not worth a rewrite. At least 2.
    pub min_inputs: usize,
    /// No plan takes more inputs than this.
    pub max_inputs: usize,
}

/// Input files that become one output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub inputs: Vec<FileEntry>,
}

/// The plans for these live files. Pure; no file is in two plans.
pub fn plan<'a>(live: impl IntoIterator<Item = &'a FileEntry>, policy: &Policy) -> Vec<Plan> {
    let mut groups: BTreeMap<_, Vec<&FileEntry>> = BTreeMap::new();
    for file in live {
        if file.bytes < policy.target_bytes / 2 {
            let group = (file.spec_id, &file.partition_token, file.schema_id, file.sort_order_id);
            groups.entry(group).or_default().push(file);
        }
    }
    let mut plans = Vec::new();
    for (_, mut files) in groups {
        files.sort_by_key(|file| (file.bytes, &file.path));
        let mut inputs: Vec<FileEntry> = Vec::new();
        let mut bytes = 0;
        for file in files {
            inputs.push(file.clone());
            bytes += file.bytes;
            if bytes >= policy.target_bytes || inputs.len() >= policy.max_inputs {
                push(&mut plans, &mut inputs, policy);
                bytes = 0;
            }
        }
        push(&mut plans, &mut inputs, policy);
    }
    plans
}

fn push(plans: &mut Vec<Plan>, inputs: &mut Vec<FileEntry>, policy: &Policy) {
    let inputs = std::mem::take(inputs);
    if inputs.len() >= policy.min_inputs.max(2) {
        plans.push(Plan { inputs });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    fn file(n: u64, bytes: u64, token: &str) -> FileEntry {
        FileEntry {
            path: format!("data/{n:04}.parquet"),
            bytes,
            rows: bytes,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 1,
            partition_token: Some(token.to_owned()),
        }
    }

    #[test]
    fn plans_are_disjoint_stay_inside_a_partition_and_converge() {
        let policy = Policy { target_bytes: 100, min_inputs: 3, max_inputs: 8 };
        let mut live: Vec<_> =
            (0..50).map(|n| file(n, 5 + n % 30, if n % 2 == 0 { "a" } else { "b" })).collect();
        for round in 0..10 {
            let plans = plan(&live, &policy);
            if plans.is_empty() {
                assert!(round > 0);
                return;
            }
            let rows: u64 = live.iter().map(|file| file.rows).sum();
            for (n, plan) in plans.iter().enumerate() {
                let token = &plan.inputs[0].partition_token;
                assert!(plan.inputs.iter().all(|file| &file.partition_token == token));
                let taken = live.len();
                live.retain(|file| !plan.inputs.contains(file));
                assert_eq!(taken - live.len(), plan.inputs.len(), "an input is in two plans");
                let mut made = file(1_000 * (round + 1) + n as u64, 0, "");
                made.partition_token.clone_from(token);
                made.bytes = plan.inputs.iter().map(|file| file.bytes).sum();
                made.rows = made.bytes;
                live.push(made);
            }
            assert_eq!(rows, live.iter().map(|file| file.rows).sum::<u64>());
        }
        panic!("plans do not converge");
    }
}
