//! What must be true of the tables, kept apart from the program's own code: each object is read as it is put.
//!
//! A ledger entry is checked when it comes to be, a form of the table when it shows it, a deletion before it is done.

mod history;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use object_store::path::Path;
use siltstone_protocol::{Change, Entry, FileEntry, Format, OffsetRange, RejectedCount};

use self::history::{Anew, Revised};
use crate::{
    delta::Delta,
    files::{FileRows, Place, read_rows},
    iceberg::Iceberg,
    objects::Objects,
    records,
    scenario::{HOUR_MS, ROOT, ROWS_MS, SECRET, Scenario},
    world::{Violation, violation},
};

/// Clocks of workers differ from the store's by less.
pub(crate) const CLOCKS_MS: i64 = HOUR_MS / 4;

/// The tables of the simulation.
pub(crate) struct Model {
    tables: Vec<TableModel>,
}

/// One table as its objects say.
pub(crate) struct TableModel {
    /// Its folder, with a slash at the end.
    pub(crate) location: String,
    dead_letters: bool,
    pub(crate) formats: Vec<Format>,
    /// By version.
    pub(crate) ledger: Vec<Version>,
    /// The next offset of each partition of the topic.
    pub(crate) next: BTreeMap<i32, i64>,
    /// Dead letters that are rows.
    pub(crate) replayed: BTreeSet<Place>,
    /// Records of source files that are rows.
    pub(crate) imports: BTreeMap<u64, u64>,
    revised: BTreeMap<i32, Revised>,
    /// Rows that left by their age.
    pub(crate) left_rows: BTreeSet<Place>,
    /// When files left the ledger.
    pub(crate) left_ms: BTreeMap<String, i64>,
    pub(crate) iceberg: Iceberg,
    pub(crate) delta: Delta,
    rows: HashMap<String, Arc<FileRows>>,
}

/// One version of the ledger.
pub(crate) struct Version {
    pub(crate) entry: Entry,
    pub(crate) live: Arc<BTreeSet<String>>,
}

impl Model {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let table = |name: String, dead_letters| TableModel {
            location: format!("{ROOT}/{}/", name.replace('.', "/")),
            dead_letters,
            formats: scenario.spec.formats.clone(),
            ledger: Vec::new(),
            next: BTreeMap::new(),
            replayed: BTreeSet::new(),
            imports: BTreeMap::new(),
            revised: BTreeMap::new(),
            left_rows: BTreeSet::new(),
            left_ms: BTreeMap::new(),
            iceberg: Iceberg::default(),
            delta: Delta::default(),
            rows: HashMap::new(),
        };
        let names = [(scenario.spec.name.clone(), false), (scenario.spec.dead_letter_name(), true)];
        Self { tables: names.into_iter().map(|(name, dead_letters)| table(name, dead_letters)).collect() }
    }

    pub(crate) fn table(&self, dead_letters: bool) -> &TableModel {
        &self.tables[usize::from(dead_letters)]
    }

    pub(crate) fn table_mut(&mut self, dead_letters: bool) -> &mut TableModel {
        &mut self.tables[usize::from(dead_letters)]
    }

    /// An object came to be.
    pub(crate) fn put(
        &mut self,
        scenario: &Scenario,
        objects: &Objects,
        path: &str,
        bytes: &[u8],
        now_ms: i64,
    ) -> Result<(), Violation> {
        if path.contains(SECRET) {
            return Err(violation("I-5", format_args!("a value of a record is in a name: {path}")));
        }
        let found = self.tables.iter_mut().find_map(|table| {
            let below = path.strip_prefix(&table.location)?.to_owned();
            Some((table, below))
        });
        let Some((table, below)) = found else { return Ok(()) };
        match below.split('/').collect::<Vec<_>>().as_slice() {
            ["_siltstone", "ledger", name] => table.entry(scenario, objects, name, bytes, now_ms),
            ["_siltstone", ..] if contains(bytes, SECRET.as_bytes()) => {
                Err(violation("I-5", format_args!("a value of a record is in {path}")))
            }
            ["metadata", name] => {
                match name.strip_prefix('v').and_then(|name| name.strip_suffix(".metadata.json")) {
                    Some(number) => {
                        let mut iceberg = std::mem::take(&mut table.iceberg);
                        let shown = iceberg.put(scenario, table, objects, number, bytes);
                        table.iceberg = iceberg;
                        shown
                    }
                    None => Ok(()),
                }
            }
            ["data", "_delta_log", name] => match name.strip_suffix(".json") {
                Some(number) if number.len() == 20 => {
                    let mut delta = std::mem::take(&mut table.delta);
                    let shown = delta.put(table, objects, number, bytes, now_ms);
                    table.delta = delta;
                    shown
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// An object is about to go.
    pub(crate) fn delete(
        &mut self,
        scenario: &Scenario,
        objects: &Objects,
        path: &str,
        now_ms: i64,
    ) -> Result<(), Violation> {
        let Some(modified_ms) = objects.modified_ms(&Path::from(path)) else { return Ok(()) };
        let Some(table) = self.tables.iter().find(|table| path.starts_with(&table.location)) else {
            return Err(violation("I-9", format_args!("{path} is deleted, which is no table's")));
        };
        crate::cleanup::check(scenario, table, objects, &path[table.location.len()..], modified_ms, now_ms)
    }
}

/// I-3: the rows of an entry are those of the records that it names.
fn same_rows(mut rows: Vec<Place>, mut expected: Vec<Place>) -> Result<(), Violation> {
    rows.sort_unstable();
    expected.sort_unstable();
    if rows == expected {
        return Ok(());
    }
    Err(violation("I-3", format_args!("rows {rows:?} are committed for {expected:?}")))
}

fn sum(counts: &[RejectedCount]) -> u64 {
    counts.iter().map(|count| count.records).sum()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl TableModel {
    pub(crate) fn newest(&self) -> Option<&Version> {
        self.ledger.last()
    }

    pub(crate) fn live(&self) -> BTreeSet<String> {
        self.newest().map(|version| (*version.live).clone()).unwrap_or_default()
    }

    /// The files of the ledger at a version that a form of the table says it shows.
    pub(crate) fn at(&self, version: u64, what: &str) -> Result<&BTreeSet<String>, Violation> {
        let found = self.ledger.get(version as usize).map(|version| version.live.as_ref());
        found.ok_or_else(|| {
            violation("I-6", format_args!("{what} shows version {version}, which is not committed"))
        })
    }

    /// I-4, and I-6: what a form shows is what the ledger has, and it is there.
    pub(crate) fn shows(
        &self,
        objects: &Objects,
        what: &str,
        version: u64,
        shown: &BTreeSet<String>,
    ) -> Result<(), Violation> {
        let live = self.at(version, what)?;
        if shown != live {
            let more: Vec<_> = shown.difference(live).collect();
            let less: Vec<_> = live.difference(shown).collect();
            let what = format_args!(
                "{what} at version {version} shows {more:?} more, {less:?} less than the ledger"
            );
            return Err(violation("I-4", what));
        }
        for path in shown {
            if !objects.is_there(&self.path(path)) {
                return Err(violation("I-6", format_args!("{what} shows {path}, which is not there")));
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self, below: &str) -> String {
        format!("{}{below}", self.location)
    }

    fn entry(
        &mut self,
        scenario: &Scenario,
        objects: &Objects,
        name: &str,
        bytes: &[u8],
        now_ms: i64,
    ) -> Result<(), Violation> {
        if contains(bytes, SECRET.as_bytes()) {
            return Err(violation("I-5", format_args!("a value of a record is in ledger entry {name}")));
        }
        let entry: Entry = serde_json::from_slice(bytes).map_err(|_| violation("I-3", "no ledger entry"))?;
        if entry.version != self.ledger.len() as u64 || format!("{:020}.json", entry.version) != name {
            let what =
                format_args!("entry {} is put as {name} over {} entries", entry.version, self.ledger.len());
            return Err(violation("I-3", what));
        }
        let mut live = self.live();
        match &entry.change {
            Change::Create { .. } | Change::SetSchema { .. } => {}
            Change::Append { files, ranges, rejected, replayed, imported, base } => {
                let rows = self.added(objects, &mut live, files)?;
                let mut expected = self.appended(scenario, ranges)?;
                if ranges.is_empty() {
                    let base = base.unwrap_or_default();
                    expected.extend(self.replay(scenario, replayed, base, entry.version)?);
                } else {
                    self.not_rejected(scenario, replayed)?;
                }
                expected.extend(self.import(scenario, imported)?);
                same_rows(rows, expected)?;
                let count = sum(rejected);
                let all = self.records_of(scenario, ranges, true).len() as u64;
                if !self.dead_letters && count != all {
                    return Err(violation("I-3", format_args!("{count} rejected are counted, {all} were")));
                }
            }
            Change::Replace { removed, added, .. } => {
                let mut before = self.removed(objects, &mut live, removed, now_ms)?;
                let mut after = self.added(objects, &mut live, added)?;
                before.sort_unstable();
                after.sort_unstable();
                if before != after {
                    return Err(violation("I-1", format_args!("{before:?} were rewritten as {after:?}")));
                }
            }
            Change::Delete { removed, added } => {
                let before = self.removed(objects, &mut live, removed, now_ms)?;
                let stay = self.added(objects, &mut live, added)?;
                self.expired(scenario, removed, &before, &stay, now_ms)?;
            }
            Change::Overwrite { removed, added, ranges, base, rejected, .. } if !ranges.is_empty() => {
                let before = self.removed(objects, &mut live, removed, now_ms)?;
                let after = self.added(objects, &mut live, added)?;
                let (version, base, rejected) = (entry.version, *base, sum(rejected));
                let anew = Anew { version, base, ranges, rejected, before, after };
                self.overwrite(scenario, objects, &live, anew)?;
            }
            other => return Err(violation("I-3", format_args!("nobody asked for {}", other.kind()))),
        }
        self.ledger.push(Version { entry, live: Arc::new(live) });
        Ok(())
    }

    /// Files join: they are there, as the entry says, in the order that it says.
    fn added(
        &mut self,
        objects: &Objects,
        live: &mut BTreeSet<String>,
        files: &[FileEntry],
    ) -> Result<Vec<Place>, Violation> {
        let mut all = Vec::new();
        for file in files {
            let rows = self.rows(objects, &file.path)?;
            let bytes = objects.bytes(&self.path(&file.path)).map_or(0, |bytes| bytes.len() as u64);
            if bytes != file.bytes || rows.places.len() as u64 != file.rows {
                return Err(violation("I-6", format_args!("{} is not as its entry says", file.path)));
            }
            if file.sort_order_id != 0 && !rows.is_sorted {
                return Err(violation("I-2", format_args!("{} is not in its order", file.path)));
            }
            if !live.insert(file.path.clone()) {
                return Err(violation("I-3", format_args!("{} joins twice", file.path)));
            }
            all.extend(rows.places.iter().copied());
        }
        Ok(all)
    }

    fn removed(
        &mut self,
        objects: &Objects,
        live: &mut BTreeSet<String>,
        paths: &[String],
        now_ms: i64,
    ) -> Result<Vec<Place>, Violation> {
        let mut all = Vec::new();
        for path in paths {
            if !live.remove(path) {
                return Err(violation("I-1", format_args!("{path} is removed, which is not live")));
            }
            self.left_ms.insert(path.clone(), now_ms);
            all.extend(self.rows(objects, path)?.places.iter().copied());
        }
        Ok(all)
    }

    /// I-3: each range begins where coverage ends. The rows of the ranges.
    fn appended(&mut self, scenario: &Scenario, ranges: &[OffsetRange]) -> Result<Vec<Place>, Violation> {
        for range in ranges {
            let next = self.next.entry(range.partition).or_default();
            // A table of dead letters begins with the first of them.
            let begins = self.dead_letters && *next == 0;
            if (*next != range.start && !begins) || range.end <= range.start {
                let (partition, start, end) = (range.partition, range.start, range.end);
                let what =
                    format_args!("{start}..{end} of partition {partition} is committed, which is at {next}");
                return Err(violation("I-3", what));
            }
            *next = range.end;
        }
        Ok(self.records_of(scenario, ranges, self.dead_letters))
    }

    fn records_of(&self, scenario: &Scenario, ranges: &[OffsetRange], rejected: bool) -> Vec<Place> {
        let of = |range: &OffsetRange| {
            records::offsets(scenario, range.partition, range.start, range.end, rejected)
        };
        ranges.iter().flat_map(of).collect()
    }

    /// Rows leave only when they are old, and those that stay are all the others.
    fn expired(
        &mut self,
        scenario: &Scenario,
        removed: &[String],
        before: &[Place],
        stay: &[Place],
        now_ms: i64,
    ) -> Result<(), Violation> {
        let before_us = (now_ms - ROWS_MS + CLOCKS_MS) * 1_000;
        let mut left: BTreeSet<Place> = before.iter().copied().collect();
        if let Some(place) = stay.iter().find(|place| !left.remove(place)) {
            return Err(violation("I-1", format_args!("{place:?} is twice in what stays, or was not there")));
        }
        for path in removed {
            let Some(rows) = self.rows.get(path) else { continue };
            let times = rows.places.iter().zip(&rows.times_us).filter(|(place, _)| left.contains(place));
            if !scenario.rows_leave || times.into_iter().any(|(_, at)| at.is_none_or(|at| at > before_us)) {
                return Err(violation("I-9", format_args!("rows of {path} left that are not old")));
            }
        }
        self.left_rows.extend(left);
        Ok(())
    }

    pub(crate) fn rows(&mut self, objects: &Objects, path: &str) -> Result<Arc<FileRows>, Violation> {
        if let Some(rows) = self.rows.get(path) {
            return Ok(Arc::clone(rows));
        }
        let bytes = objects.bytes(&self.path(path));
        let bytes = bytes
            .ok_or_else(|| violation("I-6", format_args!("the ledger names {path}, which is not there")))?;
        let rows = Arc::new(read_rows(bytes)?);
        self.rows.insert(path.to_owned(), Arc::clone(&rows));
        Ok(rows)
    }

    /// The lowest version that every form shows in the store.
    pub(crate) fn shown_by_all(&self) -> Option<u64> {
        let shown = |format: &Format| match format {
            Format::Iceberg => self.iceberg.shown,
            Format::Delta => self.delta.shown(),
        };
        self.formats.iter().map(shown).min().flatten()
    }
}
