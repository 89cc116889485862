//! How tables fare, once a minute, for plots.

use sqlx::Row;

use super::delta::count;
use crate::{
    presence::TableNow,
    store::{Store, StoreError, retried},
};

const EVERY_MS: i64 = 60_000;
/// Samples are kept so long.
const KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// What is not known.
const UNKNOWN: i64 = -1;

/// Keeps a sample of these tables, unless there is one of this minute.
///
/// # Errors
/// The database's.
pub async fn sample(
    store: &Store,
    cluster: &str,
    tables: &[(String, TableNow)],
    now_ms: i64,
) -> Result<(), StoreError> {
    if tables.is_empty() {
        return Ok(());
    }
    retried(|| keep(store, cluster, tables, now_ms - now_ms.rem_euclid(EVERY_MS))).await
}

async fn keep(
    store: &Store,
    cluster: &str,
    tables: &[(String, TableNow)],
    at_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for (name, now) in tables {
        let table = sqlx::query(
            "SELECT id, row_count, file_count, byte_count FROM tables WHERE cluster_id = $1 AND name = $2",
        )
        .bind(cluster)
        .bind(name)
        .fetch_optional(tx.connection())
        .await?;
        // A table of which nothing was reported yet.
        let Some(table) = table else { continue };
        let id: String = table.try_get("id")?;
        let known = |number: Option<u64>| number.map_or(UNKNOWN, count);
        let inserted = sqlx::query(
            "INSERT INTO samples (table_id, at_ms, row_count, file_count, byte_count, lag_records, freshness_ms,
               backlog_files, backlog_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (table_id, at_ms) DO NOTHING",
        )
        .bind(&id)
        .bind(at_ms)
        .bind(table.try_get::<i64, _>("row_count")?)
        .bind(table.try_get::<i64, _>("file_count")?)
        .bind(table.try_get::<i64, _>("byte_count")?)
        .bind(known(now.lag_records))
        .bind(known(now.freshness_ms))
        .bind(known(now.backlog_files))
        .bind(known(now.backlog_bytes))
        .execute(tx.connection())
        .await?;
        if inserted.rows_affected() > 0 {
            sqlx::query("DELETE FROM samples WHERE table_id = $1 AND at_ms < $2")
                .bind(&id)
                .bind(at_ms - KEPT_MS)
                .execute(tx.connection())
                .await?;
        }
    }
    tx.commit().await
}
