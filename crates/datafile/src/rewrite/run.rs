//! Runs: rows in key order, batch by batch. A run is an input file or a spilled one.

use std::rc::Rc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
            statistics::StatisticsConverter,
        },
    },
    file::metadata::ParquetMetaData,
};

use super::{
    keys::{Between, KeyColumn, KeyStats, Keys, bounds},
    memory::held_by,
    old::{Intake, are_old},
    source::Input,
    spill::SpillRun,
};
use crate::{
    error::{DataFileError, Result},
    read::{Known, adapt, adapt_array, field_id, wanted_roots},
    transform::transform,
};
use siltstone_protocol::Transform;

/// Rows in order, from wherever they are.
pub(super) enum Run {
    File(Box<FileRun>),
    Spill(Box<SpillRun>),
}

impl Run {
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::File(run) => run.next(),
            Self::Spill(run) => run.next(),
        }
    }

    /// Rows that are still unread.
    pub(super) fn rows_left(&self) -> u64 {
        match self {
            Self::File(run) => run.rows_left,
            Self::Spill(run) => run.rows_left(),
        }
    }

    pub(super) fn path(&self) -> &str {
        match self {
            Self::File(run) => &run.input.input.entry.path,
            Self::Spill(_) => "of a spilled run",
        }
    }

    /// What reading it holds, at most, beside the batch.
    pub(super) fn held_bytes(&self, block_bytes: u64) -> u64 {
        match self {
            Self::File(run) => {
                let block_bytes = (!run.input.object.is_whole()).then_some(block_bytes);
                held_by(run.metadata(), block_bytes)
            }
            Self::Spill(run) => run.held_bytes(),
        }
    }

    pub(super) fn set_batch_rows(&mut self, rows: usize) {
        if let Self::File(run) = self {
            run.batch_rows = rows;
        }
    }
}

/// An input file being read.
pub(super) struct FileRun {
    pub(super) input: Input,
    target: SchemaRef,
    mask: ProjectionMask,
    pub(super) batch_rows: usize,
    /// The row group being read, or the next one.
    group: usize,
    reader: Option<ParquetRecordBatchReader>,
    /// Rows of the row group that are still to come.
    group_rows_left: u64,
    rows_left: u64,
    /// Least and greatest key of each row group, when its statistics tell.
    bounds: Vec<Between>,
    intake: Rc<Intake>,
}

impl FileRun {
    pub(super) fn new(input: Input, target: SchemaRef, keys: &Keys, intake: Rc<Intake>) -> Result<Self> {
        let roots = wanted_roots(input.metadata.schema().fields(), &target, Known::ById);
        let mask = ProjectionMask::roots(input.metadata.parquet_schema(), roots);
        let deleted = input.input.deleted.as_ref().map_or(0, |deleted| deleted.rows());
        let mut run = Self {
            rows_left: input.input.entry.rows.saturating_sub(deleted),
            input,
            target,
            mask,
            batch_rows: 1024,
            group: 0,
            reader: None,
            group_rows_left: 0,
            bounds: Vec::new(),
            intake,
        };
        if let Keys::Order(columns) = keys {
            run.bounds = run.group_bounds(columns)?;
        }
        Ok(run)
    }

    pub(super) fn metadata(&self) -> &ParquetMetaData {
        self.input.metadata.metadata()
    }

    /// The next row group, when none is being read and there is one.
    pub(super) fn group_ahead(&self) -> Option<usize> {
        (self.reader.is_none() && self.group < self.metadata().num_row_groups()).then_some(self.group)
    }

    pub(super) fn bounds_of(&self, group: usize) -> Option<&Between> {
        self.bounds.get(group)
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.reader.is_none() {
                let Some(group) = self.group_ahead() else { return Ok(None) };
                if self.input.input.deleted.is_none() && self.are_old(group) == Some(true) {
                    let rows = self.skip_group();
                    self.intake.leave_out(rows);
                    continue;
                }
                self.open(group, self.mask.clone(), self.selection(group))?;
            }
            let next = self.reader.as_mut().and_then(Iterator::next);
            let Some(batch) = next else {
                self.close_group();
                continue;
            };
            let batch = batch.map_err(|_| self.failure())?;
            let rows = batch.num_rows() as u64;
            self.group_rows_left = self.group_rows_left.saturating_sub(rows);
            self.rows_left = self.rows_left.saturating_sub(rows);
            if self.group_rows_left == 0 {
                self.close_group();
            }
            let batch = adapt(&batch, &self.target).ok_or_else(|| {
                let fault = "its columns cannot be read as the table's schema";
                DataFileError::corrupt(&self.input.input.entry.path, fault)
            })?;
            let batch = self.intake.take(batch)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    fn close_group(&mut self) {
        self.reader = None;
        self.group_rows_left = 0;
        self.group += 1;
    }

    /// Whether all rows of a row group are old, or none of them, by its statistics; `None`: that cannot be told.
    pub(super) fn are_old(&self, group: usize) -> Option<bool> {
        match self.intake.old() {
            Some((column, before)) => are_old(&self.key_stats(column, group), before),
            None => Some(false),
        }
    }

    /// Passes over the row group ahead, which was copied or is old.
    pub(super) fn skip_group(&mut self) -> u64 {
        let rows = self.group_rows(self.group);
        self.rows_left = self.rows_left.saturating_sub(rows);
        self.close_group();
        rows
    }

    fn group_rows(&self, group: usize) -> u64 {
        u64::try_from(self.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    fn open(&mut self, group: usize, mask: ProjectionMask, selection: Option<RowSelection>) -> Result<()> {
        self.group_rows_left = match &selection {
            Some(selection) => selection.row_count() as u64,
            None => self.group_rows(group),
        };
        self.reader = Some(self.reader(group, mask, selection)?);
        Ok(())
    }

    fn reader(
        &self,
        group: usize,
        mask: ProjectionMask,
        selection: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader> {
        let (object, metadata) = (self.input.object.clone(), self.input.metadata.clone());
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(object, metadata)
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(self.batch_rows);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        builder.build().map_err(|_| self.failure())
    }

    /// The rows of a row group that are not deleted; `None` for all.
    fn selection(&self, group: usize) -> Option<RowSelection> {
        let deleted = self.input.input.deleted.as_ref()?;
        let before: u64 = (0..group).map(|group| self.group_rows(group)).sum();
        let (start, end) = (before, before + self.group_rows(group));
        let mut selectors = Vec::new();
        let mut at = start;
        for range in deleted.ranges.iter().filter(|range| range.start < end && range.end > start) {
            let (from, to) = (range.start.max(start), range.end.min(end));
            selectors.push(RowSelector::select((from - at) as usize));
            selectors.push(RowSelector::skip((to - from) as usize));
            at = to;
        }
        selectors.push(RowSelector::select((end - at) as usize));
        Some(RowSelection::from(selectors))
    }

    /// The first and the last key of the row group ahead, read from its first and last pages.
    pub(super) fn edge_keys(&self, group: usize, keys: &Keys) -> Result<Between> {
        let rows = self.group_rows(group) as usize;
        let edges = match rows {
            0..=2 => None,
            _ => Some(RowSelection::from(vec![
                RowSelector::select(1),
                RowSelector::skip(rows - 2),
                RowSelector::select(1),
            ])),
        };
        let (mut first, mut last) = (None, Vec::new());
        for batch in self.reader(group, self.mask.clone(), edges)? {
            let batch = batch.map_err(|_| self.failure())?;
            let batch = adapt(&batch, &self.target).ok_or_else(|| DataFileError::compute("reading keys"))?;
            let arrays = keys.arrays(&batch)?;
            if batch.num_rows() > 0 {
                keys.write(&mut last, &arrays, 0)?;
                first.get_or_insert_with(|| last.clone());
                keys.write(&mut last, &arrays, batch.num_rows() - 1)?;
            }
        }
        Ok((first.unwrap_or_default(), last))
    }

    fn group_bounds(&self, columns: &[KeyColumn]) -> Result<Vec<Between>> {
        let groups = self.metadata().num_row_groups();
        let mut stats: Vec<Vec<KeyStats>> = (0..groups).map(|_| Vec::new()).collect();
        for column in columns {
            for (group, stats) in stats.iter_mut().enumerate() {
                stats.push(self.key_stats(column, group));
            }
        }
        stats.iter().map(|stats| bounds(columns, stats)).collect()
    }

    /// Statistics of a key column in one row group; unknown ones for columns inside structs.
    pub(super) fn key_stats(&self, column: &KeyColumn, group: usize) -> KeyStats {
        let rows = self.group_rows(group);
        let unknown = KeyStats { min: None, max: None, nulls: None, rows };
        self.column_stats(column, group).unwrap_or(unknown)
    }

    fn column_stats(&self, column: &KeyColumn, group: usize) -> Option<KeyStats> {
        let [root] = column.source.path.as_slice() else { return None };
        let rows = self.group_rows(group);
        let target = self.target.field(*root);
        let schema = self.input.metadata.schema();
        let Some(field) = schema.fields().iter().find(|field| field_id(field) == field_id(target)) else {
            // The file lacks the column: all null.
            return Some(KeyStats { min: None, max: None, nulls: Some(rows), rows });
        };
        let parquet = self.input.metadata.parquet_schema();
        let converter = StatisticsConverter::try_new(field.name(), schema, parquet).ok()?;
        let converter = converter.with_missing_null_counts_as_zero(false);
        let metadata = self.metadata().row_group(group);
        let value = |array: ArrayRef| -> Option<ArrayRef> {
            let array = adapt_array(&array, target.data_type()).filter(|array| array.is_valid(0))?;
            let rising = !matches!(column.transform, Transform::Bucket(_));
            rising.then(|| transform(column.transform, &array).ok())?
        };
        let nulls = converter.row_group_null_counts([metadata]).ok()?;
        Some(KeyStats {
            min: converter.row_group_mins([metadata]).ok().and_then(value),
            max: converter.row_group_maxes([metadata]).ok().and_then(value),
            nulls: nulls.is_valid(0).then(|| nulls.value(0)),
            rows,
        })
    }

    /// Why reading failed: the store, or the file.
    fn failure(&self) -> DataFileError {
        self.input.object.failure().unwrap_or_else(|| {
            DataFileError::corrupt(&self.input.input.entry.path, "it is no readable Parquet file")
        })
    }
}
