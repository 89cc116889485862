//! What the control plane may ask of a worker, and how it ended. Workers fetch commands; nobody calls a worker.
//!
//! A command is one of a closed list and names a table. None can change what is disclosed, where data go, or which
//! credentials are used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

/// Commands in one answer at most.
pub const COMMANDS_MAX: usize = 100;
/// The longest that a poll waits, seconds.
pub const WAIT_MAX_SECONDS: u16 = 30;

/// Asks for commands; the answer waits until there are some or the time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandPoll {
    /// Made at the worker's start (UUID text).
    pub worker_id: String,
    /// At most [`WAIT_MAX_SECONDS`].
    pub wait_seconds: u16,
}

/// The commands that wait for a worker, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// At most [`COMMANDS_MAX`].
    pub commands: Vec<Command>,
}

/// One command. It is handed to one worker at a time, and again when that worker did not say how it ended; doing it
/// twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// ULID text. A worker does not do a command again that it has done.
    pub id: String,
    /// What to do.
    pub action: Action,
    /// The table's name in its spec. `None`: the worker itself (`rotate`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// After this time a worker refuses it, milliseconds since 1970 UTC.
    pub expires_ms: i64,
}

/// The closed list of what can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Stop reading the table's topic; what is read is committed first. Lasts until `resume`.
    Pause,
    /// Go on reading.
    Resume,
    /// One round of compaction now.
    Compact,
    /// One round of maintenance now.
    Expire,
    /// Read the API key anew from where the worker has it (file or environment).
    Rotate,
}

impl Action {
    /// Every action, in a stable order.
    pub const ALL: &'static [Self] = &[Self::Pause, Self::Resume, Self::Compact, Self::Expire, Self::Rotate];

    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Compact => "compact",
            Self::Expire => "expire",
            Self::Rotate => "rotate",
        }
    }

    /// True when every worker of the table must do it, not just one of them.
    pub fn is_for_all(self) -> bool {
        matches!(self, Self::Pause | Self::Resume | Self::Rotate)
    }
}

/// How a command ended at one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandOutcome {
    /// Made at the worker's start (UUID text).
    pub worker_id: String,
    /// The command's id (ULID text).
    pub command_id: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The table is not in this worker's spec.
    UnknownTable,
    /// It came after its time.
    Expired,
    /// The worker's own settings do not allow commands.
    NotAllowed,
    /// It was begun and ended with an error.
    Failed {
        /// Kind of the error.
        error: ErrorKind,
    },
}
