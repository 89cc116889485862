//! What other programs did to the Iceberg table is taken in: nothing is lost, and nothing comes back.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema},
};
use iceberg::spec::{ManifestContentType, ManifestFile};
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use serde_json::{Value, json};
use siltstone_protocol::{Change, ErrorKind, FileEntry, Format};

use super::rig::{LOCATION, Rig, URL};
use crate::{
    foreign::{Apart, Comparison},
    format::TableFormat,
    iceberg::{
        IcebergTable,
        bucket::Bucket,
        data_file::{DataFile, ManifestEntry, Status},
        encode::{ManifestLayout, encode_manifest},
        manifests::{encode_list, read, read_list},
    },
};

/// A path of another program, which holds a value.
const FOREIGN: &str = "data/shop=secret/00000-1.parquet";

fn bucket(rig: &Rig) -> Bucket {
    Bucket::new(Arc::clone(&rig.store), Path::from(LOCATION), URL)
}

/// Live entries of the newest snapshot, with their manifests.
async fn entries(rig: &Rig) -> Vec<(ManifestFile, ManifestEntry)> {
    let (_, metadata) = rig.metadata().await;
    let Some(current) = metadata.current_snapshot() else { return Vec::new() };
    let mut found = Vec::new();
    for line in read_list(&bucket(rig), current.manifest_list()).await.unwrap() {
        let manifest = read(&bucket(rig), &line).await.unwrap();
        let live = manifest.entries.iter().filter(|entry| entry.is_live());
        found.extend(live.map(|entry| (line.clone(), entry.clone())));
    }
    found
}

async fn live(rig: &Rig) -> BTreeSet<String> {
    let below = |path: &str| path.strip_prefix(URL).unwrap()[1..].to_owned();
    entries(rig).await.iter().map(|(_, entry)| below(&entry.file.path)).collect()
}

/// Another program's commit: files that leave, and data files and delete files that come.
async fn commit(rig: &Rig, operation: &str, removed: &[&str], added: &[(&str, i64, i64)]) {
    let (version, bytes) = rig.metadata_bytes().await;
    let mut metadata: Value = serde_json::from_slice(&bytes).unwrap();
    let (_, parsed) = rig.metadata().await;
    let sequence = metadata["last-sequence-number"].as_i64().unwrap() + 1;
    let id = 9_000 + sequence;
    let all = entries(rig).await;
    let (schema, spec) = (parsed.current_schema().clone(), parsed.default_partition_spec().clone());
    let mut kinds = [Vec::new(), Vec::new()];
    for (_, entry) in &all {
        let gone = removed.iter().any(|path| entry.file.path == format!("{URL}/{path}"));
        if !gone {
            kinds[usize::from(entry.file.content > 0)]
                .push(ManifestEntry { status: Status::Existing, ..entry.clone() });
        }
    }
    for (path, rows, content) in added {
        let file = DataFile {
            content: *content,
            path: format!("{URL}/{path}"),
            format: "PARQUET".to_owned(),
            partition: vec![None, None],
            rows: *rows,
            bytes: 10,
            ..DataFile::default()
        };
        kinds[usize::from(*content > 0)].push(ManifestEntry {
            status: Status::Added,
            snapshot_id: id,
            sequence_number: sequence,
            file_sequence_number: sequence,
            file: Arc::new(file),
        });
    }
    let mut lines = Vec::new();
    for (kind, entries) in kinds.iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
        let below = format!("metadata/foreign-{id}-{kind}.avro");
        let layout = ManifestLayout { schema: &schema, spec: &spec };
        let mut encoded = encode_manifest(format!("{URL}/{below}"), &layout, entries, id, sequence).unwrap();
        encoded.file.content =
            if kind == 0 { ManifestContentType::Data } else { ManifestContentType::Deletes };
        bucket(rig).put_new(&below, encoded.bytes).await.unwrap();
        lines.push(encoded.file);
    }
    let list = format!("metadata/foreign-{id}.avro");
    let parent = metadata["current-snapshot-id"].as_i64();
    let bytes = encode_list(&lines, id, parent, sequence).await.unwrap();
    bucket(rig).put_new(&list, bytes).await.unwrap();
    let snapshot = json!({
        "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": sequence,
        "timestamp-ms": metadata["last-updated-ms"].as_i64().unwrap() + 1,
        "manifest-list": format!("{URL}/{list}"), "summary": {"operation": operation},
        "schema-id": metadata["current-schema-id"],
    });
    metadata["last-updated-ms"] = snapshot["timestamp-ms"].clone();
    metadata["snapshots"].as_array_mut().unwrap().push(snapshot);
    metadata["last-sequence-number"] = json!(sequence);
    metadata["current-snapshot-id"] = json!(id);
    metadata["refs"]["main"]["snapshot-id"] = json!(id);
    let path = Path::from(format!("{LOCATION}/metadata/v{}.metadata.json", version + 1));
    rig.store.put(&path, metadata.to_string().into_bytes().into()).await.unwrap();
}

/// A position delete file that deletes these rows of a file.
async fn delete_file(rig: &Rig, below: &str, of: &str, rows: &[i64]) {
    let field = |name: &str, data_type, id: i32| {
        let metadata = [(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())];
        ArrowField::new(name, data_type, false).with_metadata(metadata.into())
    };
    let fields =
        vec![field("file_path", DataType::Utf8, 2147483546), field("pos", DataType::Int64, 2147483545)];
    let paths: ArrayRef = Arc::new(StringArray::from(vec![format!("{URL}/{of}"); rows.len()]));
    let rows: ArrayRef = Arc::new(Int64Array::from(rows.to_vec()));
    let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![paths, rows]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    rig.store.put(&Path::from(format!("{LOCATION}/{below}")), bytes.into()).await.unwrap();
}

async fn compare(rig: &Rig, table: &mut IcebergTable) -> Box<Apart> {
    match table.compare(&rig.ledger, &rig.state).await.unwrap() {
        Comparison::Apart(apart) => apart,
        other => panic!("{other:?}"),
    }
}

/// Rows of the files that are read, without those that are deleted.
fn rows(apart: &Apart) -> u64 {
    apart.files.iter().map(|file| file.rows.unwrap() - file.deleted.as_ref().map_or(0, |d| d.rows())).sum()
}

fn change(apart: &Apart, added: Vec<FileEntry>) -> Change {
    Change::Absorb {
        format: apart.format,
        base: apart.base,
        seen: apart.seen,
        removed: apart.removed.clone(),
        added,
        absorbed: apart.absorbed.clone(),
        same_rows: apart.same_rows,
    }
}

async fn absorb(rig: &mut Rig, apart: &Apart) -> u64 {
    let file = rig.file(rows(apart));
    rig.commit(change(apart, vec![file])).await
}

async fn agrees(rig: &Rig) {
    assert_eq!(live(rig).await, rig.live[&rig.state.version]);
    let (_, bytes) = rig.metadata_bytes().await;
    assert!(!String::from_utf8_lossy(&bytes).contains("siltstone.apart"));
    let mut fresh = rig.table();
    assert!(!fresh.is_apart().await.unwrap());
    assert!(matches!(fresh.compare(&rig.ledger, &rig.state).await.unwrap(), Comparison::Agrees));
}

/// `n` files, shown, and their paths.
async fn shown(rig: &mut Rig, table: &mut IcebergTable, n: usize) -> Vec<String> {
    for _ in 0..n {
        rig.append(1).await;
    }
    rig.show(table).await;
    rig.state.live_files.keys().cloned().collect()
}

#[tokio::test]
async fn a_rewrite_is_taken_in_and_what_it_took_away_stays_away() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    let ours = shown(&mut rig, &mut table, 3).await;
    commit(&rig, "replace", &[&ours[0], &ours[1]], &[(FOREIGN, 20, 0)]).await;
    // Compaction does not know yet, and ingestion goes on.
    rig.replace(vec![ours[1].clone(), ours[2].clone()], 1).await;
    rig.append(1).await;
    rig.show(&mut table).await;
    let mut other = rig.table();
    let apart = compare(&rig, &mut other).await;
    assert!(apart.same_rows && apart.commits["replace"] == 1, "{apart:?}");
    assert_eq!((apart.removed.len(), apart.files.len(), rows(&apart)), (2, 2, 30), "{apart:?}");
    absorb(&mut rig, &apart).await;
    rig.show(&mut table).await;
    agrees(&rig).await;
    let entry = rig.ledger.entry(rig.state.version).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&entry).unwrap().contains("secret"));
    assert!(!format!("{apart:?}").contains("secret"));
    // Shown from the beginning, by a table that is made anew.
    for name in rig.names().await.iter().filter(|name| name.starts_with("metadata/")) {
        rig.store.delete(&Path::from(format!("{LOCATION}/{name}"))).await.unwrap();
    }
    rig.show(&mut rig.table()).await;
    rig.check().await;
    agrees(&rig).await;
}

#[tokio::test]
async fn what_is_changed_again_before_it_is_shown_is_taken_in_once_more() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    let ours = shown(&mut rig, &mut table, 2).await;
    commit(&rig, "overwrite", &[&ours[0]], &[(FOREIGN, 7, 0)]).await;
    let first = compare(&rig, &mut table).await;
    assert!(!first.same_rows);
    commit(&rig, "overwrite", &[FOREIGN], &[("data/00001-1.parquet", 5, 0)]).await;
    absorb(&mut rig, &first).await;
    rig.show(&mut table).await;
    assert_eq!(live(&rig).await, BTreeSet::from([ours[1].clone(), "data/00001-1.parquet".to_owned()]));
    let second = compare(&rig, &mut rig.table()).await;
    assert_eq!(rows(&second), 5);
    assert_eq!(second.removed.len(), 1, "the files that the first one added");
    // A look from before the first cannot land.
    let late = change(&first, Vec::new());
    let error = rig.ledger.commit(&mut rig.state, late, "late", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    absorb(&mut rig, &second).await;
    rig.show(&mut rig.table()).await;
    agrees(&rig).await;
}

#[tokio::test]
async fn two_workers_do_not_take_the_same_rows_in_twice() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    shown(&mut rig, &mut table, 1).await;
    commit(&rig, "append", &[], &[(FOREIGN, 4, 0)]).await;
    let (one, other) = (compare(&rig, &mut table).await, compare(&rig, &mut rig.table()).await);
    absorb(&mut rig, &one).await;
    let again = change(&other, vec![rig.file(4)]);
    let error = rig.ledger.commit(&mut rig.state, again, "again", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    rig.show(&mut table).await;
    agrees(&rig).await;
}

#[tokio::test]
async fn rows_that_are_deleted_by_position_are_gone_with_their_delete_files() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    let ours = shown(&mut rig, &mut table, 2).await;
    delete_file(&rig, "data/shop=secret/d1.parquet", &ours[0], &[2, 3, 7, 7]).await;
    commit(&rig, "delete", &[], &[("data/shop=secret/d1.parquet", 4, 1)]).await;
    let first = compare(&rig, &mut table).await;
    assert_eq!(first.removed, [ours[0].clone()]);
    assert_eq!(rows(&first), 7);
    // More rows are deleted before the first look is shown: they must not come back.
    delete_file(&rig, "data/d2.parquet", &ours[0], &[0]).await;
    commit(&rig, "delete", &[], &[("data/d2.parquet", 1, 1)]).await;
    absorb(&mut rig, &first).await;
    rig.show(&mut table).await;
    let second = compare(&rig, &mut table).await;
    assert_eq!(rows(&second), 6);
    absorb(&mut rig, &second).await;
    rig.show(&mut table).await;
    agrees(&rig).await;
    let (_, metadata) = rig.metadata().await;
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["total-delete-files"], "0");
}

#[tokio::test]
async fn deletes_by_equality_are_refused_with_a_way_out() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    shown(&mut rig, &mut table, 1).await;
    commit(&rig, "delete", &[], &[("data/e.parquet", 1, 2)]).await;
    let error = table.compare(&rig.ledger, &rig.state).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("rewrite the table's data files"), "{error}");
}

#[tokio::test]
async fn a_look_that_finds_nothing_ends_the_difference() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    shown(&mut rig, &mut table, 2).await;
    commit(&rig, "replace", &[], &[]).await;
    let apart = compare(&rig, &mut table).await;
    assert!(apart.removed.is_empty() && apart.files.is_empty());
    rig.commit(change(&apart, Vec::new())).await;
    rig.show(&mut table).await;
    agrees(&rig).await;
}

/// Delta's absorb, of a file that another program took away here.
#[tokio::test]
async fn both_formats_changed_at_once_stop_unless_rows_stayed() {
    for same_rows in [true, false] {
        let mut rig = Rig::new().await;
        let mut table = rig.table();
        let ours = shown(&mut rig, &mut table, 2).await;
        commit(&rig, "overwrite", &[&ours[0]], &[(FOREIGN, 10, 0)]).await;
        let added = vec![rig.file(10)];
        let (format, removed) = (Format::Delta, vec![ours[0].clone()]);
        let absorbed = vec!["00".to_owned()];
        let base = rig.state.version;
        rig.commit(Change::Absorb { format, base, seen: 1, removed, added, absorbed, same_rows }).await;
        let shown = table.catch_up(&rig.ledger, &rig.state, &rig.details).await;
        if !same_rows {
            let error = shown.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("delete metadata/"), "{error}");
            continue;
        }
        shown.unwrap();
        let apart = compare(&rig, &mut table).await;
        assert_eq!((apart.removed.len(), rows(&apart)), (1, 10));
        absorb(&mut rig, &apart).await;
        rig.show(&mut table).await;
        agrees(&rig).await;
    }
}

/// A reset or a replay of rows that another program took away, wholly or in part: they must not come back.
#[tokio::test]
async fn rows_that_are_changed_here_and_there_at_once_stop_the_projection() {
    for whole in [true, false] {
        let mut rig = Rig::new().await;
        let mut table = rig.table();
        let ours = shown(&mut rig, &mut table, 2).await;
        if whole {
            commit(&rig, "delete", &[&ours[0]], &[]).await;
            // What nobody else touched is shown.
            overwrite(&mut rig, &ours[1]).await;
            rig.show(&mut table).await;
            assert!(!live(&rig).await.contains(&ours[1]));
        } else {
            delete_file(&rig, "data/d.parquet", &ours[0], &[2]).await;
            commit(&rig, "delete", &[], &[("data/d.parquet", 1, 1)]).await;
        }
        let before = live(&rig).await;
        overwrite(&mut rig, &ours[0]).await;
        let error = table.catch_up(&rig.ledger, &rig.state, &rig.details).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let said = error.to_string();
        assert!(said.contains("whose rows a reset or a replay changed at the same time"), "{said}");
        assert!(said.contains("delete metadata/"), "{said}");
        assert_eq!(live(&rig).await, before);
    }
}

async fn overwrite(rig: &mut Rig, path: &str) -> u64 {
    let (removed, added, base) = (vec![path.to_owned()], vec![rig.file(9)], rig.state.version);
    rig.commit(Change::Overwrite { removed, added, ranges: vec![], base, rejected: vec![], replayed: vec![] })
        .await
}

/// Entries between are gone: what is missing could be anybody's.
#[tokio::test]
async fn what_left_entries_behind_does_not_bring_back_what_was_taken_away() {
    let mut rig = Rig::new().await;
    let mut table = rig.table();
    let ours = shown(&mut rig, &mut table, 2).await;
    commit(&rig, "delete", &[&ours[0]], &[]).await;
    rig.append(1).await;
    rig.append(1).await;
    let entry = Path::from(format!("{LOCATION}/_siltstone/ledger/{:020}.json", rig.state.version - 1));
    rig.store.delete(&entry).await.unwrap();
    let ledger = crate::ledger::Ledger::new(Arc::clone(&rig.store), Path::from(LOCATION));
    let error = rig.table().catch_up(&ledger, &rig.state, &rig.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("delete metadata/"), "{error}");
    assert!(!live(&rig).await.contains(&ours[0]));
}
