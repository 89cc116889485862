//! Row TTL: whole files leave when all of their rows are older than `retention.rows`.
//!
//! A file is old when its newest time is: by the column's upper bound with no null, or by the end of its time
//! partition. A row without a time is never old, and neither is a file whose bounds say nothing. So rows leave
//! late, never early: with their file, when its last row is old.
//!
//! Files that hold old rows beside others stay, unless they are to be rewritten without them (`cut`).
//!
//! The files leave by a ledger entry ([`Change::Delete`]), which both formats show as a delete. When others moved
//! the table first (a compaction took one of the files), all is planned anew.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use iceberg::spec::{Datum, Literal, PrimitiveLiteral};
use serde::Serialize;
use siltstone_datafile::{FileDetails, OldRows};
use siltstone_protocol::{
    Change, ErrorCode, ErrorKind, FileEntry, PartitionSpec, PrimitiveType, Schema, Transform, Type,
};

use super::{Janitor, cut::CutReport};
use crate::{
    crash_point,
    details::DetailsCache,
    error::LakeError,
    ledger::{Committed, LedgerState},
};

/// Files that leave by one entry.
const FILES_MAX: usize = 50_000;
const FOOTERS_AT_ONCE: usize = 16;
/// Rounds lost against others.
pub(super) const CONFLICTS_MAX: u32 = 5;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// A column that says when a row is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeColumn {
    field_id: i32,
    is_date: bool,
}

impl TimeColumn {
    /// The column of this name, dotted inside structs.
    ///
    /// # Errors
    /// `Invalid`: there is no such column, or it is no date or timestamp.
    pub fn find(table: &str, schema: &Schema, name: &str) -> Result<Self, LakeError> {
        let subject = format!("table {table}: retention.rows_by");
        let field = schema.field_at(name);
        let field = field.ok_or_else(|| {
            LakeError::invalid(&subject, format_args!("there is no column {name}"))
                .coded(ErrorCode::UnknownColumn)
        })?;
        let is_date = match &field.data_type {
            Type::Primitive(PrimitiveType::Date) => true,
            Type::Primitive(PrimitiveType::Timestamp | PrimitiveType::Timestamptz) => false,
            _ => {
                let problem = format_args!("column {name} is no date and no timestamp; name one that is");
                return Err(LakeError::invalid(&subject, problem).coded(ErrorCode::ColumnNotUsable));
            }
        };
        Ok(Self { field_id: field.id, is_date })
    }

    /// The rows that are from before a time.
    pub fn old(&self, before_ms: i64) -> OldRows {
        OldRows { field_id: self.field_id, before_us: before_ms.saturating_mul(1_000) }
    }
}

/// Of what time the rows of a file are, microseconds since 1970 UTC; `None`: cannot be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// When its oldest row is old: the first time that is after that row's.
    pub(super) oldest: Option<i64>,
    /// No row is from this time or later, and none is without a time.
    pub(super) end: Option<i64>,
}

/// What row TTL did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowsReport {
    pub dry_run: bool,
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Live files whose age cannot be told: they stay.
    pub files_of_unknown_age: u64,
    /// The ledger version that took them away.
    pub version: Option<u64>,
    /// Files that held old rows beside others; `None`: such files stay as they are.
    pub cut: Option<CutReport>,
}

impl RowsReport {
    /// Rows that left with their file, and without it.
    pub fn rows_in_all(&self) -> u64 {
        self.rows + self.cut.map_or(0, |cut| cut.rows)
    }
}

/// How row TTL is applied.
#[derive(Debug)]
pub struct RowsOptions<'a> {
    pub column: &'a TimeColumn,
    /// Rows from before this time leave, milliseconds since 1970 UTC.
    pub before_ms: i64,
    pub now_ms: i64,
    pub dry_run: bool,
    /// Details that are known without a read.
    pub known: &'a DetailsCache,
}

/// The first time that is after the one in a bound, microseconds since 1970 UTC.
fn after(bound: &Datum, column: &TimeColumn) -> Option<i64> {
    match bound.literal() {
        PrimitiveLiteral::Int(day) if column.is_date => i64::from(*day).checked_add(1)?.checked_mul(DAY_US),
        PrimitiveLiteral::Long(us) if !column.is_date => us.checked_add(1),
        _ => None,
    }
}

/// The first time that is after the oldest row's. `None`: there is no row with a time, or it cannot be told.
fn oldest_us(details: &FileDetails, column: &TimeColumn) -> Option<i64> {
    after(details.columns.get(&column.field_id)?.lower.as_ref()?, column)
}

/// When the newest row of a file is from, microseconds since 1970 UTC: no row is from this time or later.
/// `None`: cannot be told.
pub(super) fn end_us(details: &FileDetails, spec: &PartitionSpec, column: &TimeColumn) -> Option<i64> {
    if let Some(stats) = details.columns.get(&column.field_id)
        && stats.nulls == Some(0)
        && let Some(upper) = &stats.upper
    {
        return after(upper, column);
    }
    let of_column =
        spec.fields.iter().zip(&details.partition).filter(|(field, _)| field.source_id == column.field_id);
    let ends =
        of_column.filter_map(|(field, value)| partition_end_us(field.transform, value.as_ref()?, column));
    ends.min()
}

/// The first time after a partition.
fn partition_end_us(transform: Transform, value: &Literal, column: &TimeColumn) -> Option<i64> {
    let value = match value {
        Literal::Primitive(PrimitiveLiteral::Int(value)) => i64::from(*value),
        Literal::Primitive(PrimitiveLiteral::Long(value)) => *value,
        _ => return None,
    };
    let next = value.checked_add(1)?;
    let month_us = |months: i64| {
        let month0 = u32::try_from(months.rem_euclid(12)).ok()?;
        let year = i32::try_from(months.div_euclid(12).checked_add(1970)?).ok()?;
        let first = chrono::NaiveDate::from_ymd_opt(year, month0 + 1, 1)?;
        first.signed_duration_since(chrono::NaiveDate::default()).num_days().checked_mul(DAY_US)
    };
    match transform {
        Transform::Year => month_us(next.checked_mul(12)?),
        Transform::Month => month_us(next),
        Transform::Day => next.checked_mul(DAY_US),
        Transform::Hour => next.checked_mul(HOUR_US),
        Transform::Identity if column.is_date => next.checked_mul(DAY_US),
        Transform::Identity => Some(next),
        _ => None,
    }
}

impl Janitor {
    /// Takes files away whose rows are all from before `before_ms`. `commit_id` makes a fresh id.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`: call again.
    pub async fn expire_rows(
        &mut self,
        options: &RowsOptions<'_>,
        commit_id: &mut (dyn FnMut() -> String + Send),
    ) -> Result<RowsReport, LakeError> {
        for _ in 0..CONFLICTS_MAX {
            let mut state = self.state().await?;
            let (old, unknown) = self.old_files(&state, options).await?;
            let sum = |of: fn(&FileEntry) -> u64| old.iter().map(of).sum();
            let mut report = RowsReport {
                dry_run: options.dry_run,
                files: old.len() as u64,
                rows: sum(|file| file.rows),
                bytes: sum(|file| file.bytes),
                files_of_unknown_age: unknown,
                version: None,
                cut: None,
            };
            if old.is_empty() || options.dry_run {
                return Ok(report);
            }
            let removed = old.into_iter().map(|file| file.path).collect();
            let change = Change::Delete { removed, added: Vec::new() };
            crash_point!("maintenance.before_rows");
            match self.ledger.commit(&mut state, change, &commit_id(), options.now_ms).await {
                Ok(Committed::At(version)) => {
                    report.version = Some(version);
                    return Ok(report);
                }
                Ok(Committed::AlreadyCovered) => return Ok(report),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        let state = self.state().await?;
        let (table, version) = (state.name, state.version);
        Err(LakeError::Contended { table, version, attempts: CONFLICTS_MAX })
    }

    /// The files that leave, and how many there are whose age cannot be told.
    async fn old_files(
        &mut self,
        state: &LedgerState,
        options: &RowsOptions<'_>,
    ) -> Result<(Vec<FileEntry>, u64), LakeError> {
        let before_us = options.before_ms.saturating_mul(1_000);
        self.learn_times(state, options).await?;
        let end_of = |file: &FileEntry| self.times.get(&file.path).and_then(|times| times.end);
        let unknown = state.live_files.values().filter(|file| end_of(file).is_none()).count() as u64;
        let old = state.live_files.values().filter(|file| end_of(file).is_some_and(|end| end <= before_us));
        Ok((old.take(FILES_MAX).cloned().collect(), unknown))
    }

    /// Learns of what time the rows of all live files are.
    pub(super) async fn learn_times(
        &mut self,
        state: &LedgerState,
        options: &RowsOptions<'_>,
    ) -> Result<(), LakeError> {
        self.times.retain(|path, _| state.live_files.contains_key(path));
        let unread: Vec<FileEntry> =
            state.live_files.values().filter(|file| !self.times.contains_key(&file.path)).cloned().collect();
        // Nothing is kept of what is read here but two numbers a file.
        let passing = DetailsCache::new(FOOTERS_AT_ONCE);
        let mut reads = stream::iter(unread.into_iter().map(|file| {
            let known = options.known.get(&file.path);
            let (store, location, passing) = (&self.store, &self.location, &passing);
            async move {
                let details = match known {
                    Some(details) => Ok(details),
                    None => passing.get_or_read(store, location, &file, state).await,
                };
                (file, details)
            }
        }))
        .buffered(FOOTERS_AT_ONCE);
        let mut learnt: HashMap<String, Times> = HashMap::new();
        while let Some((file, details)) = reads.next().await {
            let times = match details {
                Ok(details) => {
                    let spec = state.partition_specs.get(&file.spec_id);
                    Times {
                        oldest: oldest_us(&details, options.column),
                        end: spec.and_then(|spec| end_us(&details, spec, options.column)),
                    }
                }
                Err(error) if error.kind() == ErrorKind::Data => {
                    tracing::warn!(table = state.name, file = file.path, %error, "age of a file cannot be told");
                    continue;
                }
                Err(error) => return Err(error),
            };
            learnt.insert(file.path, times);
        }
        drop(reads);
        self.times.extend(learnt);
        Ok(())
    }
}
