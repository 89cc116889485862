//! Shows the ledger in the table's formats, as fast as they take it and never before it is committed.
//!
//! 1. Wait until the ledger has a version that a format does not show.
//! 2. Catch the format up; the projection coalesces what piled up meanwhile.
//! 3. On a fault that may pass: back off, try again. On one that will not (a foreign change that
//!    cannot be reconciled): stop this projection, say so, leave the other format and ingestion alone.
//!
//! Cancel-safe: dropping the future at any point leaves a state that the next catch-up completes.

use std::{sync::Arc, time::Duration};

use siltstone_lakehouse::TableFormat;
use tokio::sync::watch;

use crate::{
    absorb::Halted,
    error::{ForTable, WorkerError},
    metrics::{FormatLabel, Metrics},
    table::Table,
};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How far one format is, for whoever waits for it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub version: Option<u64>,
    /// The projection has stopped.
    pub stopped: Option<Halted>,
}

/// Runs one projection until `stop` turns true or it fails for good, and waits for what it began.
pub async fn project(
    table: Arc<Table>,
    mut projection: Box<dyn TableFormat>,
    shown: watch::Sender<Shown>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    follow(table, projection.as_mut(), shown, metrics, stop).await;
    projection.close().await;
}

async fn follow(
    table: Arc<Table>,
    projection: &mut dyn TableFormat,
    shown: watch::Sender<Shown>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let format = projection.format().as_str();
    let label = FormatLabel { table: table.name.clone(), format };
    let mut backoff = BACKOFF_MIN;
    let mut halts = table.halts();
    loop {
        if let Some(halted) = table.halted(projection.format()) {
            return stop_showing(&table.name, format, halted, &shown);
        }
        let wanted = table.version();
        // What others committed before this worker came is announced by the first look.
        let first = shown.borrow().version.is_none();
        let caught_up =
            if first { catch_up(&table, projection).await } else { show(&table, projection).await };
        match caught_up {
            Ok(version) => {
                backoff = BACKOFF_MIN;
                metrics.shown_version.get_or_create(&label).set(i64::try_from(version).unwrap_or(i64::MAX));
                shown.send_modify(|state| state.version = Some(version));
                if version < wanted {
                    continue;
                }
            }
            Err(error) if error.kind().is_retryable() => {
                tracing::warn!(
                    table = %table.name, format, %error, code = %error.code(), "projection fault, trying again"
                );
                metrics.retry(&table.name, format);
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
                continue;
            }
            Err(error) => {
                return stop_showing(&table.name, format, Halted::from(&error), &shown);
            }
        }
        tokio::select! {
            () = table.newer_than(wanted) => {}
            changed = halts.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn stop_showing(table: &str, format: &'static str, halted: Halted, shown: &watch::Sender<Shown>) {
    tracing::error!(table, format, error = %halted.why, code = %halted.code, "projection stopped");
    shown.send_modify(|state| state.stopped = Some(halted));
}

/// Shows every version of the ledger up to now in one format.
///
/// # Errors
/// Those of the ledger and the projection, with the table's name.
pub async fn catch_up(table: &Table, projection: &mut dyn TableFormat) -> Result<u64, WorkerError> {
    table.refresh().await?;
    show(table, projection).await
}

/// Brings every format up to the ledger.
///
/// # Errors
/// As [`catch_up`].
pub async fn catch_up_all(table: &Table) -> Result<(), WorkerError> {
    for mut projection in table.projections().await {
        catch_up(table, projection.as_mut()).await?;
    }
    Ok(())
}

/// Shows what this worker knows of the ledger. A copy of its state is cheap, and lets commits go on meanwhile.
async fn show(table: &Table, projection: &mut dyn TableFormat) -> Result<u64, WorkerError> {
    let mut state = table.state.lock().await.clone();
    if state.version < table.version() {
        // Announced by one who commits from a state of its own: the janitor.
        state = table.refresh().await?;
    }
    projection.catch_up(&table.ledger, &state, &table.details).await.for_table(&table.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use object_store::{memory::InMemory, path::Path};
    use siltstone_lakehouse::TableStore;
    use siltstone_protocol::{Change, Format, OffsetRange};

    use super::*;

    const SPEC: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092'], schema_registry: {url: 'http://localhost'}}]
destination_bucket_url: file:///tmp
tables: [{name: a.b, source_cluster_name: lab, source_topic: t, source_format: avro}]
";

    /// A janitor commits from a state of its own. What it announces is looked up, not asked for without end.
    #[tokio::test]
    async fn what_is_announced_by_others_is_shown() {
        let spec = siltstone_spec::parse(SPEC, "spec.yaml", &|_| None).unwrap();
        let url = url::Url::parse("memory:///lake").unwrap();
        let lake = TableStore::new(Arc::new(InMemory::new()), Path::from("lake"), url);
        let table = Table::open_or_create_dead_letters(&lake, &spec.tables[0], "create", 1).await.unwrap();
        let mut own = table.state.lock().await.clone();
        let (cluster, topic) = ("lab".to_owned(), "t".to_owned());
        let range = OffsetRange { cluster, topic, partition: 0, start: 0, end: 5, lost: false };
        let change = Change::append(Vec::new(), vec![range], Vec::new());
        table.ledger.commit(&mut own, change, "janitor", 2).await.unwrap();
        table.announce(own.version);
        for format in [Format::Iceberg, Format::Delta] {
            let mut projection = table.projection_of(format);
            assert_eq!(show(&table, projection.as_mut()).await.unwrap(), 1, "{format:?}");
        }
    }
}
