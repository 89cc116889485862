//! How tables fare: numbers that become the console's plots.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tables in one report at most.
pub const TABLES_MAX: usize = 1_000;

/// The state of the tables that a worker works on, every half minute or so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthReport {
    /// The sender's identity, made at its start (UUID text).
    pub worker_id: String,
    /// The sender's clock, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// At most [`TABLES_MAX`].
    pub tables: Vec<TableHealth>,
}

/// One table as one worker sees it. What the worker does not know is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableHealth {
    /// The table's name in its spec.
    pub table: String,
    /// What the worker does with the table.
    pub state: WorkState,
    /// Kind of the last error, while `state` is `retrying` or `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorKind>,
    /// Topic partitions that this worker reads.
    pub partitions: u32,
    /// Records between the committed positions and the topic's ends, in those partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Age of the oldest record that is read and that readers of the table cannot see yet, milliseconds. 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness_ms: Option<u64>,
    /// Files that compaction would rewrite now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_files: Option<u64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_bytes: Option<u64>,
}

/// What a worker does with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    Starting,
    Running,
    /// By a command.
    Paused,
    /// A fault that may pass; tried again.
    Retrying,
    /// A person must act.
    Stopped,
}

impl WorkState {
    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
        }
    }
}
