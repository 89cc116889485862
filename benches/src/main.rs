//! `siltstone-bench`: the workloads of the benchmarks, and a registry endpoint that knows their schemas.
//!
//! `ingest.py` beside this crate drives it; see `README.md`.

#![allow(clippy::print_stdout, reason = "a program for people")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod commits;
mod compact;
mod container;
mod produce;
mod registry;
mod rows;
mod stages;

use clap::{Parser, Subcommand};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a topic with a workload.
    Produce(produce::ProduceArgs),
    /// Write files as ingest leaves them, and measure each way of rewriting them, and planning.
    Compact(compact::CompactArgs),
    /// Measure what a commit costs, on tables of more and more files and after more and more commits.
    Commits(commits::CommitsArgs),
    /// Write a workload's rows as an Avro object container file.
    Container(container::ContainerArgs),
    /// Measure the stages of ingestion, each alone.
    Stages(stages::StagesArgs),
    /// Serve the workloads' schemas as a Confluent-API registry until ended.
    Registry {
        #[arg(long, default_value = "127.0.0.1:39181")]
        listen: std::net::SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Produce(args) => produce::produce(&args),
        Command::Commits(args) => commits::commits(&args),
        Command::Compact(args) => compact::compact(&args),
        Command::Container(args) => container::container(&args),
        Command::Stages(args) => stages::stages(&args),
        Command::Registry { listen } => registry::serve(listen),
    }
}
