//! The actions of a Delta commit: what we write, and what we look for in what others wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    error::LakeError,
    foreign::{Marker, operation},
};

/// Application ids of ours start so; the table's uuid follows.
pub(super) const APP_ID_PREFIX: &str = "siltstone-";

/// One line of a commit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    #[serde(rename = "metaData")]
    Metadata(Metadata),
    Txn(Txn),
    Remove(Remove),
    Add(Add),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitInfo {
    pub(super) timestamp: i64,
    pub(super) operation: &'static str,
    pub(super) operation_parameters: BTreeMap<&'static str, String>,
    pub(super) engine_info: &'static str,
    pub(super) is_blind_append: bool,
    pub(super) siltstone: OwnInfo,
}

/// What our commits say of themselves, beyond what Delta knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OwnInfo {
    /// Last ledger version shown.
    pub(super) version: u64,
    /// The ledger's commit id of that version.
    pub(super) commit_id: String,
    /// Ends of the offsets that this commit brought: cluster, topic, partition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) offsets: BTreeMap<String, BTreeMap<String, BTreeMap<i32, i64>>>,
    pub(super) schema_id: i32,
    /// As they are called in files.
    pub(super) partition_columns: Vec<String>,
    /// How far the table is apart from the ledger after this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) apart: Option<Marker>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: u8,
    pub(super) min_writer_version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reader_features: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writer_features: Option<Vec<&'static str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) format: FileFormat,
    pub(super) schema_string: String,
    pub(super) partition_columns: Vec<String>,
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) created_time: i64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct FileFormat {
    provider: Parquet,
    options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Parquet {
    #[default]
    Parquet,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Txn {
    pub(super) app_id: String,
    pub(super) version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_updated: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub(super) path: String,
    pub(super) deletion_timestamp: i64,
    pub(super) data_change: bool,
    /// True when the two below are there.
    pub(super) extended_file_metadata: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
}

/// Without partition values: those are values of records.
impl std::fmt::Debug for Remove {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remove").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    pub(super) path: String,
    pub(super) partition_values: BTreeMap<String, Option<String>>,
    pub(super) size: u64,
    pub(super) modification_time: i64,
    pub(super) data_change: bool,
    pub(super) stats: String,
}

/// Without partition values and bounds: those are values of records.
impl std::fmt::Debug for Add {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Add").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

/// The bytes of a commit: one action per line.
pub(super) fn to_bytes(actions: &[Action]) -> Result<bytes::Bytes, LakeError> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action).map_err(|error| LakeError::json("delta commit", &error))?;
        bytes.push(b'\n');
    }
    Ok(bytes.into())
}

/// What matters of a commit that is in the log.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Of Siltstone: application id and ledger version.
    pub(super) own: Option<(String, u64)>,
    pub(super) info: Option<OwnInfo>,
    pub(super) changes_table: bool,
    /// It adds or removes files.
    pub(super) changes_files: bool,
    /// It does not say of all of them that rows stay as they are.
    pub(super) changes_data: bool,
    /// What its writer says that it did.
    pub(super) operation: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    commit_info: Option<InfoLine>,
    #[serde(rename = "metaData")]
    metadata: Option<IgnoredAny>,
    protocol: Option<IgnoredAny>,
    add: Option<FileLine>,
    remove: Option<FileLine>,
}

#[derive(Deserialize)]
struct InfoLine {
    siltstone: Option<OwnInfo>,
    operation: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLine {
    data_change: Option<bool>,
}

impl Seen {
    /// Reads a commit's lines.
    pub(super) fn parse(bytes: &[u8], path: &object_store::path::Path) -> Result<Self, LakeError> {
        let mut seen = Self { operation: "other", ..Self::default() };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|error| LakeError::json(path, &error))?;
            if let Some(txn) = line.txn.filter(|txn| txn.app_id.starts_with(APP_ID_PREFIX)) {
                let version = u64::try_from(txn.version);
                let version = version.map_err(|_| LakeError::data(path, "has a negative txn version"))?;
                seen.own = Some((txn.app_id, version));
            }
            if let Some(info) = line.commit_info {
                seen.operation = info.operation.as_deref().map_or("other", operation);
                seen.info = info.siltstone.or(seen.info);
            }
            seen.changes_table |= line.metadata.is_some() || line.protocol.is_some();
            for file in [line.add, line.remove].into_iter().flatten() {
                seen.changes_files = true;
                seen.changes_data |= file.data_change != Some(false);
            }
        }
        Ok(seen)
    }
}

/// True for `<ulid>.parquet`: no other writer names files so.
pub(super) fn is_ours(path: &str) -> bool {
    path.strip_suffix(".parquet").is_some_and(|name| ulid::Ulid::from_string(name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_are_known_by_their_names() {
        assert!(
            is_ours("01m81g49agv8rz9vvk8qjpd3cj.parquet") && is_ours("01M81G49AGV8RZ9VVK8QJPD3CJ.parquet")
        );
        assert!(
            !is_ours("part-00000-0f5c.c000.snappy.parquet")
                && !is_ours("a/01M81G49AGV8RZ9VVK8QJPD3CJ.parquet")
        );
    }
}
