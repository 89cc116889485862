//! The database's shape, in numbered steps that only go forward. A step that was applied is never changed: its digest
//! is kept beside its number.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::{Engine, Store, StoreError};

/// `{bytes}` stands for the engine's type of byte strings.
const STEPS: &[(i64, &str)] =
    &[(1, include_str!("core.sql")), (100, include_str!("access.sql")), (101, include_str!("people.sql"))];

const LEDGER: &str =
    "CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, digest TEXT NOT NULL)";

/// Applies what is not yet applied, all of it or nothing.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.connection().execute(LEDGER).await?;
    if store.engine() == Engine::Postgres {
        // Two servers that start at once take turns.
        tx.connection().execute("LOCK TABLE migrations IN ACCESS EXCLUSIVE MODE").await?;
    }
    let rows = sqlx::query("SELECT number, digest FROM migrations ORDER BY number")
        .fetch_all(tx.connection())
        .await?;
    let applied = rows
        .iter()
        .map(|row| Ok((row.try_get::<i64, _>("number")?, row.try_get::<String, _>("digest")?)))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    for (number, digest) in &applied {
        match STEPS.iter().find(|(known, _)| known == number) {
            None => {
                let what = format!("step {number} is of a newer program; start that one");
                return Err(StoreError::Migration { what });
            }
            Some((_, sql)) if digest_of(sql) != *digest => {
                return Err(StoreError::Migration {
                    what: format!("step {number} was applied in another form"),
                });
            }
            Some(_) => {}
        }
    }
    let bytes = match store.engine() {
        Engine::Sqlite => "BLOB",
        Engine::Postgres => "BYTEA",
    };
    for (number, sql) in STEPS.iter().filter(|(number, _)| applied.iter().all(|(known, _)| known != number)) {
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
    tx.commit().await
}

fn digest_of(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
