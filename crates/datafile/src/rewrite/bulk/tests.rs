use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::Int64Type};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use siltstone_protocol::{
    Field, NullOrder, PartitionField, PartitionSpec, PrimitiveType, SortDirection, SortField, SortOrder,
    Transform,
};
use siltstone_spec::{Compression, Files};

use super::*;
use crate::{layout::tests::every_type, read_batches, testing};

const KEY: i32 = 20;

fn layout(schema: Schema) -> Layout {
    let field = |source_id, transform, name: &str| PartitionField {
        source_id,
        field_id: 1000 + source_id,
        name: name.to_owned(),
        transform,
    };
    let key = SortField {
        transform: Transform::Identity,
        source_id: KEY,
        direction: SortDirection::Desc,
        null_order: NullOrder::NullsLast,
    };
    Layout {
        schema: Arc::new(schema),
        partition_spec: PartitionSpec {
            spec_id: 1,
            fields: vec![field(1, Transform::Identity, "flag"), field(KEY, Transform::Bucket(7), "bucket")],
        },
        sort_order: SortOrder { order_id: 2, fields: vec![key] },
        files: Files {
            target_size: 64 << 10,
            row_group_bytes: 16 << 10,
            compression: Compression::Lz4,
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Arc::default(),
        token_key: Arc::new([7; 32]),
        host: Default::default(),
    }
}

struct World {
    store: Arc<dyn ObjectStore>,
    at: Path,
    schema: Schema,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), at: Path::from("shop/orders"), schema: every_type() }
    }

    fn writer(&self) -> BulkWriter {
        let (store, at) = (Arc::clone(&self.store), self.at.clone());
        BulkWriter::new(layout(self.schema.clone()), store, at, BulkOptions::default()).unwrap()
    }

    async fn batches(&self, file: &WrittenFile, schema: &Schema) -> Vec<RecordBatch> {
        let batches = read_batches(&self.store, &self.at, &file.entry, schema).await.unwrap();
        batches.try_collect().await.unwrap()
    }

    /// All rows as texts, in any order; each file's are checked to be in theirs, and of one partition.
    async fn rows(&self, files: &[WrittenFile], schema: &Schema) -> Vec<String> {
        let mut rows = Vec::new();
        let mut ranges: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
        for file in files {
            let batches = self.batches(file, schema).await;
            let keys: Vec<i64> = batches
                .iter()
                .flat_map(|batch| {
                    batch.column_by_name("key").unwrap().as_primitive::<Int64Type>().values().to_vec()
                })
                .collect();
            assert!(keys.windows(2).all(|pair| pair[0] >= pair[1]), "a file is not in its order");
            let partition = file.entry.partition_token.clone().unwrap();
            ranges.entry(partition).or_default().push((keys[0], *keys.last().unwrap()));
            rows.extend(batches.iter().flat_map(texts));
        }
        // Files of one partition follow each other: nothing is left to be compacted.
        for ranges in ranges.values() {
            assert!(ranges.windows(2).all(|pair| pair[0].1 >= pair[1].0), "files of a partition overlap");
        }
        rows.sort_unstable();
        rows
    }
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let text = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(text).collect()
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches.iter().flat_map(texts).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn files_hold_what_was_pushed_spilled_or_not() {
    for spills in [0, 1, 5] {
        let world = World::new();
        let mut writer = world.writer();
        let mut rng = testing::rng(spills);
        let mut pushed = Vec::new();
        for round in 0..=spills {
            for rows in [1, 700, 3, 9_000] {
                let batch = testing::batch(&world.schema, rows, &mut rng);
                pushed.push(batch.clone());
                writer.push(batch).await.unwrap();
            }
            if round < spills {
                writer.spill().await.unwrap();
            }
        }
        assert!(!writer.is_empty());
        let files = writer.finish().await.unwrap();
        assert!(writer.is_empty());
        assert_eq!(world.rows(&files, &world.schema).await, sorted(&pushed), "{spills} spills");
        // The writer goes on with the next commit, from nothing.
        writer.push(pushed[1].clone()).await.unwrap();
        let files = writer.finish().await.unwrap();
        assert_eq!(world.rows(&files, &world.schema).await, sorted(&pushed[1..2]));
        assert!(writer.finish().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn more_runs_than_there_is_room_for_are_merged_in_steps() {
    let world = World::new();
    let mut writer = world.writer();
    let mut rng = testing::rng(9);
    let mut pushed = Vec::new();
    for _ in 0..150 {
        let batch = testing::batch(&world.schema, 20, &mut rng);
        pushed.push(batch.clone());
        writer.push(batch).await.unwrap();
        writer.spill().await.unwrap();
    }
    assert_eq!(writer.stats().spills, 150);
    let files = writer.finish().await.unwrap();
    assert_eq!(world.rows(&files, &world.schema).await, sorted(&pushed));
}

#[tokio::test]
async fn what_was_pushed_before_the_schema_grew_is_of_the_new_one() {
    let world = World::new();
    let mut grown = world.schema.clone();
    grown.schema_id += 1;
    grown.fields.push(Field::optional(90, "added", PrimitiveType::String.into()));
    let wide = grown.fields.iter_mut().find(|field| field.name == "c2").unwrap();
    wide.data_type = PrimitiveType::Long.into();
    let mut writer = world.writer();
    let mut rng = testing::rng(3);
    let mut old = Vec::new();
    for round in 0..3 {
        let batch = testing::batch(&world.schema, 500, &mut rng);
        old.push(batch.clone());
        writer.push(batch).await.unwrap();
        if round == 0 {
            writer.spill().await.unwrap();
        }
        if round == 1 {
            writer.set_schema(Arc::new(grown.clone()), writer.names()).unwrap();
        }
    }
    let new = testing::batch(&grown, 500, &mut rng);
    writer.push(new.clone()).await.unwrap();
    let files = writer.finish().await.unwrap();
    assert!(files.iter().all(|file| file.entry.schema_id == grown.schema_id));
    let arrow = arrow_schema(&grown).unwrap();
    let mut wanted: Vec<RecordBatch> = old.iter().map(|batch| adapt(batch, &arrow).unwrap()).collect();
    wanted.push(new);
    assert_eq!(world.rows(&files, &grown).await, sorted(&wanted));
}

#[tokio::test]
async fn a_writer_is_full_at_its_share_of_the_disk_and_can_forget() {
    let world = World::new();
    let mut writer = world.writer();
    writer.options.spill_bytes_max = 1;
    assert!(!writer.is_full());
    writer.push(testing::batch(&world.schema, 100, &mut testing::rng(1))).await.unwrap();
    writer.spill().await.unwrap();
    assert!(writer.is_full());
    writer.clear();
    assert!(!writer.is_full() && writer.is_empty());
    assert!(writer.finish().await.unwrap().is_empty());
}

/// What could not be spilled is still there: files that lack it would be committed with its offsets.
#[tokio::test]
async fn rows_outlive_a_disk_that_failed() {
    let world = World::new();
    let mut writer = world.writer();
    let whole = tempfile::tempdir().unwrap();
    let gone = whole.path().join("gone");
    writer.options.spill_dir = gone.clone();
    for seed in 1..4 {
        writer.push(testing::batch(&world.schema, 300, &mut testing::rng(seed))).await.unwrap();
    }
    assert!(matches!(writer.spill().await, Err(DataFileError::Spill { .. })));
    std::fs::create_dir(&gone).unwrap();
    writer.spill().await.unwrap();
    writer.push(testing::batch(&world.schema, 50, &mut testing::rng(9))).await.unwrap();
    std::fs::remove_dir(&gone).unwrap();
    assert!(matches!(writer.finish().await, Err(DataFileError::Spill { .. })));
    assert!(
        matches!(writer.finish().await, Err(DataFileError::Spill { .. })),
        "it does not get by with less"
    );
    std::fs::create_dir(&gone).unwrap();
    let files = writer.finish().await.unwrap();
    assert_eq!(files.iter().map(|file| file.entry.rows).sum::<u64>(), 950);
    assert!(writer.is_empty());
}
