//! What is known of tables.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::Serialize;
use siltstone_protocol::{
    ErrorKind, PartitionSpec, Schema, SortOrder, disclosed::FileStatistics, health::WorkState,
};
use sqlx::{Row, any::AnyRow};

use super::{cursor_number, tenants::scrubbed};
use crate::{
    auth::Resource,
    crypto::DataKeys,
    endpoints::{Call, Page, Reply},
    inventory::{Disclosed, FileDetail, TableDetail},
    presence::TableNow,
    problem::{Problem, ProblemType},
    store::{StoreError, retried},
};

/// A table in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TableSummary {
    pub name: String,
    pub source_format: String,
    pub formats: Vec<String>,
    /// The ledger version that is known; `null`: nothing yet.
    pub version: Option<u64>,
    /// When that version was committed, milliseconds since 1970 UTC.
    pub committed_ms: i64,
    pub rows: i64,
    pub files: i64,
    pub bytes: i64,
    /// What came because the table's spec opted into it; `null`: nothing.
    pub disclosed: Option<Disclosed>,
    /// As the workers say now, from here on; `null`: none of them says anything.
    pub state: Option<WorkState>,
    pub error: Option<ErrorKind>,
    pub lag_records: Option<u64>,
    pub freshness_ms: Option<u64>,
    pub backlog_files: Option<u64>,
    pub backlog_bytes: Option<u64>,
}

impl TableSummary {
    fn set(&mut self, now: &TableNow) {
        (self.state, self.error) = (Some(now.state), now.error);
        (self.lag_records, self.freshness_ms) = (now.lag_records, now.freshness_ms);
        (self.backlog_files, self.backlog_bytes) = (now.backlog_files, now.backlog_bytes);
    }
}

/// One table.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Table {
    #[serde(flatten)]
    pub summary: TableSummary,
    pub uuid: String,
    pub created_ms: i64,
    pub location: String,
    pub spec_digest: String,
    #[serde(rename = "schema")]
    pub columns: Option<Schema>,
    pub partition_spec: Option<PartitionSpec>,
    pub sort_order: Option<SortOrder>,
}

/// A live data file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct File {
    /// Below the table's location.
    pub path: String,
    pub bytes: i64,
    pub rows: i64,
    /// The version that added it.
    pub version: i64,
    pub schema_id: i32,
    pub spec_id: i32,
    pub sort_order_id: i64,
    /// What the table's spec opted into.
    pub statistics: Option<FileStatistics>,
}

/// One commit.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Commit {
    pub version: i64,
    pub commit_id: String,
    pub kind: String,
    pub committed_ms: i64,
    pub files_added: i64,
    pub files_removed: i64,
    pub rows_added: i64,
    pub rows_removed: i64,
    pub bytes_added: i64,
    pub bytes_removed: i64,
    /// Records that were rejected.
    pub rejected: i64,
}

/// What is committed of a topic partition.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Offset {
    /// Of the source, as the spec names it.
    pub cluster: String,
    pub topic: String,
    pub partition: i64,
    pub min_offset: i64,
    /// One after the last.
    pub max_offset: i64,
    pub lost_records: i64,
}

/// How a table fared at a time. What was not known is absent.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sample {
    pub at_ms: i64,
    pub rows: i64,
    pub files: i64,
    pub bytes: i64,
    pub lag_records: Option<i64>,
    pub freshness_ms: Option<i64>,
    pub backlog_files: Option<i64>,
    pub backlog_bytes: Option<i64>,
}

fn cluster(call: &Call) -> Result<(&str, &str), Problem> {
    match &call.resource {
        Resource::Cluster { environment, cluster } | Resource::Table { environment, cluster, .. } => {
            Ok((environment, cluster))
        }
        _ => Err(Problem::new(ProblemType::Internal, "a table without a cluster")),
    }
}

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let (environment, cluster) = cluster(&call)?;
    let (after, limit) = (call.text("cursor").unwrap_or_default(), call.number("limit"));
    let prefix = call.text("prefix").unwrap_or_default();
    let now = call.app.memory.tables(cluster, call.app.clock.now_ms());
    let keys = call.app.keys.of(call.organisation()?).await?;
    let (mut items, mut after) = (Vec::new(), after.to_owned());
    loop {
        // Names are compared as bytes by both engines, so that a cursor means the same in both.
        let rows = sqlx::query(
            "SELECT id, name, source_format, formats, version, committed_ms, row_count, file_count, byte_count, sealed
             FROM tables WHERE cluster_id = $1 AND name > $2 AND substr(name, 1, CAST($3 AS INTEGER)) = $4 ORDER BY name LIMIT $5",
        )
        .bind(cluster)
        .bind(&after)
        .bind(i64::try_from(prefix.chars().count()).unwrap_or(0))
        .bind(prefix)
        .bind(limit + 1)
        .fetch_all(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
        let last = (rows.len() as i64) <= limit;
        for row in &rows {
            let (mut table, _) = summary(row, &keys)?;
            after.clone_from(&table.name);
            let (environment, cluster) = (environment.to_owned(), cluster.to_owned());
            if call.reaches(&Resource::Table { environment, cluster, table: table.name.clone() }) {
                if let Some(now) = now.get(&table.name) {
                    table.set(now);
                }
                items.push(table);
            }
        }
        if last || items.len() as i64 > limit {
            break;
        }
    }
    Reply::json(&Page::first(items, limit, |last| last.name.clone()))
}

fn summary(row: &AnyRow, keys: &DataKeys) -> Result<(TableSummary, TableDetail), StoreError> {
    let id: String = row.try_get("id")?;
    let detail = keys.open("tables.sealed", &id, &row.try_get::<Vec<u8>, _>("sealed")?)?;
    let broken = |_| StoreError::Broken { what: "a table's detail" };
    let detail: TableDetail = serde_json::from_slice(&detail).map_err(broken)?;
    let formats: String = row.try_get("formats")?;
    let summary = TableSummary {
        name: row.try_get("name")?,
        source_format: row.try_get("source_format")?,
        formats: formats.split(',').filter(|format| !format.is_empty()).map(str::to_owned).collect(),
        version: u64::try_from(row.try_get::<i64, _>("version")?).ok(),
        committed_ms: row.try_get("committed_ms")?,
        rows: row.try_get("row_count")?,
        files: row.try_get("file_count")?,
        bytes: row.try_get("byte_count")?,
        disclosed: (!detail.disclosed.is_nothing()).then(|| detail.disclosed.clone()),
        state: None,
        error: None,
        lag_records: None,
        freshness_ms: None,
        backlog_files: None,
        backlog_bytes: None,
    };
    Ok((summary, detail))
}

/// The table's row.
async fn found(call: &Call) -> Result<AnyRow, Problem> {
    let (_, cluster) = cluster(call)?;
    let row = sqlx::query(
        "SELECT id, name, source_format, formats, version, committed_ms, row_count, file_count, byte_count, table_uuid,
           spec_digest, created_ms, sealed FROM tables WHERE cluster_id = $1 AND name = $2",
    )
    .bind(cluster)
    .bind(call.path("table"))
    .fetch_optional(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    row.ok_or_else(|| Problem::not_found("table"))
}

async fn table_id(call: &Call) -> Result<String, Problem> {
    Ok(found(call).await?.try_get("id").map_err(StoreError::from)?)
}

pub(crate) async fn get(call: Call) -> Result<Reply, Problem> {
    let row = found(&call).await?;
    let keys = call.app.keys.of(call.organisation()?).await?;
    let mut table = table(&row, &keys)?;
    let (_, cluster) = cluster(&call)?;
    let now = call.app.memory.tables(cluster, call.app.clock.now_ms());
    if let Some(now) = now.get(&table.summary.name) {
        table.summary.set(now);
    }
    Reply::json(&table)
}

fn table(row: &AnyRow, keys: &DataKeys) -> Result<Table, StoreError> {
    let (summary, detail) = summary(row, keys)?;
    Ok(Table {
        summary,
        uuid: row.try_get("table_uuid")?,
        created_ms: row.try_get("created_ms")?,
        location: detail.location,
        spec_digest: row.try_get("spec_digest")?,
        columns: detail.schema,
        partition_spec: detail.partition_spec,
        sort_order: detail.sort_order,
    })
}

pub(crate) async fn delete(call: Call) -> Result<Reply, Problem> {
    let id = table_id(&call).await?;
    let (_, cluster) = cluster(&call)?;
    retried(|| async {
        let mut tx = call.app.store.begin().await?;
        sqlx::query("DELETE FROM tables WHERE id = $1").bind(&id).execute(tx.connection()).await?;
        sqlx::query("DELETE FROM commands WHERE cluster_id = $1 AND table_name = $2")
            .bind(cluster)
            .bind(call.path("table"))
            .execute(tx.connection())
            .await?;
        tx.commit().await
    })
    .await?;
    scrubbed(&call).await
}

pub(crate) async fn files(call: Call) -> Result<Reply, Problem> {
    let (id, limit) = (table_id(&call).await?, call.number("limit"));
    let after = BASE64_URL_SAFE_NO_PAD.decode(call.text("cursor").unwrap_or_default());
    let after = after.map_err(|_| Problem::invalid("query: cursor is none that was given out"))?;
    let rows = sqlx::query(
        "SELECT digest, byte_count, row_count, version, sealed FROM files WHERE table_id = $1 AND digest > $2
         ORDER BY digest LIMIT $3",
    )
    .bind(&id)
    .bind(after)
    .bind(limit + 1)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let keys = call.app.keys.of(call.organisation()?).await?;
    let shown = rows.get(..usize::try_from(limit).unwrap_or(0)).unwrap_or(&rows);
    let items = shown.iter().map(|row| file(row, &id, &keys)).collect::<Result<Vec<_>, StoreError>>()?;
    let next_cursor = match shown.last() {
        Some(last) if rows.len() > shown.len() => {
            let digest: Vec<u8> = last.try_get("digest").map_err(StoreError::from)?;
            Some(BASE64_URL_SAFE_NO_PAD.encode(digest))
        }
        _ => None,
    };
    Reply::json(&Page { items, next_cursor })
}

fn file(row: &AnyRow, table: &str, keys: &DataKeys) -> Result<File, StoreError> {
    let detail = keys.open("files.sealed", table, &row.try_get::<Vec<u8>, _>("sealed")?)?;
    let broken = |_| StoreError::Broken { what: "a file's detail" };
    let detail: FileDetail = serde_json::from_slice(&detail).map_err(broken)?;
    Ok(File {
        path: detail.path,
        bytes: row.try_get("byte_count")?,
        rows: row.try_get("row_count")?,
        version: row.try_get("version")?,
        schema_id: detail.schema_id,
        spec_id: detail.spec_id,
        sort_order_id: detail.sort_order_id,
        statistics: detail.statistics,
    })
}

pub(crate) async fn commits(call: Call) -> Result<Reply, Problem> {
    let (id, limit) = (table_id(&call).await?, call.number("limit"));
    let before = cursor_number(call.text("cursor"), i64::MAX)?;
    let rows = sqlx::query(
        "SELECT version, commit_id, kind, committed_ms, files_added, files_removed, rows_added, rows_removed,
           bytes_added, bytes_removed, rejected FROM commits WHERE table_id = $1 AND version < $2
         ORDER BY version DESC LIMIT $3",
    )
    .bind(&id)
    .bind(before)
    .bind(limit + 1)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let read = |row: &AnyRow| {
        Ok::<_, sqlx::Error>(Commit {
            version: row.try_get("version")?,
            commit_id: row.try_get("commit_id")?,
            kind: row.try_get("kind")?,
            committed_ms: row.try_get("committed_ms")?,
            files_added: row.try_get("files_added")?,
            files_removed: row.try_get("files_removed")?,
            rows_added: row.try_get("rows_added")?,
            rows_removed: row.try_get("rows_removed")?,
            bytes_added: row.try_get("bytes_added")?,
            bytes_removed: row.try_get("bytes_removed")?,
            rejected: row.try_get("rejected")?,
        })
    };
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    Reply::json(&Page::first(items, limit, |last| last.version.to_string()))
}

pub(crate) async fn offsets(call: Call) -> Result<Reply, Problem> {
    let (id, limit) = (table_id(&call).await?, call.number("limit"));
    let skip = cursor_number(call.text("cursor"), 0)?.max(0);
    let rows = sqlx::query(
        "SELECT source_cluster, topic, partition_id, min_offset, max_offset, lost_records FROM offsets
         WHERE table_id = $1 ORDER BY source_cluster, topic, partition_id LIMIT $2 OFFSET $3",
    )
    .bind(&id)
    .bind(limit + 1)
    .bind(skip)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let read = |row: &AnyRow| {
        Ok::<_, sqlx::Error>(Offset {
            cluster: row.try_get("source_cluster")?,
            topic: row.try_get("topic")?,
            partition: row.try_get("partition_id")?,
            min_offset: row.try_get("min_offset")?,
            max_offset: row.try_get("max_offset")?,
            lost_records: row.try_get("lost_records")?,
        })
    };
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    Reply::json(&Page::first(items, limit, |_| skip.saturating_add(limit).to_string()))
}

/// Samples that one answer has at most: for a longer time, choose a longer step.
const SAMPLES_MAX: i64 = 2_000;

pub(crate) async fn series(call: Call) -> Result<Reply, Problem> {
    let id = table_id(&call).await?;
    let rows = sqlx::query(
        "SELECT at_ms, row_count, file_count, byte_count, lag_records, freshness_ms, backlog_files, backlog_bytes
         FROM samples WHERE table_id = $1 AND at_ms IN (
           SELECT MAX(at_ms) FROM samples WHERE table_id = $1 AND at_ms >= $2 AND at_ms < $3 GROUP BY at_ms / $4)
         ORDER BY at_ms LIMIT $5",
    )
    .bind(&id)
    .bind(call.number("from_ms"))
    .bind(call.number("to_ms"))
    .bind(call.number("step_ms"))
    .bind(SAMPLES_MAX)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let read = |row: &AnyRow| {
        let known =
            |column: &str| row.try_get::<i64, _>(column).map(|number| Some(number).filter(|n| *n >= 0));
        Ok::<_, sqlx::Error>(Sample {
            at_ms: row.try_get("at_ms")?,
            rows: row.try_get("row_count")?,
            files: row.try_get("file_count")?,
            bytes: row.try_get("byte_count")?,
            lag_records: known("lag_records")?,
            freshness_ms: known("freshness_ms")?,
            backlog_files: known("backlog_files")?,
            backlog_bytes: known("backlog_bytes")?,
        })
    };
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    Reply::json(&Page::whole(items))
}

pub(crate) async fn workers(call: Call) -> Result<Reply, Problem> {
    let (_, cluster) = cluster(&call)?;
    let workers = call.app.memory.workers(&[cluster.to_owned()], call.app.clock.now_ms());
    let items: Vec<_> = workers.into_iter().map(|(_, view)| view).collect();
    Reply::json(&Page::whole(items))
}
