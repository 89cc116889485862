//! A database of a test's own. Which engine: that of the test program, `..._postgres` being on Postgres, where there is
//! a server for tests (`SILTSTONE_TEST_POSTGRES`).

use std::{env, path::Path};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// The server in which tests on Postgres make their databases.
const POSTGRES: &str = "SILTSTONE_TEST_POSTGRES";

/// Gone when dropped.
pub(crate) struct Database {
    pub(crate) url: String,
    /// Of Postgres: the server's URL and the database's name.
    made: Option<(String, String)>,
}

impl Database {
    /// In a file below the directory, or in the server for tests.
    pub(crate) async fn make(directory: &Path) -> Self {
        if is_postgres() { Self::postgres().await } else { Self::sqlite(&directory.join("control-plane.db")) }
    }

    pub(crate) fn sqlite(path: &Path) -> Self {
        Self { url: format!("sqlite://{}", path.display()), made: None }
    }

    /// Whether there is a server for tests.
    #[allow(dead_code, reason = "not every test program asks")]
    pub(crate) fn has_postgres() -> bool {
        env::var(POSTGRES).is_ok()
    }

    pub(crate) async fn postgres() -> Self {
        let server = env::var(POSTGRES).unwrap();
        let name = format!("test_{}", ulid::Ulid::new().to_string().to_lowercase());
        run(&server, format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{base}/{name}"), made: Some((server, name)) }
    }

    #[allow(dead_code, reason = "not every test program asks")]
    pub(crate) fn is_file(&self) -> bool {
        self.made.is_none()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((server, name)) = self.made.take() else { return };
        // The test's own runtime may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        let _ = dropped.join();
    }
}

async fn run(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    connection.execute(sqlx::query(AssertSqlSafe(statement))).await.unwrap();
}

fn is_postgres() -> bool {
    env!("CARGO_CRATE_NAME").ends_with("_postgres") && Database::has_postgres()
}
