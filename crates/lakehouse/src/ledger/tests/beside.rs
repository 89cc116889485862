//! Dead letters that become rows, files that are read in, ranges that are ingested anew.

use siltstone_protocol::{Change, ErrorCode, ErrorKind, Format, OffsetRange, SourceFileRange};

use super::{
    super::{Committed, Import, LedgerState, RANGES_PER_ENTRY_MAX, SourcePartition},
    append, file, lost, range, table,
};

fn replay(name: &str, replayed: Vec<OffsetRange>) -> Change {
    let rows: i64 = replayed.iter().map(|range| range.end - range.start).sum();
    let files = vec![file(name, rows as u64)];
    Change::Append { files, ranges: vec![], rejected: vec![], replayed, imported: vec![], base: Some(0) }
}

fn import(name: &str, imported: Vec<SourceFileRange>) -> Change {
    Change::Append {
        files: vec![file(name, 1)],
        ranges: vec![],
        rejected: vec![],
        replayed: vec![],
        imported,
        base: None,
    }
}

fn of(source: &str, start: u64, end: u64, complete: bool) -> SourceFileRange {
    SourceFileRange { source: source.to_owned(), start, end, complete }
}

fn overwrite(removed: &[&str], added: &str, ranges: Vec<OffsetRange>, base: u64) -> Change {
    let removed = removed.iter().map(|name| format!("data/{name}.parquet")).collect();
    let added = vec![file(added, 7)];
    Change::Overwrite { removed, added, ranges, replayed: vec![], base, rejected: vec![] }
}

/// What was rejected before the entry of its offsets landed, and is a row of that entry, is never replayed.
#[tokio::test]
async fn a_live_range_may_say_what_it_no_longer_rejects() {
    let (ledger, mut state) = table().await;
    let live = |replayed: Vec<OffsetRange>| match append("a", vec![range(0, 0, 100)]) {
        Change::Append { files, ranges, rejected, imported, base, .. } => {
            Change::Append { files, ranges, rejected, replayed, imported, base }
        }
        other => other,
    };
    for wrong in [range(0, 99, 101), range(1, 0, 1), range(0, 5, 5)] {
        let error = ledger.commit(&mut state, live(vec![wrong]), "w", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let change = live(vec![range(0, 3, 4), range(0, 7, 9)]);
    assert_eq!(ledger.commit(&mut state, change.clone(), "1", 2).await.unwrap(), Committed::At(1));
    assert_eq!(state.replayed[&SourcePartition::of(&range(0, 0, 0))].as_slice(), [(3, 4), (7, 9)]);
    assert_eq!(ledger.commit(&mut state, change, "2", 2).await.unwrap(), Committed::AlreadyCovered);
    let again = replay("r", vec![range(0, 7, 8)]);
    assert_eq!(ledger.commit(&mut state, again, "3", 2).await.unwrap(), Committed::AlreadyCovered);
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 100)]), "1", 2).await.unwrap();
    let before = state.clone();
    let change = replay("r", vec![range(0, 10, 11), range(0, 20, 25)]);
    assert_eq!(ledger.commit(&mut state, change, "2", 2).await.unwrap(), Committed::At(2));
    assert_eq!(state.coverage, before.coverage, "what was consumed stays what was consumed");
    let held = &state.replayed[&SourcePartition::of(&range(0, 0, 0))];
    assert_eq!(held.as_slice(), [(10, 11), (20, 25)]);
    // Again, by one that slept: nothing is to be done. In part: it must look again.
    let mut late = before.clone();
    let again = replay("s", vec![range(0, 20, 25), range(0, 10, 11)]);
    assert_eq!(ledger.commit(&mut late, again, "3", 2).await.unwrap(), Committed::AlreadyCovered);
    let part = replay("t", vec![range(0, 24, 26)]);
    assert_eq!(ledger.commit(&mut late, part, "4", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
    for wrong in [vec![range(0, 99, 101)], vec![range(1, 0, 1)], vec![range(0, 30, 40), range(0, 39, 41)]] {
        let error = ledger.commit(&mut state, replay("w", wrong), "5", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
    ledger.checkpoint(&state).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().unwrap(), state, "from a checkpoint");
}

#[tokio::test]
async fn a_source_file_is_read_in_once() {
    let (ledger, mut state) = table().await;
    let first = import("a", vec![of("x", 0, 10, false), of("y", 0, 3, true)]);
    ledger.commit(&mut state, first.clone(), "1", 2).await.unwrap();
    assert_eq!(state.imports["x"], Import { records: 10, complete: false });
    let mut late = state.clone();
    let next = import("b", vec![of("x", 10, 15, false), of("x", 15, 15, true), of("z", 0, 0, true)]);
    ledger.commit(&mut state, next.clone(), "2", 2).await.unwrap();
    assert_eq!(state.imports["x"], Import { records: 15, complete: true });
    assert_eq!(state.imports["z"], Import { records: 0, complete: true });
    assert_eq!(ledger.commit(&mut late, next, "3", 2).await.unwrap(), Committed::AlreadyCovered);
    for stale in [
        vec![of("x", 10, 20, false)],
        vec![of("y", 3, 4, false)],
        vec![of("v", 5, 9, false)],
        vec![of("y", 0, 3, true), of("w", 0, 2, false)],
    ] {
        let error = ledger.commit(&mut late, import("c", stale), "4", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let mixed = Change::Append {
        files: vec![],
        ranges: vec![range(0, 0, 1)],
        rejected: vec![],
        replayed: vec![],
        imported: vec![of("q", 0, 1, true)],
        base: None,
    };
    assert_eq!(ledger.commit(&mut late, mixed, "5", 2).await.unwrap_err().kind(), ErrorKind::Invalid);
    ledger.checkpoint(&state).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn a_range_is_ingested_anew_in_one_entry() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 10, 50), range(1, 0, 5)]), "1", 2).await.unwrap();
    ledger.commit(&mut state, append("b", vec![range(0, 50, 90)]), "2", 2).await.unwrap();
    ledger.commit(&mut state, replay("r", vec![range(0, 30, 40)]), "3", 2).await.unwrap();
    let change = overwrite(&["a", "r"], "c", vec![range(0, 0, 35)], 3);
    let mut late = state.clone();
    ledger.commit(&mut state, change, "4", 2).await.unwrap();
    let key = SourcePartition::of(&range(0, 0, 0));
    assert_eq!(state.coverage[&key].intervals(), [(0, 90)], "the hole below is filled, the position stays");
    assert_eq!(state.replayed[&key].as_slice(), [(35, 40)]);
    assert!(
        !state.live_files.contains_key("data/a.parquet") && state.live_files.contains_key("data/c.parquet")
    );
    // Rows change in place; what is gone cannot change.
    ledger.commit(&mut state, overwrite(&["c"], "d", vec![], 4), "5", 2).await.unwrap();
    let gone = overwrite(&["a"], "e", vec![], 3);
    assert_eq!(ledger.commit(&mut late, gone, "6", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
    for wrong in [
        overwrite(&["b"], "f", vec![range(0, 80, 91)], 5),
        overwrite(&["b"], "f", vec![range(0, 0, 5)], 6),
        overwrite(&[], "f", vec![], 5),
    ] {
        assert_eq!(ledger.commit(&mut late, wrong, "7", 2).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
    ledger.checkpoint(&state).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}

/// Rows that came after the look would stay beside those that are laid down now.
#[tokio::test]
async fn what_a_look_did_not_see_is_not_overwritten_or_replayed() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 0), range(1, 0, 9)]), "0", 2).await.unwrap();
    let skipped = OffsetRange { lost: true, ..range(0, 0, 20) };
    ledger.commit(&mut state, Change::append(vec![], vec![skipped], vec![]), "1", 2).await.unwrap();
    ledger.commit(&mut state, append("b", vec![range(0, 20, 90)]), "2", 2).await.unwrap();
    let refused = async |state: &mut LedgerState, change: Change, id: &str| {
        ledger.commit(state, change, id, 2).await.unwrap_err().kind()
    };
    let hole = replay("h", vec![range(0, 5, 6)]);
    assert_eq!(refused(&mut state, hole, "h").await, ErrorKind::Invalid, "nobody consumed it");
    // A backfill, then a replay, land after the look at version 3 and before the overwrite.
    ledger.commit(&mut state, append("c", vec![range(0, 0, 10)]), "3", 2).await.unwrap();
    let change = overwrite(&["b"], "d", vec![range(0, 0, 30)], 3);
    assert_eq!(refused(&mut state, change, "4").await, ErrorKind::Conflict);
    ledger.commit(&mut state, replay("r", vec![range(0, 40, 41)]), "5", 2).await.unwrap();
    let change = overwrite(&["b"], "d", vec![range(0, 20, 50)], 4);
    assert_eq!(refused(&mut state, change, "6").await, ErrorKind::Conflict);
    // Live rows come at the position: they are no matter. Nor are other partitions.
    ledger.commit(&mut state, append("l", vec![range(0, 90, 95)]), "7", 2).await.unwrap();
    ledger.commit(&mut state, replay("q", vec![range(1, 3, 4)]), "8", 2).await.unwrap();
    let version = 5;
    assert_eq!(state.revisions[&SourcePartition::of(&range(0, 0, 0))].filled, version);
    let change = overwrite(&["b", "r"], "d", vec![range(0, 20, 50)], version);
    ledger.commit(&mut state, change.clone(), "9", 2).await.unwrap();
    // Another one that looked at the same time, and a replay of letters that were looked for before.
    let again = overwrite(&[], "e", vec![range(0, 20, 50)], version);
    assert_eq!(refused(&mut state, again, "10").await, ErrorKind::Conflict);
    assert_eq!(refused(&mut state, replay("s", vec![range(0, 40, 41)]), "11").await, ErrorKind::Conflict);
}

/// Its files must be live, and its look newer than the rows of its partition; compaction lays no such rows down.
#[tokio::test]
async fn an_overwrite_names_what_came_between() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 10)]), "1", 2).await.unwrap();
    ledger.commit(&mut state, append("b", vec![range(0, 10, 20), range(1, 0, 10)]), "2", 2).await.unwrap();
    let mut looked = state.clone();
    let removed = ["a", "b"].map(|name| format!("data/{name}.parquet")).to_vec();
    let compacted = Change::Replace { removed, added: vec![file("c", 30)], effort: Default::default() };
    ledger.commit(&mut state, compacted, "3", 2).await.unwrap();
    let gone = overwrite(&["a"], "d", vec![range(0, 0, 10)], 2);
    let error = ledger.commit(&mut looked, gone, "4", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("file data/a.parquet is not live any more"), "{error}");
    assert_eq!(looked, state);
    let change = overwrite(&["c"], "d", vec![range(0, 0, 10)], 2);
    assert_eq!(ledger.commit(&mut state, change, "5", 2).await.unwrap(), Committed::At(4));
    assert_eq!((state.total_rows, state.live_files.len()), (7, 1));
    // Other offsets of the partition: the file that holds them now is not the one that was looked at.
    let change = overwrite(&["d"], "e", vec![range(0, 10, 20)], 2);
    let error = ledger.commit(&mut state, change, "6", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let said = "rows of c/t/0 came, or were claimed, with version 4, after the look at version 2";
    assert!(error.to_string().contains(said), "{error}");
    // Another partition; with nothing to take away; with nothing to lay down.
    ledger.commit(&mut state, overwrite(&["d"], "e", vec![range(1, 0, 10)], 2), "7", 2).await.unwrap();
    ledger.commit(&mut state, overwrite(&[], "f", vec![range(1, 3, 4)], 5), "8", 2).await.unwrap();
    assert_eq!(state.total_rows, 14);
    let removed = vec!["data/f.parquet".to_owned()];
    let ranges = vec![range(1, 3, 4)];
    let (added, replayed, rejected) = (vec![], vec![], vec![]);
    let change = Change::Overwrite { removed, added, ranges, replayed, base: 6, rejected };
    ledger.commit(&mut state, change, "9", 2).await.unwrap();
    assert_eq!((state.total_rows, state.live_files.len()), (7, 1));
    // A look is as old as it is, whoever asks.
    ledger.checkpoint(&state).await.unwrap();
    let mut fresh = ledger.load().await.unwrap().unwrap();
    let stale = overwrite(&["e"], "g", vec![range(1, 0, 1)], 6);
    assert_eq!(ledger.commit(&mut fresh, stale, "10", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_overwrite_that_makes_no_sense_is_invalid() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 10)]), "1", 2).await.unwrap();
    let before = state.clone();
    let many: Vec<OffsetRange> = (0..=RANGES_PER_ENTRY_MAX).map(|_| range(0, 0, 1)).collect();
    for wrong in [
        overwrite(&["a"], "b", vec![range(0, 0, 5), range(0, 4, 6)], 1),
        overwrite(&["a"], "b", vec![range(0, 3, 3)], 1),
        overwrite(&["a"], "b", vec![lost(0, 0, 5)], 1),
        overwrite(&["a"], "b", vec![range(7, 0, 1)], 1),
        overwrite(&["a", "a"], "b", vec![range(0, 0, 5)], 1),
        overwrite(&["a"], "a", vec![range(0, 0, 5)], 1),
        overwrite(&["a"], "../b", vec![range(0, 0, 5)], 1),
        overwrite(&["a"], "b", many.clone(), 1),
    ] {
        let error = ledger.commit(&mut state, wrong, "w", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let error = ledger.commit(&mut state, overwrite(&["a"], "b", many, 1), "w", 2).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ChangeTooLarge);
    assert_eq!(state, before);
    assert_eq!(ledger.load().await.unwrap().unwrap(), before);
}

/// Its dead letters that are rows now are not replayed once more; those of records that it rejects again may be.
#[tokio::test]
async fn an_overwrite_may_say_what_it_no_longer_rejects() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 50), range(1, 0, 9)]), "1", 2).await.unwrap();
    ledger.commit(&mut state, replay("r", vec![range(0, 8, 12)]), "2", 2).await.unwrap();
    let settles = |replayed: Vec<OffsetRange>| match overwrite(&["a"], "b", vec![range(0, 0, 40)], 2) {
        Change::Overwrite { removed, added, ranges, base, rejected, .. } => {
            Change::Overwrite { removed, added, ranges, replayed, base, rejected }
        }
        other => other,
    };
    for wrong in [range(0, 39, 41), range(1, 0, 1), range(0, 5, 5), lost(0, 5, 6)] {
        let error = ledger.commit(&mut state, settles(vec![wrong]), "w", 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let change = settles(vec![range(0, 3, 4), range(0, 10, 20)]);
    assert_eq!(state.takes(&change).ok(), Some(true), "nothing is written by asking");
    assert_eq!(ledger.commit(&mut state, change, "3", 2).await.unwrap(), Committed::At(3));
    let key = SourcePartition::of(&range(0, 0, 0));
    assert_eq!(state.replayed[&key].as_slice(), [(3, 4), (10, 20)], "8 and 9 were rejected again");
    let again = replay("s", vec![range(0, 10, 11)]);
    assert_eq!(state.takes(&again).ok(), Some(false), "it is so already");
    // Who looked after the overwrite may replay what it rejected again.
    let open = match replay("s", vec![range(0, 8, 9)]) {
        Change::Append { files, ranges, rejected, replayed, imported, .. } => {
            Change::Append { files, ranges, rejected, replayed, imported, base: Some(3) }
        }
        other => other,
    };
    assert_eq!(ledger.commit(&mut state, open, "4", 2).await.unwrap(), Committed::At(4));
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
    ledger.checkpoint(&state).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().unwrap(), state, "from a checkpoint");
}

/// What a reset rejects and may be a row is settled until its own entry takes the rows away.
#[tokio::test]
async fn what_a_reset_claims_is_settled_until_it_lands() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 50)]), "1", 2).await.unwrap();
    let (live, coverage) = (state.live_files.clone(), state.coverage.clone());
    let claim = |base: u64| Change::Append {
        files: vec![],
        ranges: vec![],
        rejected: vec![],
        replayed: vec![range(0, 5, 6), range(0, 8, 9)],
        imported: vec![],
        base: Some(base),
    };
    assert_eq!(ledger.commit(&mut state, claim(1), "2", 2).await.unwrap(), Committed::At(2));
    assert_eq!((&state.live_files, &state.coverage), (&live, &coverage), "it brings nothing");
    let key = SourcePartition::of(&range(0, 0, 0));
    assert_eq!(state.replayed[&key].as_slice(), [(5, 6), (8, 9)]);
    // Of another reset, or a replay: it is so already. Of more than that: look again.
    assert_eq!(ledger.commit(&mut state, claim(1), "3", 2).await.unwrap(), Committed::AlreadyCovered);
    assert_eq!(state.takes(&replay("r", vec![range(0, 5, 6)])).ok(), Some(false));
    let more = ledger.commit(&mut state, replay("r", vec![range(0, 4, 9)]), "4", 2).await;
    assert_eq!(more.unwrap_err().kind(), ErrorKind::Conflict);
    // Who looked before it may not know that letters come.
    let unseen = overwrite(&["a"], "b", vec![range(0, 0, 40)], 1);
    assert_eq!(ledger.commit(&mut state, unseen, "5", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
    let lands = overwrite(&["a"], "b", vec![range(0, 0, 40)], 2);
    assert_eq!(ledger.commit(&mut state, lands, "6", 2).await.unwrap(), Committed::At(3));
    assert!(state.replayed[&key].is_empty(), "they are open");
    // A claim by an older look comes too late: what it is of may be no row any more.
    assert_eq!(ledger.commit(&mut state, claim(2), "7", 2).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(state.takes(&claim(3)).ok(), Some(true));
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}

/// Rows of another program may be of the offsets that are ingested anew: who did not see them looks again.
#[tokio::test]
async fn rows_of_another_program_are_not_overwritten_unseen() {
    let (ledger, mut state) = table().await;
    ledger.commit(&mut state, append("a", vec![range(0, 0, 50)]), "1", 2).await.unwrap();
    let absorb = Change::Absorb {
        format: Format::Delta,
        base: 1,
        seen: 5,
        removed: vec![],
        added: vec![file("foreign", 3)],
        absorbed: vec![],
        same_rows: false,
    };
    ledger.commit(&mut state, absorb, "2", 2).await.unwrap();
    let unseen = overwrite(&["a"], "b", vec![range(0, 10, 20)], 1);
    let error = ledger.commit(&mut state, unseen, "3", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another program came with version 2"), "{error}");
    // Rows that change in place are in the files that are named.
    ledger.commit(&mut state, overwrite(&["a"], "b", vec![], 1), "4", 2).await.unwrap();
    ledger.commit(&mut state, overwrite(&["b"], "c", vec![range(0, 10, 20)], 2), "5", 2).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().unwrap(), state);
}
