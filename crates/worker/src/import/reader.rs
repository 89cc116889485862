//! Threads that read files side by side, and what they hand over.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use arrow::array::RecordBatch;
use object_store::ObjectStore;
use siltstone_datafile::MemoryBudget;
use siltstone_ingest::{SchemaRegistry, decoder::FileTable, files::Packing};
use siltstone_protocol::{RejectReason, Schema, SchemaHistory};
use siltstone_spec::TableSpec;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Import, input::PIECE_BYTES, list::SourceFile, plan::Task, progress::ImportProgress, records::Reading,
};
use crate::{error::WorkerError, identity::Identity};

/// What reading a file holds beside what it must hold of the file at once: two pieces of it, and two batches of rows.
pub(super) const FILE_BYTES_BESIDE: u64 = 2 * PIECE_BYTES + 8 * (1 << 20);
/// What is reserved for a file at first: a block, a line or a window takes the rest.
pub(super) const FILE_BYTES_MIN: u64 = FILE_BYTES_BESIDE + 4 * (1 << 20);
/// One part of so many of all memory is for what is being read.
pub(super) const READERS_SHARE: u64 = 4;

/// The table that rows are read for.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) schema: Arc<Schema>,
    pub(super) names: Arc<SchemaHistory>,
    pub(super) token_key: Arc<[u8; 32]>,
}

/// What a reader hands over.
pub(super) enum Event {
    Rows(Rows),
    /// There are no records at and after this one.
    End {
        file: usize,
        at: u64,
    },
    /// The file cannot be read on.
    Failed {
        file: usize,
        why: String,
    },
    /// No table is made of the file. The one that another makes may take it.
    Unfit {
        file: usize,
        why: String,
    },
    /// Nothing can be read on.
    Fatal(WorkerError),
    /// The table must become this; the answer is what it is then. `None`: it cannot.
    Wants {
        schema: Schema,
        answer: oneshot::Sender<Option<Known>>,
    },
}

/// Records `[start, end)` of a file.
pub(super) struct Rows {
    pub(super) file: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) batch: Option<RecordBatch>,
    pub(super) dead_letters: Vec<RecordBatch>,
    pub(super) rejected: BTreeMap<RejectReason, u64>,
}

/// What all threads of a round share.
pub(super) struct Shared {
    pub(super) spec: TableSpec,
    pub(super) table: FileTable,
    pub(super) registry: Option<Arc<dyn SchemaRegistry>>,
    pub(super) source: Arc<dyn ObjectStore>,
    pub(super) listed: Arc<Vec<SourceFile>>,
    pub(super) packing: Packing,
    pub(super) identity: Arc<Identity>,
    pub(super) progress: Arc<ImportProgress>,
    pub(super) budget: MemoryBudget,
    pub(super) handle: Handle,
    tasks: Mutex<VecDeque<Task>>,
    known: Mutex<Option<Known>>,
}

impl Shared {
    fn of(import: &Import, tasks: Vec<Task>, known: Option<Known>, budget: MemoryBudget) -> Arc<Self> {
        Arc::new(Self {
            spec: import.spec.clone(),
            table: import.table.clone(),
            registry: import.registry.clone(),
            source: Arc::clone(&import.source),
            listed: Arc::clone(&import.listed),
            packing: import.options.packing,
            identity: Arc::clone(&import.identity),
            progress: Arc::clone(&import.progress),
            budget,
            handle: Handle::current(),
            tasks: Mutex::new(tasks.into()),
            known: Mutex::new(known),
        })
    }

    pub(super) fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_known(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    fn next(&self) -> Option<Task> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// The threads of a round.
pub(super) struct Readers {
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts to read. `known`: the table, if it exists.
    pub(super) fn start(
        import: &Import,
        tasks: Vec<Task>,
        known: Option<Known>,
        budget: MemoryBudget,
    ) -> (Self, mpsc::Receiver<Event>) {
        let room = usize::try_from(budget.limit() / FILE_BYTES_MIN).unwrap_or(usize::MAX);
        let threads = import.options.parallel.min(room).min(tasks.len()).max(1);
        let shared = Shared::of(import, tasks, known, budget);
        let (sender, receiver) = mpsc::channel(1);
        let thread = |_| {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            tokio::task::spawn_blocking(move || work(&shared, &sender))
        };
        (Self { threads: (0..threads).map(thread).collect() }, receiver)
    }

    /// Starts to look for the first of these files that tells the columns of a table, which it then asks for.
    pub(super) fn found(
        import: &Import,
        tasks: Vec<Task>,
        budget: MemoryBudget,
    ) -> (Self, mpsc::Receiver<Event>) {
        let shared = Shared::of(import, tasks, None, budget);
        let (sender, receiver) = mpsc::channel(1);
        let look = move || {
            let mut reading = Reading::new(&shared, &sender);
            while let Some(task) = shared.next() {
                if !reading.found(task) {
                    return;
                }
            }
        };
        (Self { threads: vec![tokio::task::spawn_blocking(look)] }, receiver)
    }

    /// Waits until all have ended.
    pub(super) async fn join(self) {
        for thread in self.threads {
            // One that panicked has said so, and the writer misses the end of its file.
            let _ = thread.await;
        }
    }
}

/// Reads one file after the other, until there is none or nobody takes what is read.
fn work(shared: &Arc<Shared>, events: &mpsc::Sender<Event>) {
    let mut reading = Reading::new(shared, events);
    while let Some(task) = shared.next() {
        if !reading.file(task) {
            return;
        }
    }
}
