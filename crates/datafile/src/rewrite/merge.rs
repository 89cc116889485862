//! The merge: runs in, windows of sorted rows out.
//!
//! Every run has a *frontier*: no row of it that is still unread has a lesser key. It is the last key read,
//! or what a row group's statistics say before any of it is read; so a run whose turn is far is not opened.
//!
//! 1. The run of the least frontier is read on, until enough rows are there. Memory grows by the one batch
//!    that holds everything else up, and by no other.
//! 2. Rows up to the least frontier of all are a window: sorted together, they go out. Sorting beats merging
//!    row by row here: a window spans few keys, so its packed words are short, and no branch is guessed
//!    wrong.
//! 3. When the run of the least frontier is before a row group that no other run reaches into, the row group
//!    goes out as it is.
//!
//! A window whose first key is below the last one written shows a run that is not in order: that is an
//! error, never an unsorted file (I-2).

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::{
    keys::Keys,
    run::{FileRun, Run},
    window::Window,
};
use crate::error::{DataFileError, Result};

/// Takes what a merge puts out.
pub(super) trait Emit {
    fn window(&mut self, window: &Window) -> Result<()>;

    /// Whether the row group ahead may be copied as it is.
    fn takes(&self, _run: &FileRun, _group: usize) -> bool {
        false
    }

    /// Copies the row group ahead. `keys`: of its first and last row.
    fn splice(&mut self, _run: &FileRun, _group: usize, _keys: (Vec<u8>, Vec<u8>)) -> Result<()> {
        Err(DataFileError::compute("copying a row group"))
    }
}

/// How much is held and put out at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows of a window, about.
    pub(super) window_rows: usize,
    /// Bytes of all rows held.
    pub(super) bytes: usize,
}

struct Loaded {
    batch: RecordBatch,
    keys: Vec<ArrayRef>,
    /// Rows before this one are out.
    start: usize,
    last: Vec<u8>,
    bytes: usize,
}

struct Source {
    run: Run,
    loaded: VecDeque<Loaded>,
    /// `None`: everything is read.
    frontier: Option<Vec<u8>>,
}

/// Merges runs, each in the order of `keys`.
pub(super) struct Merge<'a> {
    sources: Vec<Source>,
    keys: &'a Keys,
    limits: Limits,
    rows: usize,
    bytes: usize,
    /// The last key that went out.
    written: Vec<u8>,
    /// For keys while searching.
    scratch: Vec<u8>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(runs: Vec<Run>, keys: &'a Keys, limits: Limits) -> Self {
        let sources = runs.into_iter().map(|run| {
            let frontier = (run.rows_left() > 0).then(|| ahead(&run).unwrap_or_default());
            Source { run, loaded: VecDeque::new(), frontier }
        });
        let (written, scratch) = (Vec::new(), Vec::new());
        Self { sources: sources.collect(), keys, limits, rows: 0, bytes: 0, written, scratch }
    }

    /// Puts out every row. Returns the runs, all read.
    pub(super) fn run(mut self, emit: &mut dyn Emit) -> Result<()> {
        loop {
            while self.wants_more() {
                let Some(least) = self.least() else { break };
                if !self.splice(least, emit)? {
                    self.load(least)?;
                }
            }
            let boundary = self.least().and_then(|least| self.sources[least].frontier.clone());
            if self.put_out(boundary.as_deref(), emit)? == 0 {
                // Nothing lies below the boundary yet: the run that holds it up must come first.
                match self.least() {
                    Some(least) => self.load(least)?,
                    None => return Ok(()),
                }
            }
        }
    }

    fn wants_more(&self) -> bool {
        let open = self.sources.iter().filter(|source| !source.loaded.is_empty()).count();
        // Each run holds about half a batch that lies above the boundary.
        let above = open * (self.rows / self.batches().max(1)) / 2;
        self.bytes < self.limits.bytes && self.rows < self.limits.window_rows + above
    }

    fn batches(&self) -> usize {
        self.sources.iter().map(|source| source.loaded.len()).sum()
    }

    /// The run of the least frontier.
    fn least(&self) -> Option<usize> {
        let open = self.sources.iter().enumerate();
        let open = open.filter_map(|(number, source)| Some((source.frontier.as_deref()?, number)));
        open.min().map(|(_, number)| number)
    }

    /// Reads one batch of a run and moves its frontier.
    fn load(&mut self, number: usize) -> Result<()> {
        let source = &mut self.sources[number];
        let Some(batch) = source.run.next()? else {
            source.frontier = None;
            return Ok(());
        };
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let keys = self.keys.arrays(&batch)?;
        let mut last = Vec::new();
        self.keys.write(&mut last, &keys, batch.num_rows() - 1)?;
        source.frontier = (source.run.rows_left() > 0).then(|| match ahead(&source.run) {
            Some(ahead) => ahead.max(last.clone()),
            None => last.clone(),
        });
        let bytes = match source.run {
            Run::File(_) => batch.get_array_memory_size(),
            // All columns are parts of one allocation, which would count once for each.
            Run::Spill(_) => batch.columns().iter().map(slice_bytes).sum(),
        };
        self.rows += batch.num_rows();
        self.bytes += bytes;
        source.loaded.push_back(Loaded { batch, keys, start: 0, last, bytes });
        Ok(())
    }

    /// Puts out all loaded rows up to a key; all there are without one. Returns how many.
    fn put_out(&mut self, boundary: Option<&[u8]>, emit: &mut dyn Emit) -> Result<usize> {
        let mut parts = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for source in &mut self.sources {
            while let Some(loaded) = source.loaded.front_mut() {
                let end = match boundary {
                    Some(boundary) if loaded.last.as_slice() > boundary => {
                        search(loaded, boundary, self.keys, &mut self.scratch)?
                    }
                    _ => loaded.batch.num_rows(),
                };
                let length = end - loaded.start;
                if length > 0 {
                    let keys = loaded.keys.iter().map(|key| key.slice(loaded.start, length)).collect();
                    parts.push((loaded.batch.slice(loaded.start, length), keys));
                    rows += length;
                    bytes += loaded.bytes * length / loaded.batch.num_rows();
                    loaded.start = end;
                }
                if end < loaded.batch.num_rows() {
                    break;
                }
                self.bytes -= loaded.bytes;
                source.loaded.pop_front();
            }
        }
        self.rows -= rows;
        if rows > 0 {
            let window = Window::new(parts, bytes, self.keys)?;
            self.check_order(&window.key(0)?)?;
            self.written = window.key(rows - 1)?;
            emit.window(&window)?;
        }
        Ok(rows)
    }

    /// I-2: what comes next is not below what is written.
    fn check_order(&self, first: &[u8]) -> Result<()> {
        if first >= self.written.as_slice() {
            return Ok(());
        }
        let path = self.sources.first().map_or("", |source| source.run.path());
        Err(DataFileError::corrupt(path, "its rows, or those of another input, are not in their sort order"))
    }

    /// Copies the row group ahead of a run when nothing else lies between its keys.
    fn splice(&mut self, number: usize, emit: &mut dyn Emit) -> Result<bool> {
        let Run::File(run) = &self.sources[number].run else { return Ok(false) };
        let Some(group) = run.group_ahead().filter(|group| emit.takes(run, *group)) else {
            return Ok(false);
        };
        let Some((lower, upper)) = run.bounds_of(group).cloned() else { return Ok(false) };
        let lower = lower.max(self.sources[number].frontier.clone().unwrap_or_default());
        let beyond = |(other, source): (usize, &Source)| {
            other == number || source.frontier.as_ref().is_none_or(|frontier| *frontier >= upper)
        };
        if !self.sources.iter().enumerate().all(beyond) {
            return Ok(false);
        }
        for source in &self.sources {
            for loaded in source.loaded.iter().filter(|loaded| loaded.last > lower) {
                let from = search(loaded, &lower, self.keys, &mut self.scratch)?;
                self.keys.write(&mut self.scratch, &loaded.keys, from)?;
                if self.scratch < upper {
                    return Ok(false);
                }
            }
        }
        self.put_out(Some(&lower), emit)?;
        let Run::File(run) = &mut self.sources[number].run else { return Ok(false) };
        let (first, last) = run.edge_keys(group, self.keys)?;
        if first < self.written || last < first {
            let fault = "its rows are not in their sort order";
            return Err(DataFileError::corrupt(&run.input.input.entry.path, fault));
        }
        emit.splice(run, group, (first, last.clone()))?;
        run.skip_group();
        let source = &mut self.sources[number];
        source.frontier = (source.run.rows_left() > 0).then(|| match ahead(&source.run) {
            Some(ahead) => ahead.max(last.clone()),
            None => last.clone(),
        });
        self.written = last;
        Ok(true)
    }
}

/// Bytes of an array's own part of its buffers.
fn slice_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// What the statistics say of the row group ahead of a run.
fn ahead(run: &Run) -> Option<Vec<u8>> {
    let Run::File(run) = run else { return None };
    let (lower, _) = run.bounds_of(run.group_ahead()?)?;
    Some(lower.clone())
}

/// The first row, not before `start`, whose key is above the boundary.
fn search(loaded: &Loaded, boundary: &[u8], keys: &Keys, scratch: &mut Vec<u8>) -> Result<usize> {
    let (mut low, mut high) = (loaded.start, loaded.batch.num_rows());
    while low < high {
        let middle = low + (high - low) / 2;
        keys.write(scratch, &loaded.keys, middle)?;
        if scratch.as_slice() <= boundary {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
