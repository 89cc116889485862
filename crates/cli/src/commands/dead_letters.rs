//! `dead-letters`: which records were rejected, where, how many, why, and what would change that.
//!
//! Keys and values are shown only if asked for, and only on a terminal: nothing that goes to a file, a pipe or a log
//! has them.

use std::io::IsTerminal;

use arrow::{
    array::{Array, BinaryArray, RecordBatch},
    json::ArrayWriter,
    util::display::{ArrayFormatter, FormatOptions},
};
use siltstone_protocol::RejectReason;
use siltstone_worker::{inspect, replay::REPLAYED_AT, table::Table};

use super::{choose, load, query::ask_of};
use crate::{
    args::DeadLettersArgs,
    output::{self, Invalid},
    pages::advice,
};

/// Characters of a key or value that are shown.
const SHOWN_MAX: usize = 200;

pub async fn list(args: DeadLettersArgs) -> anyhow::Result<u8> {
    let spec = load(&args.table.spec.file)?;
    let table = choose(&spec, &args.table)?;
    let name = table.dead_letter_name();
    if args.show_values && (args.table.spec.json || !std::io::stdout().is_terminal()) {
        let why = "--show-values prints records, so it takes a terminal, and no --json; elsewhere, read the table \
                   itself, e.g. with `siltstone query`";
        return Err(Invalid(why.to_owned()).into());
    }
    let lake = inspect::open_lake(&spec)?;
    let batches = match inspect::open_table(&lake, table, true).await? {
        Some(letters) => {
            let columns = Columns::of(&letters).await;
            ask_of(&[letters], &statement(&args, &name, columns)).await?
        }
        None => Vec::new(),
    };
    if args.table.spec.json {
        let mut rows = ArrayWriter::new(std::io::stdout());
        rows.write_batches(&batches.iter().collect::<Vec<_>>())?;
        rows.finish()?;
        println!();
        return Ok(output::DONE);
    }
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        println!("no dead letters in {name}");
        return Ok(output::DONE);
    }
    print(&batches)?;
    if args.records.is_none() {
        println!();
        for reason in reasons(&batches) {
            println!("{reason}: {}", advice(reason));
        }
        if !args.all {
            println!("\nafter that was mended: siltstone dead-letters replay");
        }
    }
    Ok(output::DONE)
}

/// What a dead-letter table has: one that an older program made, and no worker of this one used, lacks some.
#[derive(Debug, Clone, Copy)]
struct Columns {
    replayed_at: bool,
    about: bool,
}

impl Columns {
    async fn of(letters: &Table) -> Self {
        let state = letters.state.lock().await;
        let has = |name: &str| state.schema.column(name).is_some();
        Self { replayed_at: has(REPLAYED_AT), about: has("field") && has("detail") }
    }
}

/// The statement over the dead-letter table. Its only texts are names of the spec and closed codes.
fn statement(args: &DeadLettersArgs, table: &str, columns: Columns) -> String {
    let table = table.replace('"', "\"\"");
    let mut only = vec!["true".to_owned()];
    only.extend(args.reason.map(|reason| format!(r#""reason" = '{reason}'"#)));
    let replayed = if columns.replayed_at { r#""replayed_at""# } else { "NULL" };
    if !args.all {
        only.push(format!("{replayed} IS NULL"));
    }
    let only = format!("WHERE {}", only.join(" AND "));
    // Some of these names are words of SQL.
    let place = r#""cluster", "topic", "partition""#;
    match args.records {
        Some(limit) => {
            let values = if args.show_values { r#", "key", "value""# } else { "" };
            let about = if columns.about { r#", "field", "detail""# } else { "" };
            let at = if args.all && columns.replayed_at { r#", "replayed_at""# } else { "" };
            format!(
                r#"SELECT {place}, "offset", "timestamp", "schema_id", "reason"{about}, "rejected_at"{at}{values}
                FROM "{table}" {only} ORDER BY "rejected_at" DESC, {place}, "offset" DESC LIMIT {limit}"#
            )
        }
        None => {
            let replayed = match (args.all, columns.replayed_at) {
                (false, _) => "",
                (true, true) => r#"count("replayed_at") AS "replayed", "#,
                (true, false) => r#"0 AS "replayed", "#,
            };
            format!(
                r#"SELECT "reason", {place}, count(*) AS "records", {replayed}min("offset") AS "first_offset",
                max("offset") AS "last_offset", max("rejected_at") AS "newest" FROM "{table}" {only}
            GROUP BY "reason", {place} ORDER BY "records" DESC, "reason", {place}"#
            )
        }
    }
}

fn print(batches: &[RecordBatch]) -> anyhow::Result<()> {
    let Some(first) = batches.first() else { return Ok(()) };
    let schema = first.schema();
    let heading: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        rows.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.at(row)).collect::<Vec<_>>()),
        );
    }
    output::print_table(&heading, &rows);
    Ok(())
}

/// A column as people read it.
enum Cells<'a> {
    Bytes(&'a BinaryArray),
    Plain(ArrayFormatter<'a>, &'a dyn Array),
}

impl<'a> Cells<'a> {
    fn new(column: &'a arrow::array::ArrayRef) -> anyhow::Result<Self> {
        match column.as_any().downcast_ref::<BinaryArray>() {
            Some(bytes) => Ok(Self::Bytes(bytes)),
            None => {
                let options = FormatOptions::default();
                Ok(Self::Plain(ArrayFormatter::try_new(column.as_ref(), &options)?, column.as_ref()))
            }
        }
    }

    fn at(&self, row: usize) -> String {
        match self {
            Self::Bytes(bytes) if bytes.is_null(row) => "null".to_owned(),
            Self::Bytes(bytes) => shown(bytes.value(row)),
            Self::Plain(_, column) if column.is_null(row) => "-".to_owned(),
            Self::Plain(cells, _) => cells.value(row).to_string(),
        }
    }
}

/// Bytes as text in which nothing can steer a terminal, cut short.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The reasons that occur, in their own order.
fn reasons(batches: &[RecordBatch]) -> Vec<RejectReason> {
    let occurs = |reason: &RejectReason| {
        batches.iter().filter_map(|batch| batch.column_by_name("reason")).any(|column| {
            let texts = column.as_any().downcast_ref::<arrow::array::StringArray>();
            texts.is_some_and(|texts| texts.iter().flatten().any(|text| text == reason.as_str()))
        })
    };
    RejectReason::ALL.iter().copied().filter(occurs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_cannot_steer_a_terminal() {
        assert_eq!(shown(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\u{fffd}");
        assert_eq!(shown("ä".repeat(300).as_bytes()), format!("{}…", "ä".repeat(200)));
    }
}
