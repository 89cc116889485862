//! Columns that are renamed, dropped, and take names that others had.

use serde_json::Value;

use super::*;
use crate::delta::Mapping;

fn column(id: i32, name: &str, primitive: PrimitiveType) -> Field {
    Field::optional(id, name, primitive.into())
}

/// The first table is `schema(1)`: id, amount, region, note.
fn renamed() -> Schema {
    let amount = PrimitiveType::Decimal { precision: 38, scale: 2 };
    let fields = vec![
        Field::required(1, "id", PrimitiveType::Long.into()),
        column(2, "total", amount),
        column(3, "area", PrimitiveType::Int),
    ];
    Schema::new(2, fields)
}

fn with_note(mut schema: Schema) -> Schema {
    schema.schema_id += 1;
    schema.fields.push(column(5, "note", PrimitiveType::Int));
    schema
}

async fn actions(world: &World, version: u64) -> Vec<Value> {
    let path = Path::from(format!("{LOCATION}/data/_delta_log/{version:020}.json"));
    let bytes = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn metadata(actions: &[Value]) -> &Value {
    actions.iter().find_map(|action| action.get("metaData")).unwrap()
}

async fn newest(world: &World) -> Vec<Value> {
    let version = read(Arc::clone(&world.store)).await.version().unwrap();
    actions(world, version).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_begins_column_mapping_and_files_keep_their_names() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    world.append().await;
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    world.append().await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    // What a worker meets on its way does not begin it; a person does.
    let refused = table.check_change(&world.state, &renamed(), &by_region(), Mapping::AsItIs).await;
    assert!(refused.unwrap_err().to_string().contains("was renamed"));
    table.check_change(&world.state, &renamed(), &by_region(), Mapping::MayBegin).await.unwrap();

    world.commit(Change::SetSchema { schema: renamed() }).await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    let commit = newest(&world).await;
    let protocol = commit.iter().find_map(|action| action.get("protocol")).unwrap();
    assert_eq!(protocol["readerFeatures"], serde_json::json!(["columnMapping"]));
    let metadata_of = metadata(&commit);
    assert_eq!(metadata_of["configuration"]["delta.columnMapping.mode"], "name");
    assert_eq!(metadata_of["configuration"]["delta.columnMapping.maxColumnId"], "4");
    assert_eq!(metadata_of["partitionColumns"], serde_json::json!(["area"]));
    let shown: Value = serde_json::from_str(metadata_of["schemaString"].as_str().unwrap()).unwrap();
    let names = |shown: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let fields = shown["fields"].as_array().unwrap().iter();
        fields
            .map(|field| (text(&field["name"]), text(&field["metadata"]["delta.columnMapping.physicalName"])))
            .collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, there)| ((*name).to_owned(), (*there).to_owned())).collect()
    };
    assert_eq!(names(&shown), pairs(&[("id", "id"), ("total", "amount"), ("area", "region")]));

    // A name that another column had: in files the column has one of its own. No worker needs to ask any more.
    table.check_change(&world.state, &with_note(renamed()), &by_region(), Mapping::AsItIs).await.unwrap();
    world.commit(Change::SetSchema { schema: with_note(renamed()) }).await;
    world.append().await;
    // Another worker goes on, which knows what it finds in the log.
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
    let commit = newest(&world).await;
    let add = commit.iter().find_map(|action| action.get("add")).unwrap();
    assert_eq!(add["partitionValues"], serde_json::json!({"region": "-7"}));
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["nullCount"], serde_json::json!({"amount": 1}));
    let version = read(Arc::clone(&world.store)).await.version().unwrap();
    let before = actions(&world, version - 1).await;
    let shown: Value = serde_json::from_str(metadata(&before)["schemaString"].as_str().unwrap()).unwrap();
    assert_eq!(names(&shown).last(), pairs(&[("note", "note_5")]).last());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_needs_no_mapping() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let mut table = world.table();
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    world.append().await;
    let mut less = schema(0);
    less.schema_id = 2;
    table.check_change(&world.state, &less, &by_region(), Mapping::AsItIs).await.unwrap();
    world.commit(Change::SetSchema { schema: less.clone() }).await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
    assert_eq!(read(Arc::clone(&world.store)).await.snapshot().unwrap().protocol().min_reader_version(), 1);
    // Its name comes back: only a person begins to map columns, however the name is written.
    for name in ["note", "Note"] {
        let mut back = less.clone();
        back.schema_id = 3;
        back.fields.push(column(5, name, PrimitiveType::Int));
        let refused =
            table.check_change(&world.state, &back, &by_region(), Mapping::AsItIs).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("column {name}: ")), "{refused}");
        table.check_change(&world.state, &back, &by_region(), Mapping::MayBegin).await.unwrap();
    }
    // The ledger gives no id of a dropped column out again.
    less.schema_id = 3;
    less.fields.push(column(4, "other", PrimitiveType::Int));
    let change = Change::SetSchema { schema: less };
    let refused = world.ledger.commit(&mut world.state, change, "again", 1).await.unwrap_err();
    assert!(refused.to_string().contains("uses id 4 of a column that was dropped"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_log_is_known_again_through_its_checkpoint() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.append().await;
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    let mut table = world.table();
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.commit(Change::SetSchema { schema: renamed() }).await;
    world.append().await;
    table.catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    table.checkpoint().await.unwrap();
    let stored = checkpoint::stored(Arc::clone(&world.store), &Path::from(LOCATION)).await.unwrap().unwrap();
    assert_eq!(stored.partition_columns, ["region"]);
    assert_eq!((stored.schema_id, stored.shown), (2, Some(world.state.version)));
    world.append().await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_after_a_rename_is_mapped() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.append().await;
    world.commit(Change::SetSchema { schema: schema(1) }).await;
    world.commit(Change::SetSchema { schema: renamed() }).await;
    world.append().await;
    world.table().catch_up(&world.ledger, &world.state, &world.details).await.unwrap();
    world.assert_shown().await;
    let commit = actions(&world, 0).await;
    assert_eq!(metadata(&commit)["configuration"]["delta.columnMapping.mode"], "name");
    for add in commit.iter().filter_map(|action| action.get("add")) {
        assert_eq!(add["partitionValues"], serde_json::json!({"region": "-7"}));
    }
}
