//! The Iceberg table of one ledger.
//!
//! `catch_up` repeats until everything is shown: take the head, read the entries after its version,
//! build a [`Draft`], put it as the next metadata version. A conflict means that somebody else moved the
//! table: the head is read again and the rest is planned anew, so nothing is shown twice.
//!
//! Entries without files (positions only) get no snapshot and no metadata of their own: they count as
//! shown in memory, and `siltstone.version` passes them with the next change, or after
//! `POSITIONS_ONLY_MAX` of them. A restart finds them again and has as little to do.

mod foreign;
mod maintain;
mod publish;
mod resync;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::ManifestFile;
use object_store::{ObjectStore, path::Path};
use siltstone_datafile::Host;
use siltstone_protocol::{Change, Entry, ErrorKind, FileEntry, Format};
use tokio::time::Instant;

use crate::{
    details::DetailsCache,
    error::LakeError,
    foreign::Comparison,
    format::{ProjectionOptions, TableFormat},
    ledger::{Ledger, LedgerState},
};

pub use maintain::Expired;

use super::{
    bucket::Bucket,
    draft::{AddedFiles, Draft},
    manifests::{Manifests, read_list},
    metadata::{Metadata, MetadataLogEntry, NewTable},
    offsets::Offsets,
    reachable::{Reachable, reachable},
    rest::RestTable,
    steps::{FILES_PER_SNAPSHOT_MAX, Step, Work, steps},
};

/// Lost races in a row before the caller hears of it.
const CONFLICTS_MAX: u32 = 20;
/// Ledger entries read for one metadata version.
const ENTRIES_MAX: u64 = 512;
/// Snapshots in one metadata version: bounds what a lost race throws away.
const STEPS_MAX: usize = 16;
const READS_AT_ONCE: usize = 16;
/// Entries without files after which the version is written down without any other change.
const POSITIONS_ONLY_MAX: u64 = 64;
/// A head kept in memory is looked up again after this long, ...
const HEAD_TRUSTED: Duration = Duration::from_secs(300);
/// ... well before old metadata files are deleted: put-if-absent would not notice a version that was there
/// and is gone.
const METADATA_KEPT_MS: i64 = 3_600_000;
const DELETIONS_MAX: usize = 10_000;
/// A draft that took longer is not published: its manifests, which nothing names yet, may have been cleaned up.
const DRAFT_MAX: Duration = Duration::from_secs(1_200);

/// Shows a ledger as an Iceberg table, in a bucket catalog or in a REST catalog.
pub struct IcebergTable {
    bucket: Bucket,
    /// Where the metadata is kept; `None`: in the bucket.
    catalog: Option<Arc<RestTable>>,
    options: ProjectionOptions,
    manifests: Manifests,
    head: Option<Head>,
    /// Metadata file, and the ledger version up to which entries after it change nothing.
    idle: Option<(String, u64)>,
    /// Metadata files out of the log, too young to delete. Lost on a restart: the janitor finds them.
    deletions: VecDeque<MetadataLogEntry>,
    expired: Vec<String>,
    /// When the first manifest of the present draft was about to be written.
    drafted: Option<Instant>,
}

/// The newest metadata known.
struct Head {
    /// The N of `v<N>.metadata.json`; in a REST catalog, whose names are its own, the last sequence number.
    number: u64,
    /// The metadata file: another one, another head.
    url: String,
    metadata: Metadata,
    /// Of the current snapshot; read when first needed.
    manifests: Option<Vec<ManifestFile>>,
    validated: Instant,
}

enum Attempt {
    /// Shown up to here.
    Shown(u64),
    Conflict,
}

impl fmt::Debug for IcebergTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcebergTable")
            .field("url", &self.bucket.url())
            .field("number", &self.head.as_ref().map(|head| head.number))
            .finish_non_exhaustive()
    }
}

impl IcebergTable {
    /// The table at `table_location` in `store`. `table_url` is the same place as readers name it.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        table_location: Path,
        table_url: String,
        options: ProjectionOptions,
    ) -> Self {
        let bucket = Bucket::new(store, table_location, &table_url);
        Self {
            manifests: Manifests::new(bucket.clone()),
            bucket,
            catalog: None,
            options,
            head: None,
            idle: None,
            deletions: VecDeque::new(),
            expired: Vec::new(),
            drafted: None,
        }
    }

    /// With names and waits from this host.
    #[must_use]
    pub fn with_host(mut self, host: Host) -> Self {
        self.bucket.host = host;
        self.manifests = Manifests::new(self.bucket.clone());
        self
    }

    /// In this catalog; `None`: in the bucket.
    #[must_use]
    pub fn with_catalog(mut self, catalog: Option<Arc<RestTable>>) -> Self {
        self.catalog = catalog;
        self
    }

    /// URLs of manifest lists whose snapshots this process expired since the last call. They and what only
    /// they name may be deleted once no reader uses them; [`Self::reachable`] says what is still named.
    pub fn take_expired_manifest_lists(&mut self) -> Vec<String> {
        std::mem::take(&mut self.expired)
    }

    /// Everything that the table's newest metadata leads to: what a clean-up must not delete.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: metadata cannot be read; then nothing may be deleted.
    pub async fn reachable(&mut self) -> Result<Reachable, LakeError> {
        self.head = None;
        self.load().await?;
        match &self.head {
            Some(head) => reachable(&self.bucket, &mut self.manifests, &head.metadata, &head.url).await,
            None => Ok(Reachable::default()),
        }
    }

    /// The table's newest metadata; `None` before the table is shown.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the metadata cannot be read.
    pub async fn metadata(&mut self) -> Result<Option<iceberg::spec::TableMetadata>, LakeError> {
        self.load().await?;
        let Some(head) = &self.head else { return Ok(None) };
        let bytes = head.metadata.to_bytes(&head.url)?;
        let parsed = serde_json::from_slice(&bytes).map_err(|error| LakeError::json(&head.url, &error))?;
        Ok(Some(parsed))
    }

    /// The URL of the newest metadata file known, for readers.
    pub fn metadata_url(&self) -> Option<String> {
        self.head.as_ref().map(|head| head.url.clone())
    }

    /// Refuses a head that is not this ledger's table, or that another program moved back.
    fn check(&self, state: &LedgerState) -> Result<(), LakeError> {
        let Some(head) = &self.head else { return Ok(()) };
        let foreign = |problem: &str| {
            Err(LakeError::Foreign {
                table: state.name.clone(),
                format: "iceberg",
                version: head.number,
                problem: problem.to_owned(),
            })
        };
        if !head.metadata.belongs_to(&state.table_uuid) || head.metadata.version().is_none() {
            return foreign("is another table; give this one another location, or remove that one");
        }
        if head.metadata.was_rolled_back() {
            return foreign(
                "does not descend from the last snapshot of ours (a roll-back, or a replaced table); \
                 set the current snapshot to a descendant of it again",
            );
        }
        Ok(())
    }

    async fn attempt(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<Attempt, LakeError> {
        self.drafted = None;
        self.load().await?;
        self.check(state)?;
        let Some(head) = &self.head else { return self.create(ledger, state, details).await };
        let shown = head.metadata.version().unwrap_or(0);
        let idle = idle_at(&self.idle, head);
        let known = idle.unwrap_or(shown).max(shown);
        if known >= state.version {
            return Ok(Attempt::Shown(known));
        }
        let last = state.version.min(shown + ENTRIES_MAX);
        let Some(entries) = self.entries(ledger, shown + 1, last).await? else {
            return self.resync(state, details, "ledger entries it would show are no longer kept").await;
        };
        let steps = steps(&entries);
        let last = entries.last().map_or(shown, |entry| entry.version);
        let silent = steps.iter().all(|step| step.work == Work::Positions);
        if silent && last == state.version && last - shown < POSITIONS_ONLY_MAX {
            self.idle = Some((head.url.clone(), last));
            return Ok(Attempt::Shown(last));
        }
        self.show(ledger, state, details, &steps).await
    }

    /// `None`: one of them is no longer kept.
    async fn entries(
        &self,
        ledger: &Ledger,
        first: u64,
        last: u64,
    ) -> Result<Option<Vec<Arc<Entry>>>, LakeError> {
        let reads = (first..=last).map(|version| async move { ledger.entry(version).await });
        let entries: Vec<Option<Arc<Entry>>> =
            futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(entries.into_iter().collect())
    }

    /// Makes version 1 of the metadata. From the ledger's first entry: without a snapshot. When that entry
    /// is no longer kept (Iceberg came late): with one of everything that is live.
    async fn create(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<Attempt, LakeError> {
        let first = ledger.entry(0).await?;
        let Some(first) = first else { return self.create_late(state, details).await };
        let Change::Create { schema, partition_spec, sort_order, .. } = &first.change else {
            return Err(LakeError::data("ledger entry 0", "does not create the table"));
        };
        let mut metadata = Metadata::create(&NewTable {
            table_uuid: &state.table_uuid,
            location: self.bucket.url(),
            schema,
            partition_spec,
            sort_order,
            created_ms: first.committed_ms,
        })?;
        metadata.set_version(0, first.committed_ms);
        self.publish(state, Draft { metadata, manifests: Vec::new() }, &first.commit_id).await
    }

    /// Shows the first steps, as many as fit one metadata version.
    async fn show(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
        steps: &[Step],
    ) -> Result<Attempt, LakeError> {
        let manifests = self.head_manifests().await?;
        let Some(head) = &self.head else { return Ok(Attempt::Conflict) };
        let mut draft = Draft { metadata: head.metadata.clone(), manifests };
        if draft.metadata.adopt_foreign_head() {
            tracing::info!(
                table = state.name,
                "another program wrote the current Iceberg snapshot; going on from it"
            );
        }
        let (mut files, mut commit_id) = (0, "");
        for step in steps.iter().take(STEPS_MAX) {
            let commit_of = step.commit_id.as_str();
            files += added_files(step).len();
            if files > FILES_PER_SNAPSHOT_MAX && !commit_id.is_empty() {
                break;
            }
            let step = &*self.here(ledger, &draft, state, step).await?;
            match self.apply(&mut draft, state, details, step).await {
                Err(error) if error.kind() == ErrorKind::Data && resync::left(step, state) => {
                    // What was read for nothing, if anything, is the janitor's.
                    return self.resync(state, details, "a file it would show has left the table").await;
                }
                applied => applied?,
            }
            commit_id = commit_of;
        }
        self.publish(state, draft, commit_id).await
    }

    async fn head_manifests(&mut self) -> Result<Vec<ManifestFile>, LakeError> {
        let Some(head) = &mut self.head else { return Ok(Vec::new()) };
        if head.manifests.is_none() {
            head.manifests = Some(match head.metadata.current_snapshot() {
                Some(snapshot) => read_list(&self.bucket, &snapshot.manifest_list).await?,
                None => Vec::new(),
            });
        }
        Ok(head.manifests.clone().unwrap_or_default())
    }

    async fn apply(
        &mut self,
        draft: &mut Draft,
        state: &LedgerState,
        details: &DetailsCache,
        step: &Step,
    ) -> Result<(), LakeError> {
        let bucket = &self.bucket;
        let reads = added_files(step).to_vec().into_iter().map(|file| async move {
            let found = details.get_or_read(&bucket.store, &bucket.location, &file, state).await?;
            Ok::<_, LakeError>((file, found))
        });
        let added: AddedFiles = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        let offsets = if step.version == state.version {
            Some(Offsets::of(state))
        } else {
            let mut offsets = Offsets::after(draft.metadata.current_snapshot());
            if let Some(offsets) = &mut offsets {
                offsets.apply(&step.moves);
            }
            offsets
        };
        self.drafted.get_or_insert_with(Instant::now);
        draft.apply(&state.name, &mut self.manifests, &self.bucket, step, added, offsets).await
    }
}

fn idle_at(idle: &Option<(String, u64)>, head: &Head) -> Option<u64> {
    idle.as_ref().filter(|(url, _)| *url == head.url).map(|(_, version)| *version)
}

fn added_files(step: &Step) -> &[FileEntry] {
    match &step.work {
        Work::Append(files)
        | Work::Replace { added: files, .. }
        | Work::Cut { added: files, .. }
        | Work::Overwrite { added: files, .. }
        | Work::Resync { added: files, .. } => files,
        Work::Absorb(absorb) => &absorb.added,
        Work::Swap(swap) => &swap.added,
        _ => &[],
    }
}

#[async_trait]
impl TableFormat for IcebergTable {
    fn format(&self) -> Format {
        Format::Iceberg
    }

    async fn shown_version(&mut self) -> Result<Option<u64>, LakeError> {
        self.head = None;
        self.load().await?;
        let Some(head) = &self.head else { return Ok(None) };
        let shown = head.metadata.version();
        let idle = idle_at(&self.idle, head);
        Ok(shown.max(idle.filter(|_| shown.is_some())))
    }

    async fn is_apart(&mut self) -> Result<bool, LakeError> {
        self.look().await
    }

    async fn compare(&mut self, ledger: &Ledger, state: &LedgerState) -> Result<Comparison, LakeError> {
        self.compare_head(ledger, state).await
    }

    async fn catch_up(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<u64, LakeError> {
        let mut conflicts = 0;
        loop {
            match self.attempt(ledger, state, details).await? {
                Attempt::Shown(version) if version >= state.version => return Ok(version),
                Attempt::Shown(_) => conflicts = 0,
                Attempt::Conflict if conflicts < CONFLICTS_MAX => {
                    self.bucket.backoff(conflicts.min(5)).await;
                    conflicts += 1;
                }
                Attempt::Conflict => {
                    return Err(LakeError::Contended {
                        table: state.name.clone(),
                        version: state.version,
                        attempts: conflicts,
                    });
                }
            }
        }
    }
}
