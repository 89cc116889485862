//! `siltstone-bench`: the workloads of the benchmarks, and a registry endpoint that knows their schemas.
//!
//! `ingest.py` beside this crate drives it; see `README.md`.

#![allow(clippy::print_stdout, reason = "a program for people")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod produce;
mod registry;
mod rows;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a topic with a workload.
    Produce(produce::ProduceArgs),
    /// Serve the workloads' schemas as a Confluent-API registry until ended.
    Registry {
        #[arg(long, default_value = "127.0.0.1:39181")]
        listen: std::net::SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Produce(args) => produce::produce(&args),
        Command::Registry { listen } => registry::serve(listen),
    }
}
