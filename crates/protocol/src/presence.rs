//! What the control plane holds in memory only: who is connected, a sample of events, a sample of profiles.
//!
//! Events are closed codes and counts; profiles are names of this program's functions and counts. There is no text.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

/// Events in one sample at most.
pub const EVENTS_MAX: usize = 100;
/// Functions in one sample at most.
pub const FUNCTIONS_MAX: usize = 200;

/// A worker says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Made at the worker's start (UUID text).
    pub worker_id: String,
    /// Version of this program, e.g. `0.1.0`.
    pub program_version: String,
    /// The worker's clock when it started, milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// Processors that the worker may use.
    pub vcpus: u16,
    /// Of all its vCPUs, since the last message: 0 to 100.
    pub utilisation_percent: u8,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// The address of the interface over which it reaches the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<IpAddr>,
    /// Availability zone, from `SILTSTONE_ZONE`: letters, digits and dashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Tables of its spec.
    pub tables: u32,
}

/// What happened in a worker since its last sample: codes and counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSample {
    /// Made at the worker's start (UUID text).
    pub worker_id: String,
    /// At most [`EVENTS_MAX`].
    pub events: Vec<EventCount>,
}

/// How often one thing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventCount {
    /// What happened, from the closed list.
    pub code: EventCode,
    /// The table's name in its spec, when the event is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Kind of the error, when the event is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorKind>,
    /// How often since the last sample.
    pub count: u64,
}

/// The closed list of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventCode {
    WorkerStarted,
    TableStarted,
    TableFailed,
    TableStopped,
    Committed,
    CommitRetried,
    CommitFenced,
    ProjectionFailed,
    RecordsRejected,
    SchemaChanged,
    Compacted,
    CompactionDropped,
    Maintained,
    PartitionsAssigned,
    PartitionsRevoked,
    StoreRetried,
    RegistryUnavailable,
    BrokersUnavailable,
    MemoryExhausted,
    CommandCarriedOut,
    CommandRefused,
}

impl EventCode {
    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorkerStarted => "worker_started",
            Self::TableStarted => "table_started",
            Self::TableFailed => "table_failed",
            Self::TableStopped => "table_stopped",
            Self::Committed => "committed",
            Self::CommitRetried => "commit_retried",
            Self::CommitFenced => "commit_fenced",
            Self::ProjectionFailed => "projection_failed",
            Self::RecordsRejected => "records_rejected",
            Self::SchemaChanged => "schema_changed",
            Self::Compacted => "compacted",
            Self::CompactionDropped => "compaction_dropped",
            Self::Maintained => "maintained",
            Self::PartitionsAssigned => "partitions_assigned",
            Self::PartitionsRevoked => "partitions_revoked",
            Self::StoreRetried => "store_retried",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::BrokersUnavailable => "brokers_unavailable",
            Self::MemoryExhausted => "memory_exhausted",
            Self::CommandCarriedOut => "command_carried_out",
            Self::CommandRefused => "command_refused",
        }
    }
}

/// Where a worker spent its time: functions of this program, never what they were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileSample {
    /// Made at the worker's start (UUID text).
    pub worker_id: String,
    /// How long was sampled, milliseconds.
    pub duration_ms: u32,
    /// The most frequent functions, at most [`FUNCTIONS_MAX`].
    pub functions: Vec<FunctionCount>,
}

/// How many samples fell into a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionCount {
    /// The function's name.
    pub function: FunctionName,
    /// Samples that fell into it.
    pub samples: u32,
}

/// The name of a function, as a symbol of the program. Its characters are those of Rust paths, and it is at most 200
/// bytes long; anything else becomes `?`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FunctionName(String);

impl FunctionName {
    /// The name of a symbol.
    pub fn new(symbol: &str) -> Self {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "_:<>,&*[]{}()#-; ".contains(c);
        let fits = symbol.len() <= 200 && !symbol.is_empty() && symbol.chars().all(is_path);
        Self(if fits { symbol.to_owned() } else { "?".to_owned() })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
