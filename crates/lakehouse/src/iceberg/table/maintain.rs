//! What maintenance asks of the Iceberg table: what it names, and that old snapshots expire.

use futures::StreamExt;
use iceberg::spec::ManifestFile;
use siltstone_protocol::ErrorKind;

use super::{Attempt, Draft, Head, IcebergTable, READS_AT_ONCE};
use crate::{
    error::LakeError,
    iceberg::{bucket::Bucket, manifests},
    ledger::LedgerState,
};

/// Rounds lost against other writers of the metadata.
const CONFLICTS_MAX: u32 = 10;

/// Snapshots that leave, or would.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    pub snapshots: u64,
    pub snapshots_left: u64,
}

impl IcebergTable {
    /// Calls `each` with every path or URL that the newest metadata leads to: metadata files, manifest lists,
    /// manifests, and the files of every retained snapshot. Returns the newest metadata version; `None`: the
    /// table is not shown as Iceberg, or its metadata files are a catalog's. Memory holds few manifests at a time.
    ///
    /// `each` answers false to stop; then `false` is returned beside the version.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: metadata cannot be read; then nothing may be deleted.
    pub async fn named(
        &mut self,
        each: &mut (dyn FnMut(&str) -> bool + Send),
    ) -> Result<(Option<u64>, bool), LakeError> {
        for attempt in 0.. {
            self.head = None;
            self.load().await?;
            let Some(head) = &self.head else { return Ok((None, true)) };
            let (number, url) = (self.catalog.is_none().then_some(head.number), head.url.clone());
            match Self::walk(&self.bucket, head, each).await {
                Ok(went_on) => return Ok((number, went_on)),
                // Another janitor may have deleted what an older version named: look at the newest again.
                Err(error) if error.kind() == ErrorKind::Data && attempt < CONFLICTS_MAX => {
                    self.head = None;
                    self.load().await?;
                    if self.head.as_ref().is_none_or(|head| head.url == url) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(LakeError::internal(self.bucket.url(), "no attempt was made"))
    }

    async fn walk(
        bucket: &Bucket,
        head: &Head,
        each: &mut (dyn FnMut(&str) -> bool + Send),
    ) -> Result<bool, LakeError> {
        let mut go_on = each(&head.url);
        for entry in &head.metadata.metadata_log {
            go_on &= each(&entry.metadata_file);
        }
        let mut lines: std::collections::BTreeMap<String, ManifestFile> = Default::default();
        for snapshot in &head.metadata.snapshots {
            go_on &= each(&snapshot.manifest_list);
            let list = manifests::read_list(bucket, &snapshot.manifest_list).await?;
            lines.extend(list.into_iter().map(|line| (line.manifest_path.clone(), line)));
        }
        let reads: Vec<_> = lines.into_values().map(|line| read(bucket.clone(), line)).collect();
        let mut reads = futures::stream::iter(reads).buffered(manifests::READS_AT_ONCE);
        while go_on && let Some(read) = reads.next().await {
            let (path, paths) = read?;
            go_on &= each(&path);
            for path in &paths {
                go_on &= each(path);
            }
        }
        Ok(go_on)
    }

    /// Expires snapshots as the options say, by age counted from `now_ms`. With `dry_run` nothing is written.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`: call again. `Data`: the metadata cannot be read.
    pub async fn expire(
        &mut self,
        state: &LedgerState,
        now_ms: i64,
        dry_run: bool,
    ) -> Result<Expired, LakeError> {
        for attempt in 0..CONFLICTS_MAX {
            // No manifest is written here.
            (self.head, self.drafted) = (None, None);
            self.load().await?;
            self.check(state)?;
            let manifests = self.head_manifests().await?;
            let Some(head) = &self.head else { return Ok(Expired::default()) };
            let mut metadata = head.metadata.clone();
            let gone = metadata.expire_snapshots(&self.options, now_ms);
            let expired =
                Expired { snapshots: gone.len() as u64, snapshots_left: metadata.snapshots.len() as u64 };
            if dry_run || gone.is_empty() {
                return Ok(expired);
            }
            crate::crash_point!("maintenance.before_expiry");
            match self.publish(state, Draft { metadata, manifests }, "expiry").await? {
                Attempt::Shown(_) => return Ok(expired),
                Attempt::Conflict => self.bucket.backoff(attempt.min(5)).await,
            }
        }
        Err(LakeError::Contended {
            table: state.name.clone(),
            version: state.version,
            attempts: CONFLICTS_MAX,
        })
    }

    /// Paths below the table of the files that the current snapshot shows, as far as they lie there.
    pub(super) async fn shown_files(
        &self,
        lines: &[ManifestFile],
    ) -> Result<std::collections::BTreeSet<String>, LakeError> {
        let reads: Vec<_> = lines.iter().map(|line| read(self.bucket.clone(), line.clone())).collect();
        let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        let mut shown = std::collections::BTreeSet::new();
        while let Some(read) = reads.next().await {
            let (_, paths) = read?;
            shown.extend(paths.iter().filter_map(|url| self.bucket.below(url)).map(str::to_owned));
        }
        Ok(shown)
    }
}

/// A manifest's own path, and the live files that it lists.
async fn read(bucket: Bucket, line: ManifestFile) -> Result<(String, Vec<String>), LakeError> {
    let manifest = manifests::read(&bucket, &line).await?;
    let live = manifest.entries.iter().filter(|entry| entry.is_live());
    Ok((line.manifest_path, live.map(|entry| entry.file.path.clone()).collect()))
}
