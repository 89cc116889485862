//! Flushes before the table exists: rejected records are committed, once each, and nothing else is.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use object_store::{memory::InMemory, path::Path};
use siltstone_ingest::{Headers, Record, dead_letter::DeadLetters};
use siltstone_protocol::RejectReason;

use super::{places::source, *};

const SPEC: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092'], schema_registry: {url: 'http://localhost'}}]
destination_bucket_url: file:///tmp
tables: [{name: a.b, source_cluster_name: lab, source_topic: t, source_format: avro}]
";

fn flusher(store: &Arc<InMemory>) -> Flusher {
    let spec = siltstone_spec::parse(SPEC, "spec.yaml", &|_| None).unwrap();
    let url = url::Url::parse("memory:///lake").unwrap();
    Flusher {
        spec: spec.tables[0].clone(),
        lake: TableStore::new(store.clone(), Path::from("lake"), url),
        table: None,
        dead_letters: None,
        metrics: Arc::default(),
        identity: Arc::default(),
        abandon: watch::Sender::new(false).subscribe(),
        on_dead_letters: Box::new(|_| {}),
    }
}

fn letters(offsets: std::ops::Range<i64>) -> Vec<RecordBatch> {
    let mut letters = DeadLetters::new("lab", "t").unwrap();
    for offset in offsets {
        let headers = Headers::empty();
        let record =
            Record { partition: 0, offset, timestamp_ms: None, key: None, value: Some(b"x"), headers };
        assert!(letters.push(&record, RejectReason::BadFraming, None, 0));
    }
    letters.finish().unwrap().into_iter().collect()
}

fn job(dead_letters: Vec<RecordBatch>, start: i64, end: i64) -> FlushJob {
    let (cluster, topic) = ("lab".to_owned(), "t".to_owned());
    let ranges = vec![OffsetRange { cluster, topic, partition: 0, start, end, lost: false }];
    FlushJob { schema: None, batches: Vec::new(), dead_letters, ranges, rejected: Vec::new(), memory: None }
}

/// Position and offsets of the dead-letter table as another worker finds them.
async fn kept(store: &Arc<InMemory>) -> (Option<i64>, Vec<i64>) {
    let flusher = flusher(store);
    let table = Table::open_dead_letters(&flusher.lake, &flusher.spec).await.unwrap().unwrap();
    let state = table.state.lock().await.clone();
    let mut offsets = Vec::new();
    for file in state.live_files.values() {
        let batches = siltstone_datafile::read_batches(&table.store, &table.location, file, &state.schema);
        let batches: Vec<RecordBatch> = batches.await.unwrap().try_collect().await.unwrap();
        for batch in batches {
            offsets.extend(batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values());
        }
    }
    offsets.sort_unstable();
    (state.next_offset(&source("lab", "t", 0)), offsets)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_do_not_wait_for_the_table() {
    let store = Arc::new(InMemory::new());
    let mut first = flusher(&store);
    assert!(matches!(first.flush(job(letters(0..5), 0, 5)).await, Ok(Flushed::Early)));
    // Offsets 5 and 6 were passed over: nothing of them is to be kept.
    assert!(matches!(first.flush(job(Vec::new(), 5, 7)).await, Ok(Flushed::Early)));
    assert!(matches!(first.flush(job(letters(7..9), 7, 9)).await, Ok(Flushed::Early)));
    let all: Vec<i64> = (0..5).chain(7..9).collect();
    assert_eq!(kept(&store).await, (Some(9), all));
    let table = Table::open(&first.lake, &first.spec).await.unwrap();
    assert!(table.is_none(), "the table itself waits for a schema");
    // Another worker, or this one after a crash, reads all of it again, and two more.
    let mut second = flusher(&store);
    let again = letters(0..5).into_iter().chain(letters(7..11)).collect();
    assert!(matches!(second.flush(job(again, 0, 11)).await, Ok(Flushed::Early)));
    assert_eq!(kept(&store).await, (Some(11), (0..5).chain(7..11).collect()));
}

/// It was a row when the buffer was read first, of which the letters alone landed; a changed spec rejects it.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_an_offset_that_is_claimed_and_has_none_is_kept() {
    let store = Arc::new(InMemory::new());
    let mut first = flusher(&store);
    let some = letters(0..2).into_iter().chain(letters(5..6)).collect();
    assert!(matches!(first.flush(job(some, 0, 8)).await, Ok(Flushed::Early)));
    assert_eq!(kept(&store).await, (Some(8), vec![0, 1, 5]));
    for _ in 0..2 {
        let mut second = flusher(&store);
        let more = letters(0..4).into_iter().chain(letters(5..7)).chain(letters(9..10)).collect();
        assert!(matches!(second.flush(job(more, 0, 10)).await, Ok(Flushed::Early)));
        assert_eq!(kept(&store).await, (Some(10), vec![0, 1, 2, 3, 5, 6, 9]));
    }
}

/// Written by the worker before, while this one had looked at the dead letters already.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_rejected_since_the_last_look_is_seen() {
    use siltstone_protocol::{Field, PrimitiveType};
    let store = Arc::new(InMemory::new());
    let mut first = flusher(&store);
    assert!(matches!(first.flush(job(letters(0..1), 0, 1)).await, Ok(Flushed::Early)));
    let schema = Schema::new(0, vec![Field::optional(1, "v", PrimitiveType::Long.into())]);
    let mut second = flusher(&store);
    let table = Table::open_or_create(&second.lake, &second.spec, schema, "create", 1).await.unwrap();
    second.table = Some(Arc::new(table));
    second.dead_letters = Table::open_dead_letters(&second.lake, &second.spec).await.unwrap().map(Arc::new);
    assert!(matches!(first.flush(job(letters(1..3), 1, 4)).await, Ok(Flushed::Early)));
    assert!(matches!(second.flush(job(Vec::new(), 0, 4)).await, Ok(Flushed::Committed { .. })));
    let state = second.table.as_ref().unwrap().refresh().await.unwrap();
    assert_eq!(state.replayed[&source("lab", "t", 0)].as_slice(), [(0, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_changes_without_a_table_are_a_bug_and_not_lost_in_silence() {
    let store = Arc::new(InMemory::new());
    let mut flusher = flusher(&store);
    let rows = FlushJob { batches: letters(0..1), ..job(Vec::new(), 0, 1) };
    assert_eq!(flusher.flush(rows).await.unwrap_err().kind(), ErrorKind::Internal);
    let change = Change::append(Vec::new(), Vec::new(), Vec::new());
    assert_eq!(flusher.commit_change(change).await.unwrap_err().kind(), ErrorKind::Internal);
}

/// Rejected once, and then the worker died before its entry; read again, most of it is rows. What the dead-letter table
/// still has of that must not be replayed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_rejected_counts_as_replayed() {
    use siltstone_protocol::{Field, PrimitiveType};
    let store = Arc::new(InMemory::new());
    let mut first = flusher(&store);
    assert!(matches!(first.flush(job(letters(0..5), 0, 5)).await, Ok(Flushed::Early)));
    let schema = Schema::new(0, vec![Field::optional(1, "v", PrimitiveType::Long.into())]);
    let mut second = flusher(&store);
    let table = Table::open_or_create(&second.lake, &second.spec, schema.clone(), "create", 1).await.unwrap();
    second.table = Some(Arc::new(table));
    second.dead_letters = Table::open_dead_letters(&second.lake, &second.spec).await.unwrap().map(Arc::new);
    let rows = |count: i64| {
        let values = arrow::array::Int64Array::from_iter_values(0..count);
        RecordBatch::try_new(siltstone_datafile::arrow_schema(&schema).unwrap(), vec![Arc::new(values)])
            .unwrap()
    };
    let again = FlushJob {
        schema: Some(Arc::new(schema.clone())),
        batches: vec![rows(6)],
        ..job(letters(2..3), 0, 7)
    };
    assert!(matches!(second.flush(again).await, Ok(Flushed::Committed { .. })));
    let replayed = async |flusher: &Flusher| {
        let state = flusher.table.as_ref().unwrap().refresh().await.unwrap();
        state.replayed.get(&source("lab", "t", 0)).map(|held| held.as_slice().to_vec()).unwrap_or_default()
    };
    assert_eq!(replayed(&second).await, [(0, 2), (3, 5)]);
    // Nothing new came: the dead-letter table stays where it is.
    assert_eq!(kept(&store).await, (Some(5), (0..5).collect()));
    // What goes on from there was not rejected before.
    let more = FlushJob {
        schema: Some(Arc::new(schema.clone())),
        batches: vec![rows(1)],
        ..job(letters(7..8), 7, 9)
    };
    assert!(matches!(second.flush(more).await, Ok(Flushed::Committed { .. })));
    assert_eq!(replayed(&second).await, [(0, 2), (3, 5)]);
    // A worker that comes too late writes no dead letters of offsets that others decided on.
    let mut late = flusher(&store);
    late.table = Table::open(&late.lake, &late.spec).await.unwrap().map(Arc::new);
    let dead = job(letters(8..10), 8, 10);
    assert!(matches!(late.flush(dead).await, Ok(Flushed::Fenced)));
    assert_eq!(kept(&store).await, (Some(9), [0, 1, 2, 3, 4, 7].to_vec()));
}

/// Far more stretches lie between what is rejected than an entry takes.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_scattered_rejections_only_stretches_with_letters_are_named() {
    let store = Arc::new(InMemory::new());
    let mut flusher = flusher(&store);
    assert!(matches!(flusher.flush(job(letters(0..4), 0, 4)).await, Ok(Flushed::Early)));
    let rejected_at =
        |first: i64| -> Vec<(i32, i64)> { (first..300_000).step_by(2).map(|at| (0, at)).collect() };
    let held = job(Vec::new(), 0, 300_000).ranges;
    let named = flusher.no_longer_rejected(held.clone(), &rejected_at(1)).await.unwrap().unwrap();
    let spans: Vec<_> = named.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!(spans, [(0, 1), (2, 3)]);
    // So few are named without a look.
    let named = flusher.no_longer_rejected(held, &rejected_at(299_990)).await.unwrap().unwrap();
    assert_eq!((named.len(), named[0].end), (6, 299_990));
}
