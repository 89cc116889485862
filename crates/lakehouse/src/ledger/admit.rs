//! Whether a change fits a state: pure. What the state needs to be whole ([`fits`]) is asked at commit and at replay
//! alike. By what it was made of, its look or its ids, a change is judged once, before it is committed ([`admit`]).
//!
//! | change | fits when |
//! | --- | --- |
//! | append, live range | it starts at the partition's position, or the partition has none |
//! | append, backfill range | it lies wholly in a hole below the position |
//! | append, lost range | it starts at the position, which moves and leaves a hole |
//! | append, empty range | it is the position, or the first one |
//! | append, all ranges covered | it is already so: its files are orphans |
//! | append, replayed range | it is covered, no offset of it was replayed, and nothing was overwritten since the look; |
//! | | or it is part of a range of offsets that come now |
//! | append, source file | it starts at the record where what is held of the file ends |
//! | overwrite | every removed file is live; its ranges lie below the position, and no row came there since the look; |
//! | | if it has ranges, no absorb came since either; what it says is replayed is part of them |
//! | replace | every removed file is live; the number of rows stays (I-1) |
//! | delete | every removed file is live; what is added in their place has fewer rows |
//! | absorb | every removed file is live; the format showed its last absorb when it was looked at |
//! | set schema | its id is new, and no id of a dropped column comes back; known and the same it is already so |
//! | set spec, order | its id is new, or it is known and the same |
//! | reset positions | each range starts at the present position; it ends at the new one |

use std::collections::{BTreeMap, HashSet};

use siltstone_protocol::{
    Change, ErrorCode, ErrorKind, FileEntry, Format, OffsetRange, Schema, SourceFileRange,
};

use super::{
    again,
    coverage::Coverage,
    imports::{Fit, Import, SOURCE_FILES_MAX},
    state::{LedgerState, SourcePartition},
};
use crate::error::LakeError;

/// Files that one entry may name: bounds an entry's size.
pub const FILES_PER_ENTRY_MAX: usize = 50_000;
/// Replayed ranges, or ranges of source files, that one entry may name.
pub const RANGES_PER_ENTRY_MAX: usize = 100_000;

/// The answer to a change that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    /// What the change asks for is already so: there is nothing to commit.
    AlreadySo,
}

/// Whether a change may be committed.
pub(super) fn admit(state: &LedgerState, change: &Change) -> Result<Admission, LakeError> {
    let fit = fits(state, change);
    let is_wrong = fit.as_ref().is_err_and(|error| error.kind() == ErrorKind::Invalid);
    if is_wrong || matches!(fit, Ok(Admission::AlreadySo)) {
        return fit;
    }
    again::looked(state, change)?;
    match change {
        Change::Absorb { format, base, .. } => not_before_the_last(state, *format, *base)?,
        Change::SetSchema { schema } if fit.is_ok() => no_dropped_ids(state, schema)?,
        _ => {}
    }
    fit
}

/// Whether the state is whole after a change.
pub(super) fn fits(state: &LedgerState, change: &Change) -> Result<Admission, LakeError> {
    match change {
        Change::Create { .. } => Err(conflict(state, "the table exists".to_owned())),
        Change::Append { files, ranges, rejected, replayed, imported, .. } => {
            let admission = match (ranges.is_empty(), replayed.is_empty(), imported.is_empty()) {
                (_, true, true) => append(state, files, ranges, files.is_empty() && rejected.is_empty()),
                (true, false, true) => again::replay(state, replayed),
                (false, false, true) => {
                    again::of_its_ranges(state, replayed, ranges)?;
                    append(state, files, ranges, files.is_empty() && rejected.is_empty())
                }
                (true, true, false) => import(state, imported),
                _ => Err(invalid(
                    state,
                    "an append is of offsets, or of dead letters, or of files; of files it is alone",
                )),
            }?;
            // What was committed before names its files again.
            if admission == Admission::Admitted {
                all_new(state, files)?;
            }
            Ok(admission)
        }
        Change::Overwrite { removed, added, ranges, replayed, .. } => {
            again::of_its_ranges(state, replayed, ranges)?;
            again::overwrite(state, removed, added, ranges)
        }
        Change::Replace { removed, added, .. } => replace(state, removed, added),
        Change::Delete { removed, added } => delete(state, removed, added),
        Change::Absorb { removed, added, absorbed, same_rows, .. } => {
            absorb(state, removed, added, absorbed.len(), *same_rows)
        }
        Change::SetSchema { schema } => match state.schemas.get(&schema.schema_id) {
            // Taken once: going back to it would undo what came after.
            Some(known) if known == schema => Ok(Admission::AlreadySo),
            Some(_) => Err(conflict(state, format!("schema {} is another one already", schema.schema_id))),
            None => unique_ids(state, schema),
        },
        Change::SetPartitionSpec { partition_spec } => {
            match state.partition_specs.get(&partition_spec.spec_id) {
                Some(_) if *partition_spec == state.partition_spec => Ok(Admission::AlreadySo),
                Some(known) if known != partition_spec => Err(conflict(
                    state,
                    format!("partition spec {} is another one already", partition_spec.spec_id),
                )),
                _ => Ok(Admission::Admitted),
            }
        }
        Change::SetSortOrder { sort_order } => match state.sort_orders.get(&sort_order.order_id) {
            Some(_) if *sort_order == state.sort_order => Ok(Admission::AlreadySo),
            Some(known) if known != sort_order => {
                Err(conflict(state, format!("sort order {} is another one already", sort_order.order_id)))
            }
            _ => Ok(Admission::Admitted),
        },
        Change::SetFormats { formats } if formats.is_empty() => {
            Err(invalid(state, "a table has at least one format"))
        }
        Change::SetFormats { formats } if *formats == state.formats => Ok(Admission::AlreadySo),
        Change::SetFormats { .. } => Ok(Admission::Admitted),
        Change::ResetPositions { ranges } => reset(state, ranges),
        other => {
            Err(invalid(state, format_args!("changes of kind {} are newer than this program", other.kind())))
        }
    }
}

/// Applies one range of an append to its partition's coverage; false when it does not fit.
pub(super) fn cover(coverage: &mut Coverage, range: &OffsetRange) -> bool {
    if range.lost { coverage.skip(range.start, range.end) } else { coverage.commit(range.start, range.end) }
}

fn append(
    state: &LedgerState,
    files: &[FileEntry],
    ranges: &[OffsetRange],
    positions_only: bool,
) -> Result<Admission, LakeError> {
    well_formed(state, ranges)?;
    let mut moving = ranges.iter().filter(|range| range.start < range.end).peekable();
    let moves = moving.peek().is_some();
    if moves && moving.all(|range| already_so(state, range)) {
        return Ok(Admission::AlreadySo);
    }
    if !moves && !files.is_empty() {
        return Err(invalid(state, "an append of files names the offsets they hold"));
    }
    let mut scratch: BTreeMap<SourcePartition, Coverage> = BTreeMap::new();
    let mut changed = !positions_only;
    for range in ranges {
        let key = SourcePartition::of(range);
        let coverage =
            scratch.entry(key).or_insert_with_key(|key| state.coverage.get(key).cloned().unwrap_or_default());
        let next = coverage.next();
        if !cover(coverage, range) {
            return Err(fenced(state, range, next));
        }
        changed |= coverage.next() != next || range.start < range.end;
    }
    Ok(if changed { Admission::Admitted } else { Admission::AlreadySo })
}

/// True when a range's offsets are committed, or lost and passed.
fn already_so(state: &LedgerState, range: &OffsetRange) -> bool {
    state.coverage.get(&SourcePartition::of(range)).is_some_and(|coverage| {
        if range.lost {
            coverage.next().is_some_and(|next| next >= range.end)
        } else {
            coverage.covers(range.start, range.end)
        }
    })
}

fn import(state: &LedgerState, imported: &[SourceFileRange]) -> Result<Admission, LakeError> {
    not_too_many(state, imported.len())?;
    let mut known: BTreeMap<&str, Import> = BTreeMap::new();
    let (mut refused, mut new) = (Vec::new(), 0);
    for range in imported {
        let held = known.get(range.source.as_str()).or(state.imports.get(&range.source)).copied();
        match held.unwrap_or_default().with(range) {
            Ok(import) => {
                new += usize::from(held.is_none());
                known.insert(&range.source, import);
            }
            Err(fit) => refused.push((range, fit)),
        }
    }
    let Some((range, _)) = refused.iter().find(|(_, fit)| *fit == Fit::Never).or(refused.first()) else {
        if state.imports.len() + new > SOURCE_FILES_MAX {
            let problem = format_args!("a table remembers at most {SOURCE_FILES_MAX} source files");
            return Err(invalid(state, problem).coded(ErrorCode::ChangeTooLarge));
        }
        return Ok(Admission::Admitted);
    };
    if refused.len() == imported.len() && refused.iter().all(|(_, fit)| *fit == Fit::AlreadySo) {
        return Ok(Admission::AlreadySo);
    }
    let problem = format!(
        "records {}..{} of source file {} were read in by others",
        range.start, range.end, range.source
    );
    Err(conflict(state, problem))
}

pub(super) fn not_too_many(state: &LedgerState, ranges: usize) -> Result<(), LakeError> {
    if ranges <= RANGES_PER_ENTRY_MAX {
        return Ok(());
    }
    let problem = format_args!("a change names at most {RANGES_PER_ENTRY_MAX} ranges, not {ranges}");
    Err(invalid(state, problem).coded(ErrorCode::ChangeTooLarge))
}

fn not_too_many_files(state: &LedgerState, does: &str, files: usize) -> Result<(), LakeError> {
    if files <= FILES_PER_ENTRY_MAX {
        return Ok(());
    }
    let problem = format_args!("a change {does} at most {FILES_PER_ENTRY_MAX} files, not {files}");
    Err(invalid(state, problem).coded(ErrorCode::ChangeTooLarge))
}

fn replace(state: &LedgerState, removed: &[String], added: &[FileEntry]) -> Result<Admission, LakeError> {
    let rows_removed = all_live(state, removed)?;
    all_new(state, added)?;
    let rows_added: u64 = added.iter().map(|file| file.rows).sum();
    if rows_removed != rows_added {
        return Err(invalid(
            state,
            format_args!(
                "a replace keeps every row (I-1), but {rows_removed} rows leave and {rows_added} come"
            ),
        ));
    }
    Ok(Admission::Admitted)
}

fn delete(state: &LedgerState, removed: &[String], added: &[FileEntry]) -> Result<Admission, LakeError> {
    let rows_removed = all_live(state, removed)?;
    all_new(state, added)?;
    let rows_added: u64 = added.iter().map(|file| file.rows).sum();
    if !added.is_empty() && rows_added >= rows_removed {
        let problem =
            format_args!("a delete takes rows away, but {rows_removed} rows leave and {rows_added} come");
        return Err(invalid(state, problem));
    }
    Ok(Admission::Admitted)
}

/// Two workers may take in the same files of another program, and with nothing removed both would fit. So the
/// second one is refused: its look at the format did not see what the first one did.
fn not_before_the_last(state: &LedgerState, format: Format, base: u64) -> Result<(), LakeError> {
    if base > state.version {
        return Err(invalid(state, format_args!("an absorb looked at version {base}, which is not there")));
    }
    match state.absorbs.get(&format) {
        Some(last) if base < last.version => Err(conflict(
            state,
            format!("{} was looked at before version {}, which changed it", format.as_str(), last.version),
        )),
        _ => Ok(()),
    }
}

fn absorb(
    state: &LedgerState,
    removed: &[String],
    added: &[FileEntry],
    absorbed: usize,
    same_rows: bool,
) -> Result<Admission, LakeError> {
    let rows_removed = if removed.is_empty() { 0 } else { all_live(state, removed)? };
    all_new(state, added)?;
    let rows_added: u64 = added.iter().map(|file| file.rows).sum();
    if same_rows && rows_removed != rows_added {
        let problem = format_args!("the same rows are not {rows_removed} rows and {rows_added} rows");
        return Err(invalid(state, problem));
    }
    not_too_many_files(state, "takes in", absorbed)?;
    Ok(Admission::Admitted)
}

fn reset(state: &LedgerState, ranges: &[OffsetRange]) -> Result<Admission, LakeError> {
    let mut seen = HashSet::new();
    for range in ranges {
        let key = SourcePartition::of(range);
        let next = state.next_offset(&key);
        if range.start < 0 || range.end < 0 || !seen.insert(key) {
            return Err(invalid(state, "a reset names each partition once, with offsets from 0"));
        }
        if next.is_some_and(|next| next != range.start) {
            return Err(fenced(state, range, next));
        }
    }
    Ok(if ranges.is_empty() { Admission::AlreadySo } else { Admission::Admitted })
}

fn well_formed(state: &LedgerState, ranges: &[OffsetRange]) -> Result<(), LakeError> {
    match ranges.iter().find(|range| range.start < 0 || range.end < range.start) {
        None => Ok(()),
        Some(range) => Err(invalid(
            state,
            format_args!(
                "offsets {}..{} of {}/{}/{} are no range",
                range.start, range.end, range.cluster, range.topic, range.partition
            ),
        )),
    }
}

/// Every path is live and named once; their rows.
pub(super) fn all_live(state: &LedgerState, removed: &[String]) -> Result<u64, LakeError> {
    if removed.is_empty() {
        return Err(invalid(state, "a change that removes files names some"));
    }
    not_too_many_files(state, "removes", removed.len())?;
    let mut seen = HashSet::with_capacity(removed.len());
    let mut rows = 0;
    for path in removed {
        if !seen.insert(path) {
            return Err(invalid(state, format_args!("file {path} is removed twice")));
        }
        let Some(file) = state.live_files.get(path) else {
            return Err(conflict(state, format!("file {path} is not live any more")));
        };
        rows += file.rows;
    }
    Ok(rows)
}

/// Every file is new, below `data/`, and names ids that the table knows.
pub(super) fn all_new(state: &LedgerState, files: &[FileEntry]) -> Result<(), LakeError> {
    not_too_many_files(state, "adds", files.len())?;
    let mut seen = HashSet::with_capacity(files.len());
    for file in files {
        let path = &file.path;
        let name = path.strip_prefix("data/").unwrap_or_default();
        if name.is_empty() || name.contains('/') || name.starts_with(['.', '_']) {
            return Err(invalid(state, format_args!("file {path} is not data/<name>")));
        }
        if state.live_files.contains_key(path) || !seen.insert(path) {
            return Err(invalid(state, format_args!("file {path} is added twice")));
        }
        let sorted = file.sort_order_id == 0 || state.sort_orders.contains_key(&file.sort_order_id);
        let known =
            state.schemas.contains_key(&file.schema_id) && state.partition_specs.contains_key(&file.spec_id);
        if !sorted || !known {
            return Err(invalid(
                state,
                format_args!(
                    "file {path} names a schema, partition spec or sort order that the ledger does not know"
                ),
            ));
        }
    }
    Ok(())
}

fn unique_ids(state: &LedgerState, schema: &Schema) -> Result<Admission, LakeError> {
    let (mut seen, mut unique) = (HashSet::new(), true);
    schema.visit(&mut |id| unique &= id > 0 && seen.insert(id));
    if !unique {
        return Err(invalid(state, format_args!("schema {} uses a field id twice", schema.schema_id)));
    }
    Ok(Admission::Admitted)
}

fn no_dropped_ids(state: &LedgerState, schema: &Schema) -> Result<(), LakeError> {
    let (mut named, mut present) = (HashSet::new(), HashSet::new());
    schema.visit(&mut |id| {
        named.insert(id);
    });
    state.schema.visit(&mut |id| {
        present.insert(id);
    });
    let last = state.schema_history().last_field_id();
    if let Some(id) = named.iter().find(|id| **id <= last && !present.contains(id)) {
        let problem = format_args!("schema {} uses id {id} of a column that was dropped", schema.schema_id);
        return Err(invalid(state, problem));
    }
    Ok(())
}

fn fenced(state: &LedgerState, range: &OffsetRange, next: Option<i64>) -> LakeError {
    LakeError::Fenced {
        table: state.name.clone(),
        version: state.version,
        cluster: range.cluster.clone(),
        topic: range.topic.clone(),
        partition: range.partition,
        start: range.start,
        end: range.end,
        next,
    }
}

pub(super) fn conflict(state: &LedgerState, problem: String) -> LakeError {
    LakeError::Conflict { table: state.name.clone(), version: state.version, problem }
}

pub(super) fn invalid(state: &LedgerState, problem: impl std::fmt::Display) -> LakeError {
    LakeError::invalid(format_args!("table {}: version {}", state.name, state.version), problem)
}
