//! Which plans of a table are this worker's: by the source partitions that the group gave it.
//!
//! A plan belongs to the source partition that a hash of its first input names. Plans of one state do not
//! share inputs, so each has one owner; workers that know different states may take the same files, which
//! wastes work and harms nothing.

use siltstone_compaction::CompactionPlan;

/// The source partitions that this worker owns, of all there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    pub partitions: Vec<i32>,
    pub all: usize,
}

/// The plans that may be carried out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    All,
    Of(Owned),
}

impl Share {
    pub fn has(&self, plan: &CompactionPlan) -> bool {
        match (self, plan.inputs.first()) {
            (Self::All, _) => true,
            (Self::Of(_), Some(first)) => self.has_key(&first.path),
            (Self::Of(_), None) => false,
        }
    }

    /// Whether what has this name is to be done here.
    pub fn has_key(&self, key: &str) -> bool {
        let Self::Of(owned) = self else { return true };
        if owned.partitions.is_empty() || owned.all == 0 {
            return false;
        }
        let owner = hash(key.as_bytes()) % owned.all as u64;
        owned.partitions.iter().any(|partition| u64::try_from(*partition) == Ok(owner))
    }
}

/// FNV-1a: the same in every worker and every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use siltstone_compaction::Trigger;
    use siltstone_protocol::FileEntry;

    use super::*;

    fn plan(name: usize) -> CompactionPlan {
        let entry = FileEntry {
            path: format!("data/{name:026}.parquet"),
            bytes: 1,
            rows: 1,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 0,
            partition_token: None,
        };
        CompactionPlan { trigger: Trigger::SmallFiles, inputs: vec![entry] }
    }

    #[test]
    fn each_plan_has_one_owner_and_each_owner_some() {
        let workers = [vec![0, 3], vec![1], vec![2]];
        let shares = workers.map(|partitions| Share::Of(Owned { partitions, all: 4 }));
        let mut plans_of = [0; 3];
        for name in 0..1000 {
            let owners: Vec<usize> = (0..3).filter(|worker| shares[*worker].has(&plan(name))).collect();
            assert_eq!(owners.len(), 1);
            plans_of[owners[0]] += 1;
        }
        assert!(plans_of.iter().all(|plans| *plans > 150), "{plans_of:?}");
        assert!(!Share::Of(Owned::default()).has(&plan(1)));
        assert!(Share::All.has(&plan(1)));
    }
}
