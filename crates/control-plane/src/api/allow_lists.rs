//! The networks from which an organisation takes requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{Row, any::AnyRow};

use super::{
    access::{change, page},
    name,
};
use crate::{
    auth::network,
    config::Network,
    endpoints::{Call, Reply},
    problem::{Problem, ProblemType},
    store::StoreError,
};

/// Entries of one organisation.
const MAX: i64 = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAllowedNetwork {
    /// E.g. `192.0.2.0/24` or `2001:db8::/32`; one address is a network of its own.
    #[schemars(length(min = 1, max = 64))]
    pub network: String,
    /// What it is.
    #[schemars(length(min = 1, max = 100))]
    pub label: String,
}

/// A network from which requests are taken. While there is none, they are taken from everywhere.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AllowedNetwork {
    pub id: String,
    pub network: String,
    pub label: String,
    pub created_ms: i64,
}

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let statement = "SELECT id, network, label, created_ms FROM ip_allow_lists
        WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT $3";
    let read = |row: &AnyRow| {
        let (id, network) = (row.try_get("id")?, row.try_get("network")?);
        let (label, created_ms) = (row.try_get("label")?, row.try_get("created_ms")?);
        Ok(AllowedNetwork { id, network, label, created_ms })
    };
    Reply::json(&page(&call, statement, |one: &AllowedNetwork| one.id.clone(), read).await?)
}

/// Refuses what would lock the one who asks out, unless it is forced.
fn keeps_caller(call: &Call, after: &[Network]) -> Result<(), Problem> {
    if call.text("force") == Some("true") || network::lets_in(after, call.address) {
        return Ok(());
    }
    let detail = format!(
        "after this, requests from {}, where this one comes from, would be refused; add a network that has it \
         first, or say force=true",
        call.address
    );
    Err(Problem::new(ProblemType::Conflict, detail))
}

pub(crate) async fn create(call: Call) -> Result<Reply, Problem> {
    let new: NewAllowedNetwork = call.json()?;
    let wrong =
        || Problem::invalid("network: an address, or one with the length of a prefix, as 192.0.2.0/24");
    let wanted = Network::parse(&new.network).ok_or_else(wrong)?;
    let organisation = call.organisation()?;
    let there = network::allowed(&call.app.store, organisation).await?;
    let after: Vec<Network> = there.into_iter().map(|(_, network)| network).chain([wanted]).collect();
    keeps_caller(&call, &after)?;
    let made = AllowedNetwork {
        id: call.app.fresh_id(),
        network: wanted.to_string(),
        label: name(&new.label)?.to_owned(),
        created_ms: call.app.clock.now_ms(),
    };
    let mut tx = call.app.store.begin().await?;
    let count = "SELECT COUNT(*) AS n FROM ip_allow_lists WHERE organisation_id = $1";
    tx.room(count, organisation, "entries in the allow-list", MAX).await?;
    sqlx::query(
        "INSERT INTO ip_allow_lists (id, organisation_id, network, label, created_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&made.id)
    .bind(organisation)
    .bind(&made.network)
    .bind(&made.label)
    .bind(made.created_ms)
    .execute(tx.connection())
    .await
    .map_err(StoreError::from)?;
    tx.commit().await?;
    Reply::json(&made)
}

pub(crate) async fn delete(call: Call) -> Result<Reply, Problem> {
    let (id, organisation) = (call.path("ip_allow_list"), call.organisation()?);
    let there = network::allowed(&call.app.store, organisation).await?;
    let after: Vec<Network> =
        there.into_iter().filter(|(other, _)| other != id).map(|(_, network)| network).collect();
    keeps_caller(&call, &after)?;
    let statement = "DELETE FROM ip_allow_lists WHERE id = $1 AND organisation_id = $2";
    change(&call, statement, "entry in the allow-list", id).await
}
