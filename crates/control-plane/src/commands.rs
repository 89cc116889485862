//! Commands for workers: kept in the database, fetched by long poll, ended by an outcome.
//!
//! A command for one worker is handed to whoever asks first; if that one does not say how it ended within a minute, to
//! the next. A command for all workers is handed to each once. Nobody calls a worker.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use siltstone_protocol::command::{Action, COMMANDS_MAX, Command, CommandOutcome, Commands, Outcome};
use sqlx::Row;
use tokio::sync::Notify;

use crate::{
    clock::Clock,
    store::{Store, StoreError, retried},
};

/// A command of which nothing is heard is handed to another worker after this.
const LEASE_MS: i64 = 60_000;
/// A waiting poll looks again after this, for commands that another server took in.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LEASES_MAX: usize = 100_000;

/// Hands out commands.
pub struct CommandHub {
    store: Store,
    clock: Clock,
    /// Wakes the polls of a cluster.
    wake: Mutex<HashMap<String, Arc<Notify>>>,
    /// Until when a command is with a worker: (command, worker or empty) to milliseconds.
    leases: Mutex<HashMap<(String, String), i64>>,
}

impl CommandHub {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, wake: Mutex::default(), leases: Mutex::default() }
    }

    /// Wakes the workers of a cluster that wait: there is a new command.
    pub fn wake(&self, cluster: &str) {
        self.bell(cluster).notify_waiters();
    }

    /// The commands for a worker, waiting at most so long for the first.
    ///
    /// # Errors
    /// The database's.
    pub async fn poll(&self, cluster: &str, worker: &str, wait: Duration) -> Result<Commands, StoreError> {
        let until = tokio::time::Instant::now() + wait;
        let bell = self.bell(cluster);
        loop {
            let rung = bell.notified();
            let commands = self.take(cluster, worker).await?;
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if !commands.is_empty() || left.is_zero() {
                return Ok(Commands { commands });
            }
            // Whichever comes first; the look-up says what it was.
            let _ = tokio::time::timeout(left.min(LOOK_EVERY), rung).await;
        }
    }

    async fn take(&self, cluster: &str, worker: &str) -> Result<Vec<Command>, StoreError> {
        let now_ms = self.clock.now_ms();
        let rows = sqlx::query(
            "SELECT id, table_name, action, expires_ms FROM commands
             WHERE cluster_id = $1 AND expires_ms > $2 AND NOT EXISTS (
               SELECT 1 FROM command_outcomes WHERE command_id = commands.id
                 AND (worker_id = $3 OR commands.action NOT IN ('pause', 'resume', 'rotate')))
             ORDER BY id LIMIT 1000",
        )
        .bind(cluster)
        .bind(now_ms)
        .bind(worker)
        .fetch_all(self.store.pool())
        .await?;
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.len() >= LEASES_MAX {
            leases.retain(|_, until| *until > now_ms);
        }
        let mut commands = Vec::new();
        for row in rows {
            let (id, name): (String, String) = (row.try_get("id")?, row.try_get("action")?);
            let action = Action::ALL.iter().copied().find(|action| action.as_str() == name);
            let action = action.ok_or(StoreError::Broken { what: "the action of a command" })?;
            let holder = if action.is_for_all() { worker.to_owned() } else { String::new() };
            let lease = leases.entry((id.clone(), holder)).or_insert(0);
            if *lease > now_ms || commands.len() >= COMMANDS_MAX {
                continue;
            }
            *lease = now_ms + LEASE_MS;
            let table: String = row.try_get("table_name")?;
            let table = (!table.is_empty()).then_some(table);
            commands.push(Command { id, action, table, expires_ms: row.try_get("expires_ms")? });
        }
        Ok(commands)
    }

    /// Keeps how a command ended at a worker. Saying it again changes nothing. False: there is no such command in the
    /// worker's cluster.
    ///
    /// # Errors
    /// The database's.
    pub async fn ended(&self, cluster: &str, ended: &CommandOutcome) -> Result<bool, StoreError> {
        retried(|| self.keep(cluster, ended)).await
    }

    async fn keep(&self, cluster: &str, ended: &CommandOutcome) -> Result<bool, StoreError> {
        let mut tx = self.store.begin().await?;
        let known = sqlx::query("SELECT id FROM commands WHERE id = $1 AND cluster_id = $2")
            .bind(&ended.command_id)
            .bind(cluster)
            .fetch_optional(tx.connection())
            .await?;
        if known.is_none() {
            return Ok(false);
        }
        let (outcome, error) = match ended.outcome {
            Outcome::Done => ("done", ""),
            Outcome::UnknownTable => ("unknown_table", ""),
            Outcome::Expired => ("expired", ""),
            Outcome::NotAllowed => ("not_allowed", ""),
            Outcome::Failed { error } => ("failed", error.as_str()),
        };
        sqlx::query(
            "INSERT INTO command_outcomes (command_id, worker_id, outcome, error, at_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (command_id, worker_id) DO NOTHING",
        )
        .bind(&ended.command_id)
        .bind(&ended.worker_id)
        .bind(outcome)
        .bind(error)
        .bind(self.clock.now_ms())
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    fn bell(&self, cluster: &str) -> Arc<Notify> {
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wake.entry(cluster.to_owned()).or_default())
    }
}

impl fmt::Debug for CommandHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandHub")
    }
}
