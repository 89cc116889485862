//! Carrying out one plan: from its inputs and the ledger's state to new files.
//!
//! 1. [`job`] takes from the state what the new files are to be: the present schema and sort order, and the
//!    partition spec of the inputs.
//! 2. [`rewrite`] merges (`siltstone_datafile::rewrite`). The new files are durable when it returns, and
//!    hold exactly the rows of the inputs (I-1), else it is an error.
//! 3. The caller commits [`Rewritten::into_change`]. When an input is gone by then, the ledger refuses it:
//!    the new files are orphans, which the janitor deletes.

use std::sync::Arc;

use object_store::{ObjectStore, path::Path};
use siltstone_datafile::{
    DataFileError, Layout, RewriteInput, RewriteJob, RewriteOptions, RewriteStats, WrittenFile,
};
use siltstone_lakehouse::ledger::LedgerState;
use siltstone_protocol::{Change, Effort, Format};
use siltstone_spec::Files;

use crate::{CompactionPlan, CompactionPolicy};

/// What a rewrite made.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    pub removed: Vec<String>,
    pub added: Vec<WrittenFile>,
    pub stats: RewriteStats,
}

impl Rewritten {
    /// The ledger's change. `dropped_plans`: see [`Effort`].
    pub fn into_change(self, dropped_plans: u64) -> Change {
        let added = self.added.into_iter().map(|file| file.entry).collect();
        let effort = Effort { spliced_bytes: self.stats.spliced_bytes, dropped_plans };
        Change::Replace { removed: self.removed, added, effort }
    }
}

/// How the files of a plan are rewritten, by the ledger's state. `None` when an input is not live any more,
/// or its partition spec is not known: plan anew.
pub fn job(
    plan: &CompactionPlan,
    state: &LedgerState,
    policy: &CompactionPolicy,
    files: &Files,
    token_key: &Arc<[u8; 32]>,
) -> Option<RewriteJob> {
    if plan.inputs.iter().any(|file| state.live_files.get(&file.path) != Some(file)) {
        return None;
    }
    let spec_id = plan.inputs.first()?.spec_id;
    let layout = Layout {
        schema: Arc::new(state.schema.clone()),
        partition_spec: state.partition_specs.get(&spec_id)?.clone(),
        sort_order: state.layout_of(&state.schema).1,
        files: Files { target_size: policy.target_size, ..files.clone() },
        annotate_uuids: !state.formats.contains(&Format::Delta),
        names: Arc::new(state.schema_history()),
        token_key: Arc::clone(token_key),
        host: Default::default(),
    };
    let inputs = plan.inputs.iter().cloned().map(RewriteInput::new).collect();
    Some(RewriteJob { inputs, layout, cluster: policy.cluster, old: None })
}

/// Merges the inputs of a job into new, durable files with the same rows.
///
/// Dropping the future stops it at the next part; nothing is deleted.
///
/// # Errors
/// `Unavailable`: the store did not answer; try again. `Data`: an input is damaged, or not sorted as it
/// says, or the rows written are not those read. On every error no file of it may be committed.
pub async fn rewrite(
    job: RewriteJob,
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    options: &RewriteOptions,
) -> Result<Rewritten, DataFileError> {
    let removed = job.inputs.iter().map(|input| input.entry.path.clone()).collect();
    let (added, stats) = siltstone_datafile::rewrite(job, store, table_location, options).await?;
    tracing::info!(
        inputs = stats.inputs,
        outputs = added.len(),
        rows = stats.rows,
        merged_rows = stats.merged_rows,
        spliced_bytes = stats.spliced_bytes,
        "files rewritten"
    );
    Ok(Rewritten { removed, added, stats })
}
