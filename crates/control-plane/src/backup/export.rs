//! Making a backup.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use futures::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};
use tokio::sync::mpsc;

use super::{BackupError, FORMAT, MANIFEST, Manifest, PART, TablePart, name_of};
use crate::store::{Column, Kind, Shape, Store, StoreError, Tx, applied, shape};

/// Lines are handed on in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait to be written.
const PIECES_MAX: usize = 4;

/// Makes a backup in a folder, which may not be there yet. Returns where.
///
/// # Errors
/// The database's, or the folder cannot be written. What was begun is deleted.
pub async fn backup(store: &Store, directory: &Path, now_ms: i64) -> Result<PathBuf, BackupError> {
    let whole = directory.join(name_of(now_ms));
    let part = directory.join(format!("{}{PART}", name_of(now_ms)));
    let failed = |source| BackupError::Io { path: part.clone(), source };
    // Others than its owner have no business in it.
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    DirBuilder::new().mode(0o700).create(&part).map_err(failed)?;
    let made = fill(store, &part, now_ms).await.and_then(|()| {
        fs::rename(&part, &whole).map_err(failed)?;
        File::open(directory).and_then(|folder| folder.sync_all()).map_err(failed)
    });
    if let Err(error) = made {
        if let Err(source) = fs::remove_dir_all(&part) {
            tracing::warn!(path = %part.display(), %source, "half a backup is left; delete it");
        }
        return Err(error);
    }
    Ok(whole)
}

async fn fill(store: &Store, part: &Path, now_ms: i64) -> Result<(), BackupError> {
    let mut tx = store.snapshot().await?;
    let mut manifest = Manifest {
        format: FORMAT,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        at_ms: now_ms,
        migrations: applied(&mut tx).await?,
        tables: Vec::new(),
    };
    for shape in shape(&mut tx, store.engine()).await? {
        let table = TablePart {
            name: shape.name.clone(),
            columns: shape.columns.clone(),
            rows: 0,
            sha256: String::new(),
        };
        let path = part.join(table.file());
        let (pieces, waiting) = mpsc::channel(PIECES_MAX);
        let writer = tokio::task::spawn_blocking({
            let path = path.clone();
            move || write(&path, waiting)
        });
        let sent = rows(&mut tx, &shape, &pieces).await;
        drop(pieces);
        // Why nobody takes the rows, the writer knows.
        let sha256 = writer.await.map_err(|_| BackupError::Ended)?;
        let sha256 = sha256.map_err(|source| BackupError::Io { path, source })?;
        manifest.tables.push(TablePart { rows: sent?, sha256, ..table });
    }
    let path = part.join(MANIFEST);
    let failed = |source| BackupError::Io { path: path.clone(), source };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|_| BackupError::Ended)?;
    let mut file = created(&path).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    let folder = File::open(part).map_err(failed)?;
    folder.sync_all().map_err(failed)
}

fn created(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads a table, row by row.
async fn rows(tx: &mut Tx, shape: &Shape, pieces: &mpsc::Sender<Vec<u8>>) -> Result<u64, BackupError> {
    let names: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
    let statement = format!("SELECT {} FROM {}", names.join(", "), shape.name);
    let mut found = sqlx::query(AssertSqlSafe(statement)).fetch(tx.connection());
    let (mut rows, mut piece) = (0, Vec::with_capacity(PIECE_BYTES));
    while let Some(row) = found.try_next().await.map_err(StoreError::from)? {
        let values: Vec<Value> = shape
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| value(&row, at, column))
            .collect::<Result<_, _>>()?;
        serde_json::to_writer(&mut piece, &values).map_err(|_| BackupError::Ended)?;
        piece.push(b'\n');
        rows += 1;
        if piece.len() >= PIECE_BYTES {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
            pieces.send(full).await.map_err(|_| BackupError::Ended)?;
        }
    }
    pieces.send(piece).await.map_err(|_| BackupError::Ended)?;
    Ok(rows)
}

fn value(row: &AnyRow, at: usize, column: &Column) -> Result<Value, StoreError> {
    Ok(match column.kind {
        Kind::Number => Value::from(row.try_get::<i64, _>(at)?),
        Kind::Text => Value::from(row.try_get::<String, _>(at)?),
        Kind::Bytes => Value::from(BASE64_STANDARD.encode(row.try_get::<Vec<u8>, _>(at)?)),
    })
}

/// Writes pieces to a file; its digest.
fn write(path: &Path, mut pieces: mpsc::Receiver<Vec<u8>>) -> io::Result<String> {
    let digesting = Digesting { file: BufWriter::new(created(path)?), digest: Sha256::new() };
    let mut gzip = GzEncoder::new(digesting, Compression::fast());
    while let Some(piece) = pieces.blocking_recv() {
        gzip.write_all(&piece)?;
    }
    let Digesting { mut file, digest } = gzip.finish()?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Digesting {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
