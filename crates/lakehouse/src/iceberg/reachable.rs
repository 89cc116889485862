//! What the table's metadata leads to: the files that a clean-up must leave.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::spec::ManifestFile;

use crate::error::LakeError;

use super::{
    bucket::Bucket,
    manifests::{Manifests, READS_AT_ONCE, read_list},
    metadata::Metadata,
};

/// Paths below the table's location, over every retained snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachable {
    /// Metadata files (current and in the log), the version hint, manifest lists and manifests.
    pub metadata: BTreeSet<String>,
    /// Data files that a retained snapshot shows.
    pub data: BTreeSet<String>,
}

/// Collects over every snapshot of `metadata`, which is the file of this URL.
pub(crate) async fn reachable(
    bucket: &Bucket,
    manifests: &mut Manifests,
    metadata: &Metadata,
    url: &str,
) -> Result<Reachable, LakeError> {
    let mut found = Reachable::default();
    let below = |url: &str| bucket.below(url).map(str::to_owned);
    found.metadata.insert("metadata/version-hint.text".to_owned());
    found.metadata.extend(below(url));
    found.metadata.extend(metadata.metadata_log.iter().filter_map(|entry| below(&entry.metadata_file)));
    let mut lines: BTreeMap<String, ManifestFile> = BTreeMap::new();
    for snapshot in &metadata.snapshots {
        found.metadata.extend(below(&snapshot.manifest_list));
        let list = read_list(bucket, &snapshot.manifest_list).await?;
        lines.extend(list.into_iter().map(|line| (line.manifest_path.clone(), line)));
    }
    found.metadata.extend(lines.keys().filter_map(|url| below(url)));
    let lines: Vec<&ManifestFile> = lines.values().collect();
    for chunk in lines.chunks(READS_AT_ONCE) {
        for manifest in manifests.load(chunk).await? {
            let live = manifest.entries.iter().filter(|entry| entry.is_live());
            found.data.extend(live.filter_map(|entry| below(&entry.file.path)));
        }
    }
    Ok(found)
}
