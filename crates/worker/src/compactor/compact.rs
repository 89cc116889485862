//! Compaction by hand: rounds until nothing is left to do.

use std::sync::Arc;

use serde::Serialize;
use siltstone_datafile::MemoryBudget;
use siltstone_lakehouse::TableStore;
use siltstone_spec::TableSpec;
use tokio::sync::watch;

use super::{Compactor, Pace, Round, Share};
use crate::{absorb::Absorber, error::WorkerError, table::Table};

/// More rounds than this are left to the next call: plans come to an end long before.
const ROUNDS_MAX: usize = 100;

/// What compaction by hand did to a table, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct CompactionSummary {
    pub table: String,
    /// False: the table has no ledger yet.
    pub exists: bool,
    pub dry_run: bool,
    /// True: it was told to stop with plans left.
    pub stopped: bool,
    /// Before: files and bytes that plans take, and sorted runs over one key at most.
    pub backlog_files: usize,
    pub backlog_bytes: u64,
    pub overlap_depth: usize,
    #[serde(flatten)]
    pub done: Round,
}

/// Compacts one table until no plan is left, and brings its formats up to date. With `dry_run` it only looks.
/// `progress` hears of bytes to do and bytes done.
///
/// # Errors
/// Those of the store, the ledger and the formats.
pub async fn compact(
    lake: &TableStore,
    spec: &TableSpec,
    memory_bytes: u64,
    dry_run: bool,
    mut stop: watch::Receiver<bool>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<CompactionSummary, WorkerError> {
    let mut summary = CompactionSummary {
        table: spec.name.clone(),
        exists: false,
        dry_run,
        stopped: false,
        backlog_files: 0,
        backlog_bytes: 0,
        overlap_depth: 0,
        done: Round::default(),
    };
    let Some(table) = Table::open(lake, spec).await? else { return Ok(summary) };
    summary.exists = true;
    let table = Arc::new(table);
    let budget = MemoryBudget::new(memory_bytes);
    if !dry_run {
        let mut absorber = Absorber::new(table.clone(), Arc::default(), Arc::default(), budget.clone());
        absorber.round(&mut stop).await?;
        if let Some((format, halted)) = absorber.halted().into_iter().next() {
            return Err(halted.error(&table.name, format.as_str()));
        }
    }
    let mut compactor = Compactor::new(table.clone(), spec, Arc::default(), Arc::default(), budget).alone();
    let (backlog, plans) = compactor.plan().await?;
    summary.backlog_files = backlog.files;
    summary.backlog_bytes = backlog.bytes;
    summary.overlap_depth = backlog.depth;
    if dry_run {
        summary.done.plans = plans.len();
        summary.done.input_files = plans.iter().map(|plan| plan.inputs.len() as u64).sum();
        summary.done.input_bytes = plans.iter().map(siltstone_compaction::CompactionPlan::bytes).sum();
        return Ok(summary);
    }
    let (mut all, mut bytes) = (backlog.bytes, 0);
    progress(all, bytes);
    for _ in 0..ROUNDS_MAX {
        let mut done = |plan: u64| {
            bytes += plan;
            all = all.max(bytes);
            progress(all, bytes);
        };
        let round = compactor.round(&Share::All, Pace::UNBOUNDED, &mut stop, &mut done).await?;
        summary.done.add(round);
        if *stop.borrow() {
            summary.stopped = true;
            break;
        }
        if round.committed + round.dropped == 0 {
            break;
        }
    }
    crate::projector::catch_up_all(&table).await?;
    Ok(summary)
}
