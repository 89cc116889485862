//! The Delta log in the store: names, reads, the conditional put, and where it stands.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use serde::Deserialize;

use super::actions::Seen;
use crate::error::LakeError;

/// Commits looked at, going back from the newest, before the tables' own checkpoint is asked.
const LOOK_BACK_MAX: u64 = 1_000;
/// A larger commit is not read.
const COMMIT_BYTES_MAX: u64 = 1 << 30;
/// Log files after the newest checkpoint, at most.
const LISTED_MAX: usize = 1_000_000;

/// The log of one Delta table.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) store: Arc<dyn ObjectStore>,
    /// `<table>/data/_delta_log`.
    path: Path,
}

/// Where the log stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The newest log version.
    pub(super) version: u64,
    /// The last commit of ours, if the look back found it.
    pub(super) own: Option<Seen>,
    /// Commits of other programs after it, oldest last.
    pub(super) foreign: Vec<(u64, Seen)>,
}

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
}

impl Log {
    pub(super) fn new(store: Arc<dyn ObjectStore>, table_location: &Path) -> Self {
        let path = table_location.clone().join("data").join("_delta_log");
        Self { store, path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn commit_path(&self, version: u64) -> Path {
        self.path.clone().join(format!("{version:020}.json"))
    }

    /// Creates a commit: the Delta protocol's rule, put-if-absent of the next version.
    pub(super) async fn create(&self, version: u64, bytes: bytes::Bytes) -> object_store::Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(&self.commit_path(version), PutPayload::from(bytes), options).await.map(|_| ())
    }

    /// What matters of a commit; `None` when there is none of this version.
    pub(super) async fn read(&self, version: u64) -> Result<Option<Seen>, LakeError> {
        let path = self.commit_path(version);
        let bytes = self.bytes(&path).await?;
        bytes.map(|bytes| Seen::parse(&bytes, &path)).transpose()
    }

    /// Where the log stands; `None` when there is no log.
    pub(super) async fn standing(&self) -> Result<Option<Standing>, LakeError> {
        let Some(version) = self.newest().await? else { return Ok(None) };
        let mut standing = Standing { version, ..Standing::default() };
        for version in (0..=version).rev().take(usize::try_from(LOOK_BACK_MAX).unwrap_or(usize::MAX)) {
            let Some(seen) = self.read(version).await? else { break };
            if seen.own.is_some() {
                standing.own = Some(seen);
                break;
            }
            standing.foreign.push((version, seen));
        }
        Ok(Some(standing))
    }

    /// The newest log version: the last checkpoint's, or a commit after it.
    async fn newest(&self) -> Result<Option<u64>, LakeError> {
        let hint = self.path.clone().join("_last_checkpoint");
        // The file is a hint by Delta's protocol: when it cannot be read, everything is listed.
        let checkpoint = self.bytes(&hint).await?;
        let checkpoint = checkpoint.and_then(|bytes| serde_json::from_slice::<LastCheckpoint>(&bytes).ok());
        let mut newest = None;
        let mut listing = match &checkpoint {
            Some(checkpoint) => {
                self.store.list_with_offset(Some(&self.path), &self.commit_path(checkpoint.version))
            }
            None => self.store.list(Some(&self.path)),
        };
        for _ in 0..LISTED_MAX {
            match listing.try_next().await {
                Ok(Some(object)) => newest = newest.max(version_in(&object.location)),
                Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                Err(error) => return Err(LakeError::store("list", &self.path, &error)),
            }
        }
        Ok(newest.max(checkpoint.map(|checkpoint| checkpoint.version)))
    }

    /// A file of the log; `None` when it is not there.
    pub(super) async fn bytes(&self, path: &Path) -> Result<Option<bytes::Bytes>, LakeError> {
        let object = match self.store.get(path).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(LakeError::store("read", path, &error)),
        };
        if object.meta.size > COMMIT_BYTES_MAX {
            return Err(LakeError::data(path, format_args!("larger than {COMMIT_BYTES_MAX} bytes")));
        }
        let bytes = object.bytes().await;
        bytes.map(Some).map_err(|error| LakeError::store("read", path, &error))
    }
}

/// The version of a commit file: twenty digits and `.json`.
fn version_in(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
