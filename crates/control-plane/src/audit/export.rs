//! Export of the audit log to a Kafka topic: every entry of every chain, at least once, in the chain's order.
//!
//! Entries are JSON with the hash that stands beside them, so that whoever reads the topic can follow the chain; the
//! record key is the organisation, which keeps a chain in one partition. Where the export stands is kept in the
//! database and moves only after the brokers have the entries: a restart, or brokers that were away, may have some sent
//! twice, and leave none out. What the client has taken it sends until the brokers have it, and nothing is put behind
//! that meanwhile: so no entry overtakes another one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};
use serde::Serialize;
use sqlx::Row;
use tokio::time::sleep;

use super::{chain::AuditEntry, log::after};
use crate::{
    config::{AuditTopic, ConfigError},
    store::{Store, StoreError},
};

/// Entries that are under way at once.
const BATCH: i64 = 500;
const IDLE: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A batch that the brokers do not have within this is waited for in the next round.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A record of the topic.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    /// Empty: of no organisation.
    organisation: &'a str,
    #[serde(flatten)]
    entry: &'a AuditEntry,
    /// SHA-256 over the entry and the hash before it, hexadecimal.
    hash: String,
}

/// Sends entries to the topic.
pub struct AuditExport {
    producer: Arc<BaseProducer<Deliveries>>,
    topic: String,
    store: Store,
}

/// Counts the entries of a batch that the brokers have.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<AtomicUsize>;

    fn delivery(&self, result: &DeliveryResult<'_>, taken: Self::DeliveryOpaque) {
        if result.is_ok() {
            taken.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the client does not take an entry: {0}")]
    Kafka(RDKafkaErrorCode),
    #[error("the brokers have {taken} of {sent} entries")]
    NotTaken { taken: usize, sent: usize },
    #[error("the brokers have yet to take {waiting} entries of before")]
    Waiting { waiting: i32 },
    #[error("the sender ended early")]
    Ended,
    #[error("an entry is no JSON")]
    Json,
}

impl AuditExport {
    /// A producer for this topic. No connection is made.
    ///
    /// # Errors
    /// A secret that is not there, or a setting that the client does not know.
    pub fn new(config: &AuditTopic, store: Store) -> Result<Self, ConfigError> {
        let mut client = ClientConfig::new();
        for (name, value) in &config.properties {
            client.set(name, value.reveal()?.as_str());
        }
        client.set("bootstrap.servers", &config.brokers);
        // What the promise of order and completeness rests upon is not for the config to change.
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // No end: one that is given up would let the next one overtake it.
            .set("message.timeout.ms", "0");
        let producer: BaseProducer<Deliveries> = client.create_with_context(Deliveries).map_err(|_| {
            ConfigError::Value { what: "audit.kafka: the client does not take these properties".to_owned() }
        })?;
        Ok(Self { producer: Arc::new(producer), topic: config.topic.clone(), store })
    }

    /// Exports for as long as the server runs. Cancel-safe: what was not confirmed is sent again by the next run.
    pub async fn run(self) {
        let mut pause = IDLE;
        loop {
            match self.round().await {
                Ok(0) => pause = IDLE,
                Ok(_) => {
                    pause = IDLE;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(topic = self.topic, %error, "the audit log was not exported; trying again");
                    pause = pause.saturating_mul(2).min(BACKOFF_MAX);
                }
            }
            sleep(pause).await;
        }
    }

    /// Sends some of what is not exported yet; the number of entries.
    async fn round(&self) -> Result<usize, ExportError> {
        let behind = sqlx::query(
            "SELECT audit_heads.organisation_id, COALESCE(audit_exports.sequence, 0) AS sequence FROM audit_heads
             LEFT JOIN audit_exports ON audit_exports.organisation_id = audit_heads.organisation_id
             WHERE audit_heads.sequence > COALESCE(audit_exports.sequence, 0)",
        )
        .fetch_all(self.store.pool())
        .await
        .map_err(StoreError::from)?;
        let mut sent = 0;
        for row in behind {
            let organisation: String = row.try_get("organisation_id").map_err(StoreError::from)?;
            let exported: i64 = row.try_get("sequence").map_err(StoreError::from)?;
            let entries = after(&self.store, &organisation, exported, BATCH).await?;
            let Some((last, _)) = entries.last() else { continue };
            self.send(&organisation, &entries).await?;
            self.advance(&organisation, last.sequence).await?;
            sent += entries.len();
        }
        Ok(sent)
    }

    async fn send(&self, organisation: &str, entries: &[(AuditEntry, Vec<u8>)]) -> Result<(), ExportError> {
        let values = entries.iter().map(|(entry, hash)| {
            let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::to_vec(&Exported { organisation, entry, hash }).map_err(|_| ExportError::Json)
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let (producer, topic) = (Arc::clone(&self.producer), self.topic.clone());
        let key = organisation.to_owned();
        // The client waits in its own thread.
        let sent = tokio::task::spawn_blocking(move || deliver(&producer, &topic, &key, &values));
        sent.await.map_err(|_| ExportError::Ended)?
    }

    async fn advance(&self, organisation: &str, sequence: i64) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        sqlx::query(
            "INSERT INTO audit_exports (organisation_id, sequence) VALUES ($1, $2)
             ON CONFLICT (organisation_id) DO UPDATE SET sequence = excluded.sequence
             WHERE audit_exports.sequence < excluded.sequence",
        )
        .bind(organisation)
        .bind(sequence)
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }
}

impl fmt::Debug for AuditExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditExport").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Returns when the brokers have all of these.
fn deliver(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    key: &str,
    values: &[Vec<u8>],
) -> Result<(), ExportError> {
    let code = |error: rdkafka::error::KafkaError| {
        ExportError::Kafka(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    };
    // Those of a batch that took too long come first.
    if producer.in_flight_count() > 0 && producer.flush(TIMEOUT).is_err() {
        return Err(ExportError::Waiting { waiting: producer.in_flight_count() });
    }
    let taken = Arc::new(AtomicUsize::new(0));
    for value in values {
        let record = BaseRecord::with_opaque_to(topic, Arc::clone(&taken)).key(key).payload(value);
        producer.send(record).map_err(|(error, _)| code(error))?;
    }
    if producer.flush(TIMEOUT).is_err() {
        return Err(ExportError::Waiting { waiting: producer.in_flight_count() });
    }
    match taken.load(Ordering::Acquire) {
        all if all == values.len() => Ok(()),
        taken => Err(ExportError::NotTaken { taken, sent: values.len() }),
    }
}
