//! What a commit costs, however many came before.

use std::sync::Arc;

use object_store::{ObjectStore, memory::InMemory};

use super::rig::Rig;
use crate::{faults::FaultStore, format::ProjectionOptions};

#[tokio::test]
async fn a_commit_is_four_puts_after_thousands_of_commits() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut rig = Rig::over(Arc::clone(&inner)).await;
    rig.options = ProjectionOptions { snapshots_max: 10, ..rig.options };
    let counted = Arc::new(FaultStore::new(inner));
    let mut table = rig.table_over(Arc::<FaultStore>::clone(&counted));
    rig.append(1).await;
    rig.show(&mut table).await;
    let mut most_bytes = 0;
    let mut reads = 0;
    for commit in 0..2_000 {
        rig.append(1).await;
        let before = counted.operations();
        rig.show(&mut table).await;
        let operations = counted.operations() - before;
        assert!(operations >= 4);
        // Merging manifests too old for the cache reads them: at most seven per tier and merge.
        reads += operations - 4;
        assert!(operations == 4 || commit > 100, "{operations} operations at commit {commit}");
        if commit % 100 == 0 {
            most_bytes = most_bytes.max(rig.metadata_bytes().await.1.len());
        }
    }
    assert!(reads == 0, "{reads} reads: every merged manifest was in memory");
    assert!(most_bytes < 40_000, "metadata of {most_bytes} bytes");
    let shown = rig.check().await;
    assert_eq!(shown.len(), 10);
    assert!(shown.iter().all(|s| s.manifests <= 28), "fewer than eight manifests in each of four tiers");
}

#[tokio::test]
async fn manifests_stay_few_over_a_thousand_appends() {
    let mut rig = Rig::new().await;
    rig.options.snapshots_max = 2;
    let mut table = rig.table();
    let mut most = 0;
    for commit in 0..1_000 {
        rig.append(1 + commit % 5).await;
        rig.show(&mut table).await;
        if commit % 50 == 49 {
            most = most.max(rig.check().await.last().unwrap().manifests);
        }
    }
    assert!(most <= 28, "{most} manifests");
}

/// A replace reads what holds its inputs and nothing else, also right after a restart of its second one.
#[tokio::test]
async fn a_replace_reads_only_the_manifests_it_rewrites() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut rig = Rig::over(Arc::clone(&inner)).await;
    let mut table = rig.table();
    for _ in 0..100 {
        rig.append(2).await;
        rig.show(&mut table).await;
    }
    let counted = Arc::new(FaultStore::new(inner));
    let mut table = rig.table_over(Arc::<FaultStore>::clone(&counted));
    let oldest: Vec<String> = rig.state.live_files.keys().take(2).cloned().collect();
    rig.replace(oldest, 1).await;
    rig.show(&mut table).await;
    let newest: Vec<String> = rig.state.live_files.keys().rev().take(2).cloned().collect();
    rig.replace(newest, 1).await;
    let before = counted.operations();
    rig.show(&mut table).await;
    assert_eq!(counted.operations() - before, 4);
    rig.check().await;
}
