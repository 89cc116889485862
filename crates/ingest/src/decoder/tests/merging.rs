#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use crate::decoder::evolve::{Merge, assign_ids, merge};

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
    prop::collection::btree_map("[a-d]", (inner, any::<bool>()), 1..5).prop_map(|members| {
        let field = |(name, (data_type, required))| Field { id: 0, name, required, data_type };
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

/// Every field id with its name and type, nested fields included.
fn named(fields: &[Field], into: &mut BTreeSet<(i32, String)>) {
    for field in fields {
        into.insert((field.id, field.name.clone()));
        inside(&field.data_type, into);
    }
}

fn inside(data_type: &Type, into: &mut BTreeSet<(i32, String)>) {
    match data_type {
        Type::Primitive(_) => {}
        Type::Struct(members) => named(members, into),
        Type::List { element, .. } => inside(element, into),
        Type::Map { value, .. } => inside(value, into),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_schema_is_the_same_as_itself(schema in schema()) {
        prop_assert_eq!(merge(&schema, &schema), Merge::Same);
    }

    /// The result takes both, keeps every id where it was, and gives new fields new ids.
    #[test]
    fn what_a_table_becomes_takes_both(table in schema(), incoming in schema()) {
        let Merge::Evolves(evolved) = merge(&table, &incoming) else { return Ok(()) };
        prop_assert_eq!(merge(&evolved, &table), Merge::Same);
        prop_assert_eq!(merge(&evolved, &incoming), Merge::Same);
        prop_assert_eq!(evolved.schema_id, 4);
        let (before, after) = (ids(&table), ids(&evolved));
        prop_assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), after.len(), "ids are unique");
        let new: Vec<_> = after.iter().filter(|id| !before.contains(id)).collect();
        prop_assert!(new.iter().all(|id| **id > table.last_field_id()));
        let (mut old, mut now) = (BTreeSet::new(), BTreeSet::new());
        named(&table.fields, &mut old);
        named(&evolved.fields, &mut now);
        prop_assert!(old.is_subset(&now), "nothing is renamed or dropped");
        for (field, kept) in table.fields.iter().zip(&evolved.fields) {
            prop_assert_eq!((field.id, &field.name), (kept.id, &kept.name));
            prop_assert!(field.required || !kept.required);
        }
        for added in &evolved.fields[table.fields.len()..] {
            prop_assert!(!added.required);
        }
    }

    /// A refusal names where.
    #[test]
    fn a_refusal_names_a_column(table in schema(), incoming in schema()) {
        if let Merge::Refused { field, why } = merge(&table, &incoming) {
            let first = field.split('.').next().unwrap_or_default();
            prop_assert!(table.column(first).is_some(), "{field}: {why}");
        }
    }
}

fn one(data_type: &str, required: bool) -> Schema {
    let data_type: PrimitiveType = data_type.parse().unwrap();
    Schema::new(0, vec![Field { id: 1, name: "f".to_owned(), required, data_type: data_type.into() }])
}

#[rstest]
#[case("int", "long", Some("long"))]
#[case("float", "double", Some("double"))]
#[case("decimal(9, 2)", "decimal(12, 2)", Some("decimal(12, 2)"))]
#[case("decimal(9, 2)", "decimal(9, 1)", Some("decimal(10, 2)"))]
#[case("decimal(9, 2)", "decimal(5, 2)", Some("decimal(9, 2)"))]
#[case("decimal(9, 2)", "decimal(9, 3)", None)]
#[case("decimal(38, 2)", "decimal(38, 1)", None)]
#[case("long", "int", Some("long"))]
#[case("double", "long", Some("double"))]
#[case("double", "int", Some("double"))]
#[case("binary", "string", Some("binary"))]
#[case("string", "binary", Some("string"))]
#[case("int", "double", None)]
#[case("long", "timestamptz", None)]
#[case("timestamptz", "timestamp", None)]
#[case("timestamptz", "long", None)]
#[case("string", "uuid", None)]
#[case("fixed[3]", "fixed[4]", None)]
#[case("int", "string", None)]
fn leaves_follow_or_not(#[case] table: &str, #[case] incoming: &str, #[case] expected: Option<&str>) {
    let outcome = merge(&one(table, true), &one(incoming, true));
    match (outcome, expected) {
        (Merge::Same, Some(expected)) => assert_eq!(table, expected),
        (Merge::Evolves(schema), Some(expected)) => {
            assert_eq!(schema.fields[0].data_type, one(expected, true).fields[0].data_type);
        }
        (Merge::Refused { field, .. }, None) => assert_eq!(field, "f"),
        (outcome, _) => panic!("{outcome:?}"),
    }
}

#[test]
fn required_becomes_optional_and_never_back() {
    assert_eq!(
        merge(&one("int", true), &one("int", false)),
        Merge::Evolves(Schema::new(1, one("int", false).fields))
    );
    assert_eq!(merge(&one("int", false), &one("int", true)), Merge::Same);
    let without = Schema::new(0, vec![Field::required(1, "g", PrimitiveType::Int.into())]);
    let Merge::Evolves(evolved) = merge(&one("int", true), &without) else { panic!("evolves") };
    let expected = vec![
        Field::optional(1, "f", PrimitiveType::Int.into()),
        Field::optional(2, "g", PrimitiveType::Int.into()),
    ];
    assert_eq!(evolved.fields, expected);
}
