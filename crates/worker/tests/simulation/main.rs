//! The whole commit path under faults, from seeds.
//!
//! Workers, compactors and janitors of the program's own code share one store, on one thread, under a clock that the
//! simulation moves. The store is slow and fails as stores do; a worker crashes at any of its operations, before or
//! after. Everything that is drawn comes from the seed, so a seed that fails fails again.
//!
//! | real | stands in |
//! | --- | --- |
//! | flusher, dead letters, ledger, both projections, compactor, janitor | a group that hands partitions over, instead of Kafka's |
//! | what a replay, an import and a reset commit | [`history`]: what they read, and their looks at the table |
//! | Parquet files, sorted and rewritten | a handful of rows each; encoding is done in place |
//! | names, ids, jitter, time | taken from the seed and the clock by [`siltstone_datafile::Host`] |
//! | | [`store`]: an object store in memory with dates, faults and crashes |
//!
//! [`model`] reads every object as it is put, by other code than the program's, and checks the invariants of
//! `crates/README.md` at that instant. Absent: Delta checkpoints, which another crate makes on threads of its
//! own; other programs on the table.
//!
//! `SILTSTONE_SIM_SEED=<seed>` runs one seed and shows its steps; `SILTSTONE_SIM_SEEDS=<count>` runs so many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod cleanup;
mod delta;
mod files;
mod history;
mod iceberg;
mod model;
mod objects;
mod records;
mod run;
mod scenario;
mod store;
mod worker;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use run::{Outcome, run};
use scenario::Mutation;
use world::Counts;

const SEEDS: u64 = 10_000;
/// Seeds run a second time.
const SEEDS_TWICE: u64 = 32;
/// With so many seeds, each of these must have happened.
const SEEDS_TO_GO_EVERYWHERE: u64 = 1_000;
const EVERYWHERE: [&str; 10] = [
    "crash",
    "lands",
    "fenced",
    "compacted",
    "cleaned",
    "delete",
    "grow",
    "replayed",
    "imported",
    "overwritten",
];
/// A fault of the program is found within so many seeds.
const SEEDS_TO_FIND: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What a person needs to see of a violation.
fn report(seed: u64, outcome: &Outcome) -> String {
    let Some(found) = &outcome.violation else {
        return format!("seed {seed} holds; its last steps:\n{}", outcome.steps);
    };
    format!(
        "seed {seed} violates {}: {}\nits last steps:\n{}replay it: SILTSTONE_SIM_SEED={seed} cargo test --workspace \
         --features siltstone-cli/failpoints --test simulation every_seed_holds -- --nocapture",
        found.invariant, found.what, outcome.steps
    )
}

#[test]
fn every_seed_holds() {
    if let Some(seed) = number("SILTSTONE_SIM_SEED") {
        let outcome = run(seed, None);
        eprintln!("{}", report(seed, &outcome));
        assert!(outcome.violation.is_none(), "seed {seed} does not hold");
        return;
    }
    let seeds = number("SILTSTONE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("SILTSTONE_SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| take(&next, first + seeds))).collect();
        let mut all = Counts::default();
        for thread in threads {
            for (what, times) in thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).0 {
                *all.0.entry(what).or_default() += times;
            }
        }
        all
    });
    eprintln!("{seeds} seeds hold: {:?}", counts.0);
    if seeds >= SEEDS_TO_GO_EVERYWHERE {
        for what in EVERYWHERE {
            assert!(counts.0.contains_key(what), "no seed came to this: {what}");
        }
    }
}

fn take(next: &AtomicU64, end: u64) -> Counts {
    let mut counts = Counts::default();
    loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= end {
            return counts;
        }
        let outcome = run(seed, None);
        if outcome.violation.is_some() {
            next.store(end, Ordering::SeqCst);
            panic!("{}", report(seed, &outcome));
        }
        for (what, times) in outcome.counts.0 {
            *counts.0.entry(what).or_default() += times;
        }
    }
}

#[test]
fn a_seed_repeats() {
    for seed in 0..SEEDS_TWICE {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!(
            first.hash, second.hash,
            "seed {seed}\nfirst:\n{}\nsecond:\n{}",
            first.steps, second.steps
        );
    }
}

/// The first seed at which a fault is found, and what it violates.
fn found(mutation: Mutation) -> (u64, &'static str) {
    let found =
        (0..SEEDS_TO_FIND).find_map(|seed| Some((seed, run(seed, Some(mutation)).violation?.invariant)));
    found.unwrap_or_else(|| panic!("{mutation:?} is not found within {SEEDS_TO_FIND} seeds"))
}

#[test]
fn a_store_that_ignores_conditions_is_found() {
    let (seed, invariant) = found(Mutation::ConditionsIgnored);
    assert!(["I-3", "I-4"].contains(&invariant), "seed {seed}: {invariant}");
}

#[test]
fn a_janitor_that_takes_young_files_is_found() {
    let (seed, invariant) = found(Mutation::DatesLost);
    assert!(["I-6", "I-9"].contains(&invariant), "seed {seed}: {invariant}");
}

#[test]
fn a_worker_that_keeps_refused_rows_is_found() {
    let (seed, invariant) = found(Mutation::RefusalIgnored);
    assert_eq!(invariant, "I-3", "seed {seed}");
}

#[test]
fn a_store_that_loses_files_is_found() {
    let (seed, invariant) = found(Mutation::WritesLost);
    assert_eq!(invariant, "I-6", "seed {seed}");
}

#[test]
fn an_overwrite_that_ignores_its_look_is_found() {
    let (seed, invariant) = found(Mutation::LookIgnored);
    assert_eq!(invariant, "I-3", "seed {seed}");
}
