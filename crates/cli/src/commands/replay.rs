//! `dead-letters replay`: makes rows of dead letters that can be rows by now.

use std::collections::BTreeMap;

use siltstone_protocol::RejectReason;
use siltstone_worker::{
    WorkerError, inspect,
    replay::{ReplayOptions, ReplaySummary, Selection, replay as replay_table},
};

use super::{choose, load, run};
use crate::{args::ReplayArgs, output};

const BAR: &str = "{msg}  {bar:30} {pos}/{len} dead letters  {per_sec}  eta {eta}";

pub async fn replay(args: ReplayArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.table.spec.file)?;
    let table = choose(&spec, &args.table)?;
    let options = ReplayOptions {
        selection: Selection { reason: args.reason, partition: args.partition, from: args.from, to: args.to },
        dry_run: args.dry_run,
        memory_bytes: run::memory(&args.memory)?,
    };
    let lake = inspect::open_lake(&spec)?;
    let stop = run::stop_signal()?;
    let bar = output::bar(BAR, Some(0), !quiet && !args.table.spec.json);
    bar.set_message(table.name.clone());
    let mut progress = |all: u64, done: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let ended = replay_table(&spec, &lake, table, &options, stop, &mut progress).await;
    bar.finish_and_clear();
    let summary = ended?;
    if args.table.spec.json {
        output::print_json(&summary)?;
    } else {
        report(&summary);
    }
    if summary.stopped {
        return Err(WorkerError::Stopped { table: summary.table }.into());
    }
    Ok(output::DONE)
}

fn report(summary: &ReplaySummary) {
    if !summary.exists {
        println!("no dead letters of {}", summary.table);
        return;
    }
    let what = if summary.dry_run { "would become rows" } else { "became rows" };
    let mut rows = vec![vec![what.to_owned(), summary.rows.to_string()]];
    let mut add = |what: &str, counts: &BTreeMap<RejectReason, u64>| {
        let row =
            |(reason, count): (&RejectReason, &u64)| vec![format!("{what} ({reason})"), count.to_string()];
        rows.extend(counts.iter().map(row));
    };
    add("passed over", &summary.passed_over);
    add("still rejected", &summary.still_rejected);
    rows.push(vec!["not tried".to_owned(), summary.left.to_string()]);
    if !summary.dry_run {
        rows.push(vec!["marked as replayed".to_owned(), summary.marked.to_string()]);
    }
    output::print_table(&[summary.table.as_str(), "dead letters"], &rows);
}
