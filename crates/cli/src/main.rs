//! `siltstone`: declares, runs and looks at tables made from Kafka topics.
//!
//! Results go to stdout, progress and logs to stderr. Exit codes:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed: something outside is at fault, or a record or a file, or a command was stopped before its end; the message says what |
//! | 2 | the command, the spec or a setting is wrong, or `plan` or `apply` refuses a change; nothing was changed there |
//! | 3 | `plan --exit-code` found changes |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where people are spoken to")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod args;
mod commands;
mod logging;
mod memory;
mod output;
mod pages;

use std::process::ExitCode;

use clap::Parser;

/// For our own buffers and, because it also takes the C library's place, for those of the Kafka client: one allocator
/// that gives memory back is what keeps the process near its budget.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options of the allocator, read by it before `main` (`MALLOC_CONF` in the environment overrides them). Buffers are
/// few, large and cross threads, so few arenas do; freed pages go back within a second, large ones no sooner than
/// small ones, because the next buffer wants them again. Pages are huge where [`memory`] lets them.
#[allow(unsafe_code, reason = "the allocator looks for a symbol of this name; nothing else can have it")]
#[unsafe(export_name = "malloc_conf")]
pub static ALLOCATOR_OPTIONS: Option<&'static std::ffi::c_char> = {
    const OPTIONS: &std::ffi::CStr =
        c"narenas:4,background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0,oversize_threshold:0,thp:always";
    // SAFETY: the pointer is that of a constant, never null and never gone.
    unsafe { OPTIONS.as_ptr().as_ref() }
};

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    logging::start(&cli.log);
    memory::choose_pages(&cli.command);
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = output::Failure::machine(format!("the runtime did not start: {error}"));
            output::print_error(&failure.into());
            return ExitCode::from(output::FAILED);
        }
    };
    let code = match runtime.block_on(commands::execute(cli)) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            output::code_of(&error)
        }
    };
    // Blocking calls of client libraries may still hold threads; nothing of ours is left to do there.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ExitCode::from(code)
}
