//! What `ingest` decodes into is what `datafile` writes: one table of Arrow types, held by two crates
//! that do not know each other.

#![allow(clippy::unwrap_used)]

use arrow::datatypes::{DataType, Field as ArrowField};
use siltstone_ingest::columns::Columns;
use siltstone_protocol::{Field, PrimitiveType as P, Schema, Type};

fn every_type() -> Schema {
    let primitives = [
        P::Boolean,
        P::Int,
        P::Long,
        P::Float,
        P::Double,
        P::Decimal { precision: 9, scale: 2 },
        P::Decimal { precision: 38, scale: 10 },
        P::Date,
        P::Time,
        P::Timestamp,
        P::Timestamptz,
        P::String,
        P::Uuid,
        P::Fixed(7),
        P::Binary,
    ];
    let mut fields: Vec<_> =
        (1..).zip(primitives).map(|(id, p)| Field::optional(id, format!("c{id}"), p.into())).collect();
    fields.push(Field::required(30, "required", P::Long.into()));
    let members = vec![Field::required(32, "a", P::Int.into()), Field::optional(33, "b", P::String.into())];
    let list = Type::List {
        element_id: 35,
        element_required: true,
        element: Box::new(Type::Struct(members.clone())),
    };
    fields.push(Field::optional(31, "struct", Type::Struct(members)));
    fields.push(Field::optional(34, "list", renumbered(list)));
    fields.push(Field::optional(
        40,
        "map",
        Type::Map {
            key_id: 41,
            key: Box::new(P::String.into()),
            value_id: 42,
            value_required: false,
            value: Box::new(P::Decimal { precision: 20, scale: 0 }.into()),
        },
    ));
    Schema::new(0, fields)
}

/// Field ids are unique over all levels.
fn renumbered(list: Type) -> Type {
    let Type::List { element_id, element_required, element } = list else { return list };
    let Type::Struct(mut members) = *element else { unreachable!() };
    for member in &mut members {
        member.id += 4;
    }
    Type::List { element_id, element_required, element: Box::new(Type::Struct(members)) }
}

/// Names, types, nullability and field ids at every depth.
fn shape(field: &ArrowField) -> Vec<String> {
    let id = field.metadata().get("PARQUET:field_id").cloned().unwrap_or_default();
    let own = format!("{} {} {} {id}", field.name(), field.is_nullable(), kind(field.data_type()));
    let mut all = vec![own];
    match field.data_type() {
        DataType::Struct(members) => all.extend(members.iter().flat_map(|member| shape(member))),
        DataType::List(element) => all.extend(shape(element)),
        DataType::Map(entries, _) => all.extend(shape(entries)),
        _ => {}
    }
    all
}

fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "struct".to_owned(),
        DataType::List(_) => "list".to_owned(),
        DataType::Map(_, sorted) => format!("map {sorted}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn decoded_batches_have_the_types_that_files_are_written_from() {
    let schema = every_type();
    let decoded = Columns::new(&schema).unwrap().finish().unwrap().schema();
    let written = siltstone_datafile::arrow_schema(&schema).unwrap();
    let decoded: Vec<_> = decoded.fields().iter().flat_map(|field| shape(field)).collect();
    let written: Vec<_> = written.fields().iter().flat_map(|field| shape(field)).collect();
    assert_eq!(decoded, written);
}
