//! A whole table at one version, for a control plane that is further behind than the ledger's entries reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    disclosed::FileStatistics,
    entry::{FileEntry, Format, OffsetRange},
    layout::{PartitionSpec, SortOrder},
    report::TableIdentity,
    schema::Schema,
};

/// Files in one part of an image at most.
pub const FILES_MAX: usize = 10_000;

/// One part of the image of a table. The parts of one image bear the same `image_id`; they are taken in the order of
/// their numbers, and the table is replaced by them when the last has arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Which table it is.
    pub table: TableIdentity,
    /// The table's identity, made at creation (UUID text).
    pub table_uuid: String,
    /// The ledger version at which the table looks so.
    pub version: u64,
    /// When that version was committed, milliseconds since 1970 UTC by the committer's clock.
    pub committed_ms: i64,
    /// Made by the sender (ULID text).
    pub image_id: String,
    /// From 0.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// Columns and their ids.
    pub schema: Schema,
    /// How new files are partitioned.
    pub partition_spec: PartitionSpec,
    /// How new files are sorted.
    pub sort_order: SortOrder,
    /// Formats in which the table is shown.
    pub formats: Vec<Format>,
    /// Live files of this part, at most [`FILES_MAX`].
    pub files: Vec<FileEntry>,
    /// What is committed of each topic partition. In part 0 only.
    pub ranges: Vec<OffsetRange>,
    /// Of the files of this part: what `disclose` in the spec names. Empty by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<FileStatistics>,
}
