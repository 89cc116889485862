//! One module a command; each returns its exit code.

mod apply;
mod compact;
mod dead_letters;
mod disclosures;
mod explain;
mod files;
mod history;
mod inspect;
mod maintain;
mod query;
mod quickstart;
mod remote;
mod replay;
mod run;
mod spec;

use std::path::Path;

use siltstone_spec::{Spec, TableSpec};

use crate::{
    args::{Cli, Command, DeadLettersCommand, TableArgs},
    output::{Failure, Invalid},
};

/// Runs the command.
pub async fn execute(cli: Cli) -> anyhow::Result<u8> {
    let quiet = cli.log.quiet;
    match cli.command {
        Command::Quickstart(args) => quickstart::quickstart(args, quiet).await,
        Command::Spec(command) => spec::spec(command),
        Command::Plan(args) => apply::plan(args).await,
        Command::Apply(args) => apply::apply(args).await,
        Command::Run(args) => run::run(args, quiet).await,
        Command::Backfill(args) => history::backfill(args, quiet).await,
        Command::Reset(args) => history::reset(args, quiet).await,
        Command::Compact(args) => compact::compact(args, quiet).await,
        Command::Login(args) => remote::login(args).await,
        Command::Tables(args) => remote::tables(args).await,
        Command::Status(args) if args.remote => remote::status(args).await,
        Command::Status(args) => inspect::status(args).await,
        Command::Files(args) => inspect::files(args).await,
        Command::Snapshots(args) => inspect::snapshots(args).await,
        Command::Ledger(args) => inspect::ledger(args).await,
        Command::Expire(args) => maintain::expire(args).await,
        Command::Vacuum(args) => maintain::vacuum(args, quiet).await,
        Command::Disclosures(args) => disclosures::disclosures(&args),
        Command::DeadLetters(DeadLettersCommand::List(args)) => dead_letters::list(args).await,
        Command::DeadLetters(DeadLettersCommand::Replay(args)) => replay::replay(args, quiet).await,
        Command::Query(args) => query::query(args).await,
        Command::Explain(args) => explain::explain(&args),
    }
}

fn load(path: &Path) -> anyhow::Result<Spec> {
    Ok(Spec::load(path)?)
}

/// The table that the command names, or the only one there is.
fn choose<'a>(spec: &'a Spec, args: &TableArgs) -> anyhow::Result<&'a TableSpec> {
    let names = || spec.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&args.table, spec.tables.as_slice()) {
        (None, [table]) => Ok(table),
        (None, _) => Err(Invalid(format!("name one of the tables: {}", names())).into()),
        (Some(name), tables) => match tables.iter().find(|table| &table.name == name) {
            Some(table) => Ok(table),
            None => Err(Failure::unknown_table(spec, name).into()),
        },
    }
}
