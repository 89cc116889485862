//! Reports applied in order: idempotent, per table, with gaps refused.
//!
//! 1. An entry at or below the newest held version changes nothing.
//! 2. The next version is held from then on.
//! 3. An entry beyond that is refused, and the answer says from where the worker must report.

use std::collections::BTreeMap;

use siltstone_protocol::{Ack, Change, ErrorKind, Report};

/// Tables a report may create at most.
pub const TABLES_MAX: usize = 100_000;

/// What is held of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableView {
    pub table_uuid: String,
    pub version: Option<u64>,
    pub files: BTreeMap<String, (u64, u64)>,
}

impl TableView {
    /// Rows of the live files.
    pub fn rows(&self) -> u64 {
        self.files.values().map(|(rows, _)| rows).sum()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append { files, .. } => self.add(files),
            Change::Replace { removed, added, .. } | Change::Absorb { removed, added, .. } => {
                self.remove(removed);
                self.add(added);
            }
            Change::Delete { removed } => self.remove(removed),
            _ => {}
        }
    }

    fn add(&mut self, files: &[siltstone_protocol::FileEntry]) {
        self.files.extend(files.iter().map(|file| (file.path.clone(), (file.rows, file.bytes))));
    }

    fn remove(&mut self, paths: &[String]) {
        for path in paths {
            self.files.remove(path);
        }
    }
}

/// All tables of one environment.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    tables: BTreeMap<String, TableView>,
}

impl Inventory {
    /// Applies a report. Applying it again changes nothing.
    ///
    /// # Errors
    /// `Invalid` when an entry leaves a gap, belongs to another table of the same name, or too many
    /// tables were reported. What precedes the fault is held.
    pub fn apply(&mut self, report: &Report) -> Result<Ack, ErrorKind> {
        if self.tables.len() >= TABLES_MAX && !self.tables.contains_key(&report.table) {
            return Err(ErrorKind::Invalid);
        }
        let view = self.tables.entry(report.table.clone()).or_default();
        for entry in &report.entries {
            let next = view.version.map_or(0, |version| version + 1);
            if entry.version < next {
                continue;
            }
            if entry.version > next || (next > 0 && entry.table_uuid != view.table_uuid) {
                return Err(ErrorKind::Invalid);
            }
            view.table_uuid.clone_from(&entry.table_uuid);
            view.apply(&entry.change);
            view.version = Some(entry.version);
        }
        Ok(Ack { version: view.version })
    }

    /// What is held of a table.
    pub fn table(&self, name: &str) -> Option<&TableView> {
        self.tables.get(name)
    }
}

#[cfg(test)]
mod tests {
    use siltstone_protocol::{Entry, FileEntry};

    use super::*;

    fn entry(version: u64, change: Change) -> Entry {
        let (table_uuid, commit_id) = ("u".to_owned(), format!("c{version}"));
        Entry { format: 1, version, table_uuid, commit_id, committed_ms: 0, change }
    }

    fn append(path: &str, rows: u64) -> Change {
        let file = FileEntry {
            path: path.to_owned(),
            bytes: 10,
            rows,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 0,
            partition_token: None,
        };
        Change::Append { files: vec![file], ranges: Vec::new(), rejected: Vec::new() }
    }

    #[test]
    fn reports_are_idempotent_ordered_and_gaps_are_refused() {
        let mut inventory = Inventory::default();
        let entries = vec![entry(0, append("a", 1)), entry(1, append("b", 2))];
        let report = Report { table: "t".to_owned(), entries };
        assert_eq!(inventory.apply(&report), Ok(Ack { version: Some(1) }));
        assert_eq!(inventory.apply(&report), Ok(Ack { version: Some(1) }));
        assert_eq!(inventory.table("t").map(TableView::rows), Some(3));
        let gap = Report { table: "t".to_owned(), entries: vec![entry(3, append("c", 1))] };
        assert_eq!(inventory.apply(&gap), Err(ErrorKind::Invalid));
        let replace = Change::Replace {
            removed: vec!["a".to_owned(), "b".to_owned()],
            added: Vec::new(),
            effort: Default::default(),
        };
        let next = Report { table: "t".to_owned(), entries: vec![entry(2, replace)] };
        assert_eq!(inventory.apply(&next), Ok(Ack { version: Some(2) }));
        assert_eq!(inventory.table("t").map(TableView::rows), Some(0));
    }
}
