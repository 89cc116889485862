//! Every kind of plan, and that a plan once applied leaves nothing to do.

use proptest::prelude::*;
use siltstone_protocol::{Field, PrimitiveType as P, Type};

use super::*;
use crate::model::SchemaMode;

mod changes;

fn table(input: &str, layout: &str) -> TableSpec {
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:9092'], schema_registry: {{url: http://r}}}}]\n\
         destination_bucket_url: file:///lake\n\
         tables:\n  - {{name: t, source_cluster_name: c, source_topic: t, source_format: \
         json{input}{layout}}}\n"
    );
    match crate::parse(&text, "spec.yaml", &|_| None) {
        Ok(mut spec) => spec.tables.remove(0),
        Err(faults) => panic!("{faults}"),
    }
}

fn schema(fields: Vec<Field>) -> Schema {
    Schema::new(0, fields)
}

fn live(fields: Vec<Field>) -> LiveTable {
    let schema = schema(fields);
    LiveTable {
        partition_specs: vec![PartitionSpec::default()],
        history: SchemaHistory::of([&schema]),
        last_schema_id: 0,
        schema,
        partition_spec: PartitionSpec::default(),
        sort_order: SortOrder::default(),
        formats: vec![Format::Iceberg, Format::Delta],
        version: 7,
    }
}

/// The table after the plan.
fn applied(live: &LiveTable, plan: &TablePlan) -> LiveTable {
    let mut live = live.clone();
    if let TablePlan::Change { steps, .. } = plan {
        for step in steps {
            match step {
                Step::SetSchema { schema } => {
                    live.schema = schema.clone();
                    live.history = live.history.and(schema);
                    live.last_schema_id = schema.schema_id;
                }
                Step::SetPartitionSpec { partition_spec, .. } => {
                    live.partition_spec = partition_spec.clone();
                    live.partition_specs.push(partition_spec.clone());
                }
                Step::SetSortOrder { sort_order, .. } => live.sort_order = sort_order.clone(),
                Step::SetFormats { formats, .. } => live.formats = formats.clone(),
                _ => {}
            }
        }
    }
    live
}

#[test]
fn a_new_table_is_created() {
    let table = table("", ", partition_by: [day(ts)], sort_by: [id]");
    let wanted =
        schema(vec![Field::required(1, "id", P::Long.into()), Field::optional(2, "ts", P::Date.into())]);
    let made = plan(&table, None, Some(&wanted));
    assert_eq!(
        made.to_string(),
        "t: create, in iceberg and delta\n  + id long required\n  + ts date\n  partitioned by ts_day\n  \
         sorted by 1 column(s)"
    );
    let unknown = plan(&table, None, None);
    assert_eq!(
        unknown.to_string(),
        "t: create, in iceberg and delta\n  + columns as the first record's schema says"
    );
    assert_eq!(serde_json::to_value(&unknown).unwrap()["plan"], "create");
}

#[test]
fn a_schema_grows_and_keeps_its_ids() {
    let table = table("", ", formats: [iceberg], partition_by: ['bucket(4, id)'], sort_by: [price desc]");
    let mut live = live(vec![
        Field::required(1, "id", P::Int.into()),
        Field::optional(2, "price", P::Decimal { precision: 9, scale: 2 }.into()),
        Field::required(3, "old", P::String.into()),
        Field::optional(4, "wide", P::Long.into()),
        Field::optional(5, "in", Type::Struct(vec![Field::optional(6, "a", P::Float.into())])),
    ]);
    live.formats = vec![Format::Iceberg];
    let list = Type::List { element_id: 3, element_required: false, element: Box::new(P::String.into()) };
    let wanted = schema(vec![
        Field::required(1, "tags", list),
        Field::optional(2, "id", P::Long.into()),
        Field::required(4, "price", P::Decimal { precision: 12, scale: 2 }.into()),
        Field::optional(5, "wide", P::Int.into()),
        Field::optional(
            6,
            "in",
            Type::Struct(vec![
                Field::optional(7, "a", P::Double.into()),
                Field::optional(8, "b", P::Date.into()),
            ]),
        ),
    ]);
    let made = plan(&table, Some(&live), Some(&wanted));
    assert_eq!(
        made.to_string(),
        "t: change, from version 7\n  ~ column id: becomes optional\n  ~ column id: int becomes long\n  \
         ~ column price: decimal(9, 2) becomes decimal(12, 2)\n  ~ column old: becomes optional\n  \
         ~ column in.a: float becomes double\n  + column in.b date\n  + column tags list<string>\n  \
         ~ partitioned by bucket[4](id), for new files only\n  ~ sorted by price, for new files only"
    );
    let after = applied(&live, &made);
    assert_eq!(after.schema.schema_id, 1);
    assert_eq!(after.schema.column("tags").map(|field| (field.id, field.required)), Some((7, false)));
    assert_eq!((after.schema.column("id").unwrap().id, after.schema.last_field_id()), (1, 9));
    assert_eq!((after.partition_spec.spec_id, after.partition_spec.fields[0].field_id), (1, 1000));
    assert_eq!(after.sort_order.order_id, 1);
    assert_eq!(plan(&table, Some(&after), Some(&wanted)).to_string(), "t: nothing to do");
}

#[test]
fn what_a_registered_schema_does_is_told_and_refuses_nothing() {
    let live = live(vec![Field::optional(1, "old", P::Int.into()), Field::required(2, "b", P::Int.into())]);
    let mut field = Field::required(1, "old", P::String.into());
    let wanted = schema(vec![field.clone(), Field::required(2, "b", P::Int.into())]);
    let told = |more: &str, live: &LiveTable, wanted: &Schema| {
        let table = table("", more);
        let made = plan(&table, Some(live), Some(wanted));
        let after = applied(live, &made);
        assert!(plan(&table, Some(&after), Some(wanted)).to_string().starts_with("t: nothing to do"));
        made.to_string()
    };
    let misfit = "column old: records have string for a column of int";
    assert_eq!(
        told("", &live, &wanted),
        format!("t: nothing to do\n  ! records of the newest schema do not fit, they are rejected: {misfit}")
    );
    assert_eq!(
        told(", on_incompatible: stop", &live, &wanted),
        format!(
            "t: nothing to do\n  ! records of the newest schema do not fit, the table stops at their first: {misfit}"
        )
    );
    assert_eq!(
        told(", on_incompatible: new_column", &live, &wanted),
        "t: change, from version 7\n  + column old_string string\n  ! the new column old_string takes the values of old that are string: \
         column old cannot, and on_incompatible is new_column"
    );
    (field.name, field.aliases) = ("new".to_owned(), vec!["old".to_owned()]);
    let renamed = schema(vec![field.clone(), Field::required(2, "b", P::Int.into())]);
    assert_eq!(told("", &live, &renamed), "t: change, from version 7\n  + column new string");
    let iceberg = LiveTable { formats: vec![Format::Iceberg], ..live };
    field.data_type = P::Long.into();
    let wanted = schema(vec![field]);
    assert_eq!(
        told(", formats: [iceberg], sort_by: [old]", &iceberg, &wanted),
        "t: change, from version 7\n  ~ column old: renamed to new\n  ~ column new: int becomes long\n  \
         ~ column b: becomes optional\n  ~ sorted by old, for new files only"
    );
}

#[test]
fn what_would_lose_rows_is_refused() {
    let table = table(
        ", input_schema: {fields: [{name: id, type: int, required: true}, {name: title, type: string}, \
         {name: more, type: int, required: true}, {name: n, type: int}]}",
        ", formats: [delta], sort_by: [title]",
    );
    let live = live(vec![
        Field::optional(1, "id", P::Int.into()),
        Field::optional(2, "name", P::String.into()),
        Field::optional(3, "n", P::String.into()),
    ]);
    let SchemaMode::Inline(crate::InputSchema::Fields(wanted)) = &table.schema_mode else {
        panic!("not inline")
    };
    let made = plan(&table, Some(&live), Some(wanted));
    assert_eq!(
        made.to_string(),
        "t: refused\n  \
         ! column id becomes required: rows already written may be null there [column_change_refused]\n    \
         way out: write required: false\n  \
         ! column name is left out (perhaps renamed to title): nothing is dropped or renamed that the spec does \
         not name, since rows hold values there [column_change_refused]\n    \
         way out: name name in transforms.drop or transforms.rename, or keep it with required: false; it is null \
         in new rows\n  \
         ! column n of type string becomes int: files already written hold the old type, and only int \
         to long, float \
         to double and more digits of a decimal can be read as the new one [column_change_refused]\n    \
         way out: keep string, add the new type as another column, or write transforms.cast: {n: int}; then a new \
         column takes the name, which rows already written do not have\n  \
         ! the new column more is required: rows already written have no value there [column_change_refused]\n    \
         way out: write required: false\n  \
         ! formats no longer has iceberg: readers of the iceberg table would go on seeing it, without \
         new rows [format_removed]\n    \
         way out: keep iceberg in formats, or make a new table without it"
    );
    assert_eq!(serde_json::to_value(&made).unwrap()["reasons"].as_array().map(Vec::len), Some(5));
}

/// A list of structs with these members, and a map, neither with nulls where they are `required`.
fn collections(required: bool, members: Vec<Field>, key: P, value: P) -> Vec<Field> {
    let element = Box::new(Type::Struct(members));
    let list = Type::List { element_id: 0, element_required: required, element };
    let (key, value) = (Box::new(key.into()), Box::new(value.into()));
    let map = Type::Map { key_id: 0, key, value_id: 0, value_required: required, value };
    let mut fields = vec![Field::optional(0, "l", list), Field::optional(0, "m", map)];
    crate::evolve::assign_ids(&mut fields, &mut 0);
    fields
}

/// What the plan would do, of a schema in the spec or of a registered one.
fn of_collections(input: &str, wanted: Vec<Field>) -> TablePlan {
    let table = table(input, ", formats: [iceberg]");
    let before = collections(true, vec![Field::optional(0, "a", P::Int.into())], P::String, P::Int);
    let live = LiveTable { formats: vec![Format::Iceberg], ..live(before) };
    plan(&table, Some(&live), Some(&schema(wanted)))
}

const INLINE: &str = ", input_schema: {fields: [{name: id, type: int}]}";

#[test]
fn steps_are_told_in_lists_and_maps_as_everywhere() {
    let members = || vec![Field::optional(0, "a", P::Long.into()), Field::optional(0, "b", P::Date.into())];
    for input in ["", INLINE] {
        let made = of_collections(input, collections(false, members(), P::String, P::Long));
        assert_eq!(
            made.to_string(),
            "t: change, from version 7\n  ~ column l[]: becomes optional\n  ~ column l[].a: int becomes long\n  \
             + column l[].b date\n  ~ column m{}: becomes optional\n  ~ column m{}: int becomes long"
        );
    }
}

#[test]
fn ways_out_name_nothing_in_lists_and_maps() {
    let members = vec![Field::optional(0, "b", P::Date.into())];
    let made = of_collections(INLINE, collections(true, members, P::Int, P::Date));
    let TablePlan::Refused { reasons, .. } = &made else { panic!("{made}") };
    let told: Vec<_> = reasons.iter().map(|reason| (reason.what.as_str(), reason.way_out.as_str())).collect();
    assert_eq!(
        told,
        [
            ("column l[].a is left out", "keep it with required: false; it is null in new rows"),
            (
                "column m (key) of type string becomes int",
                "keep string, or add the new type as another column"
            ),
            ("column m{} of type int becomes date", "keep int, or add the new type as another column")
        ]
    );
    // Nor a cast to what no cast makes.
    let element = Box::new(P::String.into());
    let list = Type::List { element_id: 2, element_required: false, element };
    let inner = Type::Struct(vec![Field::optional(2, "a", P::Int.into())]);
    for (wanted, what) in [
        (list, "column n of type string becomes list<string>"),
        (inner, "column n of type string becomes struct<a int>"),
    ] {
        let live = live(vec![Field::optional(1, "n", P::String.into())]);
        let wanted = schema(vec![Field::optional(1, "n", wanted)]);
        let made = plan(&table(INLINE, ""), Some(&live), Some(&wanted));
        let TablePlan::Refused { reasons, .. } = &made else { panic!("{made}") };
        let told: Vec<_> =
            reasons.iter().map(|reason| (reason.what.as_str(), reason.way_out.as_str())).collect();
        assert_eq!(told, [(what, "keep string, or add the new type as another column")]);
    }
}

#[test]
fn the_metadata_column_is_not_spoken_of() {
    let table = table("", ", kafka_metadata: true");
    let kafka = Type::Struct(vec![Field::required(3, "offset", P::Long.into())]);
    let live = live(vec![Field::optional(1, "a", P::Int.into()), Field::required(2, "_kafka", kafka)]);
    let wanted = schema(vec![Field::optional(1, "a", P::Int.into())]);
    assert_eq!(
        plan(&table, Some(&live), Some(&wanted)),
        TablePlan::NothingToDo { table: "t".to_owned(), notices: Vec::new() }
    );
}

#[test]
fn a_column_that_is_gone_cannot_partition() {
    let table = table("", ", partition_by: [hour(day)]");
    let live = live(vec![Field::optional(1, "day", P::Date.into())]);
    let made = plan(&table, Some(&live), None);
    assert!(made.is_refused() && made.to_string().contains("hour on day of type date"), "{made}");
}

fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::from(P::Int)),
        Just(P::Long.into()),
        Just(P::Float.into()),
        Just(P::Double.into()),
        Just(P::String.into()),
        (1u8..20).prop_map(|precision| P::Decimal { precision, scale: 1 }.into()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let member = ("[a-c]", any::<bool>(), inner.clone());
        prop_oneof![
            proptest::collection::vec(member, 1..3).prop_map(|members| Type::Struct(named(members))),
            (any::<bool>(), inner.clone()).prop_map(|(element_required, element)| Type::List {
                element_id: 0,
                element_required,
                element: Box::new(element)
            }),
            inner.prop_map(|value| Type::Map {
                key_id: 0,
                key: Box::new(P::String.into()),
                value_id: 0,
                value_required: false,
                value: Box::new(value)
            }),
        ]
    })
}

fn named(members: Vec<(String, bool, Type)>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (name, required, data_type) in members {
        if !fields.iter().any(|field| field.name == name) {
            fields.push(Field::new(0, name, required, data_type));
        }
    }
    fields
}

fn any_schema() -> impl Strategy<Value = Schema> {
    let member = ("[a-e]", any::<bool>(), any_type());
    proptest::collection::vec(member, 1..5).prop_map(|members| schema(named(members)))
}

proptest! {
    #[test]
    fn a_plan_is_a_fixed_point(first in any_schema(), second in any_schema()) {
        let table = table("", "");
        // Ids of the first: as the table would have given them.
        let empty = live(Vec::new());
        let start = applied(&empty, &plan(&table, Some(&empty), Some(&first)));
        let made = plan(&table, Some(&start), Some(&second));
        if !made.is_refused() {
            let after = applied(&start, &made);
            let again = plan(&table, Some(&after), Some(&second));
            prop_assert!(matches!(again, TablePlan::NothingToDo { .. }), "{}", again);
            let mut ids = Vec::new();
            after.schema.visit(&mut |id| ids.push(id));
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), count);
        }
    }
}
