//! A file's details from its Parquet metadata: the one way, at write time and later.
//!
//! What Parquet has no place for stands in the footer's key-value pairs:
//!
//! | key | value |
//! | --- | --- |
//! | `siltstone.partition` | spec id and partition values (single-value serialization, hex), JSON |
//! | `siltstone.nan_counts` | NaN by field id of float columns outside lists and maps, JSON |
//! | `siltstone.key_range` | sort order id, least and greatest sort key (`sort_key`, hex), JSON |
//! | `siltstone.schema_id`, `siltstone.sort_order_id` | numbers |
//! | `iceberg.schema` | the table schema, JSON |

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use object_store::{GetOptions, GetRange, ObjectStore, path::Path};
use parquet::{
    arrow::async_reader::MetadataFetch,
    errors::ParquetError,
    file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
};
use siltstone_protocol::{FileEntry, PartitionSpec, PrimitiveType, Schema, Type};

use crate::{
    bounds::Bounds,
    details::{ColumnStats, FileDetails},
    error::{DataFileError, Result},
    partition::{PartitionValues, partition_types},
    sort_key::KeyRange,
};

pub(crate) const PARTITION_KEY: &str = "siltstone.partition";
pub(crate) const NAN_COUNTS_KEY: &str = "siltstone.nan_counts";
pub(crate) const KEY_RANGE_KEY: &str = "siltstone.key_range";
pub(crate) const SCHEMA_ID_KEY: &str = "siltstone.schema_id";
pub(crate) const SORT_ORDER_ID_KEY: &str = "siltstone.sort_order_id";
pub(crate) const ICEBERG_SCHEMA_KEY: &str = "iceberg.schema";

/// Bytes read from the end at first: holds the footer of all but very wide files, so one request is enough.
const FOOTER_GUESS: usize = 64 * 1024;

/// Reads a file's details from its footer; the same as when it was written.
///
/// # Errors
/// `Store`; `Corrupt` when the object is not the file that the entry names.
pub async fn read_details(
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    entry: &FileEntry,
    schema: &Schema,
    spec: &PartitionSpec,
) -> Result<FileDetails> {
    let metadata = read_metadata(store, table_location, entry, PageIndexPolicy::Skip).await?;
    details(&metadata, entry, schema, spec)
}

/// Where a file is.
pub(crate) fn location(table_location: &Path, path: &str) -> Path {
    Path::from_iter(table_location.parts().chain(Path::from(path).parts()))
}

pub(crate) async fn read_metadata(
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    entry: &FileEntry,
    page_index: PageIndexPolicy,
) -> Result<ParquetMetaData> {
    let path = location(table_location, &entry.path);
    read_metadata_at(store, &path, None, &entry.path, entry.bytes, page_index).await
}

/// Bytes of an object: of the content that has this tag, where one is known.
pub(crate) async fn fetch(
    store: &dyn ObjectStore,
    path: &Path,
    etag: Option<&str>,
    range: Option<Range<u64>>,
) -> object_store::Result<Bytes> {
    let (range, if_match) = (range.map(GetRange::Bounded), etag.map(str::to_owned));
    let options = GetOptions { range, if_match, ..GetOptions::default() };
    store.get_opts(path, options).await?.bytes().await
}

/// The metadata of an object of this size, and of this tag where one is known. `label` stands for it in errors.
pub(crate) async fn read_metadata_at(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    etag: Option<&str>,
    label: &str,
    bytes: u64,
    page_index: PageIndexPolicy,
) -> Result<ParquetMetaData> {
    let mut fetch = Fetch { store, path, etag, failed: None };
    let read = ParquetMetaDataReader::new()
        .with_page_index_policy(page_index)
        .with_prefetch_hint(Some(FOOTER_GUESS.min(usize::try_from(bytes).unwrap_or(usize::MAX))))
        .load_and_finish(&mut fetch, bytes)
        .await;
    match (read, fetch.failed) {
        (_, Some(error)) => Err(DataFileError::read(label, &error)),
        (Ok(metadata), None) => Ok(metadata),
        (Err(_), None) => Err(DataFileError::corrupt(label, "its footer is damaged or of another size")),
    }
}

/// Ranged reads that keep the store's own error.
struct Fetch<'a> {
    store: &'a Arc<dyn ObjectStore>,
    path: &'a Path,
    etag: Option<&'a str>,
    failed: Option<object_store::Error>,
}

impl MetadataFetch for &mut Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            fetch(self.store.as_ref(), self.path, self.etag, Some(range)).await.map_err(|error| {
                self.failed = Some(error);
                ParquetError::General("store".to_owned())
            })
        }
        .boxed()
    }
}

/// The details that this metadata holds.
pub(crate) fn details(
    metadata: &ParquetMetaData,
    entry: &FileEntry,
    schema: &Schema,
    spec: &PartitionSpec,
) -> Result<FileDetails> {
    let corrupt = |fault| DataFileError::corrupt(&entry.path, fault);
    let file = metadata.file_metadata();
    if u64::try_from(file.num_rows()) != Ok(entry.rows) {
        return Err(corrupt("it has another number of rows than its entry"));
    }
    let partition = partition_values(metadata).ok_or_else(|| corrupt("its footer names no partition"))?;
    if partition.spec_id != spec.spec_id || entry.spec_id != spec.spec_id {
        return Err(corrupt("it is of another partition spec"));
    }
    let types = partition_types(spec, schema)?;
    let partition = partition.literals(&types).ok_or_else(|| corrupt("its partition values are damaged"))?;
    Ok(FileDetails {
        path: entry.path.clone(),
        rows: entry.rows,
        bytes: entry.bytes,
        spec_id: spec.spec_id,
        partition,
        columns: columns(metadata, schema, &nan_counts(metadata)),
        split_offsets: split_offsets(metadata),
        key_range: text(metadata, KEY_RANGE_KEY).and_then(KeyRange::from_json),
    })
}

fn text<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
}

/// The partition that a footer names.
pub(crate) fn partition_values(metadata: &ParquetMetaData) -> Option<PartitionValues> {
    text(metadata, PARTITION_KEY).and_then(PartitionValues::from_json)
}

/// NaN by field id, as a footer counts them.
pub(crate) fn nan_counts(metadata: &ParquetMetaData) -> BTreeMap<i32, u64> {
    text(metadata, NAN_COUNTS_KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn split_offsets(metadata: &ParquetMetaData) -> Vec<i64> {
    let first = |group: &parquet::file::metadata::RowGroupMetaData| {
        let column = group.columns().first()?;
        Some(
            column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset())
                .min(column.data_page_offset()),
        )
    };
    metadata.row_groups().iter().filter_map(first).collect()
}

/// A leaf of the schema: its type when bounds and NaN counts are kept.
type Leaf = Option<PrimitiveType>;

/// Every leaf column by field id; `None` inside lists and maps.
fn leaves(schema: &Schema) -> BTreeMap<i32, Leaf> {
    fn visit(id: i32, data_type: &Type, repeated: bool, out: &mut BTreeMap<i32, Leaf>) {
        match data_type {
            Type::Primitive(primitive) => {
                out.insert(id, (!repeated).then_some(*primitive));
            }
            Type::Struct(fields) => {
                fields.iter().for_each(|field| visit(field.id, &field.data_type, repeated, out));
            }
            Type::List { element_id, element, .. } => visit(*element_id, element, true, out),
            Type::Map { key_id, key, value_id, value, .. } => {
                visit(*key_id, key, true, out);
                visit(*value_id, value, true, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    schema.fields.iter().for_each(|field| visit(field.id, &field.data_type, false, &mut out));
    out
}

fn columns(
    metadata: &ParquetMetaData,
    schema: &Schema,
    nans: &BTreeMap<i32, u64>,
) -> BTreeMap<i32, ColumnStats> {
    let leaves = leaves(schema);
    let mut columns = BTreeMap::new();
    for (index, column) in metadata.file_metadata().schema_descr().columns().iter().enumerate() {
        let info = column.self_type().get_basic_info();
        let Some(id) = info.has_id().then(|| info.id()) else { continue };
        let Some(leaf) = leaves.get(&id) else { continue };
        let mut stats = ColumnStats { nulls: Some(0), ..ColumnStats::default() };
        let mut bounds = leaf.map(Bounds::new);
        for group in metadata.row_groups() {
            let chunk = group.column(index);
            let values = u64::try_from(chunk.num_values()).unwrap_or(0);
            let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
            stats.size_bytes += u64::try_from(chunk.compressed_size()).unwrap_or(0);
            stats.values += values;
            stats.nulls = stats.nulls.zip(nulls).map(|(sum, nulls)| sum + nulls);
            if let Some(bounds) = &mut bounds {
                bounds.add(chunk.statistics(), values);
            }
        }
        if let Some(PrimitiveType::Float | PrimitiveType::Double) = leaf {
            stats.nans = nans.get(&id).copied();
        }
        (stats.lower, stats.upper) = bounds.map_or((None, None), Bounds::finish);
        columns.insert(id, stats);
    }
    columns
}
