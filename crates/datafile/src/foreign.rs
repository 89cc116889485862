//! Reading files that other programs laid down, into the table's present schema.
//!
//! 1. Columns are matched by field id where the format writes ids (Iceberg), by name where it does not (Delta).
//!    Types come from the Parquet schema alone, whatever Arrow schema a writer left beside it.
//! 2. Rows that a delete file names are left out; values that a format keeps beside the file (Delta's partition
//!    values) are filled in.
//! 3. A file without ids where ids are wanted is refused: all its columns would read as null.
//!
//! Paths of other programs may hold values of rows, so no error names one.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, Scalar, StringArray, new_null_array},
    compute::{CastOptions, cast_with_options, take},
    datatypes::{
        DataType, Field as ArrowField, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit,
    },
};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::arrow::{
    ParquetRecordBatchStreamBuilder, ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection},
    async_reader::ParquetObjectReader,
};
use siltstone_protocol::{Schema, SchemaHistory};

use crate::{
    DeletedRows, arrow_schema,
    error::{DataFileError, Result},
    read::{BatchStream, Known, adapt, adapt_known, field_id, read_error, wanted_roots},
};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// A data file of another program, or one of ours of which it took rows away.
#[derive(Clone)]
pub struct ForeignFile {
    /// Where it is in the store.
    pub location: Path,
    /// What stands for it in errors: no path.
    pub label: String,
    /// Rows in the file, when the format says.
    pub rows: Option<u64>,
    /// Columns are matched by name, and not by field id.
    pub by_name: bool,
    /// Values by column that the format keeps beside the file, as text; `None` is null.
    pub constants: BTreeMap<String, Option<String>>,
    pub deleted: Option<Arc<DeletedRows>>,
}

/// Without the location and the constants: both may hold values of rows.
impl std::fmt::Debug for ForeignFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignFile")
            .field("label", &self.label)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl ForeignFile {
    fn corrupt(&self, fault: &'static str) -> DataFileError {
        DataFileError::corrupt(&self.label, fault)
    }

    fn failed(&self, error: &parquet::errors::ParquetError) -> DataFileError {
        read_error(&Path::from(self.label.as_str()), &self.label, error)
    }
}

/// Opens a file of another program for reading as `schema`. One that is known by names has the columns' names in
/// files.
///
/// # Errors
/// `Corrupt`: the object is missing or damaged, has other rows than its format says, or its columns do not
/// become the table's. `Store`: the store did not answer. Errors of the stream are the same.
pub async fn read_foreign(
    store: &Arc<dyn ObjectStore>,
    file: &ForeignFile,
    schema: &Schema,
    names: &SchemaHistory,
) -> Result<BatchStream> {
    let named = arrow_schema(schema)?;
    let target = if file.by_name { arrow_schema(&names.in_files(schema))? } else { Arc::clone(&named) };
    let label = Path::from(file.label.as_str());
    let bytes = store.head(&file.location).await.map_err(|error| DataFileError::store(&label, &error))?.size;
    let mut reader = ParquetObjectReader::new(Arc::clone(store), file.location.clone()).with_file_size(bytes);
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let loaded = ArrowReaderMetadata::load_async(&mut reader, options.clone()).await;
    let mut loaded = loaded.map_err(|error| file.failed(&error))?;
    if let Some(micros) = in_micros(loaded.schema()) {
        let options = options.with_schema(micros);
        loaded = ArrowReaderMetadata::try_new(Arc::clone(loaded.metadata()), options)
            .map_err(|error| file.failed(&error))?;
    }
    let known = if file.by_name { Known::ByName } else { Known::ById };
    if known == Known::ById && !loaded.schema().fields().iter().any(|field| field_id(field).is_some()) {
        return Err(file.corrupt("its columns have no field ids"));
    }
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, loaded);
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    if file.rows.is_some_and(|wanted| wanted != rows) {
        return Err(file.corrupt("it has another number of rows than its format says"));
    }
    let wanted = wanted_roots(builder.schema().fields(), &target, known);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let mut builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
    if let Some(deleted) = &file.deleted {
        let kept =
            deleted.kept(rows).ok_or_else(|| file.corrupt("rows that it does not have are deleted"))?;
        let total = usize::try_from(rows).map_err(|_| file.corrupt("it has too many rows"))?;
        builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(kept.into_iter(), total));
    }
    let stream = builder.build().map_err(|error| file.failed(&error))?;
    let constants = Constants::of(file, &target)?;
    let file = file.clone();
    Ok(stream
        .map(move |batch| {
            let batch = batch.map_err(|error| file.failed(&error))?;
            let adapted = adapt_known(&batch, &target, known);
            let adapted = adapted.and_then(|batch| constants.fill(batch));
            // By ids, which both have: the table's own names.
            let is_named = Arc::ptr_eq(&target, &named);
            let adapted =
                adapted.and_then(|batch| if is_named { Some(batch) } else { adapt(&batch, &named) });
            adapted.ok_or_else(|| file.corrupt("its columns cannot be read as the table's schema"))
        })
        .boxed())
}

/// Positions that a position delete file names: `each` is called with the path of a data file, as written, and a
/// row's position in it.
///
/// # Errors
/// As [`read_foreign`].
pub async fn read_position_deletes(
    store: &Arc<dyn ObjectStore>,
    file: &ForeignFile,
    each: &mut (dyn FnMut(&str, u64) -> bool + Send),
) -> Result<bool> {
    /// Field ids that the Iceberg spec reserves for the two columns.
    const PATH_ID: i32 = 2_147_483_546;
    const POSITION_ID: i32 = 2_147_483_545;
    use siltstone_protocol::{Field, PrimitiveType};
    let fields = vec![
        Field::required(PATH_ID, "file_path", PrimitiveType::String.into()),
        Field::required(POSITION_ID, "pos", PrimitiveType::Long.into()),
    ];
    let mut batches = read_foreign(store, file, &Schema::new(0, fields), &SchemaHistory::default()).await?;
    while let Some(batch) = batches.try_next().await? {
        use arrow::array::AsArray;
        let odd = || file.corrupt("it is no position delete file");
        let paths = batch.column(0).as_string_opt::<i32>().ok_or_else(odd)?;
        let positions = batch.column(1).as_primitive_opt::<arrow::datatypes::Int64Type>().ok_or_else(odd)?;
        for row in 0..batch.num_rows() {
            let position = u64::try_from(positions.value(row)).map_err(|_| odd())?;
            if !each(paths.value(row), position) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Values that a format keeps beside a file, by column of the table.
struct Constants {
    target: SchemaRef,
    by_index: Vec<(usize, ArrayRef)>,
}

impl Constants {
    fn of(file: &ForeignFile, target: &SchemaRef) -> Result<Self> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let mut by_index = Vec::with_capacity(file.constants.len());
        for (column, text) in &file.constants {
            let (index, field) = target
                .fields()
                .find(column)
                .ok_or_else(|| file.corrupt("it is partitioned by what is no column of the table"))?;
            let array: ArrayRef = match text {
                None => new_null_array(field.data_type(), 1),
                Some(text) => {
                    let text: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
                    // The error of the cast would quote the value.
                    cast_with_options(&text, field.data_type(), &strict)
                        .map_err(|_| file.corrupt("a partition value is not of its column's type"))?
                }
            };
            by_index.push((index, array));
        }
        Ok(Self { target: Arc::clone(target), by_index })
    }

    fn fill(&self, batch: RecordBatch) -> Option<RecordBatch> {
        if self.by_index.is_empty() {
            return Some(batch);
        }
        let rows = batch.num_rows();
        let mut columns = batch.columns().to_vec();
        let first = arrow::array::UInt32Array::from(vec![0; rows]);
        for (index, value) in &self.by_index {
            let array = take(Scalar::new(value).into_inner(), &first, None).ok()?;
            *columns.get_mut(*index)? = array;
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.target), columns, &options).ok()
    }
}

/// The schema with microseconds for nanoseconds: Spark's 96-bit instants overflow the latter. `None`: it has none.
pub(crate) fn in_micros(schema: &SchemaRef) -> Option<SchemaRef> {
    let mut changed = false;
    let fields: Fields = schema.fields().iter().map(|field| micros(field, &mut changed)).collect();
    changed.then(|| Arc::new(ArrowSchema::new_with_metadata(fields, schema.metadata().clone())))
}

fn micros(field: &FieldRef, changed: &mut bool) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            *changed = true;
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| micros(field, changed)).collect())
        }
        DataType::List(element) => DataType::List(micros(element, changed)),
        DataType::Map(entries, sorted) => DataType::Map(micros(entries, changed), *sorted),
        other => other.clone(),
    };
    let same: &ArrowField = field;
    Arc::new(same.clone().with_data_type(data_type))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{array::BinaryArray, compute::concat_batches, datatypes::Schema as ArrowSchema};
    use object_store::memory::InMemory;
    use parquet::arrow::ArrowWriter;
    use siltstone_protocol::{PrimitiveType, Type};

    use super::*;
    use crate::{layout::tests::every_type, testing};

    async fn put(store: &Arc<dyn ObjectStore>, batch: &RecordBatch) -> ForeignFile {
        let location = Path::parse("t/data/region=a%2Fb/part-0.parquet").unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        store.put(&location, bytes.into()).await.unwrap();
        ForeignFile {
            location,
            label: "of another program, 00".to_owned(),
            rows: Some(batch.num_rows() as u64),
            by_name: false,
            constants: BTreeMap::new(),
            deleted: None,
        }
    }

    async fn read(store: &Arc<dyn ObjectStore>, file: &ForeignFile, schema: &Schema) -> Result<RecordBatch> {
        let batches: Vec<_> =
            read_foreign(store, file, schema, &SchemaHistory::default()).await?.try_collect().await?;
        Ok(concat_batches(&arrow_schema(schema).unwrap(), &batches).unwrap())
    }

    /// The columns without ids, and with the types that a Delta writer gives them.
    fn nameless(batch: &RecordBatch, without: &[&str]) -> RecordBatch {
        let given = batch.schema();
        let kept = given.fields().iter().zip(batch.columns());
        let kept = kept.filter(|(field, _)| !without.contains(&field.name().as_str()));
        let (fields, columns): (Vec<_>, Vec<ArrayRef>) = kept
            .map(|(field, array)| match field.data_type() {
                DataType::FixedSizeBinary(_) => {
                    let bytes = arrow::compute::cast(array, &DataType::Binary).unwrap();
                    (ArrowField::new(field.name(), DataType::Binary, true), bytes)
                }
                other => {
                    (ArrowField::new(field.name(), other.clone(), field.is_nullable()), Arc::clone(array))
                }
            })
            .unzip();
        RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap()
    }

    #[tokio::test]
    async fn every_type_is_read_by_id_and_by_name_without_deleted_rows() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let schema = every_type();
        let batch = testing::batch(&schema, 3_000, &mut testing::rng(5));
        let deleted: Vec<u64> = (0..3_000).filter(|row| row % 7 == 0 || *row > 2_900).collect();
        let kept: Vec<u32> = (0..3_000).filter(|row| !deleted.contains(&u64::from(*row))).collect();
        let wanted =
            arrow::compute::take_record_batch(&batch, &arrow::array::UInt32Array::from(kept)).unwrap();
        for by_name in [false, true] {
            let laid_down = if by_name { nameless(&batch, &[]) } else { batch.clone() };
            let mut file = put(&store, &laid_down).await;
            file.by_name = by_name;
            assert_eq!(read(&store, &file, &schema).await.unwrap(), batch, "by name: {by_name}");
            file.deleted = Some(Arc::new(DeletedRows::new(deleted.clone())));
            assert_eq!(read(&store, &file, &schema).await.unwrap(), wanted, "by name: {by_name}");
            file.deleted = Some(Arc::new(DeletedRows::new(vec![3_000])));
            assert!(matches!(read(&store, &file, &schema).await, Err(DataFileError::Corrupt { .. })));
            file.rows = Some(2_999);
            assert!(matches!(read(&store, &file, &schema).await, Err(DataFileError::Corrupt { .. })));
        }
    }

    #[tokio::test]
    async fn values_beside_the_file_are_filled_in() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let schema = every_type();
        let batch = testing::batch(&schema, 10, &mut testing::rng(5));
        let names = ["c1", "c2", "c3", "c6", "c8"];
        let mut file = put(&store, &nameless(&batch, &names)).await;
        file.by_name = true;
        let texts = [Some("true"), Some("-7"), Some("9223372036854775807"), Some("-0.05"), None];
        file.constants = names
            .iter()
            .zip(texts)
            .map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned)))
            .collect();
        let found = read(&store, &file, &schema).await.unwrap();
        for (name, text) in names.iter().zip(texts) {
            let column = found.column_by_name(name).unwrap();
            for row in 0..10 {
                let value = arrow::util::display::array_value_to_string(column, row).unwrap();
                assert_eq!(
                    (value.as_str(), column.is_null(row)),
                    (text.unwrap_or(""), text.is_none()),
                    "{name}"
                );
            }
        }
        assert_eq!(found.column_by_name("key"), batch.column_by_name("key"));
        file.constants.insert("c2".to_owned(), Some("secret".to_owned()));
        let error = read(&store, &file, &schema).await.unwrap_err();
        assert!(
            !format!("{error} {error:?} {file:?}").contains("secret")
                && !error.to_string().contains("region")
        );
    }

    /// Else every column would read as null.
    #[tokio::test]
    async fn a_file_without_ids_is_refused_where_ids_are_wanted() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let schema = Schema::new(
            0,
            vec![siltstone_protocol::Field::optional(1, "a", Type::from(PrimitiveType::Binary))],
        );
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![b"x".as_slice()]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut file = put(&store, &batch).await;
        assert!(matches!(read(&store, &file, &schema).await, Err(DataFileError::Corrupt { .. })));
        file.by_name = true;
        assert_eq!(read(&store, &file, &schema).await.unwrap().num_rows(), 1);
        store.delete(&file.location).await.unwrap();
        let error = read(&store, &file, &schema).await.unwrap_err();
        assert!(
            matches!(error, DataFileError::Store { .. }) && !error.to_string().contains("region"),
            "{error}"
        );
    }
}
