//! What the caller of a failed operation should do next. A kind exists only if callers act on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The closed set of reactions to an error. Every crate's error maps to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody else moved the state first: re-read it and try again.
    Conflict,
    /// The caller's view is stale for good: drop what is buffered and start from the ledger.
    Fenced,
    /// A dependency did not answer or the outcome is unknown: retry with backoff, lose nothing.
    Unavailable,
    /// Configuration or request is wrong: a person must change it.
    Invalid,
    /// Stored or received data breaks its format: stop, or apply the bad-record policy.
    Data,
    /// A bug in this program.
    Internal,
}

impl ErrorKind {
    /// True when trying the same thing again may succeed without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }

    /// The stable name used in metrics and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Data => "data",
            Self::Internal => "internal",
        }
    }
}
