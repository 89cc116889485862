//! `compact`: rewrites files by hand, until nothing is left to do.

use siltstone_worker::{
    WorkerError,
    compactor::{CompactionSummary, compact as compact_table},
    inspect,
};

use super::{load, run};
use crate::{
    args::CompactArgs,
    output::{self, Failure},
};

const BAR: &str = "{msg}  {bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  eta {eta}";

pub async fn compact(args: CompactArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let memory_bytes = run::memory(&args.memory)?;
    if let Some(name) = args.tables.iter().find(|name| !spec.tables.iter().any(|table| &table.name == *name))
    {
        return Err(Failure::unknown_table(&spec, name).into());
    }
    let lake = inspect::open_lake(&spec)?;
    let stop = run::stop_signal()?;
    let mut summaries = Vec::new();
    for table in spec.tables.iter().filter(|t| args.tables.is_empty() || args.tables.contains(&t.name)) {
        let bar = output::bar(BAR, Some(0), !args.dry_run && !quiet && !args.spec.json);
        bar.set_message(table.name.clone());
        let mut progress = |all: u64, done: u64| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let done = compact_table(&lake, table, memory_bytes, args.dry_run, stop.clone(), &mut progress).await;
        bar.finish_and_clear();
        summaries.push(done?);
        if *stop.borrow() {
            break;
        }
    }
    report(&summaries, args.spec.json)?;
    let failed = summaries.iter().any(|summary| summary.done.failed > 0);
    if let Some(stopped) = summaries.into_iter().find(|summary| summary.stopped) {
        return Err(WorkerError::Stopped { table: stopped.table }.into());
    }
    Ok(if failed { output::FAILED } else { output::DONE })
}

fn report(summaries: &[CompactionSummary], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&summaries);
    }
    let row = |summary: &CompactionSummary| {
        let done = &summary.done;
        vec![
            summary.table.clone(),
            done.plans.to_string(),
            done.committed.to_string(),
            done.dropped.to_string(),
            done.failed.to_string(),
            done.input_files.to_string(),
            done.output_files.to_string(),
            done.rows.to_string(),
            output::bytes(done.input_bytes),
            output::bytes(done.output_bytes),
            output::bytes(done.spliced_bytes),
        ]
    };
    let heading = [
        "table",
        "plans",
        "done",
        "dropped",
        "failed",
        "files in",
        "files out",
        "rows",
        "in",
        "out",
        "spliced",
    ];
    output::print_table(&heading, &summaries.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
