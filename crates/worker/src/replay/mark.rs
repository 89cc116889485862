//! Marks dead letters that the table's ledger has as replayed: their files are rewritten with `replayed_at` set. Where
//! it has them as replayed no more, for their records were rejected again, the mark goes.
//!
//! Nothing depends on a mark but what people see. So a file that others took meanwhile is looked at again, a few times,
//! and then left to the next run.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray},
    datatypes::TimestampMicrosecondType,
};
use futures::TryStreamExt;
use siltstone_datafile::{Layout, WrittenFile, read_batches, write_sorted};
use siltstone_ingest::dead_letter::REPLAYED_AT;
use siltstone_lakehouse::{LedgerState, crash_point};
use siltstone_protocol::{Change, FileEntry};

use super::{
    Replay,
    plan::{Sources, is_replayed},
    survey::{Places, places_schema},
};
use crate::{
    commit::{self, Landed},
    dead_letters::columns_are_off,
    error::{ForTable, WorkerError},
};

/// Looks at the files that are not marked yet.
const LOOKS_MAX: usize = 10;
/// Files that one entry rewrites at most, and bytes of files after which it is closed.
const ENTRY_FILES_MAX: usize = 64;
const ENTRY_BYTES_MAX: u64 = 4 << 30;
/// Rows are written when they hold this part of the budget: 1 over so much.
const ROWS_SHARE: u64 = 4;

/// Marks what is to be marked; how many letters that was.
pub(super) async fn mark(replay: &Replay<'_>) -> Result<u64, WorkerError> {
    let mut marker = Marker { replay, sources: Sources::new(replay.spec), done: HashSet::new(), marked: 0 };
    for _ in 0..LOOKS_MAX {
        if marker.round().await? {
            return Ok(marker.marked);
        }
    }
    tracing::warn!(
        table = %replay.letters.name,
        "others keep rewriting the dead letters: not all that were replayed are marked, the next run goes on"
    );
    Ok(marker.marked)
}

struct Marker<'a> {
    replay: &'a Replay<'a>,
    sources: Sources,
    /// Files in which nothing is left to mark.
    done: HashSet<String>,
    marked: u64,
}

impl Marker<'_> {
    /// True when nothing is left.
    async fn round(&mut self) -> Result<bool, WorkerError> {
        let letters = &self.replay.letters;
        // What was replayed by now; the letters are not fewer afterwards.
        let main = self.replay.main.refresh().await?;
        let state = letters.refresh().await?;
        let (mut batch, mut bytes, mut whole) = (Vec::new(), 0, true);
        for entry in state.live_files.values() {
            if self.done.contains(&entry.path) {
                continue;
            }
            if !self.is_due(entry, &state, &main).await? {
                self.done.insert(entry.path.clone());
                continue;
            }
            bytes += entry.bytes;
            batch.push(entry.clone());
            if batch.len() >= ENTRY_FILES_MAX || bytes >= ENTRY_BYTES_MAX {
                whole &= self.rewrite(std::mem::take(&mut batch), &main).await?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            whole &= self.rewrite(batch, &main).await?;
        }
        Ok(whole)
    }

    /// True when a file holds letters whose mark is not what the ledger says.
    async fn is_due(
        &mut self,
        entry: &FileEntry,
        state: &LedgerState,
        main: &LedgerState,
    ) -> Result<bool, WorkerError> {
        let letters = &self.replay.letters;
        let schema = places_schema(&state.schema);
        let batches = read_batches(&letters.store, &letters.location, entry, &schema).await;
        let mut batches = batches.for_table(&letters.name)?;
        while let Some(batch) = batches.try_next().await.for_table(&letters.name)? {
            let places = Places::of(&batch).ok_or_else(|| columns_are_off(letters))?;
            let sources = &mut self.sources;
            if (0..batch.num_rows()).any(|row| is_to_be_marked(&places, row, main, sources)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rewrites these files and commits them as one entry. False: others took one of them first.
    async fn rewrite(&mut self, files: Vec<FileEntry>, main: &LedgerState) -> Result<bool, WorkerError> {
        let letters = Arc::clone(&self.replay.letters);
        let (base, schema) = {
            let state = letters.state.lock().await;
            (state.version, Arc::new(state.schema.clone()))
        };
        let layout = letters.layout(Arc::clone(&schema)).await;
        let room = usize::try_from(self.replay.budget.limit() / ROWS_SHARE).unwrap_or(usize::MAX);
        let now_us = self.replay.identity.now_ms().saturating_mul(1000);
        let (mut added, mut marked) = (Vec::new(), 0);
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for entry in &files {
            let rows = read_batches(&letters.store, &letters.location, entry, &schema).await;
            let mut rows = rows.for_table(&letters.name)?;
            while let Some(batch) = rows.try_next().await.for_table(&letters.name)? {
                let batch = with_marks(&batch, main, &mut self.sources, now_us);
                let (batch, count) = batch.ok_or_else(|| columns_are_off(&letters))?;
                marked += count;
                bytes += batch.get_array_memory_size();
                batches.push(batch);
                if bytes >= room {
                    self.write(std::mem::take(&mut batches), &layout, &mut added).await?;
                    bytes = 0;
                }
            }
        }
        self.write(batches, &layout, &mut added).await?;
        crash_point!("replay.marks_written");
        for file in &added {
            letters.details.insert(file.details.clone());
        }
        let change = Change::Overwrite {
            removed: files.into_iter().map(|file| file.path).collect(),
            added: added.iter().map(|file| file.entry.clone()).collect(),
            ranges: Vec::new(),
            replayed: Vec::new(),
            base,
            rejected: Vec::new(),
        };
        let id = self.replay.identity.commit_id();
        match commit::commit(&letters, change, &id, "replay_marks", self.replay.patience()).await? {
            Landed::At(_) => {
                crash_point!("replay.marked");
                self.marked += marked;
                self.done.extend(added.into_iter().map(|file| file.entry.path));
                Ok(true)
            }
            Landed::AlreadySo => Ok(true),
            Landed::Stopped => {
                tracing::warn!(table = %letters.name, "stopped: not all that were replayed are marked, the next run goes on");
                Ok(true)
            }
            Landed::Refused(error) => {
                tracing::info!(table = %letters.name, %error, "dead letters were rewritten by others, looking again");
                Ok(false)
            }
        }
    }

    async fn write(
        &self,
        batches: Vec<RecordBatch>,
        layout: &Layout,
        added: &mut Vec<WrittenFile>,
    ) -> Result<(), WorkerError> {
        let letters = &self.replay.letters;
        let written = write_sorted(batches, layout, &letters.store, &letters.location).await;
        added.extend(written.for_table(&letters.name)?);
        Ok(())
    }
}

/// True when the mark of a letter is not what the ledger says.
fn is_to_be_marked(places: &Places<'_>, row: usize, main: &LedgerState, sources: &mut Sources) -> bool {
    places.is_marked(row) != is_replayed_at(places, row, main, sources)
}

fn is_replayed_at(places: &Places<'_>, row: usize, main: &LedgerState, sources: &mut Sources) -> bool {
    let place = places.place(row, sources);
    sources.at(place.source).is_some_and(|source| is_replayed(main, source, place.offset))
}

/// The batch with those letters marked that the ledger has as replayed, and no others; how many marks came.
fn with_marks(
    batch: &RecordBatch,
    main: &LedgerState,
    sources: &mut Sources,
    now_us: i64,
) -> Option<(RecordBatch, u64)> {
    let places = Places::of(batch)?;
    let index = batch.schema_ref().index_of(REPLAYED_AT).ok()?;
    let marks = batch.column(index).as_primitive_opt::<TimestampMicrosecondType>()?;
    let mut count = 0;
    let mut mark = |row: usize| {
        if !is_replayed_at(&places, row, main, sources) {
            return None;
        }
        if marks.is_valid(row) {
            return Some(marks.value(row));
        }
        count += 1;
        Some(now_us)
    };
    let marked: TimestampMicrosecondArray = (0..batch.num_rows()).map(&mut mark).collect();
    let mut columns = batch.columns().to_vec();
    columns[index] = Arc::new(marked.with_data_type(marks.data_type().clone()));
    Some((RecordBatch::try_new(batch.schema(), columns).ok()?, count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use siltstone_ingest::{Headers, Record, dead_letter::DeadLetters};
    use siltstone_protocol::RejectReason;

    use super::{
        super::plan::tests::{spec, state},
        *,
    };

    #[tokio::test]
    async fn marks_follow_the_ledger() {
        let mut letters = DeadLetters::new("lab", "t").unwrap();
        for offset in 0..5 {
            let (key, value, headers) = (None, Some(&b"x"[..]), Headers::empty());
            let record = Record { partition: 0, offset, timestamp_ms: None, key, value, headers };
            assert!(letters.push(&record, RejectReason::Malformed, None, 0));
        }
        let batch = letters.finish().unwrap().unwrap();
        let marks = |batch: &RecordBatch| -> Vec<Option<i64>> {
            let marks = batch.column_by_name(REPLAYED_AT).unwrap();
            marks.as_primitive::<TimestampMicrosecondType>().iter().collect()
        };
        let mut sources = Sources::new(&spec());
        let (batch, count) = with_marks(&batch, &state(&[(1, 3)]).await, &mut sources, 7).unwrap();
        assert_eq!((marks(&batch), count), (vec![None, Some(7), Some(7), None, None], 2));
        // Of another table's ledger, or after its range was ingested anew: 1 is open again, 2 was marked before.
        let other = state(&[(2, 4)]).await;
        let places = Places::of(&batch).unwrap();
        let due: Vec<_> = (0..5).filter(|row| is_to_be_marked(&places, *row, &other, &mut sources)).collect();
        assert_eq!(due, [1, 3]);
        let (batch, count) = with_marks(&batch, &other, &mut sources, 9).unwrap();
        assert_eq!((marks(&batch), count), (vec![None, None, Some(7), Some(9), None], 1));
    }
}
