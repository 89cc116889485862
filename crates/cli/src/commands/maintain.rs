//! `expire` and `vacuum`: one round of maintenance by hand.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::ProgressBar;
use siltstone_spec::{Spec, TableSpec};
use siltstone_worker::maintenance::{self, Sweep, TableExpired, TableVacuumed, VacuumOptions};

use super::load;
use crate::{
    args::{ExpireArgs, VacuumArgs},
    output::{self, Failure, Invalid},
};

const BAR: &str = "{spinner} {pos} files looked at  {per_sec}  {msg}";

pub async fn expire(args: ExpireArgs) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let tables = chosen(&spec, &args.tables)?;
    let all = maintenance::expire(&spec, &tables, args.dry_run).await?;
    if args.spec.json {
        output::print_json(&all)?;
        return Ok(output::DONE);
    }
    let heading = [
        "table",
        "rows",
        "row files",
        "row bytes",
        "files cut",
        "rows cut",
        "snapshots",
        "snapshots left",
        "delta log",
        "ledger entries",
    ];
    output::print_table(&heading, &all.iter().map(expired_row).collect::<Vec<_>>());
    say_dry(args.dry_run);
    Ok(output::DONE)
}

fn expired_row(expired: &TableExpired) -> Vec<String> {
    let dash = || "-".to_owned();
    let rows = expired.rows.as_ref();
    let cut = rows.and_then(|rows| rows.cut.as_ref());
    let history = &expired.history;
    vec![
        expired.table.clone(),
        rows.map_or_else(dash, |rows| rows.rows.to_string()),
        rows.map_or_else(dash, |rows| rows.files.to_string()),
        rows.map_or_else(dash, |rows| output::bytes(rows.bytes)),
        cut.map_or_else(dash, |cut| cut.files.to_string()),
        cut.map_or_else(dash, |cut| cut.rows.to_string()),
        history.snapshots.expired.to_string(),
        history.snapshots.left.to_string(),
        format!("{} ({})", history.delta_log.files, output::bytes(history.delta_log.bytes)),
        format!("{} ({})", history.ledger_entries.files, output::bytes(history.ledger_entries.bytes)),
    ]
}

pub async fn vacuum(args: VacuumArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let tables = chosen(&spec, &args.tables)?;
    let older_than = args.older_than.as_deref().map(age).transpose()?;
    let options = VacuumOptions { dry_run: args.dry_run, older_than, ..VacuumOptions::default() };
    let progress = Sweep::default();
    let bar = output::bar(BAR, None, !quiet && !args.spec.json);
    let vacuumed = maintenance::vacuum(&spec, &tables, options, &progress);
    let all = tokio::select! {
        all = vacuumed => all,
        never = draw(&bar, &progress) => match never {},
    };
    bar.finish_and_clear();
    let all = all?;
    if args.spec.json {
        output::print_json(&all)?;
        return Ok(output::DONE);
    }
    let rows: Vec<_> = all.iter().flat_map(vacuumed_rows).collect();
    output::print_table(&["table", "what", "files", "bytes"], &rows);
    say_dry(args.dry_run);
    Ok(output::DONE)
}

fn vacuumed_rows(vacuumed: &TableVacuumed) -> Vec<Vec<String>> {
    let report = &vacuumed.report;
    let row = |what: &str, files: u64, bytes: u64| {
        vec![vacuumed.table.clone(), what.to_owned(), files.to_string(), output::bytes(bytes)]
    };
    let verb = if report.dry_run { "to delete" } else { "deleted" };
    let deleted = report.deleted.iter();
    let mut rows: Vec<_> = deleted
        .map(|(kind, count)| row(&format!("{verb}: {}", kind.replace('_', " ")), count.files, count.bytes))
        .collect();
    let all = report.deleted_all();
    rows.push(row(&format!("{verb}, in all"), all.files, all.bytes));
    rows.push(row("kept", report.kept.files, report.kept.bytes));
    if report.foreign.files > 0 {
        rows.push(row("other programs', left", report.foreign.files, report.foreign.bytes));
    }
    rows
}

fn say_dry(dry_run: bool) {
    if dry_run {
        eprintln!("dry run: nothing was changed");
    }
}

fn age(text: &str) -> anyhow::Result<Duration> {
    let least = siltstone_worker::maintenance::AGE_MIN;
    let age = siltstone_spec::quantity::parse_duration(text).filter(|age| *age >= least);
    let problem = || Invalid("--older-than takes an age of at least 1h, e.g. 12h or 3d".to_owned());
    Ok(age.ok_or_else(problem)?)
}

/// The tables of these names, or all of them.
fn chosen<'a>(spec: &'a Spec, names: &[String]) -> anyhow::Result<Vec<&'a TableSpec>> {
    if let Some(name) = names.iter().find(|name| !spec.tables.iter().any(|table| table.name == **name)) {
        return Err(Failure::unknown_table(spec, name).into());
    }
    let wanted = |table: &&TableSpec| names.is_empty() || names.contains(&table.name);
    Ok(spec.tables.iter().filter(wanted).collect())
}

async fn draw(bar: &ProgressBar, progress: &Sweep) -> std::convert::Infallible {
    loop {
        bar.set_position(progress.listed.load(Ordering::Relaxed));
        let (files, bytes) =
            (progress.deleted.load(Ordering::Relaxed), progress.deleted_bytes.load(Ordering::Relaxed));
        bar.set_message(format!("{files} deleted, {}", output::bytes(bytes)));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
