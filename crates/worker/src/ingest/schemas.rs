//! Writer schemas: learned when a record needs them, committed before a row of them is.

use super::intake::Wanting;
use super::poller::Poller;
use super::poller::PollerParts;
use crate::error::ForTable;
use crate::error::WorkerError;
use crate::flush::FlushReason;
use crate::formats;
use siltstone_ingest::IngestError;
use siltstone_ingest::decoder::Learned;
use siltstone_ingest::decoder::SchemaNeed;
use siltstone_protocol::Change;
use siltstone_protocol::ErrorCode;
use siltstone_protocol::ErrorKind;
use siltstone_protocol::OffsetRange;
use siltstone_protocol::RejectedCount;
use siltstone_protocol::Schema;
use siltstone_protocol::presence::EventCode;
use siltstone_spec::TableSpec;
use siltstone_spec::plan::Reason;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

const REGISTRY_RETRY_MIN: Duration = Duration::from_secs(1);
const REGISTRY_RETRY_MAX: Duration = Duration::from_secs(30);
const SCHEMA_COMMIT_TRIES_MAX: u32 = 10;

/// Who does not answer when a schema is learned: in words, and as the stage that is tried again.
pub(crate) fn silent(error: &IngestError) -> (&'static str, &'static str) {
    match error.code() {
        ErrorCode::KeyServiceUnavailable => ("key service", "key_service"),
        _ => ("registry", "registry"),
    }
}

impl Wanting {
    /// `on_incompatible` is `stop`: the table does, and no row of the schema is taken.
    pub fn incompatible(self, spec: &TableSpec, why: String) -> WorkerError {
        let Self { need, partition, offset } = self;
        WorkerError::IncompatibleSchema {
            table: spec.name.clone(),
            topic: spec.topic.clone(),
            partition,
            offset,
            schema_id: match need {
                SchemaNeed::Id(id) | SchemaNeed::Message { id, .. } => Some(id),
                SchemaNeed::Latest => None,
            },
            why,
        }
    }
}

impl Poller {
    pub(super) fn act_on_halt(&mut self) -> Result<(), WorkerError> {
        let Some(halt) = self.parts.intake.take_halt() else { return Ok(()) };
        match halt.need(&self.parts.spec)? {
            Some(need) => self.learn(need, REGISTRY_RETRY_MIN),
            None => Ok(()),
        }
    }

    pub(super) fn learn_again(&mut self) -> Result<(), WorkerError> {
        match self.waiting_for_schema.take() {
            Some((wanting, at, backoff)) if Instant::now() >= at => self.learn(wanting, backoff),
            waiting => {
                self.waiting_for_schema = waiting;
                Ok(())
            }
        }
    }

    pub(super) fn learn(&mut self, wanting: Wanting, backoff: Duration) -> Result<(), WorkerError> {
        let need = wanting.need;
        for _ in 0..SCHEMA_COMMIT_TRIES_MAX {
            let PollerParts { handle, intake, registry, .. } = &mut self.parts;
            match handle.block_on(intake.decoder.learn(need, registry.as_deref())) {
                Ok(Learned::Ready | Learned::Refused(_)) => return self.resume(),
                Ok(Learned::Stops(error)) => {
                    return Err(wanting.incompatible(&self.parts.spec, error.to_string()));
                }
                Ok(Learned::Evolves(schema)) => {
                    if let Some(reason) = self.not_shown(&schema)? {
                        let PollerParts { spec, intake, .. } = &mut self.parts;
                        formats::give_up(spec, wanting, reason, &mut intake.decoder)?;
                        return self.resume();
                    }
                    self.evolve(schema)?;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let (who, stage) = silent(&error);
                    tracing::warn!(
                        table = %self.name(), topic = %self.parts.spec.topic, %error, code = %error.code(),
                        "{who} does not answer, table paused"
                    );
                    self.parts.metrics.retry(self.name(), stage);
                    self.pause()?;
                    let next = (backoff * 2).min(REGISTRY_RETRY_MAX);
                    let at = Instant::now() + self.parts.identity.jitter(backoff);
                    self.waiting_for_schema = Some((wanting, at, next));
                    return Ok(());
                }
                Err(error) => return Err(error).for_table(self.name()),
            }
        }
        Err(self.internal("the table's schema did not settle"))
    }

    fn not_shown(&self, schema: &Schema) -> Result<Option<Reason>, WorkerError> {
        let Some(table) = self.table() else { return Ok(None) };
        self.parts.handle.block_on(formats::not_shown(&table, schema))
    }

    /// Makes the table what the records need: everything before is committed in the old schema first.
    pub(super) fn evolve(&mut self, schema: Schema) -> Result<(), WorkerError> {
        if self.table().is_none() {
            return self.create(schema);
        }
        self.flush_all(FlushReason::Schema)?;
        let known = self.parts.intake.schema.as_ref().map(|schema| schema.schema_id);
        self.follow_schema()?;
        if self.parts.intake.schema.as_ref().map(|schema| schema.schema_id) != known {
            return Ok(()); // Another worker was first: look at the record against its schema.
        }
        tracing::info!(table = %self.name(), schema_id = schema.schema_id, "schema grows");
        self.parts.metrics.events.table(EventCode::SchemaChanged, self.name(), None);
        match self.change(Change::SetSchema { schema }) {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            other => other?,
        }
        self.follow_schema()
    }

    pub(super) fn create(&mut self, schema: Schema) -> Result<(), WorkerError> {
        self.flush_all(FlushReason::Schema)?;
        let table = self.parts.handle.block_on(self.parts.runtime.create(schema))?;
        tracing::info!(table = %table.name, location = %table.location, "table created");
        self.begin_table()
    }

    /// Goes on with a table that came to be meanwhile by another worker's hand, if one did.
    pub(super) fn join_table(&mut self) -> Result<(), WorkerError> {
        if self.table().is_some() || self.parts.handle.block_on(self.parts.runtime.find())?.is_none() {
            return Ok(());
        }
        self.flush_all(FlushReason::Schema)?;
        self.begin_table()
    }

    /// The table has just come to be: its first entry covers what was consumed before, all of it rejected.
    fn begin_table(&mut self) -> Result<(), WorkerError> {
        self.lane = self.parts.runtime.start_lane(&self.parts.handle);
        self.follow_schema()?;
        let owned: Vec<_> = self.parts.intake.positions.iter().map(|(id, at)| (id, *at)).collect();
        let mut first = Vec::new();
        for (partition, at) in &owned {
            if self.committed_position(*partition)?.is_none() {
                first.push(self.range(*partition, at.committed, at.submitted, false));
            }
        }
        if first.len() < owned.len() {
            // Other workers were here: what was rejected cannot be told apart by partition. It is counted anew.
            first.iter_mut().for_each(|range| range.end = range.start);
            self.pin(first, Vec::new())?;
            return self.begin_at_ledger();
        }
        let rejected = std::mem::take(&mut self.early);
        let rejected = rejected.into_iter().map(|(reason, records)| RejectedCount { reason, records });
        self.pin(first, rejected.collect())
    }

    fn pin(&mut self, ranges: Vec<OffsetRange>, rejected: Vec<RejectedCount>) -> Result<(), WorkerError> {
        if ranges.is_empty() {
            return Ok(());
        }
        self.submitted.clone_from(&ranges);
        self.change(Change::append(Vec::new(), ranges, rejected))
    }

    /// Follows a change that another worker, or `apply`, made to the table meanwhile. Costs nothing when there is none.
    pub(super) fn follow_others(&mut self) -> Result<(), WorkerError> {
        let Some(table) = self.table() else { return Ok(()) };
        // Held during a commit: then the next turn looks.
        let Ok(state) = table.state.try_lock() else { return Ok(()) };
        let newest = state.schema.schema_id;
        drop(state);
        match &self.parts.intake.schema {
            Some(known) if known.schema_id != newest => self.follow_schema(),
            _ => Ok(()),
        }
    }

    /// Takes the ledger's schema over when it is newer than the decoder's. The buffer is closed first.
    pub(super) fn follow_schema(&mut self) -> Result<(), WorkerError> {
        let Some(table) = self.table() else { return Ok(()) };
        let (schema, history) = self.parts.handle.block_on(async {
            let mut state = table.state.lock().await;
            let now_ms = self.parts.identity.now_ms();
            table.ledger.follow(&mut state, now_ms).await.for_table(&table.name)?;
            Ok::<_, WorkerError>((state.schema.clone(), state.schema_history()))
        })?;
        if self.parts.intake.schema.as_ref().is_some_and(|known| known.schema_id == schema.schema_id) {
            return Ok(());
        }
        if self.parts.intake.rows() > 0 {
            self.flush_all(FlushReason::Schema)?;
        }
        self.parts.intake.decoder.set_history(history);
        self.parts.intake.decoder.set_table_schema(schema.clone()).for_table(&self.parts.spec.name)?;
        self.parts.intake.schema = Some(Arc::new(schema));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_told_apart() {
        let error = IngestError::unavailable("it", "no answer");
        assert_eq!(silent(&error), ("registry", "registry"));
        let error = error.coded(ErrorCode::KeyServiceUnavailable);
        assert_eq!(silent(&error), ("key service", "key_service"));
    }
}
