//! One Parquet file being encoded: columns in, bytes out.
//!
//! - Data pages are version 1, which every reader takes; version 2 pages save nothing here.
//! - Row groups close at `row_group_bytes` of encoded data, or [`ROW_GROUP_ROWS_MAX`] rows.
//! - Dictionary, delta or plain is decided per column from a sample of the sorted flush (`encodings`).
//! - Page index and statistics for every column; bloom filters sized by the rows that can come, then folded
//!   by the encoder to what did come.
//! - The Arrow schema is not embedded: readers go by Parquet's own, and view types cannot appear.
//!
//! Memory: the encoded row group in flight (`row_group_bytes`, and what the last stripe exceeds it by), and
//! one page per column.

mod encodings;
mod nans;

use std::{collections::BTreeMap, io::Write, ops::Range, sync::Arc};

use arrow::{array::ArrayRef, datatypes::SchemaRef};
use parquet::{
    arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    basic::{Compression as ParquetCompression, LogicalType, ZstdLevel},
    bloom_filter::Sbbf,
    column::writer::ColumnCloseResult,
    file::{
        metadata::{KeyValue, ParquetMetaData, SortingColumn},
        page_index::column_index::ColumnIndexMetaData,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
        reader::ChunkReader,
        writer::SerializedFileWriter,
    },
    schema::types::{ColumnPath, SchemaDescriptor, TypePtr},
};
use siltstone_protocol::{NullOrder, Schema, SortDirection, SortOrder, Transform};
use siltstone_spec::Compression;

use crate::{
    arrow_schema,
    error::{DataFileError, Result},
    footer,
    layout::Layout,
    parquet_schema::parquet_schema,
    sort_key::KeyRange,
};

/// Rows of a row group at most, whatever their size.
pub(crate) const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// Bytes of a string kept in statistics and page index.
const STATISTICS_LENGTH: usize = 64;
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 20_000;
const BATCH_ROWS: usize = 4096;
const CREATED_BY: &str = concat!("siltstone version ", env!("CARGO_PKG_VERSION"));

/// What all files of a flush have in common.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    arrow: SchemaRef,
    parquet: TypePtr,
    properties: WriterPropertiesBuilder,
    bloom_columns: Vec<ColumnPath>,
    row_group_bytes: u64,
    pairs: Vec<(&'static str, String)>,
}

impl EncoderOptions {
    /// Decides encodings from sample columns (one array per column, in sorted order).
    ///
    /// # Errors
    /// `UnsupportedType`, `Encode`: the schema cannot be written.
    pub fn new(layout: &Layout, sample: &[ArrayRef]) -> Result<Self> {
        let Layout { schema, files, sort_order: order, annotate_uuids, .. } = layout;
        let arrow = arrow_schema(schema)?;
        let in_files = layout.names.in_files(schema);
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(compression(files.compression)?)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_statistics_truncate_length(Some(STATISTICS_LENGTH))
            .set_column_index_truncate_length(Some(STATISTICS_LENGTH))
            .set_data_page_size_limit(PAGE_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_write_batch_size(BATCH_ROWS)
            .set_sorting_columns(sorting_columns(schema, order));
        properties = encodings::choose(properties, &in_files, sample);
        let schema_json =
            serde_json::to_string(&schema.for_readers()).map_err(|_| DataFileError::encode("schema"))?;
        let pairs = vec![
            (footer::SCHEMA_ID_KEY, schema.schema_id.to_string()),
            (footer::SORT_ORDER_ID_KEY, order.order_id.to_string()),
            (footer::ICEBERG_SCHEMA_KEY, schema_json),
        ];
        let parquet = parquet_schema(&in_files, *annotate_uuids)?;
        // Iceberg's vectorized Spark reader did not take dictionary pages of UUIDs for years.
        for column in SchemaDescriptor::new(parquet_schema(&in_files, true)?).columns() {
            if column.logical_type_ref() == Some(&LogicalType::Uuid) {
                properties = properties.set_column_dictionary_enabled(column.path().clone(), false);
            }
        }
        Ok(Self {
            arrow,
            parquet,
            properties,
            bloom_columns: bloom_columns(layout),
            row_group_bytes: files.row_group_bytes,
            pairs,
        })
    }

    /// Properties of a file of at most this many rows.
    fn file_properties(&self, rows: usize, partition: &str) -> WriterProperties {
        let mut properties = self.properties.clone();
        let distinct = rows.clamp(1, ROW_GROUP_ROWS_MAX) as u64;
        for column in &self.bloom_columns {
            properties = properties
                .set_column_bloom_filter_enabled(column.clone(), true)
                .set_column_bloom_filter_ndv(column.clone(), distinct);
        }
        let mut pairs: Vec<KeyValue> =
            self.pairs.iter().map(|(key, value)| pair(key, value.clone())).collect();
        pairs.push(pair(footer::PARTITION_KEY, partition.to_owned()));
        properties.set_key_value_metadata(Some(pairs)).build()
    }
}

fn pair(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

/// The columns that have bloom filters, as they are called in files.
pub(crate) fn bloom_columns(layout: &Layout) -> Vec<ColumnPath> {
    let Layout { schema, names, .. } = layout;
    let in_files = |dotted: &str| -> Option<Vec<String>> {
        let path = schema.path_of(schema.field_at(dotted)?.id)?;
        Some(path.into_iter().map(|field| names.name_in_files(field).to_owned()).collect())
    };
    let path =
        |dotted: &String| in_files(dotted).unwrap_or_else(|| dotted.split('.').map(str::to_owned).collect());
    layout.files.bloom_filters.iter().map(path).map(ColumnPath::new).collect()
}

pub(crate) fn compression(compression: Compression) -> Result<ParquetCompression> {
    Ok(match compression {
        Compression::Zstd { level } => {
            let level = ZstdLevel::try_new(level).map_err(|_| DataFileError::encode("zstd level"))?;
            ParquetCompression::ZSTD(level)
        }
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Lz4 => ParquetCompression::LZ4_RAW,
        Compression::None => ParquetCompression::UNCOMPRESSED,
    })
}

/// The leading sort keys that Parquet's own notion of order can say: plain columns.
fn sorting_columns(schema: &Schema, order: &SortOrder) -> Option<Vec<SortingColumn>> {
    let leaves = leaf_ids(schema);
    let column = |field: &siltstone_protocol::SortField| {
        let index = leaves.iter().position(|id| *id == field.source_id)?;
        (field.transform == Transform::Identity).then_some(SortingColumn {
            column_idx: i32::try_from(index).ok()?,
            descending: field.direction == SortDirection::Desc,
            nulls_first: field.null_order == NullOrder::NullsFirst,
        })
    };
    let columns: Vec<SortingColumn> = order.fields.iter().map_while(column).collect();
    (!columns.is_empty()).then_some(columns)
}

/// Field ids of the leaf columns, in Parquet's order.
fn leaf_ids(schema: &Schema) -> Vec<i32> {
    use siltstone_protocol::Type;
    fn visit(id: i32, data_type: &Type, out: &mut Vec<i32>) {
        match data_type {
            Type::Primitive(_) => out.push(id),
            Type::Struct(fields) => fields.iter().for_each(|field| visit(field.id, &field.data_type, out)),
            Type::List { element_id, element, .. } => visit(*element_id, element, out),
            Type::Map { key_id, key, value_id, value, .. } => {
                visit(*key_id, key, out);
                visit(*value_id, value, out);
            }
        }
    }
    let mut out = Vec::new();
    schema.fields.iter().for_each(|field| visit(field.id, &field.data_type, &mut out));
    out
}

/// An open file.
pub struct Encoder<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    arrow: SchemaRef,
    row_group_bytes: u64,
    group: Option<Vec<ArrowColumnWriter>>,
    group_rows: usize,
    rows: u64,
    nans: BTreeMap<i32, u64>,
    key_range: Option<KeyRange>,
}

impl<W: Write + Send> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<W: Write + Send> Encoder<W> {
    /// Begins a file of at most `rows` rows. `partition` is the JSON for the footer.
    ///
    /// # Errors
    /// `Encode`.
    pub fn new(sink: W, options: &EncoderOptions, rows: usize, partition: &str) -> Result<Self> {
        let properties = Arc::new(options.file_properties(rows, partition));
        let file = SerializedFileWriter::new(sink, Arc::clone(&options.parquet), properties)
            .map_err(|_| DataFileError::encode("start"))?;
        let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&options.arrow));
        Ok(Self {
            file,
            factory,
            arrow: Arc::clone(&options.arrow),
            row_group_bytes: options.row_group_bytes,
            group: None,
            group_rows: 0,
            rows: 0,
            nans: nans::zeros(&options.arrow),
            key_range: None,
        })
    }

    /// Encodes the next `rows` rows, column after column, each in slices of at most `slice_rows`.
    /// `column` is asked for the rows of one slice of one column, so that only that is held; a column's
    /// slices come one after the other, because a column's values are then still in cache.
    ///
    /// # Errors
    /// `Encode`, and those of `column`.
    pub fn write(
        &mut self,
        rows: usize,
        slice_rows: usize,
        column: impl Fn(usize, Range<usize>) -> Result<ArrayRef>,
    ) -> Result<()> {
        let failed = |_| DataFileError::encode("a column");
        let group = match &mut self.group {
            Some(group) => group,
            none => {
                let group = self.file.flushed_row_groups().len();
                none.insert(self.factory.create_column_writers(group).map_err(failed)?)
            }
        };
        let mut leaf_writers = group.as_mut_slice();
        for (index, field) in self.arrow.fields().iter().enumerate() {
            let mut leaf_count = 0;
            for start in (0..rows).step_by(slice_rows.max(1)) {
                let array = column(index, start..rows.min(start + slice_rows.max(1)))?;
                nans::count(&mut self.nans, field, &array, None);
                let leaves = compute_leaves(field, &array).map_err(failed)?;
                leaf_count = leaves.len();
                for (leaf, writer) in leaves.iter().zip(leaf_writers.iter_mut()) {
                    writer.write(leaf).map_err(failed)?;
                }
            }
            leaf_writers = leaf_writers.get_mut(leaf_count..).unwrap_or_default();
        }
        self.group_rows += rows;
        self.rows += rows as u64;
        if self.group_rows >= ROW_GROUP_ROWS_MAX || self.group_bytes() >= self.row_group_bytes {
            self.close_group()?;
        }
        Ok(())
    }

    /// Copies a whole row group of another file of the same Parquet schema; `group` is what its footer says.
    /// NaN counts of a file of more than one row group are known only where there are none.
    pub(crate) fn splice<R: ChunkReader>(
        &mut self,
        source: &R,
        metadata: &ParquetMetaData,
        group: usize,
        blooms: Vec<Option<Sbbf>>,
        nans: &BTreeMap<i32, u64>,
    ) -> Result<()> {
        self.close_group()?;
        let failed = |_| DataFileError::encode("a copied row group");
        let rows = u64::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
        let columns = metadata.column_index().and_then(|index| index.get(group));
        let offsets = metadata.offset_index().and_then(|index| index.get(group));
        let mut target = self.file.next_row_group().map_err(failed)?;
        for (index, (chunk, bloom_filter)) in
            metadata.row_group(group).columns().iter().zip(blooms).enumerate()
        {
            let column_index = columns.and_then(|columns| columns.get(index)).cloned();
            let close = ColumnCloseResult {
                bytes_written: u64::try_from(chunk.compressed_size()).unwrap_or(0),
                rows_written: rows,
                metadata: chunk.clone(),
                bloom_filter,
                column_index: column_index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
                offset_index: offsets.and_then(|offsets| offsets.get(index)).cloned(),
            };
            target.append_column(source, close).map_err(failed)?;
        }
        target.close().map_err(failed)?;
        self.rows += rows;
        let single = metadata.num_row_groups() == 1;
        self.nans.retain(|id, sum| match nans.get(id) {
            Some(count) if single || *count == 0 => {
                *sum += count;
                true
            }
            _ => false,
        });
        Ok(())
    }

    /// Rows that are likely to fit into the row group, and into a file of `file_bytes`; at least `least`, but
    /// never more than a row group may have. Before anything is written: `least`, which is then a sample.
    pub fn room(&self, file_bytes: u64, least: usize) -> usize {
        let bytes = self.bytes();
        let per_row = (bytes / self.rows.max(1)).max(1);
        let group = self.row_group_bytes.saturating_sub(self.group_bytes());
        let bytes = group.min(file_bytes.saturating_sub(bytes));
        let likely = if self.rows == 0 { 0 } else { usize::try_from(bytes / per_row).unwrap_or(usize::MAX) };
        likely.max(least).min(ROW_GROUP_ROWS_MAX - self.group_rows)
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the file so far: written, and expected of the row group in flight.
    pub fn bytes(&self) -> u64 {
        self.file.bytes_written() as u64 + self.group_bytes()
    }

    fn group_bytes(&self) -> u64 {
        let bytes = |writer: &ArrowColumnWriter| writer.get_estimated_total_bytes() as u64;
        self.group.iter().flatten().map(bytes).sum()
    }

    /// The keys between which all rows lie, for the footer.
    pub fn set_key_range(&mut self, range: Option<KeyRange>) {
        self.key_range = range;
    }

    fn close_group(&mut self) -> Result<()> {
        let failed = |_| DataFileError::encode("a row group");
        let Some(writers) = self.group.take() else { return Ok(()) };
        self.group_rows = 0;
        let mut group = self.file.next_row_group().map_err(failed)?;
        for writer in writers {
            writer.close().map_err(failed)?.append_to_row_group(&mut group).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        Ok(())
    }

    /// Writes what is left and the footer: metadata, and size of the file.
    ///
    /// # Errors
    /// `Encode`.
    pub fn finish(self) -> Result<(ParquetMetaData, u64)> {
        self.finish_with(|_| Ok(()))
    }

    /// As [`Self::finish`], and hands the sink, which then has every byte, to `close`.
    pub(crate) fn finish_with(
        mut self,
        close: impl FnOnce(&mut W) -> Result<()>,
    ) -> Result<(ParquetMetaData, u64)> {
        self.close_group()?;
        let failed = |_| DataFileError::encode("the footer");
        let nans = serde_json::to_string(&self.nans).map_err(|_| DataFileError::encode("the footer"))?;
        self.file.append_key_value_metadata(pair(footer::NAN_COUNTS_KEY, nans));
        if let Some(range) = &self.key_range {
            self.file.append_key_value_metadata(pair(footer::KEY_RANGE_KEY, range.to_json()?));
        }
        let metadata = self.file.finish().map_err(failed)?;
        let bytes = self.file.bytes_written() as u64;
        close(self.file.inner_mut())?;
        Ok((metadata, bytes))
    }
}
