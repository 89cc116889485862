//! `backfill --files`: history that lies in files.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use siltstone_spec::{SourceFiles, Spec, TableSpec};
use siltstone_worker::{
    WorkerError,
    import::{ImportOptions, ImportProgress, ImportSummary, import},
};

use super::run;
use crate::{
    args::FileArgs,
    output::{self, Failure, Invalid},
};

const BAR: &str = "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  eta {eta}  {msg}";

/// What both kinds of backfill take.
pub struct Means {
    pub dry_run: bool,
    pub memory_bytes: u64,
    pub spill_dir: PathBuf,
    pub spill_bytes_max: u64,
    pub json: bool,
    pub quiet: bool,
}

pub async fn backfill(
    spec: &Spec,
    table: &TableSpec,
    url: &str,
    args: &FileArgs,
    means: Means,
) -> anyhow::Result<u8> {
    let files = SourceFiles::parse(url).map_err(|why| Invalid(format!("--files {why}")))?;
    let files = files.or_options_of(&spec.destination);
    let options = ImportOptions {
        format: args.format.map(Into::into),
        packing: args.compression.into(),
        memory_bytes: means.memory_bytes,
        parallel: match args.parallel {
            Some(parallel) => parallel.into(),
            None => std::thread::available_parallelism()?.get(),
        },
        spill_dir: means.spill_dir,
        spill_bytes_max: means.spill_bytes_max,
        resume_changed: args.resume_changed,
        dry_run: means.dry_run,
    };
    let progress = Arc::new(ImportProgress::default());
    let bar = output::bar(BAR, Some(0), !means.dry_run && !means.quiet && !means.json);
    let done = import(spec, table, &files, &options, run::stop_signal()?, Arc::clone(&progress));
    let done = tokio::select! {
        done = done => done,
        never = draw(&bar, &progress) => match never {},
    };
    bar.finish_and_clear();
    let summary = done?;
    report(&summary, means.json)?;
    if summary.stopped {
        return Err(WorkerError::Stopped { table: summary.table }.into());
    }
    if summary.files.failed > 0 {
        let files = summary.files;
        return Err(Failure::source_files(&summary.table, files.failed, files.matched).into());
    }
    Ok(output::DONE)
}

async fn draw(bar: &ProgressBar, progress: &ImportProgress) -> Infallible {
    loop {
        let reading = progress.read();
        bar.set_length(reading.bytes_total.max(reading.bytes_read));
        bar.set_position(reading.bytes_read);
        bar.set_message(format!(
            "{} of {} files, {} rows read, {} committed",
            reading.files_done, reading.files_total, reading.rows_read, reading.rows_committed
        ));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn report(summary: &ImportSummary, json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(summary);
    }
    let files = summary.files;
    let heading = [
        "table",
        "version",
        "files",
        "held before",
        "read",
        "failed",
        "bytes",
        "rows",
        "rejected",
        "data files",
    ];
    let row = vec![
        summary.table.clone(),
        summary.version.map_or("-".to_owned(), |version| version.to_string()),
        files.matched.to_string(),
        files.held.to_string(),
        files.read.to_string(),
        files.failed.to_string(),
        output::bytes(summary.bytes),
        summary.rows.to_string(),
        summary.rejected.to_string(),
        summary.data_files.to_string(),
    ];
    output::print_table(&heading, &[row]);
    for failure in &summary.failures {
        eprintln!("{}: {}", failure.file, failure.why);
    }
    let untold = files.failed.saturating_sub(summary.failures.len() as u64);
    if untold > 0 {
        eprintln!("... and {untold} more files");
    }
    if summary.dry_run {
        eprintln!("dry run: nothing was changed; `read` files are to be read");
    }
    Ok(())
}
