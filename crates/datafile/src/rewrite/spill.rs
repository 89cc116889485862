//! Spilled runs: sorted rows on local disk, in Arrow's stream format, read back batch by batch.
//!
//! A spill file loses its name as soon as it is open, so that nothing of the rows is left behind by a crash. Where its
//! messages end is kept in memory: each is read into one buffer, which nothing clears first, and the batch's columns
//! are parts of that.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    buffer::Buffer,
    datatypes::SchemaRef,
    ipc::{reader::StreamDecoder, writer::StreamWriter},
};

use super::{merge::Emit, window::Window};
use crate::{
    error::{DataFileError, Result},
    read::adapt,
    write::slice_rows,
};

/// How much of a spill file is held at once while it is written or read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    /// Of a batch, about: each run that is read back holds one.
    batch_bytes: usize,
    buffer_bytes: usize,
}

impl Grain {
    pub(super) const COARSE: Self = Self { batch_bytes: 1 << 20, buffer_bytes: 256 << 10 };
    /// For many runs at once.
    pub(super) const FINE: Self = Self { batch_bytes: 256 << 10, buffer_bytes: 64 << 10 };

    /// What a run that is read back holds.
    pub(super) const fn held_bytes(self) -> u64 {
        (self.batch_bytes + self.buffer_bytes) as u64
    }
}

/// Counts what goes to a file.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A run being spilled.
pub(super) struct Spill {
    writer: StreamWriter<Counted>,
    /// Where the messages end: the schema's, then one a batch.
    ends: Vec<u64>,
    schema: SchemaRef,
    rows: u64,
    bytes_max: u64,
    grain: Grain,
}

impl Spill {
    /// `bytes_max`: more bytes than this are refused.
    pub(super) fn new(directory: &Path, schema: &SchemaRef, bytes_max: u64, grain: Grain) -> Result<Self> {
        let path = directory.join(format!("siltstone-{}.spill", ulid::Ulid::new()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        let file = BufWriter::with_capacity(grain.buffer_bytes, file);
        let writer = StreamWriter::try_new(Counted { file, bytes: 0 }, schema).map_err(failed)?;
        let ends = vec![writer.get_ref().bytes];
        Ok(Self { writer, ends, schema: SchemaRef::clone(schema), rows: 0, bytes_max, grain })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(failed)?;
        self.ends.push(self.writer.get_ref().bytes);
        Ok(())
    }

    /// The spilled rows.
    pub(super) fn finish(mut self) -> Result<Spilled> {
        self.writer.finish().map_err(failed)?;
        let Counted { file, bytes } = self.writer.into_inner().map_err(failed)?;
        let file = file.into_inner().map_err(failed)?;
        Ok(Spilled { file, ends: self.ends.into(), rows: self.rows, bytes, grain: self.grain })
    }
}

impl Emit for Spill {
    fn window(&mut self, window: &Window) -> Result<()> {
        let columns = window.gather(self.schema.fields().len())?;
        let slice = slice_rows(window.bytes, window.rows.len())
            .min((self.grain.batch_bytes / (window.bytes / window.rows.len().max(1)).max(1)).max(1));
        for places in window.rows.chunks(slice) {
            let arrays = columns.iter().map(|column| column.rows(places)).collect::<Result<_>>()?;
            let batch = RecordBatch::try_new(SchemaRef::clone(&self.schema), arrays);
            let batch = batch.map_err(|_| DataFileError::compute("spilling rows"))?;
            self.write(&batch)?;
        }
        self.rows += window.rows.len() as u64;
        if self.writer.get_ref().bytes > self.bytes_max {
            return Err(DataFileError::Spill { fault: "the rewrite's limit of spilled bytes is reached" });
        }
        Ok(())
    }
}

/// Rows in key order on local disk; gone when this is dropped.
pub(super) struct Spilled {
    file: File,
    ends: Arc<[u64]>,
    rows: u64,
    pub(super) bytes: u64,
    grain: Grain,
}

impl Spilled {
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The run, from its beginning, as rows of this schema. One at a time: they share the file's position.
    pub(super) fn open(&self, schema: &SchemaRef) -> Result<SpillRun> {
        let mut file = self.file.try_clone().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut run = SpillRun {
            file,
            ends: Arc::clone(&self.ends),
            message: 0,
            decoder: StreamDecoder::new(),
            schema: SchemaRef::clone(schema),
            rows_left: self.rows,
            held_bytes: self.grain.held_bytes(),
        };
        match run.batch()? {
            None => Ok(run),
            Some(_) => Err(DataFileError::compute("reading the schema of spilled rows")),
        }
    }
}

/// A spilled run being read.
pub(super) struct SpillRun {
    file: File,
    ends: Arc<[u64]>,
    /// The next of them.
    message: usize,
    decoder: StreamDecoder,
    /// What the rows become: columns may have come, or widened, since they were spilled.
    schema: SchemaRef,
    rows_left: u64,
    held_bytes: u64,
}

impl SpillRun {
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.message == self.ends.len() {
            return Ok(None);
        }
        let batch = self.batch()?.ok_or_else(|| failed(()))?;
        self.rows_left -= (batch.num_rows() as u64).min(self.rows_left);
        let adapted = if batch.schema() == self.schema { Some(batch) } else { adapt(&batch, &self.schema) };
        adapted.map(Some).ok_or(DataFileError::compute("reading spilled rows in a later schema"))
    }

    /// The batch of the next message; `None` of the schema's.
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        let start = self.message.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        let length = self.ends.get(self.message).map_or(0, |end| end - start);
        self.message += 1;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        (&mut self.file).take(length).read_to_end(&mut bytes).map_err(failed)?;
        self.decoder.decode(&mut Buffer::from_vec(bytes)).map_err(failed)
    }

    /// What reading it holds, beside the rows of a window.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(super) fn rows_left(&self) -> u64 {
        self.rows_left
    }
}

/// The texts of these errors may quote rows or local paths.
fn failed<E>(_: E) -> DataFileError {
    DataFileError::Spill { fault: "local disk does not take or give the bytes; check its room and rights" }
}
