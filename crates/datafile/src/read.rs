//! Reading a data file into the table's present schema.
//!
//! Columns are matched by field id at every level, so renames and moves do not matter: a column that the file
//! lacks reads as null, one that was widened since is cast, one that the table dropped is not read.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, make_array, new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Field as ArrowField, FieldRef, Fields, SchemaRef},
};
use futures::{StreamExt, stream::BoxStream};
use object_store::{ObjectStore, path::Path};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, async_reader::ParquetObjectReader};
use siltstone_protocol::{FileEntry, Schema};

use crate::{
    FIELD_ID_KEY, arrow_schema,
    error::{DataFileError, Result},
    footer,
};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// Batches of a file, in file order.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// Opens a file for reading as `schema`.
///
/// # Errors
/// `Corrupt`: the object is missing, damaged, or its columns do not become the table's. Errors of the stream
/// are the same.
pub async fn read_batches(
    store: &Arc<dyn ObjectStore>,
    table_location: &Path,
    entry: &FileEntry,
    schema: &Schema,
) -> Result<BatchStream> {
    let target = arrow_schema(schema)?;
    let location = footer::location(table_location, &entry.path);
    let path = entry.path.clone();
    let reader = ParquetObjectReader::new(Arc::clone(store), location.clone()).with_file_size(entry.bytes);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await;
    let builder = builder.map_err(|error| read_error(&location, &path, &error))?;
    let wanted = wanted_roots(builder.schema().fields(), &target, Known::ById);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    let stream = stream.map_err(|error| read_error(&location, &path, &error))?;
    Ok(stream
        .map(move |batch| {
            let batch = batch.map_err(|error| read_error(&location, &path, &error))?;
            adapt(&batch, &target).ok_or_else(|| {
                DataFileError::corrupt(&path, "its columns cannot be read as the table's schema")
            })
        })
        .boxed())
}

/// A store's failure is told apart from a damaged file, as the one may be tried again.
pub(crate) fn read_error(
    location: &Path,
    path: &str,
    error: &parquet::errors::ParquetError,
) -> DataFileError {
    if let parquet::errors::ParquetError::External(source) = error
        && let Some(error) = source.downcast_ref::<object_store::Error>()
    {
        return DataFileError::store(location, error);
    }
    DataFileError::corrupt(path, "it is no readable Parquet file")
}

/// By what a file's columns are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    ById,
    ByName,
}

impl Known {
    fn key(self, field: &ArrowField) -> Option<&str> {
        match self {
            Self::ById => field_id(field),
            Self::ByName => Some(field.name()),
        }
    }
}

/// The columns of a file that the table still has.
pub(crate) fn wanted_roots(file_fields: &Fields, target: &SchemaRef, known: Known) -> Vec<usize> {
    let wanted = |field: &FieldRef| {
        let key = known.key(field);
        key.is_some() && target.fields().iter().any(|target| known.key(target) == key)
    };
    (0..file_fields.len()).filter(|index| wanted(&file_fields[*index])).collect()
}

pub(crate) fn field_id(field: &ArrowField) -> Option<&str> {
    field.metadata().get(FIELD_ID_KEY).map(String::as_str)
}

/// A batch of a file as the table's present schema has it.
pub(crate) fn adapt(batch: &RecordBatch, target: &SchemaRef) -> Option<RecordBatch> {
    adapt_known(batch, target, Known::ById)
}

pub(crate) fn adapt_known(batch: &RecordBatch, target: &SchemaRef, known: Known) -> Option<RecordBatch> {
    let given = batch.schema();
    let columns = members(given.fields(), batch.columns(), target.fields(), batch.num_rows(), known)?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options).ok()
}

fn members(
    given: &Fields,
    arrays: &[ArrayRef],
    target: &Fields,
    rows: usize,
    known: Known,
) -> Option<Vec<ArrayRef>> {
    let by_key: HashMap<&str, &ArrayRef> =
        given.iter().zip(arrays).filter_map(|(field, array)| Some((known.key(field)?, array))).collect();
    let member = |field: &FieldRef| match known.key(field).and_then(|key| by_key.get(key)) {
        Some(array) => adapt_array_known(array, field.data_type(), known),
        None => Some(new_null_array(field.data_type(), rows)),
    };
    target.iter().map(member).collect()
}

pub(crate) fn adapt_array(array: &ArrayRef, target: &DataType) -> Option<ArrayRef> {
    adapt_array_known(array, target, Known::ById)
}

fn adapt_array_known(array: &ArrayRef, target: &DataType, known: Known) -> Option<ArrayRef> {
    match (array.data_type(), target) {
        (given, target) if given == target => Some(Arc::clone(array)),
        (DataType::Struct(given), DataType::Struct(fields)) => {
            let array = array.as_struct();
            let columns = members(given, array.columns(), fields, array.len(), known)?;
            let nulls = array.nulls().cloned();
            let array = StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len());
            Some(Arc::new(array.ok()?))
        }
        (DataType::List(_), DataType::List(field)) => {
            let array = array.as_list::<i32>();
            let values = adapt_array_known(array.values(), field.data_type(), known)?;
            let list = ListArray::try_new(
                Arc::clone(field),
                array.offsets().clone(),
                values,
                array.nulls().cloned(),
            );
            Some(Arc::new(list.ok()?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let array = array.as_map();
            let given: ArrayRef = match (known, entries.data_type()) {
                // Writers name key and value as they like: they are known by their places.
                (Known::ByName, DataType::Struct(wanted)) => Arc::new(renamed(array.entries(), wanted)?),
                _ => Arc::new(array.entries().clone()),
            };
            let adapted = adapt_array_known(&given, entries.data_type(), known)?;
            let map = MapArray::try_new(
                Arc::clone(entries),
                array.offsets().clone(),
                adapted.as_struct().clone(),
                array.nulls().cloned(),
                *sorted,
            );
            Some(Arc::new(map.ok()?))
        }
        // What Delta calls binary, laid down by another program.
        (DataType::Binary, DataType::FixedSizeBinary(_)) if known == Known::ByName => {
            cast(array, target).ok()
        }
        // Spark's 96-bit instants are of UTC and do not say so.
        (DataType::Timestamp(given, None), DataType::Timestamp(unit, Some(_)))
            if given == unit && known == Known::ByName =>
        {
            let data = array.to_data().into_builder().data_type(target.clone()).build();
            data.ok().map(make_array)
        }
        // The same instants under another name of UTC.
        (DataType::Timestamp(given, Some(_)), DataType::Timestamp(unit, Some(_))) if given == unit => {
            let data = array.to_data().into_builder().data_type(target.clone()).build();
            data.ok().map(make_array)
        }
        (DataType::Int32, DataType::Int64)
        | (DataType::Float32, DataType::Float64)
        | (DataType::Decimal128(..), DataType::Decimal128(..)) => cast(array, target).ok(),
        _ => None,
    }
}

/// A struct with other names for its members, in order.
fn renamed(array: &StructArray, wanted: &Fields) -> Option<StructArray> {
    if array.num_columns() != wanted.len() {
        return None;
    }
    let named = array.fields().iter().zip(wanted).map(|(field, wanted)| {
        let field: &ArrowField = field;
        Arc::new(field.clone().with_name(wanted.name()))
    });
    StructArray::try_new(named.collect(), array.columns().to_vec(), array.nulls().cloned()).ok()
}
