#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory, path::Path};
use proptest::prelude::*;
use rstest::rstest;
use siltstone_protocol::{
    Change, Entry, ErrorCode, ErrorKind, Field, FileEntry, Format, OffsetRange, PartitionSpec, PrimitiveType,
    Schema, SortOrder, entry::ENTRY_FORMAT,
};

use super::*;
use crate::{
    error::LakeError,
    faults::{Fault, FaultStore, Scope},
};

mod beside;

/// A caller that hangs is dropped after this long: it is killed, from the store's point of view.
const PATIENCE: Duration = Duration::from_millis(300);

pub(crate) fn schema(id: i32) -> Schema {
    Schema::new(id, vec![Field::required(1, "id", PrimitiveType::Long.into())])
}

fn create() -> Change {
    Change::Create {
        name: "shop.orders".into(),
        schema: schema(0),
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder::default(),
        formats: vec![Format::Iceberg, Format::Delta],
    }
}

fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange { cluster: "c".into(), topic: "t".into(), partition, start, end, lost: false }
}

fn lost(partition: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange { lost: true, ..range(partition, start, end) }
}

fn file(name: &str, rows: u64) -> FileEntry {
    FileEntry {
        path: format!("data/{name}.parquet"),
        bytes: rows * 10,
        rows,
        schema_id: 0,
        spec_id: 0,
        sort_order_id: 0,
        partition_token: None,
    }
}

fn append(name: &str, ranges: Vec<OffsetRange>) -> Change {
    let rows = ranges.iter().filter(|range| !range.lost).map(|range| range.end - range.start).sum::<i64>();
    let files = if rows > 0 { vec![file(name, rows as u64)] } else { vec![] };
    Change::append(files, ranges, vec![])
}

fn ledger_on(store: Arc<dyn ObjectStore>) -> Ledger {
    Ledger::with_checkpoint_every(store, Path::from("lake/shop/orders"), 7)
}

async fn table() -> (Ledger, LedgerState) {
    let ledger = ledger_on(Arc::new(InMemory::new()));
    let state = ledger.create(create(), "create-1", 1).await.unwrap();
    (ledger, state)
}

fn next(state: &LedgerState, partition: i32) -> Option<i64> {
    state.next_offset(&SourcePartition::of(&range(partition, 0, 0)))
}

#[tokio::test]
async fn creation_is_idempotent_and_guarded() {
    let (ledger, state) = table().await;
    assert_eq!(ledger.create(create(), "create-1", 9).await.unwrap(), state);
    assert_eq!(ledger.create(create(), "create-2", 9).await.unwrap(), state, "same spec, another worker");
    let mut other = create();
    if let Change::Create { name, .. } = &mut other {
        *name = "shop.other".into();
    }
    assert_eq!(ledger.create(other, "create-3", 9).await.unwrap_err().kind(), ErrorKind::Conflict);
    let empty = ledger_on(Arc::new(InMemory::new()));
    assert!(empty.load().await.unwrap().is_none());
}

#[tokio::test]
async fn ranges_advance_and_a_zombie_is_refused() {
    let (ledger, mut state) = table().await;
    let mut zombie = state.clone();
    let at = ledger.commit(&mut state, append("a", vec![range(0, 100, 150)]), "1", 2).await.unwrap();
    assert_eq!((at, next(&state, 0)), (Committed::At(1), Some(150)));
    ledger.commit(&mut state, append("b", vec![range(0, 150, 200)]), "2", 2).await.unwrap();
    // Partly committed by others, and past the position: both are stale views.
    for (id, stale) in [("3", range(0, 90, 110)), ("4", range(0, 180, 220)), ("5", range(0, 210, 220))] {
        let error = ledger.commit(&mut zombie, append(id, vec![stale]), id, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        assert!(error.to_string().contains("c/t/0"), "{error}");
    }
    // Wholly committed by others: done.
    let done = ledger.commit(&mut zombie, append("z", vec![range(0, 100, 150)]), "6", 2).await.unwrap();
    assert_eq!(done, Committed::AlreadyCovered);
    // One range covered, one not: the whole commit is stale.
    let mixed = append("m", vec![range(0, 100, 150), range(1, 0, 5)]);
    assert_eq!(ledger.commit(&mut zombie, mixed, "7", 2).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(state.live_files.len(), 2);
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn empty_lost_and_backfill_ranges() {
    let (ledger, mut state) = table().await;
    let commit = async |state: &mut LedgerState, id: &str, ranges| {
        ledger.commit(state, append(id, ranges), id, 3).await
    };
    assert_eq!(commit(&mut state, "first", vec![range(0, 100, 100)]).await.unwrap(), Committed::At(1));
    assert_eq!(next(&state, 0), Some(100));
    assert_eq!(
        commit(&mut state, "again", vec![range(0, 100, 100)]).await.unwrap(),
        Committed::AlreadyCovered
    );
    assert_eq!(
        commit(&mut state, "other", vec![range(0, 105, 105)]).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
    commit(&mut state, "lost", vec![lost(0, 100, 500), range(0, 500, 510)]).await.unwrap();
    assert_eq!(next(&state, 0), Some(510));
    assert_eq!(
        commit(&mut state, "lost2", vec![lost(0, 100, 500)]).await.unwrap(),
        Committed::AlreadyCovered
    );
    commit(&mut state, "backfill", vec![range(0, 0, 50)]).await.unwrap();
    let key = SourcePartition::of(&range(0, 0, 0));
    assert_eq!(state.coverage[&key].holes(), vec![(50, 500)]);
    commit(&mut state, "hole", vec![range(0, 50, 500)]).await.unwrap();
    assert_eq!(state.coverage[&key].intervals(), &[(0, 510)]);
    assert_eq!(
        commit(&mut state, "over", vec![range(0, 500, 511)]).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
}

#[tokio::test]
async fn positions_are_reset_from_where_they_are() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 100)]), "1", 2).await.unwrap();
    let reset = |start, end| Change::ResetPositions { ranges: vec![range(0, start, end)] };
    assert_eq!(ledger.commit(&mut state, reset(90, 0), "2", 2).await.unwrap_err().kind(), ErrorKind::Fenced);
    ledger.commit(&mut state, reset(100, 300), "3", 2).await.unwrap();
    assert_eq!(next(&state, 0), Some(300));
    ledger.commit(&mut state, reset(300, 40), "4", 2).await.unwrap();
    let key = SourcePartition::of(&range(0, 0, 0));
    assert_eq!(state.coverage[&key].intervals(), &[(0, 40)]);
    let stale = append("s", vec![range(0, 300, 310)]);
    assert_eq!(ledger.commit(&mut state, stale, "5", 2).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_replace_keeps_rows_and_needs_its_inputs() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 10)]), "1", 2).await.unwrap();
    ledger.commit(&mut state, append("b", vec![range(0, 10, 15)]), "2", 2).await.unwrap();
    let removed = vec!["data/a.parquet".to_owned(), "data/b.parquet".to_owned()];
    let fewer =
        Change::Replace { removed: removed.clone(), added: vec![file("c", 14)], effort: Default::default() };
    assert_eq!(ledger.commit(&mut state, fewer, "3", 2).await.unwrap_err().kind(), ErrorKind::Invalid);
    let replace = Change::Replace { removed, added: vec![file("c", 15)], effort: Default::default() };
    ledger.commit(&mut state, replace.clone(), "4", 2).await.unwrap();
    assert_eq!((state.total_rows, state.live_files.len()), (15, 1));
    let again = ledger.commit(&mut state, replace.clone(), "5", 2).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert!(again.to_string().contains("data/a.parquet"), "{again}");
    // The same commit, asked again.
    assert_eq!(ledger.commit(&mut state, replace, "4", 2).await.unwrap(), Committed::At(3));
}

#[tokio::test]
async fn an_entry_names_only_so_many_files() {
    let (ledger, mut state) = table().await;
    let many =
        |of: &'static str| (0..=FILES_PER_ENTRY_MAX).map(move |number| file(&format!("{of}{number}"), 1));
    let removed = many("a").map(|file| file.path).collect();
    let removes = Change::Replace { removed, added: Vec::new(), effort: Default::default() };
    let adds = Change::append(many("b").collect(), vec![range(0, 0, 10)], Vec::new());
    let none = Change::Replace { removed: Vec::new(), added: Vec::new(), effort: Default::default() };
    for (change, code, says) in [
        (removes, ErrorCode::ChangeTooLarge, "removes at most 50000 files, not 50001"),
        (adds, ErrorCode::ChangeTooLarge, "adds at most 50000 files, not 50001"),
        (none, ErrorCode::LedgerChangeRefused, "names some"),
    ] {
        let error = ledger.commit(&mut state, change, "1", 2).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, code), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn schemas_are_taken_once() {
    let (ledger, mut state) = table().await;
    let mut other = state.clone();
    let set = |schema: Schema| Change::SetSchema { schema };
    assert_eq!(ledger.commit(&mut state, set(schema(1)), "1", 2).await.unwrap(), Committed::At(1));
    assert_eq!(ledger.commit(&mut other, set(schema(1)), "2", 2).await.unwrap(), Committed::AlreadyCovered);
    let taken = Schema::new(1, vec![Field::required(1, "other", PrimitiveType::Long.into())]);
    assert_eq!(ledger.commit(&mut other, set(taken), "3", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
    let twice = Schema::new(
        2,
        vec![
            Field::required(1, "a", PrimitiveType::Long.into()),
            Field::required(1, "b", PrimitiveType::Long.into()),
        ],
    );
    assert_eq!(ledger.commit(&mut other, set(twice), "4", 2).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn what_is_committed_is_not_judged_by_the_rules_of_what_may_come() {
    let (ledger, mut state) = table().await;
    let more = Field::optional(2, "more", PrimitiveType::Long.into());
    let with_more = |id| Schema::new(id, schema(id).fields.into_iter().chain([more.clone()]).collect());
    for (commit, schema) in [("1", with_more(1)), ("2", schema(2))] {
        ledger.commit(&mut state, Change::SetSchema { schema }, commit, 2).await.unwrap();
    }
    // An id that was dropped: earlier builds took it.
    let change = Change::SetSchema { schema: with_more(3) };
    assert_eq!(state.takes(&change).unwrap_err().kind(), ErrorKind::Invalid);
    let entry = Entry {
        format: ENTRY_FORMAT,
        version: 3,
        table_uuid: state.table_uuid.clone(),
        commit_id: "3".into(),
        committed_ms: 3,
        change,
    };
    state.apply(&entry, "3.json").unwrap();
    assert_eq!(state.schema, with_more(3));
}

#[tokio::test]
async fn no_schema_undoes_a_newer_one() {
    let (ledger, mut state) = table().await;
    let mut stale = state.clone();
    let set = |id| Change::SetSchema { schema: schema(id) };
    for (id, commit) in [(1, "1"), (2, "2")] {
        ledger.commit(&mut state, set(id), commit, 2).await.unwrap();
    }
    assert_eq!(ledger.commit(&mut stale, set(1), "3", 2).await.unwrap(), Committed::AlreadyCovered);
    assert_eq!((stale.schema.schema_id, stale.version), (2, 2));
    assert!(!state.takes(&set(1)).unwrap());
}

/// An answer that breaks off is asked for again, a bounded number of times.
#[tokio::test(start_paused = true)]
async fn a_read_that_broke_off_is_tried_again() {
    let (ledger, _) = table().await;
    let faulty = Arc::new(FaultStore::new(Arc::clone(&ledger.inner.store)));
    let path = ledger.entry_path(0);
    let store: Arc<dyn ObjectStore> = faulty.clone();
    faulty.after(0, Fault::Refuse, Scope::Everything);
    assert!(super::log::read(&store, &path, 1 << 20).await.unwrap().is_some());
    assert_eq!(faulty.seen(), 2);
    let asked = faulty.operations();
    faulty.always(Fault::Refuse);
    let error = super::log::read(&store, &path, 1 << 20).await.unwrap_err();
    assert_eq!((error.kind(), faulty.operations() - asked), (ErrorKind::Unavailable, 3));
    faulty.heal();
    assert!(super::log::read(&store, &ledger.entry_path(9), 1 << 20).await.unwrap().is_none());
}

#[tokio::test]
async fn a_checkpoint_is_the_state() {
    let (ledger, mut state) = table().await;
    for n in 0..30 {
        let ranges = vec![
            range(n % 3, i64::from(n / 3) * 10, i64::from(n / 3) * 10 + 10),
            range(9, n.into(), i64::from(n) + 1),
        ];
        ledger.commit(&mut state, append(&format!("f{n}"), ranges), &format!("c{n}"), 5).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let versions = super::checkpoint::list(&ledger).await.unwrap();
    assert_eq!(versions, vec![14, 21, 28], "the newest three of every seventh");
    let fresh = ledger_on(Arc::clone(&ledger.inner.store));
    assert_eq!(fresh.load().await.unwrap().unwrap(), state);
    // Entries before the checkpoints are not needed, and an unreadable newest checkpoint falls back.
    let newest = Path::from("lake/shop/orders/_siltstone/checkpoints/00000000000000000028.json");
    ledger.inner.store.put_opts(&newest, "{".into(), Default::default()).await.unwrap();
    for version in 0..14 {
        object_store::ObjectStoreExt::delete(&ledger.inner.store, &ledger.entry_path(version)).await.unwrap();
    }
    let fresh = ledger_on(Arc::clone(&ledger.inner.store));
    assert_eq!(fresh.load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn a_worker_that_slept_over_expiry_rejoins() {
    let (ledger, mut state) = table().await;
    let mut sleeper = state.clone();
    for n in 0..14 {
        let change = append(&format!("f{n}"), vec![range(0, n, n + 1)]);
        ledger.commit(&mut state, change, &format!("c{n}"), 5).await.unwrap();
    }
    ledger.checkpoint(&state).await.unwrap();
    let far = i64::MAX / 2;
    let expired = ledger.expire_entries(14, 0, far).await.unwrap();
    assert!(expired > 1, "entry 1, which the sleeper would write, is gone");
    let awake = ledger_on(Arc::clone(&ledger.inner.store));
    let error = awake.commit(&mut sleeper, append("z", vec![range(0, 13, 15)]), "z", far).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(sleeper.version, 14);
}

#[tokio::test]
async fn the_token_key_is_made_once() {
    let (ledger, _) = table().await;
    let key = ledger.token_key().await.unwrap();
    let other = ledger_on(Arc::clone(&ledger.inner.store));
    assert_eq!(other.token_key().await.unwrap(), key);
}

#[tokio::test]
async fn a_damaged_ledger_is_not_made_anew() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 1)]), "1", 2).await.unwrap();
    object_store::ObjectStoreExt::delete(&ledger.inner.store, &ledger.entry_path(0)).await.unwrap();
    let fresh = ledger_on(Arc::clone(&ledger.inner.store));
    assert_eq!(fresh.create(create(), "x", 1).await.unwrap_err().kind(), ErrorKind::Data);
}

/// Every fault at every operation of a commit: after calling again with the same id it is there once.
#[rstest]
#[case(Fault::Refuse)]
#[case(Fault::LoseReply)]
#[case(Fault::Hang)]
#[case(Fault::DoAndHang)]
#[tokio::test(flavor = "multi_thread")]
async fn never_twice_never_lost(#[case] fault: Fault) {
    for scope in [Scope::Everything, Scope::Puts] {
        for skip in 0..12 {
            let faulty = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
            let ledger = ledger_on(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
            let mut state = ledger.create(create(), "create-1", 1).await.unwrap();
            // Another worker got ahead, so that the commit also refreshes.
            let mut other = state.clone();
            ledger.commit(&mut other, append("o", vec![range(1, 0, 5)]), "other", 2).await.unwrap();
            let ledger = ledger_on(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
            let change = append("a", vec![range(0, 0, 10)]);
            faulty.after(skip, fault, scope);
            let attempt = ledger.commit(&mut state, change.clone(), "mine", 2);
            let first = tokio::time::timeout(PATIENCE, attempt).await;
            if let Ok(Err(error)) = &first {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
            faulty.heal();
            let again = ledger.commit(&mut state, change, "mine", 2).await.unwrap();
            assert_eq!(again, Committed::At(2), "{fault:?} {scope:?} {skip}");
            let loaded =
                ledger_on(Arc::clone(&faulty) as Arc<dyn ObjectStore>).load().await.unwrap().unwrap();
            assert_eq!((loaded.version, loaded.total_rows), (2, 15));
        }
    }
}

#[rstest]
#[case(Fault::Refuse)]
#[case(Fault::LoseReply)]
#[case(Fault::DoAndHang)]
#[tokio::test(flavor = "multi_thread")]
async fn creation_survives_lost_replies(#[case] fault: Fault) {
    for skip in 0..6 {
        let faulty = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
        let ledger = ledger_on(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
        faulty.after(skip, fault, Scope::Everything);
        let attempt = ledger.create(create(), "create-1", 1);
        let _ = tokio::time::timeout(PATIENCE, attempt).await;
        faulty.heal();
        let state = ledger.create(create(), "create-1", 1).await.unwrap();
        assert_eq!((state.version, ledger.load().await.unwrap()), (0, Some(state)));
    }
}

/// Writers with one view of the world each race over partitions that they share.
#[rstest]
#[case::memory(false)]
#[case::local(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_commit_every_offset_once(#[case] local: bool) {
    const END: i64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = if local {
        Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap())
    } else {
        Arc::new(InMemory::new())
    };
    ledger_on(Arc::clone(&store)).create(create(), "create-1", 1).await.unwrap();
    let writers = (0..4).map(|writer| {
        let ledger = ledger_on(Arc::clone(&store));
        tokio::spawn(async move {
            let mut state = ledger.load().await.unwrap().unwrap();
            for round in 0..1000 {
                let ranges: Vec<OffsetRange> = [writer % 2, 2 + round % 2]
                    .into_iter()
                    .map(|partition| (partition, next(&state, partition).unwrap_or(0)))
                    .filter(|(_, from)| *from < END)
                    .map(|(partition, from)| {
                        range(partition, from, (from + 1 + i64::from(round % 3)).min(END))
                    })
                    .collect();
                if ranges.is_empty()
                    && (0..4).all(|p| p % 2 != writer % 2 && p < 2 || next(&state, p) == Some(END))
                {
                    return;
                }
                let id = format!("w{writer}r{round}");
                match ledger.commit(&mut state, append(&id, ranges), &id, 5).await {
                    Ok(_) => {}
                    Err(error)
                        if error.kind() == ErrorKind::Fenced || error.kind() == ErrorKind::Conflict =>
                    {
                        ledger.refresh(&mut state).await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("did not come to an end");
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let state = ledger_on(Arc::clone(&store)).load().await.unwrap().unwrap();
    for partition in 0..4 {
        let key = SourcePartition::of(&range(partition, 0, 0));
        assert_eq!(state.coverage[&key].intervals(), &[(0, END)]);
    }
    assert_eq!(state.total_rows, 4 * END as u64, "every offset once, and its rows once");
}

#[derive(Debug, Clone)]
enum Op {
    Commit(i64, i64),
    Skip(i64, i64),
    Again(i64, i64),
    Move(i64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pair = (0i64..40, 0i64..12);
    let op = prop_oneof![
        6 => pair.clone().prop_map(|(start, length)| Op::Commit(start, start + length)),
        2 => pair.clone().prop_map(|(start, length)| Op::Again(start, start + length)),
        1 => pair.prop_map(|(start, length)| Op::Skip(start, start + length)),
        1 => (0i64..40).prop_map(Op::Move),
    ];
    prop::collection::vec(op, 1..60)
}

/// An empty interval marks a position: whatever is committed again around it, it is the position and no hole.
#[test]
fn committing_again_keeps_the_position_and_its_mark() {
    let of = |intervals: &[(i64, i64)]| Coverage::from_intervals(intervals.to_vec()).unwrap();
    let check = |before: &[(i64, i64)], start: i64, end: i64, after: &[(i64, i64)]| {
        let mut coverage = of(before);
        coverage.commit_again(start, end);
        assert_eq!(coverage, of(after), "{start}..{end} over {before:?}");
        assert_eq!(coverage.next(), of(before).next());
    };
    check(&[(0, 5), (10, 10)], 2, 4, &[(0, 5), (10, 10)]);
    check(&[(0, 5), (10, 10)], 5, 7, &[(0, 7), (10, 10)]);
    check(&[(0, 5), (10, 10)], 7, 9, &[(0, 5), (7, 9), (10, 10)]);
    check(&[(0, 5), (10, 10)], 4, 10, &[(0, 10)]);
    check(&[(10, 10)], 3, 4, &[(3, 4), (10, 10)]);
    check(&[(10, 10)], 0, 10, &[(0, 10)]);
    check(&[(2, 4), (6, 8), (9, 20)], 0, 20, &[(0, 20)]);
    check(&[(2, 4), (6, 8), (9, 20)], 3, 7, &[(2, 8), (9, 20)]);
    check(&[(2, 4), (6, 8), (9, 20)], 4, 6, &[(2, 8), (9, 20)]);
}

proptest! {
    /// Coverage against a set of offsets and a position.
    #[test]
    fn coverage_is_a_set_of_offsets(ops in ops(), live in prop::collection::vec(1i64..6, 0..10)) {
        let (mut coverage, mut set, mut position) = (Coverage::default(), BTreeSet::new(), None::<i64>);
        let live = live.into_iter().map(|length| Op::Commit(-1, length));
        for op in ops.into_iter().flat_map(|op| [Some(op), None]).flatten().chain(live) {
            match op {
                Op::Commit(start, end) => {
                    let next = position.unwrap_or(0);
                    let (start, end) = if start < 0 { (next, next + end) } else { (start, end) };
                    let fresh = (start..end).all(|offset| !set.contains(&offset));
                    let fits = position.is_none_or(|position| {
                        start == position || (start < end && end <= position && fresh)
                    });
                    prop_assert_eq!(coverage.covers(start, end), (start..end).all(|offset| set.contains(&offset)));
                    prop_assert_eq!(coverage.commit(start, end), fits);
                    if fits {
                        set.extend(start..end);
                        position = Some(position.map_or(end, |position| position.max(end)));
                    }
                }
                Op::Skip(start, end) => {
                    let fits = position.is_none_or(|position| start == position);
                    prop_assert_eq!(coverage.skip(start, end), fits);
                    if fits {
                        position = Some(end);
                    }
                }
                // What is ingested anew lies below the position: that is seen to before (`admit`).
                Op::Again(start, end) => {
                    let end = end.min(position.unwrap_or(0));
                    if start < end {
                        coverage.commit_again(start, end);
                        set.extend(start..end);
                        prop_assert!(coverage.covers(start, end));
                    }
                }
                Op::Move(to) => {
                    coverage.move_to(to);
                    set.retain(|offset| *offset < to);
                    position = Some(to);
                }
            }
            prop_assert_eq!(coverage.next(), position);
            let held: BTreeSet<i64> = coverage.intervals().iter().flat_map(|&(from, to)| from..to).collect();
            prop_assert_eq!(&held, &set);
            prop_assert_eq!(coverage.offsets(), set.len() as u64);
            let stored = Coverage::from_intervals(coverage.intervals().to_vec());
            prop_assert_eq!(stored.as_ref(), Some(&coverage));
            for (start, end) in coverage.holes() {
                prop_assert!(start < end && (start..end).all(|offset| !set.contains(&offset)));
            }
        }
    }
}

#[test]
fn errors_name_where_and_say_what_to_do() {
    let error = LakeError::Fenced {
        table: "shop.orders".into(),
        version: 7,
        cluster: "prod".into(),
        topic: "orders".into(),
        partition: 3,
        start: 10,
        end: 20,
        next: Some(15),
    };
    assert_eq!(
        error.to_string(),
        "table shop.orders: offsets 10..20 of prod/orders/3 do not fit version 7, which goes on at 15; drop the buffer \
         and start from the ledger"
    );
}
