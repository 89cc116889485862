//! What maintenance did, in numbers.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use siltstone_lakehouse::maintenance::{Count, VacuumReport};
use siltstone_protocol::ErrorKind;

use super::TableExpired;
use crate::metrics::{KindLabel, TableLabel};

/// Metrics of maintenance; their names and meanings are in [`crate::metrics`].
#[derive(Debug, Default)]
pub struct MaintenanceMetrics {
    deleted_files: Family<KindLabel, Counter>,
    deleted_bytes: Family<KindLabel, Counter>,
    expired_snapshots: Family<TableLabel, Counter>,
    expired_rows: Family<TableLabel, Counter>,
    cut_files: Family<TableLabel, Counter>,
    cut_bytes: Family<TableLabel, Counter>,
    cut_output_bytes: Family<TableLabel, Counter>,
    failures: Family<KindLabel, Counter>,
    last_success: Family<TableLabel, Gauge>,
}

impl MaintenanceMetrics {
    pub(crate) fn register(&self, all: &mut Registry) {
        let files = self.deleted_files.clone();
        all.register("maintenance_deleted_files", "Files deleted by maintenance", files);
        let bytes = self.deleted_bytes.clone();
        all.register("maintenance_deleted_bytes", "Bytes of files deleted by maintenance", bytes);
        let snapshots = self.expired_snapshots.clone();
        all.register("maintenance_expired_snapshots", "Iceberg snapshots expired", snapshots);
        all.register("maintenance_expired_rows", "Rows that left by retention", self.expired_rows.clone());
        let cut_files = self.cut_files.clone();
        all.register("maintenance_cut_files", "Files rewritten without their old rows", cut_files);
        let cut_bytes = self.cut_bytes.clone();
        all.register("maintenance_cut_bytes", "Bytes of files rewritten without their old rows", cut_bytes);
        let output = self.cut_output_bytes.clone();
        all.register("maintenance_cut_output_bytes", "Bytes of the files that took their place", output);
        let failures = self.failures.clone();
        all.register("maintenance_failures", "Rounds that ended with an error", failures);
        all.register_with_unit(
            "maintenance_last_success_timestamp",
            "End of the last whole round, since 1970 UTC",
            Unit::Seconds,
            self.last_success.clone(),
        );
    }

    pub(crate) fn expired(&self, table: &str, expired: &TableExpired) {
        let label = TableLabel { table: table.to_owned() };
        self.expired_snapshots.get_or_create(&label).inc_by(expired.history.snapshots.expired);
        let rows = expired.rows.unwrap_or_default();
        let cut = rows.cut.unwrap_or_default();
        self.expired_rows.get_or_create(&label).inc_by(rows.rows_in_all());
        self.cut_files.get_or_create(&label).inc_by(cut.files);
        self.cut_bytes.get_or_create(&label).inc_by(cut.bytes);
        self.cut_output_bytes.get_or_create(&label).inc_by(cut.output_bytes);
        self.deleted(table, "delta_log", expired.history.delta_log);
        self.deleted(table, "ledger", expired.history.ledger_entries);
    }

    pub(crate) fn vacuumed(&self, table: &str, report: &VacuumReport) {
        for (kind, count) in &report.deleted {
            self.deleted(table, kind, *count);
        }
    }

    pub(crate) fn failed(&self, table: &str, kind: ErrorKind) {
        self.failures.get_or_create(&KindLabel { table: table.to_owned(), kind: kind.as_str() }).inc();
    }

    pub(crate) fn succeeded(&self, table: &str, now_ms: i64) {
        self.last_success.get_or_create(&TableLabel { table: table.to_owned() }).set(now_ms / 1_000);
    }

    fn deleted(&self, table: &str, kind: &'static str, count: Count) {
        let label = KindLabel { table: table.to_owned(), kind };
        self.deleted_files.get_or_create(&label).inc_by(count.files);
        self.deleted_bytes.get_or_create(&label).inc_by(count.bytes);
    }
}
