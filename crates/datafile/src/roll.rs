//! The open file of one partition, which is closed and followed by another at the target size.

use std::{ops::Range, sync::Arc};

use arrow::array::ArrayRef;
use object_store::path::Path;
use siltstone_protocol::FileEntry;
use tokio::sync::mpsc;

use crate::{
    encode::{Encoder, EncoderOptions},
    error::Result,
    footer,
    host::Host,
    layout::{Layout, WrittenFile},
    partition::PartitionValues,
    sort_key::KeyRange,
    upload::{Part, PartSink},
};

/// What all files of a flush or a rewrite share.
pub(crate) struct Target<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) options: EncoderOptions,
    pub(crate) table_location: &'a Path,
    pub(crate) parts: &'a mpsc::Sender<Part>,
    /// The order that the rows are in; 0: none.
    pub(crate) sort_order_id: i64,
}

/// Writes the files of one partition.
pub(crate) struct Roll<'a> {
    target: Arc<Target<'a>>,
    partition: String,
    token: Option<String>,
    open: Option<Open>,
    files: Vec<WrittenFile>,
}

struct Open {
    path: String,
    encoder: Encoder<PartSink>,
    /// Sort keys of the first and the last row so far.
    keys: Option<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Roll<'a> {
    pub(crate) fn new(target: Arc<Target<'a>>, values: &PartitionValues) -> Result<Self> {
        let token = values.token(&target.layout.token_key)?;
        let partition = values.to_json()?;
        Ok(Self { target, partition, token, open: None, files: Vec::new() })
    }

    /// Rows that the next write should have, at least `least`. `to_come`: rows that may still be written.
    pub(crate) fn room(&mut self, least: usize, to_come: usize) -> Result<usize> {
        let target_size = self.target.layout.files.target_size;
        Ok(self.encoder(to_come)?.encoder.room(target_size, least))
    }

    /// The open file; a new one when there is none or it is full.
    fn encoder(&mut self, to_come: usize) -> Result<&mut Open> {
        let target_size = self.target.layout.files.target_size;
        if self.open.as_ref().is_some_and(|open| open.encoder.bytes() >= target_size) {
            self.close()?;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => {
                let path = new_path(&self.target.layout.host);
                let location = footer::location(self.target.table_location, &path);
                let sink = PartSink::new(location, self.target.parts.clone());
                let encoder = Encoder::new(sink, &self.target.options, to_come, &self.partition)?;
                Ok(none.insert(Open { path, encoder, keys: None }))
            }
        }
    }

    /// Writes rows into the open file, as [`Encoder::write`] does. `keys`: of the first and last of them.
    pub(crate) fn write(
        &mut self,
        rows: usize,
        slice_rows: usize,
        keys: (Vec<u8>, Vec<u8>),
        column: impl Fn(usize, Range<usize>) -> Result<ArrayRef>,
    ) -> Result<()> {
        let open = self.encoder(rows)?;
        open.encoder.write(rows, slice_rows, column)?;
        open.extend(keys);
        Ok(())
    }

    /// Copies a row group into the open file, as [`Encoder::splice`] does.
    pub(crate) fn splice(
        &mut self,
        to_come: usize,
        keys: (Vec<u8>, Vec<u8>),
        copy: impl FnOnce(&mut Encoder<PartSink>) -> Result<()>,
    ) -> Result<()> {
        let open = self.encoder(to_come)?;
        copy(&mut open.encoder)?;
        open.extend(keys);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { path, mut encoder, keys }) = self.open.take() else { return Ok(()) };
        let (layout, sort_order_id) = (self.target.layout, self.target.sort_order_id);
        let range = keys.filter(|_| sort_order_id != 0);
        encoder.set_key_range(range.map(|(first, last)| KeyRange::new(sort_order_id, &first, &last)));
        let rows = encoder.rows();
        let (metadata, bytes) = encoder.finish_with(PartSink::close)?;
        let entry = FileEntry {
            path,
            bytes,
            rows,
            schema_id: layout.schema.schema_id,
            spec_id: layout.partition_spec.spec_id,
            sort_order_id,
            partition_token: self.token.clone(),
        };
        let details = footer::details(&metadata, &entry, &layout.schema, &layout.partition_spec)?;
        tracing::debug!(file = %entry.path, rows, bytes, "data file written");
        self.files.push(WrittenFile { entry, details });
        Ok(())
    }

    /// The files, in key order.
    pub(crate) fn finish(mut self) -> Result<Vec<WrittenFile>> {
        self.close()?;
        Ok(self.files)
    }
}

impl Open {
    fn extend(&mut self, (first, last): (Vec<u8>, Vec<u8>)) {
        match &mut self.keys {
            Some(keys) => keys.1 = last,
            none => *none = Some((first, last)),
        }
    }
}

/// A name that says nothing but when it was made.
fn new_path(host: &Host) -> String {
    format!("data/{}.parquet", host.ulid().to_string().to_lowercase())
}
