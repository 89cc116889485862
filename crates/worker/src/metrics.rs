//! What an operator can see, in Prometheus' text form.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `siltstone_records_consumed_total` | table | records taken from the topic |
//! | `siltstone_input_bytes_total` | table | key and value bytes of those records |
//! | `siltstone_records_rejected_total` | table, reason | records rejected or passed over, by closed reason code |
//! | `siltstone_rows_committed_total` | table | rows the ledger holds from this worker |
//! | `siltstone_files_committed_total`, `siltstone_file_bytes_total` | table | data files and their bytes |
//! | `siltstone_commits_total` | table | ledger entries made by this worker |
//! | `siltstone_commits_refused_total` | table, kind | commits that others made impossible (`fenced`, `covered`) |
//! | `siltstone_flushes_total` | table, reason | buffers written, by what triggered it |
//! | `siltstone_retries_total` | table, stage | operations tried again after a fault |
//! | `siltstone_lag_records`, `siltstone_lag_seconds` | table, partition | distance to the end of the partition |
//! | `siltstone_freshness_seconds` | table | age of the oldest consumed record that some format of the table does not show yet; 0: none |
//! | `siltstone_ledger_version` | table | newest ledger version known |
//! | `siltstone_shown_version` | table, format | newest ledger version that the format shows |
//! | `siltstone_table_up` | table | 1 while the table is worked on, 0 when it stopped |
//! | `siltstone_table_paused` | table | 1 while a command of the control plane keeps the table from reading |
//! | `siltstone_foreign_commits_total` | table, format | commits of other programs that this worker took into the ledger |
//! | `siltstone_absorbed_files_total`, `siltstone_absorbed_rows_total` | table, format | their files that were laid down anew, and rows of those |
//! | `siltstone_maintenance_deleted_files_total`, `siltstone_maintenance_deleted_bytes_total` | table, kind | files deleted by maintenance: `data`, `manifest`, `manifest_list`, `table_metadata`, `delta_log`, `ledger` |
//! | `siltstone_maintenance_expired_snapshots_total`, `siltstone_maintenance_expired_rows_total` | table | what left by retention |
//! | `siltstone_maintenance_cut_files_total`, `siltstone_maintenance_cut_bytes_total`, `siltstone_maintenance_cut_output_bytes_total` | table | files rewritten without their old rows, their bytes, and bytes of what took their place |
//! | `siltstone_maintenance_failures_total` | table, kind | rounds that ended with an error, by its kind |
//! | `siltstone_maintenance_last_success_timestamp_seconds` | table | end of this worker's last whole round, seconds since 1970 UTC |
//! | `siltstone_readers_catalog_requests_total` | status | requests to the catalog for readers, by HTTP status |
//! | `siltstone_memory_bytes`, `siltstone_memory_limit_bytes` | | the buffers' share of the budget |
//!
//! No label holds a value of a record.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use siltstone_datafile::MemoryBudget;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabel {
    pub table: String,
}

/// A table and a closed code: a reject reason, a flush reason, a stage, a format or a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub table: String,
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    pub table: String,
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    pub table: String,
    pub stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FormatLabel {
    pub table: String,
    pub format: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    pub table: String,
    pub partition: i32,
}

/// A table, why files were rewritten, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CompactionLabel {
    pub table: String,
    pub trigger: &'static str,
    pub ended: &'static str,
}

/// An HTTP status that this program answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    pub status: u16,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of a worker.
#[derive(Debug, Default)]
pub struct Metrics {
    pub records_consumed: Family<TableLabel, Counter>,
    pub input_bytes: Family<TableLabel, Counter>,
    pub records_rejected: Family<ReasonLabel, Counter>,
    pub rows_committed: Family<TableLabel, Counter>,
    pub files_committed: Family<TableLabel, Counter>,
    pub file_bytes: Family<TableLabel, Counter>,
    pub commits: Family<TableLabel, Counter>,
    pub commits_refused: Family<KindLabel, Counter>,
    pub flushes: Family<ReasonLabel, Counter>,
    pub retries: Family<StageLabel, Counter>,
    pub lag_records: Family<PartitionLabel, Gauge>,
    pub lag_seconds: Family<PartitionLabel, FloatGauge>,
    pub freshness: Family<TableLabel, FloatGauge>,
    pub ledger_version: Family<TableLabel, Gauge>,
    pub shown_version: Family<FormatLabel, Gauge>,
    pub table_up: Family<TableLabel, Gauge>,
    pub compactions: Family<CompactionLabel, Counter>,
    pub compaction_rows: Family<TableLabel, Counter>,
    pub compaction_input_files: Family<TableLabel, Counter>,
    pub compaction_output_files: Family<TableLabel, Counter>,
    pub compaction_input_bytes: Family<TableLabel, Counter>,
    pub compaction_output_bytes: Family<TableLabel, Counter>,
    pub compaction_spliced_bytes: Family<TableLabel, Counter>,
    pub compaction_backlog_files: Family<TableLabel, Gauge>,
    pub compaction_backlog_bytes: Family<TableLabel, Gauge>,
    pub compaction_overlap_depth: Family<TableLabel, Gauge>,
    pub foreign_commits: Family<FormatLabel, Counter>,
    pub absorbed_files: Family<FormatLabel, Counter>,
    pub absorbed_rows: Family<FormatLabel, Counter>,
    pub maintenance: crate::maintenance::MaintenanceMetrics,
    /// What is told as events; not shown here.
    pub events: crate::control::Events,
    /// 1 while a command keeps the table from reading.
    pub table_paused: Family<TableLabel, Gauge>,
    pub readers_requests: Family<StatusLabel, Counter>,
    memory: Gauge,
    memory_limit: Gauge,
}

impl Metrics {
    /// The text that `/metrics` answers.
    ///
    /// # Errors
    /// Only if formatting fails.
    pub fn render(&self, registry: &Registry, budget: &MemoryBudget) -> Result<String, std::fmt::Error> {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory.set(bytes(budget.used()));
        self.memory_limit.set(bytes(budget.limit()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry)?;
        Ok(text)
    }

    /// Registers every metric under its documented name.
    pub fn register(self: &Arc<Self>) -> Registry {
        let mut all = Registry::with_prefix("siltstone");
        all.register("records_consumed", "Records taken from the topic", self.records_consumed.clone());
        all.register("input_bytes", "Key and value bytes of consumed records", self.input_bytes.clone());
        all.register("records_rejected", "Records rejected or passed over", self.records_rejected.clone());
        all.register("rows_committed", "Rows committed to the ledger", self.rows_committed.clone());
        all.register("files_committed", "Data files committed", self.files_committed.clone());
        all.register("file_bytes", "Bytes of committed data files", self.file_bytes.clone());
        all.register("commits", "Ledger entries made", self.commits.clone());
        all.register("commits_refused", "Commits that others made impossible", self.commits_refused.clone());
        all.register("flushes", "Buffers written", self.flushes.clone());
        all.register("retries", "Operations tried again after a fault", self.retries.clone());
        all.register("lag_records", "Records between position and end", self.lag_records.clone());
        all.register_with_unit("lag", "Age of the position", Unit::Seconds, self.lag_seconds.clone());
        all.register_with_unit(
            "freshness",
            "Age of the oldest consumed record that readers cannot see",
            Unit::Seconds,
            self.freshness.clone(),
        );
        all.register("ledger_version", "Newest ledger version known", self.ledger_version.clone());
        all.register("shown_version", "Newest ledger version a format shows", self.shown_version.clone());
        all.register("table_up", "1 while the table is worked on", self.table_up.clone());
        all.register("table_paused", "1 while a command keeps it from reading", self.table_paused.clone());
        self.register_compaction(&mut all);
        let commits = self.foreign_commits.clone();
        all.register("foreign_commits", "Commits of other programs taken in", commits);
        let files = self.absorbed_files.clone();
        all.register("absorbed_files", "Files of other programs laid down anew", files);
        all.register("absorbed_rows", "Rows of those files", self.absorbed_rows.clone());
        self.maintenance.register(&mut all);
        let requests = self.readers_requests.clone();
        all.register("readers_catalog_requests", "Requests to the catalog for readers", requests);
        all.register_with_unit("memory", "Memory reserved by buffers", Unit::Bytes, self.memory.clone());
        all.register_with_unit("memory_limit", "The memory budget", Unit::Bytes, self.memory_limit.clone());
        all
    }

    fn register_compaction(&self, all: &mut Registry) {
        all.register("compactions", "Rewrites, by trigger and how they ended", self.compactions.clone());
        all.register("compaction_rows", "Rows rewritten", self.compaction_rows.clone());
        all.register("compaction_input_files", "Files replaced", self.compaction_input_files.clone());
        all.register("compaction_output_files", "Files made of them", self.compaction_output_files.clone());
        let input_bytes = self.compaction_input_bytes.clone();
        all.register("compaction_input_bytes", "Bytes of files replaced", input_bytes);
        let output_bytes = self.compaction_output_bytes.clone();
        all.register("compaction_output_bytes", "Bytes of files made of them", output_bytes);
        let spliced_bytes = self.compaction_spliced_bytes.clone();
        all.register("compaction_spliced_bytes", "Bytes copied without decoding", spliced_bytes);
        let files = self.compaction_backlog_files.clone();
        all.register("compaction_backlog_files", "Files that rewrites are due for", files);
        let bytes = self.compaction_backlog_bytes.clone();
        all.register("compaction_backlog_bytes", "Bytes of those files", bytes);
        let depth = self.compaction_overlap_depth.clone();
        all.register("compaction_overlap_depth", "Sorted runs over one key, at most", depth);
    }

    /// Counts a fault that is tried again.
    pub fn retry(&self, table: &str, stage: &'static str) {
        self.retries.get_or_create(&StageLabel { table: table.to_owned(), stage }).inc();
    }
}
