//! The rows of a dead-letter table: rejected records as they came, and why.
//!
//! Absent on purpose: the decoder's view of the record, and free text. The reason is a closed code; `field` names the
//! column that it is about and `detail` the types, where they are known; what the record holds is in `key`, `value`
//! and `headers`, in the user's own table. `replayed_at` is null until the record became a row after all.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
    compute::take_record_batch,
};
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema};
use siltstone_spec::evolve::assign_ids;

use crate::{
    IngestError, Record,
    columns::{Column, Columns},
    decoder::{headers_type, push_headers},
};

/// A batch that holds this much takes no more records until it is finished.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// What rows failed at may take so much in a batch, however small its letters are.
const TOLD_BYTES_MIN: usize = 1 << 20;

/// The column that says when a dead letter became a row.
pub const REPLAYED_AT: &str = "replayed_at";

/// What a rejection is about, beside its reason. Names of columns and types only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Dotted path of the column, `[]` and `{}` inside lists and maps; `None`: the record as a whole.
    pub field: Option<String>,
    /// Closed words and names of types.
    pub detail: String,
}

impl About {
    pub(crate) fn of_record(detail: impl Into<String>) -> Self {
        Self { field: None, detail: detail.into() }
    }
}

/// A row of a batch that its table's transforms cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRow {
    /// Its place in the batch.
    pub row: usize,
    /// The filter; else the first column, in the table's order, that cannot be made of it.
    pub about: Arc<About>,
}

/// The schema of every dead-letter table.
pub fn schema() -> Schema {
    let mut fields = vec![
        Field::required(0, "cluster", PrimitiveType::String.into()),
        Field::required(0, "topic", PrimitiveType::String.into()),
        Field::required(0, "partition", PrimitiveType::Int.into()),
        Field::required(0, "offset", PrimitiveType::Long.into()),
        Field::optional(0, "timestamp", PrimitiveType::Timestamptz.into()),
        Field::optional(0, "key", PrimitiveType::Binary.into()),
        Field::optional(0, "value", PrimitiveType::Binary.into()),
        Field::optional(0, "headers", headers_type()),
        Field::optional(0, "schema_id", PrimitiveType::Long.into()),
        Field::required(0, "reason", PrimitiveType::String.into()),
        Field::required(0, "rejected_at", PrimitiveType::Timestamptz.into()),
        Field::optional(0, "field", PrimitiveType::String.into()),
        Field::optional(0, "detail", PrimitiveType::String.into()),
        Field::optional(0, REPLAYED_AT, PrimitiveType::Timestamptz.into()),
    ];
    assign_ids(&mut fields, &mut 0);
    Schema::new(0, fields)
}

/// Where a record is, and what it says of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
    pub schema_id: Option<u32>,
}

/// The schema of a dead-letter table that an older program made, with the columns that it lacks; `None`: it lacks none.
/// They come last, in their order, so that batches fit both.
pub fn evolved(present: &Schema) -> Option<Schema> {
    let mut fields = present.fields.clone();
    let mut last = present.last_field_id();
    for mut missing in schema().fields.into_iter().filter(|field| present.column(&field.name).is_none()) {
        assign_ids(std::slice::from_mut(&mut missing), &mut last);
        fields.push(missing);
    }
    (fields.len() > present.fields.len()).then(|| Schema::new(present.schema_id + 1, fields))
}

/// Collects rejected records of one topic.
pub struct DeadLetters {
    cluster: String,
    topic: String,
    columns: Columns,
    bytes: usize,
}

/// Why a record was rejected, and when.
struct Why<'a> {
    reason: RejectReason,
    schema_id: Option<u32>,
    about: Option<&'a About>,
    now_ms: i64,
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, bytes) = (self.rows(), self.bytes);
        f.debug_struct("DeadLetters").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl DeadLetters {
    pub fn new(cluster: &str, topic: &str) -> Result<Self, IngestError> {
        let columns = Columns::new(&schema())?;
        Ok(Self { cluster: cluster.to_owned(), topic: topic.to_owned(), columns, bytes: 0 })
    }

    /// An empty batch for records of the same topic.
    pub fn like(&self) -> Result<Self, IngestError> {
        Self::new(&self.cluster, &self.topic)
    }

    /// Takes a rejected record; `now_ms` is the caller's clock. False when the batch is full: nothing was
    /// taken, [`DeadLetters::finish`] it and push again. An empty batch takes any record.
    #[must_use = "a record that was not taken must be pushed again"]
    pub fn push(
        &mut self,
        record: &Record<'_>,
        reason: RejectReason,
        schema_id: Option<u32>,
        now_ms: i64,
    ) -> bool {
        self.push_about(record, reason, schema_id, None, now_ms)
    }

    /// As [`DeadLetters::push`], with what the rejection is about.
    #[must_use = "a record that was not taken must be pushed again"]
    pub fn push_about(
        &mut self,
        record: &Record<'_>,
        reason: RejectReason,
        schema_id: Option<u32>,
        about: Option<&About>,
        now_ms: i64,
    ) -> bool {
        let size = record.size();
        if self.rows() > 0 && self.bytes.saturating_add(size) > BATCH_BYTES_MAX {
            return false;
        }
        let why = Why { reason, schema_id, about, now_ms };
        let mut written = self.write(record, &why);
        if written.is_err() && self.rows() == 0 {
            // Larger than a column can be: its coordinates must do.
            let bare = Record { key: None, value: None, headers: crate::Headers::empty(), ..*record };
            written = self.write(&bare, &why);
        }
        self.bytes =
            if self.rows().is_multiple_of(64) { self.columns.bytes() } else { self.bytes + size + 128 };
        written.is_ok()
    }

    fn write(&mut self, record: &Record<'_>, why: &Why<'_>) -> Result<(), RejectReason> {
        let written = self.cells(record, why);
        match written {
            Ok(()) => self.columns.end_row(),
            Err(_) => self.columns.rollback(self.columns.mark()),
        }
        written
    }

    fn cells(&mut self, record: &Record<'_>, why: &Why<'_>) -> Result<(), RejectReason> {
        let [
            Column::Utf8(cluster),
            Column::Utf8(topic),
            Column::Int32(partition),
            Column::Int64(offset),
            Column::Int64(timestamp),
            Column::Binary(key),
            Column::Binary(value),
            Column::List(headers),
            Column::Int64(id),
            Column::Utf8(code),
            Column::Int64(rejected_at),
            Column::Utf8(field),
            Column::Utf8(detail),
            Column::Int64(replayed_at),
        ] = self.columns.columns()
        else {
            return Err(RejectReason::IncompatibleSchema);
        };
        cluster.push_str(&self.cluster)?;
        topic.push_str(&self.topic)?;
        partition.push(record.partition);
        offset.push(record.offset);
        match record.timestamp_ms.and_then(|ms| ms.checked_mul(1000)) {
            Some(micros) => timestamp.push(micros),
            None => timestamp.push_null(),
        }
        for (column, bytes) in [(key, record.key), (value, record.value)] {
            match bytes {
                Some(bytes) => column.push(bytes)?,
                None => column.push_null(),
            }
        }
        push_headers(headers, record)?;
        match why.schema_id {
            Some(number) => id.push(i64::from(number)),
            None => id.push_null(),
        }
        code.push_str(why.reason.as_str())?;
        rejected_at.push(why.now_ms.saturating_mul(1000));
        match why.about {
            Some(about) => {
                match &about.field {
                    Some(path) => field.push_str(path)?,
                    None => field.push_null(),
                }
                detail.push_str(&about.detail)?;
            }
            None => {
                field.push_null();
                detail.push_null();
            }
        }
        replayed_at.push_null();
        Ok(())
    }

    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// Memory that the batch holds, nearly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of the records so far, those whose rows failed, by their places in push order, with what they failed at. The
    /// next batch begins.
    pub fn finish_failed(&mut self, failed: &[FailedRow]) -> Result<Option<RecordBatch>, IngestError> {
        let lost = || IngestError::internal("a rejected record was not kept");
        let (rows, batch) = (self.rows(), self.finish()?);
        if failed.iter().any(|failed| failed.row >= rows) {
            return Err(lost());
        }
        let Some(batch) = batch.filter(|_| !failed.is_empty()) else { return Ok(None) };
        let places: UInt64Array = failed.iter().map(|failed| failed.row as u64).collect();
        let letters = take_record_batch(&batch, &places).map_err(|_| lost())?;
        with_abouts(&letters, failed).map(Some)
    }

    /// The records so far, in push order; `None` when there are none. The next batch begins.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, IngestError> {
        if self.rows() == 0 {
            return Ok(None);
        }
        self.bytes = 0;
        self.columns.finish().map(Some)
    }
}

/// The letters with what the row of each failed at. Told of so many as have room: the same long path may stand in every
/// letter. The budget of memory knows of the letters alone: what is told takes no more than they do, or
/// [`TOLD_BYTES_MIN`].
fn with_abouts(letters: &RecordBatch, failed: &[FailedRow]) -> Result<RecordBatch, IngestError> {
    let mut room = letters.get_array_memory_size().clamp(TOLD_BYTES_MIN, BATCH_BYTES_MAX);
    let mut told: Vec<Option<&About>> = Vec::with_capacity(failed.len());
    for FailedRow { about, .. } in failed {
        let left = room.checked_sub(about.field.as_ref().map_or(0, String::len) + about.detail.len());
        told.push(left.map(|_| &**about));
        room = left.unwrap_or(room);
    }
    let fields: StringArray =
        told.iter().map(|about| about.and_then(|about| about.field.as_deref())).collect();
    let details: StringArray = told.iter().map(|about| about.map(|about| about.detail.as_str())).collect();
    let texts: [(&str, ArrayRef); 2] = [("field", Arc::new(fields)), ("detail", Arc::new(details))];
    let off = || IngestError::internal("a dead letter has other columns than its table");
    let (schema, mut columns) = (letters.schema(), letters.columns().to_vec());
    for (name, texts) in texts {
        let at = schema.index_of(name).map_err(|_| off())?;
        *columns.get_mut(at).ok_or_else(off)? = texts;
    }
    RecordBatch::try_new(schema, columns).map_err(|_| off())
}

/// What rows failed at, a line for each.
#[cfg(test)]
pub(crate) fn told(failed: &[FailedRow]) -> Vec<String> {
    let line = |FailedRow { row, about }: &FailedRow| match &about.field {
        Some(field) => format!("{row} {field}: {}", about.detail),
        None => format!("{row}: {}", about.detail),
    };
    failed.iter().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::{Array, AsArray},
        datatypes::{Int64Type, TimestampMicrosecondType},
    };

    use super::*;
    use crate::Headers;

    fn record(value: &[u8]) -> Record<'_> {
        let headers = Headers::empty();
        Record { partition: 1, offset: 9, timestamp_ms: None, key: None, value: Some(value), headers }
    }

    #[test]
    fn a_rejected_record_is_kept_as_it_came() {
        let mut letters = DeadLetters::new("prod", "orders").unwrap();
        assert!(letters.push(&record(b"\xff"), RejectReason::InvalidUtf8, Some(u32::MAX), 5));
        assert!(letters.push(&record(b""), RejectReason::BadFraming, None, 6));
        let batch = letters.finish().unwrap().unwrap();
        assert_eq!(batch.schema().fields().len(), schema().fields.len());
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "orders");
        assert_eq!(batch.column(3).as_primitive::<Int64Type>().value(1), 9);
        assert_eq!(batch.column(6).as_binary::<i32>().value(0), b"\xff");
        assert!(batch.column(5).is_null(0) && batch.column(8).is_null(1));
        assert_eq!(batch.column(8).as_primitive::<Int64Type>().value(0), i64::from(u32::MAX));
        assert_eq!(batch.column(9).as_string::<i32>().value(0), "invalid_utf8");
        assert_eq!(batch.column(10).as_primitive::<TimestampMicrosecondType>().value(1), 6000);
        assert!((11..14).all(|column| batch.column(column).null_count() == 2));
        assert!(letters.finish().unwrap().is_none());
    }

    #[test]
    fn a_rejection_says_what_it_is_about() {
        let mut letters = DeadLetters::new("prod", "orders").unwrap();
        let about = About { field: Some("a.b".into()), detail: "long cannot become string".into() };
        assert!(letters.push_about(
            &record(b"x"),
            RejectReason::IncompatibleSchema,
            Some(1),
            Some(&about),
            5
        ));
        let batch = letters.finish().unwrap().unwrap();
        assert_eq!(batch.column(11).as_string::<i32>().value(0), "a.b");
        assert_eq!(batch.column(12).as_string::<i32>().value(0), "long cannot become string");
    }

    fn keep(letters: &mut DeadLetters, values: &[&str]) {
        for value in values {
            assert!(letters.push(&record(value.as_bytes()), RejectReason::TransformFailed, None, 5));
        }
    }

    #[test]
    fn letters_of_rows_that_failed_say_what_at() {
        let mut letters = DeadLetters::new("prod", "orders").unwrap();
        let about = |field: Option<&str>, detail: &str| {
            Arc::new(About { field: field.map(str::to_owned), detail: detail.to_owned() })
        };
        keep(&mut letters, &["a", "b", "c"]);
        let failed = [
            FailedRow { row: 0, about: about(None, "transforms.filter cannot be computed") },
            FailedRow { row: 2, about: about(Some("a.b"), "string that is no int") },
        ];
        let batch = letters.finish_failed(&failed).unwrap().unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.column(6).as_binary::<i32>().value(1), b"c");
        let texts = |column: usize| batch.column(column).as_string::<i32>().iter().collect::<Vec<_>>();
        assert_eq!(texts(11), [None, Some("a.b")]);
        assert_eq!(texts(12), [Some("transforms.filter cannot be computed"), Some("string that is no int")]);
        assert!(letters.finish_failed(&[]).unwrap().is_none());
        assert!(letters.finish_failed(&failed).is_err(), "no record was kept");
        // As many as have room are told.
        keep(&mut letters, &["a", "b"]);
        let long = about(Some("a".repeat(TOLD_BYTES_MIN / 2 + 1).as_str()), "");
        let failed = [0, 1].map(|row| FailedRow { row, about: Arc::clone(&long) });
        let batch = letters.finish_failed(&failed).unwrap().unwrap();
        assert_eq!(
            (batch.num_rows(), batch.column(11).null_count(), batch.column(12).null_count()),
            (2, 1, 1)
        );
    }

    #[test]
    fn an_older_table_gets_the_columns_that_it_lacks_at_its_end() {
        let whole = schema();
        let older = Schema::new(3, whole.fields[..11].to_vec());
        let evolved_to = evolved(&older).unwrap();
        assert_eq!((evolved_to.schema_id, &evolved_to.fields), (4, &whole.fields));
        assert_eq!((evolved(&evolved_to), evolved(&whole)), (None, None));
    }

    #[test]
    fn a_full_batch_takes_no_more_and_an_empty_one_takes_any() {
        let mut letters = DeadLetters::new("prod", "orders").unwrap();
        let large = vec![0; BATCH_BYTES_MAX + 1];
        assert!(letters.push(&record(&large), RejectReason::TooLarge, None, 0));
        assert!(!letters.push(&record(b"x"), RejectReason::TooLarge, None, 0));
        assert_eq!(letters.finish().unwrap().unwrap().num_rows(), 1);
        assert!(letters.push(&record(b"x"), RejectReason::TooLarge, None, 0));
        assert!(!format!("{letters:?}").contains("[120]"));
    }
}
