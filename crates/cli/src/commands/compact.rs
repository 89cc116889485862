//! `compact`: rewrites files by hand, until nothing is left to do.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siltstone_worker::{
    compactor::{CompactionSummary, compact as compact_table},
    inspect,
};

use super::{load, run};
use crate::{
    args::CompactArgs,
    output::{self, Failure},
};

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
        let bar = bar(&table.name, !args.dry_run && !quiet && !args.spec.json);
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
    let stopped = summaries.iter().any(|summary| summary.stopped);
    if stopped {
        eprintln!("stopped before the end; what was committed stays, the rest is for the next call");
    }
    Ok(if failed || stopped { output::FAILED } else { output::DONE })
}

fn bar(table: &str, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
    let template = "{msg}  {bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(table.to_owned());
    bar
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
