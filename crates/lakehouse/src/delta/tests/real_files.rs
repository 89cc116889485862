//! Real data files of every type that Delta shows: the log says the same from memory and from footers. With
//! `SILTSTONE_DELTA_DIR` set, the table is left there, with what a reader should find in `expected.json`.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
        TimestampMicrosecondArray,
    },
    datatypes::DataType,
};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use siltstone_datafile::{Layout, arrow_schema, write_sorted};
use siltstone_protocol::{
    Change, Field, Format, OffsetRange, PartitionField, PartitionSpec, PrimitiveType as P, Schema, SortOrder,
    Transform, Type,
};
use siltstone_spec::{Compression, Files};

use super::super::DeltaTable;
use crate::{
    details::DetailsCache,
    format::{ProjectionOptions, TableFormat},
    ledger::Ledger,
};

const ROUNDS: i64 = 3;
const ROWS: i64 = 40;

fn schema() -> Schema {
    let decimal = P::Decimal { precision: 38, scale: 10 };
    let inner = Type::Struct(vec![Field::required(21, "in", P::String.into())]);
    let primitives = [
        P::Int,
        decimal,
        P::Date,
        P::Timestamptz,
        P::Timestamp,
        P::String,
        P::Uuid,
        P::Binary,
        P::Double,
        P::Boolean,
        P::String,
    ];
    let names = ["part", "amount", "day", "at", "local_at", "text", "uuid", "bytes", "float", "flag", "word"];
    let mut fields = vec![Field::required(1, "id", P::Long.into())];
    fields
        .extend((2..).zip(names).zip(primitives).map(|((id, name), p)| Field::optional(id, name, p.into())));
    fields.push(Field::optional(20, "nested", inner));
    Schema::new(0, fields)
}

fn spec() -> PartitionSpec {
    let identity = |source_id: i32, field_id: i32, name: &str| PartitionField {
        source_id,
        field_id,
        name: name.to_owned(),
        transform: Transform::Identity,
    };
    let month = PartitionField {
        source_id: 4,
        field_id: 1002,
        name: "day_month".into(),
        transform: Transform::Month,
    };
    let (part, at, word) = (identity(2, 1000, "part"), identity(5, 1001, "at"), identity(12, 1003, "word"));
    PartitionSpec { spec_id: 0, fields: vec![month, part, at, word] }
}

/// Rows `from..from + ROWS`; every fifth has nulls.
fn batch(from: i64) -> RecordBatch {
    let ids: Vec<i64> = (from..from + ROWS).collect();
    fn opt<T>(ids: &[i64], value: impl Fn(i64) -> T) -> Vec<Option<T>> {
        ids.iter().map(|id| (id % 5 != 0).then(|| value(*id))).collect()
    }
    let schema = arrow_schema(&schema()).unwrap();
    let DataType::Struct(inner) = schema.field(12).data_type().clone() else { panic!("a struct") };
    let text = |id: i64| format!("text-{id:04}-é{}", "x".repeat(40));
    let uuids = opt(&ids, |id| [u8::try_from(id % 251).unwrap(); 16]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(Int32Array::from(ids.iter().map(|id| (id % 3 != 0).then_some(1)).collect::<Vec<_>>())),
        Arc::new(
            Decimal128Array::from(opt(&ids, |id| i128::from(id) * 10_i128.pow(34) + 7))
                .with_precision_and_scale(38, 10)
                .unwrap(),
        ),
        Arc::new(Date32Array::from(opt(&ids, |id| 19_000 + i32::try_from(id).unwrap()))),
        Arc::new(
            TimestampMicrosecondArray::from(
                ids.iter().map(|id| 1_700_000_000_000_001 + id % 2).collect::<Vec<_>>(),
            )
            .with_timezone("+00:00"),
        ),
        Arc::new(TimestampMicrosecondArray::from(opt(&ids, |id| 1_700_000_000_000_999 + id))),
        Arc::new(StringArray::from(opt(&ids, text))),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16).unwrap()),
        Arc::new(BinaryArray::from_iter(opt(&ids, |id| id.to_be_bytes()))),
        Arc::new(Float64Array::from(opt(&ids, |id| if id % 7 == 0 { f64::NAN } else { id as f64 / 4.0 }))),
        Arc::new(BooleanArray::from(opt(&ids, |id| id % 2 == 0))),
        Arc::new(StringArray::from(opt(&ids, |id| if id % 2 == 0 { "" } else { "a" }))),
        Arc::new(StructArray::new(
            inner,
            vec![Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("in-{id}"))))],
            None,
        )),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_the_same_from_memory_and_from_footers() {
    let temporary = tempfile::tempdir().unwrap();
    let directory =
        std::env::var_os("SILTSTONE_DELTA_DIR").map_or(temporary.path().into(), std::path::PathBuf::from);
    std::fs::create_dir_all(&directory).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&directory).unwrap());
    let location = Path::from("shop/orders");
    let ledger = Ledger::new(Arc::clone(&store), location.clone());
    let create = Change::Create {
        name: "shop.orders".into(),
        schema: schema(),
        partition_spec: spec(),
        sort_order: SortOrder::default(),
        formats: vec![Format::Delta],
    };
    let mut state = ledger.create(create, "create", 1_700_000_000_000).await.unwrap();
    let files = Files {
        target_size: 64 << 20,
        row_group_bytes: 8 << 20,
        compression: Compression::Zstd { level: 1 },
        bloom_filters: Vec::new(),
    };
    let layout = Layout {
        schema: Arc::new(schema()),
        partition_spec: spec(),
        sort_order: SortOrder::default(),
        files,
        annotate_uuids: false,
        names: Default::default(),
        token_key: ledger.token_key().await.unwrap(),
        host: Default::default(),
    };
    let details = DetailsCache::default();
    let new =
        || DeltaTable::new(Arc::clone(&store), location.clone(), String::new(), ProjectionOptions::default());
    let mut table = new();
    table.catch_up(&ledger, &state, &details).await.unwrap();
    for round in 0..ROUNDS {
        let written = write_sorted(vec![batch(round * ROWS)], &layout, &store, &location).await.unwrap();
        let files = written.into_iter().map(|file| {
            details.insert(file.details);
            file.entry
        });
        let range = OffsetRange {
            cluster: "c".into(),
            topic: "t".into(),
            partition: 0,
            start: round * ROWS,
            end: (round + 1) * ROWS,
            lost: false,
        };
        let change = Change::append(files.collect(), vec![range], vec![]);
        ledger.commit(&mut state, change, &format!("c{round}"), 1_700_000_000_000).await.unwrap();
        table.catch_up(&ledger, &state, &details).await.unwrap();
    }
    let log = Path::from(format!("{location}/data/_delta_log/{:020}.json", ROUNDS));
    let from_memory = store.get(&log).await.unwrap().bytes().await.unwrap();
    store.delete(&log).await.unwrap();
    new().catch_up(&ledger, &state, &DetailsCache::default()).await.unwrap();
    let from_footers = store.get(&log).await.unwrap().bytes().await.unwrap();
    assert_eq!(from_memory, from_footers);
    assert_partitions(&store, &location, &from_memory).await;
    table.checkpoint().await.unwrap();
    let rows = ROUNDS * ROWS;
    let expected =
        serde_json::json!({ "rows": rows, "files": state.live_files.len(), "sum_id": rows * (rows - 1) / 2 });
    std::fs::write(directory.join("expected.json"), expected.to_string()).unwrap();
}

/// Of the identity fields only `part` is a partition column: the empty string and null of `word` are told
/// apart by the files and their statistics alone.
async fn assert_partitions(store: &Arc<dyn ObjectStore>, location: &Path, commit: &[u8]) {
    let first = Path::from(format!("{location}/data/_delta_log/{:020}.json", 0));
    let first = store.get(&first).await.unwrap().bytes().await.unwrap();
    let lines = |bytes: &[u8]| -> Vec<serde_json::Value> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    };
    let metadata = lines(&first).into_iter().find_map(|line| line.get("metaData").cloned()).unwrap();
    assert_eq!(metadata["partitionColumns"], serde_json::json!(["part"]));
    let mut words = std::collections::BTreeSet::new();
    for add in lines(commit).iter().filter_map(|line| line.get("add")) {
        let values: Vec<&String> = add["partitionValues"].as_object().unwrap().keys().collect();
        assert_eq!(values, ["part"]);
        let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        let (low, high) = (stats["minValues"]["word"].clone(), stats["maxValues"]["word"].clone());
        assert_eq!(low, high);
        assert_eq!(stats["nullCount"]["word"] == stats["numRecords"], low.is_null());
        words.insert(low.as_str().map(str::to_owned));
    }
    assert_eq!(words, [None, Some(String::new()), Some("a".to_owned())].into());
}
