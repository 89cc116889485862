use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn primitive() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![
        PrimitiveType::Boolean,
        PrimitiveType::Int,
        PrimitiveType::Long,
        PrimitiveType::Float,
        PrimitiveType::Double,
        PrimitiveType::Decimal { precision: 9, scale: 2 },
        PrimitiveType::Decimal { precision: 12, scale: 1 },
        PrimitiveType::Decimal { precision: 38, scale: 2 },
        PrimitiveType::Date,
        PrimitiveType::Timestamptz,
        PrimitiveType::String,
        PrimitiveType::Binary,
        PrimitiveType::Fixed(4),
        PrimitiveType::Uuid,
    ])
    .prop_map(Type::Primitive)
}

fn fields(inner: impl Strategy<Value = Type>) -> impl Strategy<Value = Vec<Field>> {
    let aliases = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec("[a-f]", 1..3)];
    let number = prop_oneof![3 => Just(None), 1 => (1u32..6).prop_map(Some)];
    let member = (inner, any::<bool>(), aliases, number);
    prop::collection::btree_map("[a-d]|a_string", member, 1..5).prop_map(|members| {
        let mut numbers = BTreeSet::new();
        let field = |(name, (data_type, required, aliases, number)): (
            String,
            (Type, bool, Vec<String>, Option<u32>),
        )| {
            let number = number.filter(|number| numbers.insert(*number));
            Field { aliases, number, ..Field::new(0, name, required, data_type) }
        };
        members.into_iter().map(field).collect()
    })
}

fn any_type() -> impl Strategy<Value = Type> {
    primitive().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            fields(inner.clone()).prop_map(Type::Struct),
            (inner.clone(), any::<bool>()).prop_map(|(element, element_required)| Type::List {
                element_id: 0,
                element_required,
                element: Box::new(element),
            }),
            (inner, any::<bool>()).prop_map(|(value, value_required)| Type::Map {
                key_id: 0,
                key: Box::new(PrimitiveType::String.into()),
                value_id: 0,
                value_required,
                value: Box::new(value),
            }),
        ]
    })
}

fn schema() -> impl Strategy<Value = Schema> {
    fields(any_type()).prop_map(|mut fields| {
        assign_ids(&mut fields, &mut 0);
        Schema::new(3, fields)
    })
}

fn ids(schema: &Schema) -> Vec<i32> {
    let mut ids = Vec::new();
    schema.visit(&mut |id| ids.push(id));
    ids
}

fn rules() -> impl Strategy<Value = Rules> {
    any::<(bool, bool, bool)>().prop_map(|(renames, widens, variants)| Rules {
        renames,
        widens,
        grows_in_maps: widens,
        variants,
        last_field_id: 0,
    })
}

const ICEBERG: Rules =
    Rules { renames: true, widens: true, grows_in_maps: true, variants: false, last_field_id: 0 };
const DELTA: Rules = Rules { renames: false, widens: false, grows_in_maps: false, ..ICEBERG };

/// Every field by its id, without what is inside it.
fn by_id<'f>(fields: &'f [Field], into: &mut BTreeMap<i32, (&'f Field, String)>) {
    for field in fields {
        into.insert(field.id, (field, kind_of(&field.data_type)));
        inside(&field.data_type, into);
    }
}

fn inside<'f>(data_type: &'f Type, into: &mut BTreeMap<i32, (&'f Field, String)>) {
    match data_type {
        Type::Primitive(_) => {}
        Type::Struct(members) => by_id(members, into),
        Type::List { element, .. } => inside(element, into),
        Type::Map { value, .. } => inside(value, into),
    }
}

fn same(table: &Schema, incoming: &Schema, rules: Rules) -> bool {
    matches!(merge(table, incoming, rules), Merge::Same { .. })
}

/// The table after these schemas came again and again, and how often it changed.
fn settle(mut table: Schema, incoming: &[&Schema], rules: Rules) -> (Schema, usize) {
    let mut changes = 0;
    while let Some(changed) = incoming.iter().find_map(|schema| match merge(&table, schema, rules) {
        Merge::Evolves(changed) => Some(changed),
        _ => None,
    }) {
        table = changed;
        changes += 1;
        assert!(changes < 500, "it does not settle: {table:?}");
    }
    (table, changes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_schema_is_the_same_as_itself(schema in schema(), rules in rules()) {
        prop_assert_eq!(merge(&schema, &schema, rules), Merge::Same { view: schema });
    }

    /// The result takes the records, keeps every id and type where it was, and gives new fields new ids.
    #[test]
    fn what_a_table_becomes_takes_them(table in schema(), incoming in schema(), rules in rules()) {
        let Merge::Evolves(evolved) = merge(&table, &incoming, rules) else { return Ok(()) };
        prop_assert!(same(&evolved, &incoming, rules), "{:?}", merge(&evolved, &incoming, rules));
        prop_assert_eq!(evolved.schema_id, 4);
        let (before, after) = (ids(&table), ids(&evolved));
        prop_assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), after.len(), "ids are unique");
        let new: Vec<_> = after.iter().filter(|id| !before.contains(id)).collect();
        prop_assert!(new.iter().all(|id| **id > table.last_field_id()));
        let (mut old, mut now) = (BTreeMap::new(), BTreeMap::new());
        by_id(&table.fields, &mut old);
        by_id(&evolved.fields, &mut now);
        let mut called = BTreeMap::new();
        by_id(&incoming.fields, &mut called);
        let incoming_names: BTreeSet<_> = called.values().map(|(field, _)| &field.name).collect();
        for (id, (field, kind)) in &old {
            let (kept, now_kind) = &now[id];
            let is_another_one = incoming_names.contains(&field.name);
            prop_assert!(kept.is_called(&field.name) || is_another_one, "nothing is dropped, and old names lead to it");
            prop_assert!(kept.name == field.name || rules.renames);
            prop_assert!(now_kind == kind || rules.widens);
            prop_assert!(field.required || !kept.required);
        }
        prop_assert!(now.iter().all(|(id, (field, _))| old.contains_key(id) || field.variant_of.is_none()
            || (rules.variants && !field.required)));
        for added in &evolved.fields[table.fields.len()..] {
            prop_assert!(!added.required);
        }
    }

    /// Names of columns stay apart, and a view has one for each column.
    #[test]
    fn names_stay_apart(table in schema(), incoming in schema(), rules in rules()) {
        let (settled, _) = settle(table, &[&incoming], rules);
        let names: BTreeSet<_> = settled.fields.iter().map(|field| &field.name).collect();
        prop_assert_eq!(names.len(), settled.fields.len());
        if let Merge::Same { view } = merge(&settled, &incoming, rules) {
            let names: BTreeSet<_> = view.fields.iter().map(|field| &field.name).collect();
            prop_assert_eq!(names.len(), settled.fields.len());
            for (seen, column) in view.fields.iter().zip(&settled.fields) {
                prop_assert_eq!((seen.id, seen.required), (column.id, column.required));
            }
            prop_assert!(incoming.fields.iter().all(|field| view.column(&field.name).is_some()));
        }
    }

    /// Workers that meet the schemas in any order come to tables that take all that do not clash, and stay there.
    #[test]
    fn schemas_in_any_order_settle(
        table in schema(),
        incoming in prop::collection::vec(schema(), 1..5),
        rules in rules(),
    ) {
        let forth: Vec<_> = incoming.iter().collect();
        let back: Vec<_> = incoming.iter().rev().collect();
        for order in [forth, back] {
            let (settled, _) = settle(table.clone(), &order, rules);
            for schema in order {
                let taken = same(&settled, schema, rules);
                prop_assert!(taken || !rules.variants, "with variants nothing is refused");
            }
        }
    }

    /// A refusal names where.
    #[test]
    fn a_refusal_names_a_column(table in schema(), incoming in schema()) {
        for rules in [ICEBERG, DELTA] {
            if let Merge::Refused(mismatch) = merge(&table, &incoming, rules) {
                let first = mismatch.field.split(['.', '[', '{', ' ']).next().unwrap_or_default();
                prop_assert!(table.column(first).is_some(), "{mismatch}");
            }
        }
    }
}

/// A level that was merged twice would make this take for ever.
#[test]
fn deep_schemas_are_followed_at_once() {
    let deep = |leaf: PrimitiveType| {
        let wrap = |data_type, _| Type::Struct(vec![Field::optional(0, "in", data_type)]);
        let mut fields = vec![Field::optional(0, "in", (0..60).fold(leaf.into(), wrap))];
        assign_ids(&mut fields, &mut 0);
        Schema::new(0, fields)
    };
    assert!(same(&deep(PrimitiveType::Long), &deep(PrimitiveType::Int), ICEBERG));
    assert!(matches!(
        merge(&deep(PrimitiveType::Int), &deep(PrimitiveType::Long), ICEBERG),
        Merge::Evolves(_)
    ));
}

fn one(data_type: &str, required: bool) -> Schema {
    let data_type: PrimitiveType = data_type.parse().unwrap();
    Schema::new(0, vec![Field::new(1, "f", required, data_type.into())])
}

#[test]
fn leaves_follow_or_not() {
    let cases = [
        ("int", "long", Some("long")),
        ("float", "double", Some("double")),
        ("decimal(9, 2)", "decimal(12, 2)", Some("decimal(12, 2)")),
        ("decimal(9, 2)", "decimal(9, 1)", Some("decimal(10, 2)")),
        ("decimal(9, 2)", "decimal(5, 2)", Some("decimal(9, 2)")),
        ("decimal(9, 2)", "decimal(9, 3)", None),
        ("decimal(38, 2)", "decimal(38, 1)", None),
        ("long", "int", Some("long")),
        ("double", "long", Some("double")),
        ("double", "int", Some("double")),
        ("binary", "string", Some("binary")),
        ("string", "binary", Some("string")),
        ("int", "double", None),
        ("date", "timestamp", None),
        ("long", "timestamptz", None),
        ("timestamptz", "timestamp", None),
        ("timestamptz", "long", None),
        ("string", "uuid", None),
        ("fixed[3]", "fixed[4]", None),
        ("int", "string", None),
    ];
    for (table, incoming, expected) in cases {
        let outcome = merge(&one(table, true), &one(incoming, true), ICEBERG);
        let widens = expected.is_some_and(|expected| expected != table);
        match (outcome, expected) {
            (Merge::Same { .. }, Some(expected)) => assert_eq!(table, expected),
            (Merge::Evolves(schema), Some(expected)) => {
                assert_eq!(schema.fields[0].data_type, one(expected, true).fields[0].data_type);
            }
            (Merge::Refused(mismatch), None) => {
                assert_eq!(mismatch.to_string(), format!("records have {incoming} for a column of {table}"));
                assert_eq!(mismatch.field, "f");
            }
            (outcome, _) => panic!("{outcome:?}"),
        }
        // Delta takes what fits as it is; all else has a column of its own once the spec says so.
        let fits = expected.is_some() && !widens;
        let outcome = merge(&one(table, true), &one(incoming, true), DELTA);
        assert_eq!(matches!(outcome, Merge::Same { .. }), fits, "{table} {incoming}");
        assert_eq!(matches!(outcome, Merge::Refused(Mismatch { hindrance: Some(_), .. })), widens);
        let outcome = merge(&one(table, true), &one(incoming, true), Rules { variants: true, ..DELTA });
        let Merge::Evolves(schema) = outcome else {
            assert!(fits, "{table} {incoming}");
            continue;
        };
        let kind = incoming.split(['(', '[']).next().unwrap();
        let mut column =
            Field::optional(2, format!("f_{kind}"), incoming.parse::<PrimitiveType>().unwrap().into());
        column.variant_of = Some(1);
        assert_eq!(schema.fields, [one(table, false).fields.remove(0), column]);
    }
}

#[test]
fn required_becomes_optional_and_never_back() {
    assert_eq!(
        merge(&one("int", true), &one("int", false), DELTA),
        Merge::Evolves(Schema::new(1, one("int", false).fields))
    );
    assert!(same(&one("int", false), &one("int", true), DELTA));
    let without = Schema::new(0, vec![Field::required(1, "g", PrimitiveType::Int.into())]);
    let Merge::Evolves(evolved) = merge(&one("int", true), &without, DELTA) else { panic!("evolves") };
    let expected = vec![
        Field::optional(1, "f", PrimitiveType::Int.into()),
        Field::optional(2, "g", PrimitiveType::Int.into()),
    ];
    assert_eq!(evolved.fields, expected);
}

fn evolved(table: &Schema, incoming: &Schema, rules: Rules) -> Schema {
    match merge(table, incoming, rules) {
        Merge::Evolves(schema) => schema,
        other => panic!("{other:?}"),
    }
}

/// The names by which records see the columns.
fn seen(table: &Schema, incoming: &Schema, rules: Rules) -> Vec<String> {
    match merge(table, incoming, rules) {
        Merge::Same { view } => view.fields.into_iter().map(|field| field.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn called(name: &str, aliases: &[&str]) -> Field {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    Field { aliases, ..Field::required(1, name, PrimitiveType::Int.into()) }
}

fn of(fields: impl IntoIterator<Item = Field>) -> Schema {
    let mut fields: Vec<_> = fields.into_iter().collect();
    assign_ids(&mut fields, &mut 0);
    Schema::new(0, fields)
}

#[test]
fn a_refusal_tells_where_in_lists_and_maps() {
    let table = |key: PrimitiveType, value: PrimitiveType| {
        let map = Type::Map {
            key_id: 0,
            key: Box::new(key.into()),
            value_id: 0,
            value_required: false,
            value: Box::new(value.into()),
        };
        let list = Type::List { element_id: 0, element_required: false, element: Box::new(map) };
        of([Field::optional(0, "l", list)])
    };
    let (text, number) = (PrimitiveType::String, PrimitiveType::Int);
    let live = table(text, number);
    for (incoming, expected) in [(table(number, number), "l[] (key)"), (table(text, text), "l[]{}")] {
        let Merge::Refused(mismatch) = merge(&live, &incoming, ICEBERG) else { panic!("it fits {expected}") };
        assert_eq!(mismatch.field, expected);
    }
}

#[test]
fn an_alias_renames_and_the_old_name_still_leads_there() {
    let (old, new) = (of([called("old", &[])]), of([called("new", &["old"])]));
    let renamed = evolved(&old, &new, ICEBERG);
    assert_eq!(renamed.fields, new.fields);
    assert_eq!(seen(&renamed, &old, ICEBERG), ["old"]);
    assert_eq!(seen(&renamed, &of([called("new", &[])]), ICEBERG), ["new"]);
    // A third name, whose schema knows only the first.
    let third = of([called("third", &["old"])]);
    let again = evolved(&renamed, &third, ICEBERG);
    assert_eq!(again.fields, [called("third", &["old", "new"])]);
    for schema in [&old, &new, &third] {
        assert!(same(&again, schema, ICEBERG));
    }
    // The newer schema first: no column comes of the old name.
    assert_eq!(seen(&new, &old, ICEBERG), ["old"]);
}

#[test]
fn where_a_format_shows_no_other_name_the_new_one_leads_to_the_old() {
    let (old, new) = (of([called("old", &[])]), of([called("new", &["old"])]));
    let kept = evolved(&old, &new, DELTA);
    assert_eq!(kept.fields, [called("old", &["new"])]);
    assert_eq!(seen(&kept, &new, DELTA), ["new"]);
    assert_eq!(seen(&kept, &of([called("new", &[])]), DELTA), ["new"]);
}

#[test]
fn a_name_that_another_field_bears_is_no_alias() {
    let table = of([called("old", &[]), called("new", &[])]);
    let incoming = of([called("new", &["old"]), called("old", &[])]);
    assert!(same(&table, &incoming, ICEBERG));
    // Both at once: the field of the old name gets a column, and has the name from then on.
    let (old, new) = (of([called("old", &[])]), of([called("new", &["old"])]));
    let both = of([called("old", &[]), called("new", &[])]);
    let renamed = evolved(&old, &new, ICEBERG);
    let (settled, _) = settle(renamed, &[&both, &old, &new], ICEBERG);
    assert_eq!(seen(&settled, &old, ICEBERG), ["new", "old"]);
}

#[test]
fn a_number_of_protobuf_tells_a_new_name() {
    let numbered = |name: &str, number| Field { number: Some(number), ..called(name, &[]) };
    let (old, new) = (of([numbered("old", 7)]), of([numbered("new", 7), numbered("old", 8)]));
    let renamed = evolved(&old, &of([numbered("new", 7)]), ICEBERG);
    assert_eq!(renamed.fields, [Field { aliases: vec!["old".to_owned()], ..numbered("new", 7) }]);
    // The old name came back as another field.
    let (settled, _) = settle(renamed, &[&new, &old], ICEBERG);
    assert_eq!(seen(&settled, &old, ICEBERG)[0], "old");
    assert_eq!(seen(&settled, &new, ICEBERG), ["new", "old"]);
}

#[test]
fn what_fits_no_column_gets_one_and_keeps_it() {
    let rules = Rules { variants: true, ..ICEBERG };
    let field =
        |name: &str, kind: &str| Field::required(0, name, kind.parse::<PrimitiveType>().unwrap().into());
    let table = of([field("id", "long"), field("amount", "int")]);
    let texts = of([field("id", "long"), field("amount", "string")]);
    let grown = evolved(&table, &texts, rules);
    assert_eq!(grown.fields[2].name, "amount_string");
    assert_eq!(seen(&grown, &texts, rules), ["id", "\x002", "amount"]);
    assert_eq!(seen(&grown, &table, rules), ["id", "amount", "\x003"]);
    // A field of its own that bears that name.
    let clash = of([field("id", "long"), field("amount", "string"), field("amount_string", "int")]);
    let clashed = evolved(&grown, &clash, rules);
    assert_eq!(clashed.fields[3].name, "amount_string_2");
    assert_eq!(seen(&clashed, &clash, rules), ["id", "\x002", "amount", "amount_string"]);
    // Inside a list the list as a whole has no column.
    let list = |kind: &str| Type::List {
        element_id: 0,
        element_required: true,
        element: Box::new(kind.parse::<PrimitiveType>().unwrap().into()),
    };
    let lists = of([Field::required(0, "tags", list("int"))]);
    let grown = evolved(&lists, &of([Field::required(0, "tags", list("string"))]), rules);
    assert_eq!(grown.fields[1].name, "tags_list");
    // Inside a struct the member has.
    let inner = |kind| of([Field::required(0, "at", Type::Struct(vec![field("x", kind)]))]);
    let grown = evolved(&inner("int"), &inner("date"), rules);
    let Type::Struct(members) = &grown.fields[0].data_type else { panic!("a struct") };
    assert_eq!(members[1].name, "x_date");
}
