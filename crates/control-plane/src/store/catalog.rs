//! Which tables and columns the database has, as its own catalog says.

use sqlx::Row;

use super::{Engine, StoreError, Tx};

/// What a column holds; there is nothing else in the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Number,
    Text,
    Bytes,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
}

/// Every table but the ledger of migrations; those that others refer to come first.
///
/// # Errors
/// The database's; `Broken`: a table refers to itself in a circle, or has a column of another dialect.
pub(crate) async fn shape(tx: &mut Tx, engine: Engine) -> Result<Vec<Shape>, StoreError> {
    let tables = match engine {
        Engine::Sqlite => {
            "SELECT name AS a FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
        }
        Engine::Postgres => {
            "SELECT CAST(tablename AS TEXT) AS a FROM pg_tables WHERE schemaname = current_schema ORDER BY tablename"
        }
    };
    let columns = match engine {
        Engine::Sqlite => "SELECT name AS a, lower(type) AS b FROM pragma_table_info($1) ORDER BY cid",
        Engine::Postgres => {
            "SELECT CAST(column_name AS TEXT) AS a, CAST(data_type AS TEXT) AS b FROM information_schema.columns
             WHERE table_schema = current_schema AND table_name = $1 ORDER BY ordinal_position"
        }
    };
    let parents = match engine {
        Engine::Sqlite => "SELECT DISTINCT \"table\" AS a FROM pragma_foreign_key_list($1)",
        Engine::Postgres => {
            "SELECT DISTINCT CAST(parent.relname AS TEXT) AS a FROM pg_constraint
             JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
             WHERE contype = 'f' AND child.relnamespace = CAST(current_schema AS regnamespace)
               AND CAST(child.relname AS TEXT) = $1"
        }
    };
    let mut found = Vec::new();
    for row in sqlx::query(tables).fetch_all(tx.connection()).await? {
        let name: String = row.try_get("a")?;
        if name == "migrations" {
            continue;
        }
        let rows = sqlx::query(columns).bind(&name).fetch_all(tx.connection()).await?;
        let columns = rows
            .iter()
            .map(|row| {
                let kind = match row.try_get::<String, _>("b")?.as_str() {
                    "bigint" => Kind::Number,
                    "text" => Kind::Text,
                    "blob" | "bytea" => Kind::Bytes,
                    _ => return Err(StoreError::Broken { what: "the type of a column" }),
                };
                Ok(Column { name: row.try_get("a")?, kind })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let rows = sqlx::query(parents).bind(&name).fetch_all(tx.connection()).await?;
        let parents: Vec<String> = rows.iter().map(|row| row.try_get("a")).collect::<Result<_, _>>()?;
        found.push((Shape { name, columns }, parents));
    }
    let mut ordered: Vec<Shape> = Vec::with_capacity(found.len());
    while !found.is_empty() {
        let is_known = |parent: &String| ordered.iter().any(|one| one.name == *parent);
        let next = found.iter().position(|(_, parents)| parents.iter().all(is_known));
        let next = next.ok_or(StoreError::Broken { what: "references go in a circle" })?;
        ordered.push(found.remove(next).0);
    }
    Ok(ordered)
}
