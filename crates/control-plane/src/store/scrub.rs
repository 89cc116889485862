//! What was deleted leaves the files, too.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, Row};

use super::{Engine, Store, StoreError, shape};

/// Readers hold the log of SQLite up for moments only.
const TRIES_MAX: u32 = 10;
const TRY_AFTER: Duration = Duration::from_millis(100);

impl Store {
    /// Empties SQLite's log of changes, in which pages from before a deletion still stand; the database's own pages
    /// were overwritten by the deletion itself (`secure_delete`). False: a reader held it up, and it is to be tried
    /// again. In Postgres nothing is done: that is [`Store::vacuum`]'s.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        if self.engine == Engine::Postgres {
            return Ok(true);
        }
        for _ in 0..TRIES_MAX {
            let is_empty = {
                let _turn = self.writer.lock().await;
                let mut connection = self.pool.acquire().await?;
                // Others who write wait as long as this one waits for readers.
                connection.execute("PRAGMA busy_timeout = 100").await?;
                let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
                connection.execute("PRAGMA busy_timeout = 5000").await?;
                row?.try_get::<i64, _>(0)? == 0
            };
            if is_empty {
                return Ok(true);
            }
            tokio::time::sleep(TRY_AFTER).await;
        }
        Ok(false)
    }

    /// Writes every table anew, without what was deleted, and gives the room back. Others wait meanwhile.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn vacuum(&self) -> Result<bool, StoreError> {
        match self.engine {
            Engine::Sqlite => {
                let turn = self.writer.lock().await;
                self.pool.execute("VACUUM").await?;
                drop(turn);
            }
            Engine::Postgres => {
                let mut tx = self.snapshot().await?;
                let tables = shape(&mut tx, self.engine).await?;
                drop(tx);
                for table in tables {
                    let statement = format!(r#"VACUUM (FULL) "{}""#, table.name);
                    self.pool.execute(sqlx::query(AssertSqlSafe(statement))).await?;
                }
            }
        }
        self.scrub().await
    }
}
