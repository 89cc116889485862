//! Maintenance that is cut off anywhere, or done twice at once, leaves a whole table; done again, it is done.

use std::{sync::Arc, time::Duration};

use object_store::ObjectStore;
use rstest::rstest;
use siltstone_protocol::ErrorKind;

use super::world::{DAY, HOUR, World};
use crate::{
    Janitor,
    faults::{Fault, FaultStore, Scope},
    maintenance::{Sweep, VacuumOptions},
};

async fn aged() -> World {
    let mut world = World::new().await;
    for round in 0..5 {
        world.append(2).await;
        world.replace(3).await;
        world.show_both().await;
        world.ledger.checkpoint(&world.state).await.unwrap();
        if round % 2 == 0 {
            world.delta().checkpoint().await.unwrap();
        }
        world.write().await;
        world.pass(3 * DAY);
    }
    world.pass(8 * DAY);
    world.append(1).await;
    world.show_both().await;
    world.pass(HOUR);
    world
}

async fn round(janitor: &mut Janitor, now_ms: i64) -> Result<(), crate::LakeError> {
    janitor.expire(now_ms, false).await?;
    janitor.vacuum(now_ms, VacuumOptions::default(), &Sweep::default()).await.map(drop)
}

#[rstest]
#[case(Fault::Refuse)]
#[case(Fault::LoseReply)]
#[case(Fault::Hang)]
#[case(Fault::DoAndHang)]
#[tokio::test(flavor = "multi_thread")]
async fn a_round_cut_off_at_any_operation_is_finished_by_the_next(#[case] fault: Fault) {
    let (mut skip, mut reached) = (0, true);
    while reached {
        let mut world = aged().await;
        let faulty = Arc::new(FaultStore::new(Arc::clone(&world.store)));
        faulty.after(skip, fault, Scope::Everything);
        let mut janitor = world.janitor_over(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
        let cut = tokio::time::timeout(Duration::from_millis(300), round(&mut janitor, world.now_ms));
        if let Ok(Err(error)) = cut.await {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Data), "{error}");
        }
        reached = faulty.seen() > skip;
        faulty.heal();
        world.date();
        world.check().await;
        round(&mut world.janitor(), world.now_ms).await.unwrap();
        world.date();
        world.check().await;
        let again = world.vacuum().await;
        assert_eq!(again.deleted_all().files, 0, "{again:?}");
        // Early operations one by one, then some of the many reads and deletes.
        skip += 1 + skip / 8;
    }
    assert!(skip > 40, "{skip} operations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rounds_at_the_same_time_do_no_harm() {
    let mut world = aged().await;
    let now_ms = world.now_ms;
    let rounds = (0..4).map(|_| {
        let mut janitor = world.janitor();
        tokio::spawn(async move { round(&mut janitor, now_ms).await })
    });
    for ended in futures::future::join_all(rounds).await {
        if let Err(error) = ended.unwrap() {
            assert!(error.kind().is_retryable(), "{error}");
        }
    }
    world.date();
    world.check().await;
    round(&mut world.janitor(), now_ms).await.unwrap();
    world.date();
    world.check().await;
    assert_eq!(world.vacuum().await.deleted_all().files, 0);
}
