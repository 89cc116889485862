//! Where the open dead letters are: a look at the places alone, not at the records.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Int32Type, Int64Type},
};
use futures::TryStreamExt;
use siltstone_datafile::read_batches;
use siltstone_ingest::dead_letter::REPLAYED_AT;
use siltstone_lakehouse::LedgerState;
use siltstone_protocol::{FileEntry, Schema};

use super::{
    Selection,
    plan::{Covered, Fate, Letter, Nearest, Place, Sources, is_replayed},
};
use crate::{
    dead_letters::columns_are_off,
    error::{ForTable, WorkerError},
    table::Table,
};

/// Letters of one survey: memory is some bytes for each, and every file's places are read once for so many.
const SURVEY_LETTERS_MAX: usize = 1_000_000;
/// What is read of a letter to know its place.
const PLACE_COLUMNS: [&str; 6] = ["cluster", "topic", "partition", "offset", "reason", REPLAYED_AT];

/// First and last offset of open letters, by source.
pub(super) type Spans = BTreeMap<u32, (i64, i64)>;

/// What was found.
pub(super) struct Survey {
    /// The table's version before the look: what came since may have made rows of these letters.
    pub(super) base: u64,
    /// What the table covered before the look: letters of other offsets may have come since.
    pub(super) coverage: Covered,
    /// In order; each place once.
    pub(super) letters: Vec<Letter>,
    /// The files looked at that hold open letters, and where.
    pub(super) files: Vec<(FileEntry, Spans)>,
    /// Where the next survey begins.
    pub(super) more: Option<Place>,
    /// Open letters among these that are not tried.
    pub(super) left: u64,
}

/// Looks for open letters from this place on.
pub(super) async fn survey(
    letters: &Table,
    state: &LedgerState,
    main: &LedgerState,
    sources: &mut Sources,
    selection: &Selection,
    from: Place,
) -> Result<Survey, WorkerError> {
    let schema = places_schema(&state.schema);
    let mut nearest = Nearest::new(SURVEY_LETTERS_MAX);
    let mut files = Vec::new();
    for entry in state.live_files.values() {
        let mut spans = Spans::new();
        let mut batches =
            read_batches(&letters.store, &letters.location, entry, &schema).await.for_table(&letters.name)?;
        while let Some(batch) = batches.try_next().await.for_table(&letters.name)? {
            let places = Places::of(&batch).ok_or_else(|| columns_are_off(letters))?;
            for row in 0..batch.num_rows() {
                let place = places.place(row, sources);
                let replayed = sources.at(place.source).is_some_and(|at| is_replayed(main, at, place.offset));
                if place < from || replayed {
                    continue;
                }
                let wanted = selects(selection, &places, row) && sources.is_readable(place.source);
                nearest.add(Letter { place, fate: if wanted { Fate::Wanted } else { Fate::Open } });
                let span = spans.entry(place.source).or_insert((place.offset, place.offset));
                *span = (span.0.min(place.offset), span.1.max(place.offset));
            }
        }
        if !spans.is_empty() {
            files.push((entry.clone(), spans));
        }
    }
    let (mut found, more) = nearest.finish();
    for letter in &mut found {
        // What the table did not commit is still being read.
        let committed = sources.at(letter.place.source).and_then(|source| main.coverage.get(source));
        let end = letter.place.offset.saturating_add(1);
        if !committed.is_some_and(|coverage| coverage.covers(letter.place.offset, end)) {
            letter.fate = Fate::Open;
        }
    }
    let left = found.iter().filter(|letter| letter.fate == Fate::Open).count() as u64;
    let (base, coverage) = (main.version, main.coverage.clone());
    Ok(Survey { base, coverage, letters: found, files, more, left })
}

fn selects(selection: &Selection, places: &Places<'_>, row: usize) -> bool {
    let (partition, offset) = (places.partition.value(row), places.offset.value(row));
    selection.partition.is_none_or(|wanted| wanted == partition)
        && selection.from.is_none_or(|from| from <= offset)
        && selection.to.is_none_or(|to| offset < to)
        && selection.reason.is_none_or(|reason| reason.as_str() == places.reason.value(row))
}

/// The columns of a dead-letter table that tell a letter's place.
pub(super) fn places_schema(schema: &Schema) -> Schema {
    let is_wanted = |name: &str| PLACE_COLUMNS.contains(&name);
    let fields = schema.fields.iter().filter(|field| is_wanted(&field.name)).cloned();
    Schema::new(schema.schema_id, fields.collect())
}

/// The places of the letters of a batch.
pub(super) struct Places<'a> {
    pub(super) cluster: &'a StringArray,
    pub(super) topic: &'a StringArray,
    pub(super) partition: &'a Int32Array,
    pub(super) offset: &'a Int64Array,
    pub(super) reason: &'a StringArray,
    /// `None`: the table is of an older program, and no letter of it was ever marked.
    replayed_at: Option<&'a dyn Array>,
}

impl<'a> Places<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            cluster: batch.column_by_name("cluster")?.as_string_opt()?,
            topic: batch.column_by_name("topic")?.as_string_opt()?,
            partition: batch.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?,
            offset: batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?,
            reason: batch.column_by_name("reason")?.as_string_opt()?,
            replayed_at: batch.column_by_name(REPLAYED_AT).map(AsRef::as_ref),
        })
    }

    /// What people see. Which letters are open is said by the table's ledger alone.
    pub(super) fn is_marked(&self, row: usize) -> bool {
        self.replayed_at.is_some_and(|at| at.is_valid(row))
    }

    /// The place of a row whose source was met before.
    pub(super) fn known(&self, row: usize, sources: &Sources) -> Option<Place> {
        let (cluster, topic) = (self.cluster.value(row), self.topic.value(row));
        let source = sources.known(cluster, topic, self.partition.value(row))?;
        Some(Place { source, offset: self.offset.value(row) })
    }

    pub(super) fn place(&self, row: usize, sources: &mut Sources) -> Place {
        let (cluster, topic) = (self.cluster.value(row), self.topic.value(row));
        let source = sources.number(cluster, topic, self.partition.value(row));
        Place { source, offset: self.offset.value(row) }
    }
}
