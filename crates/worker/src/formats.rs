//! Whether the formats of a table can show what it is to become: asked before the ledger takes a change,
//! because a format that cannot follow would stand still for good.
//!
//! The one place of this question: `plan` and `apply`, creation, and schemas met while running ask here.

use siltstone_ingest::decoder::Decoder;
use siltstone_lakehouse::{
    DeltaTable, LakeError, LedgerState,
    delta::{self, Mapping},
};
use siltstone_protocol::{Format, PartitionSpec, Schema};
use siltstone_spec::{
    OnIncompatible, TableSpec,
    plan::{Reason, Step},
};

use crate::{
    error::{ForTable, WorkerError},
    ingest::Wanting,
    table::Table,
};

/// A table as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct Target<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) partition_spec: &'a PartitionSpec,
    pub(crate) formats: &'a [Format],
    /// Whether Delta may begin to map columns.
    pub(crate) mapping: Mapping,
}

impl<'a> Target<'a> {
    /// The table after these steps, for a person who was shown them.
    pub(crate) fn after(state: &'a LedgerState, steps: &'a [Step]) -> Self {
        let mut target = Self {
            schema: &state.schema,
            partition_spec: &state.partition_spec,
            formats: &state.formats,
            mapping: Mapping::MayBegin,
        };
        for step in steps {
            match step {
                Step::SetSchema { schema } => target.schema = schema,
                Step::SetPartitionSpec { partition_spec, .. } => target.partition_spec = partition_spec,
                Step::SetFormats { formats, .. } => target.formats = formats,
                _ => {}
            }
        }
        target
    }
}

/// Checks a table that does not exist yet.
///
/// # Errors
/// `Invalid`, naming the column and the way out.
pub(crate) fn check_new(name: &str, schema: &Schema, formats: &[Format]) -> Result<(), WorkerError> {
    if formats.contains(&Format::Delta) {
        delta::check_table(name, schema).for_table(name)?;
    }
    Ok(())
}

/// Checks what a table with this state is to become. Iceberg shows every change that the ledger knows.
///
/// # Errors
/// `Invalid`, naming the column and the way out; those of the store.
pub(crate) async fn check(table: &Table, state: &LedgerState, target: Target<'_>) -> Result<(), WorkerError> {
    if !target.formats.contains(&Format::Delta) {
        return Ok(());
    }
    let (store, location) = (table.store.clone(), table.location.clone());
    let mut delta = DeltaTable::new(store, location, table.url.clone(), table.projection);
    let Target { schema, partition_spec, mapping, .. } = target;
    delta.check_change(state, schema, partition_spec, mapping).await.for_table(&table.name)
}

/// The reason for a plan to be refused, when the check found one; other errors come back.
pub(crate) fn refusal(checked: Result<(), WorkerError>) -> Result<Option<Reason>, WorkerError> {
    let error = match checked {
        Ok(()) => return Ok(None),
        Err(error) => error,
    };
    match &error {
        WorkerError::Lake { source, .. } => match source.as_ref() {
            LakeError::CannotShow { format, column, why, way_out, .. } => Ok(Some(Reason {
                code: source.code(),
                what: format!("{} and column {column}", format.as_str()),
                why: format!("it {why}"),
                way_out: way_out.clone(),
            })),
            _ => Err(error),
        },
        _ => Err(error),
    }
}

/// Why a format of the table has no form for this schema (Delta takes no other type for a column that has data), if
/// one has none: the ledger must not take it either, or that format would stand still. Nobody asked for the change but
/// records, so Delta does not begin to map columns for it.
///
/// # Errors
/// Those of the store.
pub(crate) async fn not_shown(table: &Table, schema: &Schema) -> Result<Option<Reason>, WorkerError> {
    let checked = {
        let state = table.state.lock().await;
        let target = Target {
            schema,
            partition_spec: &state.partition_spec,
            formats: &state.formats,
            mapping: Mapping::AsItIs,
        };
        check(table, &state, target).await
    };
    refusal(checked)
}

/// What becomes of a record whose schema a format cannot show: the table stops, or its like are rejected.
///
/// # Errors
/// `IncompatibleSchema`, where `on_incompatible` is `stop`.
pub(crate) fn give_up(
    spec: &TableSpec,
    wanting: Wanting,
    reason: Reason,
    decoder: &mut Decoder,
) -> Result<(), WorkerError> {
    let Reason { code, what, why, way_out } = reason;
    if spec.on_incompatible == OnIncompatible::Stop {
        return Err(wanting.incompatible(spec, format!("{what}: {why}")));
    }
    tracing::warn!(table = %spec.name, %code, what, why, way_out, "records of this schema are rejected");
    decoder.reject_schema(wanting.need, format!("{what}: {why}"));
    Ok(())
}
