//! Row TTL: files of old rows leave, in both formats; a row that is young, or whose age is not known, keeps its
//! file.

use std::collections::BTreeMap;

use iceberg::spec::{Datum, Literal};
use proptest::prelude::*;
use siltstone_datafile::{ColumnStats, FileDetails};
use siltstone_protocol::{Change, FileEntry, PartitionField, PartitionSpec, PrimitiveType, Transform};

use super::world::{DAY, HOUR, World, schema};
use crate::maintenance::{Cut, RowsOptions, TimeColumn, rows::end_us};

const DAY_US: i64 = DAY * 1_000;

fn at() -> TimeColumn {
    TimeColumn::find("shop", &schema(), "at").unwrap()
}

fn options<'a>(world: &'a World, column: &'a TimeColumn, age_ms: i64) -> RowsOptions<'a> {
    RowsOptions {
        column,
        before_ms: world.now_ms - age_ms,
        now_ms: world.now_ms,
        dry_run: false,
        known: &world.details,
    }
}

fn ids() -> impl FnMut() -> String + Send {
    let mut n = 0;
    move || {
        n += 1;
        format!("ttl-{n}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_old_rows_leave_both_formats() {
    let mut world = World::new().await;
    let now_us = world.now_ms * 1_000;
    let old = world.file(10, now_us - 40 * DAY_US, now_us - 31 * DAY_US, 0).await;
    let mixed = world.file(10, now_us - 40 * DAY_US, now_us - 29 * DAY_US, 0).await;
    let with_null = world.file(10, now_us - 40 * DAY_US, now_us - 31 * DAY_US, 1).await;
    world.append_files(vec![old.clone(), mixed.clone(), with_null.clone()]).await;
    world.show_both().await;
    let column = at();
    let mut janitor = world.janitor();
    let dry = RowsOptions { dry_run: true, ..options(&world, &column, 30 * DAY) };
    let dry = janitor.expire_rows(&dry, &mut ids()).await.unwrap();
    assert_eq!((dry.files, dry.rows, dry.version, dry.files_of_unknown_age), (1, 10, None, 1));
    let report = janitor.expire_rows(&options(&world, &column, 30 * DAY), &mut ids()).await.unwrap();
    assert_eq!((report.files, report.rows, report.bytes, report.version), (1, 10, 4, Some(2)));
    world.ledger.refresh(&mut world.state).await.unwrap();
    let live: Vec<&String> = world.state.live_files.keys().collect();
    assert_eq!(live, [&mixed.path, &with_null.path]);
    world.live.insert(2, live.into_iter().cloned().collect());
    world.show_both().await;
    world.check().await;
    let (_, metadata) = world.metadata().await;
    let snapshot = metadata["snapshots"].as_array().unwrap().last().unwrap();
    assert_eq!(snapshot["summary"]["operation"], "delete");
    assert_eq!(snapshot["summary"]["deleted-records"], "10");
    let log =
        world.names().await.into_iter().filter(|name| name.starts_with("data/_delta_log/")).max().unwrap();
    let path = object_store::path::Path::from(format!("{}/{log}", super::world::LOCATION));
    let commit = object_store::ObjectStoreExt::get(&world.store, &path).await.unwrap().bytes().await.unwrap();
    let remove =
        std::str::from_utf8(&commit).unwrap().lines().find(|line| line.contains("\"remove\"")).unwrap();
    let remove: serde_json::Value = serde_json::from_str(remove).unwrap();
    assert_eq!(remove["remove"]["dataChange"], true);
    // Once is enough; later the mixed file is old too.
    let column = at();
    assert_eq!(janitor.expire_rows(&options(&world, &column, 30 * DAY), &mut ids()).await.unwrap().files, 0);
    world.pass(2 * DAY);
    assert_eq!(janitor.expire_rows(&options(&world, &column, 30 * DAY), &mut ids()).await.unwrap().files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_compaction_took_first_is_planned_anew() {
    let mut world = World::new().await;
    let now_us = world.now_ms * 1_000;
    let old = world.file(10, now_us - 40 * DAY_US, now_us - 31 * DAY_US, 0).await;
    world.append_files(vec![old.clone()]).await;
    // The janitor's state is always the ledger's: a change between is what the commit finds out.
    let (ledger, mut state, now_ms) = (world.ledger.clone(), world.state.clone(), world.now_ms);
    let newer = world.file(10, now_us - 40 * DAY_US, now_us, 0).await;
    let change = Change::Replace { removed: vec![old.path], added: vec![newer], effort: Default::default() };
    let mut change = Some(change);
    let column = at();
    let mut n = 0;
    let mut id = || {
        n += 1;
        if let Some(change) = change.take() {
            let commit = ledger.commit(&mut state, change, "compaction", now_ms);
            tokio::task::block_in_place(|| futures::executor::block_on(commit)).unwrap();
        }
        format!("ttl-{n}")
    };
    let report = world.janitor().expire_rows(&options(&world, &column, 30 * DAY), &mut id).await.unwrap();
    assert_eq!((report.files, report.version), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_due_when_their_oldest_row_is_late_and_cuts_show_in_both_formats() {
    let mut world = World::new().await;
    let now_us = world.now_ms * 1_000;
    // All old; late by 5 days; late by 5 days with a null; late by 2 days; not late.
    let whole = world.file(10, now_us - 40 * DAY_US, now_us - 31 * DAY_US, 0).await;
    let late = world.file(10, now_us - 36 * DAY_US, now_us, 0).await;
    let with_null = world.file(10, now_us - 35 * DAY_US, now_us - 31 * DAY_US, 1).await;
    let hardly = world.file(10, now_us - 32 * DAY_US, now_us, 0).await;
    let young = world.file(10, now_us - 29 * DAY_US, now_us, 0).await;
    let all = vec![whole.clone(), late.clone(), with_null.clone(), hardly, young];
    world.append_files(all).await;
    world.show_both().await;
    let column = at();
    let mut janitor = world.janitor();
    let due = janitor.files_to_cut(&options(&world, &column, 30 * DAY), 4 * DAY).await.unwrap();
    assert_eq!(
        due,
        [late.clone(), with_null.clone()],
        "the latest first; files that leave whole are not cut"
    );
    // The first is taken by a compaction meanwhile; of the second nothing but the null stays.
    let compacted = world.file(10, now_us - 36 * DAY_US, now_us, 0).await;
    let change = Change::Replace {
        removed: vec![late.path.clone()],
        added: vec![compacted],
        effort: Default::default(),
    };
    world.commit(change).await;
    let rest = world.file(1, 0, 0, 1).await;
    let cut = |file: &FileEntry, added: &[&FileEntry]| Cut {
        file: file.clone(),
        added: added.iter().map(|file| (*file).clone()).collect(),
    };
    let orphan = world.file(5, now_us, now_us, 0).await;
    let cuts = vec![cut(&late, &[&orphan]), cut(&with_null, &[&rest])];
    let landed = janitor.commit_cuts(cuts.clone(), world.now_ms, &mut ids()).await.unwrap();
    let (version, landed) = landed.unwrap();
    assert_eq!((version, landed.len(), &landed[0].file.path), (3, 1, &with_null.path));
    assert!(janitor.commit_cuts(cuts, world.now_ms, &mut ids()).await.unwrap().is_none(), "all are gone");
    world.ledger.refresh(&mut world.state).await.unwrap();
    let live = world.state.live_files.keys().cloned().collect();
    world.live.insert(3, live);
    assert!(world.state.live_files.contains_key(&rest.path) && world.state.live_files.len() == 5);
    assert_eq!(world.state.total_rows, 41);
    world.show_both().await;
    world.check().await;
    let (_, metadata) = world.metadata().await;
    let summary = &metadata["snapshots"].as_array().unwrap().last().unwrap()["summary"];
    assert_eq!((&summary["operation"], &summary["deleted-records"]), (&"overwrite".into(), &"10".into()));
    assert_eq!(summary["added-records"], "1");
    let log =
        world.names().await.into_iter().filter(|name| name.starts_with("data/_delta_log/")).max().unwrap();
    let path = object_store::path::Path::from(format!("{}/{log}", super::world::LOCATION));
    let commit = object_store::ObjectStoreExt::get(&world.store, &path).await.unwrap().bytes().await.unwrap();
    for (line, kind) in std::str::from_utf8(&commit).unwrap().lines().skip(2).zip(["remove", "add"]) {
        let action: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(action[kind]["dataChange"], true, "{line}");
    }
}

#[tokio::test]
async fn a_delete_that_takes_no_row_away_is_refused() {
    let mut world = World::new().await;
    let file = world.file(10, 0, 0, 0).await;
    world.append_files(vec![file.clone()]).await;
    for rows in [10, 11] {
        let added = world.file(rows, 0, 0, 0).await;
        let change = Change::Delete { removed: vec![file.path.clone()], added: vec![added] };
        let refused = world.ledger.commit(&mut world.state, change, "c", world.now_ms).await;
        assert!(refused.unwrap_err().to_string().contains("10 rows leave"), "{rows}");
    }
}

#[test]
fn columns_that_are_no_time_are_refused_by_name() {
    for (column, part) in [("id", "no date"), ("nope", "no column nope")] {
        let error = TimeColumn::find("shop", &schema(), column).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("shop"), "{error}");
    }
}

fn details(partition: Vec<Option<Literal>>, columns: BTreeMap<i32, ColumnStats>) -> FileDetails {
    let path = "data/x.parquet".to_owned();
    FileDetails {
        path,
        rows: 1,
        bytes: 1,
        spec_id: 0,
        partition,
        columns,
        split_offsets: vec![],
        key_range: None,
    }
}

fn spec(transform: Transform) -> PartitionSpec {
    let field = PartitionField { source_id: 2, field_id: 1000, name: "p".to_owned(), transform };
    PartitionSpec { spec_id: 0, fields: vec![field] }
}

#[test]
fn a_time_partition_tells_the_age_when_bounds_do_not() {
    let end = |transform, value: i32| {
        end_us(&details(vec![Some(Literal::int(value))], BTreeMap::new()), &spec(transform), &at())
    };
    let instant = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
    assert_eq!(end(Transform::Year, 54), Some(instant("2025-01-01T00:00:00Z")));
    assert_eq!(end(Transform::Month, 54 * 12 + 11), Some(instant("2025-01-01T00:00:00Z")));
    assert_eq!(end(Transform::Month, -1), Some(0));
    assert_eq!(end(Transform::Day, 19_999), Some(20_000 * DAY_US));
    assert_eq!(end(Transform::Hour, 0), Some(HOUR * 1_000));
    assert_eq!(end(Transform::Bucket(4), 1), None);
    assert_eq!(end(Transform::Year, i32::MAX), None);
    let null = details(vec![None], BTreeMap::new());
    assert_eq!(end_us(&null, &spec(Transform::Day), &at()), None, "rows without a time");
    let other = PartitionSpec {
        fields: vec![PartitionField { source_id: 1, ..spec(Transform::Day).fields[0].clone() }],
        spec_id: 0,
    };
    assert_eq!(end_us(&details(vec![Some(Literal::int(1))], BTreeMap::new()), &other, &at()), None);
    let mut dated = schema();
    dated.fields[1].data_type = PrimitiveType::Date.into();
    let day = TimeColumn::find("shop", &dated, "at").unwrap();
    let stats = ColumnStats { nulls: Some(0), upper: Some(Datum::date(3)), ..ColumnStats::default() };
    assert_eq!(
        end_us(&details(vec![], BTreeMap::from([(2, stats)])), &PartitionSpec::default(), &day),
        Some(4 * DAY_US)
    );
}

proptest! {
    /// No row of a file is at or after the end that is told for it.
    #[test]
    fn no_row_is_later_than_the_end(times in prop::collection::vec(-DAY_US * 400..DAY_US * 40_000, 1..5), stats: bool) {
        let upper = *times.iter().max().unwrap();
        let upper = Some(Datum::timestamptz_micros(upper));
        let column = ColumnStats { nulls: Some(0), upper, ..ColumnStats::default() };
        for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
            for time in &times {
                let day = chrono::DateTime::from_timestamp_micros(*time).unwrap();
                use chrono::Datelike;
                let value = match transform {
                    Transform::Year => day.year() - 1970,
                    Transform::Month => (day.year() - 1970) * 12 + day.month0() as i32,
                    Transform::Day => i32::try_from(time.div_euclid(DAY_US)).unwrap(),
                    _ => i32::try_from(time.div_euclid(HOUR * 1_000)).unwrap(),
                };
                let columns = if stats { BTreeMap::from([(2, column.clone())]) } else { BTreeMap::new() };
                let end = end_us(&details(vec![Some(Literal::int(value))], columns), &spec(transform), &at());
                prop_assert!(*time < end.unwrap());
            }
        }
    }
}
