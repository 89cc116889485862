//! A seed from its beginning to its end.
//!
//! 1. Faults: workers live and crash until the topic is consumed or enough was done.
//! 2. Healing: all of them crash, and what is on its way lands. Nothing fails any more.
//! 3. One worker does what is left, history too, shows it, compacts, and days later cleans up.
//! 4. The end is compared with what the topic held.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use object_store::{PutOptions, path::Path};
use siltstone_lakehouse::SourcePartition;
use siltstone_worker::{WorkerError, compactor::Share, projector::catch_up_all, table::Table};
use tokio::task::JoinHandle;

use crate::{
    cleanup,
    files::Place,
    history::{History, Work},
    records,
    scenario::{CLUSTER, Mutation, ROOT, Scenario, TOPIC},
    worker::{Parts, Source, live},
    world::{Counts, Life, Violation, World, violation},
};

/// No seed takes longer, by the simulation's clock.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);
const ROUNDS_MAX: usize = 60;
const COMPACTIONS_MAX: usize = 1;

/// What came of a seed.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// Of everything that happened, in order.
    pub(crate) hash: u64,
    pub(crate) steps: String,
    pub(crate) counts: Counts,
}

pub(crate) fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(Scenario::of(seed, mutation));
        keys(&world);
        if tokio::time::timeout(LONGEST, whole(&world)).await.is_err() {
            world.check(Err(violation("progress", "the seed does not come to an end")));
        }
        let violation = world.state().violation.clone();
        let counts = world.state().counts.clone();
        Outcome { violation, hash: world.hash(), steps: world.steps(), counts }
    })
}

/// Keys of tables are the one thing that is drawn from the system: they are there before.
fn keys(world: &World) {
    let spec = &world.scenario.spec;
    for name in [spec.name.clone(), spec.dead_letter_name()] {
        let path = Path::from(format!("{ROOT}/{}/_siltstone/token.key", name.replace('.', "/")));
        let put = world.state().objects.put(&path, vec![7; 32].into(), PutOptions::default(), world.now_ms());
        put.unwrap();
    }
}

async fn whole(world: &Arc<World>) {
    faults(world).await;
    if world.state().violation.is_some() {
        return;
    }
    world.heal();
    // Whatever is on its way lands.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let life = world.begin(0);
    let parts = Arc::new(Parts::new(Arc::clone(world), life, None));
    match finish(&parts).await {
        Ok(()) => {}
        Err(error) => {
            parts.failed("finish", &error);
            world.check(Err(violation("progress", format_args!("a healthy worker failed: {error}"))));
        }
    }
}

/// A worker that lives: its life, and the task that ends with it.
struct Alive {
    life: Arc<Life>,
    task: JoinHandle<()>,
}

impl Alive {
    fn begin(world: &Arc<World>, slot: usize, after: Duration) -> Self {
        let life = world.begin(slot);
        let (own, world) = (Arc::clone(&life), Arc::clone(world));
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            live(world, own).await;
        });
        Self { life, task }
    }
}

async fn faults(world: &Arc<World>) {
    let slots = 0..world.scenario.workers;
    let mut alive: Vec<Alive> = slots.map(|slot| Alive::begin(world, slot, Duration::ZERO)).collect();
    while !world.is_over() {
        world.changed.notified().await;
        for worker in &mut alive {
            if !worker.life.is_alive() {
                worker.task.abort();
                let after = Duration::from_millis(world.below(20_000));
                *worker = Alive::begin(world, worker.life.slot, after);
            }
        }
    }
    for worker in alive {
        world.end(&worker.life);
        worker.task.abort();
    }
}

/// Everything that is left, without faults.
async fn finish(parts: &Arc<Parts>) -> Result<(), WorkerError> {
    let scenario = &parts.world.scenario;
    let flusher = parts.open().await?;
    let table = flusher.table.clone().unwrap();
    let mut source = Source::new(Arc::clone(parts), flusher);
    source.own((0..scenario.partitions).collect()).await?;
    for _ in 0..ROUNDS_MAX {
        if !source.consume(scenario.flush_max).await? {
            break;
        }
    }
    history(parts, &table).await?;
    let mut tables = vec![table];
    tables.extend(
        Table::open_dead_letters(&parts.world.lake(&parts.life), &scenario.spec).await?.map(Arc::new),
    );
    show(&tables).await?;
    let mut compactor = parts.compactor(&tables[0]);
    for _ in 0..COMPACTIONS_MAX {
        if !parts.compact(&mut compactor, &Share::All).await? {
            break;
        }
    }
    show(&tables).await?;
    parts.world.check(all_rows(&parts.world));
    // Files of rows that leave in one round are deleted in a later one.
    for _ in 0..if scenario.rows_leave { 2 } else { 1 } {
        tokio::time::sleep(Duration::from_secs(4 * 24 * 3600)).await;
        for table in &tables {
            parts.clean_up(&mut parts.keeper(table)).await?;
        }
        show(&tables).await?;
    }
    parts.world.check(all_rows(&parts.world));
    parts.world.check(nothing_left(&parts.world));
    for table in &tables {
        same_state(&parts.world, table).await?;
    }
    Ok(())
}

/// Source files to their ends, all ranges anew, then every dead letter.
async fn history(parts: &Arc<Parts>, table: &Arc<Table>) -> Result<(), WorkerError> {
    let scenario = &parts.world.scenario;
    let of = |work| History::new(Arc::clone(parts), Arc::clone(table), work);
    if scenario.importers > 0 {
        to_the_end(of(Work::Import)).await?;
    }
    if scenario.overwriters > 0 {
        of(Work::Overwrite).step(true).await?;
    }
    if scenario.replayers > 0 {
        to_the_end(of(Work::Replay)).await?;
    }
    Ok(())
}

async fn to_the_end(mut history: History) -> Result<(), WorkerError> {
    for _ in 0..ROUNDS_MAX {
        if !history.step(true).await? {
            break;
        }
    }
    Ok(())
}

async fn show(tables: &[Arc<Table>]) -> Result<(), WorkerError> {
    for table in tables {
        catch_up_all(table).await?;
    }
    Ok(())
}

/// I-3 at the end: every record of the topic is a row or a dead letter, once, or both when it was replayed; every
/// record of a source file is a row, once; every form shows all of it.
fn all_rows(world: &World) -> Result<(), Violation> {
    let mut state = world.state();
    let scenario = &world.scenario;
    let state = &mut *state;
    for dead_letters in [false, true] {
        let mut expected = Vec::new();
        for partition in 0..scenario.partitions {
            expected.extend(records::offsets(scenario, partition, 0, scenario.records, dead_letters));
            if !dead_letters && scenario.replayers > 0 {
                expected.extend(records::offsets(scenario, partition, 0, scenario.records, true));
            }
        }
        if !dead_letters && scenario.importers > 0 {
            for file in 0..records::SOURCES {
                let all = records::count_of_source(scenario, file);
                expected.extend(records::places_of_source(file, 0, all));
            }
        }
        let live = state.model.table(dead_letters).live();
        let table = state.model.table_mut(dead_letters);
        let mut found: Vec<_> = table.left_rows.iter().copied().collect();
        for path in &live {
            found.extend(table.rows(&state.objects, path)?.places.iter().copied());
        }
        found.sort_unstable();
        expected.sort_unstable();
        if found != expected {
            let what = format_args!(
                "dead letters {dead_letters}: {found:?} is in the table, {expected:?} was consumed"
            );
            return Err(violation("I-3", what));
        }
        let newest = table.newest().map(|version| version.entry.version);
        if newest.is_some() && table.shown_by_all().is_none() {
            return Err(violation("I-4", "a form of the table does not show it"));
        }
    }
    Ok(())
}

/// Nothing stays for ever: every data file that is there is named.
fn nothing_left(world: &World) -> Result<(), Violation> {
    let state = world.state();
    for dead_letters in [false, true] {
        let table = state.model.table(dead_letters);
        let folder = table.path("data/");
        let files: BTreeSet<&str> =
            state.objects.names(&folder).filter(|path| path.ends_with(".parquet")).collect();
        for file in files {
            let below = &file[table.location.len()..];
            if cleanup::named(table, below, world.now_ms()).is_none() {
                return Err(violation("clean-up", format_args!("{file} is nobody's and stays")));
            }
        }
    }
    Ok(())
}

/// What a worker that starts now finds is what was committed.
async fn same_state(world: &World, table: &Table) -> Result<(), WorkerError> {
    let found = table.ledger.load().await.map_err(WorkerError::from)?;
    let dead_letters = table.name != world.scenario.spec.name;
    let state = world.state();
    let model = state.model.table(dead_letters);
    let Some(found) = found else {
        drop(state);
        world.check(Err(violation("I-9", "the ledger is gone")));
        return Ok(());
    };
    let live: BTreeSet<String> = found.live_files.values().map(|file| file.path.clone()).collect();
    let next = |partition: &i32| {
        let source = SourcePartition { cluster: CLUSTER.into(), topic: TOPIC.into(), partition: *partition };
        found.next_offset(&source)
    };
    let newest = model.newest().map(|version| version.entry.version);
    let imported: BTreeMap<u64, u64> = (0..records::SOURCES)
        .filter_map(|file| Some((file, found.imports.get(&records::source(file))?.records)))
        .collect();
    let replayed = |place: &Place| {
        let source = SourcePartition { cluster: CLUSTER.into(), topic: TOPIC.into(), partition: place.0 };
        found.replayed.get(&source).is_some_and(|held| held.covers(place.1, place.1 + 1))
    };
    let same = Some(found.version) == newest
        && live == model.live()
        && model.imports == imported
        && model.replayed.iter().all(replayed)
        && model.next.iter().all(|(partition, offset)| next(partition) == Some(*offset));
    drop(state);
    world.check(if same {
        Ok(())
    } else {
        Err(violation("I-3", "a fresh look at the ledger sees another state"))
    });
    Ok(())
}
