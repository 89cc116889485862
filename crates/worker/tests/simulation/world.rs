//! One world: objects, a clock, a seed, and everything that happened.
//!
//! All of it runs on one thread under a clock that moves when nothing else can. An operation of the store takes
//! effect at one instant, and is checked at that instant: what the world knows is never behind.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::DefaultHasher},
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use object_store::path::Path;
use rand::{Rng, SeedableRng, rngs::StdRng};
use siltstone_datafile::{Host, Machine};
use siltstone_lakehouse::TableStore;
use tokio::{sync::Notify, time::Instant};

use crate::{
    model::Model,
    objects::Objects,
    records::BEGIN_MS,
    scenario::{Faults, Mutation, ROOT, ROOT_URL, Scenario},
    store::Handle,
};

/// Steps shown with a violation, unless more are asked for.
const STEPS_SHOWN: usize = 60;
/// What a healthy worker needs for all that is left, at most.
const OPERATIONS_TO_FINISH: u64 = 20_000;

/// What must not be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `I-1` to `I-9`, or what else went wrong.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) fn violation(invariant: &'static str, what: impl fmt::Display) -> Violation {
    Violation { invariant, what: what.to_string() }
}

/// One life of a worker: from its start to its crash. What it has begun ends with it.
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) slot: usize,
    alive: AtomicBool,
}

impl Life {
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
}

/// One step of the trace.
struct Step {
    at_ms: i64,
    life: u32,
    what: &'static str,
    path: String,
    outcome: &'static str,
    /// Of the trace up to here.
    hash: u64,
}

/// How often what happened: that a simulation goes where it should.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

pub(crate) struct State {
    pub(crate) objects: Objects,
    pub(crate) model: Model,
    pub(crate) rng: StdRng,
    pub(crate) faults: Faults,
    pub(crate) latency_ms: u64,
    /// By life: until when it is refused everything.
    pub(crate) outages: BTreeMap<u32, i64>,
    pub(crate) operations: u64,
    /// Which worker owns each partition of the topic.
    pub(crate) owners: Vec<usize>,
    pub(crate) counts: Counts,
    /// By task: conditional puts whose outcome it does not know and has not asked for, by folder.
    pub(crate) unknown: HashMap<String, BTreeMap<String, String>>,
    /// By life: objects that it has read.
    pub(crate) known: HashSet<(u32, String)>,
    pub(crate) violation: Option<Violation>,
    finished: bool,
    lives: u32,
    hash: DefaultHasher,
    steps: VecDeque<Step>,
    steps_shown: usize,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    state: Mutex<State>,
    /// A life ended, or all is over.
    pub(crate) changed: Notify,
    /// Compactors begin at once.
    pub(crate) together: Notify,
    begin: Instant,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let owners = (0..scenario.partitions).map(|_| rng.random_range(0..scenario.workers)).collect();
        let state = State {
            objects: Objects::new(scenario.mutation),
            model: Model::new(&scenario),
            rng,
            faults: scenario.faults,
            latency_ms: scenario.latency_ms,
            outages: BTreeMap::new(),
            operations: 0,
            owners,
            counts: Counts::default(),
            unknown: HashMap::new(),
            known: HashSet::new(),
            violation: None,
            finished: false,
            lives: 0,
            hash: DefaultHasher::new(),
            steps: VecDeque::new(),
            steps_shown: crate::number("SILTSTONE_SIM_STEPS").map_or(STEPS_SHOWN, |count| count as usize),
        };
        Arc::new(Self {
            scenario,
            state: Mutex::new(state),
            changed: Notify::new(),
            together: Notify::new(),
            begin: Instant::now(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        BEGIN_MS + i64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }

    pub(crate) fn chance(&self, of_100: u32) -> bool {
        self.state().rng.random_range(0..100) < of_100
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.state().rng.random_range(0..end) }
    }

    /// A worker begins.
    pub(crate) fn begin(&self, slot: usize) -> Arc<Life> {
        let mut state = self.state();
        state.lives += 1;
        Arc::new(Life { number: state.lives, slot, alive: AtomicBool::new(true) })
    }

    /// A worker crashes: nothing that it began goes on.
    pub(crate) fn end(&self, life: &Life) {
        life.alive.store(false, Ordering::SeqCst);
        self.note(life, "crash", "", "");
        self.changed.notify_one();
    }

    pub(crate) fn finish(&self) {
        self.state().finished = true;
        self.changed.notify_one();
    }

    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.finished || state.violation.is_some()
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.faults, state.latency_ms) = (Faults::NONE, 0);
        state.outages.clear();
    }

    pub(crate) fn check(&self, checked: Result<(), Violation>) {
        if let Err(found) = checked {
            self.state().violation.get_or_insert(found);
            self.changed.notify_one();
        }
    }

    /// Tells what happened; it goes into the hash of the trace.
    pub(crate) fn note(&self, life: &Life, what: &'static str, path: &str, outcome: &'static str) {
        self.note_bytes(life, what, path, outcome, &[]);
    }

    pub(crate) fn note_bytes(
        &self,
        life: &Life,
        what: &'static str,
        path: &str,
        outcome: &'static str,
        bytes: &[u8],
    ) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        (at_ms, life.number, what, path, outcome, bytes.len()).hash(&mut state.hash);
        // The Avro writer of manifest lists draws a marker of its own.
        if !path.contains("/metadata/snap-") {
            bytes.hash(&mut state.hash);
        }
        state.counts.add(what);
        let (path, hash) = (path.to_owned(), state.hash.finish());
        state.steps.push_back(Step { at_ms, life: life.number, what, path, outcome, hash });
        if state.steps.len() > state.steps_shown {
            state.steps.pop_front();
        }
    }

    /// The hash of everything that happened.
    pub(crate) fn hash(&self) -> u64 {
        self.state().hash.finish()
    }

    /// The last steps, a line each.
    pub(crate) fn steps(&self) -> String {
        let state = self.state();
        let line = |step: &Step| {
            let Step { at_ms, life, what, path, outcome, hash } = step;
            format!(
                "  {:>12} ms  life {life:<3} {what:<12} {path} {outcome} #{:04x}\n",
                at_ms - BEGIN_MS,
                hash & 0xffff
            )
        };
        state.steps.iter().map(line).collect()
    }

    /// The bucket as a life sees it, with its clock and its names.
    pub(crate) fn lake(self: &Arc<Self>, life: &Arc<Life>) -> TableStore {
        let handle = Arc::new(Handle::new(Arc::clone(self), Arc::clone(life)));
        let url = url::Url::parse(ROOT_URL).unwrap();
        let mut lake = TableStore::new(handle, Path::from(ROOT), url);
        let skew_ms = self.scenario.skew_ms.get(life.slot).copied().unwrap_or(0);
        lake.host = Host::simulated(Arc::new(Clockwork { world: Arc::clone(self), skew_ms }));
        lake.checkpoint_every = Some(self.scenario.checkpoint_every);
        lake
    }

    /// What a worker does between two things: nothing, for a while that may be days.
    pub(crate) async fn pause(&self, long: u32) {
        let ms = {
            let mut state = self.state();
            state.operations += 1;
            let rng = &mut state.rng;
            if rng.random_range(0..100) < long {
                [120_000, 3_600_000, 20 * 3_600_000, 60 * 3_600_000][rng.random_range(0..4)]
            } else {
                [0, 10, 1_000, 40_000][rng.random_range(0..4)]
            }
        };
        if ms == 0 {
            tokio::task::yield_now().await;
        } else {
            let ms = ms / 2 + self.below(ms / 2);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.budget();
    }

    /// Ends the time of faults when enough was done; afterwards all must come to an end.
    pub(crate) fn budget(&self) {
        let (done, finished) = {
            let state = self.state();
            (state.operations, state.finished)
        };
        if done >= self.scenario.operations && !finished {
            self.finish();
        }
        if done >= self.scenario.operations + OPERATIONS_TO_FINISH {
            self.check(Err(violation("progress", "the seed does not come to an end")));
        }
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.scenario.mutation == Some(mutation)
    }
}

/// The machine of a life.
struct Clockwork {
    world: Arc<World>,
    skew_ms: i64,
}

impl Machine for Clockwork {
    fn now_ms(&self) -> i64 {
        self.world.now_ms() + self.skew_ms
    }

    fn random(&self) -> u128 {
        self.world.state().rng.random()
    }
}
