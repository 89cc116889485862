use arrow::{
    array::{Array, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array},
    compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::Int64Type,
};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload, memory::InMemory};
use parquet::file::{
    metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
    page_index::column_index::ColumnIndexMetaData,
};
use rand::seq::SliceRandom;
use siltstone_protocol::{
    Field, NullOrder, PartitionField, PartitionSpec, PrimitiveType as P, Schema, SortDirection, SortField,
    SortOrder, Transform, Type,
};
use siltstone_spec::{Compression, Files};

use super::*;
use crate::{arrow_schema, layout::tests::every_type, read_batches, read_details, testing, write_sorted};

const ID: i32 = 20;

/// Field id and transform; descending with nulls last when negative.
fn order(keys: &[i32]) -> SortOrder {
    let field = |key: &i32| SortField {
        transform: Transform::Identity,
        source_id: key.abs(),
        direction: if *key < 0 { SortDirection::Desc } else { SortDirection::Asc },
        null_order: if *key < 0 { NullOrder::NullsLast } else { NullOrder::NullsFirst },
    };
    SortOrder { order_id: 4, fields: keys.iter().map(field).collect() }
}

fn layout(schema: Schema, keys: &[i32]) -> Layout {
    Layout {
        schema: Arc::new(schema),
        partition_spec: PartitionSpec::default(),
        sort_order: order(keys),
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 64 << 20,
            compression: Compression::Zstd { level: 1 },
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([7; 32]),
        host: Default::default(),
    }
}

fn options() -> RewriteOptions {
    RewriteOptions { memory_bytes: 0, ..RewriteOptions::default() }
}

struct World {
    store: Arc<dyn ObjectStore>,
    at: Path,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), at: Path::from("shop/orders") }
    }

    async fn write(&self, batch: RecordBatch, layout: &Layout) -> Vec<FileEntry> {
        let written = write_sorted(vec![batch], layout, &self.store, &self.at).await.unwrap();
        written.into_iter().map(|file| file.entry).collect()
    }

    async fn rows(&self, files: &[FileEntry], schema: &Schema) -> RecordBatch {
        let mut batches = Vec::new();
        for file in files {
            let stream = read_batches(&self.store, &self.at, file, schema).await.unwrap();
            batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
        }
        concat_batches(&arrow_schema(schema).unwrap(), batches.iter()).unwrap()
    }

    async fn rewrite(
        &self,
        inputs: &[FileEntry],
        layout: &Layout,
        cluster: Clustering,
        options: &RewriteOptions,
    ) -> Result<(Vec<WrittenFile>, RewriteStats)> {
        let inputs = inputs.iter().cloned().map(RewriteInput::new).collect();
        let job = RewriteJob { inputs, layout: layout.clone(), cluster, old: None };
        rewrite(job, &self.store, &self.at, options).await
    }

    async fn metadata(&self, file: &FileEntry) -> (ParquetMetaData, bytes::Bytes) {
        let path = footer::location(&self.at, &file.path);
        let bytes = self.store.get(&path).await.unwrap().bytes().await.unwrap();
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        (reader.parse_and_finish(&bytes).unwrap(), bytes)
    }

    /// Every cell of every file is that of Arrow's own sort of all inputs, and footers tell the truth.
    async fn check(&self, inputs: &[FileEntry], files: &[WrittenFile], layout: &Layout) {
        let wanted = by_arrow(&self.rows(inputs, &layout.schema).await, layout);
        let entries: Vec<FileEntry> = files.iter().map(|file| file.entry.clone()).collect();
        let found = self.rows(&entries, &layout.schema).await;
        same(&found, &wanted);
        let mut start = 0;
        for file in files {
            let (schema, spec) = (&layout.schema, &layout.partition_spec);
            let details = read_details(&self.store, &self.at, &file.entry, schema, spec).await.unwrap();
            assert_eq!(details, file.details);
            let rows = found.slice(start, file.entry.rows as usize);
            start += rows.num_rows();
            let columns = KeyColumn::of(schema, &layout.sort_order).unwrap();
            let keys = Keys::Order(columns);
            let arrays = keys.arrays(&rows).unwrap();
            let range = details.key_range.unwrap();
            let mut key = Vec::new();
            for (row, wanted) in [(0, range.first()), (rows.num_rows() - 1, range.last())] {
                keys.write(&mut key, &arrays, row).unwrap();
                assert!(key.len() > 256 || key == wanted, "key range of {}", file.entry.path);
            }
        }
    }
}

fn same(found: &RecordBatch, wanted: &RecordBatch) {
    assert_eq!(found.num_rows(), wanted.num_rows());
    for (column, field) in wanted.schema().fields().iter().enumerate() {
        let (found, wanted) = (found.column(column), wanted.column(column));
        assert_eq!(found.to_data(), wanted.to_data(), "column {}", field.name());
    }
}

/// The rows in the layout's order, by Arrow's sort. The order must end with a unique column.
fn by_arrow(rows: &RecordBatch, layout: &Layout) -> RecordBatch {
    let column = |field: &SortField| {
        let index = layout.schema.fields.iter().position(|column| column.id == field.source_id).unwrap();
        let options = SortOptions {
            descending: field.direction == SortDirection::Desc,
            nulls_first: field.null_order == NullOrder::NullsFirst,
        };
        SortColumn { values: Arc::clone(rows.column(index)), options: Some(options) }
    };
    let columns: Vec<SortColumn> = layout.sort_order.fields.iter().map(column).collect();
    take_record_batch(rows, &lexsort_to_indices(&columns, None).unwrap()).unwrap()
}

/// Random rows of every type; column `key` numbers them from `first`.
fn random(schema: &Schema, rows: usize, first: i64, seed: u64) -> RecordBatch {
    let batch = testing::batch(schema, rows, &mut testing::rng(seed));
    let mut ids: Vec<i64> = (first..first + rows as i64).collect();
    ids.shuffle(&mut testing::rng(seed));
    let mut columns = batch.columns().to_vec();
    let key = schema.fields.iter().position(|field| field.id == ID).unwrap();
    columns[key] = Arc::new(Int64Array::from(ids));
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test]
async fn merged_runs_equal_arrows_sort_cell_by_cell() {
    let keys: &[&[i32]] = &[&[ID], &[13, -12, ID], &[-1, -7, ID], &[-16, 9, 14, ID], &[3, -13, ID]];
    for (seed, keys) in (0..).zip(keys) {
        let world = World::new();
        let layout = layout(every_type(), keys);
        let mut inputs = Vec::new();
        for run in 0..7 {
            let rows = [9000, 1, 2100, 0, 270, 7500, 3600][run];
            let batch = random(&layout.schema, rows, run as i64 * 10_000, seed * 100 + run as u64);
            inputs.extend(world.write(batch, &layout).await);
        }
        let mut rolled = layout.clone();
        rolled.files.target_size = 60_000;
        rolled.files.row_group_bytes = 20_000;
        let (files, stats) = world.rewrite(&inputs, &rolled, Clustering::Sort, &options()).await.unwrap();
        assert!(files.len() > 1, "{}", files.len());
        assert_eq!((stats.inputs, stats.rows), (6, 22_471));
        assert_eq!(stats.merged_rows + stats.spliced_rows, 22_471);
        world.check(&inputs, &files, &rolled).await;
    }
}

#[tokio::test]
async fn more_runs_than_the_budget_has_room_for_are_merged_in_turns() {
    let world = World::new();
    let layout = layout(every_type(), &[13, -12, ID]);
    let mut inputs = Vec::new();
    for run in 0..120 {
        let batch = random(&layout.schema, 30 + run % 7, run as i64 * 1000, run as u64);
        inputs.extend(world.write(batch, &layout).await);
    }
    let (files, stats) = world.rewrite(&inputs, &layout, Clustering::Sort, &options()).await.unwrap();
    assert!(stats.spilled_bytes > 0);
    world.check(&inputs, &files, &layout).await;
}

#[tokio::test]
async fn equal_keys_and_no_sort_order_keep_every_row() {
    let world = World::new();
    for keys in [&[][..], &[17][..]] {
        let fields =
            vec![Field::optional(17, "few", P::Int.into()), Field::required(ID, "key", P::Long.into())];
        let mut layout = layout(Schema::new(1, fields), keys);
        if keys.is_empty() {
            layout.sort_order = SortOrder::default();
        }
        let mut inputs = Vec::new();
        for run in 0..5_i64 {
            let few: Int32Array = (0..20_000_i32).map(|row| (row % 3 > 0).then_some(row % 3)).collect();
            let ids = Int64Array::from_iter_values(run * 20_000..(run + 1) * 20_000);
            let arrow = arrow_schema(&layout.schema).unwrap();
            let batch = RecordBatch::try_new(arrow, vec![Arc::new(few), Arc::new(ids)]).unwrap();
            inputs.extend(world.write(batch, &layout).await);
        }
        let (files, _) = world.rewrite(&inputs, &layout, Clustering::Sort, &options()).await.unwrap();
        assert_eq!(files.len(), 1);
        let found = world.rows(&[files[0].entry.clone()], &layout.schema).await;
        let mut ids = found.column(1).as_primitive::<Int64Type>().values().to_vec();
        ids.sort_unstable();
        assert_eq!(ids, (0..100_000).collect::<Vec<_>>());
        if !keys.is_empty() {
            let few = found.column(0);
            let sorted = arrow::compute::sort(few, None).unwrap();
            assert_eq!(few.to_data(), sorted.to_data());
        }
    }
}

/// Rows whose leading key lies in `keys`, with texts that do not compress.
fn stretch(layout: &Layout, keys: std::ops::Range<i64>, seed: i64) -> RecordBatch {
    let text =
        |key: i64| format!("{:x}", (key * 31 + seed).wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_pow(2));
    let arrow = arrow_schema(&layout.schema).unwrap();
    let texts: StringArray = keys.clone().map(|key| (key % 7 > 0).then(|| text(key))).collect();
    let floats: arrow::array::Float64Array = keys.clone().map(|key| Some(key as f64 / 3.0)).collect();
    let ids = Int64Array::from_iter_values(keys);
    RecordBatch::try_new(arrow, vec![Arc::new(ids), Arc::new(texts), Arc::new(floats)]).unwrap()
}

fn stretched() -> Layout {
    let fields = vec![
        Field::required(ID, "key", P::Long.into()),
        Field::optional(2, "text", P::String.into()),
        Field::required(3, "number", P::Double.into()),
    ];
    let mut layout = layout(Schema::new(1, fields), &[ID]);
    layout.files.row_group_bytes = 64 << 10;
    layout.files.bloom_filters = vec!["text".into()];
    layout
}

#[tokio::test]
async fn row_groups_that_no_other_run_reaches_into_are_copied_whole() {
    let world = World::new();
    let layout = stretched();
    let mut inputs = Vec::new();
    // The third reaches into the second; the fourth is beyond all, and comes first.
    for (keys, seed) in [(60_000..80_000, 1), (0..20_000, 2), (20_000..40_000, 3)] {
        inputs.extend(world.write(stretch(&layout, keys, seed), &layout).await);
    }
    let odd = stretch(&layout, 30_000..50_000, 4);
    inputs.extend(world.write(odd, &layout).await);
    let mut unique = layout.clone();
    unique.sort_order = order(&[ID, 3, 2]);
    let (files, stats) = world.rewrite(&inputs, &layout, Clustering::Sort, &options()).await.unwrap();
    assert_eq!(files.len(), 1);
    assert!(stats.spliced_rows > 45_000 && stats.merged_rows > 15_000, "{stats:?}");
    let found = world.rows(&[files[0].entry.clone()], &layout.schema).await;
    // Rows of equal keys come in any order: both sides by all columns.
    let wanted = world.rows(&inputs, &layout.schema).await;
    same(&by_arrow(&found, &unique), &by_arrow(&wanted, &unique));
    let keys = found.column(0).as_primitive::<Int64Type>().values();
    assert!(keys.is_sorted());
    let details = &files[0].details;
    assert_eq!(details.columns[&3].nans, Some(0));
    assert_eq!(details.columns[&2].nulls, Some(wanted.column(1).null_count() as u64));
    pages_are_as_if_encoded(&world, &files[0], &found).await;
}

/// Page index, statistics and bloom filters of a spliced file against its own rows.
async fn pages_are_as_if_encoded(world: &World, file: &WrittenFile, rows: &RecordBatch) {
    let (metadata, bytes) = world.metadata(&file.entry).await;
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let mut start = 0;
    for group in 0..metadata.num_row_groups() {
        let row_group = metadata.row_group(group);
        let length = row_group.num_rows() as usize;
        let texts = rows.column(1).slice(start, length);
        let texts = texts.as_string::<i32>();
        let bloom = reader.get_row_group_column_bloom_filter(group, 1).unwrap().unwrap();
        assert!(texts.iter().flatten().all(|text| bloom.check(text)));
        let wrong = (0..1000).filter(|number| bloom.check(format!("none {number}").as_str())).count();
        assert!(wrong < 100, "{wrong} of 1000");
        let least = texts.iter().flatten().min().unwrap();
        let found = row_group.column(1).statistics().unwrap().min_bytes_opt().unwrap().to_vec();
        assert_eq!(found, least.as_bytes());
        let pages = metadata.offset_index().unwrap()[group][0].page_locations();
        let ColumnIndexMetaData::INT64(index) = &metadata.column_index().unwrap()[group][0] else {
            unreachable!("no column index");
        };
        let keys = rows.column(0).slice(start, length);
        let keys = keys.as_primitive::<Int64Type>().values().to_vec();
        for (number, page) in pages.iter().enumerate() {
            let first = page.first_row_index as usize;
            let end = pages.get(number + 1).map_or(length, |next| next.first_row_index as usize);
            assert_eq!(index.min_value(number), Some(&keys[first]));
            assert_eq!(index.max_value(number), Some(&keys[end - 1]));
        }
        assert!(row_group.sorting_columns().is_some_and(|columns| columns[0].column_idx == 0));
        start += length;
    }
    let ids = |metadata: &ParquetMetaData| -> Vec<i32> {
        let columns = metadata.file_metadata().schema_descr().columns().iter();
        columns.map(|column| column.self_type().get_basic_info().id()).collect()
    };
    assert_eq!(ids(&metadata), [ID, 2, 3]);
}

#[tokio::test]
async fn large_inputs_are_read_block_by_block() {
    let world = World::new();
    let layout = stretched();
    let mut inputs = Vec::new();
    for run in 0..3_i64 {
        // Larger than what is held whole.
        let rows = stretch(&layout, run..500_000 + run, run);
        inputs.extend(world.write(rows, &layout).await);
    }
    // The least budget has 9 MiB for inputs held whole: one of these.
    assert!(inputs.iter().all(|file| file.bytes > 4_700_000), "{}", inputs[0].bytes);
    let (files, stats) = world.rewrite(&inputs, &layout, Clustering::Sort, &options()).await.unwrap();
    assert_eq!(stats.rows, 1_500_000);
    let entries: Vec<FileEntry> = files.iter().map(|file| file.entry.clone()).collect();
    let mut unique = layout.clone();
    unique.sort_order = order(&[ID, 3, 2]);
    let found = world.rows(&entries, &layout.schema).await;
    let wanted = world.rows(&inputs, &layout.schema).await;
    same(&by_arrow(&found, &unique), &by_arrow(&wanted, &unique));
}

#[tokio::test]
async fn older_schemas_become_the_present_one() {
    let old = Schema::new(
        0,
        vec![
            Field::required(ID, "old_name", P::Int.into()),
            Field::optional(2, "dropped", P::String.into()),
            Field::optional(3, "number", P::Float.into()),
            Field::optional(5, "s", Type::Struct(vec![Field::optional(6, "a", P::Int.into())])),
        ],
    );
    let inner = vec![Field::optional(7, "b", P::String.into()), Field::optional(6, "a", P::Long.into())];
    let new = Schema::new(
        1,
        vec![
            Field::optional(9, "added", P::String.into()),
            Field::required(ID, "key", P::Long.into()),
            Field::optional(3, "number", P::Double.into()),
            Field::optional(5, "s", Type::Struct(inner)),
        ],
    );
    let world = World::new();
    let (old, new) = (layout(old, &[-3, ID]), layout(new, &[-3, ID]));
    let rows = |layout: &Layout, seed| testing::batch(&layout.schema, 2000, &mut testing::rng(seed));
    let mut first = rows(&old, 1).columns().to_vec();
    first[0] = Arc::new(Int32Array::from_iter_values(0..2000));
    let first = RecordBatch::try_new(arrow_schema(&old.schema).unwrap(), first).unwrap();
    let mut second = rows(&new, 2).columns().to_vec();
    second[1] = Arc::new(Int64Array::from_iter_values(2000..4000));
    let second = RecordBatch::try_new(arrow_schema(&new.schema).unwrap(), second).unwrap();
    let mut inputs = world.write(first, &old).await;
    inputs.extend(world.write(second, &new).await);
    let (files, _) = world.rewrite(&inputs, &new, Clustering::Sort, &options()).await.unwrap();
    assert_eq!((files.len(), files[0].entry.schema_id), (1, 1));
    let found = world.rows(&[files[0].entry.clone()], &new.schema).await;
    // NaN and -0.0 sort as Iceberg has it, not as Arrow: compare by the unique column.
    let mut by_id = new.clone();
    by_id.sort_order = order(&[ID]);
    let wanted = world.rows(&inputs, &new.schema).await;
    same(&by_arrow(&found, &by_id), &by_arrow(&wanted, &by_id));
    assert!(found.column(0).null_count() >= 2000);
}

#[tokio::test]
async fn deleted_rows_are_left_out_and_nothing_else() {
    let world = World::new();
    let layout = stretched();
    let mut inputs = world.write(stretch(&layout, 0..30_000, 1), &layout).await;
    inputs.extend(world.write(stretch(&layout, 15_000..40_000, 1), &layout).await);
    let deleted: Vec<u64> = (0..30_000).filter(|row| row % 5 == 0 || (9000..19_000).contains(row)).collect();
    let mut given: Vec<RewriteInput> = inputs.iter().cloned().map(RewriteInput::new).collect();
    given[0].deleted = Some(Arc::new(DeletedRows::new(deleted.clone())));
    let job = RewriteJob { inputs: given, layout: layout.clone(), cluster: Clustering::Sort, old: None };
    let (files, stats) = rewrite(job, &world.store, &world.at, &options()).await.unwrap();
    assert_eq!(stats.deleted_rows, deleted.len() as u64);
    let found = world.rows(&[files[0].entry.clone()], &layout.schema).await;
    let kept = (0..30_000).filter(|row| deleted.binary_search(&(*row as u64)).is_err());
    let mut wanted: Vec<i64> = kept.chain(15_000..40_000).collect();
    wanted.sort_unstable();
    assert_eq!(found.column(0).as_primitive::<Int64Type>().values().to_vec(), wanted);
}

#[tokio::test]
async fn unsorted_inputs_are_sorted_in_pieces() {
    let world = World::new();
    let layout = stretched();
    let mut unsorted = layout.clone();
    unsorted.sort_order = SortOrder::default();
    let rows = stretch(&layout, 0..600_000, 5);
    let mut places: Vec<u32> = (0..600_000).collect();
    places.shuffle(&mut testing::rng(1));
    let shuffled = take_record_batch(&rows, &UInt32Array::from(places)).unwrap();
    let mut inputs = Vec::new();
    for part in 0..3 {
        inputs.extend(world.write(shuffled.slice(part * 150_000, 150_000), &unsorted).await);
    }
    inputs.extend(world.write(shuffled.slice(450_000, 150_000), &layout).await);
    let (files, stats) = world.rewrite(&inputs, &layout, Clustering::Sort, &options()).await.unwrap();
    assert!(stats.spilled_bytes > 0);
    let entries: Vec<FileEntry> = files.iter().map(|file| file.entry.clone()).collect();
    assert!(entries.iter().all(|file| file.sort_order_id == 4));
    same(&world.rows(&entries, &layout.schema).await, &rows);
    let few = RewriteOptions { spill_bytes_max: 1000, ..options() };
    let error = world.rewrite(&inputs, &layout, Clustering::Sort, &few).await.unwrap_err();
    assert!(matches!(error, DataFileError::Spill { .. }), "{error}");
}

#[tokio::test]
async fn curves_keep_every_row_and_narrow_every_column() {
    let fields = vec![
        Field::required(1, "x", P::Long.into()),
        Field::required(2, "y", P::Int.into()),
        Field::required(ID, "key", P::Long.into()),
    ];
    let side = 300_i64;
    for cluster in [Clustering::ZOrder, Clustering::Hilbert] {
        let world = World::new();
        let mut layout = layout(Schema::new(1, fields.clone()), &[1, 2]);
        layout.files.row_group_bytes = 16 << 10;
        let arrow = arrow_schema(&layout.schema).unwrap();
        let ids = 0..side * side;
        let all = RecordBatch::try_new(
            arrow,
            vec![
                Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id % side * 1000 - 7))),
                Arc::new(Int32Array::from_iter_values(ids.clone().map(|id| (id / side) as i32))),
                Arc::new(Int64Array::from_iter_values(ids)),
            ],
        )
        .unwrap();
        let mut inputs = Vec::new();
        for part in 0..3 {
            inputs.extend(world.write(all.slice(part * 30_000, 30_000), &layout).await);
        }
        let (files, _) = world.rewrite(&inputs, &layout, cluster, &options()).await.unwrap();
        assert_eq!((files.len(), files[0].entry.sort_order_id), (1, 0));
        assert!(files[0].details.key_range.is_none());
        let found = world.rows(&[files[0].entry.clone()], &layout.schema).await;
        let mut by_id = layout.clone();
        by_id.sort_order = order(&[ID]);
        same(&by_arrow(&found, &by_id), &all);
        // A stretch of rows spans little of either column; sorted by x and y it would span all of y.
        for column in 0..2 {
            let mut spans = 0.0;
            for stretch in 0..45 {
                let rows = found.column(column).slice(stretch * 2000, 2000);
                let values = arrow::compute::cast(&rows, &arrow::datatypes::DataType::Int64).unwrap();
                let values = values.as_primitive::<Int64Type>().values().to_vec();
                spans += (values.iter().max().unwrap() - values.iter().min().unwrap()) as f64;
            }
            let all = if column == 0 { (side - 1) as f64 * 1000.0 } else { (side - 1) as f64 };
            let mean = spans / 45.0 / all;
            assert!(mean < 0.5, "{cluster:?}: column {column} spans {mean} of its range");
        }
    }
}

#[tokio::test]
async fn wrong_inputs_are_refused() {
    let world = World::new();
    let layout = stretched();
    let mut inputs = world.write(stretch(&layout, 0..30_000, 1), &layout).await;
    let mut unsorted = layout.clone();
    unsorted.sort_order = SortOrder::default();
    let rows = stretch(&layout, 0..30_000, 2);
    let turned: UInt32Array = (0..30_000).rev().collect();
    let turned = take_record_batch(&rows, &turned).unwrap();
    let mut lying = world.write(turned, &unsorted).await;
    lying[0].sort_order_id = 4;
    inputs.extend(lying);
    let refused = |error: DataFileError| matches!(error, DataFileError::Corrupt { .. });
    let run = async |inputs: &[FileEntry]| {
        world.rewrite(inputs, &layout, Clustering::Sort, &options()).await.unwrap_err()
    };
    assert!(refused(run(&inputs).await), "a file that is not in the order it names");
    assert!(refused(run(&inputs[1..]).await), "the same alone");
    let mut partitioned = layout.clone();
    partitioned.partition_spec = PartitionSpec {
        spec_id: 0,
        fields: vec![PartitionField {
            source_id: ID,
            field_id: 1000,
            name: "key_bucket".into(),
            transform: Transform::Bucket(2),
        }],
    };
    let two = world.write(stretch(&layout, 0..100, 1), &partitioned).await;
    assert_eq!(two.len(), 2);
    let error = world.rewrite(&two, &partitioned, Clustering::Sort, &options()).await.unwrap_err();
    assert!(matches!(error, DataFileError::OtherPartition { .. }), "{error}");
    let (one, _) = world.rewrite(&two[..1], &partitioned, Clustering::Sort, &options()).await.unwrap();
    assert_eq!(one[0].entry.partition_token, two[0].partition_token);
    assert_eq!(one[0].details.partition.len(), 1);
    let mut gone = inputs[..1].to_vec();
    gone[0].path = "data/gone.parquet".into();
    assert!(matches!(run(&gone).await, DataFileError::Store { .. }));
    let cut = footer::location(&world.at, &inputs[0].path);
    let bytes = world.store.get(&cut).await.unwrap().bytes().await.unwrap();
    world.store.put(&cut, PutPayload::from_bytes(bytes.slice(..bytes.len() - 9))).await.unwrap();
    assert!(refused(run(&inputs[..1]).await), "a file of another size");
}

#[test]
fn rows_that_differ_are_an_error() {
    let mut read = Checksum::default();
    read.add(&[1, 2, 3]);
    let mut other = Checksum::default();
    other.add(&[1, 2, 4]);
    let mut turned = Checksum::default();
    turned.add(&[3, 1, 2]);
    assert_eq!(same_rows(read, turned, 2, 5), Ok(()));
    assert_eq!(same_rows(read, other, 2, 5), Err(DataFileError::RowsDiffer { read: 5, written: 5 }));
    assert_eq!(same_rows(read, turned, 2, 6), Err(DataFileError::RowsDiffer { read: 6, written: 5 }));
}

#[test]
fn deleted_positions_become_ranges() {
    let deleted = DeletedRows::new(vec![7, 3, 4, 4, 9, 5]);
    assert_eq!(deleted.ranges, [3..6, 7..8, 9..10]);
    assert_eq!(deleted.rows(), 5);
}
