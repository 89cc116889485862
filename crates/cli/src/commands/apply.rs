//! `plan` and `apply`.

use std::collections::BTreeSet;

use siltstone_spec::plan::TablePlan;
use siltstone_worker::apply::{Loss, apply_all, plan_all};

use super::load;
use crate::{
    args::{ApplyArgs, PlanArgs},
    output,
};

pub async fn plan(args: PlanArgs) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let plans = plan_all(&spec).await?;
    show(&plans, args.spec.json)?;
    if plans.iter().any(TablePlan::is_refused) {
        return Ok(output::INVALID);
    }
    let changes = plans.iter().any(|plan| !matches!(plan, TablePlan::NothingToDo { .. }));
    Ok(if changes && args.exit_code { output::CHANGES } else { output::DONE })
}

pub async fn apply(args: ApplyArgs) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let loss = if args.allow_data_loss { Loss::Allowed } else { Loss::Refused };
    let plans = apply_all(&spec, loss).await?;
    show(&plans, args.spec.json)?;
    Ok(if plans.iter().any(TablePlan::is_refused) { output::INVALID } else { output::DONE })
}

fn show(plans: &[TablePlan], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&plans);
    }
    let mut codes = BTreeSet::new();
    for plan in plans {
        println!("{plan}");
        if let TablePlan::Refused { reasons, .. } = plan {
            codes.extend(reasons.iter().map(|reason| reason.code));
        }
    }
    output::print_hint(codes);
    Ok(())
}
