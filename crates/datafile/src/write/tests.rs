use arrow::{
    array::{Array, AsArray, Int64Array, StringArray},
    compute::{concat_batches, interleave},
    datatypes::{Field as ArrowField, Schema as ArrowSchema},
};
use futures::TryStreamExt;
use iceberg::spec::{Datum, Literal};
use object_store::{ObjectStoreExt, local::LocalFileSystem, memory::InMemory};
use parquet::file::{
    metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
    reader::{FileReader, SerializedFileReader},
};
use proptest::prelude::*;
use siltstone_protocol::{
    Field, FileEntry, NullOrder, PartitionField, PartitionSpec, PrimitiveType as P, Schema, SortDirection,
    SortField, SortOrder, Transform,
};
use siltstone_spec::{Compression, Files};

use super::*;
use crate::{
    DataFileError, FIELD_ID_KEY, FileDetails,
    column::{source_array, source_column},
    footer, read_batches, read_details,
    testing::{self, Cell},
};

fn files() -> Files {
    Files {
        target_size: 512 << 20,
        row_group_bytes: 128 << 20,
        compression: Compression::Zstd { level: 1 },
        bloom_filters: Vec::new(),
    }
}

fn layout(schema: Schema, by: &[(i32, Transform)], keys: &[i32]) -> Layout {
    let partition = |((source_id, transform), field_id): (&(i32, Transform), i32)| PartitionField {
        source_id: *source_id,
        field_id,
        name: format!("p{field_id}"),
        transform: *transform,
    };
    let key = |source_id: &i32| SortField {
        transform: Transform::Identity,
        source_id: *source_id,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    Layout {
        schema: Arc::new(schema),
        partition_spec: PartitionSpec { spec_id: 2, fields: by.iter().zip(1000..).map(partition).collect() },
        sort_order: SortOrder { order_id: 4, fields: keys.iter().map(key).collect() },
        files: files(),
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([7; 32]),
        host: Default::default(),
    }
}

fn memory() -> (Arc<dyn ObjectStore>, Path) {
    (Arc::new(InMemory::new()), Path::from("shop/orders"))
}

/// The flush as it should be: one batch in sorted order.
fn sorted(batches: &[RecordBatch], layout: &Layout) -> RecordBatch {
    let arrow = arrow_schema(&layout.schema).unwrap();
    let batches = Batches::new(batches.to_vec(), &arrow).unwrap();
    if batches.rows() == 0 {
        return RecordBatch::new_empty(arrow);
    }
    let index = sort(&batches, &layout.schema, &layout.partition_spec, &layout.sort_order).unwrap();
    let rows: Vec<(usize, usize)> = index.rows.iter().map(|place| batches.locate(*place)).collect();
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = batches.batches().iter().map(|b| b.column(column).as_ref()).collect();
        interleave(&arrays, &rows).unwrap()
    };
    RecordBatch::try_new(arrow.clone(), (0..arrow.fields().len()).map(column).collect()).unwrap()
}

async fn read(store: &Arc<dyn ObjectStore>, at: &Path, file: &WrittenFile, schema: &Schema) -> RecordBatch {
    let batches: Vec<RecordBatch> =
        read_batches(store, at, &file.entry, schema).await.unwrap().try_collect().await.unwrap();
    concat_batches(&arrow_schema(schema).unwrap(), batches.iter()).unwrap()
}

async fn metadata(
    store: &Arc<dyn ObjectStore>,
    at: &Path,
    file: &WrittenFile,
) -> (ParquetMetaData, bytes::Bytes) {
    let path = footer::location(at, &file.entry.path);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, file.entry.bytes);
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    (reader.parse_and_finish(&bytes).unwrap(), bytes)
}

fn cell(datum: &Datum) -> Cell {
    use iceberg::spec::PrimitiveLiteral as L;
    match datum.literal() {
        L::Boolean(v) => Cell::Integer((*v).into()),
        L::Int(v) => Cell::Integer((*v).into()),
        L::Long(v) => Cell::Integer((*v).into()),
        L::Int128(v) => Cell::Integer(*v),
        L::Float(v) => Cell::Double(v.0.into()),
        L::Double(v) => Cell::Double(v.0),
        L::String(v) => Cell::Bytes(v.as_bytes().to_vec()),
        L::Binary(v) => Cell::Bytes(v.clone()),
        L::UInt128(v) => Cell::Bytes(v.to_be_bytes().to_vec()),
        other => unreachable!("{other:?}"),
    }
}

/// Every value of every column lies within the bounds, and every count is right.
fn check_stats(details: &FileDetails, rows: &RecordBatch, schema: &Schema) {
    assert_eq!(details.rows, rows.num_rows() as u64);
    let mut ids = Vec::new();
    schema.visit(&mut |id| ids.push(id));
    for id in ids {
        let Some(stats) = details.columns.get(&id) else { continue };
        let Ok(column) = source_column(schema, id) else {
            assert!(stats.lower.is_none() && stats.upper.is_none() && stats.nans.is_none(), "{id}");
            continue;
        };
        let array = source_array(rows, &column).unwrap();
        let (mut nulls, mut nans) = (0, 0);
        for row in 0..array.len() {
            match Cell::of(array.as_ref(), row) {
                Cell::Null => nulls += 1,
                Cell::Double(value) if value.is_nan() => nans += 1,
                value => {
                    let above = stats.lower.as_ref().is_none_or(|lower| cell(lower).order(&value).is_le());
                    let below = stats.upper.as_ref().is_none_or(|upper| value.order(&cell(upper)).is_le());
                    assert!(above && below, "column {id}, row {row}");
                }
            }
        }
        assert_eq!((stats.values, stats.nulls), (array.len() as u64, Some(nulls)), "{id}");
        let float = matches!(column.primitive, P::Float | P::Double);
        assert_eq!(stats.nans, float.then_some(nans), "{id}");
        if nulls + nans < stats.values && matches!(column.primitive, P::Long | P::Decimal { .. }) {
            assert!(stats.lower.is_some() && stats.upper.is_some(), "{id}");
        }
    }
}

async fn check(batches: Vec<RecordBatch>, layout: &Layout) -> Vec<WrittenFile> {
    let (store, at) = memory();
    let wanted = sorted(&batches, layout);
    let written = write_sorted(batches, layout, &store, &at).await.unwrap();
    let mut start = 0;
    for file in &written {
        let rows = read(&store, &at, file, &layout.schema).await;
        assert_eq!(rows, wanted.slice(start, rows.num_rows()));
        start += rows.num_rows();
        check_stats(&file.details, &rows, &layout.schema);
        let again = read_details(&store, &at, &file.entry, &layout.schema, &layout.partition_spec).await;
        assert_eq!(again.as_ref(), Ok(&file.details));
        assert_eq!(file.details.partition.len(), layout.partition_spec.fields.len());
        assert_eq!(file.entry.partition_token.is_some(), !layout.partition_spec.fields.is_empty());
        assert_eq!(
            (file.entry.spec_id, file.entry.sort_order_id, file.entry.schema_id),
            (2, 4, layout.schema.schema_id)
        );
        let name = file.entry.path.strip_prefix("data/").and_then(|name| name.strip_suffix(".parquet"));
        assert!(name.is_some_and(|name| name.len() == 26 && name.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
    assert_eq!(start, wanted.num_rows());
    written
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_sorted(
        sizes in prop::collection::vec(0_usize..300, 0..4),
        seed in any::<u64>(),
        by in prop_oneof![
            Just(vec![]),
            Just(vec![(12, Transform::Year)]),
            Just(vec![(22, Transform::Bucket(3)), (1, Transform::Identity)]),
            Just(vec![(5, Transform::Identity)]),
            Just(vec![(13, Transform::Truncate(2)), (6, Transform::Void)]),
            Just(vec![(16, Transform::Truncate(1)), (8, Transform::Truncate(1000))]),
        ],
        keys in prop::collection::vec(1..=16, 0..3),
        row_group_bytes in prop_oneof![Just(1_u64), Just(10_000), Just(1 << 27)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut layout = layout(crate::layout::tests::every_type(), &by, &keys);
            layout.files.row_group_bytes = row_group_bytes;
            check(testing::batches(&layout.schema, &sizes, seed), &layout).await;
        });
    }
}

fn simple() -> Schema {
    Schema::new(
        5,
        vec![Field::required(1, "id", P::Long.into()), Field::optional(9, "name", P::String.into())],
    )
}

fn simple_batch(schema: &Schema, ids: Vec<i64>) -> RecordBatch {
    let names: StringArray = ids.iter().map(|id| (id % 5 != 0).then(|| format!("secret-{id}"))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(names)];
    RecordBatch::try_new(arrow_schema(schema).unwrap(), columns).unwrap()
}

#[tokio::test]
async fn files_roll_and_row_groups_close() {
    let mut layout = layout(simple(), &[], &[1]);
    layout.files.target_size = 150_000;
    layout.files.row_group_bytes = 60_000;
    let ids = (0..120_000_i64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 3).collect();
    let written = check(vec![simple_batch(&layout.schema, ids)], &layout).await;
    assert!(written.len() > 3, "{}", written.len());
    for file in &written[..written.len() - 1] {
        assert!((150_000..400_000).contains(&file.entry.bytes), "{}", file.entry.bytes);
        assert!(file.details.split_offsets.len() > 1 && file.details.split_offsets.is_sorted());
        assert_eq!(file.details.split_offsets[0], 4);
    }
}

#[tokio::test]
async fn footers_hold_what_readers_want() {
    let mut layout = layout(simple(), &[(1, Transform::Bucket(2))], &[1]);
    layout.files.bloom_filters = vec!["id".into()];
    let (store, at) = memory();
    let batch = simple_batch(&layout.schema, (0..30_000).collect());
    let written = write_sorted(vec![batch], &layout, &store, &at).await.unwrap();
    assert_eq!(written.len(), 2);
    assert_ne!(written[0].entry.partition_token, written[1].entry.partition_token);
    assert_eq!(written[0].details.partition, [Some(Literal::int(0))]);
    for file in &written {
        let (metadata, bytes) = metadata(&store, &at, file).await;
        let schema = metadata.file_metadata().schema_descr();
        let ids: Vec<i32> = schema.columns().iter().map(|c| c.self_type().get_basic_info().id()).collect();
        assert_eq!(ids, [1, 9]);
        assert!(metadata.offset_index().is_some() && metadata.column_index().is_some());
        let group = metadata.row_group(0);
        assert_eq!(group.sorting_columns().map(|columns| columns[0].column_idx), Some(0));
        assert!(
            group.columns().iter().all(|c| c.statistics().is_some() && c.offset_index_offset().is_some())
        );
        assert!(
            group.column(0).bloom_filter_offset().is_some()
                && group.column(1).bloom_filter_offset().is_none()
        );
        assert!(group.column(0).bloom_filter_length().unwrap() < 64 * 1024);
        assert!(metadata.file_metadata().created_by().unwrap().starts_with("siltstone version "));
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        let mut keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
        keys.sort_unstable();
        let wanted = [
            "iceberg.schema",
            "siltstone.key_range",
            "siltstone.nan_counts",
            "siltstone.partition",
            "siltstone.schema_id",
            "siltstone.sort_order_id",
        ];
        assert_eq!(keys, wanted);
        let reader = SerializedFileReader::new(bytes).unwrap();
        let json = pairs.iter().find(|pair| pair.key == "iceberg.schema").unwrap().value.as_deref().unwrap();
        assert_eq!(serde_json::from_str::<Schema>(json).unwrap(), *layout.schema);
        serde_json::from_str::<iceberg::spec::Schema>(json).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 1);
    }
}

#[tokio::test]
async fn uuids_have_no_dictionary() {
    let schema = Schema::new(
        0,
        vec![Field::optional(1, "u", P::Uuid.into()), Field::optional(2, "n", P::Long.into())],
    );
    let layout = layout(schema, &[], &[]);
    for annotate_uuids in [true, false] {
        let layout = Layout { annotate_uuids, ..layout.clone() };
        let (store, at) = memory();
        let batch = testing::batch(&layout.schema, 100, &mut testing::rng(1));
        let written = write_sorted(vec![batch], &layout, &store, &at).await.unwrap();
        let (metadata, _) = metadata(&store, &at, &written[0]).await;
        let column = |column: usize| metadata.row_group(0).column(column);
        let dictionary = |number: usize| column(number).dictionary_page_offset().is_some();
        assert_eq!([dictionary(0), dictionary(1)], [false, true]);
        assert_eq!(column(0).column_descr().logical_type_ref().is_some(), annotate_uuids);
    }
}

#[tokio::test]
async fn a_later_schema_reads_by_field_id() {
    let layout = layout(simple(), &[], &[]);
    let (store, at) = memory();
    let batch = simple_batch(&layout.schema, vec![3, 1, 2]);
    let written = write_sorted(vec![batch], &layout, &store, &at).await.unwrap();
    let later = Schema::new(
        6,
        vec![
            Field::optional(10, "added", P::Double.into()),
            Field::optional(9, "renamed", P::String.into()),
            Field::required(1, "id", P::Long.into()),
        ],
    );
    let rows = read(&store, &at, &written[0], &later).await;
    assert_eq!(rows.column(0).null_count(), 3);
    assert_eq!(rows.column(1).as_string::<i32>().value(0), "secret-3");
    let only = Schema::new(7, vec![Field::optional(11, "other", P::Long.into())]);
    assert_eq!(read(&store, &at, &written[0], &only).await.num_rows(), 3);
    let required = Schema::new(8, vec![Field::required(11, "other", P::Long.into())]);
    let stream = read_batches(&store, &at, &written[0].entry, &required).await.unwrap();
    assert!(stream.try_collect::<Vec<_>>().await.is_err());
}

#[tokio::test]
async fn files_call_a_column_what_it_was_called_first() {
    let member = |name: &str| vec![Field::optional(4, name, P::String.into())];
    let before = Schema::new(
        0,
        vec![
            Field::optional(1, "cust", P::String.into()),
            Field::optional(2, "note", P::Int.into()),
            Field::optional(3, "who", siltstone_protocol::Type::Struct(member("name"))),
        ],
    );
    let after = Schema::new(
        1,
        vec![
            Field::optional(1, "customer", P::String.into()),
            Field::optional(5, "note", P::String.into()),
            Field::optional(3, "who", siltstone_protocol::Type::Struct(member("full"))),
        ],
    );
    let mut layout = layout(after.clone(), &[], &[1]);
    layout.names = Arc::new(siltstone_protocol::SchemaHistory::of([&before, &after]));
    layout.files.bloom_filters = vec!["customer".to_owned(), "who.full".to_owned()];
    let (store, at) = memory();
    let batch = testing::batch(&after, 2_000, &mut testing::rng(3));
    let wanted = sorted(std::slice::from_ref(&batch), &layout);
    let written = write_sorted(vec![batch], &layout, &store, &at).await.unwrap();
    let (metadata, _) = metadata(&store, &at, &written[0]).await;
    let columns = metadata.row_group(0).columns();
    let names: Vec<String> = columns.iter().map(|column| column.column_path().string()).collect();
    assert_eq!(names, ["cust", "note_5", "who.name"]);
    let blooms: Vec<bool> = columns.iter().map(|column| column.bloom_filter_offset().is_some()).collect();
    assert_eq!(blooms, [true, false, true]);
    // Readers go by ids, and bounds are told by them.
    assert_eq!(read(&store, &at, &written[0], &after).await, wanted);
    assert!(written[0].details.columns.contains_key(&5) && !written[0].details.columns.contains_key(&2));
}

#[tokio::test]
async fn widened_columns_are_cast() {
    let narrow = Schema::new(
        0,
        vec![
            Field::optional(1, "a", P::Int.into()),
            Field::optional(2, "b", P::Float.into()),
            Field::optional(3, "c", P::Decimal { precision: 5, scale: 2 }.into()),
        ],
    );
    let wide = Schema::new(
        1,
        vec![
            Field::optional(1, "a", P::Long.into()),
            Field::optional(2, "b", P::Double.into()),
            Field::optional(3, "c", P::Decimal { precision: 30, scale: 2 }.into()),
        ],
    );
    let layout = layout(narrow, &[(1, Transform::Identity)], &[]);
    let (store, at) = memory();
    let batch = testing::batch(&layout.schema, 50, &mut testing::rng(3));
    let written = write_sorted(vec![batch], &layout, &store, &at).await.unwrap();
    for file in &written {
        let rows = read(&store, &at, file, &wide).await;
        let details = read_details(&store, &at, &file.entry, &wide, &layout.partition_spec).await.unwrap();
        check_stats(&details, &rows, &wide);
        assert!(
            details.partition[0].is_none()
                || matches!(
                    &details.partition[0],
                    Some(Literal::Primitive(iceberg::spec::PrimitiveLiteral::Long(_)))
                )
        );
    }
}

#[tokio::test]
async fn batches_of_another_schema_are_refused() {
    let layout = layout(simple(), &[], &[]);
    let (store, at) = memory();
    let nullable = ArrowSchema::new(vec![
        ArrowField::new("id", arrow::datatypes::DataType::Int64, true),
        ArrowField::new("name", arrow::datatypes::DataType::Utf8, true),
    ]);
    let names: ArrayRef = Arc::new(StringArray::from(vec!["secret", "secret"]));
    let columns =
        |ids: Vec<Option<i64>>| -> Vec<ArrayRef> { vec![Arc::new(Int64Array::from(ids)), names.clone()] };
    let batch = |ids| RecordBatch::try_new(Arc::new(nullable.clone()), columns(ids)).unwrap();
    let good = write_sorted(vec![batch(vec![Some(1), Some(2)])], &layout, &store, &at).await.unwrap();
    assert_eq!(good[0].entry.rows, 2);
    let error = write_sorted(vec![batch(vec![Some(1), None])], &layout, &store, &at).await.unwrap_err();
    assert_eq!(error, DataFileError::NullInRequired { column: "id".into() });
    let swapped = RecordBatch::try_from_iter([("id", names.clone()), ("name", names.clone())]).unwrap();
    let error = write_sorted(vec![swapped], &layout, &store, &at).await.unwrap_err();
    assert!(matches!(error, DataFileError::SchemaMismatch { .. }));
    assert!(!error.to_string().contains("secret"));
    assert_eq!(write_sorted(Vec::new(), &layout, &store, &at).await.unwrap(), []);
}

#[tokio::test]
async fn files_larger_than_a_part_are_uploaded_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let at = Path::from("t");
    let mut layout = layout(simple(), &[], &[]);
    layout.files.compression = Compression::None;
    let ids: Vec<i64> = (0..700_000).map(|n: i64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)).collect();
    let batch = simple_batch(&layout.schema, ids);
    let written = write_sorted(vec![batch.clone()], &layout, &store, &at).await.unwrap();
    assert!(written[0].entry.bytes > 2 * crate::upload::PART_BYTES as u64);
    assert_eq!(read(&store, &at, &written[0], &layout.schema).await, batch);
}

#[tokio::test]
async fn a_failing_store_is_unavailable_and_named_without_values() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("t"), "in the way").unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let mut layout = layout(simple(), &[(9, Transform::Identity)], &[]);
    for compression in [Compression::None, Compression::Snappy] {
        layout.files.compression = compression;
        let batch = simple_batch(&layout.schema, (0..500).collect());
        let error = write_sorted(vec![batch], &layout, &store, &Path::from("t")).await.unwrap_err();
        assert_eq!(error.kind(), siltstone_protocol::ErrorKind::Unavailable);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told_from_a_missing_one() {
    let layout = layout(simple(), &[], &[]);
    let (store, at) = memory();
    let batch = simple_batch(&layout.schema, (0..100).collect());
    let file = write_sorted(vec![batch], &layout, &store, &at).await.unwrap().remove(0);
    let path = footer::location(&at, &file.entry.path);
    let details = |entry: FileEntry| {
        let (store, at, layout) = (&store, &at, &layout);
        async move { read_details(store, at, &entry, &layout.schema, &layout.partition_spec).await }
    };
    let mut other = file.entry.clone();
    other.rows += 1;
    assert!(matches!(details(other).await, Err(DataFileError::Corrupt { .. })));
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut damaged = bytes.to_vec();
    let end = damaged.len() - 100;
    damaged[end..end + 60].fill(0xff);
    store.put(&path, damaged.into()).await.unwrap();
    let error = details(file.entry.clone()).await.unwrap_err();
    assert!(matches!(error, DataFileError::Corrupt { .. }), "{error}");
    store.delete(&path).await.unwrap();
    assert!(matches!(details(file.entry.clone()).await, Err(DataFileError::Store { .. })));
    assert!(read_batches(&store, &at, &file.entry, &layout.schema).await.is_err());
}

#[test]
fn the_id_key_is_parquets() {
    assert_eq!(FIELD_ID_KEY, "PARQUET:field_id");
}
