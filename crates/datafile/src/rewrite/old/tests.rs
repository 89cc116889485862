//! Old rows leave, and no other: each row left is compared with the rows that a plain filter leaves.

use arrow::array::{Date32Array, Int64Array, StructArray, TimestampMicrosecondArray};
use object_store::memory::InMemory;
use siltstone_protocol::{
    Field, NullOrder, PartitionSpec, PrimitiveType as P, SortDirection, SortField, SortOrder, Type,
};
use siltstone_spec::{Clustering, Compression, Files};

use super::*;
use crate::{
    Layout, RewriteInput, RewriteJob, RewriteOptions, RewriteStats, WrittenFile, arrow_schema, rewrite,
    write_sorted,
};

const ROWS: i64 = 40_000;
const AT: i32 = 2;
const DAY: i32 = 4;

/// Sorted by id or by time; in row groups of a few thousand rows.
fn layout(by: i32) -> Layout {
    let (id, at) =
        (Field::required(1, "id", P::Long.into()), Field::optional(AT, "at", P::Timestamptz.into()));
    let day = Field::optional(DAY, "day", P::Date.into());
    let inner = Field::optional(3, "inner", Type::Struct(vec![day]));
    let field = SortField {
        transform: Transform::Identity,
        source_id: by,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    Layout {
        schema: Arc::new(Schema::new(0, vec![id, at, inner])),
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder { order_id: 1, fields: vec![field] },
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 8_000,
            compression: Compression::None,
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([7; 32]),
        host: Default::default(),
    }
}

/// Of row `n`: its time, in microseconds that rise with it, and its day; every eleventh has none.
fn time(n: i64) -> Option<i64> {
    (n % 11 != 3).then_some(n * 1_000)
}

fn day(n: i64) -> Option<i32> {
    (n % 13 != 5).then_some((n / 100) as i32)
}

fn batch(layout: &Layout) -> RecordBatch {
    let arrow = arrow_schema(&layout.schema).unwrap();
    let times: TimestampMicrosecondArray = (0..ROWS).map(time).collect();
    let days: ArrayRef = Arc::new((0..ROWS).map(day).collect::<Date32Array>());
    let DataType::Struct(fields) = arrow.field(2).data_type() else { unreachable!() };
    // Of a row whose struct is null, the day in it counts for nothing.
    let there = (0..ROWS).map(|n| n % 17 != 1).collect();
    let inner = StructArray::new(fields.clone(), vec![days], Some(there));
    let ids = Int64Array::from_iter_values(0..ROWS);
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(times.with_timezone("UTC")), Arc::new(inner)];
    let columns = columns.into_iter().zip(arrow.fields()).map(|(array, field)| {
        if array.data_type() == field.data_type() {
            array
        } else {
            arrow::compute::cast(&array, field.data_type()).unwrap()
        }
    });
    RecordBatch::try_new(arrow.clone(), columns.collect()).unwrap()
}

async fn cut(by: i32, old: OldRows) -> (Vec<i64>, RewriteStats, Vec<WrittenFile>, u64) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (at, layout) = (Path::from("shop"), layout(by));
    let written = write_sorted(vec![batch(&layout)], &layout, &store, &at).await.unwrap();
    let entry = written[0].entry.clone();
    let counted = count_old(&store, &at, &entry, &layout.schema, old).await.unwrap();
    let inputs = vec![RewriteInput::new(entry)];
    let job = RewriteJob { inputs, layout: layout.clone(), cluster: Clustering::Sort, old: Some(old) };
    let options = RewriteOptions { memory_bytes: 0, ..RewriteOptions::default() };
    let (files, stats) = rewrite(job, &store, &at, &options).await.unwrap();
    let mut ids = Vec::new();
    for file in &files {
        assert_eq!((file.entry.sort_order_id, file.entry.partition_token.is_none()), (1, true));
        let batches = read_batches(&store, &at, &file.entry, &layout.schema).await.unwrap();
        for batch in batches.try_collect::<Vec<_>>().await.unwrap() {
            ids.extend(batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values());
        }
    }
    (ids, stats, files, counted)
}

#[tokio::test]
async fn rows_from_before_a_moment_leave_and_those_without_a_time_stay() {
    for by in [1, AT] {
        for before in [0, 1, 7_777_000, 20_000_001, ROWS * 1_000] {
            let (mut ids, stats, _, counted) = cut(by, OldRows { field_id: AT, before_us: before }).await;
            if by == AT {
                ids.sort_unstable();
            }
            let wanted: Vec<i64> = (0..ROWS).filter(|n| time(*n).is_none_or(|at| at >= before)).collect();
            assert_eq!(ids, wanted, "by {by}, before {before}");
            let left = (ROWS as usize - wanted.len()) as u64;
            assert_eq!((stats.old_rows, counted, stats.rows), (left, left, wanted.len() as u64));
        }
    }
}

#[tokio::test]
async fn row_groups_without_old_rows_are_copied() {
    let (_, stats, files, _) = cut(1, OldRows { field_id: AT, before_us: 7_777_000 }).await;
    assert!(stats.spliced_rows > ROWS as u64 / 2 && stats.merged_rows < ROWS as u64 / 4, "{stats:?}");
    let bounds = &files[0].details.columns[&AT];
    let lower = bounds.lower.as_ref().unwrap().literal().clone();
    assert_eq!(lower, iceberg::spec::PrimitiveLiteral::Long(7_777_000));
}

#[tokio::test]
async fn days_inside_structs_are_old_when_they_are_over() {
    const DAY_US: i64 = 86_400_000_000;
    for (before_us, first) in [(200 * DAY_US - 1, 199), (200 * DAY_US, 200), (200 * DAY_US + 1, 200)] {
        let (ids, stats, ..) = cut(1, OldRows { field_id: DAY, before_us }).await;
        let stays = |n: &i64| n % 17 == 1 || day(*n).is_none_or(|day| day >= first);
        let wanted: Vec<i64> = (0..ROWS).filter(stays).collect();
        assert_eq!(ids, wanted);
        assert_eq!(stats.old_rows + stats.rows, ROWS as u64);
    }
}

#[tokio::test]
async fn a_file_of_old_rows_alone_becomes_none() {
    let layout = layout(1);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let at = Path::from("shop");
    let rows = batch(&layout).slice(4, 5);
    let written = write_sorted(vec![rows], &layout, &store, &at).await.unwrap();
    let inputs = vec![RewriteInput::new(written[0].entry.clone())];
    let old = Some(OldRows { field_id: AT, before_us: i64::MAX });
    let job = RewriteJob { inputs, layout, cluster: Clustering::Sort, old };
    let (files, stats) = rewrite(job, &store, &at, &RewriteOptions::default()).await.unwrap();
    assert_eq!((files.len(), stats.old_rows, stats.rows), (0, 5, 0));
}

#[tokio::test]
async fn a_column_that_is_no_time_is_refused() {
    for field_id in [1, 3, 99] {
        let old = OldRows { field_id, before_us: 0 };
        assert!(matches!(Intake::new(&layout(1).schema, Some(old)), Err(DataFileError::UnknownField { .. })));
    }
}
