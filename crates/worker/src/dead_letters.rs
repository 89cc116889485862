//! Dead-letter tables that older programs made.

use siltstone_ingest::dead_letter;
use siltstone_protocol::Change;

use crate::{
    commit::{self, Landed, Patience},
    error::{ForTable, WorkerError},
    identity::Identity,
    table::Table,
};

/// Gives a dead-letter table the columns that it lacks. False: told to stop first.
///
/// # Errors
/// Those of the ledger.
pub(crate) async fn bring_up<'a>(
    table: &Table,
    identity: &Identity,
    patience: &(dyn Fn() -> Patience<'a> + Send + Sync),
) -> Result<bool, WorkerError> {
    loop {
        let evolved = dead_letter::evolved(&table.state.lock().await.schema);
        let Some(schema) = evolved else { return Ok(true) };
        let change = Change::SetSchema { schema };
        match commit::commit(table, change, &identity.commit_id(), "dead_letter_schema", patience()).await? {
            Landed::At(_) => {
                tracing::info!(table = %table.name, "columns were added to the dead letters");
                return Ok(true);
            }
            // Another worker was first.
            Landed::AlreadySo | Landed::Refused(_) => {
                let mut state = table.state.lock().await;
                table.ledger.follow(&mut state, identity.now_ms()).await.for_table(&table.name)?;
            }
            Landed::Stopped => return Ok(false),
        }
    }
}

/// Its columns are not those that this program makes: a bug.
pub(crate) fn columns_are_off(table: &Table) -> WorkerError {
    WorkerError::Internal { table: table.name.clone(), what: "dead-letter columns are off" }
}
