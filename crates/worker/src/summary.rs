//! What a run did, for people and machines.

use siltstone_protocol::RejectReason;

use crate::{
    metrics::{Metrics, ReasonLabel, TableLabel},
    table::Table,
};

/// What a finished run did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunSummary {
    pub tables: Vec<TableSummary>,
}

/// One table's part of a [`RunSummary`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableSummary {
    pub table: String,
    /// Ledger version at the end; `None`: the table does not exist yet (no record, no schema).
    pub version: Option<u64>,
    pub rows_committed: u64,
    pub records_consumed: u64,
    pub records_rejected: u64,
}

impl TableSummary {
    pub(crate) async fn of(name: &str, metrics: &Metrics, table: Option<&Table>) -> Self {
        let label = TableLabel { table: name.to_owned() };
        let rejected = |reason: &RejectReason| {
            let label = ReasonLabel { table: name.to_owned(), reason: reason.as_str() };
            metrics.records_rejected.get(&label).map(|counter| counter.get())
        };
        Self {
            table: name.to_owned(),
            version: match table {
                Some(table) => Some(table.state.lock().await.version),
                None => None,
            },
            rows_committed: metrics.rows_committed.get_or_create(&label).get(),
            records_consumed: metrics.records_consumed.get_or_create(&label).get(),
            records_rejected: RejectReason::ALL.iter().filter_map(rejected).sum(),
        }
    }
}
