//! What other programs did to a table in one of its formats, and how far the format and the ledger are apart.
//!
//! A format *agrees* when its live files are those of the ledger at the version that it shows (I-4). It is *apart*
//! from the moment another program's commit, or a step of ours that was passed over because of one, makes them
//! differ. The format itself says so, in what we commit to it ([`Marker`]), so that a restart knows.
//!
//! 1. [`crate::TableFormat::compare`] looks: files of ours that are no longer there, and files (with delete
//!    files) that the ledger does not know. What they hold is read, laid down anew as files of ours, and
//!    committed as one `Absorb`.
//! 2. Shown in the format that was changed, an absorb puts our files in the place of those that were read; if
//!    they are not all there any more it is passed over, and the next absorb takes in what is there then.
//! 3. Shown in the other formats, it takes away what was taken away, and adds what came.
//! 4. A compaction of ours that lacks an input in a format that is apart is passed over there; so its outputs are
//!    missing, and what is left of its inputs is unknown to the ledger: the next absorb makes it right.
//! 5. An absorb is refused when the format was looked at before it showed the absorb before it (`ledger::admit`).
//!
//! Only a format that is apart is ever compared, so what a format lacks for reasons of our own is never taken for
//! another program's removal.

use std::{collections::BTreeMap, fmt, str::FromStr};

use siltstone_datafile::ForeignFile;
use siltstone_protocol::Format;

use crate::{error::LakeError, ledger::FILES_PER_ENTRY_MAX};

/// Why an overwrite is not passed over: the rows that it changed would come back.
pub(crate) const NO_OVERWRITE: &str = "changed files whose rows a reset or a replay changed at the same time";

/// What a comparison found.
#[derive(Debug)]
pub enum Comparison {
    /// The format shows what the ledger says, as far as it shows it.
    Agrees,
    /// Something is to be compared, but the format does not show the state's version: catch up first.
    Behind,
    Apart(Box<Apart>),
}

/// What an absorb has to take in.
#[derive(Debug)]
pub struct Apart {
    pub format: Format,
    /// Ledger version that the format shows.
    pub base: u64,
    /// Where the format's own history stands.
    pub seen: u64,
    /// Files of the ledger that leave.
    pub removed: Vec<String>,
    /// Files whose rows are to be laid down anew.
    pub files: Vec<ForeignFile>,
    /// Digests of those files and of the delete files applied.
    pub absorbed: Vec<String>,
    /// The other programs say that they changed no row.
    pub same_rows: bool,
    /// Commits of other programs since the last absorb, by what they say that they did.
    pub commits: BTreeMap<&'static str, u64>,
    /// Files that lie outside of the table and are left where they are.
    pub outside: u64,
}

impl Apart {
    /// Refuses what one ledger entry cannot hold.
    pub(crate) fn bounded(self, table: &str, way_out: &str) -> Result<Self, LakeError> {
        let files = self.removed.len().max(self.absorbed.len());
        if files > FILES_PER_ENTRY_MAX {
            let problem = format!(
                "changed {files} files, more than the {FILES_PER_ENTRY_MAX} that can be taken in at once; {way_out}"
            );
            return Err(refused(table, self.format, self.seen, &problem));
        }
        Ok(self)
    }
}

/// How far a format is apart: the newest position of its history at which another program changed it, and the
/// newest ledger version that was passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Marker {
    pub(crate) seen: u64,
    #[serde(default)]
    pub(crate) skipped: u64,
}

impl Marker {
    pub(crate) fn foreign(marker: Option<Self>, seen: u64) -> Self {
        let marker = marker.unwrap_or_default();
        Self { seen: marker.seen.max(seen), ..marker }
    }

    pub(crate) fn skipped(marker: Option<Self>, version: u64) -> Self {
        let marker = marker.unwrap_or_default();
        Self { skipped: marker.skipped.max(version), ..marker }
    }

    /// True when a look at this position, at this ledger version, saw all of it.
    pub(crate) fn is_covered_by(self, seen: u64, base: u64) -> bool {
        self.seen <= seen && self.skipped <= base
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.seen, self.skipped)
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (seen, skipped) = text.split_once('/').ok_or(())?;
        Ok(Self { seen: seen.parse().map_err(|_| ())?, skipped: skipped.parse().map_err(|_| ())? })
    }
}

/// One of the words that programs use for what a commit did. Other words are theirs, and are not repeated.
pub(crate) fn operation(said: &str) -> &'static str {
    const WORDS: [&str; 14] = [
        "append",
        "replace",
        "overwrite",
        "delete",
        "write",
        "optimize",
        "merge",
        "update",
        "restore",
        "vacuum start",
        "vacuum end",
        "truncate",
        "streaming update",
        "compaction",
    ];
    let said = said.to_ascii_lowercase();
    WORDS.into_iter().find(|word| *word == said).unwrap_or("other")
}

/// A change whose files cannot be read; `why` names no path of theirs.
pub fn not_readable(table: &str, format: Format, version: u64, why: &str) -> LakeError {
    let folder = match format {
        Format::Iceberg => "metadata/ (in a catalog: drop the table there, without purging its files)",
        Format::Delta => "data/_delta_log",
    };
    let problem = format!(
        "its change cannot be taken in ({why}); to have it rebuilt from the ledger, without that change, stop the \
         workers, delete {folder} and start them again"
    );
    refused(table, format, version, &problem)
}

/// A change that cannot be reconciled.
pub(crate) fn refused(table: &str, format: Format, version: u64, problem: &str) -> LakeError {
    LakeError::Foreign {
        table: table.to_owned(),
        format: format.as_str(),
        version,
        problem: problem.to_owned(),
    }
}
