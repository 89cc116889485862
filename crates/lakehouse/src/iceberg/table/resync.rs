//! A projection that cannot follow the ledger entry by entry goes on from the ledger's state.
//!
//! Entries it has yet to show were cleaned up, or a file that they add has left the table and the store since.
//! Then one snapshot (`overwrite`) makes up the difference between what is shown and what is live. Snapshots
//! between were never readable and are missed by nobody; files of other programs stay.

use siltstone_protocol::{FileEntry, Format};

use super::{Attempt, Draft, IcebergTable, Metadata, NewTable, Step, Work, added_files};
use crate::{
    details::DetailsCache, error::LakeError, foreign::refused, iceberg::draft::NO_RESYNC, ledger::LedgerState,
};

impl IcebergTable {
    pub(super) async fn resync(
        &mut self,
        state: &LedgerState,
        details: &DetailsCache,
        why: &'static str,
    ) -> Result<Attempt, LakeError> {
        let manifests = self.head_manifests().await?;
        let Some(head) = &self.head else { return Ok(Attempt::Conflict) };
        let (number, mut metadata) = (head.number, head.metadata.clone());
        // What is missing may be another program's removal: to add it again would bring back what it deleted.
        if metadata.adopt_foreign_head() || metadata.apart().is_some() {
            return Err(refused(&state.name, Format::Iceberg, number, NO_RESYNC));
        }
        let shown = self.shown_files(&manifests).await?;
        let removed: Vec<String> = shown
            .iter()
            .filter(|path| is_ours(path) && !state.live_files.contains_key(path))
            .cloned()
            .collect();
        let added: Vec<FileEntry> =
            state.live_files.values().filter(|file| !shown.contains(&file.path)).cloned().collect();
        tracing::warn!(
            table = state.name,
            version = state.version,
            shown = metadata.version(),
            added = added.len(),
            removed = removed.len(),
            why,
            "the Iceberg form goes on from the ledger's state"
        );
        set_layouts(&mut metadata, state)?;
        let mut draft = Draft { metadata, manifests };
        let commit_id = state.newest_commit_id().unwrap_or_default().to_owned();
        let nothing = removed.is_empty() && added.is_empty();
        let step = Step {
            work: if nothing { Work::Positions } else { Work::Resync { removed, added } },
            version: state.version,
            commit_id: commit_id.clone(),
            committed_ms: state.committed_ms,
            moves: Vec::new(),
        };
        self.apply(&mut draft, state, details, &step).await?;
        self.publish(state, draft, &commit_id).await
    }

    /// The first metadata of a table whose first entry is no longer kept: with one snapshot of all that is live.
    pub(super) async fn create_late(
        &mut self,
        state: &LedgerState,
        details: &DetailsCache,
    ) -> Result<Attempt, LakeError> {
        let mut metadata = Metadata::create(&NewTable {
            table_uuid: &state.table_uuid,
            location: self.bucket.url(),
            schema: &state.schema,
            partition_spec: &state.partition_spec,
            sort_order: &state.sort_order,
            created_ms: state.committed_ms,
        })?;
        set_layouts(&mut metadata, state)?;
        let mut draft = Draft { metadata, manifests: Vec::new() };
        let files: Vec<FileEntry> = state.live_files.values().cloned().collect();
        let commit_id = self.bucket.host.ulid().to_string();
        let step = Step {
            work: if files.is_empty() { Work::Positions } else { Work::Append(files) },
            version: state.version,
            commit_id: commit_id.clone(),
            committed_ms: state.committed_ms,
            moves: Vec::new(),
        };
        self.apply(&mut draft, state, details, &step).await?;
        self.publish(state, draft, &commit_id).await
    }
}

/// Every layout that files may name; the current ones last.
fn set_layouts(metadata: &mut Metadata, state: &LedgerState) -> Result<(), LakeError> {
    for schema in state.schemas.values().chain([&state.schema]) {
        metadata.set_schema(schema)?;
    }
    for spec in state.partition_specs.values().chain([&state.partition_spec]) {
        metadata.set_partition_spec(spec)?;
    }
    for order in state.sort_orders.values().chain([&state.sort_order]) {
        metadata.set_sort_order(order)?;
    }
    Ok(())
}

/// True when the step adds a file that is not live any more: then its loss is no damage.
pub(super) fn left(step: &Step, state: &LedgerState) -> bool {
    !matches!(step.work, Work::Resync { .. })
        && added_files(step).iter().any(|file| !state.live_files.contains_key(&file.path))
}

/// True for `data/<ulid>.parquet`: no other program names files so.
fn is_ours(path: &str) -> bool {
    let name = path.strip_prefix("data/").and_then(|name| name.strip_suffix(".parquet"));
    name.is_some_and(|name| ulid::Ulid::from_string(name).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn files_of_other_programs_are_not_ours() {
        let ours: BTreeSet<&str> = ["data/01m81g49agv8rz9vvk8qjpd3cj.parquet"].into();
        for path in [
            "data/01m81g49agv8rz9vvk8qjpd3cj.parquet",
            "data/a/01m81g49agv8rz9vvk8qjpd3cj.parquet",
            "data/00000-0-5c.parquet",
            "01m81g49agv8rz9vvk8qjpd3cj.parquet",
        ] {
            assert_eq!(is_ours(path), ours.contains(path), "{path}");
        }
    }
}
