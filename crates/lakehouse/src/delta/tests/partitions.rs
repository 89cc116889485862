//! What becomes of the Delta partition columns of a table over time.

use super::*;
use crate::delta::Mapping;

async fn text_of_first(store: &Arc<dyn ObjectStore>) -> (Path, String) {
    let path = Path::from(format!("{LOCATION}/data/_delta_log/{:020}.json", 0));
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    (path, String::from_utf8(bytes.to_vec()).unwrap())
}

/// A log that an earlier build began, with a string partition column: refused, and rebuilt as the error says.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_string_partition_column_is_refused_until_rebuilt() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    world.append().await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    let (path, text) = text_of_first(&world.store).await;
    let old = text.replace(r#""partitionColumns":["region"]"#, r#""partitionColumns":["note"]"#);
    assert_ne!(old, text);
    world.store.put(&path, old.into()).await.unwrap();
    world.append().await;
    let error = world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(said.contains("column note: is a partition column in the Delta log"), "{said}");
    assert!(said.contains("delete data/_delta_log"), "{said}");
    world.store.delete(&path).await.unwrap();
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
}

/// Asked before the ledger takes a spec; the columns are those of the log, not of the spec in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_spec_without_a_partition_column_of_the_log_is_refused() {
    let world = World::new(Arc::new(InMemory::new())).await;
    let (state, schema) = (&world.state, &world.state.schema);
    let mut table = world.table();
    let none = PartitionSpec { spec_id: 1, fields: vec![] };
    table.check_change(state, schema, &none, Mapping::AsItIs).await.unwrap();
    table.catch_up(&world.ledger, state, &world.details).await.unwrap();
    for mut table in [table, world.table()] {
        let said = table.check_change(state, schema, &none, Mapping::AsItIs).await.unwrap_err().to_string();
        assert!(said.starts_with("table shop.orders: column region: is a partition column"), "{said}");
        let same = PartitionSpec { spec_id: 1, ..state.partition_spec.clone() };
        table.check_change(state, schema, &same, Mapping::AsItIs).await.unwrap();
    }
}

/// A table that is shown as Delta late, after its partition spec grew by the identity field: files of the first
/// spec have no value for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_log_has_the_partition_columns_of_all_files() {
    let mut world = World::with(Arc::new(InMemory::new()), PartitionSpec::default()).await;
    let file = FileEntry { spec_id: 0, ..entry(1, 10, &world.details) };
    world
        .details
        .insert(FileDetails { partition: vec![], ..(*world.details.get(&file.path).unwrap()).clone() });
    world.commit(Change::append(vec![file], vec![range(0, 10)], vec![])).await;
    let grown = PartitionSpec { spec_id: 1, ..by_region() };
    world.commit(Change::SetPartitionSpec { partition_spec: grown }).await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
    let delta = read(Arc::clone(&world.store)).await;
    assert!(delta.snapshot().unwrap().metadata().partition_columns().is_empty());
}

/// Files of a narrower type cannot be read by a Delta table that begins with the wider one.
#[tokio::test(flavor = "multi_thread")]
async fn delta_is_not_begun_over_files_of_another_type() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.append().await;
    let mut wider = schema(1);
    wider.fields[2].data_type = PrimitiveType::Long.into();
    let check =
        world.table().check_change(&world.state, &wider, &world.state.partition_spec, Mapping::AsItIs).await;
    assert!(matches!(check, Err(crate::LakeError::CannotShow { ref column, .. }) if column == "region"));
    world.commit(Change::SetSchema { schema: wider }).await;
    let error = world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap_err();
    assert!(error.to_string().contains("column region: changed its type"), "{error}");
    let check = world
        .table()
        .check_change(&world.state, &world.state.schema, &world.state.partition_spec, Mapping::AsItIs)
        .await;
    assert!(check.is_err());
}
