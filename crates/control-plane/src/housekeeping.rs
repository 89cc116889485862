//! What leaves the database by age or number, so that it does not grow for ever.

use std::{sync::Arc, time::Duration};

use crate::{
    app::App,
    audit,
    endpoints::once,
    store::{Store, StoreError, retried},
};

const EVERY: Duration = Duration::from_secs(3600);
const DAY_MS: i64 = 24 * 3_600_000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub audit_days: u32,
    /// After their end.
    pub command_days: u32,
    /// Commits of each table, the newest.
    pub commits: i64,
    /// Audit entries stay until they are exported.
    pub until_exported: bool,
}

impl Kept {
    /// Audit entries for so long, commands for a month, and 100,000 commits of a table.
    pub fn with_audit_days(audit_days: u32) -> Self {
        Self { audit_days, command_days: 30, commits: 100_000, until_exported: false }
    }
}

/// Keeps order every hour, for as long as the server runs.
pub async fn keep(app: Arc<App>) {
    let audit = &app.config.audit;
    let kept = Kept { until_exported: audit.kafka.is_some(), ..Kept::with_audit_days(audit.retention_days) };
    loop {
        if let Err(error) = round(&app.store, kept, app.clock.now_ms()).await {
            tracing::warn!(%error, "what is too old was not deleted; it is tried again in an hour");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Deletes what is not kept.
///
/// # Errors
/// The database's; what was deleted before stays so.
pub async fn round(store: &Store, kept: Kept, now_ms: i64) -> Result<(), StoreError> {
    let before = |days: u32| now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS));
    retried(|| audit::prune(store, before(kept.audit_days), kept.until_exported)).await?;
    retried(|| trim(store, before(kept.command_days), kept.commits, now_ms)).await?;
    if !store.scrub().await? {
        tracing::info!("a reader holds up the database's log; what was deleted leaves it in an hour");
    }
    Ok(())
}

async fn trim(store: &Store, commands_before_ms: i64, commits: i64, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM commands WHERE expires_ms < $1")
        .bind(commands_before_ms)
        .execute(tx.connection())
        .await?;
    sqlx::query(
        "DELETE FROM commits WHERE version <=
           (SELECT tables.version FROM tables WHERE tables.id = commits.table_id) - $1",
    )
    .bind(commits)
    .execute(tx.connection())
    .await?;
    for (statement, before_ms) in [
        ("DELETE FROM sessions WHERE expires_ms <= $1", now_ms),
        ("DELETE FROM sign_ons WHERE expires_ms <= $1", now_ms),
        ("DELETE FROM idempotency_keys WHERE created_ms <= $1", now_ms - once::KEPT_MS),
    ] {
        sqlx::query(statement).bind(before_ms).execute(tx.connection()).await?;
    }
    tx.commit().await
}
