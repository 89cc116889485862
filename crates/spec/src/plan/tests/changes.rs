//! Columns that the spec drops, renames and retypes on a live table.

use siltstone_protocol::{NullOrder, PartitionField, SortDirection, SortField, Transform};

use super::*;
use crate::transform::outcome;

const FIELDS: &str = ", input_schema: {fields: [{name: id, type: long, required: true}, {name: cust, type: string}, \
                      {name: amount, type: int}, {name: note, type: string}, {name: who, type: {struct: \
                      [{name: name, type: string}, {name: nick, type: string}]}}]}";

/// A table over `FIELDS`.
fn spec(more: &str) -> TableSpec {
    table(FIELDS, more)
}

fn source(table: &TableSpec) -> Schema {
    let SchemaMode::Inline(crate::InputSchema::Fields(schema)) = &table.schema_mode else {
        panic!("not inline")
    };
    schema.clone()
}

/// The table's schema by its spec.
fn wanted(table: &TableSpec) -> Schema {
    outcome(table, &source(table)).unwrap().schema()
}

fn before() -> LiveTable {
    live(source(&spec("")).fields)
}

fn planned(table: &TableSpec, live: &LiveTable) -> TablePlan {
    plan(table, Some(live), Some(&wanted(table)))
}

/// The table after the plan, at which there is nothing left to do.
fn done(table: &TableSpec, live: &LiveTable) -> LiveTable {
    let made = planned(table, live);
    assert!(!made.is_refused(), "{made}");
    let after = applied(live, &made);
    assert_eq!(planned(table, &after).to_string(), "t: nothing to do");
    assert_eq!(pending(table, &after.schema), None);
    after
}

fn ids(live: &LiveTable) -> Vec<(String, i32)> {
    live.schema.fields.iter().map(|field| (field.name.clone(), field.id)).collect()
}

fn named(ids: &[(&str, i32)]) -> Vec<(String, i32)> {
    ids.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
}

#[test]
fn what_the_spec_names_leaves_and_changes() {
    let table = spec(
        ", transforms: {rename: {cust: customer, who.name: full}, drop: [note, who.nick], cast: {amount: string}}, \
         sort_by: [customer]",
    );
    let made = planned(&table, &before());
    assert_eq!(
        made.to_string(),
        "t: change, from version 7\n  ~ column cust: renamed to customer\n  - column amount: int becomes string, rows \
         already written read null there\n  - column note: dropped, rows already written no longer show it\n  ~ column \
         who.name: renamed to full\n  - column who.nick: dropped, rows already written no longer show it\n  \
         ~ sorted by customer, for new files only\n  ~ delta: column mapping, from now on readers that do not know it \
         refuse the Delta table"
    );
    let json = serde_json::to_value(&made).unwrap();
    assert_eq!(
        json["steps"][0],
        serde_json::json!({"step": "rename_column", "column": "cust", "name": "customer"})
    );
    let after = done(&table, &before());
    assert_eq!(ids(&after), named(&[("id", 1), ("customer", 2), ("amount", 8), ("who", 5)]));
    assert_eq!(after.schema.field_at("who.full").map(|field| field.id), Some(6));
    assert_eq!(after.schema.column("customer").unwrap().aliases, ["cust"]);
    assert!(!after.schema.column("amount").unwrap().required);

    let refused = planned(&table, &before()).without_loss();
    assert!(refused.is_refused());
    let text = refused.to_string();
    assert_eq!(text.matches("apply --allow-data-loss").count(), 3, "{text}");
    let rename = spec(", transforms: {rename: {cust: customer}}");
    assert!(!planned(&rename, &before()).without_loss().is_refused());
}

#[test]
fn a_delta_table_that_comes_to_renamed_columns_maps_them() {
    let rename = ", transforms: {rename: {cust: customer}}";
    let mut iceberg = before();
    iceberg.formats = vec![Format::Iceberg];
    let iceberg = done(&spec(&format!("{rename}, formats: [iceberg]")), &iceberg);
    let begins =
        |live: &LiveTable| planned(&spec(rename), live).to_string().contains("delta: column mapping");
    assert!(begins(&iceberg));
    let delta = done(&spec(rename), &iceberg);
    assert!(!begins(&delta));
    let mut plain = before();
    plain.formats = vec![Format::Iceberg];
    assert!(!planned(&spec(""), &plain).to_string().contains("delta: column mapping"));
}

#[test]
fn what_is_only_left_out_is_refused_with_the_way_out() {
    let table = table(
        ", input_schema: {fields: [{name: id, type: long, required: true}, {name: cust, type: string}, {name: amount, \
         type: string}, {name: who, type: {struct: [{name: name, type: string}, {name: nick, type: string}]}}]}",
        "",
    );
    let made = planned(&table, &before()).to_string();
    assert!(
        made.contains("! column note is left out") && made.contains("name note in transforms.drop"),
        "{made}"
    );
    assert!(made.contains("write transforms.cast: {amount: string}"), "{made}");
}

#[test]
fn a_column_that_comes_back_is_another_one() {
    let dropped = done(&spec(", transforms: {drop: [note]}"), &before());
    assert_eq!(ids(&dropped), named(&[("id", 1), ("cust", 2), ("amount", 3), ("who", 5)]));
    let back = done(&spec(""), &dropped);
    assert_eq!(back.schema.column("note").map(|field| field.id), Some(8));
    assert_eq!(back.history.name_in_files(back.schema.column("note").unwrap()), "note_8");
    // The largest id was dropped: it is not used again.
    let tail = done(&spec(", transforms: {drop: [who]}"), &before());
    let again = done(&spec(", transforms: {drop: [note]}"), &done(&spec(""), &tail));
    assert_eq!(again.schema.column("who").map(|field| field.id), Some(8));
}

#[test]
fn names_may_be_swapped_and_taken_over() {
    let swapped = done(&spec(", transforms: {rename: {cust: note, note: cust}}"), &before());
    assert_eq!(ids(&swapped), named(&[("id", 1), ("note", 2), ("amount", 3), ("cust", 4), ("who", 5)]));
    assert_eq!(swapped.history.name_in_files(swapped.schema.column("note").unwrap()), "cust");
    let taken = done(&spec(", transforms: {drop: [note], rename: {cust: note}}"), &before());
    assert_eq!(ids(&taken), named(&[("id", 1), ("note", 2), ("amount", 3), ("who", 5)]));
    // Another name for what was renamed, and its old one again.
    let once = done(&spec(", transforms: {rename: {cust: customer}}"), &before());
    let twice = done(&spec(", transforms: {rename: {cust: buyer}}"), &once);
    assert_eq!((ids(&twice)[1].clone(), twice.schema.fields[1].aliases.len()), (("buyer".to_owned(), 2), 2));
    assert_eq!(ids(&done(&spec(", transforms: {rename: {cust: cust}}"), &twice)), ids(&before()));
}

#[test]
fn partition_columns_and_those_named_elsewhere_stay() {
    let mut live = before();
    let field =
        PartitionField { source_id: 4, field_id: 1000, name: "note".into(), transform: Transform::Identity };
    live.partition_specs.push(PartitionSpec { spec_id: 1, fields: vec![field] });
    let made = planned(&spec(", transforms: {drop: [note], cast: {amount: string}}"), &live).to_string();
    assert!(made.contains("! column note is dropped: files of the table are partitioned by it"), "{made}");
    assert!(planned(&spec(", transforms: {rename: {note: remark}}"), &live).to_string().contains("renamed"));
    for (setting, more) in [
        ("files.bloom_filters", "files: {bloom_filters: [cust]}"),
        ("disclose.bounds", "disclose: {bounds: [cust]}"),
    ] {
        let mut table = spec(&format!(", {more}"));
        table.transforms.rename.insert("cust".into(), "customer".into());
        let made = planned(&table, &live).to_string();
        assert!(made.contains(&format!("column cust is named in {setting}")), "{made}");
    }
}

#[test]
fn the_order_is_of_columns_that_are_there_after_every_step() {
    let by = |source_id| SortField {
        transform: Transform::Identity,
        source_id,
        direction: SortDirection::Asc,
        null_order: NullOrder::NullsFirst,
    };
    let mut live = before();
    live.sort_order = SortOrder { order_id: 1, fields: vec![by(3), by(1)] };
    for more in [
        ", transforms: {cast: {amount: string}}, sort_by: [amount, id]",
        ", transforms: {drop: [amount]}, sort_by: [id]",
        ", transforms: {drop: [amount]}",
    ] {
        let made = planned(&spec(more), &live);
        let TablePlan::Change { steps, .. } = &made else { panic!("{made}") };
        let (mut schema, mut order) = (live.schema.clone(), live.sort_order.clone());
        for step in steps {
            match step {
                Step::SetSchema { schema: next } => schema = next.clone(),
                Step::SetSortOrder { sort_order, .. } => order = sort_order.clone(),
                _ => continue,
            }
            let is_there = |field: &SortField| schema.path_of(field.source_id).is_some();
            assert!(order.fields.iter().all(is_there), "{more}: {made}");
        }
    }
}

#[test]
fn a_worker_waits_for_renames_and_other_types_alone() {
    let live = before().schema;
    let waits = |more: &str| pending(&spec(more), &live);
    assert_eq!(waits(", transforms: {drop: [note, who.nick]}"), None);
    assert_eq!(
        waits(", transforms: {rename: {who.name: full}}").as_deref(),
        Some("column who.name is to be renamed to full")
    );
    assert_eq!(
        waits(", transforms: {cast: {amount: string}}").as_deref(),
        Some("column amount of type int is to be string")
    );
    assert_eq!(waits(", transforms: {cast: {amount: long}}, formats: [iceberg]"), None);
    assert_eq!(waits(", protect: {note: drop}"), None);
}

/// A table over a registry, which no longer has the column, or has no schema at all.
#[test]
fn what_the_spec_says_of_a_column_needs_no_source() {
    let fewer = schema(vec![Field::required(1, "id", P::Long.into())]);
    for (transforms, step) in [
        ("cast: {amount: string, who.name: long}", "  - column who.name: string becomes long"),
        ("rename: {cust: customer}", "  ~ column cust: renamed to customer"),
        ("drop: [note]", "  - column note: dropped"),
    ] {
        let table = table("", &format!(", transforms: {{{transforms}}}"));
        for wanted in [None, Some(&fewer)] {
            let made = plan(&table, Some(&before()), wanted);
            assert!(made.to_string().contains(step), "{made}");
            let after = applied(&before(), &made);
            assert_eq!(pending(&table, &after.schema), None);
            assert_eq!(plan(&table, Some(&after), wanted).to_string(), "t: nothing to do");
        }
    }
    // A constant that took the place of what is dropped is no field of the source.
    let constant = spec(", transforms: {drop: [note], constant: {note: {type: string, value: kept}}}");
    assert_eq!(plan(&constant, Some(&done(&constant, &before())), None).to_string(), "t: nothing to do");
}

#[test]
fn a_wider_type_that_delta_has_no_form_for_is_refused() {
    let table = table("", ", transforms: {cast: {amount: long}}");
    let mut wide = before().schema;
    wide.fields[2].data_type = P::Long.into();
    for wanted in [None, Some(&wide)] {
        let made = plan(&table, Some(&before()), wanted);
        let told = made.to_string();
        assert!(
            made.is_refused() && told.contains("! delta and column amount: it goes from int to long"),
            "{told}"
        );
    }
    let waits = pending(&table, &before().schema);
    assert_eq!(waits.as_deref(), Some("column amount of type int is to be long"));
}

#[test]
fn variants_leave_with_their_column() {
    let mut live = before();
    let mut variant = Field::optional(8, "amount_string", P::String.into());
    variant.variant_of = Some(3);
    live.schema.fields.push(variant);
    live.history = SchemaHistory::of([&live.schema]);
    let table = table("", ", transforms: {drop: [amount]}");
    let made = plan(&table, Some(&live), None);
    for column in ["amount", "amount_string"] {
        assert!(made.to_string().contains(&format!("  - column {column}: dropped")), "{made}");
    }
    let after = applied(&live, &made);
    assert_eq!(ids(&after), named(&[("id", 1), ("cust", 2), ("note", 4), ("who", 5)]));
    let field = PartitionField {
        source_id: 8,
        field_id: 1000,
        name: "amount_string".into(),
        transform: Transform::Identity,
    };
    live.partition_specs.push(PartitionSpec { spec_id: 1, fields: vec![field] });
    let made = plan(&table, Some(&live), None).to_string();
    assert!(
        made.contains("! column amount_string is dropped: files of the table are partitioned by it"),
        "{made}"
    );
}

#[test]
fn nothing_that_was_given_up_comes_back_by_itself() {
    let old = source(&spec(""));
    let find = |table: &LiveTable, incoming: &Schema| {
        given_up(&table.history, &table.schema, incoming).map(|(column, how)| format!("{column} {how}"))
    };
    assert_eq!(find(&before(), &old), None);
    let dropped = done(&spec(", transforms: {drop: [note]}"), &before());
    assert_eq!(find(&dropped, &old).as_deref(), Some("note dropped or renamed"));
    let renamed = done(&spec(", transforms: {rename: {cust: customer}}"), &before());
    assert_eq!(find(&renamed, &old), None, "its values go to the column under its new name");
    let retyped = done(&spec(", transforms: {cast: {amount: string}}"), &before());
    assert_eq!(find(&retyped, &old).as_deref(), Some("amount retyped"));
    assert_eq!(find(&retyped, &wanted(&spec(", transforms: {cast: {amount: string}}"))), None);
    let inside = done(&spec(", transforms: {drop: [who.nick]}"), &before());
    assert_eq!(find(&inside, &old).as_deref(), Some("who.nick dropped or renamed"));
    // A column of a new name is nobody's.
    let mut grown = old.clone();
    grown.fields.push(Field::optional(90, "new", P::Int.into()));
    assert_eq!(find(&before(), &grown), None);
}

proptest! {
    #[test]
    fn any_transforms_are_a_fixed_point_and_ids_are_never_used_again(
        first in any_schema(),
        rename in proptest::collection::btree_map("[a-e]", "[a-h]", 0..3),
        drop in proptest::collection::btree_set("[a-e]", 0..3),
    ) {
        let mut spec = table("", "");
        let empty = live(Vec::new());
        let start = applied(&empty, &plan(&spec, Some(&empty), Some(&first)));
        prop_assume!(!rename.keys().any(|from| drop.contains(from)));
        // A column that bears the new name of a rename is taken for renamed, unless that of the old name is there.
        prop_assume!(rename.iter().all(|(from, to)| first.column(to).is_none() || first.column(from).is_some()));
        spec.transforms.rename = rename;
        spec.transforms.drop = drop.into_iter().collect();
        let Ok(outcome) = outcome(&spec, &first) else { return Ok(()) };
        let wanted = outcome.schema();
        let made = plan(&spec, Some(&start), Some(&wanted));
        if !made.is_refused() {
            let after = applied(&start, &made);
            let again = plan(&spec, Some(&after), Some(&wanted));
            prop_assert!(matches!(again, TablePlan::NothingToDo { .. }), "{}", again);
            prop_assert_eq!(pending(&spec, &after.schema), None);
            let unknown = plan(&spec, Some(&after), None);
            prop_assert!(matches!(unknown, TablePlan::NothingToDo { .. }), "{}", unknown);
            prop_assert_eq!(given_up(&after.history, &after.schema, &wanted), None);
            for field in &after.schema.fields {
                let known = start.schema.fields.iter().find(|known| known.id == field.id);
                prop_assert!(known.is_some() || field.id > start.history.last_field_id());
            }
            // What columns are called in files never changes.
            for field in &start.schema.fields {
                prop_assert_eq!(after.history.name_in_files(field), start.history.name_in_files(field));
            }
        }
    }
}
