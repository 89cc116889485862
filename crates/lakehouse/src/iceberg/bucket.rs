//! The bucket catalog: a table's metadata versions as files, the newest of which is the table.
//!
//! 1. `metadata/v<N>.metadata.json` is created by put-if-absent, N from 1. That put is the commit.
//! 2. `metadata/version-hint.text` then names N. It is a hint: readers of ours go on from it until the
//!    next version is absent, and list when it is missing or points nowhere.
//! 3. A put whose reply is lost or says "exists" is decided by reading the file back: our bytes are in it,
//!    or somebody else's. Nothing is ever deleted on such an outcome.
//!
//! Paths inside the metadata are absolute URLs below the table's URL.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use siltstone_datafile::Host;

use crate::error::{LakeError, StoreFault, StoreFaultCode};

const HINT: &str = "version-hint.text";
const METADATA_SUFFIX: &str = ".metadata.json";
/// Versions probed upwards from the hint before the directory is listed instead.
const PROBES_MAX: usize = 16;
const PUT_ATTEMPTS_MAX: u32 = 4;
const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 5_000;

/// What became of a conditional put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    Committed,
    /// Another file holds this version.
    Conflict,
    /// The file may still appear. Whoever looks again finds out.
    Unknown(StoreFault),
}

/// The newest metadata file.
#[derive(Debug)]
pub(crate) struct StoredMetadata {
    pub(crate) version: u64,
    pub(crate) bytes: Bytes,
    /// What the hint says, when it could be read.
    pub(crate) hint: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The table's location in the store.
    pub(crate) location: Path,
    /// Gives fresh files their names, and waits their spread.
    pub(crate) host: Host,
    /// The table's absolute URL, without a slash at the end.
    url: String,
}

impl Bucket {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, location: Path, url: &str) -> Self {
        let host = Host::default();
        Self { store, location, host, url: url.trim_end_matches('/').to_owned() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a path below the table.
    pub(crate) fn url_of(&self, below: &str) -> String {
        format!("{}/{below}", self.url)
    }

    pub(crate) fn metadata_name(version: u64) -> String {
        format!("metadata/v{version}{METADATA_SUFFIX}")
    }

    /// The path below the table that a URL names, `None` when it lies elsewhere.
    pub(crate) fn below<'a>(&self, url: &'a str) -> Option<&'a str> {
        let rest = strip_scheme(url).strip_prefix(strip_scheme(&self.url))?;
        rest.strip_prefix('/').filter(|rest| !rest.is_empty())
    }

    pub(crate) fn path(&self, below: &str) -> Path {
        below.split('/').fold(self.location.clone(), |path, part| path.join(part))
    }

    fn path_of(&self, url: &str) -> Result<Path, LakeError> {
        match self.below(url) {
            Some(below) => Ok(self.path(below)),
            None => Err(LakeError::data(url, "lies outside the table's location and cannot be read")),
        }
    }

    /// Reads an object named by URL.
    pub(crate) async fn get_url(&self, url: &str) -> Result<Bytes, LakeError> {
        let path = self.path_of(url)?;
        match self.get(&path).await? {
            Some(bytes) => Ok(bytes),
            None => Err(LakeError::data(path, "is gone although the table's metadata names it")),
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, LakeError> {
        let result = match self.store.get(path).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(LakeError::store("get", path, &error)),
        }
    }

    /// Writes a file of a fresh name (manifest, manifest list).
    pub(crate) async fn put_new(&self, below: &str, bytes: Bytes) -> Result<(), LakeError> {
        let path = self.path(below);
        let put = self.store.put(&path, PutPayload::from_bytes(bytes)).await;
        put.map(|_| ()).map_err(|error| LakeError::store("put", &path, &error))
    }

    /// Finds the newest metadata version, `None` when there is none.
    pub(crate) async fn head(&self) -> Result<Option<StoredMetadata>, LakeError> {
        let hint = self.hint().await?;
        let mut found = match hint {
            Some(version) => self.get(&self.metadata_path(version)).await?.map(|bytes| (version, bytes)),
            None => None,
        };
        if found.is_none() {
            found = self.newest_listed().await?;
        }
        let Some((mut version, mut bytes)) = found else { return Ok(None) };
        for probe in 0.. {
            if probe == PROBES_MAX
                && let Some((listed, newer)) = self.newest_listed().await?
                && listed > version
            {
                (version, bytes) = (listed, newer);
            }
            match self.get(&self.metadata_path(version + 1)).await? {
                Some(newer) => (version, bytes) = (version + 1, newer),
                None => break,
            }
        }
        Ok(Some(StoredMetadata { version, bytes, hint }))
    }

    /// True when there is metadata of this version.
    pub(crate) async fn has_metadata(&self, version: u64) -> Result<bool, LakeError> {
        let path = self.metadata_path(version);
        match self.store.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(LakeError::store("read", &path, &error)),
        }
    }

    async fn hint(&self) -> Result<Option<u64>, LakeError> {
        let bytes = self.get(&self.path("metadata").join(HINT)).await?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()))
    }

    async fn newest_listed(&self) -> Result<Option<(u64, Bytes)>, LakeError> {
        let prefix = self.path("metadata");
        let mut newest = None;
        let mut objects = self.store.list(Some(&prefix));
        while let Some(object) =
            objects.try_next().await.map_err(|error| LakeError::store("list", &prefix, &error))?
        {
            newest = newest.max(object.location.filename().and_then(metadata_version));
        }
        let Some(version) = newest else { return Ok(None) };
        Ok(self.get(&self.metadata_path(version)).await?.map(|bytes| (version, bytes)))
    }

    fn metadata_path(&self, version: u64) -> Path {
        self.path(&Self::metadata_name(version))
    }

    /// Creates metadata version `version`. Trying again with the same bytes is safe.
    pub(crate) async fn put_metadata(&self, version: u64, bytes: &Bytes) -> Result<PutOutcome, LakeError> {
        let path = self.metadata_path(version);
        let mut fault = StoreFault { code: StoreFaultCode::Other, status: None, store_code: None };
        for attempt in 0..PUT_ATTEMPTS_MAX {
            let options = PutOptions::from(PutMode::Create);
            let Err(error) = self.store.put_opts(&path, bytes.clone().into(), options).await else {
                return Ok(PutOutcome::Committed);
            };
            crate::crash_point!("iceberg.before_read_back");
            use object_store::Error as E;
            if matches!(error, E::NotImplemented { .. } | E::NotSupported { .. } | E::InvalidPath { .. }) {
                return Err(LakeError::store("create", &path, &error));
            }
            fault = StoreFault::of(&error);
            // Whatever the answer was, the file says what happened. Absent: not landed (S3 also answers
            // "conflict" to a put that raced another and left nothing), so the same put is tried again.
            match self.get(&path).await {
                Ok(Some(stored)) if stored == *bytes => return Ok(PutOutcome::Committed),
                Ok(Some(_)) => return Ok(PutOutcome::Conflict),
                Ok(None) | Err(_) => self.backoff(attempt).await,
            }
        }
        Ok(PutOutcome::Unknown(fault))
    }

    /// Waits between attempts: doubling, with jitter, bounded.
    pub(crate) async fn backoff(&self, attempt: u32) {
        let ceiling = (BACKOFF_MIN_MS << attempt.min(10)).min(BACKOFF_MAX_MS);
        let wait = ceiling / 2 + self.host.random() % (ceiling / 2 + 1);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// Points the hint at `version`.
    pub(crate) async fn put_hint(&self, version: u64) -> Result<(), LakeError> {
        let path = self.path("metadata").join(HINT);
        let put = self.store.put(&path, PutPayload::from(version.to_string().into_bytes())).await;
        put.map(|_| ()).map_err(|error| LakeError::store("put", &path, &error))
    }

    /// Deletes metadata files of ours that left the log. Failures are logged: the janitor finds the rest.
    pub(crate) async fn delete_metadata(&self, urls: Vec<String>) {
        for url in urls {
            let Some(below) = self.below(&url) else { continue };
            if below.strip_prefix("metadata/").and_then(metadata_version).is_none() {
                continue;
            }
            let path = self.path(below);
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    let error = LakeError::store("delete", &path, &error);
                    tracing::warn!(%error, "old metadata file not deleted");
                }
            }
        }
    }
}

/// The N of `v<N>.metadata.json`.
fn metadata_version(name: &str) -> Option<u64> {
    name.strip_prefix('v')?.strip_suffix(METADATA_SUFFIX)?.parse().ok()
}

/// `s3://b/k`, `s3a://b/k`, `file:///p` and `file:/p` compare by what follows the scheme.
fn strip_scheme(url: &str) -> &str {
    match url.split_once(':') {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            rest.strip_prefix("//").unwrap_or(rest)
        }
        _ => url,
    }
}
