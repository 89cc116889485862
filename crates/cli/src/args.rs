//! The command line, as people type it.

mod files;
mod history;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use siltstone_protocol::RejectReason;

pub use self::{
    files::FileArgs,
    history::{BackfillArgs, HistoryArgs, ResetArgs},
};

/// Kafka topics as Iceberg and Delta tables, in your own bucket.
#[derive(Debug, Parser)]
#[command(name = "siltstone", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log lines as text for people or as JSON for machines.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to log, e.g. `info`, `debug`, `siltstone_worker=trace`. Default: RUST_LOG, else `info`
    /// for `run` and `warn` for other commands.
    #[arg(long, global = true)]
    pub log_level: Option<String>,
    /// Less: only errors are logged, no progress bars.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: a broker in this process, sample orders, both table formats, a query.
    Quickstart(QuickstartArgs),
    /// Check table specs, or print their JSON Schema.
    #[command(subcommand)]
    Spec(SpecCommand),
    /// Show what `apply` would change. Changes nothing.
    Plan(PlanArgs),
    /// Create and change tables until they are as the spec says.
    Apply(ApplyArgs),
    /// Be a worker: read topics, write and commit tables, until told to stop.
    Run(RunArgs),
    /// Read history that no worker read: offsets of the topic that the table does not cover.
    Backfill(BackfillArgs),
    /// Read a range of the topic anew, and put its rows in the place of those that the table has of it. All rows of the
    /// table must say which records they were made from: `kafka_metadata: true`, and none from files.
    Reset(ResetArgs),
    /// Rewrite many small or overlapping data files into few sorted ones, now.
    Compact(CompactArgs),
    /// Version, rows, files, positions, lag and freshness of each table.
    Status(StatusArgs),
    /// Keep the URL of a control plane and the API key to it, for `tables` and `status --remote`.
    Login(LoginArgs),
    /// The tables that a control plane knows (after `login`).
    Tables(RemoteArgs),
    /// The live data files of a table.
    Files(TableArgs),
    /// The Iceberg snapshots of a table.
    Snapshots(TableArgs),
    /// The ledger entries of a table, newest last.
    Ledger(LedgerArgs),
    /// Apply retention once: old rows, Iceberg snapshots, Delta log and ledger entries.
    Expire(ExpireArgs),
    /// Delete data and metadata files that nothing names any more, once.
    Vacuum(VacuumArgs),
    /// Records that could not become rows: reasons, counts, positions, and what would change it.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Every field that can leave for the control plane under a spec, with examples; and what never can.
    Disclosures(DisclosuresArgs),
    /// Ask SQL of the tables.
    Query(QueryArgs),
    /// What an error code or a dead letter's reason means, and what to do; without one, all of them.
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// Where the demonstration's tables go; what an earlier one left there is replaced.
    #[arg(long, default_value = "./siltstone-demo")]
    pub dir: PathBuf,
    /// How many sample orders.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    pub orders: u32,
    /// Go on producing and ingesting until interrupted.
    #[arg(long)]
    pub keep_running: bool,
}

#[derive(Debug, Subcommand)]
pub enum SpecCommand {
    /// Check a spec file: all faults at once, each with its line.
    Check(SpecArgs),
    /// Print the JSON Schema of spec files, for editors.
    Schema,
    /// Print the field reference (Markdown).
    Reference,
}

#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The spec file.
    #[arg(long, short = 'f', value_name = "SPEC")]
    pub file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Base URL of the control plane: https, or http to this machine itself.
    #[arg(long)]
    pub url: String,
    /// File with the API key. Default: SILTSTONE_CONTROL_PLANE_KEY, else the standard input.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file of trusted authorities, instead of the usual ones.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub struct RemoteArgs {
    /// Only this environment, by name or id.
    #[arg(long)]
    pub environment: Option<String>,
    /// Only this cluster, by name or id.
    #[arg(long)]
    pub cluster: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DisclosuresArgs {
    /// The spec file.
    #[arg(long, short = 'f', value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the document about all specs (Markdown).
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Exit with 3 when there is something to change.
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Drop and retype columns as the spec says, though readers no longer see their values in rows already written.
    #[arg(long)]
    pub allow_data_loss: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Stop when the end offsets seen at the start are committed and readable.
    #[arg(long)]
    pub once: bool,
    /// The memory budget of the process, e.g. `512MiB`.
    #[arg(long, default_value = "512MiB", env = "SILTSTONE_MEMORY")]
    pub memory: String,
    /// Serve /metrics, /healthz, /readyz and, with `readers_catalog` in the spec, /iceberg here, e.g.
    /// `127.0.0.1:9090`.
    #[arg(long, env = "SILTSTONE_HTTP")]
    pub http: Option<SocketAddr>,
    /// Only these tables of the spec.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What is told to the control plane, when the spec names one.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Keep a readable copy of everything that is sent to the control plane in this file (64 MiB, and FILE.1).
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Send no sample of events (closed codes and counts) to the control plane.
    #[arg(long, env = "SILTSTONE_DISABLE_LOGS_COLLECTION", value_parser = clap::builder::FalseyValueParser::new())]
    pub disable_logs_collection: bool,
    /// Send no sample of where time is spent (names of functions and counts) to the control plane.
    #[arg(long, env = "SILTSTONE_DISABLE_PROFILE_FORWARDING",
        value_parser = clap::builder::FalseyValueParser::new())]
    pub disable_profile_forwarding: bool,
    /// The availability zone of this worker: letters, digits and dashes.
    #[arg(long, env = "SILTSTONE_ZONE")]
    pub zone: Option<String>,
}

#[derive(Debug, Args)]
pub struct CompactArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Only these tables of the spec.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Only say what would be rewritten.
    #[arg(long)]
    pub dry_run: bool,
    /// The memory budget of the process, e.g. `512MiB`.
    #[arg(long, default_value = "512MiB", env = "SILTSTONE_MEMORY")]
    pub memory: String,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The spec file.
    #[arg(long, short = 'f', value_name = "SPEC", required_unless_present = "remote")]
    pub file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// As the control plane has it (after `login`), of all tables that the key may read.
    #[arg(long, conflicts_with_all = ["file", "no_lag"])]
    pub remote: bool,
    /// Only this table.
    pub table: Option<String>,
    /// Do not ask the brokers for end offsets.
    #[arg(long)]
    pub no_lag: bool,
}

#[derive(Debug, Args)]
pub struct TableArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// The table; may be left out when the spec has one only.
    pub table: Option<String>,
}

#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// First version to show.
    #[arg(long)]
    pub from: Option<u64>,
    /// At most so many entries, the newest ones.
    #[arg(long, default_value_t = 20)]
    pub limit: u64,
}

#[derive(Debug, Args)]
pub struct ExpireArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Only these tables of the spec, each with its dead letters.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Say what would leave; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct VacuumArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Only these tables of the spec, each with its dead letters.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Say what would be deleted; delete nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Only files older than this, instead of the spec's `retention.orphans`. At least 1h.
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Reasons with counts and offsets; with --records, the newest records by their positions. Open ones, unless --all.
    List(DeadLettersArgs),
    /// Make rows of those that can be rows by now, once: after the schema or the spec was mended.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// Only records that were rejected for this reason, e.g. `wrong_type`.
    #[arg(long, value_parser = reason)]
    pub reason: Option<RejectReason>,
    /// Show so many single records, the newest ones, instead of counts.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub records: Option<u32>,
    /// Those too that were replayed.
    #[arg(long)]
    pub all: bool,
    /// Show keys and values of the records too, cut short. On a terminal only.
    #[arg(long, requires = "records")]
    pub show_values: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// Only records that were rejected for this reason, e.g. `unknown_schema_id`.
    #[arg(long, value_parser = reason)]
    pub reason: Option<RejectReason>,
    /// Only records of this partition of the topic.
    #[arg(long)]
    pub partition: Option<i32>,
    /// Only records from this offset on.
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub from: Option<i64>,
    /// Only records below this offset.
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub to: Option<i64>,
    /// Try them, and say what would become of them; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The memory budget of the process, e.g. `512MiB`.
    #[arg(long, default_value = "512MiB", env = "SILTSTONE_MEMORY")]
    pub memory: String,
}

fn reason(text: &str) -> Result<RejectReason, String> {
    let known = RejectReason::ALL.iter().copied().find(|reason| reason.as_str() == text);
    let all = || RejectReason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    known.ok_or_else(|| format!("the reasons are: {}", all()))
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code, as in `error[lost_range]: ...`, or a reason of dead letters, e.g. `wrong_type`.
    pub code: Option<String>,
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// The statement. Tables go by their names in the spec; quote names with dots: "shop.orders".
    pub sql: String,
}
