//! A rewrite holds no more than its budget, whatever the number and size of its inputs: counted by the
//! allocator.

#![allow(unsafe_code, clippy::unwrap_used, missing_docs)]

mod counting;

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringBuilder};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use siltstone_datafile::{
    Layout, RewriteInput, RewriteJob, RewriteOptions, RewriteStats, arrow_schema, rewrite, write_sorted,
};
use siltstone_protocol::{
    Field, FileEntry, NullOrder, PartitionSpec, PrimitiveType, Schema, SortDirection, SortField, SortOrder,
    Transform,
};
use siltstone_spec::{Clustering, Compression, Files};

use counting::{NOW, PEAK};

const BUDGET: usize = 128 << 20;
const COLUMNS: i32 = 4;

fn layout() -> Layout {
    let mut fields = vec![Field::required(1, "id", PrimitiveType::Long.into())];
    fields.extend(
        (2..2 + COLUMNS).map(|id| Field::optional(id, format!("text{id}"), PrimitiveType::String.into())),
    );
    let key = SortField {
        transform: Transform::Identity,
        source_id: 1,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    Layout {
        schema: Arc::new(Schema::new(0, fields)),
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder { order_id: 1, fields: vec![key] },
        files: Files {
            target_size: 512 << 20,
            row_group_bytes: 64 << 20,
            compression: Compression::Lz4,
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([1; 32]),
        host: Default::default(),
    }
}

/// Rows of about 470 bytes that do not compress; ids interleave with those of other files.
fn rows(layout: &Layout, rows: i64, file: i64, files: i64) -> RecordBatch {
    let ids = (0..rows).map(|row| row * files + file);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(ids))];
    for column in 0..i64::from(COLUMNS) {
        let mut text = String::new();
        let mut texts = StringBuilder::new();
        for row in 0..rows {
            let mut word = (row * 31 + column * 7 + file).wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_pow(2);
            text.clear();
            for _ in 0..7 {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                write!(text, "{word:016x}").unwrap();
            }
            texts.append_value(&text);
        }
        columns.push(Arc::new(texts.finish()));
    }
    RecordBatch::try_new(arrow_schema(&layout.schema).unwrap(), columns).unwrap()
}

async fn peak(files: i64, rows_of_file: i64, cluster: Clustering) -> (usize, RewriteStats) {
    let layout = layout();
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let mut inputs: Vec<FileEntry> = Vec::new();
    for file in 0..files {
        let batch = rows(&layout, rows_of_file, file, files);
        let written = write_sorted(vec![batch], &layout, &store, &Path::from("t")).await.unwrap();
        inputs.extend(written.into_iter().map(|file| file.entry));
    }
    let inputs = inputs.into_iter().map(RewriteInput::new).collect();
    let job = RewriteJob { inputs, layout, cluster, old: None };
    let options = RewriteOptions {
        memory_bytes: BUDGET as u64,
        spill_dir: directory.path().to_path_buf(),
        ..RewriteOptions::default()
    };
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (_, stats) = rewrite(job, &store, &Path::from("t"), &options).await.unwrap();
    assert_eq!(stats.rows as i64, files * rows_of_file);
    (PEAK.load(Ordering::Relaxed) - before, stats)
}

#[tokio::test]
async fn a_rewrite_stays_within_its_budget() {
    for (files, rows, cluster) in
        [(45, 4_000, Clustering::Sort), (2, 90_000, Clustering::Sort), (3, 60_000, Clustering::ZOrder)]
    {
        let (peak, stats) = peak(files, rows, cluster).await;
        assert!(stats.input_bytes > BUDGET as u64 / 2, "{}", stats.input_bytes);
        assert!(peak < BUDGET, "{files} files of {rows} rows: {} MiB at the peak, {stats:?}", peak >> 20);
    }
}
