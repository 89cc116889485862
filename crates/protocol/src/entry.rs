//! The ledger entry: one change of one table, and the message that reports it.
//!
//! Entry `v` of a table is created once, by put-if-absent; creating it is the commit. Entries are
//! never changed afterwards. The form is JSON, with a `format` number that a reader must know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    layout::{PartitionSpec, SortOrder},
    reason::RejectReason,
    schema::Schema,
};

/// The only entry format so far.
pub const ENTRY_FORMAT: u32 = 1;

/// One committed change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`ENTRY_FORMAT`].
    pub format: u32,
    /// Position in the ledger; 0 is the creation of the table.
    pub version: u64,
    /// The table's identity, made at creation (UUID text).
    pub table_uuid: String,
    /// The identity of this commit (ULID text), made before the first attempt and kept over retries.
    pub commit_id: String,
    /// The committer's clock, milliseconds since 1970 UTC. Informative; order is `version`.
    pub committed_ms: i64,
    /// What changed.
    pub change: Change,
}

/// What an entry does to the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Change {
    /// The table comes to be.
    Create {
        /// The table's name in its spec.
        name: String,
        /// Columns and their ids.
        schema: Schema,
        /// How new files are partitioned.
        partition_spec: PartitionSpec,
        /// How new files are sorted.
        sort_order: SortOrder,
        /// Formats in which the table is shown.
        formats: Vec<Format>,
    },
    /// Rows arrive. With no files there are none: positions move (a first position, rejected records), or dead letters
    /// or source files are settled that became no row.
    Append {
        /// The files that hold the rows.
        files: Vec<FileEntry>,
        /// Topic positions that this covers.
        ranges: Vec<OffsetRange>,
        /// Records that did not become rows, by reason.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<RejectedCount>,
        /// Offsets whose records were rejected before and are rows now. Each is replayed once. With no files and no
        /// ranges: of what a reset rejects and may be a row, until its own entry takes the row away.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replayed: Vec<OffsetRange>,
        /// Records of files that were read in. Each is read in once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        imported: Vec<SourceFileRange>,
        /// Ledger version at which dead letters were looked for, when the entry is of dead letters alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<u64>,
    },
    /// The same rows in other files. Valid only while every removed file is live.
    Replace {
        /// Paths of the files that leave, below the table's location.
        removed: Vec<String>,
        /// The files that hold the rows from now on.
        added: Vec<FileEntry>,
        /// How much work it was.
        #[serde(default, skip_serializing_if = "Effort::is_none")]
        effort: Effort,
    },
    /// Rows leave by retention. With no `added`: whole files. Otherwise `added` holds the rows of the removed files
    /// that stay, and at least one row leaves. Valid only while every removed file is live.
    Delete {
        /// Paths of the files that leave, below the table's location.
        removed: Vec<String>,
        /// Files with the rows that stay of files that were rewritten.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<FileEntry>,
    },
    /// Rows change: those of the removed files leave, and `added` holds what stays of them, as it was or changed, and
    /// what is new. Valid only while every removed file is live.
    Overwrite {
        /// Paths of the files that leave, below the table's location.
        removed: Vec<String>,
        /// The files that hold the rows from now on.
        added: Vec<FileEntry>,
        /// Offsets that were ingested anew: their older rows left, and what became rows of them now is in `added`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ranges: Vec<OffsetRange>,
        /// Offsets of these whose records were rejected before and are not now: their dead letters are settled.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replayed: Vec<OffsetRange>,
        /// Ledger version at which the rows of these offsets were looked for; 0 in entries of earlier builds.
        #[serde(default)]
        base: u64,
        /// Records of the ranges that did not become rows, by reason.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<RejectedCount>,
    },
    /// What another program did to the table in one format, taken into the ledger. Valid only while every
    /// removed file is live, and only if the format showed the last absorb of its own when it was looked at.
    Absorb {
        /// The format that the other program changed.
        format: Format,
        /// Ledger version that the format showed when it was looked at.
        base: u64,
        /// Where the format's own history stood then: Iceberg's sequence number, Delta's log version.
        seen: u64,
        /// Files of the table whose rows the other program took away, changed, or laid down elsewhere.
        removed: Vec<String>,
        /// The rows that the format showed in their place, and those that the other program added.
        added: Vec<FileEntry>,
        /// Keyed digests (hex) of the paths of the files whose rows `added` holds, and of the delete files that
        /// were applied: such paths may hold values, so they are not named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        absorbed: Vec<String>,
        /// True when the other program only laid the same rows down anew.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        same_rows: bool,
    },
    /// Columns come, go, or are called or typed otherwise.
    SetSchema {
        /// Columns and their ids.
        schema: Schema,
    },
    /// New files are partitioned otherwise.
    SetPartitionSpec {
        /// How new files are partitioned.
        partition_spec: PartitionSpec,
    },
    /// New files are sorted otherwise.
    SetSortOrder {
        /// How new files are sorted.
        sort_order: SortOrder,
    },
    /// The table is shown in other formats.
    SetFormats {
        /// Formats in which the table is shown.
        formats: Vec<Format>,
    },
    /// An operator moved positions, knowing what is skipped.
    ResetPositions {
        /// From the old position to the new one, by partition.
        ranges: Vec<OffsetRange>,
    },
}

impl Change {
    /// Rows arrive from topics.
    pub fn append(files: Vec<FileEntry>, ranges: Vec<OffsetRange>, rejected: Vec<RejectedCount>) -> Self {
        Self::Append { files, ranges, rejected, replayed: Vec::new(), imported: Vec::new(), base: None }
    }

    /// The kind's stable name, as in the JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Append { .. } => "append",
            Self::Replace { .. } => "replace",
            Self::Delete { .. } => "delete",
            Self::Overwrite { .. } => "overwrite",
            Self::Absorb { .. } => "absorb",
            Self::SetSchema { .. } => "set_schema",
            Self::SetPartitionSpec { .. } => "set_partition_spec",
            Self::SetSortOrder { .. } => "set_sort_order",
            Self::SetFormats { .. } => "set_formats",
            Self::ResetPositions { .. } => "reset_positions",
        }
    }
}

/// How a replace came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Effort {
    /// Bytes of replaced files that were copied without being decoded.
    pub spliced_bytes: u64,
    /// Rewrites that this committer dropped since its last replace, because an input was gone.
    pub dropped_plans: u64,
}

impl Effort {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A table format in which the ledger is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Iceberg,
    Delta,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iceberg => "iceberg",
            Self::Delta => "delta",
        }
    }
}

/// A data file as the ledger names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below the table's location: `data/<ulid>.parquet`. Opaque: no value is part of it.
    pub path: String,
    /// Size of the object, bytes.
    pub bytes: u64,
    /// Rows in the file.
    pub rows: u64,
    /// The schema in which it was written.
    pub schema_id: i32,
    /// The partition spec by which it was written.
    pub spec_id: i32,
    /// 0: not sorted.
    pub sort_order_id: i64,
    /// Keyed digest of the partition values (hex): equal for files of one partition, and no value.
    /// `None` for an unpartitioned file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_token: Option<String>,
}

/// A half-open range of consumed positions `[start, end)` of one topic partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OffsetRange {
    /// The source cluster's name in the spec.
    pub cluster: String,
    /// The topic's name.
    pub topic: String,
    /// Number of the topic's partition.
    pub partition: i32,
    /// First offset.
    pub start: i64,
    /// The offset after the last.
    pub end: i64,
    /// True when the broker no longer had these records and the spec said to go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// A half-open range of records `[start, end)` of a file that was read in, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceFileRange {
    /// Keyed digest (hex) of what the file is: its path may hold values, so it is not named.
    pub source: String,
    /// The first record.
    pub start: u64,
    /// The record after the last.
    pub end: u64,
    /// True when the file has no records after these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// How many records of an append were rejected for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectedCount {
    /// Why, from the closed list.
    pub reason: RejectReason,
    /// How many records.
    pub records: u64,
}
