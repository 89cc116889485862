//! Asking workers for something, and what became of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use siltstone_protocol::command::Action;
use sqlx::Row;

use crate::{
    auth::Resource,
    endpoints::{Call, Page, Reply},
    problem::{Problem, ProblemType},
    store::StoreError,
};

/// A command is refused by workers after this, unless it is for all of them: then it waits for those that come later.
const EXPIRES_MS: i64 = 3_600_000;
const EXPIRES_FOR_ALL_MS: i64 = 365 * 24 * 3_600_000;

/// What is asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCommand {
    pub action: Action,
}

/// A command and its outcomes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CommandView {
    pub id: String,
    pub action: String,
    /// Absent: the workers themselves.
    pub table: Option<String>,
    pub created_by: String,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub state: CommandState,
    pub outcomes: Vec<OutcomeView>,
}

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// No worker has said how it ended.
    Waiting,
    /// Every worker that said how it ended has done it.
    Done,
    Failed,
    Expired,
}

fn state(command: &CommandView, now_ms: i64) -> CommandState {
    match command.outcomes.iter().any(|outcome| outcome.outcome != "done") {
        true => CommandState::Failed,
        false if !command.outcomes.is_empty() => CommandState::Done,
        false if command.expires_ms <= now_ms => CommandState::Expired,
        false => CommandState::Waiting,
    }
}

/// How a command ended at one worker.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OutcomeView {
    pub worker_id: String,
    pub outcome: String,
    /// The kind of the error, when it failed.
    pub error: Option<String>,
    pub at_ms: i64,
}

fn cluster(call: &Call) -> Result<&str, Problem> {
    match &call.resource {
        Resource::Cluster { cluster, .. } | Resource::Table { cluster, .. } => Ok(cluster),
        _ => Err(Problem::new(ProblemType::Internal, "a command without a cluster")),
    }
}

pub(crate) async fn create(call: Call) -> Result<Reply, Problem> {
    let wanted: NewCommand = call.json()?;
    if wanted.action == Action::Rotate {
        return Err(Problem::invalid("action: rotate is of a cluster, not of a table; POST to .../rotate"));
    }
    let table = call.path("table").to_owned();
    let known = sqlx::query("SELECT id FROM tables WHERE cluster_id = $1 AND name = $2")
        .bind(cluster(&call)?)
        .bind(&table)
        .fetch_optional(call.app.store.pool())
        .await
        .map_err(StoreError::from)?;
    known.ok_or_else(|| Problem::not_found("table"))?;
    insert(&call, wanted.action, table).await
}

pub(crate) async fn rotate(call: Call) -> Result<Reply, Problem> {
    insert(&call, Action::Rotate, String::new()).await
}

async fn insert(call: &Call, action: Action, table: String) -> Result<Reply, Problem> {
    let (id, now_ms) = (call.app.fresh_id(), call.app.clock.now_ms());
    let expires_ms = now_ms + if action.is_for_all() { EXPIRES_FOR_ALL_MS } else { EXPIRES_MS };
    let (principal, cluster) = (call.principal()?, cluster(call)?);
    let mut tx = call.app.store.begin().await?;
    if matches!(action, Action::Pause | Action::Resume) {
        // The last word counts: workers that come later need not hear the earlier ones.
        sqlx::query(
            "UPDATE commands SET expires_ms = $3 WHERE cluster_id = $1 AND table_name = $2 AND expires_ms > $3
             AND action IN ('pause', 'resume')",
        )
        .bind(cluster)
        .bind(&table)
        .bind(now_ms)
        .execute(tx.connection())
        .await
        .map_err(StoreError::from)?;
    }
    sqlx::query(
        "INSERT INTO commands (id, organisation_id, cluster_id, table_name, action, created_by, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&id)
    .bind(&principal.organisation)
    .bind(cluster)
    .bind(&table)
    .bind(action.as_str())
    .bind(principal.actor())
    .bind(now_ms)
    .bind(expires_ms)
    .execute(tx.connection())
    .await
    .map_err(StoreError::from)?;
    tx.commit().await?;
    call.app.commands.wake(cluster);
    Reply::json(&CommandView {
        id,
        action: action.as_str().to_owned(),
        table: Some(table).filter(|table| !table.is_empty()),
        created_by: principal.actor(),
        created_ms: now_ms,
        expires_ms,
        state: CommandState::Waiting,
        outcomes: Vec::new(),
    })
}

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let (cluster, limit) = (cluster(&call)?, call.number("limit"));
    let before = call.text("cursor").unwrap_or("~");
    let rows = sqlx::query(
        "SELECT id, table_name, action, created_by, created_ms, expires_ms FROM commands
         WHERE cluster_id = $1 AND id < $2 AND ($4 = '' OR table_name = $4) ORDER BY id DESC LIMIT $3",
    )
    .bind(cluster)
    .bind(before)
    .bind(limit + 1)
    .bind(call.text("table").unwrap_or_default())
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let items = rows.iter().map(view).collect::<Result<Vec<_>, sqlx::Error>>().map_err(StoreError::from)?;
    let mut page = Page::first(items, limit, |last| last.id.clone());
    if let (Some(first), Some(last)) = (page.items.first(), page.items.last()) {
        let mut outcomes = outcomes(&call, cluster, &last.id, &first.id).await?;
        for item in &mut page.items {
            item.outcomes = outcomes.remove(&item.id).unwrap_or_default();
            item.state = state(item, call.app.clock.now_ms());
        }
    }
    Reply::json(&page)
}

fn view(row: &sqlx::any::AnyRow) -> Result<CommandView, sqlx::Error> {
    let table: String = row.try_get("table_name")?;
    Ok(CommandView {
        id: row.try_get("id")?,
        action: row.try_get("action")?,
        table: Some(table).filter(|table| !table.is_empty()),
        created_by: row.try_get("created_by")?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        state: CommandState::Waiting,
        outcomes: Vec::new(),
    })
}

async fn outcomes(
    call: &Call,
    cluster: &str,
    from: &str,
    to: &str,
) -> Result<BTreeMap<String, Vec<OutcomeView>>, Problem> {
    let rows = sqlx::query(
        "SELECT o.command_id, o.worker_id, o.outcome, o.error, o.at_ms FROM command_outcomes o
         JOIN commands c ON c.id = o.command_id WHERE c.cluster_id = $1 AND c.id >= $2 AND c.id <= $3
         ORDER BY o.command_id, o.worker_id LIMIT 10000",
    )
    .bind(cluster)
    .bind(from)
    .bind(to)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let mut all: BTreeMap<String, Vec<OutcomeView>> = BTreeMap::new();
    let read = |row: &sqlx::any::AnyRow| {
        let error: String = row.try_get("error")?;
        let outcome = OutcomeView {
            worker_id: row.try_get("worker_id")?,
            outcome: row.try_get("outcome")?,
            error: Some(error).filter(|error| !error.is_empty()),
            at_ms: row.try_get("at_ms")?,
        };
        Ok::<_, sqlx::Error>((row.try_get("command_id")?, outcome))
    };
    for row in &rows {
        let (command, outcome): (String, _) = read(row).map_err(StoreError::from)?;
        all.entry(command).or_default().push(outcome);
    }
    Ok(all)
}
