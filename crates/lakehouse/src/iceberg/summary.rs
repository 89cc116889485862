//! The summary of a snapshot: what it changed, and what the table holds after it.

use std::collections::{BTreeMap, HashSet};

use iceberg::spec::{Literal, ManifestContentType, ManifestFile};

use super::{data_file::ManifestEntry, metadata::Snapshot};

/// What a snapshot adds and removes.
#[derive(Debug, Default)]
pub(crate) struct FileTotals {
    added_files: u64,
    added_rows: i64,
    added_bytes: i64,
    removed_files: u64,
    removed_rows: i64,
    removed_bytes: i64,
    /// Partitions that the snapshot adds to or removes from.
    partitions: HashSet<(i32, Vec<Option<Literal>>)>,
    pub(crate) manifests_created: usize,
    pub(crate) manifests_replaced: usize,
}

impl FileTotals {
    pub(crate) fn add(&mut self, spec_id: i32, entry: &ManifestEntry) {
        self.added_files += 1;
        self.added_rows += entry.file.rows;
        self.added_bytes += entry.file.bytes;
        self.partitions.insert((spec_id, entry.file.partition.clone()));
    }

    pub(crate) fn remove(&mut self, spec_id: i32, entry: &ManifestEntry) {
        self.removed_files += 1;
        self.removed_rows += entry.file.rows;
        self.removed_bytes += entry.file.bytes;
        self.partitions.insert((spec_id, entry.file.partition.clone()));
    }
}

/// The summary without Siltstone's own entries. `lines` is the snapshot's manifest list.
pub(crate) fn summary(
    operation: &str,
    totals: &FileTotals,
    lines: &[ManifestFile],
    parent: Option<&Snapshot>,
) -> BTreeMap<String, String> {
    let mut summary = BTreeMap::from([
        ("operation".to_owned(), operation.to_owned()),
        ("engine-name".to_owned(), "siltstone".to_owned()),
        ("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    let mut put = |key: &str, value: String| summary.insert(key.to_owned(), value);
    if totals.added_files > 0 {
        put("added-data-files", totals.added_files.to_string());
        put("added-records", totals.added_rows.to_string());
        put("added-files-size", totals.added_bytes.to_string());
    }
    if totals.removed_files > 0 {
        put("deleted-data-files", totals.removed_files.to_string());
        put("deleted-records", totals.removed_rows.to_string());
        put("removed-files-size", totals.removed_bytes.to_string());
    }
    if !totals.partitions.is_empty() {
        put("changed-partition-count", totals.partitions.len().to_string());
    }
    put("manifests-created", totals.manifests_created.to_string());
    put("manifests-replaced", totals.manifests_replaced.to_string());
    put("manifests-kept", lines.len().saturating_sub(totals.manifests_created).to_string());
    let of = |content| lines.iter().filter(move |line| line.content == content);
    let files = |line: &ManifestFile| {
        u64::from(line.added_files_count.unwrap_or(0)) + u64::from(line.existing_files_count.unwrap_or(0))
    };
    let rows =
        |line: &ManifestFile| line.added_rows_count.unwrap_or(0) + line.existing_rows_count.unwrap_or(0);
    // Counted from the list, so that they stay right after another program's snapshot.
    put("total-data-files", of(ManifestContentType::Data).map(files).sum::<u64>().to_string());
    put("total-records", of(ManifestContentType::Data).map(rows).sum::<u64>().to_string());
    put("total-delete-files", of(ManifestContentType::Deletes).map(files).sum::<u64>().to_string());
    let before = |key: &str| match parent {
        None => Some(0),
        Some(parent) => parent.summary.get(key)?.parse::<i64>().ok(),
    };
    let no_deletes = of(ManifestContentType::Deletes).map(files).sum::<u64>() == 0;
    for key in ["total-position-deletes", "total-equality-deletes"] {
        if let Some(total) = before(key).map(|total| if no_deletes { 0 } else { total }) {
            put(key, total.to_string());
        }
    }
    if let Some(bytes) = before("total-files-size") {
        put("total-files-size", (bytes + totals.added_bytes - totals.removed_bytes).to_string());
    }
    summary
}
