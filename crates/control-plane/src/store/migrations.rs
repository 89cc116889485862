//! The database's shape, in numbered steps that only go forward. A step that was applied is never changed: its digest
//! is kept beside its number.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::{Engine, Store, StoreError, Tx};

/// `{bytes}` stands for the engine's type of byte strings.
const STEPS: &[(i64, &str)] = &[
    (1, include_str!("core.sql")),
    (100, include_str!("access.sql")),
    (101, include_str!("people.sql")),
    (200, include_str!("keys.sql")),
    (300, include_str!("export.sql")),
];

const LEDGER: &str =
    "CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, digest TEXT NOT NULL)";

/// A step that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) number: i64,
    pub(crate) digest: String,
}

/// Applies what is not yet applied, all of it or nothing.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    apply(&mut tx, store.engine(), None).await?;
    tx.commit().await
}

/// The steps that were applied, made sure that this program has them in the same form.
///
/// # Errors
/// `Migration` when it does not.
pub(crate) async fn applied(tx: &mut Tx) -> Result<Vec<Step>, StoreError> {
    // Not kept prepared: a step may change the column's type, and Postgres refuses a plan from before.
    let rows = sqlx::query("SELECT number, digest FROM migrations ORDER BY number")
        .persistent(false)
        .fetch_all(tx.connection())
        .await?;
    let step =
        |row: &sqlx::any::AnyRow| Ok(Step { number: row.try_get("number")?, digest: row.try_get("digest")? });
    let steps = rows.iter().map(step).collect::<Result<Vec<_>, sqlx::Error>>()?;
    known(&steps)?;
    Ok(steps)
}

fn known(steps: &[Step]) -> Result<(), StoreError> {
    for Step { number, digest } in steps {
        let what = match STEPS.iter().find(|(known, _)| known == number) {
            None => format!("step {number} is of a newer program; start that one"),
            Some((_, sql)) if digest_of(sql) != *digest => {
                format!("step {number} was applied in another form")
            }
            Some(_) => continue,
        };
        return Err(StoreError::Migration { what });
    }
    Ok(())
}

/// Applies what is not yet applied; when `only` says which, no others.
///
/// # Errors
/// `Migration`: the database, or `only`, has steps that this program does not have in the same form.
pub(crate) async fn apply(tx: &mut Tx, engine: Engine, only: Option<&[Step]>) -> Result<(), StoreError> {
    known(only.unwrap_or_default())?;
    tx.connection().execute(LEDGER).await?;
    if engine == Engine::Postgres {
        // Two servers that start at once take turns.
        tx.connection().execute("LOCK TABLE migrations IN ACCESS EXCLUSIVE MODE").await?;
    }
    let applied = applied(tx).await?;
    let bytes = match engine {
        Engine::Sqlite => "BLOB",
        Engine::Postgres => "BYTEA",
    };
    let is_due = |number: &i64| {
        applied.iter().all(|step| step.number != *number)
            && only.is_none_or(|only| only.iter().any(|step| step.number == *number))
    };
    for (number, sql) in STEPS.iter().filter(|(number, _)| is_due(number)) {
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let statement = statement.replace("{bytes}", bytes);
            tx.connection().execute(sqlx::query(AssertSqlSafe(statement))).await?;
        }
        sqlx::query("INSERT INTO migrations (number, digest) VALUES ($1, $2)")
            .bind(*number)
            .bind(digest_of(sql))
            .execute(tx.connection())
            .await?;
    }
    if engine == Engine::Postgres {
        order_by_bytes(tx).await?;
    }
    Ok(())
}

/// Text is compared by its bytes, as SQLite does, whatever the locale of the database is: cursors rest on it.
async fn order_by_bytes(tx: &mut Tx) -> Result<(), StoreError> {
    let columns = sqlx::query(
        "SELECT CAST(table_name AS TEXT) AS of_table, CAST(column_name AS TEXT) AS of_column
         FROM information_schema.columns
         WHERE table_schema = current_schema AND data_type = 'text' AND COALESCE(collation_name, '') <> 'C'
           AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = current_schema)
         ORDER BY table_name, column_name",
    )
    .fetch_all(tx.connection())
    .await?;
    for row in columns {
        let (table, column): (String, String) = (row.try_get("of_table")?, row.try_get("of_column")?);
        let statement = format!(r#"ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE TEXT COLLATE "C""#);
        tx.connection().execute(sqlx::query(AssertSqlSafe(statement))).await?;
    }
    Ok(())
}

fn digest_of(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
