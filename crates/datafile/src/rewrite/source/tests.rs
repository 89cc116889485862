use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use object_store::{ObjectStoreExt, memory::InMemory};
use parquet::arrow::ArrowWriter;

use super::*;

async fn object(block_bytes: u64) -> (Object, ParquetMetaData, Bytes) {
    let numbers = |factor: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..40_000).map(|number| number * factor % 39_979)))
    };
    let batch = RecordBatch::try_from_iter([("a", numbers(7_919)), ("b", numbers(104_729))]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let bytes = Bytes::from(bytes);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("one.parquet");
    store.put(&path, bytes.clone().into()).await.unwrap();
    let place = Place { store, path, etag: None, label: "one".to_owned(), size: bytes.len() as u64 };
    let (object, metadata) = Object::open(place, false, move |_| block_bytes).await.unwrap();
    (object, metadata, bytes)
}

#[tokio::test]
async fn bytes_come_as_they_are_whatever_the_blocks_and_the_pages() {
    for block_bytes in [1_000, 4_096, 1 << 20] {
        let (object, metadata, bytes) = object(block_bytes).await;
        let read = move || {
            for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
                let (start, length) = chunk.byte_range();
                let wanted = &bytes[start as usize..(start + length) as usize];
                let mut found = Vec::new();
                object.get_read(start).unwrap().take(length).read_to_end(&mut found).unwrap();
                assert!(found == wanted, "{} bytes read on", found.len());
                // As pages are read: the head by a reader, then all of it at once.
                let (mut at, mut size) = (0, 1);
                while at < wanted.len() {
                    let mut head = vec![0; 16_usize.min(wanted.len() - at)];
                    object.get_read(start + at as u64).unwrap().read_exact(&mut head).unwrap();
                    assert_eq!(head, wanted[at..at + head.len()]);
                    let end = wanted.len().min(at + size);
                    let page = object.get_bytes(start + at as u64, end - at).unwrap();
                    assert!(page == wanted[at..end], "a page of {size} bytes in blocks of {block_bytes}");
                    (at, size) = (end, size * 3 % 9_973);
                }
            }
            assert_eq!(object.get_bytes(4, 0).unwrap(), Bytes::new());
            assert!(object.get_bytes(bytes.len() as u64 - 4, 5).is_err());
        };
        tokio::task::spawn_blocking(read).await.unwrap();
    }
}
