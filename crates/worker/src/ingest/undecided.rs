//! The records of the rows being decoded, where a table's transforms can fail: which of the rows did is known only
//! when their batch is closed. Of each record only that is kept which `dlq_mode` will ask for.
//!
//! Absent on purpose: `dlq_mode: skip`, which needs nothing but counts.

use std::sync::Arc;

use arrow::array::RecordBatch;
use siltstone_ingest::{
    IngestError, Record,
    dead_letter::{About, DeadLetters, FailedRow, Place},
};
use siltstone_protocol::RejectReason;

#[derive(Debug)]
pub(super) struct Undecided {
    kept: Kept,
    /// Rows of the batch that came before the first of them, and cannot fail.
    before: usize,
}

#[derive(Debug)]
enum Kept {
    /// To stop at.
    Places(Vec<Place>),
    Letters(DeadLetters),
}

/// What is to be done about rows that failed.
#[derive(Debug)]
pub(super) enum Decided {
    Nothing,
    /// The first of them, and what it is about.
    Stop(Place, Arc<About>),
    /// Their records.
    Letters(RecordBatch),
}

impl Undecided {
    /// For `dlq_mode: stop`.
    pub(super) fn places() -> Self {
        Self { kept: Kept::Places(Vec::new()), before: 0 }
    }

    /// For `dlq_mode: dead_letter`.
    pub(super) fn letters(letters: DeadLetters) -> Self {
        Self { kept: Kept::Letters(letters), before: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.kept {
            Kept::Places(places) => places.is_empty(),
            Kept::Letters(letters) => letters.rows() == 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.kept {
            Kept::Places(places) => size_of_val(places.as_slice()),
            Kept::Letters(letters) => letters.bytes(),
        }
    }

    /// Takes the record of the row that was decoded last; `rows`: of the batch, with this one. From the first record
    /// on there must be one for every row.
    pub(super) fn keep(
        &mut self,
        record: &Record<'_>,
        rows: usize,
        schema_id: Option<u32>,
        now_ms: i64,
    ) -> Result<(), IngestError> {
        if self.is_empty() {
            self.before = rows.saturating_sub(1);
        }
        let is_kept = match &mut self.kept {
            Kept::Places(places) => {
                places.push(Place { partition: record.partition, offset: record.offset, schema_id });
                true
            }
            Kept::Letters(letters) => letters.push(record, RejectReason::TransformFailed, schema_id, now_ms),
        };
        if is_kept { Ok(()) } else { Err(IngestError::internal("a record was not kept beside its row")) }
    }

    /// The batch is closed; `failed`: rows of it. The next one begins.
    pub(super) fn decide(&mut self, failed: Vec<FailedRow>) -> Result<Decided, IngestError> {
        let before = std::mem::take(&mut self.before);
        let of_kept = |failed: FailedRow| Some(FailedRow { row: failed.row.checked_sub(before)?, ..failed });
        let failed: Option<Vec<FailedRow>> = failed.into_iter().map(of_kept).collect();
        let lost = || IngestError::internal("a row failed whose record was not kept");
        match &mut self.kept {
            Kept::Places(kept) => {
                let kept = std::mem::take(kept);
                let Some(first) = failed.ok_or_else(lost)?.into_iter().next() else {
                    return Ok(Decided::Nothing);
                };
                let place = kept.get(first.row).copied().ok_or_else(lost)?;
                Ok(Decided::Stop(place, first.about))
            }
            Kept::Letters(letters) => {
                let some = letters.finish_failed(failed.as_deref().unwrap_or_default())?;
                failed.ok_or_else(lost)?;
                Ok(some.map_or(Decided::Nothing, Decided::Letters))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{array::AsArray, datatypes::Int64Type};
    use siltstone_ingest::Headers;

    use super::*;

    fn failed(rows: &[usize]) -> Vec<FailedRow> {
        let about =
            |row: &usize| About { field: Some(format!("c{row}")), detail: "string that is no int".into() };
        rows.iter().map(|row| FailedRow { row: *row, about: Arc::new(about(row)) }).collect()
    }

    /// Records at offsets 12.., of the rows behind two that cannot fail.
    fn kept(mut undecided: Undecided) -> Undecided {
        for (offset, rows) in (12..).zip(3..6) {
            let headers = Headers::empty();
            let record =
                Record { partition: 4, offset, timestamp_ms: None, key: None, value: Some(b"v"), headers };
            undecided.keep(&record, rows, None, 0).unwrap();
        }
        undecided
    }

    #[test]
    fn places_of_a_batch_are_those_of_its_records() {
        let letters = Undecided::letters(DeadLetters::new("lab", "t").unwrap());
        let mut letters = kept(letters);
        let Decided::Letters(batch) = letters.decide(failed(&[2, 4])).unwrap() else {
            unreachable!("two rows failed")
        };
        assert_eq!(batch.column(3).as_primitive::<Int64Type>().values(), &[12, 14]);
        assert_eq!(batch.column(11).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("c2"), Some("c4")]);
        assert!(letters.is_empty() && matches!(letters.decide(Vec::new()).unwrap(), Decided::Nothing));
        let mut places = kept(Undecided::places());
        let Decided::Stop(place, about) = places.decide(failed(&[3, 4])).unwrap() else {
            unreachable!("two rows failed")
        };
        assert_eq!(place, Place { partition: 4, offset: 13, schema_id: None });
        assert_eq!(about.field.as_deref(), Some("c3"));
        assert!(places.is_empty() && matches!(places.decide(Vec::new()).unwrap(), Decided::Nothing));
    }

    #[test]
    fn rows_without_records_cannot_fail() {
        for row in [1, 5] {
            let letters = Undecided::letters(DeadLetters::new("lab", "t").unwrap());
            assert!(kept(letters).decide(failed(&[row])).is_err());
            assert!(kept(Undecided::places()).decide(failed(&[row])).is_err());
        }
    }
}
