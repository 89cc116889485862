//! Many messages in one transaction: a commit's cost is shared, and each is answered when it is durable.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use siltstone_protocol::{Ack, Report, image::Image};
use tokio::sync::{mpsc, oneshot};

use super::{apply, image};
use crate::{
    clock::Clock,
    store::{Engine, Store, StoreError, retried},
    tenants::KeyRing,
};

/// Messages that wait in one lane; more are turned away for a while.
const QUEUE_MAX: usize = 256;
const GROUP_MAX: usize = 64;
const POSTGRES_LANES: usize = 4;

/// Whose message it is: from the credential, never from the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub organisation: String,
    pub cluster: String,
}

/// What is to be applied.
#[derive(Debug)]
pub enum Incoming {
    Report(Box<Report>),
    Image(Box<Image>),
}

impl Incoming {
    fn table(&self) -> &str {
        match self {
            Self::Report(report) => &report.table.name,
            Self::Image(image) => &image.table.name,
        }
    }
}

struct Waiting {
    source: Source,
    incoming: Incoming,
    answer: oneshot::Sender<Result<Ack, StoreError>>,
}

/// Applies messages, those of one table in the order in which they came.
#[derive(Clone)]
pub struct ReportWriter {
    lanes: Arc<[mpsc::Sender<Waiting>]>,
}

impl ReportWriter {
    /// Starts the lanes. They end when the last handle is dropped.
    pub fn start(store: &Store, keys: &Arc<KeyRing>, clock: &Clock) -> Self {
        let lanes = match store.engine() {
            Engine::Sqlite => 1,
            Engine::Postgres => POSTGRES_LANES,
        };
        let lane = |_| {
            let (sender, waiting) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(work(store.clone(), Arc::clone(keys), clock.clone(), waiting));
            sender
        };
        Self { lanes: (0..lanes).map(lane).collect() }
    }

    /// Applies a message; returns when it is durable. Safe to cancel and to send again.
    ///
    /// # Errors
    /// `Unavailable`: the queue is full or the database does not answer; nothing is lost by sending it again.
    pub async fn apply(&self, source: Source, incoming: Incoming) -> Result<Ack, StoreError> {
        let mut hasher = DefaultHasher::new();
        (&source.cluster, incoming.table()).hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % self.lanes.len().max(1) as u64).unwrap_or(0);
        let (answer, answered) = oneshot::channel();
        let busy = StoreError::Unavailable { what: "too many reports wait" };
        let lane = self.lanes.get(lane).ok_or(busy.clone())?;
        lane.try_send(Waiting { source, incoming, answer }).map_err(|_| busy)?;
        answered.await.map_err(|_| StoreError::Unavailable { what: "the server is stopping" })?
    }
}

impl fmt::Debug for ReportWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportWriter").field("lanes", &self.lanes.len()).finish()
    }
}

async fn work(store: Store, keys: Arc<KeyRing>, clock: Clock, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
        match retried(|| apply_all(&store, &keys, &clock, &group)).await {
            Ok(acks) => {
                for (one, ack) in group.drain(..).zip(acks) {
                    // Who sent it may have gone; it will ask again where it stands.
                    let _ = one.answer.send(Ok(ack));
                }
            }
            // One of them may be at fault: each for itself.
            Err(error) if group.len() > 1 && !error.is_outage() => {
                for one in group.drain(..) {
                    let single = std::slice::from_ref(&one);
                    let acks = retried(|| apply_all(&store, &keys, &clock, single)).await;
                    let ack = acks.and_then(|acks| {
                        acks.first().copied().ok_or(StoreError::Broken { what: "an answer is missing" })
                    });
                    let _ = one.answer.send(ack);
                }
            }
            Err(error) => {
                for one in group.drain(..) {
                    let _ = one.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

async fn apply_all(
    store: &Store,
    keys: &KeyRing,
    clock: &Clock,
    group: &[Waiting],
) -> Result<Vec<Ack>, StoreError> {
    let mut tx = store.begin().await?;
    let mut acks = Vec::with_capacity(group.len());
    for Waiting { source, incoming, .. } in group {
        let keys = keys.of(&source.organisation).await?;
        acks.push(match incoming {
            Incoming::Report(report) => apply::report(&mut tx, source, &keys, report, clock.now_ms()).await?,
            Incoming::Image(part) => image::image(&mut tx, source, &keys, part, clock.now_ms()).await?,
        });
    }
    tx.commit().await?;
    Ok(acks)
}
