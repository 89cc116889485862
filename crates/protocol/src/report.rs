//! The messages a worker sends out, and the seam behind which they are sent.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::{entry::Entry, error::ErrorKind};

/// Ledger entries of one table, in version order, since the last acknowledged version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The table's name in its spec.
    pub table: String,
    /// Entries with consecutive versions.
    pub entries: Vec<Entry>,
}

/// What the control plane holds of a table after a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The newest version held; the next report starts right after it. `None`: nothing yet.
    pub version: Option<u64>,
}

/// The outbound seam: idempotent and never on the commit path.
pub trait ControlPlane: Send + Sync {
    /// Deliver a report. Sending the same report again changes nothing.
    ///
    /// # Errors
    /// `Unavailable`: send again later. `Invalid`: the report was refused.
    fn report(&self, report: &Report) -> impl Future<Output = Result<Ack, ErrorKind>> + Send;
}
