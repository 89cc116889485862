//! What a vacuum deletes (pure): a listing, what is named, and how old is old enough.
//!
//! | name below the table | what it is | deleted when |
//! | --- | --- | --- |
//! | `data/<ulid>.parquet` | data file | old, and not named; never, when not all that left are known |
//! | `metadata/<ulid>-m<n>.avro` | manifest | old, and not named |
//! | `metadata/snap-<id>-<ulid>.avro` | manifest list | old, and not named |
//! | `metadata/v<n>.metadata.json` | table metadata | old, not named, and not among the newest |
//! | `metadata/version-hint.text`, `data/_delta_log/` | the formats' own | never |
//! | anything else, anything deeper | another program's | never; it is counted |

use siltstone_protocol::Format;

pub use super::names::Names;

/// Of the newest metadata versions so many stay, whatever names them.
pub const METADATA_KEPT: u64 = 10;

/// An object of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Below the table's location.
    pub path: String,
    pub bytes: u64,
    /// By the store's clock, milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

/// When a file is old enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Files modified at this time or later are left.
    pub before_ms: i64,
    /// The newest version of the table's Iceberg metadata.
    pub metadata_newest: Option<u64>,
    /// Every data file that left lately is named. False: no data file goes.
    pub knows_left: bool,
}

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Data,
    Manifest,
    ManifestList,
    TableMetadata,
    /// Another program's, by its name.
    Foreign,
    /// What the formats keep beside their files.
    Own,
}

impl Kind {
    /// The stable name, for metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Manifest => "manifest",
            Self::ManifestList => "manifest_list",
            Self::TableMetadata => "table_metadata",
            Self::Foreign => "foreign",
            Self::Own => "own",
        }
    }

    /// The format that a file of this kind belongs to; `None` for data files, which are all formats'.
    pub fn format(self) -> Option<Format> {
        matches!(self, Self::Manifest | Self::ManifestList | Self::TableMetadata).then_some(Format::Iceberg)
    }
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Named, young, or not ours.
    Keep(Kind),
    Delete(Kind),
}

/// The plan: the objects that are deleted, of those listed.
pub fn plan<'a>(
    listing: impl IntoIterator<Item = &'a Listed>,
    named: &Names,
    horizon: Horizon,
) -> impl Iterator<Item = &'a Listed> {
    listing.into_iter().filter(move |listed| matches!(verdict(listed, named, horizon), Verdict::Delete(_)))
}

/// What becomes of one object.
pub fn verdict(listed: &Listed, named: &Names, horizon: Horizon) -> Verdict {
    let (kind, version) = kind_of(&listed.path);
    let ours = !matches!(kind, Kind::Foreign | Kind::Own);
    let old = listed.modified_ms < horizon.before_ms;
    // Without metadata that could be read, none is old.
    let newest = horizon.metadata_newest.unwrap_or(0);
    let among_newest = version.is_some_and(|version| version.saturating_add(METADATA_KEPT) > newest);
    let may_have_left = kind == Kind::Data && !horizon.knows_left;
    if ours && old && !among_newest && !may_have_left && !named.contains(&listed.path) {
        Verdict::Delete(kind)
    } else {
        Verdict::Keep(kind)
    }
}

/// What a path below the table is; for table metadata its version too.
fn kind_of(path: &str) -> (Kind, Option<u64>) {
    let Some((folder, name)) = path.split_once('/') else { return (Kind::Foreign, None) };
    if folder == "data" && (name == "_delta_log" || name.starts_with("_delta_log/")) {
        return (Kind::Own, None);
    }
    match folder {
        "data" if name.strip_suffix(".parquet").is_some_and(is_ulid) => (Kind::Data, None),
        "metadata" => metadata_kind(name),
        _ => (Kind::Foreign, None),
    }
}

fn metadata_kind(name: &str) -> (Kind, Option<u64>) {
    if name == "version-hint.text" {
        return (Kind::Own, None);
    }
    let numbered = name.strip_prefix('v').and_then(|name| name.strip_suffix(".metadata.json"));
    if let Some(version) = numbered.and_then(plain_number) {
        return (Kind::TableMetadata, Some(version));
    }
    let Some(stem) = name.strip_suffix(".avro") else { return (Kind::Foreign, None) };
    if let Some((id, ulid)) = stem.strip_prefix("snap-").and_then(|rest| rest.rsplit_once('-'))
        && id.parse::<i64>().is_ok()
        && is_ulid(ulid)
    {
        return (Kind::ManifestList, None);
    }
    match stem.split_once("-m") {
        Some((ulid, number)) if is_ulid(ulid) && plain_number(number).is_some() => (Kind::Manifest, None),
        _ => (Kind::Foreign, None),
    }
}

/// A number as we write it: no sign, no zero before it.
fn plain_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn is_ulid(name: &str) -> bool {
    ulid::Ulid::from_string(name).is_ok()
}
