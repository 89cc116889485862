//! Sealing anew: what older data keys sealed is sealed with the one in use, and then they go.
//!
//! 1. Rows are sealed anew in small transactions, each row only if it is still as it was read: a report that changes it
//!    meanwhile wins, and has sealed it with the key in use. A crash leaves rows of both keys, and both keys.
//! 2. A pass that finds nothing to do marks the older keys as unused. Another pass, later, looks through every sealed
//!    column that the database's catalog has, also those that this module does not know, and deletes the key only if no
//!    row uses it: a transaction that took the key before the mark has long ended.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Row, any::AnyRow};
use ulid::Ulid;

use crate::{
    app::App,
    crypto::{DataKeys, key_of},
    store::{Kind, Shape, Store, StoreError, Tx, retried, shape},
    tenants::KeyRing,
};

const EVERY: Duration = Duration::from_secs(60);
/// Rows of one transaction.
const BATCH: usize = 200;
/// Parts of images are large.
const PARTS: usize = 4;
/// Others get their turn between two transactions.
const PAUSE: Duration = Duration::from_millis(2);
/// A key that was found unused is looked at again and deleted after this, milliseconds.
pub const DELETED_AFTER_MS: i64 = 600_000;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    pub rows: u64,
    /// Keys that were deleted.
    pub keys: u64,
}

/// Looks every minute whether there is something to do, for as long as the server runs.
pub async fn keep(app: Arc<App>) {
    loop {
        match pass(&app.store, &app.keys, app.clock.now_ms()).await {
            Ok(Resealed { rows: 0, keys: 0 }) => {}
            Ok(Resealed { rows, keys }) => tracing::info!(rows, keys, "sealed anew; old data keys deleted"),
            Err(error) => tracing::warn!(%error, "not all was sealed anew; it goes on in a minute"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Seals anew whatever was not sealed by the key in use.
///
/// # Errors
/// The database's; what was done before stays done.
pub async fn pass(store: &Store, ring: &KeyRing, now_ms: i64) -> Result<Resealed, StoreError> {
    let due = "SELECT organisation_id FROM data_keys WHERE purpose = 'seal'
        GROUP BY organisation_id HAVING COUNT(*) > 1 ORDER BY organisation_id";
    let mut all = Resealed::default();
    for row in sqlx::query(due).fetch_all(store.pool()).await? {
        let organisation: String = row.try_get("organisation_id")?;
        let keys = ring.of(&organisation).await?;
        // The new key is not known everywhere yet.
        if keys.current() != keys.youngest() {
            continue;
        }
        let one = Organisation { store, id: &organisation, keys: &keys };
        let rows = one.reseal().await?;
        all.rows += rows;
        if rows == 0 {
            all.keys += retried(|| one.retire(now_ms)).await?;
        }
    }
    Ok(all)
}

/// A sealed value, and where it stands.
struct Found {
    /// Of the row, as the value was sealed for it.
    row: String,
    sealed: Vec<u8>,
    place: Vec<Part>,
}

/// A part of a row's primary key.
#[derive(Clone)]
enum Part {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

struct Organisation<'a> {
    store: &'a Store,
    id: &'a str,
    keys: &'a DataKeys,
}

impl Organisation<'_> {
    async fn reseal(&self) -> Result<u64, StoreError> {
        let mut tx = self.store.snapshot().await?;
        let tables = sealed_tables(&mut tx, self.store).await?;
        drop(tx);
        let mut rows = 0;
        for Shape { name, columns } in &tables {
            let has = |wanted: &str| columns.iter().any(|column| column.name == wanted);
            if !(has("id") && has("organisation_id")) {
                continue;
            }
            let page = format!(
                "SELECT id, sealed FROM {name} WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT {BATCH}"
            );
            let change = format!("UPDATE {name} SET sealed = $1 WHERE sealed = $2 AND id = $3");
            let start = vec![Part::Text(String::new())];
            let read = |row: &AnyRow| {
                let id: String = row.try_get("id")?;
                let place = vec![Part::Text(id.clone())];
                Ok(Found { row: id, sealed: row.try_get("sealed")?, place })
            };
            rows +=
                self.all(&format!("{name}.sealed"), (self.id, &page, &change), start, BATCH, read).await?;
        }
        let mut after = String::new();
        loop {
            let page = "SELECT id FROM tables WHERE organisation_id = $1 AND id > $2 ORDER BY id LIMIT 200";
            let tables = sqlx::query(page).bind(self.id).bind(&after).fetch_all(self.store.pool()).await?;
            for row in &tables {
                after = row.try_get("id")?;
                rows += self.files(&after).await? + self.parts(&after).await?;
            }
            if tables.is_empty() {
                return Ok(rows);
            }
        }
    }

    async fn files(&self, table: &str) -> Result<u64, StoreError> {
        let page = format!(
            "SELECT digest, sealed FROM files WHERE table_id = $1 AND digest > $2 ORDER BY digest LIMIT {BATCH}"
        );
        let change = "UPDATE files SET sealed = $1 WHERE sealed = $2 AND digest = $3 AND table_id = $4";
        let read = |row: &AnyRow| {
            let place = vec![Part::Bytes(row.try_get("digest")?), Part::Text(table.to_owned())];
            Ok(Found { row: table.to_owned(), sealed: row.try_get("sealed")?, place })
        };
        let start = vec![Part::Bytes(Vec::new())];
        self.all("files.sealed", (table, &page, change), start, BATCH, read).await
    }

    async fn parts(&self, table: &str) -> Result<u64, StoreError> {
        let page = format!(
            "SELECT image_id, part, sealed FROM image_parts WHERE table_id = $1 AND (image_id, part) > ($2, $3)
             ORDER BY image_id, part LIMIT {PARTS}"
        );
        let change = "UPDATE image_parts SET sealed = $1
            WHERE sealed = $2 AND image_id = $3 AND part = $4 AND table_id = $5";
        let read = |row: &AnyRow| {
            let (image, part): (String, i64) = (row.try_get("image_id")?, row.try_get("part")?);
            let of = format!("{table}/{image}/{part}");
            let place = vec![Part::Text(image), Part::Number(part), Part::Text(table.to_owned())];
            Ok(Found { row: of, sealed: row.try_get("sealed")?, place })
        };
        let start = vec![Part::Text(String::new()), Part::Number(-1)];
        self.all("image_parts.sealed", (table, &page, change), start, PARTS, read).await
    }

    /// Goes through a column page by page; a page begins after the key of the one before. The statements: of which
    /// rows, a page of them, the change of one.
    async fn all(
        &self,
        column: &str,
        (of, page, change): (&str, &str, &str),
        mut after: Vec<Part>,
        size: usize,
        read: impl Fn(&AnyRow) -> Result<Found, sqlx::Error>,
    ) -> Result<u64, StoreError> {
        let (mut rows, keys) = (0, after.len());
        loop {
            let mut query = sqlx::query(AssertSqlSafe(page.to_owned())).bind(of);
            for part in &after {
                query = bind(query, part);
            }
            let found = query.fetch_all(self.store.pool()).await?;
            let found = found.iter().map(&read).collect::<Result<Vec<_>, _>>()?;
            let Some(last) = found.last() else { return Ok(rows) };
            after = last.place.iter().take(keys).cloned().collect();
            rows += retried(|| self.change(column, change, &found)).await?;
            if found.len() < size {
                return Ok(rows);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn change(&self, column: &str, change: &str, found: &[Found]) -> Result<u64, StoreError> {
        let is_old = |found: &&Found| key_of(&found.sealed) != Some(self.keys.current());
        if !found.iter().any(|one| is_old(&one)) {
            return Ok(0);
        }
        let mut tx = self.store.begin().await?;
        let mut rows = 0;
        for Found { row, sealed, place } in found.iter().filter(is_old) {
            let anew = self.keys.seal(column, row, &self.keys.open(column, row, sealed)?)?;
            let mut query = sqlx::query(AssertSqlSafe(change.to_owned())).bind(anew).bind(sealed.clone());
            for part in place {
                query = bind(query, part);
            }
            rows += query.execute(tx.connection()).await?.rows_affected();
        }
        tx.commit().await?;
        Ok(rows)
    }

    /// Marks older keys as unused, or deletes those that were so for long.
    async fn retire(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut tx = self.store.begin().await?;
        let tables = sealed_tables(&mut tx, self.store).await?;
        let stored = "SELECT id, unused_ms FROM data_keys WHERE organisation_id = $1 AND purpose = 'seal'";
        let mut deleted = 0;
        for row in sqlx::query(stored).bind(self.id).fetch_all(tx.connection()).await? {
            let (id, unused_ms): (String, i64) = (row.try_get("id")?, row.try_get("unused_ms")?);
            let key =
                Ulid::from_string(&id).map_err(|_| StoreError::Broken { what: "the id of a data key" })?;
            if key >= self.keys.current() {
                continue;
            }
            let mut is_used = false;
            for Shape { name, .. } in &tables {
                let statement = format!("SELECT 1 AS n FROM {name} WHERE substr(sealed, 2, 16) = $1 LIMIT 1");
                let query = sqlx::query(AssertSqlSafe(statement)).bind(key.to_bytes().to_vec());
                is_used |= query.fetch_optional(tx.connection()).await?.is_some();
            }
            let is_over = !is_used && unused_ms != 0 && now_ms >= unused_ms.saturating_add(DELETED_AFTER_MS);
            let statement = match (is_used, unused_ms) {
                _ if is_over => "DELETE FROM data_keys WHERE id = $1 AND unused_ms < $2",
                (false, 0) => "UPDATE data_keys SET unused_ms = $2 WHERE id = $1",
                (true, 1..) => "UPDATE data_keys SET unused_ms = 0 WHERE id = $1 AND unused_ms < $2",
                _ => continue,
            };
            let done = sqlx::query(statement).bind(&id).bind(now_ms).execute(tx.connection()).await?;
            deleted += if is_over { done.rows_affected() } else { 0 };
        }
        tx.commit().await?;
        Ok(deleted)
    }
}

/// Tables that have a sealed column.
async fn sealed_tables(tx: &mut Tx, store: &Store) -> Result<Vec<Shape>, StoreError> {
    let all = shape(tx, store.engine()).await?;
    let is_sealed =
        |shape: &Shape| shape.columns.iter().any(|one| one.name == "sealed" && one.kind == Kind::Bytes);
    Ok(all.into_iter().filter(is_sealed).collect())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Query<'q>, part: &Part) -> Query<'q> {
    match part {
        Part::Text(text) => query.bind(text.clone()),
        Part::Number(number) => query.bind(*number),
        Part::Bytes(bytes) => query.bind(bytes.clone()),
    }
}
