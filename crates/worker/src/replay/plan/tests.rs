use std::sync::Arc;

use object_store::{memory::InMemory, path::Path};
use siltstone_lakehouse::{TableStore, ledger::Revision};
use siltstone_protocol::Change;

use super::*;
use crate::table::Table;

const SPEC: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092'], schema_registry: {url: 'http://localhost'}}]
destination_bucket_url: file:///tmp
tables: [{name: a.b, source_cluster_name: lab, source_topic: t, source_format: avro}]
";

pub(in crate::replay) fn spec() -> Spec {
    siltstone_spec::parse(SPEC, "spec.yaml", &|_| None).unwrap()
}

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange { cluster: "lab".into(), topic: "t".into(), partition: 0, start, end, lost: false }
}

/// A state that covers offsets 0 to 100 of partition 0 but for a hole from 50 to 60, and has these as replayed.
pub(in crate::replay) async fn state(replayed: &[(i64, i64)]) -> LedgerState {
    let url = url::Url::parse("memory:///lake").unwrap();
    let lake = TableStore::new(Arc::new(InMemory::new()), Path::from("lake"), url);
    let table = Table::open_or_create_dead_letters(&lake, &spec().tables[0], "create", 1).await.unwrap();
    let mut state = table.state.lock().await.clone();
    let lost = OffsetRange { lost: true, ..range(50, 60) };
    let ranges = vec![range(0, 50), lost, range(60, 100)];
    table.ledger.commit(&mut state, Change::append(Vec::new(), ranges, Vec::new()), "a", 2).await.unwrap();
    for (index, (start, end)) in replayed.iter().enumerate() {
        let change = Change::Append {
            files: Vec::new(),
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: vec![range(*start, *end)],
            imported: Vec::new(),
            base: Some(state.version),
        };
        table.ledger.commit(&mut state, change, &format!("r{index}"), 3).await.unwrap();
    }
    state
}

fn sources() -> Sources {
    let mut sources = Sources::new(&spec());
    assert_eq!((sources.number("lab", "t", 0), sources.number("lab", "t", 1)), (0, 1));
    assert_eq!((sources.number("lab", "t", 0), sources.known("lab", "t", 1)), (0, Some(1)));
    assert_eq!(sources.number("gone", "t", 0), 2);
    assert!(sources.is_readable(1) && !sources.is_readable(2));
    assert_eq!((sources.number("lab", "u", 0), sources.number("lab", "t", 2)), (3, 4));
    assert_eq!([0, 1, 2, 3, 4].map(|number| sources.lane(number)), [0, 0, 2, 3, 0]);
    sources
}

fn letter(offset: i64, fate: Fate) -> Letter {
    Letter { place: Place { source: 0, offset }, fate }
}

fn spans(ranges: &[OffsetRange]) -> Vec<(i64, i64)> {
    ranges.iter().map(|range| (range.start, range.end)).collect()
}

#[tokio::test]
async fn ranges_hold_what_settled_and_no_other_open_letter() {
    use Fate::{Open, Rejected, Settled};
    let (sources, state) = (sources(), state(&[(20, 21)]).await);
    let letters = [
        letter(2, Settled),
        letter(5, Settled),
        letter(7, Rejected(RejectReason::BadFraming)),
        letter(9, Settled),
        letter(12, Settled),
        letter(13, Open),
        letter(15, Settled),
        // An offset between these was replayed before.
        letter(30, Settled),
        // And some between these were never committed.
        letter(70, Settled),
        letter(71, Settled),
    ];
    let ranges = ranges(&letters, &sources, &state.coverage, &state);
    assert_eq!(spans(&ranges), [(2, 6), (9, 13), (15, 16), (30, 31), (70, 72)]);
    assert!(ranges.iter().all(|range| range.topic == "t" && !range.lost));
}

/// Such a hole may hold letters that the look did not see.
#[tokio::test]
async fn ranges_pass_over_no_hole_that_was_filled_since_the_look() {
    let (sources, state) = (sources(), state(&[]).await);
    let letters = [2, 5, 45, 48].map(|offset| letter(offset, Fate::Settled));
    let mut looked_at = state.coverage.clone();
    let holed = Coverage::from_intervals(vec![(0, 10), (20, 100)]).unwrap();
    looked_at.insert(sources.at(0).unwrap().clone(), holed);
    assert_eq!(spans(&ranges(&letters, &sources, &looked_at, &state)), [(2, 6), (45, 49)]);
    assert_eq!(spans(&ranges(&letters, &sources, &state.coverage, &state)), [(2, 49)]);
    // Of a source that it did not cover, none are joined.
    assert_eq!(spans(&ranges(&letters, &sources, &Covered::new(), &state)).len(), 4);
}

#[tokio::test]
async fn ranges_are_admitted() {
    let (sources, state) = (sources(), state(&[(20, 21)]).await);
    let letters: Vec<_> =
        (0..100).filter(|n| n % 3 == 0 && *n != 21).map(|n| letter(n, Fate::Settled)).collect();
    let letters = still_open(&letters, &sources, &state);
    let settled: Vec<_> = letters.iter().filter(|letter| letter.fate == Fate::Settled).copied().collect();
    let ranges = ranges(&settled, &sources, &state.coverage, &state);
    // Each holds its letters; none holds an offset that was replayed or not committed.
    for letter in &settled {
        let held =
            |range: &&OffsetRange| range.start <= letter.place.offset && letter.place.offset < range.end;
        assert_eq!(ranges.iter().filter(held).count(), 1, "{letter:?}");
    }
    let allowed = |offset: i64| offset != 20 && !(50..60).contains(&offset);
    assert!(ranges.iter().all(|range| (range.start..range.end).all(allowed)), "{ranges:?}");
    assert_eq!(spans(&ranges), [(0, 19), (24, 49), (60, 100)]);
}

#[tokio::test]
async fn what_is_replayed_or_not_committed_is_not_tried() {
    let (sources, state) = (sources(), state(&[(10, 20)]).await);
    let letters: Vec<_> = [5, 15, 55, 99, 100].map(|offset| letter(offset, Fate::Wanted)).into();
    let fates: Vec<_> =
        still_open(&letters, &sources, &state).iter().map(|one| (one.place.offset, one.fate)).collect();
    assert_eq!(fates, [(5, Fate::Wanted), (55, Fate::Open), (99, Fate::Wanted), (100, Fate::Open)]);
    assert!(
        is_replayed(&state, sources.at(0).unwrap(), 19) && !is_replayed(&state, sources.at(0).unwrap(), 20)
    );
}

/// Those of the partition that was ingested anew, after a look that is older.
#[tokio::test]
async fn letters_of_a_look_before_an_overwrite_are_stale() {
    let (sources, mut state) = (sources(), state(&[]).await);
    let letters = [letter(5, Fate::Wanted), letter(9, Fate::Open)];
    assert!(!is_stale(&letters, &sources, &state, 0));
    let revision = Revision { filled: 4, overwritten: 3 };
    state.revisions.insert(sources.at(0).unwrap().clone(), revision);
    assert!(is_stale(&letters, &sources, &state, 2) && !is_stale(&letters, &sources, &state, 3));
    let elsewhere = [Letter { place: Place { source: 1, offset: 5 }, fate: Fate::Wanted }];
    assert!(!is_stale(&letters[1..], &sources, &state, 0) && !is_stale(&elsewhere, &sources, &state, 0));
}

#[test]
fn the_nearest_letters_are_kept_once_each() {
    let mut nearest = Nearest::new(3);
    for offset in [9, 4, 7, 1, 8] {
        nearest.add(letter(offset, Fate::Open));
    }
    nearest.add(letter(1, Fate::Wanted));
    let (letters, more) = nearest.finish();
    assert_eq!(letters, [letter(1, Fate::Wanted), letter(4, Fate::Open)]);
    // A place twice takes two rooms: the next look begins where this one ended.
    assert_eq!(more, Some(Place { source: 0, offset: 5 }));
    let mut few = Nearest::new(3);
    few.add(letter(2, Fate::Open));
    assert_eq!(few.finish().1, None);
}
