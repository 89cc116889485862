//! `siltstone`: declares, runs and looks at tables made from Kafka topics.
//!
//! Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failed, 2 the command or
//! the spec is wrong, 3 `plan` found changes (with `--exit-code`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where people are spoken to")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod args;
mod commands;
mod logging;
mod output;

use std::process::ExitCode;

use clap::Parser;

/// Many small buffers cross threads here; this allocator keeps that cheap and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    logging::start(&cli.log);
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime did not start: {error}");
            return ExitCode::from(output::FAILED);
        }
    };
    let code = match runtime.block_on(commands::execute(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            output::code_of(&error)
        }
    };
    // Blocking calls of client libraries may still hold threads; nothing of ours is left to do there.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ExitCode::from(code)
}
