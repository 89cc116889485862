//! `login`, `tables`, `status --remote`: what the control plane knows, read over its API.
//!
//! Only what is shown is read from its answers; what it adds to them later does no harm.

mod client;

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use siltstone_protocol::ErrorCode;

use self::client::{Account, Client};
use crate::{
    args::{LoginArgs, RemoteArgs, StatusArgs},
    output::{self, Failure, Invalid},
};

/// A key is short.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// A table as the control plane has it; what it does not say is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Table {
    #[serde(skip_deserializing)]
    environment: String,
    #[serde(skip_deserializing)]
    cluster: String,
    name: String,
    version: Option<u64>,
    rows: Option<u64>,
    files: Option<u64>,
    bytes: Option<u64>,
    committed_ms: Option<i64>,
    state: Option<String>,
    lag_records: Option<u64>,
    freshness_ms: Option<u64>,
    backlog_files: Option<u64>,
    formats: Option<Vec<String>>,
}

/// An environment or a cluster.
#[derive(Debug, Deserialize)]
struct Named {
    id: String,
    name: String,
}

/// Checks the key and keeps it for later commands.
pub async fn login(args: LoginArgs) -> anyhow::Result<u8> {
    let key = match (args.key_file, std::env::var("SILTSTONE_CONTROL_PLANE_KEY")) {
        (Some(path), _) => read_key(std::fs::File::open(path)?)?,
        (None, Ok(key)) => key,
        (None, Err(_)) => read_key(std::io::stdin())?,
    };
    let key = key.trim().to_owned();
    if key.is_empty() {
        let ways = "give the API key by SILTSTONE_CONTROL_PLANE_KEY, by --key-file or on the standard input";
        return Err(Invalid(ways.to_owned()).into());
    }
    let ca_file = args.ca_file.map(std::path::absolute).transpose()?;
    let account = Account { url: args.url, api_key: key, ca_file };
    let client = Client::new(&account)?;
    client.get::<serde_json::Value>("session", &[]).await?;
    let path = account.save()?;
    println!("{}: logged in to {}", path.display(), account.url);
    Ok(output::DONE)
}

fn read_key(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut key = String::new();
    from.take(KEY_BYTES_MAX).read_to_string(&mut key)?;
    Ok(key)
}

/// The tables that the key may read.
pub async fn tables(args: RemoteArgs) -> anyhow::Result<u8> {
    let client = Client::new(&Account::load()?)?;
    let tables = all(&client, &args).await?;
    if args.json {
        output::print_json(&tables)?;
        return Ok(output::DONE);
    }
    let row = |table: &Table| {
        let formats = table.formats.as_ref().map(|formats| formats.join(" "));
        let place = format!("{}/{}", table.environment, table.cluster);
        vec![table.name.clone(), place, number(table.version), number(table.rows), text(formats)]
    };
    let rows: Vec<_> = tables.iter().map(row).collect();
    output::print_table(&["table", "cluster", "version", "rows", "formats"], &rows);
    Ok(output::DONE)
}

/// How tables fare, as their workers told.
pub async fn status(args: StatusArgs) -> anyhow::Result<u8> {
    let client = Client::new(&Account::load()?)?;
    let mut tables = all(&client, &RemoteArgs::default()).await?;
    if let Some(name) = &args.table {
        tables.retain(|table| &table.name == name);
        if tables.is_empty() {
            let message = format!("the control plane shows no table {name}, or the key may not read it");
            return Err(Failure::invalid(ErrorCode::UnknownTable, message).into());
        }
    }
    if args.json {
        output::print_json(&tables)?;
        return Ok(output::DONE);
    }
    let row = |table: &Table| {
        vec![
            table.name.clone(),
            text(table.state.clone()),
            number(table.version),
            number(table.rows),
            number(table.files),
            table.bytes.map_or_else(dash, output::bytes),
            number(table.lag_records),
            table.freshness_ms.map_or_else(dash, |ms| format!("{:.1} s", ms as f64 / 1000.0)),
            number(table.backlog_files),
        ]
    };
    let rows: Vec<_> = tables.iter().map(row).collect();
    let heading = ["table", "state", "version", "rows", "files", "bytes", "lag", "freshness", "to compact"];
    output::print_table(&heading, &rows);
    Ok(output::DONE)
}

/// Tables of every environment and cluster that the key may read, or of those that are named.
async fn all(client: &Client, args: &RemoteArgs) -> anyhow::Result<Vec<Table>> {
    let wanted = |named: &Named, by: &Option<String>| {
        by.as_ref().is_none_or(|by| *by == named.name || *by == named.id)
    };
    let mut tables = Vec::new();
    for environment in client.list::<Named>(&["environments"]).await? {
        if !wanted(&environment, &args.environment) {
            continue;
        }
        let path = ["environments", &environment.id, "clusters"];
        for cluster in client.list::<Named>(&path).await? {
            if !wanted(&cluster, &args.cluster) {
                continue;
            }
            let path = ["environments", &environment.id, "clusters", &cluster.id, "tables"];
            for mut table in client.list::<Table>(&path).await? {
                table.environment.clone_from(&environment.name);
                table.cluster.clone_from(&cluster.name);
                tables.push(table);
            }
        }
    }
    Ok(tables)
}

fn dash() -> String {
    "-".to_owned()
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn text(value: Option<String>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or_else(dash)
}
