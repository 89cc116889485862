//! Whatever a store answers, whenever a process ends: the same live files, none twice.

use std::{sync::Arc, time::Duration};

use object_store::ObjectStore;
use siltstone_protocol::ErrorKind;

use super::rig::Rig;
use crate::{
    faults::{Fault, FaultStore, Scope},
    format::TableFormat,
};

/// A history with appends, a replace and a delete, shown in three rounds; operation `k` goes wrong.
/// Returns false when the history has fewer operations.
async fn history_with_fault(k: u64, fault: Fault) -> bool {
    let mut rig = Rig::new().await;
    let store: Arc<dyn ObjectStore> = Arc::clone(&rig.store);
    let faulty = Arc::new(FaultStore::new(store));
    let mut table = rig.table_over(Arc::<FaultStore>::clone(&faulty));
    faulty.after(k, fault, Scope::Everything);
    for round in 0..3 {
        for _ in 0..=8 * round {
            rig.append(1).await;
        }
        let removed: Vec<String> = rig.state.live_files.keys().take(3).cloned().collect();
        if round > 0 {
            rig.replace(removed, 1).await;
        }
        // A hanging store: the worker gives up, or is killed.
        let shown = table.catch_up(&rig.ledger, &rig.state, &rig.details);
        match tokio::time::timeout(Duration::from_millis(400), shown).await {
            Ok(Ok(version)) => assert_eq!(version, rig.state.version),
            Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            Err(_) => {}
        }
        if round == 1 {
            // Another process, without faults, goes on in between.
            let mut fresh = rig.table();
            assert_eq!(rig.show(&mut fresh).await, rig.state.version);
            rig.check().await;
        }
    }
    let reached = faulty.seen() > k;
    faulty.heal();
    assert_eq!(rig.show(&mut rig.table()).await, rig.state.version);
    assert_eq!(rig.show(&mut table).await, rig.state.version, "the one that failed goes on");
    let shown = rig.check().await;
    let paths: std::collections::BTreeSet<_> = shown.last().unwrap().births.keys().cloned().collect();
    assert_eq!(paths, rig.live[&rig.state.version]);
    reached
}

async fn every_operation(fault: Fault) {
    let mut k = 0;
    while history_with_fault(k, fault).await {
        k += 1;
        assert!(k < 500);
    }
    assert!(k > 15, "{k} operations");
}

#[tokio::test]
async fn an_error_at_any_operation_changes_nothing_in_the_end() {
    every_operation(Fault::Refuse).await;
}

#[tokio::test]
async fn a_lost_reply_at_any_operation_changes_nothing_in_the_end() {
    every_operation(Fault::LoseReply).await;
}

#[tokio::test]
async fn a_process_that_ends_at_any_operation_changes_nothing_in_the_end() {
    every_operation(Fault::Hang).await;
    every_operation(Fault::DoAndHang).await;
}

/// The put of the metadata lands and its reply is lost: it is recognised, and the commit counts once.
#[tokio::test]
async fn a_lost_reply_of_the_commit_is_recognised() {
    let mut rig = Rig::new().await;
    let store: Arc<dyn ObjectStore> = Arc::clone(&rig.store);
    let faulty = Arc::new(FaultStore::new(store));
    let mut table = rig.table_over(Arc::<FaultStore>::clone(&faulty));
    rig.show(&mut table).await;
    rig.append(1).await;
    // Manifest, manifest list, metadata.
    faulty.after(2, Fault::LoseReply, Scope::Puts);
    assert_eq!(rig.show(&mut table).await, 1);
    assert_eq!(rig.metadata().await.0, 2);
    assert_eq!(rig.check().await.len(), 1);
}

/// The store answers nothing but errors after the metadata was put: unknown, and found out later.
#[tokio::test]
async fn an_unknown_outcome_is_said_and_found_out_later() {
    let mut rig = Rig::new().await;
    let store: Arc<dyn ObjectStore> = Arc::clone(&rig.store);
    let faulty = Arc::new(FaultStore::new(store));
    let mut table = rig.table_over(Arc::<FaultStore>::clone(&faulty));
    rig.show(&mut table).await;
    rig.append(1).await;
    faulty.always(Fault::LoseReply);
    // Nothing works, not even the manifest.
    assert!(table.catch_up(&rig.ledger, &rig.state, &rig.details).await.is_err());
    faulty.heal();
    assert_eq!(rig.show(&mut table).await, 1);
    assert_eq!(rig.check().await.len(), 1);
}

#[tokio::test]
async fn two_processes_race_and_nothing_is_shown_twice() {
    let mut rig = Rig::new().await;
    let (mut one, mut two) = (rig.table(), rig.table());
    for round in 0..60 {
        rig.append(2).await;
        if round % 5 == 4 {
            let removed: Vec<String> = rig.state.live_files.keys().take(3).cloned().collect();
            rig.replace(removed, 1).await;
        }
        let (first, second) = tokio::join!(
            one.catch_up(&rig.ledger, &rig.state, &rig.details),
            two.catch_up(&rig.ledger, &rig.state, &rig.details)
        );
        assert_eq!((first.unwrap(), second.unwrap()), (rig.state.version, rig.state.version));
    }
    // The hint is last written by either; at rest it is put right by whoever looks.
    one.shown_version().await.unwrap();
    let shown = rig.check().await;
    let versions: Vec<_> = shown.iter().map(|s| s.version.unwrap()).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "each version shown once: {versions:?}");
    assert_eq!(*versions.last().unwrap(), rig.state.version);
}

#[tokio::test]
async fn the_head_is_found_whatever_the_hint_says() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    for _ in 0..40 {
        rig.append(1).await;
        rig.show(&mut table).await;
    }
    let hint = object_store::path::Path::from("shop/orders/metadata/version-hint.text");
    use object_store::ObjectStoreExt;
    for text in ["3", "38", "41", "4000", "nonsense", ""] {
        rig.store.put(&hint, text.as_bytes().to_vec().into()).await.unwrap();
        assert_eq!(rig.table().shown_version().await.unwrap(), Some(40), "hint {text:?}");
        rig.check().await;
    }
    rig.store.delete(&hint).await.unwrap();
    assert_eq!(rig.table().shown_version().await.unwrap(), Some(40));
    rig.check().await;
}

/// A process that slept between the manifests and the metadata: what it wrote may have been cleaned up meanwhile.
#[tokio::test(start_paused = true)]
async fn a_draft_that_took_too_long_is_not_published() {
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    let mut rig = Rig::new().await;
    rig.show(&mut rig.table()).await;
    rig.append(1).await;
    let slow = ThrottleConfig { wait_put_per_call: Duration::from_secs(900), ..ThrottleConfig::default() };
    let store = Arc::new(ThrottledStore::new(Arc::clone(&rig.store), slow));
    let mut table = rig.table_over(Arc::<ThrottledStore<Arc<dyn ObjectStore>>>::clone(&store));
    let error = table.catch_up(&rig.ledger, &rig.state, &rig.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(rig.metadata().await.0, 1, "nothing was published");
    store.config_mut(|config| config.wait_put_per_call = Duration::from_secs(60));
    assert_eq!(rig.show(&mut table).await, 1);
    rig.check().await;
}
