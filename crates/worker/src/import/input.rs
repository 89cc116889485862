//! A stored file from the first byte to the last, for a blocking thread: one piece in use, the next on its way.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use object_store::{GetOptions, GetRange, ObjectStore, path::Path};
use siltstone_ingest::files::FileInput;
use siltstone_lakehouse::LakeError;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{list::SourceFile, progress::Attempt};

/// Bytes of a piece.
pub(super) const PIECE_BYTES: u64 = 2 << 20;

type Fetched = object_store::Result<Bytes>;

/// Why bytes did not come, as whoever reads them cannot say.
pub(super) type Failure = Arc<std::sync::Mutex<Option<Lost>>>;

#[derive(Debug)]
pub(super) enum Lost {
    /// The file has another content by now than the one that was listed.
    Replaced,
    Store(LakeError),
}

/// Reads one file. All pieces are of the content that was listed.
pub(super) struct ObjectInput {
    place: Arc<Place>,
    handle: Handle,
    /// The next byte that nobody asked for.
    at: u64,
    piece: Bytes,
    /// Where what is on its way begins.
    next: Option<(u64, JoinHandle<Fetched>)>,
    failure: Failure,
    attempt: Arc<Attempt>,
}

struct Place {
    store: Arc<dyn ObjectStore>,
    path: Path,
    etag: Option<String>,
    bytes: u64,
}

impl ObjectInput {
    pub(super) fn new(
        store: &Arc<dyn ObjectStore>,
        file: &SourceFile,
        handle: Handle,
        attempt: Arc<Attempt>,
    ) -> (Self, Failure) {
        let failure = Failure::default();
        let place = Arc::new(Place {
            store: Arc::clone(store),
            path: file.path.clone(),
            etag: file.etag.clone(),
            bytes: file.bytes,
        });
        let (at, piece, next) = (0, Bytes::new(), None);
        (Self { place, handle, at, piece, next, failure: Arc::clone(&failure), attempt }, failure)
    }

    /// Asks for the piece after those that were asked for.
    fn ask(&mut self) -> Option<(u64, JoinHandle<Fetched>)> {
        let start = self.at;
        let end = (start + PIECE_BYTES).min(self.place.bytes);
        if start == end {
            return None;
        }
        self.at = end;
        let place = Arc::clone(&self.place);
        let asked = self.handle.spawn(async move {
            let range = Some(GetRange::Bounded(start..end));
            let options = GetOptions { range, if_match: place.etag.clone(), ..GetOptions::default() };
            place.store.get_opts(&place.path, options).await?.bytes().await
        });
        Some((start, asked))
    }

    fn advance(&mut self) -> io::Result<()> {
        let asked = match self.next.take() {
            Some(asked) => Some(asked),
            None => self.ask(),
        };
        let Some((_, asked)) = asked else { return Ok(()) };
        self.next = self.ask();
        let fetched =
            self.handle.block_on(asked).map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        self.piece = fetched.map_err(|error| {
            let label = Path::from("a source file");
            let error = match error {
                object_store::Error::Precondition { .. } => Lost::Replaced,
                error => Lost::Store(LakeError::store("read", &label, &error)),
            };
            *self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            io::Error::from(io::ErrorKind::ConnectionAborted)
        })?;
        self.attempt.bytes(self.piece.len() as u64);
        Ok(())
    }
}

impl Read for ObjectInput {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !to.is_empty() {
            self.advance()?;
        }
        let length = to.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut to[..length]);
        Ok(length)
    }
}

impl FileInput for ObjectInput {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let here = bytes.min(self.piece.len() as u64);
        self.piece.advance(usize::try_from(here).unwrap_or(usize::MAX));
        let mut beyond = bytes - here;
        if beyond > PIECE_BYTES {
            // What is on its way would be passed over.
            let from = match self.next.take() {
                Some((start, asked)) => {
                    asked.abort();
                    start
                }
                None => self.at,
            };
            let to = from.checked_add(beyond).filter(|to| *to <= self.place.bytes);
            self.at = to.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.attempt.bytes(self.at - from);
            return Ok(());
        }
        while beyond > 0 {
            self.advance()?;
            if self.piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let here = beyond.min(self.piece.len() as u64);
            self.piece.advance(usize::try_from(here).unwrap_or(usize::MAX));
            beyond -= here;
        }
        Ok(())
    }
}

impl Drop for ObjectInput {
    fn drop(&mut self) {
        if let Some((_, next)) = self.next.take() {
            next.abort();
        }
    }
}
