//! A report, statement by statement.

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use siltstone_protocol::{
    Ack, Change, Entry, FileEntry, Format, OffsetRange, PartitionSpec, Report, Schema, SortOrder,
    TableIdentity, disclosed::FileStatistics, report::ReportedFormat,
};
use sqlx::{AssertSqlSafe, Row};

use super::{
    delta::{count, delta, sum},
    writer::Source,
};
use crate::{
    crypto::DataKeys,
    id,
    store::{StoreError, Tx},
};

/// Rows of one statement.
const CHUNK: usize = 50;
/// Tables of a cluster.
const TABLES_MAX: i64 = 100_000;
/// Columns of a table that are named as disclosed.
const DISCLOSED_MAX: usize = 1_000;
/// A table that nothing is held of.
const NO_VERSION: i64 = -1;

/// What of a table is sealed as one value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableDetail {
    pub(crate) location: String,
    pub(crate) schema: Option<Schema>,
    pub(crate) partition_spec: Option<PartitionSpec>,
    pub(crate) sort_order: Option<SortOrder>,
    #[serde(default)]
    pub(crate) disclosed: Disclosed,
}

/// What came of a table because its spec opted into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disclosed {
    /// Columns of which bounds came.
    pub bounds: BTreeSet<String>,
    /// Values of partitions came.
    pub partition_values: bool,
}

impl Disclosed {
    pub(crate) fn is_nothing(&self) -> bool {
        self.bounds.is_empty() && !self.partition_values
    }

    /// Adds what came of a file. True when it is more than before.
    fn add(&mut self, file: &FileStatistics) -> bool {
        let before = (self.bounds.len(), self.partition_values);
        for bounds in file.bounds() {
            if self.bounds.len() < DISCLOSED_MAX && !self.bounds.contains(bounds.column()) {
                self.bounds.insert(bounds.column().to_owned());
            }
        }
        self.partition_values |= !file.partition().is_empty();
        before != (self.bounds.len(), self.partition_values)
    }
}

/// What of a file is sealed as one value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileDetail {
    pub(crate) path: String,
    pub(crate) schema_id: i32,
    pub(crate) spec_id: i32,
    pub(crate) sort_order_id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) statistics: Option<FileStatistics>,
}

/// A table's row while messages about it are applied.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) uuid: String,
    pub(super) version: i64,
    formats: String,
    pub(super) rows: i64,
    pub(super) files: i64,
    pub(super) bytes: i64,
    pub(super) committed_ms: i64,
    detail: TableDetail,
    spec_digest: String,
    changed: bool,
}

impl Held {
    pub(super) fn ack(&self) -> Ack {
        Ack { version: u64::try_from(self.version).ok(), gap: false }
    }

    /// Forgets the table's content: it was made anew, or an image replaces it.
    pub(super) async fn clear(&mut self, tx: &mut Tx, uuid: &str) -> Result<(), StoreError> {
        for statement in [
            "DELETE FROM files WHERE table_id = $1",
            "DELETE FROM offsets WHERE table_id = $1",
            "DELETE FROM commits WHERE table_id = $1",
        ] {
            sqlx::query(statement).bind(&self.id).execute(tx.connection()).await?;
        }
        uuid.clone_into(&mut self.uuid);
        (self.version, self.rows, self.files, self.bytes) = (NO_VERSION, 0, 0, 0);
        self.detail.disclosed = Disclosed::default();
        self.changed = true;
        Ok(())
    }

    /// Remembers that this came.
    pub(super) fn note(&mut self, file: &FileStatistics) {
        self.changed |= self.detail.disclosed.add(file);
    }

    pub(super) fn set(
        &mut self,
        schema: &Schema,
        spec: &PartitionSpec,
        order: &SortOrder,
        formats: &[Format],
    ) {
        self.detail.schema = Some(schema.clone());
        self.detail.partition_spec = Some(spec.clone());
        self.detail.sort_order = Some(order.clone());
        self.formats = words(formats);
        self.changed = true;
    }
}

/// Applies a report. What is refused as a gap changes nothing.
pub(super) async fn report(
    tx: &mut Tx,
    source: &Source,
    keys: &DataKeys,
    report: &Report,
    now_ms: i64,
) -> Result<Ack, StoreError> {
    let mut held = hold(tx, source, keys, &report.table, now_ms).await?;
    let statistics: HashMap<&str, &FileStatistics> =
        report.statistics.iter().map(|of_file| (of_file.path(), of_file)).collect();
    for entry in &report.entries {
        let version = i64::try_from(entry.version).unwrap_or(i64::MAX);
        let is_new_table = version == 0 && held.uuid != entry.table_uuid;
        if is_new_table {
            held.clear(tx, &entry.table_uuid).await?;
        }
        if held.uuid != entry.table_uuid || version > held.version + 1 {
            save(tx, keys, &held).await?;
            return Ok(Ack { gap: true, ..held.ack() });
        }
        if version <= held.version {
            continue;
        }
        apply(tx, keys, &mut held, entry, version, &statistics).await?;
    }
    save(tx, keys, &held).await?;
    Ok(held.ack())
}

async fn apply(
    tx: &mut Tx,
    keys: &DataKeys,
    held: &mut Held,
    entry: &Entry,
    version: i64,
    statistics: &HashMap<&str, &FileStatistics>,
) -> Result<(), StoreError> {
    match &entry.change {
        Change::Create { schema, partition_spec, sort_order, formats, .. } => {
            held.set(schema, partition_spec, sort_order, formats);
        }
        Change::SetSchema { schema } => held.detail.schema = Some(schema.clone()),
        Change::SetPartitionSpec { partition_spec } => {
            held.detail.partition_spec = Some(partition_spec.clone())
        }
        Change::SetSortOrder { sort_order } => held.detail.sort_order = Some(sort_order.clone()),
        Change::SetFormats { formats } => held.formats = words(formats),
        _ => {}
    }
    let delta = delta(entry);
    for file in delta.added {
        if let Some(of_file) = statistics.get(file.path.as_str()) {
            held.note(of_file);
        }
    }
    let (files_removed, rows_removed, bytes_removed) = remove(tx, keys, &held.id, delta.removed).await?;
    add(tx, keys, &held.id, version, delta.added, statistics).await?;
    ranges(tx, &held.id, delta.ranges).await?;
    let (files_added, rows_added, bytes_added) = (
        i64::try_from(delta.added.len()).unwrap_or(i64::MAX),
        sum(delta.added, |file| file.rows),
        sum(delta.added, |file| file.bytes),
    );
    held.files += files_added - files_removed;
    held.rows += rows_added - rows_removed;
    held.bytes += bytes_added - bytes_removed;
    (held.version, held.committed_ms, held.changed) = (version, entry.committed_ms, true);
    sqlx::query(
        "INSERT INTO commits (table_id, version, commit_id, kind, committed_ms, files_added, files_removed,
           rows_added, rows_removed, bytes_added, bytes_removed, rejected)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&held.id)
    .bind(version)
    .bind(&entry.commit_id)
    .bind(entry.change.kind())
    .bind(entry.committed_ms)
    .bind(files_added)
    .bind(files_removed)
    .bind(rows_added)
    .bind(rows_removed)
    .bind(bytes_added)
    .bind(bytes_removed)
    .bind(count(delta.rejected))
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The table's row, made when it is not there, locked until the transaction is over.
pub(super) async fn hold(
    tx: &mut Tx,
    source: &Source,
    keys: &DataKeys,
    table: &TableIdentity,
    now_ms: i64,
) -> Result<Held, StoreError> {
    // Changing a row to itself locks it in Postgres, as one statement in both engines.
    let find = "UPDATE tables SET version = version WHERE cluster_id = $1 AND name = $2
        RETURNING id, table_uuid, version, formats, row_count, file_count, byte_count, committed_ms, sealed, spec_digest";
    let row =
        sqlx::query(find).bind(&source.cluster).bind(&table.name).fetch_optional(tx.connection()).await?;
    let Some(row) = row else { return make(tx, source, keys, table, now_ms).await };
    let id: String = row.try_get("id")?;
    let detail = keys.open("tables.sealed", &id, &row.try_get::<Vec<u8>, _>("sealed")?)?;
    let mut detail: TableDetail =
        serde_json::from_slice(&detail).map_err(|_| StoreError::Broken { what: "a table's detail" })?;
    let spec_digest: String = row.try_get("spec_digest")?;
    let changed = detail.location != table.location || spec_digest != table.spec_digest;
    detail.location.clone_from(&table.location);
    Ok(Held {
        uuid: row.try_get("table_uuid")?,
        version: row.try_get("version")?,
        formats: row.try_get("formats")?,
        rows: row.try_get("row_count")?,
        files: row.try_get("file_count")?,
        bytes: row.try_get("byte_count")?,
        committed_ms: row.try_get("committed_ms")?,
        detail,
        spec_digest: table.spec_digest.clone(),
        changed,
        id,
    })
}

async fn make(
    tx: &mut Tx,
    source: &Source,
    keys: &DataKeys,
    table: &TableIdentity,
    now_ms: i64,
) -> Result<Held, StoreError> {
    let count = "SELECT COUNT(*) AS n FROM tables WHERE cluster_id = $1";
    tx.room(count, &source.cluster, "tables of this cluster", TABLES_MAX).await?;
    let id = id::fresh(now_ms).to_string();
    let location = table.location.clone();
    let detail = TableDetail {
        location,
        schema: None,
        partition_spec: None,
        sort_order: None,
        disclosed: Disclosed::default(),
    };
    let sealed = sealed_detail(keys, &id, &detail)?;
    sqlx::query(
        "INSERT INTO tables (id, organisation_id, cluster_id, name, table_uuid, source_format, spec_digest, formats,
           version, committed_ms, row_count, file_count, byte_count, sealed, created_ms)
         VALUES ($1, $2, $3, $4, '', $5, $6, '', -1, 0, 0, 0, 0, $7, $8)",
    )
    .bind(&id)
    .bind(&source.organisation)
    .bind(&source.cluster)
    .bind(&table.name)
    .bind(format_name(table.source_format))
    .bind(&table.spec_digest)
    .bind(sealed)
    .bind(now_ms)
    .execute(tx.connection())
    .await
    .map_err(|error| match StoreError::from(error) {
        // Another server made it meanwhile.
        StoreError::Taken { .. } => StoreError::Contended,
        other => other,
    })?;
    Ok(Held {
        id,
        uuid: String::new(),
        version: NO_VERSION,
        formats: String::new(),
        rows: 0,
        files: 0,
        bytes: 0,
        committed_ms: 0,
        detail,
        spec_digest: table.spec_digest.clone(),
        changed: false,
    })
}

pub(super) async fn save(tx: &mut Tx, keys: &DataKeys, held: &Held) -> Result<(), StoreError> {
    if !held.changed {
        return Ok(());
    }
    sqlx::query(
        "UPDATE tables SET table_uuid = $2, formats = $3, version = $4, committed_ms = $5, row_count = $6,
           file_count = $7, byte_count = $8, sealed = $9, spec_digest = $10 WHERE id = $1",
    )
    .bind(&held.id)
    .bind(&held.uuid)
    .bind(&held.formats)
    .bind(held.version)
    .bind(held.committed_ms)
    .bind(held.rows)
    .bind(held.files)
    .bind(held.bytes)
    .bind(sealed_detail(keys, &held.id, &held.detail)?)
    .bind(&held.spec_digest)
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn sealed_detail(keys: &DataKeys, id: &str, detail: &TableDetail) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(detail).map_err(|_| StoreError::Broken { what: "a table's detail" })?;
    Ok(keys.seal("tables.sealed", id, &json)?)
}

/// Adds files. Those that are there already stay as they are.
pub(super) async fn add(
    tx: &mut Tx,
    keys: &DataKeys,
    table: &str,
    version: i64,
    files: &[FileEntry],
    statistics: &HashMap<&str, &FileStatistics>,
) -> Result<(), StoreError> {
    for chunk in files.chunks(CHUNK) {
        let rows: Vec<String> = (0..chunk.len())
            .map(|row| {
                let at = |column| 2 + row * 5 + column;
                format!("($1, ${}, ${}, ${}, ${}, ${})", at(0), at(1), at(2), at(3), at(4))
            })
            .collect();
        let statement = format!(
            "INSERT INTO files (table_id, digest, byte_count, row_count, version, sealed) VALUES {}
             ON CONFLICT (table_id, digest) DO NOTHING",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(statement)).bind(table);
        for file in chunk {
            let detail = FileDetail {
                path: file.path.clone(),
                schema_id: file.schema_id,
                spec_id: file.spec_id,
                sort_order_id: file.sort_order_id,
                statistics: statistics.get(file.path.as_str()).map(|of_file| (*of_file).clone()),
            };
            let json =
                serde_json::to_vec(&detail).map_err(|_| StoreError::Broken { what: "a file's detail" })?;
            query = query
                .bind(keys.digest("files.path", &file.path))
                .bind(count(file.bytes))
                .bind(count(file.rows))
                .bind(version)
                .bind(keys.seal("files.sealed", table, &json)?);
        }
        query.execute(tx.connection()).await?;
    }
    Ok(())
}

/// Removes files; how many there were, their rows and their bytes.
async fn remove(
    tx: &mut Tx,
    keys: &DataKeys,
    table: &str,
    paths: &[String],
) -> Result<(i64, i64, i64), StoreError> {
    let (mut files, mut rows, mut bytes) = (0, 0, 0);
    for chunk in paths.chunks(CHUNK) {
        let places: Vec<String> = (0..chunk.len()).map(|index| format!("${}", index + 2)).collect();
        let statement = format!(
            "DELETE FROM files WHERE table_id = $1 AND digest IN ({}) RETURNING row_count, byte_count",
            places.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(statement)).bind(table);
        for path in chunk {
            query = query.bind(keys.digest("files.path", path));
        }
        for row in query.fetch_all(tx.connection()).await? {
            files += 1;
            rows += row.try_get::<i64, _>("row_count")?;
            bytes += row.try_get::<i64, _>("byte_count")?;
        }
    }
    Ok((files, rows, bytes))
}

/// Widens what is known to be consumed of each topic partition.
pub(super) async fn ranges(tx: &mut Tx, table: &str, ranges: &[OffsetRange]) -> Result<(), StoreError> {
    for range in ranges {
        let lost = if range.lost { range.end - range.start } else { 0 };
        sqlx::query(
            "INSERT INTO offsets (table_id, source_cluster, topic, partition_id, min_offset, max_offset, lost_records)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (table_id, source_cluster, topic, partition_id) DO UPDATE SET
               min_offset = CASE WHEN excluded.min_offset < offsets.min_offset
                 THEN excluded.min_offset ELSE offsets.min_offset END,
               max_offset = CASE WHEN excluded.max_offset > offsets.max_offset
                 THEN excluded.max_offset ELSE offsets.max_offset END,
               lost_records = offsets.lost_records + excluded.lost_records",
        )
        .bind(table)
        .bind(&range.cluster)
        .bind(&range.topic)
        .bind(i64::from(range.partition))
        .bind(range.start)
        .bind(range.end)
        .bind(lost)
        .execute(tx.connection())
        .await?;
    }
    Ok(())
}

fn words(formats: &[Format]) -> String {
    formats.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(",")
}

fn format_name(format: ReportedFormat) -> &'static str {
    match format {
        ReportedFormat::Avro => "avro",
        ReportedFormat::Json => "json",
        ReportedFormat::Protobuf => "protobuf",
        ReportedFormat::Raw => "raw",
    }
}
