//! Letting go of entries that nobody reads again, and the guard of commits that come late.
//!
//! An entry goes when it is below every kept checkpoint and below what any projection has yet to show, and is at
//! least a day old. Whoever still needs it after that starts from a checkpoint: a worker that slept does so
//! before its next commit ([`Ledger::commit`]), a projection goes on from the state.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use siltstone_protocol::{Change, FileEntry};

use super::{Ledger, LedgerState, checkpoint};
use crate::error::LakeError;

/// No entry younger than this is ever expired; far above the time after which a quiet worker looks again.
const EXPIRY_AGE_MS_MIN: i64 = 24 * 3_600_000;
/// Entries deleted by one call.
const EXPIRED_MAX: usize = 10_000;
/// Entries looked at by one call.
const LISTED_MAX: usize = 4_000_000;
/// Files younger than this by their names are taken to be there: no clean-up touches them.
const YOUNG_MS: i64 = 30 * 60_000;
const LOOKS_AT_ONCE: usize = 32;

/// Entries that may go, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpirableEntries {
    pub paths: Vec<Path>,
    pub bytes: u64,
}

impl Ledger {
    /// Deletes entries below `keep_from` that are older than `age_ms_min` (and a day) and that no kept
    /// checkpoint needs. Returns how many. For maintenance: `keep_from` is the lowest version that any
    /// projection or report still has to read.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer; what was deleted is deleted.
    pub async fn expire_entries(
        &self,
        keep_from: u64,
        age_ms_min: i64,
        now_ms: i64,
    ) -> Result<usize, LakeError> {
        let expirable = self.expirable_entries(keep_from, age_ms_min, now_ms).await?;
        let count = expirable.paths.len();
        let prefix = self.ledger_path();
        let mut deletions =
            self.inner.store.delete_stream(Box::pin(stream::iter(expirable.paths.into_iter().map(Ok))));
        loop {
            match deletions.try_next().await {
                Ok(None) => return Ok(count),
                Ok(Some(_)) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(LakeError::store("delete", &prefix, &error)),
            }
        }
    }

    /// The entries that [`Self::expire_entries`] would delete, at most ten thousand, oldest first.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer.
    pub async fn expirable_entries(
        &self,
        keep_from: u64,
        age_ms_min: i64,
        now_ms: i64,
    ) -> Result<ExpirableEntries, LakeError> {
        let Some(oldest) = checkpoint::list(self).await?.first().copied() else {
            return Ok(ExpirableEntries::default());
        };
        let keep_from = keep_from.min(oldest);
        let before_ms = now_ms.saturating_sub(age_ms_min.max(EXPIRY_AGE_MS_MIN));
        let prefix = self.ledger_path();
        let mut listing = self.inner.store.list(Some(&prefix)).take(LISTED_MAX);
        let mut found = Vec::new();
        while let Some(object) =
            listing.try_next().await.map_err(|error| LakeError::store("list", &prefix, &error))?
        {
            let version = checkpoint::version_in(&object.location).filter(|version| *version < keep_from);
            if let Some(version) = version
                && object.last_modified.timestamp_millis() < before_ms
            {
                found.push((version, object.size));
            }
        }
        // Listings come in any order; what is left of the ledger has no holes but those of a broken call.
        found.sort_unstable();
        found.truncate(EXPIRED_MAX);
        Ok(ExpirableEntries {
            bytes: found.iter().map(|(_, bytes)| bytes).sum(),
            paths: found.into_iter().map(|(version, _)| self.entry_path(version)).collect(),
        })
    }

    /// For the moment before a commit: that files written long ago are still there. A writer that was slow or
    /// asleep for longer than the age at which files without a name are deleted must not name them now.
    ///
    /// # Errors
    /// `Fenced`: a file was cleaned up; drop the buffer and start from the ledger. `Unavailable`: the store did
    /// not answer.
    pub async fn confirm_files(
        &self,
        state: &LedgerState,
        change: &Change,
        now_ms: i64,
    ) -> Result<(), LakeError> {
        let (Change::Append { files, .. }
        | Change::Replace { added: files, .. }
        | Change::Delete { added: files, .. }
        | Change::Overwrite { added: files, .. }
        | Change::Absorb { added: files, .. }) = change
        else {
            return Ok(());
        };
        let old = files.iter().filter(|file| !is_young(file, now_ms)).map(|file| file.path.clone());
        let looks = old.map(|file| {
            let path = file.split('/').fold(self.inner.location.clone(), |path, part| path.join(part));
            async move {
                match self.inner.store.head(&path).await {
                    Ok(_) => Ok(()),
                    Err(object_store::Error::NotFound { .. }) => {
                        let (table, version) = (state.name.clone(), state.version);
                        Err(LakeError::Swept { table, version, file })
                    }
                    Err(error) => Err(LakeError::store("read", &path, &error)),
                }
            }
        });
        stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }
}

/// By the time in the file's name, which its writer gave it when it began to write.
fn is_young(file: &FileEntry, now_ms: i64) -> bool {
    let name = file.path.strip_prefix("data/").and_then(|name| name.strip_suffix(".parquet"));
    let born_ms = name.and_then(|name| ulid::Ulid::from_string(name).ok()).map(|ulid| ulid.timestamp_ms());
    born_ms.is_some_and(|born_ms| {
        let age_ms = now_ms.saturating_sub(i64::try_from(born_ms).unwrap_or(i64::MAX));
        (-YOUNG_MS..YOUNG_MS).contains(&age_ms)
    })
}
