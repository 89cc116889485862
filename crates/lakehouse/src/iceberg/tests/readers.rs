//! A real table on disk, for readers that are not Rust.
//!
//! With `SILTSTONE_TABLE_DIR` set, the table is left there and `expected.json` beside it says what a reader
//! must find; without, it is made in a temporary directory and read back here.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    compute::concat_batches,
};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use siltstone_datafile::{Layout, WrittenFile, arrow_schema, write_sorted};
use siltstone_protocol::{
    Change, Field, FileEntry, Format, OffsetRange, PartitionSpec, PrimitiveType, Schema, Transform,
};
use siltstone_spec::{Compression, Files};

use super::rig::{field, order};
use crate::{
    details::DetailsCache,
    format::{ProjectionOptions, TableFormat},
    iceberg::IcebergTable,
    ledger::Ledger,
};

fn schema() -> Schema {
    Schema::new(
        0,
        vec![
            Field::required(1, "id", PrimitiveType::Long.into()),
            Field::required(2, "ordered_at", PrimitiveType::Timestamptz.into()),
            Field::optional(3, "shop", PrimitiveType::String.into()),
            Field::required(4, "amount", PrimitiveType::Decimal { precision: 9, scale: 2 }.into()),
        ],
    )
}

fn spec() -> PartitionSpec {
    let fields = vec![
        field(2, 1000, "ordered_at_day", Transform::Day),
        field(1, 1001, "id_bucket", Transform::Bucket(4)),
        field(3, 1002, "shop", Transform::Identity),
    ];
    PartitionSpec { spec_id: 0, fields }
}

/// Rows `first..first+count`: an hour apart, three shops and a null one.
fn batch(first: i64, count: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + count).collect();
    let times: Vec<i64> = ids.iter().map(|id| 1_700_000_000_000_000 + id * 3_600_000_000).collect();
    let shops: Vec<_> = ids.iter().map(|id| (id % 4 != 3).then(|| format!("shop-{}", id % 4))).collect();
    let amounts: Vec<i128> = ids.iter().map(|id| i128::from(id * 7 - 300)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("+00:00")),
        Arc::new(StringArray::from(shops)),
        Arc::new(Decimal128Array::from(amounts).with_precision_and_scale(9, 2).unwrap()),
    ];
    RecordBatch::try_new(arrow_schema(&schema()).unwrap(), columns).unwrap()
}

#[tokio::test]
async fn a_real_table_on_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let directory =
        std::env::var_os("SILTSTONE_TABLE_DIR").map_or(temporary.path().into(), std::path::PathBuf::from);
    let root = directory.join("shop/orders");
    std::fs::create_dir_all(&root).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&directory).unwrap());
    let location = Path::from("shop/orders");
    let url = format!("file://{}", root.display());
    let ledger = Ledger::new(Arc::clone(&store), location.clone());
    let create = Change::Create {
        name: "shop.orders".to_owned(),
        schema: schema(),
        partition_spec: spec(),
        sort_order: order(),
        formats: vec![Format::Iceberg],
    };
    let mut state = ledger.create(create, "create", 1_700_000_000_000).await.unwrap();
    let layout = Layout {
        schema: Arc::new(schema()),
        partition_spec: spec(),
        sort_order: order(),
        files: Files {
            target_size: 64 << 20,
            row_group_bytes: 8 << 20,
            compression: Compression::Zstd { level: 1 },
            bloom_filters: Vec::new(),
        },
        annotate_uuids: true,
        names: Default::default(),
        token_key: Arc::new([7; 32]),
        host: Default::default(),
    };
    let details = DetailsCache::default();
    let mut table =
        IcebergTable::new(Arc::clone(&store), location.clone(), url, ProjectionOptions::default());
    let mut first_round: Vec<FileEntry> = Vec::new();
    for round in 0..4 {
        let written = write_sorted(vec![batch(round * 30, 30)], &layout, &store, &location).await.unwrap();
        let files = keep(&details, written);
        if round == 0 {
            first_round.clone_from(&files);
        }
        let (cluster, topic) = ("prod".to_owned(), "orders".to_owned());
        let (start, end) = (round * 30, round * 30 + 30);
        let range = OffsetRange { cluster, topic, partition: 0, start, end, lost: false };
        let change = Change::append(files, vec![range], Vec::new());
        ledger.commit(&mut state, change, &format!("c{round}"), 1_700_000_000_000 + round).await.unwrap();
        table.catch_up(&ledger, &state, &details).await.unwrap();
    }
    // The first round again, as one compaction would write it.
    let same = concat_batches(&arrow_schema(&schema()).unwrap(), &[batch(0, 15), batch(15, 15)]).unwrap();
    let added = keep(&details, write_sorted(vec![same], &layout, &store, &location).await.unwrap());
    let removed = first_round.into_iter().map(|file| file.path).collect();
    ledger
        .commit(
            &mut state,
            Change::Replace { removed, added, effort: Default::default() },
            "replace",
            1_700_000_001_000,
        )
        .await
        .unwrap();
    // Shown by a process that has to read the details from the footers.
    let shown = table.catch_up(&ledger, &state, &DetailsCache::default()).await.unwrap();
    assert_eq!(shown, 5);
    let files = state.live_files.len();
    let reachable = table.reachable().await.unwrap();
    assert!(reachable.data.iter().filter(|path| state.live_files.contains_key(path)).count() == files);
    let metadata = table.metadata_url();
    let expected = serde_json::json!({"rows": 120, "files": files, "sum_id": 119 * 60, "metadata": metadata});
    std::fs::write(directory.join("expected.json"), expected.to_string()).unwrap();
}

fn keep(details: &DetailsCache, written: Vec<WrittenFile>) -> Vec<FileEntry> {
    written
        .into_iter()
        .map(|file| {
            details.insert(file.details);
            file.entry
        })
        .collect()
}
