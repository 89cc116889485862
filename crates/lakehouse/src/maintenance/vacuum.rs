//! The vacuum: lists, asks the plan, deletes.
//!
//! 1. Collect what is named ([`super::live`]), in slices if it is much.
//! 2. List `data/` and `metadata/` as streams. Each object gets its verdict ([`super::plan`]).
//! 3. Delete in batches, while the listing goes on. A batch that fails is counted and told at the end; the rest
//!    is deleted all the same, and the next round finds what is left.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, path::Path};
use serde::Serialize;
use siltstone_protocol::ErrorCode;

use super::{
    AGE_MIN, DELETES_AT_ONCE, Janitor, MARGIN, before, delete_all,
    live::Live,
    names::{NAMES_MAX, Slice},
    plan::{Horizon, Kind, Listed, Verdict, verdict},
};
use crate::{crash_point, error::LakeError};

/// A table with more than `SLICES_MAX * NAMES_MAX` names is refused.
const SLICES_MAX: u64 = 64;

/// How a vacuum is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct VacuumOptions {
    pub dry_run: bool,
    /// Instead of the policy's age; never less than an hour.
    pub older_than: Option<Duration>,
    /// Names held at once; `None`: some eight million.
    pub names_max: Option<usize>,
}

/// How far a round is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Sweep {
    pub listed: AtomicU64,
    pub deleted: AtomicU64,
    pub deleted_bytes: AtomicU64,
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub files: u64,
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What a vacuum did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VacuumReport {
    pub dry_run: bool,
    /// Deleted, or with `dry_run` to be deleted, by kind.
    pub deleted: BTreeMap<&'static str, Count>,
    /// Named by something, or too young.
    pub kept: Count,
    /// Not of our making, by their names: left.
    pub foreign: Count,
}

impl VacuumReport {
    /// Over all kinds.
    pub fn deleted_all(&self) -> Count {
        self.deleted.values().fold(Count::default(), |sum, count| Count {
            files: sum.files + count.files,
            bytes: sum.bytes + count.bytes,
        })
    }
}

/// A batch on its way.
#[derive(Default)]
struct Batch {
    paths: Vec<Path>,
    bytes: u64,
}

impl Janitor {
    /// Deletes data and metadata files that nothing names and that are old enough.
    ///
    /// # Errors
    /// `Conflict`: a format does not show the table yet. `Unavailable`: the store did not answer; what was
    /// deleted is deleted. `Data`: what names files cannot be read; nothing more is deleted.
    pub async fn vacuum(
        &mut self,
        now_ms: i64,
        options: VacuumOptions,
        progress: &Sweep,
    ) -> Result<VacuumReport, LakeError> {
        let age = options.older_than.unwrap_or(self.policy.orphans).max(AGE_MIN);
        let before_ms = before(now_ms, age.saturating_add(MARGIN));
        let names_max = options.names_max.unwrap_or(NAMES_MAX).max(1);
        let mut report = VacuumReport { dry_run: options.dry_run, ..VacuumReport::default() };
        let mut slice = Slice::ALL;
        while slice.index < slice.of {
            match self.live(slice, names_max, before_ms, now_ms).await? {
                Some(live) => {
                    crash_point!("maintenance.before_sweep");
                    self.sweep(&live, before_ms, options.dry_run, &mut report, progress).await?;
                    slice.index += 1;
                }
                // Finer slices, from the first one on: what was deleted stays counted, the rest is listed again.
                None if slice.of < SLICES_MAX => {
                    tracing::info!(table = %self.location, slices = slice.of * 2, "many names: more passes");
                    (report.kept, report.foreign) = Default::default();
                    if options.dry_run {
                        report.deleted.clear();
                    }
                    slice = Slice { index: 0, of: slice.of * 2 };
                }
                None => {
                    return Err(LakeError::invalid(
                        &self.location,
                        "names more files than a vacuum can hold; expire snapshots first",
                    )
                    .coded(ErrorCode::ChangeTooLarge));
                }
            }
        }
        Ok(report)
    }

    async fn sweep(
        &self,
        live: &Live,
        before_ms: i64,
        dry_run: bool,
        report: &mut VacuumReport,
        progress: &Sweep,
    ) -> Result<(), LakeError> {
        let horizon =
            Horizon { before_ms, metadata_newest: live.metadata_newest, knows_left: live.knows_left };
        if !live.knows_left {
            tracing::warn!(
                table = %self.location,
                "more ledger entries than can be looked through are within the age at which files go: data files stay"
            );
        }
        let (mut batch, mut failed) = (Batch::default(), None);
        for folder in ["data", "metadata"] {
            let prefix = self.location.clone().join(folder);
            let mut listing = self.store.list(Some(&prefix));
            loop {
                let object = match listing.try_next().await {
                    Ok(Some(object)) => object,
                    Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                    Err(error) => return Err(LakeError::store("list", &prefix, &error)),
                };
                let Some(listed) =
                    self.below(&object).filter(|listed| live.names.slice().holds(&listed.path))
                else {
                    continue;
                };
                progress.listed.fetch_add(1, Ordering::Relaxed);
                match verdict(&listed, &live.names, horizon) {
                    Verdict::Keep(Kind::Own) => {}
                    Verdict::Keep(Kind::Foreign) => report.foreign.add(listed.bytes),
                    Verdict::Keep(_) => report.kept.add(listed.bytes),
                    Verdict::Delete(kind) => {
                        report.deleted.entry(kind.as_str()).or_default().add(listed.bytes);
                        batch.paths.push(object.location);
                        batch.bytes += listed.bytes;
                    }
                }
                if batch.paths.len() >= DELETES_AT_ONCE {
                    let batch = std::mem::take(&mut batch);
                    failed = failed.or(self.delete(batch, dry_run, progress).await.err());
                }
            }
        }
        failed = failed.or(self.delete(batch, dry_run, progress).await.err());
        failed.map_or(Ok(()), Err)
    }

    async fn delete(&self, batch: Batch, dry_run: bool, progress: &Sweep) -> Result<(), LakeError> {
        if batch.paths.is_empty() || dry_run {
            return Ok(());
        }
        crash_point!("maintenance.before_delete");
        let deleted = delete_all(&self.store, batch.paths).await?;
        crash_point!("maintenance.after_delete");
        progress.deleted.fetch_add(deleted, Ordering::Relaxed);
        progress.deleted_bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// An object as the plan sees it; `None` for one that does not lie below the table.
    fn below(&self, object: &ObjectMeta) -> Option<Listed> {
        let parts: Vec<String> =
            object.location.prefix_match(&self.location)?.map(|part| part.as_ref().to_owned()).collect();
        Some(Listed {
            path: parts.join("/"),
            bytes: object.size,
            modified_ms: object.last_modified.timestamp_millis(),
        })
    }
}
