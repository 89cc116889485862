//! Thousands of partitions in one flush cost no more memory than one: counted by the allocator.

#![allow(unsafe_code, clippy::unwrap_used, missing_docs)]

mod counting;

use std::sync::{Arc, atomic::Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use siltstone_datafile::{Layout, arrow_schema, write_sorted};
use siltstone_protocol::{Field, PartitionField, PartitionSpec, PrimitiveType, Schema, SortOrder, Transform};
use siltstone_spec::{Compression, Files};

use counting::{NOW, PEAK};

fn flush(schema: &Schema, rows: i64, partitions: i64) -> RecordBatch {
    let parts = (0..rows).map(|n| n * 7919 % partitions);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(parts.collect::<Int64Array>()),
        Arc::new(
            (0..rows)
                .map(|n| Some(format!("{:x}", n.wrapping_mul(0x2545_f491_4f6c_dd1d))))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(arrow_schema(schema).unwrap(), columns).unwrap()
}

async fn peak(partitions: i64) -> (usize, usize) {
    let fields = vec![
        Field::required(1, "part", PrimitiveType::Long.into()),
        Field::required(2, "text", PrimitiveType::String.into()),
    ];
    let field =
        PartitionField { source_id: 1, field_id: 1000, name: "part".into(), transform: Transform::Identity };
    let layout = Layout {
        schema: Arc::new(Schema::new(0, fields)),
        partition_spec: PartitionSpec { spec_id: 0, fields: vec![field] },
        sort_order: SortOrder::default(),
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 128 << 20,
            compression: Compression::Zstd { level: 1 },
            bloom_filters: vec!["text".into()],
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([1; 32]),
        host: Default::default(),
    };
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let batch = flush(&layout.schema, 100_000, partitions);
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let written = write_sorted(vec![batch], &layout, &store, &Path::from("t")).await.unwrap();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert_eq!(written.len(), partitions as usize);
    assert_eq!(written.iter().map(|file| file.entry.rows).sum::<u64>(), 100_000);
    (peak, written.len())
}

#[tokio::test]
async fn five_thousand_partitions_cost_no_more_than_one() {
    let (one, _) = peak(1).await;
    let (many, files) = peak(5000).await;
    // What is returned grows with the files: names, bounds and counts, well below 4 KiB each.
    let returned = files * 4096;
    assert!(many < one + returned, "{many} bytes at the peak, {one} with one partition");
    assert!(one < 32 << 20, "{one}");
}
