//! A bulk writer holds no more than its budget over thousands of partitions: counted by the allocator.

#![allow(unsafe_code, clippy::unwrap_used, missing_docs)]

mod counting;

use std::sync::{Arc, atomic::Ordering};

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use siltstone_datafile::{BulkOptions, BulkWriter, Layout, arrow_schema};
use siltstone_protocol::{
    Field, NullOrder, PartitionField, PartitionSpec, PrimitiveType, Schema, SortDirection, SortField,
    SortOrder, Transform,
};
use siltstone_spec::{Compression, Files};

use counting::{NOW, PEAK};

const BUDGET: usize = 128 << 20;
const PARTITIONS: i32 = 3_000;
const BATCHES: i64 = 60;
const ROWS: i64 = 20_000;

fn layout() -> Layout {
    let fields = vec![
        Field::required(1, "day", PrimitiveType::Date.into()),
        Field::required(2, "id", PrimitiveType::Long.into()),
        Field::optional(3, "text", PrimitiveType::String.into()),
    ];
    let day = PartitionField {
        source_id: 1,
        field_id: 1000,
        name: "day".to_owned(),
        transform: Transform::Identity,
    };
    let key = SortField {
        transform: Transform::Identity,
        source_id: 2,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    Layout {
        schema: Arc::new(Schema::new(0, fields)),
        partition_spec: PartitionSpec { spec_id: 1, fields: vec![day] },
        sort_order: SortOrder { order_id: 1, fields: vec![key] },
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 8 << 20,
            compression: Compression::Lz4,
            bloom_filters: vec!["id".to_owned()],
        },
        annotate_uuids: true,
        names: Arc::default(),
        token_key: Arc::new([1; 32]),
        host: Default::default(),
    }
}

/// Rows of about 220 bytes, every partition among them.
fn rows(layout: &Layout, number: i64) -> RecordBatch {
    let ids: Vec<i64> =
        (0..ROWS).map(|row| (row * BATCHES + number).wrapping_mul(0x2545_f491_4f6c_dd1d)).collect();
    let days = ids.iter().map(|id| (id.rem_euclid(i64::from(PARTITIONS))) as i32);
    let texts = ids.iter().map(|id| format!("{id:016x}").repeat(12));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from_iter_values(days)),
        Arc::new(Int64Array::from_iter_values(ids.iter().copied())),
        Arc::new(StringArray::from_iter_values(texts)),
    ];
    RecordBatch::try_new(arrow_schema(&layout.schema).unwrap(), columns).unwrap()
}

#[tokio::test]
async fn thousands_of_partitions_stay_within_the_budget() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let options = BulkOptions {
        memory_bytes: BUDGET as u64,
        spill_dir: directory.path().to_path_buf(),
        ..BulkOptions::default()
    };
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut writer = BulkWriter::new(layout(), store, Path::from("t"), options).unwrap();
    for number in 0..BATCHES {
        writer.push(rows(&layout(), number)).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let (stats, written) = (writer.stats(), files.iter().map(|file| file.entry.rows).sum::<u64>());
    assert_eq!((files.len(), written), (PARTITIONS as usize, (BATCHES * ROWS) as u64));
    assert!(stats.spilled_bytes > BUDGET as u64, "{stats:?}");
    assert!(peak < BUDGET, "{} MiB at the peak, {stats:?}", peak >> 20);
}
