//! What a record of an unknown schema asks of a table, while history is read: as live consumption does it, but that
//! what was read before need not be committed first.

use std::{sync::Arc, time::Duration};

use siltstone_ingest::decoder::{Learned, SchemaNeed};
use siltstone_protocol::{Change, ErrorKind, Schema};

use super::reader::{Reader, ReaderParts};
use crate::{
    commit::Landed,
    error::{ForTable, WorkerError},
    formats::{self, Target},
};

const TRIES_MAX: u32 = 10;
/// A registry that does not answer is asked again after so long, so many times.
const REGISTRY_PAUSE: Duration = Duration::from_secs(2);
const REGISTRY_TRIES_MAX: u32 = 30;

impl Reader {
    pub(super) fn act_on_halt(&mut self) -> Result<(), WorkerError> {
        let Some(halt) = self.intake.take_halt() else { return Ok(()) };
        match halt.need(&self.parts.committer.spec)? {
            Some(need) => self.learn(need),
            // The intake is full.
            None => self.empty(),
        }
    }

    fn learn(&mut self, need: SchemaNeed) -> Result<(), WorkerError> {
        let (mut tries, mut asked) = (0, 0);
        while tries < TRIES_MAX {
            let ReaderParts { handle, registry, .. } = &self.parts;
            match handle.block_on(self.intake.decoder.learn(need, registry.as_deref())) {
                Ok(Learned::Ready | Learned::Refused(_)) => return Ok(()),
                Ok(Learned::Evolves(schema)) => {
                    tries += 1;
                    if !self.evolve(schema)? {
                        self.intake.decoder.reject_schema(need);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && asked < REGISTRY_TRIES_MAX => {
                    tracing::warn!(table = %self.name(), %error, "registry does not answer, asking again");
                    asked += 1;
                    std::thread::sleep(REGISTRY_PAUSE);
                }
                Err(error) => return Err(error).for_table(self.name()),
            }
        }
        Err(WorkerError::Internal {
            table: self.name().to_owned(),
            what: "the table's schema did not settle",
        })
    }

    /// Makes the table what the records need. False: a format of it has no form for that.
    fn evolve(&mut self, schema: Schema) -> Result<bool, WorkerError> {
        self.empty()?;
        let ReaderParts { handle, table, committer, .. } = &self.parts;
        let grown = handle.block_on(async {
            let state = table.refresh().await?;
            if self.intake.schema.as_ref().is_some_and(|known| known.schema_id != state.schema.schema_id) {
                return Ok(Some(state.schema)); // Others were first: look at the record against theirs.
            }
            let target =
                Target { schema: &schema, partition_spec: &state.partition_spec, formats: &state.formats };
            if formats::refusal(formats::check(table, &state, target).await)?.is_some() {
                return Ok(None);
            }
            match committer.commit(table, Change::SetSchema { schema }).await? {
                Landed::Stopped => Err(super::commit::stopped(table)),
                _ => Ok(Some(table.refresh().await?.schema)),
            }
        })?;
        let Some(schema) = grown else { return Ok(false) };
        let name = self.parts.table.name.clone();
        self.intake.decoder.set_table_schema(schema.clone()).for_table(&name)?;
        let schema = Arc::new(schema);
        self.writer.set_schema(Arc::clone(&schema)).for_table(&name)?;
        self.intake.schema = Some(schema);
        Ok(true)
    }
}
