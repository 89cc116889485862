//! The difference of two metadata documents as a commit (pure): requirements, under which it holds, and updates.
//!
//! Requirements name what a draft was built upon, so that a commit which others overtook is refused: the table, the
//! snapshot of `main`, and each layout that the draft changes. Ids of schemas, specs and orders are the ledger's; a
//! catalog may give its own, which whoever committed finds out by [`Metadata::has_layouts_of`].

use serde_json::{Map, Value, json};

use crate::iceberg::metadata::{MAIN, Metadata, layout_id};

/// The body of a request that stages a table's creation, with the layouts of the lowest ids: some catalogs begin with
/// what was staged, and number it from the start.
pub(super) fn stage(table: &str, next: &Metadata) -> Value {
    let first =
        |layouts: &[Value], key: &str| layouts.iter().min_by_key(|layout| layout_id(layout, key)).cloned();
    json!({
        "name": table,
        "location": next.location,
        "schema": first(&next.schemas, "schema-id"),
        "partition-spec": first(&next.partition_specs, "spec-id"),
        "write-order": first(&next.sort_orders, "order-id"),
        "stage-create": true,
        "properties": next.properties,
    })
}

/// The commit that makes a table. `uuid` is the one that the catalog chose when the creation was staged.
pub(super) fn create(next: &Metadata, uuid: &str) -> Value {
    let mut updates = vec![
        json!({"action": "assign-uuid", "uuid": uuid}),
        json!({"action": "upgrade-format-version", "format-version": next.format_version}),
    ];
    let (all, current) = (&next.schemas, i64::from(next.current_schema_id));
    add_all(&mut updates, all, "schema-id", "add-schema", "schema");
    let id = last_or(all, "schema-id", current);
    updates.push(json!({"action": "set-current-schema", "schema-id": id}));
    let (all, current) = (&next.partition_specs, i64::from(next.default_spec_id));
    add_all(&mut updates, all, "spec-id", "add-spec", "spec");
    let id = last_or(all, "spec-id", current);
    updates.push(json!({"action": "set-default-spec", "spec-id": id}));
    let (all, current) = (&next.sort_orders, next.default_sort_order_id);
    add_all(&mut updates, all, "order-id", "add-sort-order", "sort-order");
    let id = last_or(all, "order-id", current);
    updates.push(json!({"action": "set-default-sort-order", "sort-order-id": id}));
    updates.push(json!({"action": "set-location", "location": next.location}));
    updates.push(json!({"action": "set-properties", "updates": next.properties}));
    for snapshot in &next.snapshots {
        updates.push(json!({"action": "add-snapshot", "snapshot": snapshot}));
    }
    updates.extend(set_main(next));
    json!({"requirements": [{"type": "assert-create"}], "updates": updates})
}

/// Adds layouts in the order of their ids, for catalogs that number them as they come.
fn add_all(updates: &mut Vec<Value>, layouts: &[Value], key: &str, add: &str, field: &str) {
    let mut sorted: Vec<&Value> = layouts.iter().collect();
    sorted.sort_by_key(|layout| layout_id(layout, key));
    updates.extend(sorted.into_iter().map(|layout| json!({"action": add, field: layout})));
}

/// The id, or -1 for the layout added last: which is how clients create tables.
fn last_or(layouts: &[Value], key: &str, id: i64) -> i64 {
    let last = layouts.iter().filter_map(|layout| layout_id(layout, key)).max();
    if last == Some(id) { -1 } else { id }
}

/// The commit that turns `base` into `next`; `None` when they do not differ.
pub(super) fn change(base: &Metadata, next: &Metadata) -> Option<Value> {
    let mut requirements = vec![
        json!({"type": "assert-table-uuid", "uuid": base.table_uuid}),
        json!({"type": "assert-ref-snapshot-id", "ref": MAIN, "snapshot-id": base.current_id()}),
    ];
    let mut updates = Vec::new();
    let new = |base: &[Value], next: &[Value], key: &str| -> Vec<Value> {
        let known = |layout: &&Value| !base.iter().any(|other| other.get(key) == layout.get(key));
        next.iter().filter(known).cloned().collect()
    };
    let schemas = new(&base.schemas, &next.schemas, "schema-id");
    if !schemas.is_empty() || base.current_schema_id != next.current_schema_id {
        requirements.push(json!({
            "type": "assert-current-schema-id", "current-schema-id": base.current_schema_id,
        }));
        requirements.push(json!({
            "type": "assert-last-assigned-field-id", "last-assigned-field-id": base.last_column_id,
        }));
        let last = next.last_column_id;
        updates.extend(
            schemas
                .into_iter()
                .map(|schema| json!({"action": "add-schema", "schema": schema, "last-column-id": last})),
        );
        updates.push(json!({"action": "set-current-schema", "schema-id": next.current_schema_id}));
    }
    let specs = new(&base.partition_specs, &next.partition_specs, "spec-id");
    if !specs.is_empty() || base.default_spec_id != next.default_spec_id {
        requirements.push(json!({
            "type": "assert-default-spec-id", "default-spec-id": base.default_spec_id,
        }));
        requirements.push(json!({
            "type": "assert-last-assigned-partition-id", "last-assigned-partition-id": base.last_partition_id,
        }));
        updates.extend(specs.into_iter().map(|spec| json!({"action": "add-spec", "spec": spec})));
        updates.push(json!({"action": "set-default-spec", "spec-id": next.default_spec_id}));
    }
    let orders = new(&base.sort_orders, &next.sort_orders, "order-id");
    if !orders.is_empty() || base.default_sort_order_id != next.default_sort_order_id {
        requirements.push(json!({
            "type": "assert-default-sort-order-id", "default-sort-order-id": base.default_sort_order_id,
        }));
        updates
            .extend(orders.into_iter().map(|order| json!({"action": "add-sort-order", "sort-order": order})));
        updates.push(json!({
            "action": "set-default-sort-order", "sort-order-id": next.default_sort_order_id,
        }));
    }
    snapshots(base, next, &mut updates);
    properties(base, next, &mut updates);
    (!updates.is_empty()).then(|| json!({"requirements": requirements, "updates": updates}))
}

/// New snapshots and old ones.
fn snapshots(base: &Metadata, next: &Metadata, updates: &mut Vec<Value>) {
    // Those made and dropped again by one draft were never seen; the others hang together by their parents.
    for snapshot in next.snapshots.iter().filter(|snapshot| !base.has_snapshot(snapshot.snapshot_id)) {
        updates.push(json!({"action": "add-snapshot", "snapshot": snapshot}));
    }
    if base.current_id() != next.current_id() {
        updates.extend(set_main(next));
    }
    let gone = base.snapshots.iter().filter(|snapshot| !next.has_snapshot(snapshot.snapshot_id));
    let gone: Vec<i64> = gone.map(|snapshot| snapshot.snapshot_id).collect();
    if !gone.is_empty() {
        updates.push(json!({"action": "remove-snapshots", "snapshot-ids": gone}));
    }
}

fn properties(base: &Metadata, next: &Metadata, updates: &mut Vec<Value>) {
    let set = next.properties.iter().filter(|(key, value)| base.properties.get(*key) != Some(value));
    let set: Map<String, Value> = set.map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if !set.is_empty() {
        updates.push(json!({"action": "set-properties", "updates": set}));
    }
    let gone: Vec<&String> =
        base.properties.keys().filter(|key| !next.properties.contains_key(*key)).collect();
    if !gone.is_empty() {
        updates.push(json!({"action": "remove-properties", "removals": gone}));
    }
}

/// Points `main` at the current snapshot; what else the branch says stays.
fn set_main(next: &Metadata) -> Option<Value> {
    let id = next.current_id()?;
    let mut update =
        json!({"action": "set-snapshot-ref", "ref-name": MAIN, "type": "branch", "snapshot-id": id});
    let kept = ["min-snapshots-to-keep", "max-snapshot-age-ms", "max-ref-age-ms"];
    for key in kept {
        if let Some(value) = next.main_ref().and_then(|main| main.get(key)).filter(|value| !value.is_null())
            && let Some(update) = update.as_object_mut()
        {
            update.insert(key.to_owned(), value.clone());
        }
    }
    Some(update)
}
