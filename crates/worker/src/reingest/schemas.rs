//! What a record of an unknown schema asks of a table, while history is read: as live consumption does it, but that
//! what was read before need not be committed first.

use std::{sync::Arc, time::Duration};

use siltstone_ingest::decoder::Learned;
use siltstone_protocol::{Change, ErrorKind, Schema};
use siltstone_spec::plan::Reason;

use super::reader::{Reader, ReaderParts};
use crate::{
    commit::Landed,
    error::{ForTable, WorkerError},
    formats,
    ingest::{Wanting, silent},
};

const TRIES_MAX: u32 = 10;
/// A registry that does not answer is asked again after so long, so many times.
const REGISTRY_PAUSE: Duration = Duration::from_secs(2);
const REGISTRY_TRIES_MAX: u32 = 30;

impl Reader {
    pub(super) fn act_on_halt(&mut self) -> Result<(), WorkerError> {
        let Some(halt) = self.intake.take_halt() else { return Ok(()) };
        match halt.need(&self.parts.committer.spec)? {
            Some(wanting) => self.learn(wanting),
            // The intake is full.
            None => self.empty(),
        }
    }

    fn learn(&mut self, wanting: Wanting) -> Result<(), WorkerError> {
        let need = wanting.need;
        let (mut tries, mut asked) = (0, 0);
        while tries < TRIES_MAX {
            let ReaderParts { handle, registry, .. } = &self.parts;
            match handle.block_on(self.intake.decoder.learn(need, registry.as_deref())) {
                Ok(Learned::Ready | Learned::Refused(_)) => return Ok(()),
                Ok(Learned::Stops(error)) => {
                    return Err(wanting.incompatible(&self.parts.committer.spec, error.to_string()));
                }
                Ok(Learned::Evolves(schema)) => {
                    tries += 1;
                    if let Some(reason) = self.evolve(schema)? {
                        let spec = &self.parts.committer.spec;
                        return formats::give_up(spec, wanting, reason, &mut self.intake.decoder);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && asked < REGISTRY_TRIES_MAX => {
                    let (who, _) = silent(&error);
                    tracing::warn!(table = %self.name(), %error, "{who} does not answer, asking again");
                    asked += 1;
                    if self.pause() {
                        return Ok(()); // What was read before the record is the last unit.
                    }
                }
                Err(error) => return Err(error).for_table(self.name()),
            }
        }
        Err(WorkerError::Internal {
            table: self.name().to_owned(),
            what: "the table's schema did not settle",
        })
    }

    /// Waits before the registry is asked again. True: told to stop meanwhile.
    fn pause(&self) -> bool {
        let mut stop = self.parts.committer.stop.clone();
        self.parts.handle.block_on(async {
            let told = tokio::time::timeout(REGISTRY_PAUSE, stop.wait_for(|stop| *stop)).await;
            matches!(told, Ok(Ok(_)))
        })
    }

    /// Makes the table what the records need, or says why a format of it has no form for that.
    fn evolve(&mut self, schema: Schema) -> Result<Option<Reason>, WorkerError> {
        self.empty()?;
        let ReaderParts { handle, table, committer, .. } = &self.parts;
        let grown = handle.block_on(async {
            let state = table.refresh().await?;
            if self.intake.schema.as_ref().is_some_and(|known| known.schema_id != state.schema.schema_id) {
                return Ok(Ok(state)); // Others were first: look at the record against their schema.
            }
            if let Some(reason) = formats::not_shown(table, &schema).await? {
                return Ok(Err(reason));
            }
            match committer.commit(table, Change::SetSchema { schema }).await? {
                Landed::Stopped => Err(super::commit::stopped(table)),
                _ => table.refresh().await.map(Ok),
            }
        })?;
        let state = match grown {
            Ok(state) => state,
            Err(reason) => return Ok(Some(reason)),
        };
        let (schema, history) = (Arc::new(state.schema.clone()), state.schema_history());
        let name = self.parts.table.name.clone();
        self.intake.decoder.set_history(history.clone());
        self.intake.decoder.set_table_schema(state.schema).for_table(&name)?;
        self.writer.set_schema(Arc::clone(&schema), Arc::new(history)).for_table(&name)?;
        self.intake.schema = Some(schema);
        Ok(None)
    }
}
