//! Restoring a backup.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::bufread::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use tokio::sync::mpsc;

use super::{BackupError, TablePart, manifest, shown_time};
use crate::{
    audit,
    clock::Clock,
    store::{Kind, Store, StoreError, Tx, apply, shape},
};

/// Rows of one statement.
const CHUNK: usize = 50;
const CHUNKS_MAX: usize = 4;
/// Of a row: parts of images are the longest.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The moment that the backup shows, milliseconds since 1970 UTC.
    pub at_ms: i64,
    pub rows: u64,
}

/// Restores a backup into an empty database, and writes so into every audit log in it.
///
/// # Errors
/// `NotEmpty`; `Damaged`, the database's: then nothing is restored.
pub async fn restore(
    url: &str,
    connections: u32,
    backup: &Path,
    clock: &Clock,
) -> Result<(Store, Restored), BackupError> {
    let manifest = manifest(backup)?;
    let store = Store::connect(url, connections).await?;
    let mut tx = store.begin().await?;
    if !is_empty(&mut tx, &store).await? {
        return Err(BackupError::NotEmpty);
    }
    apply(&mut tx, store.engine(), Some(&manifest.migrations)).await?;
    let mut rows = 0;
    for table in &manifest.tables {
        rows += fill(&mut tx, backup, table).await?;
    }
    // What later versions of the program changed, they change now.
    apply(&mut tx, store.engine(), None).await?;
    tx.commit().await?;
    audit::note_everywhere(&store, clock, "restore", &format!("backup/{}", shown_time(manifest.at_ms)))
        .await?;
    Ok((store, Restored { at_ms: manifest.at_ms, rows }))
}

async fn is_empty(tx: &mut Tx, store: &Store) -> Result<bool, StoreError> {
    Ok(shape(tx, store.engine()).await?.is_empty())
}

async fn fill(tx: &mut Tx, backup: &Path, table: &TablePart) -> Result<u64, BackupError> {
    let path = backup.join(table.file());
    let damaged = |what| BackupError::Damaged { path: path.clone(), what };
    let (chunks, mut waiting) = mpsc::channel::<Vec<Vec<Value>>>(CHUNKS_MAX);
    let reader = tokio::task::spawn_blocking({
        let path = path.clone();
        move || read(&path, &chunks)
    });
    let mut rows = 0;
    while let Some(chunk) = waiting.recv().await {
        rows += chunk.len() as u64;
        insert(tx, table, chunk, damaged).await?;
    }
    let digest = reader.await.map_err(|_| BackupError::Ended)?;
    let digest = digest.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            damaged("it cannot be unpacked")
        }
        _ => BackupError::Io { path: path.clone(), source },
    })?;
    if digest != table.sha256 || rows != table.rows {
        return Err(damaged("it is not what the manifest says"));
    }
    Ok(rows)
}

async fn insert(
    tx: &mut Tx,
    table: &TablePart,
    chunk: Vec<Vec<Value>>,
    damaged: impl Fn(&'static str) -> BackupError,
) -> Result<(), BackupError> {
    let width = table.columns.len();
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let places: Vec<String> = (0..chunk.len())
        .map(|row| {
            let places: Vec<String> = (0..width).map(|at| format!("${}", row * width + at + 1)).collect();
            format!("({})", places.join(", "))
        })
        .collect();
    let statement = format!("INSERT INTO {} ({}) VALUES {}", table.name, names.join(", "), places.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for row in chunk {
        if row.len() != width {
            return Err(damaged("a row has too many values, or too few"));
        }
        for (value, column) in row.into_iter().zip(&table.columns) {
            query = match (value, column.kind) {
                (Value::Number(number), Kind::Number) => {
                    query.bind(number.as_i64().ok_or_else(|| damaged("a number is too large"))?)
                }
                (Value::String(text), Kind::Text) => query.bind(text),
                (Value::String(text), Kind::Bytes) => {
                    query.bind(BASE64_STANDARD.decode(text).map_err(|_| damaged("bytes are no base64"))?)
                }
                _ => return Err(damaged("a value is not of its column's kind")),
            };
        }
    }
    query.execute(tx.connection()).await.map_err(StoreError::from)?;
    Ok(())
}

/// Hands rows on; the file's digest.
fn read(path: &Path, chunks: &mpsc::Sender<Vec<Vec<Value>>>) -> io::Result<String> {
    let digesting = Digesting { file: File::open(path)?, digest: Sha256::new() };
    let mut lines = BufReader::new(GzDecoder::new(BufReader::new(digesting)));
    let (mut chunk, mut line) = (Vec::with_capacity(CHUNK), Vec::new());
    loop {
        line.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read > 0 {
            chunk.push(serde_json::from_slice(&line).map_err(|_| io::ErrorKind::InvalidData)?);
        }
        let is_full = chunk.len() >= CHUNK || (read == 0 && !chunk.is_empty());
        // Nobody takes it: why, the other side knows.
        if is_full && chunks.blocking_send(std::mem::take(&mut chunk)).is_err() {
            return Ok(String::new());
        }
        if read == 0 {
            break;
        }
    }
    let mut rest = lines.into_inner().into_inner();
    // What stands after the end is part of the file, and of its digest.
    io::copy(&mut rest, &mut io::sink())?;
    let digest = rest.into_inner().digest.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Digesting {
    file: File,
    digest: Sha256,
}

impl Read for Digesting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.digest.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}
