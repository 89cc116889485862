//! The sealed set of messages that a worker may send, and the answers it may get.
//!
//! A client that takes `impl Message` can send nothing else, because no other crate can make a type a message:
//!
//! ```compile_fail
//! struct Anything(String);
//! impl siltstone_protocol::message::Message for Anything {
//!     const NAME: &'static str = "anything";
//!     const PATH: &'static str = "/worker/v1/anything";
//!     const KEPT: siltstone_protocol::message::Kept = siltstone_protocol::message::Kept::Database;
//!     type Reply = siltstone_protocol::message::Nothing;
//! }
//! ```
//!
//! Nothing in an answer can widen what is disclosed: answers are numbers, closed codes and the commands of
//! [`crate::command`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    command::{CommandOutcome, CommandPoll, Commands},
    health::HealthReport,
    image::Image,
    presence::{EventSample, Presence, ProfileSample},
    report::{Ack, Report},
};

/// The largest body of one message, bytes. A sender splits below it; the control plane refuses what is above.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Where the control plane keeps what a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// In its database, until the table is deleted there.
    Database,
    /// In memory only: gone when it restarts, never in its database.
    Memory,
}

impl Kept {
    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Memory => "memory",
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A message that may leave the user's network. Sealed: the implementations below are all there are.
pub trait Message: sealed::Sealed + Serialize + DeserializeOwned + JsonSchema + Send + Sync {
    /// The message's name in disclosures and recordings.
    const NAME: &'static str;
    /// Path below the control plane's URL to which it is posted.
    const PATH: &'static str;
    const KEPT: Kept;
    type Reply: DeserializeOwned + Serialize + JsonSchema + Send;
}

/// An answer that says nothing but that the message arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

macro_rules! messages {
    ($($message:ident = $name:literal at $path:literal kept $kept:ident answers $reply:ident;)+) => {
        $(
            impl sealed::Sealed for $message {}
            impl Message for $message {
                const NAME: &'static str = $name;
                const PATH: &'static str = $path;
                const KEPT: Kept = Kept::$kept;
                type Reply = $reply;
            }
        )+

        /// Every message there is, as `(name, path, where it is kept, JSON Schema)`.
        pub fn all() -> Vec<(&'static str, &'static str, Kept, schemars::Schema)> {
            vec![$(($message::NAME, $message::PATH, $message::KEPT, schemars::schema_for!($message)),)+]
        }
    };
}

messages! {
    Report = "report" at "/worker/v1/report" kept Database answers Ack;
    Image = "image" at "/worker/v1/image" kept Database answers Ack;
    HealthReport = "health" at "/worker/v1/health" kept Database answers Nothing;
    Presence = "presence" at "/worker/v1/presence" kept Memory answers Nothing;
    EventSample = "events" at "/worker/v1/events" kept Memory answers Nothing;
    ProfileSample = "profile" at "/worker/v1/profile" kept Memory answers Nothing;
    CommandPoll = "poll" at "/worker/v1/commands/poll" kept Memory answers Commands;
    CommandOutcome = "outcome" at "/worker/v1/commands/outcome" kept Database answers Nothing;
}
