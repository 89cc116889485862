//! `run`: a worker in the foreground, with a progress bar for bounded runs on a terminal.

use std::{path::PathBuf, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use siltstone_spec::Spec;
use siltstone_worker::{
    RunOptions, RunSummary,
    control::{ControlOptions, KeySource},
    progress::Progress,
};
use tokio::sync::watch;

use super::load;
use crate::{
    args::{ControlArgs, RunArgs},
    output::{self, Failure, Invalid},
};

/// Below this a buffer cannot hold one batch of every stage.
const MEMORY_MIN: u64 = 32 << 20;

pub async fn run(args: RunArgs, quiet: bool) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let memory_bytes = memory(&args.memory)?;
    if let Some(name) = args.tables.iter().find(|name| !spec.tables.iter().any(|table| &table.name == *name))
    {
        return Err(Failure::unknown_table(&spec, name).into());
    }
    let control = control(args.control, args.spec.file.clone());
    let options = RunOptions { once: args.once, memory_bytes, http: args.http, tables: args.tables, control };
    let progress = Arc::new(Progress::default());
    let bar = bar(args.once && !quiet && !args.spec.json);
    let drawing = tokio::spawn(draw(bar.clone(), progress.clone()));
    let ended = siltstone_worker::run(spec, options, progress, stop_signal()?).await;
    drawing.abort();
    bar.finish_and_clear();
    let summary = ended?;
    report(&summary, args.spec.json)?;
    Ok(output::DONE)
}

/// `rotate` reads the spec's references anew; of what it then says, the key alone is used.
fn control(args: ControlArgs, spec: PathBuf) -> ControlOptions {
    let key = KeySource::new(move || Some(Spec::load(&spec).ok()?.control_plane?.api_key));
    ControlOptions {
        record: args.record,
        without_events: args.disable_logs_collection,
        without_profiles: args.disable_profile_forwarding,
        zone: args.zone,
        key: Some(key),
    }
}

/// The memory budget as people write it, bytes.
pub fn memory(text: &str) -> anyhow::Result<u64> {
    let bytes = siltstone_spec::quantity::parse_size(text).filter(|bytes| *bytes >= MEMORY_MIN);
    Ok(bytes.ok_or_else(|| Invalid("--memory takes a size of at least 32MiB, e.g. 512MiB".to_owned()))?)
}

/// Turns true at SIGINT or SIGTERM; a second one ends the process at once.
pub fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for already in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if already {
                tracing::warn!("stopped at once; what was not committed is read again at the next start");
                std::process::exit(130);
            }
            tracing::info!("stopping: flush, commit, leave the group (again: at once)");
            // Without a receiver the worker has ended already.
            let _ = sender.send(true);
        }
    });
    Ok(receiver)
}

/// The bar of those who read a topic.
pub fn bar(wanted: bool) -> ProgressBar {
    output::bar("{bar:30} {pos}/{len} records  {per_sec}  eta {eta}  {msg}", Some(0), wanted)
}

pub async fn draw(bar: ProgressBar, progress: Arc<Progress>) {
    loop {
        let reading = progress.read();
        bar.set_length(reading.records_total.max(reading.records_consumed));
        bar.set_position(reading.records_consumed);
        bar.set_message(format!(
            "{} rows committed, {} read",
            reading.rows_committed,
            output::bytes(reading.bytes_consumed)
        ));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn report(summary: &RunSummary, json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(summary);
    }
    let rows: Vec<Vec<String>> = summary
        .tables
        .iter()
        .map(|table| {
            vec![
                table.table.clone(),
                table.version.map_or("-".to_owned(), |version| version.to_string()),
                table.records_consumed.to_string(),
                table.rows_committed.to_string(),
                table.records_rejected.to_string(),
            ]
        })
        .collect();
    output::print_table(&["table", "version", "consumed", "rows committed", "rejected"], &rows);
    Ok(())
}
