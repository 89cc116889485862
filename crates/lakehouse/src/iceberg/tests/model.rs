//! Random histories against the ledger's own state.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use siltstone_protocol::{Change, PartitionSpec};

use super::rig::{Rig, spec};

/// One random ledger entry.
async fn step(rig: &mut Rig, random: &mut StdRng) {
    let live: Vec<String> = rig.state.live_files.keys().cloned().collect();
    let mut some = |most: usize| -> Vec<String> {
        let count = random.random_range(1..=most).min(live.len());
        live.choose_multiple(random, count).cloned().collect()
    };
    match rig.state.version * 7919 % 13 {
        0..=2 if live.len() > 2 => {
            let removed = some(6);
            let added = 1 + removed.len() / 3;
            rig.replace(removed, added).await;
        }
        3 if live.len() > 4 => {
            let removed = some(3);
            rig.delete(removed).await;
        }
        4 => {
            rig.append(0).await;
        }
        5 => {
            let spec_id = rig.state.partition_spec.spec_id + 1;
            // Every other spec lacks the bucket.
            let fields = spec().fields.into_iter().take(1 + spec_id as usize % 2).collect();
            rig.commit(Change::SetPartitionSpec { partition_spec: PartitionSpec { spec_id, fields } }).await;
        }
        _ => {
            let files = random.random_range(1..12);
            rig.append(files).await;
        }
    }
}

/// I-4 at every snapshot, each live file listed once, born once, with the numbers of its birth (`check`),
/// whatever the order of commits, projections and restarts.
#[tokio::test]
async fn every_snapshot_shows_the_ledger_at_its_version() {
    for seed in 0..8 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new().await;
        let mut table = rig.table();
        for _ in 0..50 {
            step(&mut rig, &mut random).await;
            match random.random_range(0..10) {
                0..=5 => {
                    rig.show(&mut table).await;
                }
                6 => table = rig.table(),
                _ => {}
            }
        }
        rig.show(&mut table).await;
        let shown = rig.check().await;
        let last = shown.iter().rev().find_map(|s| s.version).unwrap();
        let paths: std::collections::BTreeSet<_> = shown.last().unwrap().births.keys().cloned().collect();
        assert_eq!(paths, rig.live[&rig.state.version], "seed {seed}");
        assert!(last <= rig.state.version);
    }
}
