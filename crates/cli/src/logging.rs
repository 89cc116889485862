//! Logs: to stderr, one event a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Logs as an error what it also returns as one, which its caller may well mend.
const SILENT: &str = "buoyant_kernel=off";

/// Installs the process's logger. Called once.
pub fn start(args: &LogArgs) {
    let level = match (&args.log_level, args.quiet) {
        (Some(level), _) => level.clone(),
        (None, true) => format!("error,{SILENT}"),
        // Clients of brokers and stores speak up for faults only, unless asked.
        (None, false) => {
            std::env::var("RUST_LOG").unwrap_or_else(|_| format!("warn,siltstone=info,{SILENT}"))
        }
    };
    let filter = EnvFilter::try_new(&level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
