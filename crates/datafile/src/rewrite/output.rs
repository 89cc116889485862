//! What a merge puts out, as data files.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use arrow::array::ArrayRef;
use object_store::path::Path;
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    basic::Compression,
    schema::types::{ColumnPath, SchemaDescriptor},
};
use tokio::sync::mpsc;

use super::{
    checksum::{Checksum, add_column},
    merge::Emit,
    run::FileRun,
    window::Window,
};
use crate::{
    encode::{EncoderOptions, bloom_columns, compression},
    error::{DataFileError, Result},
    footer,
    gather::Gather,
    layout::{Layout, WrittenFile},
    parquet_schema::parquet_schema,
    partition::PartitionValues,
    roll::{Roll, Target},
    upload::Part,
    write::{STRIPE_SLICES, slice_rows},
};

/// Row groups below this share of the wanted size are not copied: they would stay small for ever.
const SPLICE_SHARE: u64 = 8;
/// Rows of the sample for choosing encodings.
const SAMPLE_ROWS: usize = 8192;

/// The output files of a rewrite.
pub(super) struct Output<'a> {
    layout: &'a Layout,
    table_location: &'a Path,
    parts: &'a mpsc::Sender<Part>,
    values: PartitionValues,
    sort_order_id: i64,
    /// Rows still to be written.
    to_come: u64,
    descriptor: SchemaDescriptor,
    bloom_columns: Vec<ColumnPath>,
    codec: Compression,
    roll: Option<Roll<'a>>,
    pub(super) written: Checksum,
    pub(super) spliced_rows: u64,
    pub(super) spliced_bytes: u64,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        table_location: &'a Path,
        parts: &'a mpsc::Sender<Part>,
        values: PartitionValues,
        sort_order_id: i64,
        rows: u64,
    ) -> Result<Self> {
        Ok(Self {
            layout,
            table_location,
            parts,
            values,
            sort_order_id,
            to_come: rows,
            descriptor: SchemaDescriptor::new(parquet_schema(
                &layout.names.in_files(&layout.schema),
                layout.annotate_uuids,
            )?),
            bloom_columns: bloom_columns(layout),
            codec: compression(layout.files.compression)?,
            roll: None,
            written: Checksum::default(),
            spliced_rows: 0,
            spliced_bytes: 0,
        })
    }

    pub(super) fn finish(self) -> Result<Vec<WrittenFile>> {
        self.roll.map_or(Ok(Vec::new()), Roll::finish)
    }

    fn roll(&mut self, sample: impl FnOnce() -> Result<Vec<ArrayRef>>) -> Result<&mut Roll<'a>> {
        match &mut self.roll {
            Some(roll) => Ok(roll),
            none => {
                let layout = self.layout;
                let target = Target {
                    layout,
                    options: EncoderOptions::new(layout, &sample()?)?,
                    table_location: self.table_location,
                    parts: self.parts,
                    sort_order_id: self.sort_order_id,
                };
                Ok(none.insert(Roll::new(Arc::new(target), &self.values)?))
            }
        }
    }
}

/// Rows from all over a window, by which encodings are chosen.
pub(super) fn sample(window: &Window, columns: &[Gather]) -> Result<Vec<ArrayRef>> {
    let step = (window.rows.len() / SAMPLE_ROWS).max(1) * 64;
    let stretches = window.rows.chunks(step).flat_map(|stretch| stretch.iter().take(64).copied());
    let places: Vec<u32> = stretches.collect();
    columns.iter().map(|column| column.rows(&places)).collect()
}

impl Emit for Output<'_> {
    fn window(&mut self, window: &Window) -> Result<()> {
        let columns = window.gather(self.layout.schema.fields.len())?;
        let sample = || sample(window, &columns);
        let slice_rows = slice_rows(window.bytes, window.rows.len());
        let (mut start, mut to_come) = (0, self.to_come);
        let mut written = self.written;
        let roll = self.roll(sample)?;
        while start < window.rows.len() {
            let left = usize::try_from(to_come).unwrap_or(usize::MAX);
            let room = roll.room(slice_rows, left)?.min(slice_rows * STRIPE_SLICES);
            let end = window.rows.len().min(start + room);
            let stripe = &window.rows[start..end];
            let hashes = RefCell::new(vec![0; stripe.len()]);
            let keys = (window.key(start)?, window.key(end - 1)?);
            roll.write(stripe.len(), slice_rows, keys, |column, range| {
                let array = columns[column].rows(&stripe[range.clone()])?;
                add_column(&mut hashes.borrow_mut()[range], column as u64, array.as_ref())?;
                Ok(array)
            })?;
            written.add(&hashes.into_inner());
            to_come = to_come.saturating_sub(stripe.len() as u64);
            start = end;
        }
        (self.to_come, self.written) = (to_come, written);
        Ok(())
    }

    fn takes(&self, run: &FileRun, group: usize) -> bool {
        let input = &run.input.input;
        let metadata = run.metadata();
        let row_group = metadata.row_group(group);
        let bloom = |path: &ColumnPath| self.bloom_columns.contains(path);
        let fits = input.deleted.is_none()
            && run.are_old(group) == Some(false)
            && input.entry.sort_order_id == self.sort_order_id
            && u64::try_from(row_group.compressed_size()).unwrap_or(0)
                >= self.layout.files.row_group_bytes / SPLICE_SHARE
            && metadata.file_metadata().schema_descr().columns() == self.descriptor.columns()
            && metadata.column_index().is_some()
            && metadata.offset_index().is_some();
        // Levels do not matter for reading, and a codec's level is not in the file.
        let same_codec = |codec| std::mem::discriminant(&codec) == std::mem::discriminant(&self.codec);
        fits && row_group.columns().iter().all(|chunk| {
            same_codec(chunk.compression())
                && (chunk.bloom_filter_offset().is_some() || !bloom(chunk.column_path()))
        })
    }

    fn splice(&mut self, run: &FileRun, group: usize, keys: (Vec<u8>, Vec<u8>)) -> Result<()> {
        let corrupt =
            |_| DataFileError::corrupt(&run.input.input.entry.path, "it is no readable Parquet file");
        let (object, metadata) = (run.input.object.clone(), run.metadata());
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(object.clone(), run.input.metadata.clone());
        let row_group = metadata.row_group(group);
        let bloom = |column| reader.get_row_group_column_bloom_filter(group, column).map_err(corrupt);
        let blooms = (0..row_group.num_columns()).map(bloom).collect::<Result<Vec<_>>>()?;
        let nans: BTreeMap<i32, u64> = footer::nan_counts(metadata);
        let rows = u64::try_from(row_group.num_rows()).unwrap_or(0);
        let left = usize::try_from(self.to_come).unwrap_or(usize::MAX);
        let roll = self.roll(|| Ok(Vec::new()))?;
        roll.splice(left, keys, |encoder| encoder.splice(&object, metadata, group, blooms, &nans))
            .map_err(|error| object.failure().unwrap_or(error))?;
        self.to_come = self.to_come.saturating_sub(rows);
        self.spliced_rows += rows;
        self.spliced_bytes += u64::try_from(row_group.compressed_size()).unwrap_or(0);
        Ok(())
    }
}
