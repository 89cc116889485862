//! What must be true of rows that do not come at the position: of dead letters, of source files, of ranges that are
//! ingested anew.

use std::collections::BTreeSet;

use siltstone_protocol::{OffsetRange, SourceFileRange};

use super::TableModel;
use crate::{
    files::Place,
    objects::Objects,
    records,
    scenario::Scenario,
    world::{Violation, violation},
};

/// When rows of a partition came last that were not at its position: ledger versions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Revised {
    filled: u64,
    overwritten: u64,
}

/// An overwrite, as its entry says, and the rows of its files.
pub(super) struct Anew<'a> {
    pub(super) version: u64,
    pub(super) base: u64,
    pub(super) ranges: &'a [OffsetRange],
    /// Records that did not become rows.
    pub(super) rejected: u64,
    /// Rows of the files that leave, and of those that come.
    pub(super) before: Vec<Place>,
    pub(super) after: Vec<Place>,
}

fn places(range: &OffsetRange) -> impl Iterator<Item = Place> {
    let partition = range.partition;
    (range.start..range.end).map(move |offset| (partition, offset))
}

impl TableModel {
    /// The rows of dead letters that were replayed: none of them is there already.
    pub(super) fn replay(
        &mut self,
        scenario: &Scenario,
        replayed: &[OffsetRange],
        base: u64,
        version: u64,
    ) -> Result<Vec<Place>, Violation> {
        let mut rows = Vec::new();
        for range in replayed {
            self.is_below(range)?;
            let revised = self.revised.entry(range.partition).or_default();
            if revised.overwritten > base || base >= version {
                let what = format_args!(
                    "dead letters looked for at version {base} are replayed in version {version}, after an overwrite \
                     in {}",
                    revised.overwritten
                );
                return Err(violation("I-3", what));
            }
            revised.filled = version;
            for place in places(range).filter(|(p, o)| records::is_rejected(scenario, *p, *o)) {
                if !self.replayed.insert(place) {
                    return Err(violation(
                        "I-3",
                        format_args!("the dead letter of {place:?} is replayed twice"),
                    ));
                }
                rows.push(place);
            }
        }
        Ok(rows)
    }

    /// What a live range says that it does not reject any more: no record that is still rejected, or its dead letter
    /// would never be replayed.
    pub(super) fn not_rejected(
        &self,
        scenario: &Scenario,
        replayed: &[OffsetRange],
    ) -> Result<(), Violation> {
        let mut all = replayed.iter().flat_map(places);
        match all.find(|(p, o)| records::is_rejected(scenario, *p, *o)) {
            None => Ok(()),
            Some(place) => {
                Err(violation("I-3", format_args!("{place:?} is rejected, and is said to be replayed")))
            }
        }
    }

    /// The rows of source files: each range begins where the one before ended.
    pub(super) fn import(
        &mut self,
        scenario: &Scenario,
        imported: &[SourceFileRange],
    ) -> Result<Vec<Place>, Violation> {
        let mut rows = Vec::new();
        for range in imported {
            let file = (0..records::SOURCES).find(|file| records::source(*file) == range.source);
            let file = file.ok_or_else(|| violation("I-3", "a source file is read in that nobody has"))?;
            let all = records::count_of_source(scenario, file);
            let held = self.imports.entry(file).or_default();
            if range.start != *held || range.end <= range.start || range.complete != (range.end == all) {
                let (start, end) = (range.start, range.end);
                let what = format_args!("records {start}..{end} of {all} of file {file} follow {held}");
                return Err(violation("I-3", what));
            }
            *held = range.end;
            rows.extend(records::places_of_source(file, range.start, range.end));
        }
        Ok(rows)
    }

    /// Rows of the ranges are those of their records, each once, wherever they lie; all others stay. So whatever came
    /// after the look of the overwrite is neither undone nor there beside it.
    pub(super) fn overwrite(
        &mut self,
        scenario: &Scenario,
        objects: &Objects,
        live: &BTreeSet<String>,
        anew: Anew<'_>,
    ) -> Result<(), Violation> {
        let Anew { version, base, ranges, rejected, before, after } = anew;
        for range in ranges {
            self.is_below(range)?;
            let revised = self.revised.entry(range.partition).or_default();
            if revised.filled > base || base >= version {
                let what = format_args!(
                    "version {version} overwrites what it looked at in version {base}; rows came in version {}",
                    revised.filled
                );
                return Err(violation("I-3", what));
            }
            (revised.filled, revised.overwritten) = (version, version);
        }
        let again: BTreeSet<Place> = ranges.iter().flat_map(places).collect();
        let others = |rows: Vec<Place>| {
            let mut others: Vec<Place> = rows.into_iter().filter(|place| !again.contains(place)).collect();
            others.sort_unstable();
            others
        };
        let (before, after) = (others(before), others(after));
        if before != after {
            let what =
                format_args!("an overwrite of {ranges:?} makes {after:?} of the other rows {before:?}");
            return Err(violation("I-1", what));
        }
        let mut found = Vec::new();
        for path in live {
            let rows = self.rows(objects, path)?;
            found.extend(rows.places.iter().copied().filter(|place| again.contains(place)));
        }
        let mut expected = self.records_of(scenario, ranges, false);
        found.sort_unstable();
        expected.sort_unstable();
        if found != expected {
            let what = format_args!("rows {found:?} are there after an overwrite, for {expected:?}");
            return Err(violation("I-3", what));
        }
        let all = self.records_of(scenario, ranges, true).len() as u64;
        if rejected != all {
            return Err(violation("I-3", format_args!("{rejected} rejected are counted, {all} were")));
        }
        // Rows that were too old are back until they leave again; rejected records are dead letters again.
        self.left_rows.retain(|place| !again.contains(place));
        self.replayed.retain(|place| !again.contains(place));
        Ok(())
    }

    fn is_below(&self, range: &OffsetRange) -> Result<(), Violation> {
        let next = self.next.get(&range.partition).copied().unwrap_or_default();
        if range.start < range.end && range.end <= next {
            return Ok(());
        }
        let (partition, start, end) = (range.partition, range.start, range.end);
        let what = format_args!("{start}..{end} of partition {partition} is named again, which is at {next}");
        Err(violation("I-3", what))
    }
}
