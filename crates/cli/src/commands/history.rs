//! `backfill` and `reset`: stretches of history, once more or for the first time.

use std::{io::IsTerminal, sync::Arc};

use siltstone_worker::{
    progress::Progress,
    reingest::{self, Bound, HistoryOptions, HistorySummary, PartitionPlan},
};

use super::{choose, files, load, run};
use crate::{
    args::{BackfillArgs, HistoryArgs, ResetArgs},
    output::{self, Invalid},
};

/// Partitions that are listed one by one.
const PARTITIONS_SHOWN: usize = 40;

pub async fn backfill(args: BackfillArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.table.spec.file)?;
    let table = choose(&spec, &args.table)?;
    let options = options(&args.how, args.from, args.to)?;
    if let Some(url) = &args.files.files {
        let means = files::Means {
            dry_run: options.dry_run,
            memory_bytes: options.memory_bytes,
            spill_dir: options.spill_dir,
            spill_bytes_max: options.spill_bytes_max,
            json: args.table.spec.json,
            quiet,
        };
        return files::backfill(&spec, table, url, &args.files, means).await;
    }
    let progress = Arc::new(Progress::default());
    let bar = run::bar(!options.dry_run && !quiet && !args.table.spec.json);
    let drawing = tokio::spawn(run::draw(bar.clone(), progress.clone()));
    let done = reingest::backfill(&spec, table, options, progress, run::stop_signal()?).await;
    drawing.abort();
    bar.finish_and_clear();
    report(&done?, args.table.spec.json, "backfill")
}

pub async fn reset(args: ResetArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.table.spec.file)?;
    let table = choose(&spec, &args.table)?;
    let options = options(&args.how, args.from, args.to)?;
    let progress = Arc::new(Progress::default());
    let bar = run::bar(!options.dry_run && !quiet && !args.table.spec.json);
    let drawing = tokio::spawn(run::draw(bar.clone(), progress.clone()));
    let done = reingest::reset(&spec, table, options, progress, run::stop_signal()?).await;
    drawing.abort();
    bar.finish_and_clear();
    report(&done?, args.table.spec.json, "reset")
}

fn options(args: &HistoryArgs, from: Bound, to: Bound) -> anyhow::Result<HistoryOptions> {
    let size = |text: &str| siltstone_spec::quantity::parse_size(text).filter(|bytes| *bytes > 0);
    let limit = size(&args.spill_limit);
    Ok(HistoryOptions {
        from,
        to,
        partitions: args.partitions.clone(),
        dry_run: args.dry_run,
        memory_bytes: run::memory(&args.memory)?,
        spill_dir: args.spill_dir.clone().unwrap_or_else(std::env::temp_dir),
        spill_bytes_max: limit.ok_or_else(|| Invalid("--spill-limit takes a size, e.g. 16GiB".to_owned()))?,
    })
}

fn report(summary: &HistorySummary, json: bool, what: &str) -> anyhow::Result<u8> {
    if json {
        output::print_json(summary)?;
        return Ok(output::DONE);
    }
    let row = |plan: &PartitionPlan| {
        vec![
            plan.partition.to_string(),
            plan.offsets().to_string(),
            plan.held.to_string(),
            plan.gone.to_string(),
            plan.ahead.to_string(),
        ]
    };
    let shown = summary.partitions.iter().take(PARTITIONS_SHOWN).map(row).collect::<Vec<_>>();
    output::print_table(&["partition", "offsets to read", "held", "gone from the topic", "ahead"], &shown);
    if summary.partitions.len() > PARTITIONS_SHOWN {
        println!("... and {} more partitions", summary.partitions.len() - PARTITIONS_SHOWN);
    }
    if summary.offsets == 0 {
        println!("{}: nothing to read", summary.table);
    } else if summary.dry_run {
        println!("{}: {what} would read {} offsets", summary.table, summary.offsets);
        if summary.rows_removed > 0 {
            println!("{} rows would leave and come anew", summary.rows_removed);
        }
    } else {
        println!(
            "{}: {} offsets read: {} rows in {} files, {} rejected, {} commits; {} rows left",
            summary.table,
            summary.offsets,
            summary.rows,
            summary.files,
            summary.rejected,
            summary.commits,
            summary.rows_removed
        );
    }
    if summary.partitions.iter().any(|plan| plan.ahead > 0) && std::io::stderr().is_terminal() {
        eprintln!("offsets ahead are those that live workers have yet to read");
    }
    Ok(output::DONE)
}
