//! What was read in from files: how many records of each, in order from the first.

use serde::{Deserialize, Serialize};
use siltstone_protocol::SourceFileRange;

use super::shared_map::SharedMap;

/// A table remembers at most so many source files.
pub(super) const SOURCE_FILES_MAX: usize = 1_000_000;

/// What is held of one source file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Records from the first one on.
    pub records: u64,
    /// There are no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// Why a range of a source file does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    AlreadySo,
    Never,
}

impl Import {
    /// How a range goes on from here; when it fits, what is held then.
    pub(super) fn with(self, range: &SourceFileRange) -> Result<Self, Fit> {
        let holds = range.end <= self.records && (self.complete || !range.complete);
        match range.start {
            _ if holds => Err(Fit::AlreadySo),
            start if start == self.records && range.start <= range.end && !self.complete => {
                Ok(Self { records: range.end, complete: range.complete })
            }
            _ => Err(Fit::Never),
        }
    }
}

/// Source files by their digests.
pub type Imports = SharedMap<String, Import>;
