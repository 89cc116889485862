//! Committing a change of a table as long as it takes: the one loop around `Ledger::commit`.
//!
//! A fault that may pass is waited for, with backoff and the same commit id, until the worker is told to stop.
//! The state is locked for one attempt at a time, so an outage of the store keeps nobody from looking at it.

use std::time::Duration;

use siltstone_lakehouse::{Committed, LakeError};
use siltstone_protocol::{Change, ErrorKind};
use tokio::sync::watch;

use crate::{
    error::{ForTable, WorkerError},
    identity::Identity,
    metrics::Metrics,
    table::Table,
};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Waits between attempts, until the worker is told to stop.
pub(crate) struct Patience<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) metrics: &'a Metrics,
    /// Turns true when faults must no longer be waited for.
    pub(crate) stop: watch::Receiver<bool>,
    backoff: Duration,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(identity: &'a Identity, metrics: &'a Metrics, stop: &watch::Receiver<bool>) -> Self {
        Self { identity, metrics, stop: stop.clone(), backoff: BACKOFF_MIN }
    }

    /// Counts a retry and sleeps before it. False: the worker stops.
    pub(crate) async fn wait(&mut self, table: &str, stage: &'static str) -> bool {
        self.metrics.retry(table, stage);
        let pause = self.identity.jitter(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            _ = self.stop.wait_for(|stop| *stop) => false,
        }
    }
}

/// How a commit ended.
#[derive(Debug)]
pub(crate) enum Landed {
    At(u64),
    /// What it asks for is already so; files that it names are orphans.
    AlreadySo,
    /// The ledger went on in a way that the change does not fit: `Fenced` or `Conflict`.
    Refused(LakeError),
    /// The worker stops; the commit may have landed or not.
    Stopped,
}

/// Commits, and tells the projector.
///
/// # Errors
/// What waiting does not mend and is no refusal: `Invalid`, `Data`, `Internal`.
pub(crate) async fn commit(
    table: &Table,
    change: Change,
    commit_id: &str,
    stage: &'static str,
    mut patience: Patience<'_>,
) -> Result<Landed, WorkerError> {
    loop {
        match attempt(table, &change, commit_id, patience.identity.now_ms()).await {
            Ok(Committed::At(version)) => {
                table.announce(version);
                return Ok(Landed::At(version));
            }
            Ok(Committed::AlreadyCovered) => return Ok(Landed::AlreadySo),
            // Nothing is wrong with the change: others were faster, again and again.
            Err(error @ LakeError::Contended { .. }) => {
                tracing::info!(table = %table.name, %error, "others commit all the time, waiting");
                if !patience.wait(&table.name, stage).await {
                    return Ok(Landed::Stopped);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Conflict) => {
                return Ok(Landed::Refused(error));
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(
                    table = %table.name, %error, code = %error.code(), "commit outcome unknown, asking again"
                );
                if !patience.wait(&table.name, stage).await {
                    return Ok(Landed::Stopped);
                }
            }
            Err(error) => return Err(error).for_table(&table.name),
        }
    }
}

async fn attempt(
    table: &Table,
    change: &Change,
    commit_id: &str,
    now_ms: i64,
) -> Result<Committed, LakeError> {
    let mut state = table.state.lock().await;
    // Work that took very long may come after the clean-up of its own files.
    table.ledger.confirm_files(&state, change, now_ms).await?;
    table.ledger.commit(&mut state, change.clone(), commit_id, now_ms).await
}
