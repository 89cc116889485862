//! `status`, `files`, `snapshots`, `ledger`: what is there, for people and as JSON.

use siltstone_protocol::{Change, Entry};
use siltstone_worker::{
    inspect::{self, TableStatus},
    table::Table,
};

use super::{choose, load};
use crate::{
    args::{LedgerArgs, StatusArgs, TableArgs},
    output::{self, Failure, Invalid},
};

pub async fn status(args: StatusArgs) -> anyhow::Result<u8> {
    let file = args.file.as_ref().ok_or_else(|| Invalid("name a spec with -f".to_owned()))?;
    let spec = load(file)?;
    let tables: Vec<_> = spec
        .tables
        .iter()
        .filter(|table| args.table.as_ref().is_none_or(|name| name == &table.name))
        .collect();
    if let (Some(name), true) = (&args.table, tables.is_empty()) {
        return Err(Failure::unknown_table(&spec, name).into());
    }
    let all = inspect::status(&spec, &tables, !args.no_lag).await?;
    if args.json {
        output::print_json(&all)?;
        return Ok(output::DONE);
    }
    let heading = [
        "table",
        "version",
        "rows",
        "files",
        "to compact",
        "depth",
        "write amp.",
        "bytes",
        "lag",
        "last commit",
        "shown by",
        "dead letters",
    ];
    let rows: Vec<_> = all.iter().map(status_row).collect();
    output::print_table(&heading, &rows);
    Ok(output::DONE)
}

fn status_row(status: &TableStatus) -> Vec<String> {
    let dash = || "-".to_owned();
    let shown = status
        .shown
        .iter()
        .map(|(format, version)| {
            format!("{format}@{}", version.map_or(dash(), |version| version.to_string()))
        })
        .chain(status.catalog.iter().map(|catalog| format!("({catalog})")))
        .collect::<Vec<_>>();
    vec![
        status.table.clone(),
        status.version.map_or_else(dash, |version| version.to_string()),
        status.rows.to_string(),
        status.files.to_string(),
        status.compaction.map_or_else(dash, |compaction| compaction.backlog_files.to_string()),
        status.compaction.map_or_else(dash, |compaction| compaction.overlap_depth.to_string()),
        status
            .compaction
            .and_then(|compaction| compaction.write_amplification)
            .map_or_else(dash, |times| format!("{times:.2}")),
        output::bytes(status.bytes),
        status.lag_records.map_or_else(dash, |lag| lag.to_string()),
        status.last_commit_age_seconds.map_or_else(dash, |age| format!("{age:.1} s ago")),
        if shown.is_empty() { dash() } else { shown.join(" ") },
        status.dead_letters.to_string(),
    ]
}

async fn open(args: &TableArgs) -> anyhow::Result<Table> {
    let spec = load(&args.spec.file)?;
    // The dead-letter table of a table goes by its own name too.
    let dead = spec
        .tables
        .iter()
        .find(|table| args.table.as_ref().is_some_and(|name| *name == table.dead_letter_name()));
    let (table, dead_letters) = match dead {
        Some(table) => (table, true),
        None => (choose(&spec, args)?, false),
    };
    let lake = inspect::open_lake(&spec)?;
    let found = inspect::open_table(&lake, table, dead_letters).await?;
    found.ok_or_else(|| Failure::no_table_yet(table).into())
}

pub async fn files(args: TableArgs) -> anyhow::Result<u8> {
    let table = open(&args).await?;
    let live = inspect::live_files(&table).await?;
    if args.spec.json {
        output::print_json(&live.files)?;
        return Ok(output::DONE);
    }
    let rows: Vec<_> = live
        .files
        .iter()
        .map(|file| {
            vec![
                file.path.clone(),
                file.rows.to_string(),
                output::bytes(file.bytes),
                file.schema_id.to_string(),
                file.spec_id.to_string(),
                file.sort_order_id.to_string(),
            ]
        })
        .collect();
    output::print_table(&["file", "rows", "bytes", "schema", "spec", "order"], &rows);
    Ok(output::DONE)
}

pub async fn ledger(args: LedgerArgs) -> anyhow::Result<u8> {
    let table = open(&args.table).await?;
    let entries = inspect::ledger(&table, args.from, args.limit).await?;
    if args.table.spec.json {
        output::print_json(&entries)?;
        return Ok(output::DONE);
    }
    let rows: Vec<_> = entries.iter().map(|entry| ledger_row(entry)).collect();
    output::print_table(&["version", "kind", "committed", "files", "rows", "offsets", "rejected"], &rows);
    Ok(output::DONE)
}

fn ledger_row(entry: &Entry) -> Vec<String> {
    let (files, offsets, rejected) = match &entry.change {
        Change::Append { files, ranges, rejected, .. }
        | Change::Overwrite { added: files, ranges, rejected, .. } => (
            files.as_slice(),
            ranges.iter().map(|range| range.end - range.start).sum::<i64>(),
            rejected.iter().map(|count| count.records).sum::<u64>(),
        ),
        Change::Replace { added, .. } | Change::Absorb { added, .. } => (added.as_slice(), 0, 0),
        _ => (&[] as &[_], 0, 0),
    };
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    vec![
        entry.version.to_string(),
        entry.change.kind().to_owned(),
        chrono::DateTime::from_timestamp_millis(entry.committed_ms)
            .map_or("-".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S%.3fZ").to_string()),
        files.len().to_string(),
        rows.to_string(),
        offsets.to_string(),
        rejected.to_string(),
    ]
}

pub async fn snapshots(args: TableArgs) -> anyhow::Result<u8> {
    let table = open(&args).await?;
    let snapshots = inspect::snapshots(&table).await?;
    if args.spec.json {
        output::print_json(&snapshots)?;
        return Ok(output::DONE);
    }
    let rows: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            vec![
                snapshot.snapshot_id.to_string(),
                snapshot.committed.clone(),
                snapshot.operation.clone(),
                snapshot.ledger_version.map_or("-".to_owned(), |version| version.to_string()),
                snapshot.added_rows.to_string(),
                snapshot.total_rows.to_string(),
            ]
        })
        .collect();
    output::print_table(&["snapshot", "committed", "operation", "ledger", "added rows", "total rows"], &rows);
    Ok(output::DONE)
}
