//! Spilled runs: sorted rows on local disk, in Arrow's stream format, read back batch by batch.
//!
//! A spill file loses its name as soon as it is open, so that nothing of the rows is left behind by a crash.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Seek, SeekFrom},
    path::Path,
};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use super::{merge::Emit, window::Window};
use crate::{
    error::{DataFileError, Result},
    write::slice_rows,
};

/// Bytes of a batch in a spill file, about: each run that is read back holds one.
const BATCH_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// A run being spilled.
pub(super) struct Spill {
    writer: StreamWriter<BufWriter<File>>,
    schema: SchemaRef,
    rows: u64,
    bytes_max: u64,
}

impl Spill {
    /// `bytes_max`: more bytes than this are refused.
    pub(super) fn new(directory: &Path, schema: &SchemaRef, bytes_max: u64) -> Result<Self> {
        let path = directory.join(format!("siltstone-{}.spill", ulid::Ulid::new()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = StreamWriter::try_new(writer, schema).map_err(failed)?;
        Ok(Self { writer, schema: SchemaRef::clone(schema), rows: 0, bytes_max })
    }

    /// The run, from its beginning, and its size.
    pub(super) fn finish(mut self) -> Result<(SpillRun, u64)> {
        self.writer.finish().map_err(failed)?;
        let writer = self.writer.into_inner().map_err(failed)?;
        let mut file = writer.into_inner().map_err(failed)?;
        let bytes = file.stream_position().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let reader = StreamReader::try_new(reader, None).map_err(failed)?;
        Ok((SpillRun { reader, rows_left: self.rows }, bytes))
    }
}

impl Emit for Spill {
    fn window(&mut self, window: &Window) -> Result<()> {
        let columns = window.gather(self.schema.fields().len())?;
        let slice = slice_rows(window.bytes, window.rows.len())
            .min((BATCH_BYTES / (window.bytes / window.rows.len().max(1)).max(1)).max(1));
        for places in window.rows.chunks(slice) {
            let arrays = columns.iter().map(|column| column.rows(places)).collect::<Result<_>>()?;
            let batch = RecordBatch::try_new(SchemaRef::clone(&self.schema), arrays);
            let batch = batch.map_err(|_| DataFileError::compute("spilling rows"))?;
            self.writer.write(&batch).map_err(failed)?;
        }
        self.rows += window.rows.len() as u64;
        let written = self.writer.get_mut().stream_position().map_err(failed)?;
        if written > self.bytes_max {
            return Err(DataFileError::Spill { fault: "the rewrite's limit of spilled bytes is reached" });
        }
        Ok(())
    }
}

/// A spilled run being read.
pub(super) struct SpillRun {
    reader: StreamReader<BufReader<File>>,
    rows_left: u64,
}

impl SpillRun {
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.reader.next().transpose().map_err(failed)?;
        self.rows_left -= batch.as_ref().map_or(0, |batch| batch.num_rows() as u64).min(self.rows_left);
        Ok(batch)
    }

    pub(super) fn rows_left(&self) -> u64 {
        self.rows_left
    }
}

/// The texts of these errors may quote rows or local paths.
fn failed<E>(_: E) -> DataFileError {
    DataFileError::Spill { fault: "local disk does not take or give the bytes; check its room and rights" }
}
