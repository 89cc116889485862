//! One table's compactor: rounds of plan, rewrite, commit.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use siltstone_compaction::{Backlog, CompactionPlan, CompactionPolicy, Rewritten};
use siltstone_datafile::{MemoryBudget, Reservation, RewriteOptions};
use siltstone_lakehouse::crash_point;
use siltstone_spec::TableSpec;
use tokio::{sync::watch, time::Instant};

use super::{Owned, Pace, Ranges, Share};
use crate::{
    commit::{self, Landed, Patience},
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::{CompactionLabel, Metrics, TableLabel},
    table::Table,
};

/// Footers read in one round, for key ranges.
const READS_MAX: usize = 1024;
/// A worker looks for plans this often, and after each commit that it made itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A worker that found nothing to do rests so many times longer than it looked.
const LOOK_REST: u32 = 50;
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Share of the memory budget that one rewrite reserves beside ingestion.
const MEMORY_SHARE: u64 = 4;
const MEMORY_MAX: u64 = 512 << 20;
/// Files of plans that failed for good are left alone until the worker starts again; with more of them than this
/// the whole table is.
const GIVEN_UP_MAX: usize = 10_000;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Round {
    pub plans: usize,
    /// Plans that were committed.
    pub committed: usize,
    /// Plans whose inputs were gone at the commit.
    pub dropped: usize,
    /// Plans whose rewrite failed for good.
    pub failed: usize,
    pub input_files: u64,
    pub output_files: u64,
    pub rows: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
    /// Bytes of inputs that were copied without being decoded.
    pub spliced_bytes: u64,
}

impl Round {
    pub(super) fn add(&mut self, other: Self) {
        self.plans += other.plans;
        self.committed += other.committed;
        self.dropped += other.dropped;
        self.failed += other.failed;
        self.input_files += other.input_files;
        self.output_files += other.output_files;
        self.rows += other.rows;
        self.input_bytes += other.input_bytes;
        self.output_bytes += other.output_bytes;
        self.spliced_bytes += other.spliced_bytes;
    }
}

/// Compacts one table. Everything it knows can be known anew.
#[derive(Debug)]
pub struct Compactor {
    table: Arc<Table>,
    files: siltstone_spec::Files,
    policy: CompactionPolicy,
    metrics: Arc<Metrics>,
    identity: Arc<Identity>,
    budget: MemoryBudget,
    /// One rewrite takes this part of the budget: 1 over so much.
    memory_share: u64,
    ranges: Ranges,
    given_up: HashSet<String>,
    /// Plans dropped that no commit of ours has told yet.
    dropped_untold: u64,
}

impl Compactor {
    pub fn new(
        table: Arc<Table>,
        spec: &TableSpec,
        metrics: Arc<Metrics>,
        identity: Arc<Identity>,
        budget: MemoryBudget,
    ) -> Self {
        Self {
            table,
            files: spec.files.clone(),
            policy: CompactionPolicy::from(&spec.compaction),
            metrics,
            identity,
            budget,
            memory_share: MEMORY_SHARE,
            ranges: Ranges::default(),
            given_up: HashSet::new(),
            dropped_untold: 0,
        }
    }

    /// With the whole budget for a rewrite: nobody else takes of it.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.memory_share = 1;
        self
    }

    /// What there is to do now, and its plans, the most useful first.
    ///
    /// # Errors
    /// Those of the store and the ledger.
    pub async fn plan(&mut self) -> Result<(Backlog, Vec<CompactionPlan>), WorkerError> {
        let state = self.table.refresh().await?;
        self.ranges.learn(&self.table, &state, READS_MAX).await?;
        self.given_up.retain(|path| state.live_files.contains_key(path));
        let mut without = self.given_up.clone();
        without.extend(self.table.lacking.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let facts = self.ranges.state(&state, &without);
        let now_ms = self.identity.now_ms();
        let backlog = siltstone_compaction::backlog(&facts, &self.policy, now_ms);
        let mut plans = siltstone_compaction::plan(&facts, &self.policy, now_ms);
        if self.given_up.len() > GIVEN_UP_MAX {
            tracing::error!(table = %self.table.name, files = self.given_up.len(), "too many rewrites failed; no more are tried");
            plans.clear();
        }
        self.show(&backlog);
        Ok((backlog, plans))
    }

    /// Carries out the plans that are this worker's, resting between them as `pace` says.
    /// `done` hears of each plan's input bytes when it has ended.
    ///
    /// # Errors
    /// Those of the store and the ledger. What was committed before stays.
    pub async fn round(
        &mut self,
        share: &Share,
        pace: Pace,
        stop: &mut watch::Receiver<bool>,
        done: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Round, WorkerError> {
        let (_, plans) = self.plan().await?;
        let mut round = Round::default();
        for plan in plans.iter().filter(|plan| share.has(plan)) {
            if *stop.borrow() {
                break;
            }
            round.plans += 1;
            let began = Instant::now();
            self.carry_out(plan, stop, &mut round).await?;
            done(plan.bytes());
            let rest = pace.rest(plan.bytes(), began.elapsed());
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        Ok(round)
    }

    /// Rounds until `stop` turns true. Faults are logged, counted, and tried again later.
    pub async fn run(mut self, pace: Pace, owned: watch::Receiver<Owned>, mut stop: watch::Receiver<bool>) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.identity.jitter(pause)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let share = Share::Of(owned.borrow().clone());
            let began = Instant::now();
            match self.round(&share, pace, &mut stop, &mut |_| {}).await {
                // A rewrite may have made the next one due.
                Ok(round) if round.committed > 0 => pause = Duration::from_secs(1),
                // A look at a table of very many files is itself work: a small share of the time at most.
                Ok(_) => pause = LOOK_EVERY.max(began.elapsed() * LOOK_REST),
                Err(error) => {
                    tracing::warn!(
                        table = %self.table.name, %error, code = %error.code(), "compaction failed, trying again later"
                    );
                    self.metrics.retry(&self.table.name, "compact");
                    pause = (pause * 2).clamp(LOOK_EVERY, BACKOFF_MAX);
                }
            }
        }
    }

    async fn carry_out(
        &mut self,
        plan: &CompactionPlan,
        stop: &mut watch::Receiver<bool>,
        round: &mut Round,
    ) -> Result<(), WorkerError> {
        let memory = self.reserve(stop).await;
        let Some(memory) = memory else { return Ok(()) };
        let job = {
            let state = self.table.state.lock().await;
            siltstone_compaction::job(plan, &state, &self.policy, &self.files, &self.table.token_key)
        };
        let Some(mut job) = job else {
            self.drop_plan(plan, round);
            return Ok(());
        };
        job.layout.host = self.table.host.clone();
        let options = RewriteOptions { memory_bytes: memory.bytes(), ..RewriteOptions::default() };
        let rewriting = siltstone_compaction::rewrite(job, &self.table.store, &self.table.location, &options);
        let rewritten = tokio::select! {
            rewritten = rewriting => rewritten,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let rewritten = match rewritten {
            Ok(rewritten) => rewritten,
            Err(error) if error.kind().is_retryable() => return Err(error).for_table(&self.table.name),
            Err(error) => {
                tracing::error!(
                    table = %self.table.name, %error, code = %error.code(), files = plan.inputs.len(),
                    "a rewrite failed; its files are left as they are until the worker starts again"
                );
                self.give_up(plan);
                self.count(plan, "failed");
                round.failed += 1;
                return Ok(());
            }
        };
        drop(memory);
        crash_point!("compact.files_written");
        self.land(plan, rewritten, stop, round).await
    }

    /// Commits a rewrite and counts it.
    async fn land(
        &mut self,
        plan: &CompactionPlan,
        rewritten: Rewritten,
        stop: &watch::Receiver<bool>,
        round: &mut Round,
    ) -> Result<(), WorkerError> {
        let stats = rewritten.stats;
        let output_files = rewritten.added.len() as u64;
        let output_bytes: u64 = rewritten.added.iter().map(|file| file.entry.bytes).sum();
        for file in &rewritten.added {
            self.table.details.insert(file.details.clone());
        }
        let commit_id = self.identity.commit_id();
        let patience = Patience::new(&self.identity, &self.metrics, stop);
        let change = rewritten.into_change(self.dropped_untold);
        match commit::commit(&self.table, change, &commit_id, "compact_commit", patience).await? {
            Landed::At(_) => self.dropped_untold = 0,
            Landed::Stopped => return Ok(()),
            refused => {
                if let Landed::Refused(error) = refused {
                    tracing::info!(table = %self.table.name, %error, "a rewrite came too late, dropped");
                }
                self.drop_plan(plan, round);
                return Ok(());
            }
        }
        crash_point!("compact.committed");
        self.count(plan, "committed");
        round.add(Round {
            committed: 1,
            input_files: stats.inputs as u64,
            output_files,
            rows: stats.rows,
            input_bytes: stats.input_bytes,
            output_bytes,
            spliced_bytes: stats.spliced_bytes,
            ..Round::default()
        });
        let label = TableLabel { table: self.table.name.clone() };
        self.metrics.compaction_rows.get_or_create(&label).inc_by(stats.rows);
        self.metrics.compaction_input_files.get_or_create(&label).inc_by(stats.inputs as u64);
        self.metrics.compaction_output_files.get_or_create(&label).inc_by(output_files);
        self.metrics.compaction_input_bytes.get_or_create(&label).inc_by(stats.input_bytes);
        self.metrics.compaction_output_bytes.get_or_create(&label).inc_by(output_bytes);
        self.metrics.compaction_spliced_bytes.get_or_create(&label).inc_by(stats.spliced_bytes);
        Ok(())
    }

    /// A part of the budget; `None` when the worker stops first.
    async fn reserve(&self, stop: &mut watch::Receiver<bool>) -> Option<Reservation> {
        let bytes = (self.budget.limit() / self.memory_share).min(MEMORY_MAX);
        tokio::select! {
            reservation = self.budget.reserve(bytes) => Some(reservation),
            _ = stop.wait_for(|stop| *stop) => None,
        }
    }

    fn give_up(&mut self, plan: &CompactionPlan) {
        self.given_up.extend(plan.inputs.iter().map(|file| file.path.clone()));
    }

    fn drop_plan(&mut self, plan: &CompactionPlan, round: &mut Round) {
        round.dropped += 1;
        self.dropped_untold += 1;
        self.count(plan, "dropped");
    }

    fn count(&self, plan: &CompactionPlan, ended: &'static str) {
        let label = CompactionLabel { table: self.table.name.clone(), trigger: plan.trigger.as_str(), ended };
        self.metrics.compactions.get_or_create(&label).inc();
    }

    fn show(&self, backlog: &Backlog) {
        let label = TableLabel { table: self.table.name.clone() };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.compaction_backlog_files.get_or_create(&label).set(number(backlog.files as u64));
        self.metrics.compaction_backlog_bytes.get_or_create(&label).set(number(backlog.bytes));
        self.metrics.compaction_overlap_depth.get_or_create(&label).set(number(backlog.depth as u64));
    }
}
