//! The table as Iceberg shows it, read by the spec types of the `iceberg` crate.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use iceberg::spec::{FormatVersion, Manifest, ManifestList, TableMetadata};

use crate::{
    model::TableModel,
    objects::Objects,
    scenario::{ROOT, ROOT_URL, Scenario},
    world::{Violation, violation},
};

const VERSION: &str = "siltstone.version";

/// What one snapshot names: data files, and its own manifests and manifest list, below the table.
#[derive(Clone, Default)]
struct Snapshot {
    files: BTreeSet<String>,
    metadata: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Iceberg {
    /// The newest metadata version.
    pub(crate) number: Option<u64>,
    /// The ledger version shown.
    pub(crate) shown: Option<u64>,
    snapshots: BTreeMap<i64, Arc<Snapshot>>,
    manifests: BTreeMap<String, Arc<BTreeSet<String>>>,
    /// Metadata files that the newest one names, itself too.
    metadata_log: BTreeSet<String>,
}

impl Iceberg {
    /// A metadata version came to be.
    pub(crate) fn put(
        &mut self,
        scenario: &Scenario,
        table: &TableModel,
        objects: &Objects,
        number: &str,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let what = format!("Iceberg metadata v{number}");
        let broken = |why: &str| violation("I-4", format_args!("{what}: {why}"));
        let number: u64 = number.parse().map_err(|_| broken("has no number"))?;
        if number != self.number.map_or(1, |newest| newest + 1) {
            return Err(broken("does not follow the newest"));
        }
        let metadata: TableMetadata = serde_json::from_slice(bytes).map_err(|_| broken("cannot be read"))?;
        let shown = metadata.properties().get(VERSION).and_then(|version| version.parse::<u64>().ok());
        let shown = shown.ok_or_else(|| broken("shows no version"))?;
        if self.shown.is_some_and(|before| shown < before) {
            return Err(broken("shows less than the version before"));
        }
        let mut snapshots = BTreeMap::new();
        for snapshot in metadata.snapshots() {
            let known = self.snapshots.get(&snapshot.snapshot_id()).cloned();
            let read = match known {
                Some(read) => read,
                None => {
                    let version = snapshot.summary().additional_properties.get(VERSION);
                    let version = version.and_then(|version| version.parse().ok());
                    let version = version.ok_or_else(|| broken("a snapshot shows no version"))?;
                    let read = if scenario.reads_manifests {
                        self.read(table, objects, snapshot.manifest_list())?
                    } else {
                        let metadata = BTreeSet::from([below(table, snapshot.manifest_list())]);
                        Snapshot { files: table.at(version, &what)?.clone(), metadata }
                    };
                    table.shows(objects, &what, version, &read.files)?;
                    Arc::new(read)
                }
            };
            snapshots.insert(snapshot.snapshot_id(), read);
        }
        let empty = BTreeSet::new();
        let current = metadata.current_snapshot_id().and_then(|id| snapshots.get(&id));
        table.shows(objects, &what, shown, current.map_or(&empty, |snapshot| &snapshot.files))?;
        let log = metadata.metadata_log().iter().map(|entry| below(table, &entry.metadata_file));
        self.metadata_log = log.chain([format!("metadata/v{number}.metadata.json")]).collect();
        (self.number, self.shown, self.snapshots) = (Some(number), Some(shown), snapshots);
        Ok(())
    }

    fn read(&mut self, table: &TableModel, objects: &Objects, list: &str) -> Result<Snapshot, Violation> {
        let get = |url: &str| {
            let path = table.path(&below(table, url));
            objects
                .bytes(&path)
                .ok_or_else(|| violation("I-6", format_args!("a snapshot names {path}, which is not there")))
        };
        let broken = |_| violation("I-4", "a manifest or manifest list cannot be read");
        let mut snapshot = Snapshot::default();
        snapshot.metadata.insert(below(table, list));
        let list = ManifestList::parse_with_version(&get(list)?, FormatVersion::V2).map_err(broken)?;
        for line in list.entries() {
            let path = below(table, &line.manifest_path);
            if !self.manifests.contains_key(&path) {
                let manifest = Manifest::parse_avro(&get(&line.manifest_path)?).map_err(broken)?;
                let live = manifest.entries().iter().filter(|entry| entry.is_alive());
                let live: BTreeSet<String> = live.map(|entry| below(table, entry.file_path())).collect();
                self.manifests.insert(path.clone(), Arc::new(live));
            } else if !objects.is_there(&table.path(&path)) {
                return Err(violation("I-6", format_args!("a snapshot names {path}, which is not there")));
            }
            snapshot.files.extend(self.manifests[&path].iter().cloned());
            snapshot.metadata.insert(path);
        }
        Ok(snapshot)
    }

    /// True when the newest metadata leads to this file.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.metadata_log.contains(path)
            || self
                .snapshots
                .values()
                .any(|snapshot| snapshot.files.contains(path) || snapshot.metadata.contains(path))
    }
}

/// The path below the table that a URL names.
fn below(table: &TableModel, url: &str) -> String {
    let path = url.strip_prefix(ROOT_URL).map(|rest| format!("{ROOT}{rest}")).unwrap_or_default();
    path.strip_prefix(&table.location).unwrap_or(url).to_owned()
}
