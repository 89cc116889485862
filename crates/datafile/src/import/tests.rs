use std::collections::BTreeMap;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, Float32Array, Int32Array, Int64Array, ListArray, StringArray,
        StructArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
    },
    buffer::OffsetBuffer,
    compute::concat_batches,
    datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema},
};
use object_store::{ObjectStoreExt, memory::InMemory};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use siltstone_protocol::{ErrorCode, Field, PrimitiveType as P, RejectReason as R, Type};

use super::*;
use crate::{layout::tests::every_type, testing};

async fn file(batch: &RecordBatch) -> ParquetFile {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let (path, size) = (Path::from("history/region=secret/part-0.parquet"), bytes.len() as u64);
    store.put(&path, bytes.into()).await.unwrap();
    ParquetFile::open(&store, &path, size, None).await.unwrap()
}

/// Reason, column and detail of a rejection.
type Told = (R, String, String);

async fn read(file: ParquetFile, table: Schema, start: u64) -> (RecordBatch, BTreeMap<u64, Told>) {
    let rows = tokio::task::spawn_blocking(move || {
        let rows = file.rows_from(&table, &table, start).unwrap().unwrap();
        let batches: Vec<ParquetBatch> = rows.map(Result::unwrap).collect();
        let schema = arrow_schema(&table).unwrap();
        let mut next = start;
        for batch in &batches {
            assert_eq!((batch.start, batch.rows > 0), (next, true));
            next += batch.rows;
        }
        assert_eq!(next, file.rows());
        let all = concat_batches(&schema, batches.iter().map(|batch| &batch.batch)).unwrap();
        let told = |one: RejectedRow| (one.row, (one.reason, one.column, one.detail));
        (all, batches.into_iter().flat_map(|batch| batch.rejected).map(told).collect())
    });
    rows.await.unwrap()
}

#[tokio::test]
async fn every_type_comes_back_from_any_row_on() {
    let schema = every_type();
    let batch = testing::batch(&schema, 3_500, &mut testing::rng(5));
    let file = file(&batch).await;
    let found = file.schema(Some(&schema)).unwrap();
    let types = |schema: &Schema| -> Vec<(String, String)> {
        let text = |field: &Field| (field.name.clone(), serde_json::to_string(&field.data_type).unwrap());
        let strip = |text: String| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        schema.fields.iter().map(text).map(|(name, text)| (name, strip(text))).collect()
    };
    assert_eq!(types(&found), types(&schema));
    for start in [0, 1, 999, 1_000, 1_001, 3_499, 3_500] {
        let (rows, rejected) = read(file.clone(), schema.clone(), start).await;
        assert_eq!(rows, batch.slice(start as usize, batch.num_rows() - start as usize), "from {start}");
        assert!(rejected.is_empty());
    }
    assert!(file.held_bytes() > 1 << 20);
    assert!(!format!("{file:?}").contains("secret"));
}

fn column(name: &str, array: ArrayRef) -> (ArrowField, ArrayRef) {
    (ArrowField::new(name, array.data_type().clone(), true), array)
}

#[tokio::test]
async fn narrower_types_widen_and_what_does_not_fit_is_left_out() {
    let elements: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1 << 60 | 1), Some(2), None]));
    let element = Arc::new(ArrowField::new("element", DataType::Int64, true));
    let list = ListArray::new(element, OffsetBuffer::from_lengths([1, 1, 2, 0, 0, 0]), elements, None);
    let member: ArrayRef =
        Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3), None, Some(5), Some(6)]));
    let members = Fields::from(vec![ArrowField::new("must", DataType::Int32, true)]);
    let texts =
        ["0b0d4a2e-0d6c-4b6f-8a57-7a1f4d2c9a11", "no uuid at all", "", "0B0D4A2E0D6C4B6F8A577A1F4D2C9A11"];
    let texts: Vec<Option<&str>> = vec![Some(texts[0]), None, None, None, Some(texts[1]), Some(texts[3])];
    let (fields, columns): (Vec<_>, Vec<_>) = [
        column("n", Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5, 6]))),
        column("u", Arc::new(UInt32Array::from(vec![u32::MAX; 6]))),
        column("v", Arc::new(UInt64Array::from(vec![u64::MAX; 6]))),
        column("f", Arc::new(Float32Array::from(vec![0.5; 6]))),
        column(
            "t",
            Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3, 4, 5, i64::MAX]).with_timezone("UTC")),
        ),
        column("l", Arc::new(TimestampNanosecondArray::from(vec![-1; 6]))),
        column("b", Arc::new(BinaryArray::from(vec![b"ok".as_slice(); 6]))),
        column("id", Arc::new(StringArray::from(texts))),
        column("floats", Arc::new(list)),
        column("s", Arc::new(StructArray::new(members, vec![member], None))),
    ]
    .into_iter()
    .unzip();
    let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap();
    let file = file(&batch).await;
    let list = Type::List { element_id: 21, element_required: false, element: Box::new(P::Double.into()) };
    let table = Schema::new(
        1,
        vec![
            Field::required(1, "n", P::Long.into()),
            Field::optional(2, "u", P::Long.into()),
            Field::optional(3, "v", P::Decimal { precision: 38, scale: 2 }.into()),
            Field::optional(4, "f", P::Double.into()),
            Field::optional(5, "t", P::Timestamptz.into()),
            Field::optional(6, "l", P::Timestamp.into()),
            Field::optional(7, "b", P::String.into()),
            Field::optional(8, "id", P::Uuid.into()),
            Field::optional(9, "floats", list),
            Field::optional(10, "s", Type::Struct(vec![Field::required(31, "must", P::Int.into())])),
            Field::optional(11, "absent", P::String.into()),
        ],
    );
    let natural = file.schema(Some(&table)).unwrap();
    assert!(natural.column("n").unwrap().required, "rows are looked at one by one");
    assert_eq!(natural.column("id").unwrap().data_type, P::Uuid.into());
    let alone = file.schema(None).unwrap();
    assert_eq!(alone.column("id").unwrap().data_type, P::String.into());
    assert_eq!(alone.column("v").unwrap().data_type, P::Decimal { precision: 20, scale: 0 }.into());
    let (rows, rejected) = read(file, table, 0).await;
    let told =
        |row, reason, column: &str, detail: &str| (row, (reason, column.to_owned(), detail.to_owned()));
    let wanted = BTreeMap::from([
        told(1, R::OutOfRange, "floats[]", "a value that does not fit double"),
        told(3, R::MissingField, "s.must", "null where int is required"),
        told(4, R::BadLength, "id", "a value that is no uuid"),
        told(5, R::OutOfRange, "t", "a value that does not fit timestamptz"),
    ]);
    assert_eq!(rejected, wanted);
    let text = |column: &str, row| {
        arrow::util::display::array_value_to_string(rows.column_by_name(column).unwrap(), row).unwrap()
    };
    assert_eq!(rows.num_rows(), 2);
    let told = ["n", "u", "v", "f", "t", "l", "b", "floats", "s", "absent"].map(|column| text(column, 1));
    let wanted = [
        "3",
        "4294967295",
        "18446744073709551615.00",
        "0.5",
        "1970-01-01T00:00:00.003Z",
        "1969-12-31T23:59:59.999999",
        "ok",
        "[2.0, ]",
        "{must: 3}",
        "",
    ];
    assert_eq!(told, wanted.map(str::to_owned));
    assert_eq!(text("id", 0), "0b0d4a2e0d6c4b6f8a577a1f4d2c9a11");
}

#[tokio::test]
async fn a_column_is_like_the_one_of_its_name_not_of_its_alias() {
    let batch =
        RecordBatch::try_from_iter([("post", Arc::new(BinaryArray::from(vec![&b"x"[..]])) as ArrayRef)]);
    let file = file(&batch.unwrap()).await;
    let mut mail = Field::optional(1, "mail", P::String.into());
    mail.aliases.push("post".into());
    let like = |table: Vec<Field>| file.schema(Some(&Schema::new(0, table))).unwrap().fields[0].required;
    assert!(!like(vec![mail.clone()]));
    assert!(like(vec![mail, Field::required(2, "post", P::Binary.into())]));
}

#[tokio::test]
async fn what_the_table_cannot_take_is_named() {
    let batch = RecordBatch::try_from_iter([
        ("a", Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
        ("b", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ]);
    let file = file(&batch.unwrap()).await;
    let fault = |table: Vec<Field>| {
        let table = Schema::new(0, table);
        file.rows_from(&table, &table, 0).unwrap().unwrap_err().to_string()
    };
    let (a, b) = (Field::optional(1, "a", P::String.into()), Field::optional(2, "b", P::Int.into()));
    assert_eq!(fault(vec![a.clone()]), "column b: the table has no such column yet");
    assert_eq!(fault(vec![a.clone(), b]), "column b: its type does not fit the column's type");
    let (b, c) = (Field::optional(2, "b", P::Long.into()), Field::required(3, "c", P::Int.into()));
    assert_eq!(fault(vec![a, b, c]), "column c: the column is required and the file does not have it");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("a=secret/x");
    store.put(&path, vec![0; 100].into()).await.unwrap();
    for size in [100, 10 << 20] {
        let error = ParquetFile::open(&store, &path, size, None).await.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_told() {
    let schema = every_type();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("history/region=secret/part-0.parquet");
    let content = |seed| {
        let batch = testing::batch(&schema, 60_000, &mut testing::rng(seed));
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    };
    let bytes = content(1);
    let size = bytes.len() as u64;
    assert!(size > WHOLE_BYTES_MAX, "it is read in parts: {size}");
    store.put(&path, bytes.into()).await.unwrap();
    let etag = store.head(&path).await.unwrap().e_tag;
    let file = ParquetFile::open(&store, &path, size, etag.as_deref()).await.unwrap();
    store.put(&path, content(2).into()).await.unwrap();
    let rows = tokio::task::spawn_blocking(move || {
        file.rows_from(&schema, &schema, 0).and_then(|rows| rows.unwrap().collect::<Result<Vec<_>>>())
    });
    let error = rows.await.unwrap().unwrap_err();
    assert!(
        matches!(error, DataFileError::Replaced { .. }) && !error.to_string().contains("secret"),
        "{error}"
    );
    assert_eq!(error.code(), ErrorCode::SourceFileRefused);
    let again = ParquetFile::open(&store, &path, size, etag.as_deref()).await;
    assert!(matches!(again, Err(DataFileError::Replaced { .. })));
}

#[tokio::test]
async fn columns_that_nobody_asks_for_are_not_read() {
    let batch = RecordBatch::try_from_iter([
        ("a", Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef),
        ("b", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
    ]);
    let file = file(&batch.unwrap()).await;
    let columns =
        vec![Field::optional(1, "b", P::Long.into()), Field::optional(2, "absent", P::String.into())];
    let rows = tokio::task::spawn_blocking(move || {
        let columns = Schema::new(0, columns);
        let rows = file.rows_of(&columns, &columns, 1).unwrap().unwrap();
        rows.map(Result::unwrap).collect::<Vec<ParquetBatch>>()
    });
    let rows = rows.await.unwrap();
    assert_eq!((rows.len(), rows[0].start, rows[0].rows, rows[0].batch.num_columns()), (1, 1, 1, 2));
    assert_eq!(rows[0].batch.column(0).as_ref(), &Int64Array::from(vec![2]) as &dyn Array);
    assert_eq!(rows[0].batch.column(1).null_count(), 1);
}
