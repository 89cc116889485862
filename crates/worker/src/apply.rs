//! Making tables as their spec says: `plan` looks, `apply` commits one ledger entry a step.
//!
//! Each step is an ordinary ledger commit, so a killed `apply` leaves a whole table, and running it again
//! finishes it. A plan that is refused changes nothing in its table.

use siltstone_ingest::{HttpRegistry, IngestError, SchemaRegistry};
use siltstone_lakehouse::{Committed, TableStore};
use siltstone_protocol::{Change, ErrorCode, ErrorKind, Schema};
use siltstone_spec::{
    SchemaMode, Spec, TableSpec,
    plan::{LiveTable, Step, TablePlan, incompatible, pending, plan},
    resolve,
};

use crate::{
    error::{ForTable, WorkerError},
    formats,
    run::Identity,
    table::{self, Table},
};

/// Plans of one table that workers may overtake.
const TRIES_MAX: u32 = 5;

/// What applying the spec would change, table by table. Nothing is changed.
///
/// # Errors
/// Those of store, ledger and registry.
pub async fn plan_all(spec: &Spec) -> Result<Vec<TablePlan>, WorkerError> {
    let lake = siltstone_lakehouse::store::open(&spec.destination).map_err(WorkerError::from)?;
    let mut plans = Vec::with_capacity(spec.tables.len());
    for table in &spec.tables {
        plans.push(look(&lake, spec, table).await?.plan);
    }
    Ok(plans)
}

/// Makes every table as the spec says; returns what was done. A refused table is left as it is, and so is one of which
/// readers would see less, unless `loss` says that they may.
///
/// # Errors
/// As [`plan_all`]; `Invalid` from a store that ignores conditional puts.
pub async fn apply_all(spec: &Spec, loss: Loss) -> Result<Vec<TablePlan>, WorkerError> {
    let lake = siltstone_lakehouse::store::open(&spec.destination).map_err(WorkerError::from)?;
    table::probe(&lake, &spec.tables).await?;
    let mut plans = Vec::with_capacity(spec.tables.len());
    for table in &spec.tables {
        plans.push(make(&lake, spec, table, loss).await?);
    }
    Ok(plans)
}

/// Whether readers may see less of rows already written: columns that are dropped or retyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Refused,
    Allowed,
}

/// Plans and carries out; anew when a worker changed the table meanwhile.
async fn make(
    lake: &TableStore,
    spec: &Spec,
    table: &TableSpec,
    loss: Loss,
) -> Result<TablePlan, WorkerError> {
    let (mut tries, mut earlier) = (0, Earlier::default());
    loop {
        let mut looked = look(lake, spec, table).await?;
        if loss == Loss::Refused {
            looked.plan = looked.plan.without_loss();
        }
        tries += 1;
        let mut done = Vec::new();
        match apply(lake, table, &looked, &mut done).await {
            Ok(()) => return Ok(earlier.joined(looked.plan)),
            Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES_MAX => {
                tracing::info!(table = %table.name, %error, "the table changed meanwhile, planning anew");
                earlier.add(&looked.plan, done);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What tries did that a worker overtook: the next plan no longer speaks of it.
#[derive(Debug, Default)]
struct Earlier {
    from_version: Option<u64>,
    steps: Vec<Step>,
}

impl Earlier {
    fn add(&mut self, plan: &TablePlan, done: Vec<Step>) {
        let TablePlan::Change { from_version, steps, .. } = plan else { return };
        if done.is_empty() {
            return;
        }
        let has_schema = done.iter().any(|step| matches!(step, Step::SetSchema { .. }));
        self.from_version = self.from_version.or(Some(*from_version));
        self.steps.extend(done);
        // Told of last, but begun with the schema.
        if has_schema && steps.contains(&Step::MapColumns) {
            self.steps.push(Step::MapColumns);
        }
    }

    /// All that was done: this before what the last plan says. A refusal has no steps to tell: they are logged.
    fn joined(self, plan: TablePlan) -> TablePlan {
        let Some(from_version) = self.from_version else { return plan };
        let mut all = self.steps;
        match plan {
            TablePlan::NothingToDo { table, notices } => {
                TablePlan::Change { table, from_version, steps: all, notices }
            }
            TablePlan::Change { table, steps, notices, .. } => {
                let is_told = all.contains(&Step::MapColumns);
                all.extend(steps.into_iter().filter(|step| !is_told || *step != Step::MapColumns));
                TablePlan::Change { table, from_version, steps: all, notices }
            }
            other => {
                let (table, steps) = (other.table(), all.len());
                tracing::warn!(table, steps, "steps were done before others changed the table, and stay");
                other
            }
        }
    }
}

struct Looked {
    plan: TablePlan,
    table: Option<Table>,
    wanted: Option<Schema>,
}

async fn look(lake: &TableStore, spec: &Spec, table_spec: &TableSpec) -> Result<Looked, WorkerError> {
    let registry = match spec.cluster_of(table_spec).and_then(|cluster| cluster.schema_registry.as_ref()) {
        Some(registry) => Some(HttpRegistry::new(registry).for_table(&table_spec.name)?),
        None => None,
    };
    let registry = registry.as_ref().map(|registry| registry as &dyn SchemaRegistry);
    let table = Table::open(lake, table_spec).await?;
    let live = match &table {
        Some(table) => Some(live(table).await),
        None => None,
    };
    let known = live.as_ref().map(|live| &live.schema);
    let wanted = siltstone_ingest::decoder::wanted_schema(table_spec, registry, known).await;
    let (wanted, unusable) = match wanted {
        // A table that is there goes on; what becomes of the records is in the spec.
        Err(IngestError::SchemaRefused { part, why })
            if table.is_some() && !matches!(table_spec.schema_mode, SchemaMode::Inline(_)) =>
        {
            (None, Some(incompatible(table_spec, &format!("schema {part}: {why}"))))
        }
        wanted => (wanted.for_table(&table_spec.name)?, None),
    };
    let (wanted, notices) = wanted.map_or((None, Vec::new()), |wanted| (Some(wanted.schema), wanted.notices));
    let plan = plan(table_spec, live.as_ref(), wanted.as_ref());
    let mut plan = showable(plan, table.as_ref()).await?;
    for notice in notices.into_iter().chain(unusable) {
        plan = plan.with_notice(notice);
    }
    Ok(Looked { plan, table, wanted })
}

/// The plan, or its refusal when a format of the table cannot show what it leads to.
async fn showable(plan: TablePlan, table: Option<&Table>) -> Result<TablePlan, WorkerError> {
    let checked = match (&plan, table) {
        (TablePlan::Create { table, schema: Some(schema), formats, .. }, _) => {
            formats::check_new(table, schema, formats)
        }
        (TablePlan::Change { steps, .. }, Some(table)) => {
            let state = table.state.lock().await;
            formats::check(table, &state, formats::Target::after(&state, steps)).await
        }
        _ => Ok(()),
    };
    Ok(match formats::refusal(checked)? {
        None => plan,
        Some(reason) => TablePlan::Refused { table: plan.table().to_owned(), reasons: vec![reason] },
    })
}

async fn live(table: &Table) -> LiveTable {
    let state = table.state.lock().await;
    LiveTable {
        schema: state.schema.clone(),
        partition_spec: state.partition_spec.clone(),
        sort_order: state.sort_order.clone(),
        formats: state.formats.clone(),
        partition_specs: state.partition_specs.values().cloned().collect(),
        history: state.schema_history(),
        last_schema_id: state.schemas.last_key_value().map_or(0, |(id, _)| *id),
        version: state.version,
    }
}

/// A worker goes on with the table as it is; changes of layout are `apply`'s, and people should know.
///
/// # Errors
/// `Invalid`: a column is still to be renamed or retyped. A worker that wrote now would add another one beside it, or
/// reject every record.
pub(crate) async fn check_drift(spec: &TableSpec, table: &Table) -> Result<(), WorkerError> {
    let live = live(table).await;
    if let Some(what) = pending(spec, &live.schema) {
        let message = format!("{what}, which is not done yet: run `siltstone plan`, then `siltstone apply`");
        let (code, table) = (ErrorCode::ChangesPending, spec.name.clone());
        return Err(WorkerError::Spec { code, table, message });
    }
    let plan = plan(spec, Some(&live), None);
    if !matches!(plan, TablePlan::NothingToDo { .. }) {
        tracing::warn!(table = %spec.name, "the spec differs from the table: see `siltstone plan`, then `siltstone apply`");
    }
    Ok(())
}

/// `done`: the steps that are in the ledger, also when a later one fails.
async fn apply(
    lake: &TableStore,
    spec: &TableSpec,
    looked: &Looked,
    done: &mut Vec<Step>,
) -> Result<(), WorkerError> {
    let identity = Identity::default();
    match (&looked.plan, &looked.table) {
        (TablePlan::Create { .. }, _) => {
            // Without a schema the table comes to be with its first record.
            let Some(schema) = looked.wanted.clone() else { return Ok(()) };
            let table =
                Table::open_or_create(lake, spec, schema, &identity.commit_id(), identity.now_ms()).await?;
            crate::projector::catch_up_all(&table).await
        }
        (TablePlan::Change { steps, .. }, Some(table)) => {
            let mut summed_up = Vec::new();
            for step in steps {
                summed_up.push(step.clone());
                if let Some(change) = change_of(step, table).await {
                    commit(table, change, &identity).await?;
                    done.append(&mut summed_up);
                }
            }
            crate::projector::catch_up_all(table).await
        }
        // A catalog that was added to the spec shows the table from now on.
        (TablePlan::NothingToDo { .. }, Some(table)) if table.catalog.is_some() => {
            crate::projector::catch_up_all(table).await
        }
        _ => Ok(()),
    }
}

/// The ledger change of a step; steps that another sums up have none.
async fn change_of(step: &Step, table: &Table) -> Option<Change> {
    let state = table.state.lock().await;
    match step {
        Step::SetSchema { schema } => Some(Change::SetSchema { schema: schema.clone() }),
        Step::SetPartitionSpec { partition_spec, .. } => {
            let history: Vec<_> = state.partition_specs.values().cloned().collect();
            let partition_spec = resolve::adopt_partition_spec(partition_spec, &history);
            Some(Change::SetPartitionSpec { partition_spec })
        }
        Step::SetSortOrder { sort_order, .. } => {
            let history: Vec<_> = state.sort_orders.values().cloned().collect();
            Some(Change::SetSortOrder { sort_order: resolve::adopt_sort_order(sort_order, &history) })
        }
        Step::SetFormats { formats, .. } => Some(Change::SetFormats { formats: formats.clone() }),
        _ => None,
    }
}

async fn commit(table: &Table, change: Change, identity: &Identity) -> Result<(), WorkerError> {
    let commit_id = identity.commit_id();
    let mut state = table.state.lock().await;
    match table
        .ledger
        .commit(&mut state, change, &commit_id, identity.now_ms())
        .await
        .for_table(&table.name)?
    {
        Committed::At(_) | Committed::AlreadyCovered => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from_version: u64, columns: &[&str], more: &[Step]) -> TablePlan {
        let drop = |column: &&str| Step::DropColumn { column: (*column).to_owned() };
        let steps = columns.iter().map(drop).chain(more.iter().cloned()).collect();
        TablePlan::Change { table: "t".into(), from_version, steps, notices: Vec::new() }
    }

    fn steps(plan: &TablePlan) -> &[Step] {
        match plan {
            TablePlan::Change { steps, .. } => steps,
            _ => &[],
        }
    }

    #[test]
    fn what_earlier_tries_did_is_told_with_the_last_plan() {
        let set = Step::SetSchema { schema: Schema::new(1, Vec::new()) };
        let first = change(3, &["a"], &[set.clone(), Step::MapColumns]);
        let second = change(5, &["b"], &[]);
        let earlier = || {
            let mut earlier = Earlier::default();
            earlier.add(&first, steps(&first)[..2].to_vec());
            earlier.add(&second, Vec::new());
            earlier
        };
        let all = change(3, &["a"], &[set, Step::MapColumns]);
        let nothing = || TablePlan::NothingToDo { table: "t".into(), notices: Vec::new() };
        assert_eq!(earlier().joined(nothing()), all);
        let both = earlier().joined(change(6, &["b"], &[Step::MapColumns]));
        assert_eq!(steps(&both), [steps(&all), steps(&second)].concat());
        assert_eq!(Earlier::default().joined(nothing()), nothing());
    }
}
