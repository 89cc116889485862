//! What is held in memory only: workers, their events and profiles, and how tables fare right now. Gone at restart.
//!
//! Of table health, a sample a minute and table is kept in the database for plots; who said it is not.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
};

use schemars::JsonSchema;
use serde::Serialize;
use siltstone_protocol::{
    ErrorKind,
    health::{HealthReport, TableHealth, WorkState},
    presence::{EventCount, EventSample, FunctionCount, Presence, ProfileSample},
};

/// A worker that said nothing for so long is gone.
const GONE_AFTER_MS: i64 = 90_000;
const WORKERS_MAX: usize = 50_000;
const TABLES_OF_WORKER_MAX: usize = 20_000;
/// Samples of events that are kept of one worker.
const EVENTS_KEPT: usize = 200;

/// A worker as it is shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WorkerView {
    #[serde(flatten)]
    pub presence: Presence,
    /// When it was last heard of, milliseconds since 1970 UTC.
    pub seen_ms: i64,
    /// Events since it is known here, the most frequent first.
    pub events: Vec<EventCount>,
    /// The last profile.
    pub profile: Vec<FunctionCount>,
}

/// How a table fares, over all workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TableNow {
    pub state: WorkState,
    pub error: Option<ErrorKind>,
    pub workers: u32,
    pub lag_records: Option<u64>,
    pub freshness_ms: Option<u64>,
    pub backlog_files: Option<u64>,
    pub backlog_bytes: Option<u64>,
}

struct Known {
    cluster: String,
    presence: Option<Presence>,
    seen_ms: i64,
    events: Vec<EventCount>,
    profile: Vec<FunctionCount>,
    tables: HashMap<String, TableHealth>,
}

/// Everything that is held in memory.
#[derive(Default)]
pub struct Memory {
    workers: Mutex<HashMap<(String, String), Known>>,
}

impl Memory {
    pub fn presence(&self, cluster: &str, presence: Presence, now_ms: i64) {
        let worker = presence.worker_id.clone();
        self.with(cluster, &worker, now_ms, |known| known.presence = Some(presence));
    }

    pub fn events(&self, cluster: &str, sample: EventSample, now_ms: i64) {
        self.with(cluster, &sample.worker_id, now_ms, |known| {
            for event in sample.events {
                let same = |kept: &&mut EventCount| {
                    (kept.code, &kept.table, kept.error) == (event.code, &event.table, event.error)
                };
                let room = known.events.len() < EVENTS_KEPT;
                match known.events.iter_mut().find(same) {
                    Some(kept) => kept.count = kept.count.saturating_add(event.count),
                    None if room => known.events.push(event),
                    None => {}
                }
            }
        });
    }

    pub fn profile(&self, cluster: &str, sample: ProfileSample, now_ms: i64) {
        self.with(cluster, &sample.worker_id, now_ms, |known| known.profile = sample.functions);
    }

    /// Takes health, and returns how the tables named in it fare now.
    pub fn health(&self, cluster: &str, report: HealthReport, now_ms: i64) -> Vec<(String, TableNow)> {
        let named: Vec<String> = report.tables.iter().map(|table| table.table.clone()).collect();
        self.with(cluster, &report.worker_id, now_ms, |known| {
            for table in report.tables {
                if known.tables.len() < TABLES_OF_WORKER_MAX || known.tables.contains_key(&table.table) {
                    known.tables.insert(table.table.clone(), table);
                }
            }
        });
        let now = self.tables(cluster, now_ms);
        named.into_iter().filter_map(|name| Some((name.clone(), now.get(&name)?.clone()))).collect()
    }

    /// How each table of a cluster fares, over the workers that are there.
    pub fn tables(&self, cluster: &str, now_ms: i64) -> BTreeMap<String, TableNow> {
        let mut all: BTreeMap<String, TableNow> = BTreeMap::new();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let here = workers.values().filter(|known| known.cluster == cluster && !is_gone(known, now_ms));
        for table in here.flat_map(|known| known.tables.values()) {
            match all.get_mut(&table.table) {
                Some(now) => join(now, table),
                None => {
                    all.insert(table.table.clone(), first(table));
                }
            }
        }
        all
    }

    /// The workers of these clusters, by identity.
    pub fn workers(&self, clusters: &[String], now_ms: i64) -> Vec<(String, WorkerView)> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let here =
            workers.values().filter(|known| clusters.contains(&known.cluster) && !is_gone(known, now_ms));
        let mut views: Vec<_> =
            here.filter_map(|known| Some((known.cluster.clone(), view(known)?))).collect();
        views.sort_by(|left, right| left.1.presence.worker_id.cmp(&right.1.presence.worker_id));
        views
    }

    fn with(&self, cluster: &str, worker: &str, now_ms: i64, change: impl FnOnce(&mut Known)) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.to_owned(), worker.to_owned());
        if workers.len() >= WORKERS_MAX && !workers.contains_key(&key) {
            workers.retain(|_, known| !is_gone(known, now_ms));
            if workers.len() >= WORKERS_MAX {
                return;
            }
        }
        let known = workers.entry(key).or_insert_with(|| Known {
            cluster: cluster.to_owned(),
            presence: None,
            seen_ms: now_ms,
            events: Vec::new(),
            profile: Vec::new(),
            tables: HashMap::new(),
        });
        known.seen_ms = now_ms;
        change(known);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

fn is_gone(known: &Known, now_ms: i64) -> bool {
    now_ms.saturating_sub(known.seen_ms) > GONE_AFTER_MS
}

fn view(known: &Known) -> Option<WorkerView> {
    let mut events = known.events.clone();
    events.sort_by_key(|event| std::cmp::Reverse(event.count));
    let presence = known.presence.clone()?;
    Some(WorkerView { presence, seen_ms: known.seen_ms, events, profile: known.profile.clone() })
}

fn first(table: &TableHealth) -> TableNow {
    TableNow {
        state: table.state,
        error: table.error,
        workers: 1,
        lag_records: table.lag_records,
        freshness_ms: table.freshness_ms,
        backlog_files: table.backlog_files,
        backlog_bytes: table.backlog_bytes,
    }
}

/// Lags add up, as each worker has its own partitions; the backlog is of the whole table, whoever says it.
fn join(now: &mut TableNow, table: &TableHealth) {
    let worst = |state: WorkState| match state {
        WorkState::Running => 0,
        WorkState::Starting => 1,
        WorkState::Paused => 2,
        WorkState::Retrying => 3,
        WorkState::Stopped => 4,
    };
    if worst(table.state) > worst(now.state) {
        (now.state, now.error) = (table.state, table.error);
    }
    now.workers += 1;
    now.lag_records = match (now.lag_records, table.lag_records) {
        (Some(left), Some(right)) => Some(left.saturating_add(right)),
        (left, right) => left.or(right),
    };
    now.freshness_ms = now.freshness_ms.max(table.freshness_ms);
    now.backlog_files = now.backlog_files.max(table.backlog_files);
    now.backlog_bytes = now.backlog_bytes.max(table.backlog_bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn health(worker: &str, lag: u64, state: WorkState) -> HealthReport {
        let table = TableHealth {
            table: "shop.orders".to_owned(),
            state,
            error: None,
            partitions: 2,
            lag_records: Some(lag),
            freshness_ms: Some(lag * 10),
            backlog_files: None,
            backlog_bytes: None,
        };
        HealthReport { worker_id: worker.to_owned(), at_ms: 0, tables: vec![table] }
    }

    #[test]
    fn health_is_joined_over_workers_and_forgotten_with_them() {
        let memory = Memory::default();
        memory.health("c", health("a", 3, WorkState::Running), 0);
        let now = memory.health("c", health("b", 4, WorkState::Retrying), 60_000);
        let (_, now) = now.first().unwrap();
        assert_eq!((now.lag_records, now.freshness_ms, now.workers), (Some(7), Some(40), 2));
        assert_eq!(now.state, WorkState::Retrying);
        assert!(memory.tables("other", 60_000).is_empty());
        let later = memory.tables("c", 100_000);
        assert_eq!(later.get("shop.orders").unwrap().lag_records, Some(4));
    }
}
