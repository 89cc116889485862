//! Writing and reading the chain in the database.

use std::{collections::BTreeMap, fmt, time::Duration};

use sqlx::{Row, any::AnyRow};
use tokio::sync::{mpsc, oneshot};

use super::chain::{AuditEntry, ChainFault, GENESIS, Outcome, Verifier};
use crate::{
    clock::Clock,
    store::{Store, StoreError, Tx},
};

/// Entries that wait to be written. A request waits for a place.
const QUEUE_MAX: usize = 4096;
const GROUP_MAX: usize = 512;
/// A group that cannot be written is tried again after this.
const RETRY_EVERY: Duration = Duration::from_millis(500);
const PAGE: i64 = 1_000;

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Event {
    /// Empty: of no organisation (an unknown credential).
    pub organisation: String,
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub outcome: Outcome,
    pub address: String,
}

struct Waiting {
    /// `None`: only to learn that what came before is durable.
    event: Option<Event>,
    at_ms: i64,
    written: Option<oneshot::Sender<()>>,
}

/// Appends to the chains.
#[derive(Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<Waiting>,
    clock: Clock,
}

impl AuditLog {
    /// Starts the writer. It ends when the last handle is dropped, after writing what waits.
    pub fn start(store: Store, clock: Clock) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let writer = tokio::spawn(write(store, waiting));
        (Self { queue, clock }, writer)
    }

    /// Appends, without waiting until it is durable. Waits while too many are before it.
    pub async fn note(&self, event: Event) {
        self.send(Some(event), None).await;
    }

    /// Returns when all that was appended before is durable. False: the writer has ended.
    pub async fn flush(&self) -> bool {
        self.durable(None).await
    }

    /// Appends, and returns when it is durable. False: the writer has ended.
    pub async fn record(&self, event: Event) -> bool {
        self.durable(Some(event)).await
    }

    async fn durable(&self, event: Option<Event>) -> bool {
        let (written, done) = oneshot::channel();
        self.send(event, Some(written)).await;
        done.await.is_ok()
    }

    async fn send(&self, event: Option<Event>, written: Option<oneshot::Sender<()>>) {
        let waiting = Waiting { event, at_ms: self.clock.now_ms(), written };
        if self.queue.send(waiting).await.is_err() {
            tracing::error!("the audit log has ended; its entries are lost");
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}

/// Appends to the chain of every organisation that something was done from within, and returns when it is durable.
///
/// # Errors
/// The database's.
pub async fn note_everywhere(
    store: &Store,
    clock: &Clock,
    action: &str,
    resource: &str,
) -> Result<(), StoreError> {
    let all = sqlx::query("SELECT id FROM organisations ORDER BY id").fetch_all(store.pool()).await?;
    let (log, writer) = AuditLog::start(store.clone(), clock.clone());
    for row in all {
        log.note(Event {
            organisation: row.try_get("id")?,
            actor: "system".to_owned(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            outcome: Outcome::Changed,
            address: String::new(),
        })
        .await;
    }
    drop(log);
    writer.await.map_err(|_| StoreError::Unavailable { what: "the audit log has ended" })
}

async fn write(store: Store, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut by_organisation: BTreeMap<&str, Vec<(&Event, i64)>> = BTreeMap::new();
        for Waiting { event, at_ms, .. } in &group {
            if let Some(event) = event {
                by_organisation.entry(&event.organisation).or_default().push((event, *at_ms));
            }
        }
        while let Err(error) = append(&store, &by_organisation).await {
            tracing::error!(%error, "the audit log cannot be written; trying again");
            tokio::time::sleep(RETRY_EVERY).await;
        }
        for written in group.drain(..).filter_map(|one| one.written) {
            // Who asked may have gone.
            let _ = written.send(());
        }
    }
}

async fn append(store: &Store, groups: &BTreeMap<&str, Vec<(&Event, i64)>>) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for (organisation, group) in groups {
        let (mut sequence, mut hash) = head_for_update(&mut tx, organisation).await?;
        for (event, at_ms) in group {
            sequence += 1;
            let entry = AuditEntry {
                sequence,
                at_ms: *at_ms,
                actor: event.actor.clone(),
                action: event.action.clone(),
                resource: event.resource.clone(),
                outcome: event.outcome,
                address: event.address.clone(),
            };
            hash = entry.hash(&hash).to_vec();
            insert(&mut tx, organisation, &entry, &hash).await?;
        }
        sqlx::query("UPDATE audit_heads SET sequence = $2, hash = $3 WHERE organisation_id = $1")
            .bind(*organisation)
            .bind(sequence)
            .bind(hash)
            .execute(tx.connection())
            .await?;
    }
    tx.commit().await
}

/// The chain's end, locked against other servers until the transaction is over.
async fn head_for_update(tx: &mut Tx, organisation: &str) -> Result<(i64, Vec<u8>), StoreError> {
    sqlx::query(
        "INSERT INTO audit_heads (organisation_id, sequence, hash, first_sequence, first_hash)
         VALUES ($1, 0, $2, 0, $2) ON CONFLICT (organisation_id) DO NOTHING",
    )
    .bind(organisation)
    .bind(GENESIS.to_vec())
    .execute(tx.connection())
    .await?;
    let row = sqlx::query(
        "UPDATE audit_heads SET sequence = sequence WHERE organisation_id = $1 RETURNING sequence, hash",
    )
    .bind(organisation)
    .fetch_one(tx.connection())
    .await?;
    Ok((row.try_get("sequence")?, row.try_get("hash")?))
}

async fn insert(tx: &mut Tx, organisation: &str, entry: &AuditEntry, hash: &[u8]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (organisation_id, sequence, at_ms, actor, action, resource, outcome, address, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(organisation)
    .bind(entry.sequence)
    .bind(entry.at_ms)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.resource)
    .bind(entry.outcome.as_str())
    .bind(&entry.address)
    .bind(hash.to_vec())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Entries of an organisation before a number, newest first.
///
/// # Errors
/// The database's.
pub async fn before(
    store: &Store,
    organisation: &str,
    sequence: i64,
    limit: i64,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = sqlx::query(
        "SELECT sequence, at_ms, actor, action, resource, outcome, address, hash FROM audit
         WHERE organisation_id = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3",
    )
    .bind(organisation)
    .bind(sequence)
    .bind(limit)
    .fetch_all(store.pool())
    .await?;
    rows.iter().map(|row| Ok(read(row)?.0)).collect()
}

fn read(row: &AnyRow) -> Result<(AuditEntry, Vec<u8>), StoreError> {
    let outcome = Outcome::parse(&row.try_get::<String, _>("outcome")?);
    let entry = AuditEntry {
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        resource: row.try_get("resource")?,
        outcome: outcome.ok_or(StoreError::Broken { what: "an outcome in the audit log" })?,
        address: row.try_get("address")?,
    };
    Ok((entry, row.try_get("hash")?))
}

/// Checks the chain of every organisation. The number of entries that hold, and the first fault of each chain that has
/// one, by organisation (empty: entries of no organisation).
///
/// # Errors
/// The database's.
pub async fn verify(store: &Store) -> Result<(u64, Vec<(String, ChainFault)>), StoreError> {
    let heads = sqlx::query(
        "SELECT organisation_id, sequence, hash, first_sequence, first_hash FROM audit_heads ORDER BY organisation_id",
    )
    .fetch_all(store.pool())
    .await?;
    let (mut good, mut faults) = (0, Vec::new());
    for head in heads {
        let organisation: String = head.try_get("organisation_id")?;
        let (end, hash): (i64, Vec<u8>) = (head.try_get("sequence")?, head.try_get("hash")?);
        let (first, before): (i64, Vec<u8>) = (head.try_get("first_sequence")?, head.try_get("first_hash")?);
        match verify_one(store, &organisation, Verifier::after(first, &before), (first, end, hash)).await? {
            Ok(count) => good += count,
            Err(fault) => faults.push((organisation, fault)),
        }
    }
    Ok((good, faults))
}

async fn verify_one(
    store: &Store,
    organisation: &str,
    mut verifier: Verifier,
    (first, end, hash): (i64, i64, Vec<u8>),
) -> Result<Result<u64, ChainFault>, StoreError> {
    let mut after = first;
    loop {
        // What was appended since the head was read is for the next time.
        let rows = rows_after(store, organisation, (after, end), PAGE).await?;
        if rows.is_empty() {
            return Ok(verifier.finish(end, &hash).map(|last| u64::try_from(last - first).unwrap_or(0)));
        }
        for row in &rows {
            let (entry, stored) = match read(row) {
                Ok(read) => read,
                // A word that is none of ours was put there by somebody else.
                Err(StoreError::Broken { .. }) => {
                    return Ok(Err(ChainFault::Changed { sequence: row.try_get("sequence")? }));
                }
                Err(error) => return Err(error),
            };
            if let Err(fault) = verifier.next(&entry, &stored) {
                return Ok(Err(fault));
            }
            after = entry.sequence;
        }
    }
}

async fn rows_after(
    store: &Store,
    organisation: &str,
    (after, end): (i64, i64),
    limit: i64,
) -> Result<Vec<AnyRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT sequence, at_ms, actor, action, resource, outcome, address, hash FROM audit
         WHERE organisation_id = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT $4",
    )
    .bind(organisation)
    .bind(after)
    .bind(end)
    .bind(limit)
    .fetch_all(store.pool())
    .await?;
    Ok(rows)
}

/// Entries of an organisation after a number, oldest first, with their hashes.
///
/// # Errors
/// The database's.
pub(super) async fn after(
    store: &Store,
    organisation: &str,
    sequence: i64,
    limit: i64,
) -> Result<Vec<(AuditEntry, Vec<u8>)>, StoreError> {
    rows_after(store, organisation, (sequence, i64::MAX), limit).await?.iter().map(read).collect()
}

/// Lets entries from before a time go, and leaves the checkpoint from which the rest is verified.
///
/// `exported`: entries that are not exported yet stay, whatever their age.
///
/// # Errors
/// The database's.
pub async fn prune(store: &Store, before_ms: i64, exported: bool) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let heads = sqlx::query("SELECT organisation_id FROM audit_heads").fetch_all(tx.connection()).await?;
    let mut gone = 0;
    for head in heads {
        let organisation: String = head.try_get("organisation_id")?;
        let last = sqlx::query(
            "SELECT sequence, hash FROM audit WHERE organisation_id = $1 AND at_ms < $2
             AND ($3 = 0 OR sequence <= COALESCE((SELECT sequence FROM audit_exports WHERE organisation_id = $1), 0))
             ORDER BY sequence DESC LIMIT 1",
        )
        .bind(&organisation)
        .bind(before_ms)
        .bind(i64::from(exported))
        .fetch_optional(tx.connection())
        .await?;
        let Some(last) = last else { continue };
        let (sequence, hash): (i64, Vec<u8>) = (last.try_get("sequence")?, last.try_get("hash")?);
        sqlx::query("UPDATE audit_heads SET first_sequence = $2, first_hash = $3 WHERE organisation_id = $1")
            .bind(&organisation)
            .bind(sequence)
            .bind(hash)
            .execute(tx.connection())
            .await?;
        let deleted = sqlx::query("DELETE FROM audit WHERE organisation_id = $1 AND sequence <= $2")
            .bind(&organisation)
            .bind(sequence)
            .execute(tx.connection())
            .await?;
        gone += deleted.rows_affected();
    }
    tx.commit().await?;
    Ok(gone)
}
