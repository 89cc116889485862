//! I-9: whether an object may go.

use siltstone_protocol::{Change, Entry};

use crate::{
    model::{CLOCKS_MS, TableModel},
    objects::Objects,
    scenario::{HOUR_MS, ORPHANS_MS, Scenario},
    world::{Violation, violation},
};

const DAY_MS: i64 = 24 * HOUR_MS;
/// Checkpoints of the ledger that stay.
const CHECKPOINTS_KEPT: usize = 3;

/// Checks the deletion of an object of the table, by its path below it.
pub(crate) fn check(
    scenario: &Scenario,
    table: &TableModel,
    objects: &Objects,
    path: &str,
    modified_ms: i64,
    now_ms: i64,
) -> Result<(), Violation> {
    let wrong = |why: &str| Err(violation("I-9", format_args!("{}{path} is deleted: {why}", table.location)));
    let age_ms = now_ms - modified_ms;
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["data", name] if name.ends_with(".parquet") => {
            if let Some(why) = named(table, path, now_ms) {
                return wrong(why);
            }
            if age_ms < ORPHANS_MS {
                return wrong("it is young");
            }
            let left = table.left_ms.get(path);
            if left.is_some_and(|left_ms| now_ms - left_ms < ORPHANS_MS - CLOCKS_MS) {
                return wrong("it left the table lately");
            }
        }
        ["metadata", name] if name.ends_with(".avro") => {
            if scenario.reads_manifests && table.iceberg.names(path) {
                return wrong("the newest Iceberg metadata leads to it");
            }
            if age_ms < ORPHANS_MS {
                return wrong("it is young");
            }
        }
        ["metadata", name] if name.ends_with(".metadata.json") => {
            if table.iceberg.names(path) {
                return wrong("the newest Iceberg metadata names it");
            }
        }
        ["_siltstone", "ledger", name] => {
            let Some(version) = version(name) else { return wrong("it is no ledger entry") };
            if age_ms < DAY_MS {
                return wrong("it is young");
            }
            if table.shown_by_all().is_none_or(|shown| version > shown) {
                return wrong("a form of the table does not show it yet");
            }
            let oldest = checkpoints(table, objects).first().copied();
            if oldest.is_none_or(|oldest| version >= oldest) {
                return wrong("no checkpoint is in its place");
            }
        }
        ["_siltstone", "checkpoints", name] => {
            let newer = checkpoints(table, objects)
                .into_iter()
                .filter(|kept| version(name).is_some_and(|v| v < *kept));
            if newer.count() < CHECKPOINTS_KEPT {
                return wrong("it is one of the newest");
            }
        }
        _ => return wrong("it is nobody's to delete"),
    }
    Ok(())
}

/// What names a data file.
pub(crate) fn named(table: &TableModel, path: &str, now_ms: i64) -> Option<&'static str> {
    if table.newest().is_some_and(|newest| newest.live.contains(path)) {
        return Some("the ledger names it");
    }
    if table.iceberg.names(path) {
        return Some("an Iceberg snapshot names it");
    }
    if table.delta.names(path, now_ms) {
        return Some("a retained Delta version names it");
    }
    let unshown = table.shown_by_all().map_or(0, |shown| shown as usize + 1);
    let entries = table.ledger.get(unshown..).unwrap_or_default();
    entries
        .iter()
        .any(|version| brings(&version.entry, path))
        .then_some("a form of the table has yet to show it")
}

fn brings(entry: &Entry, path: &str) -> bool {
    match &entry.change {
        Change::Append { files, .. }
        | Change::Replace { added: files, .. }
        | Change::Overwrite { added: files, .. } => files.iter().any(|file| file.path == path),
        _ => false,
    }
}

fn version(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

fn checkpoints(table: &TableModel, objects: &Objects) -> Vec<u64> {
    let folder = table.path("_siltstone/checkpoints/");
    let names = objects.names(&folder).filter_map(|path| version(&path[folder.len()..]));
    names.collect()
}
