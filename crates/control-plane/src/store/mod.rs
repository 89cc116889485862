//! The database: SQLite embedded, or Postgres, in one dialect of SQL.
//!
//! Statements keep to what both take: `$1` parameters, `BIGINT`, `TEXT`, bytes, `ON CONFLICT`, `RETURNING`. No column
//! is nullable: what is absent is `''`, `0` or `-1`, as each column says. SQLite has one writer at a time, so writes
//! queue for it here instead of failing there; a commit is durable when [`Tx::commit`] returns.

mod catalog;
mod migrations;
mod scrub;

pub(crate) use self::{
    catalog::{Column, Kind, Shape, shape},
    migrations::{Step, applied, apply},
};

use std::{fmt, future::Future, sync::Arc, time::Duration};

use sqlx::{
    Any, AnyPool, Executor, Row, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    error::ErrorKind as SqlKind,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Waiting for a connection, then the database counts as unavailable.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// A transaction that met another one is tried so often in all.
const TRIES_MAX: u32 = 5;
/// The first wait between two tries; each further one is twice as long.
const TRY_AFTER: Duration = Duration::from_millis(10);

/// What speaks the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// The database failed. Texts of the driver may quote what was stored, so they stay out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the database does not answer ({what})")]
    Unavailable { what: &'static str },
    #[error("the database could not do this beside what others do at the same time; try again")]
    Contended,
    #[error("a {what} of this name exists")]
    Taken { what: &'static str },
    #[error("the database holds something unexpected ({what})")]
    Broken { what: &'static str },
    #[error("there are {max} {what} already")]
    Full { what: &'static str, max: i64 },
    #[error("the database cannot be brought to this version of the program: {what}")]
    Migration { what: String },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(fault) if is_contention(fault.code().as_deref()) => Self::Contended,
            sqlx::Error::Database(fault) if is_outage(fault.code().as_deref()) => {
                Self::Unavailable { what: OUTAGE }
            }
            sqlx::Error::Database(fault) => match fault.kind() {
                SqlKind::UniqueViolation => Self::Taken { what: "thing" },
                SqlKind::ForeignKeyViolation => Self::Broken { what: "a reference" },
                _ if is_syntax(fault.code().as_deref()) => Self::Broken { what: "a statement" },
                _ => Self::Unavailable { what: "it refused a statement" },
            },
            sqlx::Error::RowNotFound => Self::Broken { what: "a row is missing" },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                Self::Broken { what: "a column" }
            }
            sqlx::Error::PoolTimedOut => Self::Unavailable { what: BUSY },
            _ => Self::Unavailable { what: OUTAGE },
        }
    }
}

const OUTAGE: &str = "the connection failed";
const BUSY: &str = "all connections are busy";

impl StoreError {
    /// The database itself is away: whatever else is asked of it now fails too.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { what } if [OUTAGE, BUSY].contains(what))
    }
}

/// Postgres: it shuts down, starts, or lost the connection.
fn is_outage(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.len() == 5 && (code.starts_with("57P") || code.starts_with("08")))
}

/// Postgres: serialization failure, deadlock, lock not available. SQLite: busy, and busy with an old snapshot.
fn is_contention(code: Option<&str>) -> bool {
    code.is_some_and(|code| ["40001", "40P01", "55P03", "5", "517"].contains(&code))
}

/// Tries a whole transaction again, a bounded number of times, when it met another one. `attempt` begins and commits
/// it, so that nothing of a failed try is left.
///
/// # Errors
/// The attempt's last one.
pub async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = TRY_AFTER;
    for _ in 1..TRIES_MAX {
        match attempt().await {
            Err(StoreError::Contended) => tokio::time::sleep(wait).await,
            done => return done,
        }
        wait *= 2;
    }
    attempt().await
}

/// Postgres's class of syntax errors, and SQLite's generic error.
fn is_syntax(code: Option<&str>) -> bool {
    code.is_some_and(|code| code == "1" || code.starts_with("42"))
}

/// Connections to the database.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    writer: Arc<Mutex<()>>,
}

impl Store {
    /// Opens the database and brings it to this version of the program.
    ///
    /// # Errors
    /// `Unavailable`; `Migration` when it was made by a newer program, or its history was changed.
    pub async fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        let store = Self::connect(url, connections).await?;
        migrations::migrate(&store).await?;
        Ok(store)
    }

    /// Opens the database as it is.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn connect(url: &str, connections: u32) -> Result<Self, StoreError> {
        install_default_drivers();
        let engine = match url.split(':').next() {
            Some("sqlite") => Engine::Sqlite,
            Some("postgres" | "postgresql") => Engine::Postgres,
            _ => {
                return Err(StoreError::Migration {
                    what: "database.url is no sqlite:// or postgres:// URL".into(),
                });
            }
        };
        if engine == Engine::Postgres && !is_protected(url) {
            return Err(StoreError::Migration {
                what: "database.url: its server is not on this machine, so sslmode=verify-full is needed"
                    .into(),
            });
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = match engine {
            Engine::Sqlite if !url.contains("mode=") => format!("{url}{separator}mode=rwc"),
            _ => url.to_owned(),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(connections.clamp(1, 64))
            .acquire_timeout(ACQUIRE_MAX)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if engine == Engine::Sqlite {
                        // `FULL`: what was acknowledged survives a power cut. `secure_delete`: what is deleted is gone.
                        connection
                            .execute(
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                                 PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON; PRAGMA cache_size = -65536;",
                            )
                            .await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        Ok(Self { pool, engine, writer: Arc::default() })
    }

    /// For reading.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// A transaction for writing. Dropping it undoes what was done in it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let turn = match self.engine {
            Engine::Sqlite => Some(Arc::clone(&self.writer).lock_owned().await),
            Engine::Postgres => None,
        };
        let inner = match self.engine {
            // The right to write is taken first: one that has read before could not get it any more, once another
            // program has written.
            Engine::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Engine::Postgres => self.pool.begin().await?,
        };
        Ok(Tx { inner, _turn: turn })
    }

    /// A view of all of the database at one moment, which others neither wait for nor change. For reading.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn snapshot(&self) -> Result<Tx, StoreError> {
        let mut inner = self.pool.begin().await?;
        if self.engine == Engine::Postgres {
            inner.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        }
        Ok(Tx { inner, _turn: None })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Whether nobody on the way to Postgres can listen in, or be taken for it.
fn is_protected(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let option =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let host = option("host").or(url.host_str().map(str::to_owned)).unwrap_or_default();
    // A path is that of a socket.
    let is_here =
        ["127.0.0.1", "[::1]", "::1", "localhost"].contains(&host.as_str()) || host.starts_with('/');
    let mode = option("sslmode").or_else(|| option("ssl-mode")).unwrap_or_default();
    is_here || ["verify-ca", "verify-full"].contains(&mode.as_str())
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// A transaction.
pub struct Tx {
    inner: Transaction<'static, Any>,
    /// Held until the transaction is over.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    /// The connection on which statements run.
    pub fn connection(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.inner
    }

    /// Room for one more: fewer rows than `max` are counted by a statement of one parameter, as `n`.
    ///
    /// # Errors
    /// `Full`.
    pub async fn room(
        &mut self,
        count: &'static str,
        of: &str,
        what: &'static str,
        max: i64,
    ) -> Result<(), StoreError> {
        let row = sqlx::query(count).bind(of).fetch_one(self.connection()).await?;
        if row.try_get::<i64, _>("n")? < max { Ok(()) } else { Err(StoreError::Full { what, max }) }
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// `Unavailable`: it is not known whether it is.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgres_elsewhere_is_spoken_to_under_protection_alone() {
        for (url, protected) in [
            ("postgres://u:p@127.0.0.1:5432/d", true),
            ("postgres://u@localhost/d?sslmode=disable", true),
            ("postgres://u@[::1]/d", true),
            ("postgres:///d?host=/run/postgresql", true),
            ("postgres://u@db.example/d?sslmode=verify-full", true),
            ("postgres://u@db.example/d", false),
            ("postgres://u@db.example/d?sslmode=require", false),
            ("postgres://u@localhost/d?host=db.example", false),
            ("postgres://u@localhost.example/d", false),
        ] {
            assert_eq!(is_protected(url), protected, "{url}");
        }
    }
}
