//! From the encoder's thread to the object store, with bounded memory.
//!
//! 1. The encoder fills parts of [`PART_BYTES`] and hands them over a channel of one; it waits when the
//!    store is slower.
//! 2. A file of one part is one put. Larger files are multipart uploads.
//! 3. At most [`IN_FLIGHT_BYTES_MAX`] and [`IN_FLIGHT_MAX`] requests are under way, over all files, so that
//!    thousands of small files do not queue one behind the other.
//!
//! Memory: [`IN_FLIGHT_BYTES_MAX`] and three parts (being filled, in the channel, just received).

use std::{io, sync::Arc};

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{JoinError, JoinSet},
};

use crate::{
    error::{DataFileError, Result},
    host::Host,
};

/// Size of a part: above every store's minimum of 5 MiB; 10,000 of them hold 80 GB.
pub(crate) const PART_BYTES: usize = 8 << 20;
const IN_FLIGHT_BYTES_MAX: usize = 4 * PART_BYTES;
const IN_FLIGHT_MAX: usize = 16;
/// Parts held when there is no thread to take them while others are encoded.
const PARTS_IN_PLACE_MAX: usize = 4096;

/// A part of a file, in order.
pub(crate) struct Part {
    path: Arc<Path>,
    bytes: Bytes,
    last: bool,
}

/// The encoder's side: what it writes becomes parts.
pub(crate) struct PartSink {
    path: Arc<Path>,
    parts: mpsc::Sender<Part>,
    filling: Vec<u8>,
}

impl PartSink {
    pub(crate) fn new(path: Path, parts: mpsc::Sender<Part>) -> Self {
        Self { path: Arc::new(path), parts, filling: Vec::new() }
    }

    /// Hands over the last part. The file is durable when [`upload`] has returned.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.send(true).map_err(|_| DataFileError::Stopped)
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        // A file that has filled one part is likely to fill another.
        let next = if last { Vec::new() } else { Vec::with_capacity(PART_BYTES) };
        let bytes = Bytes::from(std::mem::replace(&mut self.filling, next));
        let part = Part { path: Arc::clone(&self.path), bytes, last };
        let closed = || io::ErrorKind::BrokenPipe.into();
        match self.parts.try_send(part) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(part)) => self.parts.blocking_send(part).map_err(|_| closed()),
            Err(TrySendError::Closed(_)) => Err(closed()),
        }
    }
}

impl io::Write for PartSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = PART_BYTES - self.filling.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.filling.extend_from_slice(now);
            rest = later;
            if self.filling.len() == PART_BYTES {
                self.send(false)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Sent = std::result::Result<usize, DataFileError>;

/// Encodes files, and uploads their parts meanwhile. What `encode` gives is durable when this returns.
///
/// On a host without threads, all is encoded first, at most [`PARTS_IN_PLACE_MAX`] parts.
pub(crate) async fn encode_and_upload<T: Send + 'static>(
    host: &Host,
    store: &Arc<dyn ObjectStore>,
    encode: impl FnOnce(&mpsc::Sender<Part>) -> Result<T> + Send + 'static,
) -> Result<T> {
    if !host.has_threads() {
        let (sender, receiver) = mpsc::channel(PARTS_IN_PLACE_MAX);
        let encoded = encode(&sender);
        drop(sender);
        upload(store, receiver).await?;
        return encoded;
    }
    let (sender, receiver) = mpsc::channel(1);
    let encoding = tokio::task::spawn_blocking(move || encode(&sender));
    let uploaded = upload(store, receiver).await;
    let encoded = encoding.await.map_err(|_| DataFileError::Stopped);
    // When the store failed, the encoder only knows that nobody took its parts.
    uploaded?;
    encoded?
}

/// Uploads every part that arrives. Returns when the channel is closed and all files are durable.
async fn upload(store: &Arc<dyn ObjectStore>, mut parts: mpsc::Receiver<Part>) -> Result<()> {
    let mut uploader = Uploader { store, requests: JoinSet::new(), bytes: 0 };
    let mut open: Option<Box<dyn MultipartUpload>> = None;
    let result = uploader.run(&mut parts, &mut open).await;
    if result.is_err() {
        uploader.requests.shutdown().await;
        if let Some(mut upload) = open {
            // Not yet completed, so no file can have come of it; what was sent would be kept and billed.
            let _ = upload.abort().await;
        }
    }
    result
}

struct Uploader<'a> {
    store: &'a Arc<dyn ObjectStore>,
    requests: JoinSet<Sent>,
    bytes: usize,
}

impl Uploader<'_> {
    async fn run(
        &mut self,
        parts: &mut mpsc::Receiver<Part>,
        open: &mut Option<Box<dyn MultipartUpload>>,
    ) -> Result<()> {
        loop {
            let room = self.bytes < IN_FLIGHT_BYTES_MAX && self.requests.len() < IN_FLIGHT_MAX;
            let part = tokio::select! {
                biased;
                Some(sent) = self.requests.join_next() => {
                    self.settle(sent)?;
                    continue;
                }
                part = parts.recv(), if room => part,
            };
            let Some(part) = part else { break };
            self.send(part, open).await?;
        }
        self.drain().await
    }

    async fn send(&mut self, part: Part, open: &mut Option<Box<dyn MultipartUpload>>) -> Result<()> {
        let path = Arc::clone(&part.path);
        let length = part.bytes.len();
        self.bytes += length;
        if part.last && open.is_none() {
            let store = Arc::clone(self.store);
            self.requests.spawn(async move {
                let put = store.put(&path, PutPayload::from_bytes(part.bytes)).await;
                put.map(|_| length).map_err(|error| DataFileError::store(&path, &error))
            });
            return Ok(());
        }
        let failed = |error| DataFileError::store(&path, &error);
        if open.is_none() {
            *open = Some(self.store.put_multipart(&path).await.map_err(failed)?);
        }
        if let Some(upload) = open.as_mut().filter(|_| length > 0) {
            let sending = upload.put_part(PutPayload::from_bytes(part.bytes));
            let path = Arc::clone(&path);
            self.requests.spawn(async move {
                sending.await.map(|()| length).map_err(|error| DataFileError::store(&path, &error))
            });
        }
        if part.last {
            self.drain().await?;
            if let Some(mut upload) = open.take() {
                upload.complete().await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(sent) = self.requests.join_next().await {
            self.settle(sent)?;
        }
        Ok(())
    }

    fn settle(&mut self, sent: std::result::Result<Sent, JoinError>) -> Result<()> {
        self.bytes -= sent.map_err(|_| DataFileError::Stopped)??;
        Ok(())
    }
}
