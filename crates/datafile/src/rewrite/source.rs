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
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
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
/// Bytes that one read call asks for.
const READ_BYTES: usize = 256 << 10;

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
    let place =
        Place { store: Arc::clone(store), label: input.entry.path.clone(), path, size: input.entry.bytes };
    let (object, metadata) = Object::open(place, whole, block_bytes).await?;
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
    /// What stands for it in errors.
    pub(crate) label: String,
    pub(crate) size: u64,
}

impl Place {
    fn failed(&self, error: &object_store::Error) -> DataFileError {
        DataFileError::store(&Path::from(self.label.as_str()), error)
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
    /// Reads the footer, or all of it. `block_bytes`: of a block of one that is not held whole.
    pub(crate) async fn open(place: Place, whole: bool, block_bytes: u64) -> Result<(Self, ParquetMetaData)> {
        let corrupt = |fault| DataFileError::corrupt(&place.label, fault);
        let (metadata, whole) = if whole {
            let failed = |error| place.failed(&error);
            let bytes = place.store.get(&place.path).await.map_err(failed)?.bytes().await.map_err(failed)?;
            if bytes.len() as u64 != place.size {
                return Err(corrupt("it is of another size than its entry"));
            }
            let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            let metadata = reader.parse_and_finish(&bytes);
            (metadata.map_err(|_| corrupt("it is no readable Parquet file"))?, Some(bytes))
        } else {
            let Place { store, path, label, size } = &place;
            let policy = PageIndexPolicy::Optional;
            (footer::read_metadata_at(store, path, label, *size, policy).await?, None)
        };
        let inner = Inner {
            handle: Handle::current(),
            chunk_ends: chunk_ends(&metadata),
            place,
            whole,
            block_bytes,
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
        let chunk_end = inner.chunk_ends.get(inner.chunk_ends.partition_point(|chunk| *chunk <= start));
        let chunk_end = chunk_end.copied().unwrap_or(inner.place.size).max(end);
        let mut blocks = lock(&inner.blocks);
        let held = blocks.remove(&chunk_end);
        let block = match held {
            Some(block) if block.start <= start && end <= block.end() => block,
            held => self.advance(held, start, end, chunk_end)?,
        };
        let from = (start - block.start) as usize;
        let bytes = block.bytes.slice(from..from + length);
        if block.end() > end || block.next.is_some() {
            blocks.insert(chunk_end, block);
        }
        Ok(bytes)
    }

    /// A block from `start` that holds all up to `end`, with the next one on its way.
    fn advance(&self, held: Option<Block>, start: u64, end: u64, chunk_end: u64) -> Result<Block> {
        let inner = &self.0;
        let mut joined = BytesMut::new();
        let mut at = start;
        if let Some(mut block) = held {
            let (held_start, held_end) = (block.start, block.end());
            if held_start <= start && start < held_end {
                joined.extend_from_slice(&block.bytes[(start - held_start) as usize..]);
                at = held_end;
            }
            if let Some(next) = block.next.take_if(|_| at == held_end) {
                let bytes = inner.handle.block_on(next).map_err(|_| DataFileError::Stopped)?;
                let bytes = bytes.map_err(|error| inner.place.failed(&error))?;
                joined.extend_from_slice(&bytes);
                at += bytes.len() as u64;
            }
        }
        if at < end {
            let until = end.max(at + inner.block_bytes).min(chunk_end);
            let Place { store, path, .. } = &inner.place;
            let bytes = inner.handle.block_on(store.get_range(path, at..until));
            let bytes = bytes.map_err(|error| inner.place.failed(&error))?;
            if joined.is_empty() {
                return Ok(self.followed(start, bytes, chunk_end));
            }
            joined.extend_from_slice(&bytes);
        }
        Ok(self.followed(start, joined.freeze(), chunk_end))
    }

    fn followed(&self, start: u64, bytes: Bytes, chunk_end: u64) -> Block {
        let inner = &self.0;
        let at = start + bytes.len() as u64;
        let next = (at < chunk_end).then(|| {
            let (store, path) = (Arc::clone(&inner.place.store), inner.place.path.clone());
            let until = (at + inner.block_bytes).min(chunk_end);
            inner.handle.spawn(async move { store.get_range(&path, at..until).await })
        });
        Block { start, bytes, next }
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
        Ok(ObjectRead { object: self.clone(), at: start, buffer: Bytes::new() })
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
    buffer: Bytes,
}

impl Read for ObjectRead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let inner = &self.object.0;
            let chunk = inner.chunk_ends.get(inner.chunk_ends.partition_point(|end| *end <= self.at));
            let end = chunk.copied().unwrap_or(inner.place.size).min(inner.place.size);
            let length = (end.saturating_sub(self.at)).min(READ_BYTES as u64) as usize;
            if length == 0 {
                return Ok(0);
            }
            let bytes = self.object.get_bytes(self.at, length);
            self.buffer = bytes.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.at += length as u64;
        }
        let length = to.len().min(self.buffer.len());
        self.buffer.copy_to_slice(&mut to[..length]);
        Ok(length)
    }
}
