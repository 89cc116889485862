//! Reading the ledger: its layout, its entries, its state.
//!
//! The head is found by asking for consecutive versions after the newest checkpoint, in windows that
//! grow: the cost follows what is new, not the table's age.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use siltstone_protocol::{Entry, ErrorKind, entry::ENTRY_FORMAT};
use tokio::{sync::OnceCell, time::Instant};

use super::{checkpoint, state::LedgerState};
use crate::error::LakeError;

/// Entries are fetched by so many requests at once, at most.
const FETCH_WINDOW_MAX: u64 = 32;
/// A larger entry is not one of ours.
const ENTRY_BYTES_MAX: u64 = 256 << 20;
/// Entries kept in memory, for projections that follow right behind.
const ENTRIES_HELD_MAX: usize = 512;
/// Pauses before reads are tried again.
const READ_AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// A read that failed after this long is not tried again.
const READ_LONG: Duration = Duration::from_secs(5);
/// A checkpoint is written every so many versions.
const CHECKPOINT_EVERY: u64 = 100;

/// The ledger of one table. Clones share everything.
#[derive(Clone)]
pub struct Ledger {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) location: Path,
    pub(super) checkpoint_every: u64,
    pub(super) checkpoint_running: Arc<AtomicBool>,
    pub(super) token_key: OnceCell<Arc<[u8; 32]>>,
    held: Mutex<BTreeMap<u64, Arc<Entry>>>,
}

impl Ledger {
    /// The ledger of the table at `table_location`.
    pub fn new(store: Arc<dyn ObjectStore>, table_location: Path) -> Self {
        Self::with_checkpoint_every(store, table_location, CHECKPOINT_EVERY)
    }

    /// Like [`Self::new`], with a checkpoint every `checkpoint_every` versions (at least 1).
    pub fn with_checkpoint_every(
        store: Arc<dyn ObjectStore>,
        table_location: Path,
        checkpoint_every: u64,
    ) -> Self {
        let inner = Inner {
            store,
            location: table_location,
            checkpoint_every: checkpoint_every.max(1),
            checkpoint_running: Arc::default(),
            token_key: OnceCell::new(),
            held: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// Where the table lies in the store.
    pub fn table_location(&self) -> &Path {
        &self.inner.location
    }

    /// The newest state: newest checkpoint plus the entries after it. `None`: there is no such table.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: an entry breaks the protocol.
    pub async fn load(&self) -> Result<Option<LedgerState>, LakeError> {
        let mut state = match checkpoint::newest(self).await? {
            Some(state) => state,
            None => match self.entry(0).await? {
                Some(entry) => LedgerState::created(&entry, self.entry_path(0).as_ref())?,
                None => return Ok(None),
            },
        };
        let replayed = self.refresh(&mut state).await?;
        if replayed as u64 >= self.inner.checkpoint_every.saturating_mul(2) {
            checkpoint::write_in_background(self, &state);
        }
        Ok(Some(state))
    }

    /// Applies entries newer than the state; returns how many. On an error those before the
    /// faulty one are applied.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn refresh(&self, state: &mut LedgerState) -> Result<usize, LakeError> {
        let (mut applied, mut window) = (0, 1);
        // Ends: each round but the last applies `window` entries, and history is finite.
        loop {
            let first = state.version + 1;
            let entries: Vec<Option<Arc<Entry>>> = stream::iter(first..first.saturating_add(window))
                .map(|version| self.entry(version))
                .buffered(FETCH_WINDOW_MAX as usize)
                .try_collect()
                .await?;
            for entry in &entries {
                let Some(entry) = entry else { return Ok(applied) };
                state.apply(entry, self.entry_path(entry.version).as_ref())?;
                applied += 1;
            }
            window = (window * 2).min(FETCH_WINDOW_MAX);
        }
    }

    /// One entry; `None` when there is none of this version (not yet, or expired).
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: it is not an entry of this version.
    pub async fn entry(&self, version: u64) -> Result<Option<Arc<Entry>>, LakeError> {
        if let Some(entry) = self.held().get(&version) {
            return Ok(Some(Arc::clone(entry)));
        }
        let path = self.entry_path(version);
        let Some(bytes) = read(&self.inner.store, &path, ENTRY_BYTES_MAX).await? else { return Ok(None) };
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| LakeError::json(&path, &error))?;
        if entry.format != ENTRY_FORMAT {
            let problem = format_args!("ledger format {}; this program reads {ENTRY_FORMAT}", entry.format);
            return Err(LakeError::data(&path, problem));
        }
        if entry.version != version {
            return Err(LakeError::data(&path, format_args!("says that it is version {}", entry.version)));
        }
        let entry = Arc::new(entry);
        self.hold(Arc::clone(&entry));
        Ok(Some(entry))
    }

    /// Entries `first..=last`, in order, fetched by bounded concurrency.
    ///
    /// # Errors
    /// As [`Self::entry`]; `Data` when one is not there.
    pub async fn entries(&self, first: u64, last: u64) -> Result<Vec<Arc<Entry>>, LakeError> {
        stream::iter(first..=last)
            .map(async |version| {
                let missing = || LakeError::data(self.entry_path(version), "the ledger entry is missing");
                self.entry(version).await?.ok_or_else(missing)
            })
            .buffered(FETCH_WINDOW_MAX as usize)
            .try_collect()
            .await
    }

    /// Like [`Self::entries`]; `None` when one of them is no longer kept.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub async fn entries_kept(&self, first: u64, last: u64) -> Result<Option<Vec<Arc<Entry>>>, LakeError> {
        let entries: Vec<Option<Arc<Entry>>> = stream::iter(first..=last)
            .map(async |version| self.entry(version).await)
            .buffered(FETCH_WINDOW_MAX as usize)
            .try_collect()
            .await?;
        Ok(entries.into_iter().collect())
    }

    pub(super) fn entry_path(&self, version: u64) -> Path {
        self.ledger_path().join(format!("{version:020}.json"))
    }

    pub(super) fn ledger_path(&self) -> Path {
        self.own_path().join("ledger")
    }

    pub(crate) fn own_path(&self) -> Path {
        self.inner.location.clone().join("_siltstone")
    }

    /// Keeps an entry in memory; the oldest leave first.
    pub(super) fn hold(&self, entry: Arc<Entry>) {
        let mut held = self.held();
        held.insert(entry.version, entry);
        while held.len() > ENTRIES_HELD_MAX {
            held.pop_first();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("location", &self.inner.location.as_ref()).finish_non_exhaustive()
    }
}

/// A small object's bytes; `None` when it is not there.
///
/// An answer that breaks off is asked for again, a few times: the store's client tries statuses again, but not bodies,
/// and not even the body of a 404. A failure that took long was tried again by the client, and is told at once.
pub(crate) async fn read(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes_max: u64,
) -> Result<Option<bytes::Bytes>, LakeError> {
    let mut pauses = READ_AGAIN_AFTER.iter();
    loop {
        let began = Instant::now();
        let error = match read_once(store, path, bytes_max).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            answer => return answer,
        };
        match pauses.next() {
            Some(pause) if began.elapsed() < READ_LONG => tokio::time::sleep(*pause).await,
            _ => return Err(error),
        }
    }
}

async fn read_once(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes_max: u64,
) -> Result<Option<bytes::Bytes>, LakeError> {
    let failed = |error: &object_store::Error| LakeError::store("read", path, error);
    let object = match store.get(path).await {
        Ok(object) => object,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    if object.meta.size > bytes_max {
        return Err(LakeError::data(path, format_args!("larger than {bytes_max} bytes")));
    }
    object.bytes().await.map(Some).map_err(|error| failed(&error))
}
