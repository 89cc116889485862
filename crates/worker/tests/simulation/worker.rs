//! One life of a worker: it consumes, commits, shows, compacts and cleans up, with the program's own code.
//!
//! What a broker's group would tell it, it takes from the world: which partitions it owns. It hears of that late, so
//! that it goes on for a while with partitions that others have taken over.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use siltstone_datafile::MemoryBudget;
use siltstone_lakehouse::{SourcePartition, TableStore};
use siltstone_protocol::{
    Change, ErrorKind, Field, OffsetRange, PrimitiveType, RejectReason, RejectedCount, Schema,
};
use siltstone_worker::{
    WorkerError,
    compactor::{Compactor, Owned, Pace, Share},
    flush::{FlushJob, Flushed, Flusher},
    identity::Identity,
    maintenance::Keeper,
    metrics::Metrics,
    projector::{Shown, project},
    table::Table,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    history::{self, Work},
    records,
    scenario::{CLUSTER, Mutation, SECRET, TOPIC},
    world::{Life, World, violation},
};

const MEMORY_BYTES: u64 = 1 << 30;
const FLUSH_BYTES: u64 = 1 << 20;

/// What a life is made of.
pub(crate) struct Parts {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
    lake: TableStore,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    budget: MemoryBudget,
    /// Never turns true: a life ends by a crash.
    stop: watch::Sender<bool>,
    /// What goes on beside consumption; `None`: nothing does.
    beside: Option<Weak<Mutex<JoinSet<()>>>>,
}

/// Lives until the life ends; a fault that passes begins it anew, as the program's supervisor does.
pub(crate) async fn live(world: Arc<World>, life: Arc<Life>) {
    loop {
        // Held here alone, so that all of it ends when this does.
        let beside = Arc::new(Mutex::new(JoinSet::new()));
        let parts = Parts::new(Arc::clone(&world), Arc::clone(&life), Some(Arc::downgrade(&beside)));
        let parts = Arc::new(parts);
        let mut source = match parts.open().await {
            Ok(flusher) => Source::new(Arc::clone(&parts), flusher),
            Err(error) => {
                parts.failed("open", &error);
                world.pause(0).await;
                continue;
            }
        };
        loop {
            world.pause(world.scenario.long_pauses).await;
            if let Err(error) = source.step().await {
                parts.failed("flush", &error);
                break;
            }
        }
        world.pause(0).await;
    }
}

impl Parts {
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>, beside: Option<Weak<Mutex<JoinSet<()>>>>) -> Self {
        let lake = world.lake(&life);
        let identity = Arc::new(Identity::new(lake.host.clone()));
        Self {
            lake,
            identity,
            metrics: Arc::default(),
            budget: MemoryBudget::new(MEMORY_BYTES),
            stop: watch::Sender::new(false),
            beside,
            world,
            life,
        }
    }

    /// A fault that passes is what a store does; any other is one of the program.
    pub(crate) fn failed(&self, what: &'static str, error: &WorkerError) {
        self.world.note(&self.life, what, "", error.kind().as_str());
        let text = error.to_string();
        if text.contains(SECRET) {
            self.world
                .check(Err(violation("I-5", format_args!("a value of a record is in an error: {text}"))));
        }
        if !error.kind().is_retryable() && error.kind() != ErrorKind::Fenced {
            self.world.check(Err(violation("error", format_args!("{what}: {text}"))));
        }
    }

    /// Opens the tables and begins everything that goes on beside consumption.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<Flusher, WorkerError> {
        let scenario = &self.world.scenario;
        let (id, now_ms) = (self.identity.commit_id(), self.identity.now_ms());
        let schema = scenario.schema.clone();
        let table = Table::open_or_create(&self.lake, &scenario.spec, schema, &id, now_ms).await?;
        let table = Arc::new(table);
        let letters = Table::open_dead_letters(&self.lake, &scenario.spec).await?.map(Arc::new);
        self.attend(&table).await;
        if let Some(letters) = &letters {
            self.attend(letters).await;
        }
        if self.life.slot < scenario.compactors {
            self.spawn(compact(Arc::clone(self), Arc::clone(&table)));
        }
        let history = [
            (Work::Replay, scenario.replayers),
            (Work::Import, scenario.importers),
            (Work::Overwrite, scenario.overwriters),
        ];
        for (work, _) in history.into_iter().filter(|(_, workers)| self.life.slot < *workers) {
            self.spawn(history::go_on(Arc::clone(self), Arc::clone(&table), work));
        }
        Ok(self.flusher(table, letters))
    }

    /// What commits to the table.
    pub(crate) fn flusher(self: &Arc<Self>, table: Arc<Table>, dead_letters: Option<Arc<Table>>) -> Flusher {
        let parts = Arc::downgrade(self);
        Flusher {
            spec: self.world.scenario.spec.clone(),
            lake: self.lake.clone(),
            table: Some(table),
            dead_letters,
            metrics: Arc::clone(&self.metrics),
            identity: Arc::clone(&self.identity),
            abandon: self.stop.subscribe(),
            on_dead_letters: Box::new(move |table| {
                let Some(parts) = parts.upgrade() else { return };
                let own = Arc::clone(&parts);
                parts.spawn(async move { own.attend(&table).await });
            }),
        }
    }

    /// Shows a table in its formats, and looks after it.
    async fn attend(self: &Arc<Self>, table: &Arc<Table>) {
        for projection in table.projections().await {
            let (shown, shows) = watch::channel(Shown::default());
            let metrics = Arc::clone(&self.metrics);
            let projecting = project(Arc::clone(table), projection, shown, metrics, self.stop.subscribe());
            let world = Arc::clone(&self.world);
            self.spawn(async move {
                projecting.await;
                let why = shows.borrow().stopped.clone();
                world.check(Err(violation("error", format_args!("a projection has stopped: {why:?}"))));
            });
        }
        if self.life.slot < self.world.scenario.janitors {
            self.spawn(keep(Arc::clone(self), Arc::clone(table)));
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(beside) = self.beside.as_ref().and_then(Weak::upgrade) {
            beside.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        }
    }

    pub(crate) fn keeper(&self, table: &Arc<Table>) -> Keeper {
        let identity = Arc::clone(&self.identity);
        Keeper::new(Arc::clone(table), &self.world.scenario.spec, identity, self.budget.clone())
    }

    pub(crate) fn compactor(&self, table: &Arc<Table>) -> Compactor {
        let (metrics, identity) = (Arc::clone(&self.metrics), Arc::clone(&self.identity));
        Compactor::new(Arc::clone(table), &self.world.scenario.spec, metrics, identity, self.budget.clone())
    }

    /// One round of compaction; false: nothing was left to do.
    pub(crate) async fn compact(
        &self,
        compactor: &mut Compactor,
        share: &Share,
    ) -> Result<bool, WorkerError> {
        let round = compactor.round(share, Pace::UNBOUNDED, &mut self.stop.subscribe(), &mut |_| {}).await?;
        if round.failed > 0 {
            self.world.check(Err(violation("I-1", "a rewrite failed for good")));
        }
        for _ in 0..round.committed {
            self.world.note(&self.life, "compacted", "", "");
        }
        for _ in 0..round.dropped {
            self.world.note(&self.life, "too late", "", "");
        }
        Ok(round.committed + round.dropped > 0)
    }

    pub(crate) async fn clean_up(&self, keeper: &mut Keeper) -> Result<bool, WorkerError> {
        let every = self.world.scenario.spec.maintenance_every.unwrap_or_default();
        let done = keeper.round(every, &self.metrics.maintenance).await?;
        self.world.note(&self.life, if done { "cleaned" } else { "left clean" }, "", "");
        Ok(done)
    }

    /// I-8.
    fn within_budget(&self) {
        if self.budget.used() > self.budget.limit() {
            self.world.check(Err(violation("I-8", "more memory is reserved than there is")));
        }
    }
}

async fn compact(parts: Arc<Parts>, table: Arc<Table>) {
    let scenario = &parts.world.scenario;
    let mut compactor = parts.compactor(&table);
    let owned = (0..scenario.partitions)
        .filter(|partition| *partition as usize % scenario.compactors == parts.life.slot);
    let own = Share::Of(Owned { partitions: owned.collect(), all: scenario.partitions as usize });
    loop {
        tokio::select! {
            biased;
            () = parts.world.together.notified() => {}
            () = parts.world.pause(scenario.long_pauses) => {}
        }
        // Now and then others take the same at the same time.
        let share = if parts.world.chance(50) {
            parts.world.together.notify_waiters();
            Share::All
        } else {
            own.clone()
        };
        if let Err(error) = parts.compact(&mut compactor, &share).await {
            parts.failed("compact", &error);
        }
        parts.within_budget();
    }
}

async fn keep(parts: Arc<Parts>, table: Arc<Table>) {
    let mut keeper = parts.keeper(&table);
    loop {
        parts.world.pause(40).await;
        if let Err(error) = parts.clean_up(&mut keeper).await {
            parts.failed("clean up", &error);
        }
    }
}

/// The consuming part: which offsets it has, and what it does with them.
pub(crate) struct Source {
    parts: Arc<Parts>,
    flusher: Flusher,
    /// The next offset of each partition that it believes to own.
    next: BTreeMap<i32, i64>,
}

impl Source {
    pub(crate) fn new(parts: Arc<Parts>, flusher: Flusher) -> Self {
        Self { parts, flusher, next: BTreeMap::new() }
    }

    /// Hears of the group, perhaps; consumes some records and commits them.
    async fn step(&mut self) -> Result<(), WorkerError> {
        let world = Arc::clone(&self.parts.world);
        if world.chance(20) {
            let partition = world.below(world.scenario.partitions as u64) as usize;
            world.state().owners[partition] = self.parts.life.slot;
        }
        let gained = (0..)
            .zip(&world.state().owners)
            .any(|(partition, slot)| *slot == self.parts.life.slot && !self.next.contains_key(&partition));
        // Who gains a partition begins at once; who loses one hears of it late.
        if gained || world.chance(20) {
            let owners = world.state().owners.clone();
            let owned = (0..).zip(&owners).filter(|(_, slot)| **slot == self.parts.life.slot);
            self.own(owned.map(|(partition, _)| partition).collect()).await?;
        }
        if world.chance(world.scenario.grows) {
            self.grow().await?;
        }
        self.consume(world.scenario.flush_max).await.map(drop)
    }

    /// A column more.
    async fn grow(&mut self) -> Result<(), WorkerError> {
        let mut schema = self.schema().await;
        schema.schema_id += 1;
        let id = schema.last_field_id() + 1;
        schema.fields.push(Field::optional(id, format!("c{id}"), PrimitiveType::String.into()));
        match self.flusher.commit_change(Change::SetSchema { schema }).await {
            Ok(ended) => {
                let outcome = if matches!(ended, Flushed::Committed { .. }) { "" } else { "refused" };
                self.parts.world.note(&self.parts.life, "grow", "", outcome);
                Ok(())
            }
            // Another worker was first.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The present schema, as far as it is known here.
    async fn schema(&self) -> Schema {
        match &self.flusher.table {
            Some(table) => table.state.lock().await.schema.clone(),
            None => self.parts.world.scenario.schema.clone(),
        }
    }

    /// Owns these partitions from now on; new ones are begun at the ledger.
    pub(crate) async fn own(&mut self, partitions: Vec<i32>) -> Result<(), WorkerError> {
        self.next.retain(|partition, _| partitions.contains(partition));
        let fresh: Vec<i32> =
            partitions.into_iter().filter(|partition| !self.next.contains_key(partition)).collect();
        self.begin_at_ledger(fresh).await
    }

    async fn begin_at_ledger(&mut self, partitions: Vec<i32>) -> Result<(), WorkerError> {
        let Some(table) = self.flusher.table.clone().filter(|_| !partitions.is_empty()) else {
            return Ok(());
        };
        let mut state = table.state.lock().await;
        let followed = table.ledger.follow(&mut state, self.parts.identity.now_ms()).await;
        followed.map_err(WorkerError::from)?;
        for partition in partitions {
            let source = SourcePartition { cluster: CLUSTER.into(), topic: TOPIC.into(), partition };
            self.next.insert(partition, state.next_offset(&source).unwrap_or(0));
        }
        Ok(())
    }

    /// Consumes up to so many records of each partition and flushes them. False: there was nothing.
    pub(crate) async fn consume(&mut self, most: i64) -> Result<bool, WorkerError> {
        let world = Arc::clone(&self.parts.world);
        let scenario = &world.scenario;
        let mut ranges = Vec::new();
        for (partition, next) in &self.next {
            let end = (next + 1 + world.below(most as u64) as i64).min(scenario.records);
            if *next < end && (ranges.is_empty() || world.chance(80)) {
                ranges.push(range(*partition, *next, end));
            }
        }
        if ranges.is_empty() {
            return Ok(false);
        }
        match self.flush(&ranges, &ranges).await? {
            Flushed::Committed { .. } => {
                for range in &ranges {
                    self.next.insert(range.partition, range.end);
                }
            }
            Flushed::Fenced => {
                world.note(&self.parts.life, "fenced", "", "");
                let all = self.next.keys().copied().collect();
                self.begin_at_ledger(all).await?;
                if world.mutated(Mutation::RefusalIgnored) {
                    self.flush_again(&ranges).await?;
                }
            }
            Flushed::Early | Flushed::Abandoned => {
                world.check(Err(violation("error", "a flush was given up")));
            }
        }
        Ok(true)
    }

    /// Commits the rows of some ranges as those of others, which must be the same.
    async fn flush(&mut self, read: &[OffsetRange], told: &[OffsetRange]) -> Result<Flushed, WorkerError> {
        let world = Arc::clone(&self.parts.world);
        let scenario = &world.scenario;
        let places = |rejected| -> Vec<(i32, i64)> {
            let of = |range: &OffsetRange| {
                records::offsets(scenario, range.partition, range.start, range.end, rejected)
            };
            read.iter().flat_map(of).collect()
        };
        let (rows, rejected) = (places(false), places(true));
        let schema = self.schema().await;
        let memory = self.parts.budget.reserve(FLUSH_BYTES).await;
        self.parts.within_budget();
        let count = RejectedCount { reason: RejectReason::BadFraming, records: rejected.len() as u64 };
        let job = FlushJob {
            schema: (!rows.is_empty()).then(|| Arc::new(schema.clone())),
            batches: records::rows(scenario, &schema, &rows),
            dead_letters: records::letters(&rejected, self.parts.identity.now_ms()),
            ranges: told.to_vec(),
            rejected: if rejected.is_empty() { Vec::new() } else { vec![count] },
            memory: Some(memory),
        };
        self.flusher.flush(job).await
    }

    /// The fault of a worker that keeps its buffer over a refusal.
    async fn flush_again(&mut self, refused: &[OffsetRange]) -> Result<(), WorkerError> {
        let told: Vec<OffsetRange> = refused
            .iter()
            .map(|old| {
                let next = self.next[&old.partition];
                range(old.partition, next, next + old.end - old.start)
            })
            .collect();
        self.flush(refused, &told).await.map(drop)
    }
}

pub(crate) fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange { cluster: CLUSTER.into(), topic: TOPIC.into(), partition, start, end, lost: false }
}
