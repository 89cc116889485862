//! The rows of Parquet files, as batches of the table: by name where it has no transforms, through these where it has.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use siltstone_datafile::{DataFileError, ImportFault, ParquetBatch, ParquetFile, RejectedRow};
use siltstone_ingest::{
    IngestError,
    dead_letter::About,
    decoder::{ColumnStage, ColumnsLearned, Finished},
};
use siltstone_protocol::{ErrorKind, RejectReason, Schema};
use siltstone_spec::{
    evolve::{Merge, Rules, merge},
    plan::given_up,
};

use super::{
    out::{Ended, Out, Read, Rejection},
    reader::{FILE_BYTES_MIN, Known},
};
use crate::error::{ForTable, WorkerError};

const SCHEMA_TRIES_MAX: u32 = 10;

/// How the columns of a file become those of the table.
enum Way {
    /// They fit as they are; the table's schema, and the same as the file calls the columns.
    Plain(Known, Schema),
    Staged(Box<ColumnStage>),
}

/// A Parquet file, row group after row group. Without `rows` the table is made to take it, and nothing else.
pub(super) fn parquet(out: &mut Out<'_>, rows: bool) -> Read<()> {
    let shared = out.shared;
    // A small file is held whole as soon as it is open.
    let mut memory = shared.handle.block_on(shared.budget.reserve(FILE_BYTES_MIN));
    let etag = out.file.etag.as_deref();
    let open = ParquetFile::open(&shared.source, &out.file.path, out.file.bytes, etag);
    let file = shared.handle.block_on(open).map_err(|error| unreadable(out, error))?;
    let way = if shared.spec.has_transforms() {
        Way::Staged(Box::new(settle_staged(out, &file)?))
    } else {
        let (known, view) = settle(out, &file)?;
        Way::Plain(known, view)
    };
    if !rows {
        return Ok(());
    }
    if file.held_bytes() > FILE_BYTES_MIN {
        // Given back first: two that wait for more with something in hand would wait for ever.
        drop(memory);
        memory = shared.handle.block_on(shared.budget.reserve(file.held_bytes()));
    }
    let _memory = memory;
    let read = match &way {
        Way::Plain(known, view) => file.rows_from(&known.schema, view, out.next),
        Way::Staged(stage) => file.rows_of(stage.source(), stage.view(), out.next),
    };
    let batches = read.map_err(|error| unreadable(out, error))?.map_err(|fault| unfit(&fault))?;
    let (bytes, all) = (u128::from(out.file.bytes), u128::from(file.rows().max(1)));
    let share = |rows: u64| u64::try_from(bytes * u128::from(rows) / all).unwrap_or(0);
    let mut told_bytes = share(out.next);
    shared.progress.bytes(told_bytes);
    for batch in batches {
        let batch = batch.map_err(|error| unreadable(out, error))?;
        let end = batch.start + batch.rows;
        let rows = match &way {
            Way::Plain(..) => plain(out, batch)?,
            Way::Staged(stage) => staged(out, stage, batch)?,
        };
        out.next = end;
        out.send(rows)?;
        shared.progress.bytes(share(out.next).saturating_sub(told_bytes));
        told_bytes = share(out.next);
    }
    out.unchanged()
}

fn plain(out: &mut Out<'_>, batch: ParquetBatch) -> Read<Option<RecordBatch>> {
    for row in batch.rejected {
        reject(out, row.row, row.reason, &about(row))?;
    }
    Ok((batch.batch.num_rows() > 0).then_some(batch.batch))
}

/// Rows that cannot be read and rows that cannot be changed are told in the order in which they stand.
fn staged(out: &mut Out<'_>, stage: &ColumnStage, batch: ParquetBatch) -> Read<Option<RecordBatch>> {
    let ParquetBatch { start, batch, rejected, .. } = batch;
    let finished = stage.apply(batch).for_table(&out.shared.spec.name).map_err(Ended::Fatal)?;
    let Finished { batch, filtered, failed } = finished;
    out.filtered(filtered);
    let places: Vec<usize> = failed.iter().map(|failed| failed.row).collect();
    let changed = numbers(&places, start, &rejected).into_iter().zip(failed);
    let mut all: BTreeMap<u64, (RejectReason, Arc<About>)> =
        changed.map(|(number, failed)| (number, (RejectReason::TransformFailed, failed.about))).collect();
    all.extend(rejected.into_iter().map(|row| (row.row, (row.reason, Arc::new(about(row))))));
    for (number, (reason, about)) in all {
        reject(out, number, reason, &about)?;
    }
    Ok(batch)
}

/// The numbers of rows by their places (rising) among those that are left of a batch.
fn numbers(places: &[usize], start: u64, rejected: &[RejectedRow]) -> Vec<u64> {
    let mut gone = rejected.iter().map(|row| row.row).peekable();
    let mut passed = 0;
    let number = |place: &usize| {
        let mut number = start + *place as u64 + passed;
        while gone.next_if(|gone| *gone <= number).is_some() {
            number += 1;
            passed += 1;
        }
        number
    };
    places.iter().map(number).collect()
}

fn about(row: RejectedRow) -> About {
    About { field: Some(row.column), detail: row.detail }
}

/// There are no bytes of a row of columns: its number says where it is.
fn reject(out: &mut Out<'_>, number: u64, reason: RejectReason, about: &About) -> Read<()> {
    out.reject(Rejection { number, value: None, reason, about: Some(about) })
}

/// The table, once it takes the rows of this file, and its schema as the file calls the columns.
fn settle(out: &Out<'_>, file: &ParquetFile) -> Read<(Known, Schema)> {
    let natural = |table: Option<&Schema>| file.schema(table).map_err(|fault| unfit(&fault));
    for _ in 0..SCHEMA_TRIES_MAX {
        let Some(known) = out.shared.known() else {
            out.ask(natural(None)?)?;
            continue;
        };
        let natural = natural(Some(&known.schema))?;
        if let Some((column, how)) = given_up(&known.names, &known.schema, &natural) {
            return Err(Ended::Failed(IngestError::GivenUp { column, how }.to_string()));
        }
        let last_field_id = known.names.last_field_id();
        let rules = Rules { last_field_id, ..Rules::of(&out.shared.spec) };
        match merge(&known.schema, &natural, rules) {
            Merge::Same { view } => return Ok((known, view)),
            Merge::Evolves(schema) => {
                out.ask(schema)?;
            }
            Merge::Refused(mismatch) => {
                return Err(Ended::Failed(format!("column {}: {mismatch}", mismatch.field)));
            }
        }
    }
    Err(unsettled())
}

/// How the rows of this file become the table's, once it takes them.
fn settle_staged(out: &Out<'_>, file: &ParquetFile) -> Read<ColumnStage> {
    let refused = |error: IngestError| Ended::Failed(error.to_string());
    let table = &out.shared.table;
    let natural = file.schema(None).map_err(|fault| unfit(&fault))?;
    for _ in 0..SCHEMA_TRIES_MAX {
        let known = out.shared.known();
        let learned = match &known {
            None => table.learn(&natural, None),
            Some(known) => {
                let like = table.like(&natural, &known.schema).map_err(refused)?;
                let columns = file.schema(Some(&like)).map_err(|fault| unfit(&fault))?;
                table.learn(&columns, Some((known.schema.as_ref(), known.names.as_ref())))
            }
        };
        match learned.map_err(refused)? {
            ColumnsLearned::Ready(stage) => return Ok(stage),
            ColumnsLearned::Evolves(schema) => {
                out.ask(schema)?;
            }
        }
    }
    Err(unsettled())
}

fn unsettled() -> Ended {
    Ended::Failed("the table's schema did not settle".to_owned())
}

fn unfit(fault: &ImportFault) -> Ended {
    Ended::Failed(fault.to_string())
}

/// What is wrong with a Parquet file, or the way to it.
fn unreadable(out: &Out<'_>, error: DataFileError) -> Ended {
    match error {
        DataFileError::Replaced { .. } => out.replaced(),
        error if error.kind() == ErrorKind::Unavailable => Ended::Fatal(WorkerError::DataFile {
            table: out.shared.spec.name.clone(),
            source: Box::new(error),
        }),
        error => Ended::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_among_rows_that_are_left_are_numbers_of_rows() {
        let row = |row| RejectedRow {
            row,
            reason: RejectReason::OutOfRange,
            column: "a".to_owned(),
            detail: String::new(),
        };
        assert_eq!(numbers(&[0, 2, 5], 100, &[]), [100, 102, 105]);
        // Of 100 to 107 there are left 102, 104, 105 and 107.
        let gone: Vec<RejectedRow> = [100, 101, 103, 106].map(row).into();
        assert_eq!(numbers(&[0, 1, 2, 3], 100, &gone), [102, 104, 105, 107]);
        assert_eq!(numbers(&[3], 100, &gone), [107]);
    }
}
