//! The organisation, its environments and their clusters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row};

use super::name;
use crate::{
    auth::Resource,
    endpoints::{Call, Page, Reply},
    problem::{Problem, ProblemType},
    store::{StoreError, retried},
};

/// Environments of an organisation, and clusters of an environment, at most.
const MAX: i64 = 1_000;

#[derive(Debug, Serialize, JsonSchema)]
pub struct Organisation {
    pub id: String,
    pub name: String,
    /// The region that this control plane is pinned to.
    pub region: Option<String>,
    pub created_ms: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Environment {
    pub id: String,
    pub name: String,
    pub created_ms: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Cluster {
    pub id: String,
    pub environment: String,
    pub name: String,
    pub created_ms: i64,
}

/// A name for something new.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
}

pub(crate) async fn organisation(call: Call) -> Result<Reply, Problem> {
    let row = sqlx::query("SELECT id, name, created_ms FROM organisations WHERE id = $1")
        .bind(call.organisation()?)
        .fetch_one(call.app.store.pool())
        .await;
    let read = |row: sqlx::any::AnyRow| {
        let region = call.app.config.region.clone();
        let (id, name) = (row.try_get("id")?, row.try_get("name")?);
        Ok::<_, sqlx::Error>(Organisation { id, name, region, created_ms: row.try_get("created_ms")? })
    };
    Reply::json(&row.and_then(read).map_err(StoreError::from)?)
}

pub(crate) async fn environments(call: Call) -> Result<Reply, Problem> {
    let rows = sqlx::query(
        "SELECT id, name, created_ms FROM environments WHERE organisation_id = $1 ORDER BY name LIMIT 1000",
    )
    .bind(call.organisation()?)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let read = |row: &sqlx::any::AnyRow| {
        let (id, name) = (row.try_get("id")?, row.try_get("name")?);
        Ok::<_, sqlx::Error>(Environment { id, name, created_ms: row.try_get("created_ms")? })
    };
    let all = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    let shown =
        all.into_iter().filter(|one| call.reaches(&Resource::Environment { environment: one.id.clone() }));
    Reply::json(&Page::whole(shown.collect()))
}

pub(crate) async fn make_environment(call: Call) -> Result<Reply, Problem> {
    let new: NewName = call.json()?;
    let made = Environment {
        id: call.app.fresh_id(),
        name: name(&new.name)?.to_owned(),
        created_ms: call.app.clock.now_ms(),
    };
    let organisation = call.organisation()?;
    let mut tx = call.app.store.begin().await?;
    tx.room(
        "SELECT COUNT(*) AS n FROM environments WHERE organisation_id = $1",
        organisation,
        "environments",
        MAX,
    )
    .await?;
    sqlx::query("INSERT INTO environments (id, organisation_id, name, created_ms) VALUES ($1, $2, $3, $4)")
        .bind(&made.id)
        .bind(organisation)
        .bind(&made.name)
        .bind(made.created_ms)
        .execute(tx.connection())
        .await
        .map_err(StoreError::from)?;
    tx.commit().await?;
    Reply::json(&made)
}

pub(crate) async fn delete_environment(call: Call) -> Result<Reply, Problem> {
    let environment = call.path("environment");
    let bound = format!("environment/{environment}");
    delete(&call, "DELETE FROM environments WHERE id = $1", environment, &bound).await
}

/// Everything of the organisation goes: rows of every table, its data keys, its audit log. What is left is one entry in
/// an audit log of its own, which says who deleted it.
pub(crate) async fn delete_organisation(call: Call) -> Result<Reply, Problem> {
    let (store, id) = (&call.app.store, call.organisation()?);
    let row =
        sqlx::query("SELECT name FROM organisations WHERE id = $1").bind(id).fetch_one(store.pool()).await;
    let name: String = row.and_then(|row| row.try_get("name")).map_err(StoreError::from)?;
    if call.text("confirm") != Some(name.as_str()) {
        let detail =
            "query: confirm must be the name of the organisation, which is deleted with all that it has";
        return Err(Problem::new(ProblemType::Conflict, detail));
    }
    // Entries that wait would come after.
    if !call.app.audit.flush().await {
        return Err(Problem::new(ProblemType::Internal, "see the server's log"));
    }
    retried(|| async {
        let mut tx = store.begin().await?;
        for statement in [
            // First of all: with it, what its columns hold is unreadable, wherever there is a copy.
            "DELETE FROM data_keys WHERE organisation_id = $1",
            "DELETE FROM audit WHERE organisation_id = $1",
            "DELETE FROM audit_heads WHERE organisation_id = $1",
            "DELETE FROM audit_exports WHERE organisation_id = $1",
            "DELETE FROM organisations WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id).execute(tx.connection()).await?;
        }
        tx.commit().await
    })
    .await?;
    call.app.keys.forget(id);
    scrubbed(&call).await
}

pub(crate) async fn clusters(call: Call) -> Result<Reply, Problem> {
    let environment = call.path("environment");
    let rows = sqlx::query(
        "SELECT id, name, created_ms FROM clusters WHERE environment_id = $1 ORDER BY name LIMIT 1000",
    )
    .bind(environment)
    .fetch_all(call.app.store.pool())
    .await
    .map_err(StoreError::from)?;
    let read = |row: &sqlx::any::AnyRow| {
        let (id, name, environment) = (row.try_get("id")?, row.try_get("name")?, environment.to_owned());
        Ok::<_, sqlx::Error>(Cluster { id, environment, name, created_ms: row.try_get("created_ms")? })
    };
    let all = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    let shown = all.into_iter().filter(|one| {
        call.reaches(&Resource::Cluster { environment: environment.to_owned(), cluster: one.id.clone() })
    });
    Reply::json(&Page::whole(shown.collect()))
}

pub(crate) async fn make_cluster(call: Call) -> Result<Reply, Problem> {
    let new: NewName = call.json()?;
    let made = Cluster {
        id: call.app.fresh_id(),
        environment: call.path("environment").to_owned(),
        name: name(&new.name)?.to_owned(),
        created_ms: call.app.clock.now_ms(),
    };
    let mut tx = call.app.store.begin().await?;
    tx.room(
        "SELECT COUNT(*) AS n FROM clusters WHERE environment_id = $1",
        &made.environment,
        "clusters",
        MAX,
    )
    .await?;
    sqlx::query(
        "INSERT INTO clusters (id, organisation_id, environment_id, name, created_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&made.id)
    .bind(call.organisation()?)
    .bind(&made.environment)
    .bind(&made.name)
    .bind(made.created_ms)
    .execute(tx.connection())
    .await
    .map_err(StoreError::from)?;
    tx.commit().await?;
    Reply::json(&made)
}

pub(crate) async fn delete_cluster(call: Call) -> Result<Reply, Problem> {
    let (environment, cluster) = (call.path("environment"), call.path("cluster"));
    let bound = format!("environment/{environment}/cluster/{cluster}");
    delete(&call, "DELETE FROM clusters WHERE id = $1", cluster, &bound).await
}

/// What belongs to it goes with it; roles on it, too.
async fn delete(call: &Call, statement: &'static str, id: &str, bound: &str) -> Result<Reply, Problem> {
    let organisation = call.organisation()?;
    retried(|| async {
        let mut tx = call.app.store.begin().await?;
        sqlx::query(statement).bind(id).execute(tx.connection()).await?;
        for bindings in ["role_bindings", "user_role_bindings"] {
            let statement = format!(
                "DELETE FROM {bindings} WHERE organisation_id = $1
                   AND (pattern = $2 OR substr(pattern, 1, CAST($4 AS INTEGER)) = $3)"
            );
            let below = format!("{bound}/");
            let length = i64::try_from(below.len()).unwrap_or(i64::MAX);
            let query = sqlx::query(AssertSqlSafe(statement)).bind(organisation).bind(bound);
            query.bind(below).bind(length).execute(tx.connection()).await?;
        }
        tx.commit().await
    })
    .await?;
    scrubbed(call).await
}

/// What was deleted leaves the database's log of changes, too. A reader may hold it up: then housekeeping does it.
pub(super) async fn scrubbed(call: &Call) -> Result<Reply, Problem> {
    match call.app.store.scrub().await {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!("what was deleted is still in the database's log; it leaves within an hour")
        }
        // It is deleted, and nobody is to think otherwise.
        Err(error) => tracing::warn!(%error, "the database's log still holds what was deleted"),
    }
    Ok(Reply::none())
}
