//! How tables fare, from what the worker's metrics know already: nothing is asked of brokers or stores.

use std::collections::BTreeMap;

use siltstone_protocol::{
    ErrorKind, RejectReason,
    health::{TableHealth, WorkState},
    presence::EventCode,
};

use crate::{
    metrics::{CompactionLabel, KindLabel, Metrics, PartitionLabel, ReasonLabel, StageLabel, TableLabel},
    runtime::TableRuntime,
};

/// The tables of a runtime as this worker sees them: its own, and its dead letters once there are any.
pub(super) fn of(runtime: &TableRuntime) -> Vec<TableHealth> {
    let metrics = &runtime.shared.metrics;
    let (state, error) = runtime.switch.state();
    let owned = runtime.owned().partitions;
    let label = TableLabel { table: runtime.spec.name.clone() };
    let lag = |partition: &i32| {
        let label = PartitionLabel { table: label.table.clone(), partition: *partition };
        metrics.lag_records.get(&label).map(|lag| lag.get())
    };
    let lags: Option<Vec<i64>> = owned.iter().map(lag).collect();
    let freshness = metrics.freshness.get(&label).map(|seconds| seconds.get());
    let mut all = vec![TableHealth {
        table: label.table.clone(),
        state,
        error: error.filter(|_| matches!(state, WorkState::Retrying | WorkState::Stopped)),
        partitions: u32::try_from(owned.len()).unwrap_or(u32::MAX),
        lag_records: lags
            .filter(|lags| !lags.is_empty())
            .map(|lags| lags.iter().map(|lag| u64::try_from(*lag).unwrap_or(0)).sum()),
        freshness_ms: freshness.map(|seconds| (seconds.max(0.0) * 1000.0) as u64),
        backlog_files: None,
        backlog_bytes: None,
    }];
    if runtime.dead_letters().is_some() {
        all.push(TableHealth {
            table: runtime.spec.dead_letter_name(),
            state,
            error: None,
            partitions: 0,
            lag_records: None,
            freshness_ms: None,
            backlog_files: None,
            backlog_bytes: None,
        });
    }
    for health in &mut all {
        let label = TableLabel { table: health.table.clone() };
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        health.backlog_files = metrics.compaction_backlog_files.get(&label).map(|files| number(files.get()));
        health.backlog_bytes = metrics.compaction_backlog_bytes.get(&label).map(|bytes| number(bytes.get()));
    }
    all
}

/// Turns what the metrics count into events: what came on top since the last look.
#[derive(Debug, Default)]
pub(super) struct Counted {
    seen: BTreeMap<(String, &'static str), u64>,
}

impl Counted {
    pub(super) fn look(&mut self, metrics: &Metrics, tables: &[TableRuntime]) {
        for runtime in tables {
            for table in [runtime.spec.name.clone(), runtime.spec.dead_letter_name()] {
                self.table(metrics, &table);
            }
        }
    }

    fn table(&mut self, metrics: &Metrics, table: &str) {
        let own = || table.to_owned();
        let commits = metrics.commits.get(&TableLabel { table: own() }).map(|count| count.get());
        self.add(metrics, table, EventCode::Committed, None, "commits", commits);
        for stage in STAGES {
            let label = StageLabel { table: own(), stage: stage.0 };
            let retries = metrics.retries.get(&label).map(|count| count.get());
            self.add(metrics, table, stage.1, Some(ErrorKind::Unavailable), stage.0, retries);
        }
        for kind in ["fenced", "covered"] {
            let label = KindLabel { table: own(), kind };
            let refused = metrics.commits_refused.get(&label).map(|count| count.get());
            self.add(metrics, table, EventCode::CommitFenced, Some(ErrorKind::Fenced), kind, refused);
        }
        for reason in RejectReason::ALL {
            let label = ReasonLabel { table: own(), reason: reason.as_str() };
            let rejected = metrics.records_rejected.get(&label).map(|count| count.get());
            let code = EventCode::RecordsRejected;
            self.add(metrics, table, code, Some(ErrorKind::Data), reason.as_str(), rejected);
        }
        let label = ReasonLabel { table: own(), reason: "pressure" };
        let pressed = metrics.flushes.get(&label).map(|count| count.get());
        self.add(metrics, table, EventCode::MemoryExhausted, None, "pressure", pressed);
        for (ended, code) in [("committed", EventCode::Compacted), ("dropped", EventCode::CompactionDropped)]
        {
            let of = |trigger: &'static str| {
                let label = CompactionLabel { table: own(), trigger, ended };
                metrics.compactions.get(&label).map(|count| count.get())
            };
            let count = TRIGGERS.iter().filter_map(|trigger| of(trigger)).sum();
            self.add(metrics, table, code, None, ended, Some(count));
        }
    }

    fn add(
        &mut self,
        metrics: &Metrics,
        table: &str,
        code: EventCode,
        error: Option<ErrorKind>,
        what: &'static str,
        count: Option<u64>,
    ) {
        let Some(count) = count.filter(|count| *count > 0) else { return };
        let seen = self.seen.entry((table.to_owned(), what)).or_default();
        metrics.events.add(code, Some(table), error, count.saturating_sub(*seen));
        *seen = count;
    }
}

/// Stages that are tried again, as the metric's label names them, and what that is as an event.
const STAGES: [(&str, EventCode); 9] = [
    ("commit", EventCode::CommitRetried),
    ("compact_commit", EventCode::CommitRetried),
    ("absorb_commit", EventCode::CommitRetried),
    ("write", EventCode::StoreRetried),
    ("refresh", EventCode::StoreRetried),
    ("create_dead_letters", EventCode::StoreRetried),
    ("iceberg", EventCode::ProjectionFailed),
    ("delta", EventCode::ProjectionFailed),
    ("registry", EventCode::RegistryUnavailable),
];

const TRIGGERS: [&str; 4] = ["small_files", "overlap", "quiet", "deleted_rows"];
