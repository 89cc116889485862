//! The bytes of an input, for a decoder on a blocking thread.
//!
//! A small input is held whole. Of a larger one, each column chunk is read in blocks: one in use, and the
//! next on its way meanwhile. Pages are asked for in file order within a chunk, so each byte comes once.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, path::Path};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    errors::ParquetError,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length},
    },
};
use tokio::{runtime::Handle, task::JoinHandle};

use super::RewriteInput;
use crate::{
    error::{DataFileError, Result},
    footer,
};

/// Inputs that are opened at once.
const OPEN_MAX: usize = 16;
/// An input larger than this is never held whole.
const WHOLE_BYTES_MAX: u64 = 16 << 20;
/// Bytes that one read call asks for: at first, and of one that goes on.
const READ_BYTES_MIN: usize = 8 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// An input whose footer was read.
pub(super) struct Input {
    pub(super) input: RewriteInput,
    pub(super) object: Object,
    pub(super) metadata: ArrowReaderMetadata,
}

/// Opens all inputs. `whole_bytes`: what inputs held whole may take together; `block_bytes`: of a block.
pub(super) async fn open(
    inputs: Vec<RewriteInput>,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    whole_bytes: u64,
    block_bytes: u64,
) -> Result<Vec<Input>> {
    let mut left = whole_bytes;
    let opening = inputs.into_iter().map(|input| {
        let bytes = input.entry.bytes;
        let whole = bytes <= WHOLE_BYTES_MAX && bytes <= left;
        if whole {
            left -= bytes;
        }
        open_one(input, store, table_location, whole, block_bytes)
    });
    let opening: Vec<_> = opening.collect();
    futures::stream::iter(opening).buffered(OPEN_MAX).try_collect().await
}

async fn open_one(
    input: RewriteInput,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    whole: bool,
    block_bytes: u64,
) -> Result<Input> {
    let path = footer::location(table_location, &input.entry.path);
    let corrupt = |_| DataFileError::corrupt(&input.entry.path, "it is no readable Parquet file");
    // What we laid down is never replaced.
    let (label, etag) = (input.entry.path.clone(), None);
    let place = Place { store: Arc::clone(store), label, path, etag, size: input.entry.bytes };
    let (object, metadata) = Object::open(place, whole, move |_| block_bytes).await?;
    if u64::try_from(metadata.file_metadata().num_rows()) != Ok(input.entry.rows) {
        let fault = "it has another number of rows than its entry";
        return Err(DataFileError::corrupt(&input.entry.path, fault));
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(corrupt)?;
    Ok(Input { object, metadata, input })
}

fn chunk_ends(metadata: &ParquetMetaData) -> Vec<u64> {
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let mut ends: Vec<u64> = chunks
        .map(|chunk| {
            let (start, length) = chunk.byte_range();
            start + length
        })
        .collect();
    ends.sort_unstable();
    ends
}

/// Where an object is.
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    /// Of the content that is to be read; `None`: of whatever is there.
    pub(crate) etag: Option<String>,
    /// What stands for it in errors.
    pub(crate) label: String,
    pub(crate) size: u64,
}

impl Place {
    fn failed(&self, error: &object_store::Error) -> DataFileError {
        DataFileError::read(&self.label, error)
    }
}

/// A stored file as the Parquet reader takes it; clones share their blocks.
#[derive(Clone)]
pub(crate) struct Object(Arc<Inner>);

struct Inner {
    place: Place,
    handle: Handle,
    whole: Option<Bytes>,
    block_bytes: u64,
    /// Where column chunks end, rising.
    chunk_ends: Vec<u64>,
    /// The block in use of each chunk, by the chunk's end.
    blocks: Mutex<HashMap<u64, Block>>,
    failed: Mutex<Option<DataFileError>>,
}

struct Block {
    start: u64,
    bytes: Bytes,
    next: Option<JoinHandle<object_store::Result<Bytes>>>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            next.abort();
        }
    }
}

impl Object {
    /// Reads the footer, or all of it. `block_bytes`: of a block of one that is not held whole, by its footer.
    pub(crate) async fn open(
        place: Place,
        whole: bool,
        block_bytes: impl FnOnce(&ParquetMetaData) -> u64,
    ) -> Result<(Self, ParquetMetaData)> {
        let corrupt = |fault| DataFileError::corrupt(&place.label, fault);
        let (metadata, whole) = if whole {
            let failed = |error| place.failed(&error);
            let whole = footer::fetch(place.store.as_ref(), &place.path, place.etag.as_deref(), None);
            let bytes = whole.await.map_err(failed)?;
            if bytes.len() as u64 != place.size {
                return Err(corrupt("it is of another size than its entry"));
            }
            let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            let metadata = reader.parse_and_finish(&bytes);
            (metadata.map_err(|_| corrupt("it is no readable Parquet file"))?, Some(bytes))
        } else {
            let Place { store, path, etag, label, size } = &place;
            let policy = PageIndexPolicy::Optional;
            (footer::read_metadata_at(store, path, etag.as_deref(), label, *size, policy).await?, None)
        };
        let inner = Inner {
            handle: Handle::current(),
            chunk_ends: chunk_ends(&metadata),
            place,
            whole,
            block_bytes: block_bytes(&metadata),
            blocks: Mutex::default(),
            failed: Mutex::default(),
        };
        Ok((Self(Arc::new(inner)), metadata))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.whole.is_some()
    }

    /// The store's error behind a decoder's, if that was the cause.
    pub(crate) fn failure(&self) -> Option<DataFileError> {
        lock(&self.0.failed).take()
    }

    fn bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let inner = &self.0;
        let beyond = || DataFileError::corrupt(&inner.place.label, "a page lies outside of it");
        let end =
            start.checked_add(length as u64).filter(|end| *end <= inner.place.size).ok_or_else(beyond)?;
        if let Some(whole) = &inner.whole {
            return Ok(whole.slice(start as usize..end as usize));
        }
        if length == 0 {
            return Ok(Bytes::new());
        }
        let chunk_end = inner.chunk_end(start).max(end);
        let mut blocks = lock(&inner.blocks);
        let mut block = match blocks.remove(&chunk_end) {
            Some(block) if block.start <= start && start <= block.end() => block,
            _ => self.fetch(start, end, chunk_end)?,
        };
        // Only what lies in several blocks is copied; the last of them is then the one in use.
        let mut joined = BytesMut::new();
        let mut at = start;
        while block.end() < end {
            if at < block.end() {
                joined.reserve(length - joined.len());
                joined.extend_from_slice(&block.bytes[(at - block.start) as usize..]);
                at = block.end();
            }
            block = self.after(block, end, chunk_end)?;
        }
        let bytes = block.bytes.slice((at - block.start) as usize..(end - block.start) as usize);
        if block.end() > end || block.next.is_some() {
            blocks.insert(chunk_end, block);
        }
        if joined.is_empty() {
            return Ok(bytes);
        }
        joined.extend_from_slice(&bytes);
        Ok(joined.freeze())
    }

    /// Bytes from `start`, at most so many: those of them that the block in use has, when it has any.
    fn bytes_at_hand(&self, start: u64, most: usize) -> parquet::errors::Result<Bytes> {
        let inner = &self.0;
        let held = lock(&inner.blocks).get(&inner.chunk_end(start)).and_then(|block| {
            (block.start <= start && start < block.end()).then(|| (block.end() - start) as usize)
        });
        self.get_bytes(start, held.map_or(most, |held| most.min(held)))
    }

    /// A block from `start` on, with all up to `end`.
    fn fetch(&self, start: u64, end: u64, chunk_end: u64) -> Result<Block> {
        let inner = &self.0;
        let until = end.max(start + inner.block_bytes).min(chunk_end);
        let Place { store, path, etag, .. } = &inner.place;
        let bytes = footer::fetch(store.as_ref(), path, etag.as_deref(), Some(start..until));
        let bytes = inner.handle.block_on(bytes);
        let bytes = bytes.map_err(|error| inner.place.failed(&error))?;
        self.followed(start, bytes, end, chunk_end)
    }

    /// The block after one: what is on its way.
    fn after(&self, mut block: Block, end: u64, chunk_end: u64) -> Result<Block> {
        let inner = &self.0;
        let Some(next) = block.next.take() else { return self.fetch(block.end(), end, chunk_end) };
        let bytes = inner.handle.block_on(next).map_err(|_| DataFileError::Stopped)?;
        let bytes = bytes.map_err(|error| inner.place.failed(&error))?;
        self.followed(block.end(), bytes, end, chunk_end)
    }

    /// These bytes as a block, with the next one on its way: all that lacks up to `end`, or as much as a block has.
    fn followed(&self, start: u64, bytes: Bytes, end: u64, chunk_end: u64) -> Result<Block> {
        let inner = &self.0;
        if bytes.is_empty() {
            return Err(DataFileError::corrupt(&inner.place.label, "it is shorter than its entry says"));
        }
        let at = start + bytes.len() as u64;
        let next = (at < chunk_end).then(|| {
            let Place { store, path, etag, .. } = &inner.place;
            let (store, path, etag) = (Arc::clone(store), path.clone(), etag.clone());
            let until = end.max(at + inner.block_bytes).min(chunk_end);
            inner.handle.spawn(async move {
                footer::fetch(store.as_ref(), &path, etag.as_deref(), Some(at..until)).await
            })
        });
        Ok(Block { start, bytes, next })
    }
}

impl Inner {
    /// Where the column chunk ends in which this byte lies.
    fn chunk_end(&self, at: u64) -> u64 {
        let end = self.chunk_ends.get(self.chunk_ends.partition_point(|end| *end <= at));
        end.copied().unwrap_or(self.place.size).min(self.place.size)
    }
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Length for Object {
    fn len(&self) -> u64 {
        self.0.place.size
    }
}

impl ChunkReader for Object {
    type T = ObjectRead;

    fn get_read(&self, start: u64) -> parquet::errors::Result<ObjectRead> {
        let (object, ahead) = (self.clone(), READ_BYTES_MIN);
        Ok(ObjectRead { object, at: start, ahead, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.bytes(start, length).map_err(|error| {
            *lock(&self.0.failed) = Some(error);
            ParquetError::General("store".to_owned())
        })
    }
}

/// Reads on from a place, to the end of the file.
pub(crate) struct ObjectRead {
    object: Object,
    at: u64,
    /// Bytes to ask for: few for the head of a page, ever more for whoever reads on.
    ahead: usize,
    buffer: Bytes,
}

impl Read for ObjectRead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let left = self.object.0.chunk_end(self.at).saturating_sub(self.at);
            let most = left.min(self.ahead as u64) as usize;
            if most == 0 {
                return Ok(0);
            }
            let bytes = self.object.bytes_at_hand(self.at, most);
            self.buffer = bytes.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.at += self.buffer.len() as u64;
            self.ahead = (self.ahead * 2).min(READ_BYTES_MAX);
        }
        let length = to.len().min(self.buffer.len());
        self.buffer.copy_to_slice(&mut to[..length]);
        Ok(length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
