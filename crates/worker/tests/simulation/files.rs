//! Rows of a data file, read by the Parquet crate alone.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::SortingColumn;

use crate::world::{Violation, violation};

/// Partition and offset of a record.
pub(crate) type Place = (i32, i64);

/// What is to be known of a file.
pub(crate) struct FileRows {
    pub(crate) places: Vec<Place>,
    /// When rows are from.
    pub(crate) times_us: Vec<Option<i64>>,
    /// False: the rows are not in the order that the file itself names.
    pub(crate) is_sorted: bool,
}

/// One value by which rows are sorted; nulls come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(Option<i64>),
    Text(Option<String>),
}

pub(crate) fn read_rows(bytes: Bytes) -> Result<FileRows, Violation> {
    let unreadable = |_| violation("I-6", "a data file that is named cannot be read");
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?;
    let sorting = builder.metadata().row_groups().first().and_then(|group| group.sorting_columns().cloned());
    let reader = builder.build().map_err(|_| violation("I-6", "a data file cannot be read"))?;
    let (mut rows, mut keys) =
        (FileRows { places: Vec::new(), times_us: Vec::new(), is_sorted: true }, Vec::new());
    for batch in reader {
        let batch = batch.map_err(|_| violation("I-6", "rows of a data file cannot be read"))?;
        let is_letters = batch.column_by_name("offset").is_some();
        let (partition, offset, at) =
            if is_letters { ("partition", "offset", "rejected_at") } else { ("p", "o", "at") };
        let column = |name| batch.column_by_name(name).unwrap();
        let partitions = column(partition).as_primitive::<Int32Type>();
        let offsets = column(offset).as_primitive::<Int64Type>();
        let times = column(at).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            rows.places.push((partitions.value(row), offsets.value(row)));
            rows.times_us.push(times.is_valid(row).then(|| times.value(row)));
            keys.push(key(&batch, sorting.as_deref().unwrap_or_default(), row));
        }
    }
    rows.is_sorted = keys.is_sorted();
    Ok(rows)
}

fn key(batch: &RecordBatch, sorting: &[SortingColumn], row: usize) -> Vec<Key> {
    let key = |by: &SortingColumn| {
        let column = batch.column(by.column_idx as usize);
        let valid = column.is_valid(row);
        if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
            Key::Number(valid.then(|| numbers.value(row)))
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            Key::Number(valid.then(|| times.value(row)))
        } else {
            Key::Text(valid.then(|| column.as_string::<i32>().value(row).to_owned()))
        }
    };
    sorting.iter().map(key).collect()
}
