//! The seam between the projection and where its metadata is kept: the head is read here, and drafts are committed
//! here, to the bucket's own catalog or to a REST catalog.
//!
//! | | bucket | REST catalog |
//! | --- | --- | --- |
//! | head | newest `v<N>.metadata.json` | the table as the catalog answers it |
//! | commit | put-if-absent of the next one | requirements and updates; the catalog writes the file |
//! | old metadata files | deleted here when they leave the log | the catalog's |

use tokio::time::Instant;

use super::{Attempt, DELETIONS_MAX, DRAFT_MAX, Draft, HEAD_TRUSTED, Head, IcebergTable, METADATA_KEPT_MS};
use crate::{
    error::LakeError,
    iceberg::{
        bucket::{Bucket, PutOutcome},
        metadata::{Metadata, MetadataLogEntry},
        rest::{Base, Committed, Loaded, RestTable, Since},
    },
    ledger::LedgerState,
};

impl Head {
    /// As a catalog has it.
    pub(super) fn served(loaded: Loaded) -> Self {
        let number = u64::try_from(loaded.metadata.last_sequence_number).unwrap_or(0);
        Self {
            number,
            url: loaded.url,
            metadata: loaded.metadata,
            manifests: None,
            validated: Instant::now(),
        }
    }
}

impl IcebergTable {
    /// Reads the head from the store, unless one in memory is fresh enough to build on.
    pub(super) async fn load(&mut self) -> Result<(), LakeError> {
        if self.head.as_ref().is_some_and(|head| head.validated.elapsed() < HEAD_TRUSTED) {
            return Ok(());
        }
        self.head = None;
        if let Some(catalog) = &self.catalog {
            self.head = catalog.load().await?.map(Head::served);
            return Ok(());
        }
        let Some(stored) = self.bucket.head().await? else { return Ok(()) };
        let name = Bucket::metadata_name(stored.version);
        let metadata = Metadata::parse(self.bucket.path(&name).as_ref(), &stored.bytes)?;
        let head = Head {
            number: stored.version,
            url: self.bucket.url_of(&name),
            metadata,
            manifests: None,
            validated: Instant::now(),
        };
        if stored.hint != Some(stored.version) {
            // Left behind by a worker that ended between the two puts.
            self.point_hint(stored.version).await;
        }
        self.head = Some(head);
        Ok(())
    }

    async fn point_hint(&self, number: u64) {
        if let Err(error) = self.bucket.put_hint(number).await {
            tracing::warn!(%error, "version hint not written; the next commit writes it");
        }
    }

    /// True when no newer metadata follows the head in memory.
    pub(super) async fn is_newest(&mut self) -> Result<bool, LakeError> {
        let Some(head) = &self.head else { return Ok(false) };
        let Some(catalog) = &self.catalog else {
            return self.bucket.has_metadata(head.number + 1).await.map(|newer| !newer);
        };
        match catalog.since(&head.url).await? {
            Since::Same => Ok(true),
            Since::Changed(found) => {
                self.head = found.map(|found| Head::served(*found));
                Ok(self.head.is_some())
            }
        }
    }

    /// Commits the draft upon the head it was made from; without a head, creates the table.
    pub(super) async fn publish(
        &mut self,
        state: &LedgerState,
        mut draft: Draft,
        commit_id: &str,
    ) -> Result<Attempt, LakeError> {
        // Counted from the snapshot that is published, so that the same ledger gives the same metadata.
        let newest_ms = draft.metadata.current_snapshot().map(|snapshot| snapshot.timestamp_ms);
        let expired = match newest_ms {
            Some(newest_ms) => draft.metadata.expire_snapshots(&self.options, newest_ms),
            None => Vec::new(),
        };
        if self.drafted.is_some_and(|drafted| drafted.elapsed() > DRAFT_MAX) {
            self.head = None;
            return Ok(Attempt::Conflict);
        }
        let committed = match self.catalog.clone() {
            Some(catalog) => self.publish_to(&catalog, state, draft).await?,
            None => self.publish_here(state, draft, commit_id).await?,
        };
        if !committed {
            self.head = None;
            return Ok(Attempt::Conflict);
        }
        self.expired.extend(expired.into_iter().map(|snapshot| snapshot.manifest_list));
        self.expired.truncate(DELETIONS_MAX);
        let Some(head) = &self.head else { return Ok(Attempt::Conflict) };
        if let Some(manifests) = &head.manifests {
            self.manifests.retain(manifests);
        }
        Ok(Attempt::Shown(head.metadata.version().unwrap_or(0)))
    }

    /// As the next metadata version in the bucket. False: another one took it.
    async fn publish_here(
        &mut self,
        state: &LedgerState,
        mut draft: Draft,
        commit_id: &str,
    ) -> Result<bool, LakeError> {
        let mut dropped = Vec::new();
        let number = self.head.as_ref().map_or(0, |head| head.number);
        if let Some(head) = &self.head {
            dropped = draft.metadata.log_previous(MetadataLogEntry {
                timestamp_ms: head.metadata.last_updated_ms,
                metadata_file: head.url.clone(),
            });
        }
        let next = number + 1;
        let name = Bucket::metadata_name(next);
        let bytes = draft.metadata.to_bytes(&name)?;
        match self.bucket.put_metadata(next, &bytes).await? {
            PutOutcome::Committed => {}
            PutOutcome::Conflict => return Ok(false),
            PutOutcome::Unknown(fault) => {
                self.head = None;
                let (table, commit_id) = (state.name.clone(), commit_id.to_owned());
                return Err(LakeError::Unknown { table, version: state.version, commit_id, fault });
            }
        }
        crate::crash_point!("iceberg.after_metadata");
        self.point_hint(next).await;
        crate::crash_point!("iceberg.after_hint");
        self.delete_old_metadata(dropped, draft.metadata.last_updated_ms);
        self.head = Some(Head {
            number: next,
            url: self.bucket.url_of(&name),
            metadata: draft.metadata,
            manifests: Some(draft.manifests),
            validated: Instant::now(),
        });
        Ok(true)
    }

    /// To a REST catalog. False: another one was first.
    async fn publish_to(
        &mut self,
        catalog: &RestTable,
        state: &LedgerState,
        mut draft: Draft,
    ) -> Result<bool, LakeError> {
        let head = self.head.take();
        let base = head.as_ref().map(|head| Base { url: &head.url, metadata: &head.metadata });
        if let Some(base) = &base
            && base.metadata.apart() != draft.metadata.apart()
            && base.metadata.current_id() == draft.metadata.current_id()
        {
            // Properties alone are not guarded by anything: another worker's marker could be lost.
            draft.restate(&state.name, &self.bucket).await?;
        }
        // What the crate cannot read is never committed.
        draft.metadata.to_bytes(&state.name)?;
        match catalog.commit(base, &draft.metadata).await? {
            Committed::Yes(loaded) => {
                crate::crash_point!("iceberg.after_metadata");
                let mut head = Head::served(*loaded);
                let list = |metadata: &Metadata| metadata.current_snapshot().map(|s| s.manifest_list.clone());
                if list(&head.metadata) == list(&draft.metadata) {
                    head.manifests = Some(draft.manifests);
                }
                self.head = Some(head);
                Ok(true)
            }
            Committed::Conflict => Ok(false),
            Committed::Unknown(fault) => Err(catalog.unknown(fault)),
        }
    }

    /// Deletes, in the background, metadata files that have been out of the log for long enough.
    fn delete_old_metadata(&mut self, dropped: Vec<MetadataLogEntry>, now_ms: i64) {
        self.deletions.extend(dropped);
        let mut urls = Vec::new();
        while let Some(oldest) = self.deletions.front()
            && (self.deletions.len() > DELETIONS_MAX || oldest.timestamp_ms < now_ms - METADATA_KEPT_MS)
        {
            let old = oldest.timestamp_ms < now_ms - METADATA_KEPT_MS;
            if let Some(entry) = self.deletions.pop_front()
                && old
            {
                urls.push(entry.metadata_file);
            }
        }
        if !urls.is_empty() {
            let bucket = self.bucket.clone();
            tokio::spawn(async move { bucket.delete_metadata(urls).await });
        }
    }
}
