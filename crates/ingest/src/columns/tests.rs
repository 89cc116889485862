#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};
use proptest::prelude::*;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};

use super::*;

/// One column of every kind, nested ones included; `required` first.
fn every_kind() -> Schema {
    let leaves = [
        PrimitiveType::Boolean,
        PrimitiveType::Int,
        PrimitiveType::Long,
        PrimitiveType::Float,
        PrimitiveType::Double,
        PrimitiveType::Decimal { precision: 5, scale: 2 },
        PrimitiveType::Date,
        PrimitiveType::Time,
        PrimitiveType::Timestamp,
        PrimitiveType::Timestamptz,
        PrimitiveType::String,
        PrimitiveType::Uuid,
        PrimitiveType::Fixed(3),
        PrimitiveType::Binary,
    ];
    let mut fields: Vec<Field> = leaves
        .iter()
        .zip(1..)
        .map(|(leaf, id)| Field::optional(id, format!("c{id}"), (*leaf).into()))
        .collect();
    let members = vec![
        Field::required(21, "a", PrimitiveType::Int.into()),
        Field::optional(22, "b", PrimitiveType::String.into()),
    ];
    fields.push(Field::optional(20, "s", Type::Struct(members.clone())));
    fields.push(Field::optional(
        30,
        "l",
        Type::List {
            element_id: 31,
            element_required: false,
            element: Box::new(Type::Struct(vec![Field::optional(32, "x", PrimitiveType::Long.into())])),
        },
    ));
    fields.push(Field::optional(
        40,
        "m",
        Type::Map {
            key_id: 41,
            key: Box::new(PrimitiveType::String.into()),
            value_id: 42,
            value_required: true,
            value: Box::new(Type::List {
                element_id: 43,
                element_required: true,
                element: Box::new(PrimitiveType::Boolean.into()),
            }),
        },
    ));
    Schema::new(0, fields)
}

/// Appends a value made from `seed`, some of them null. Stops early (an error) when `fuel` runs out.
fn append(column: &mut Column, seed: u64, fuel: &mut u32) -> Result<(), ()> {
    *fuel = fuel.checked_sub(1).ok_or(())?;
    if seed.is_multiple_of(4) {
        column.append_null();
        return Ok(());
    }
    append_value(column, seed, fuel)
}

fn append_value(column: &mut Column, seed: u64, fuel: &mut u32) -> Result<(), ()> {
    let bytes = seed.to_le_bytes();
    match column {
        Column::Boolean(bits) => bits.push(seed.is_multiple_of(3)),
        Column::Int32(values) => values.push(seed as i32),
        Column::Int64(values) => values.push(seed as i64),
        Column::Float32(values) => values.push(seed as f32),
        Column::Float64(values) => values.push(seed as f64),
        Column::Decimal(values) => values.push(i128::from(seed % 99_999)).unwrap(),
        Column::Utf8(values) => values.push_str(&"añb"[..[0, 1, 3, 4][(seed % 4) as usize]]).unwrap(),
        Column::Binary(values) => values.push(&bytes[..(seed % 8) as usize]).unwrap(),
        Column::FixedBytes(values) => values.push(&vec![seed as u8; values.width()]).unwrap(),
        Column::Struct(values) => {
            append_value(&mut values.members()[0], seed | 1, fuel)?;
            if let Some(member) = values.members().get_mut(1) {
                append(member, seed / 3, fuel)?;
            }
            values.end();
        }
        Column::List(values) => {
            for item in 0..seed % 5 {
                // Booleans stand in a list of required elements here.
                match values.items() {
                    Column::Boolean(bits) => bits.push(item % 2 == 0),
                    items => append(items, seed / 5 + item, fuel)?,
                }
            }
            values.end().unwrap();
        }
        Column::Map(values) => {
            for item in 0..seed % 3 {
                append_value(values.keys(), seed + item, fuel)?;
                append_value(values.values(), seed / 3 + item, fuel)?;
            }
            values.end().unwrap();
        }
    }
    Ok(())
}

fn append_row(columns: &mut Columns, seed: u64, mut fuel: u32) -> Result<(), ()> {
    for (index, column) in columns.columns().iter_mut().enumerate() {
        append(column, seed.wrapping_mul(31).wrapping_add(index as u64), &mut fuel)?;
    }
    columns.end_row();
    Ok(())
}

fn batch_of(seeds: impl Iterator<Item = u64>) -> RecordBatch {
    let mut columns = Columns::new(&every_kind()).unwrap();
    seeds.for_each(|seed| append_row(&mut columns, seed, u32::MAX).unwrap());
    columns.finish().unwrap()
}

proptest! {
    /// Rows that stop anywhere leave no trace: the batch equals the one of the complete rows alone.
    #[test]
    fn rollback_is_exact(
        rows in prop::collection::vec((any::<u32>(), prop::option::weighted(0.3, 0u32..60)), 0..80),
    ) {
        let mut columns = Columns::new(&every_kind()).unwrap();
        let mut good = Vec::new();
        for (seed, fuel) in rows {
            let seed = u64::from(seed);
            let (mark, bytes) = (columns.mark(), columns.bytes());
            if append_row(&mut columns, seed, fuel.unwrap_or(u32::MAX)).is_ok() {
                good.push(seed);
            } else {
                columns.rollback(mark);
                prop_assert!(columns.bytes() >= bytes, "only validity may have come to stay");
                prop_assert!(columns.columns().iter().all(|column| column.len() == good.len()));
            }
        }
        let batch = columns.finish().unwrap();
        prop_assert_eq!(columns.rows(), 0);
        prop_assert_eq!(&batch, &batch_of(good.iter().copied()));
        // The builders are as new.
        good.iter().for_each(|seed| append_row(&mut columns, *seed, u32::MAX).unwrap());
        prop_assert_eq!(columns.finish().unwrap(), batch);
    }
}

#[test]
fn rollback_goes_over_complete_rows_too() {
    let mut columns = Columns::new(&every_kind()).unwrap();
    append_row(&mut columns, 7, u32::MAX).unwrap();
    let mark = columns.mark();
    (8..40).for_each(|seed| append_row(&mut columns, seed, u32::MAX).unwrap());
    columns.rollback(mark);
    assert_eq!(columns.finish().unwrap(), batch_of(std::iter::once(7)));
}

#[test]
fn arrow_types_are_the_agreed_ones() {
    let schema = arrow_schema(&every_kind()).unwrap();
    let types: Vec<_> = schema.fields().iter().take(14).map(|field| field.data_type().clone()).collect();
    let expected = vec![
        DataType::Boolean,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(5, 2),
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        DataType::Utf8,
        DataType::FixedSizeBinary(16),
        DataType::FixedSizeBinary(3),
        DataType::Binary,
    ];
    assert_eq!(types, expected);
    let DataType::Map(entries, false) = schema.field(16).data_type() else { panic!("not a map") };
    assert_eq!(entries.name(), "key_value");
    let DataType::Struct(members) = entries.data_type() else { panic!("no entries") };
    assert_eq!((members[0].name().as_str(), members[1].name().as_str()), ("key", "value"));
    assert_eq!(members[1].metadata()[FIELD_ID_KEY], "42");
    let DataType::List(element) = schema.field(15).data_type() else { panic!("not a list") };
    assert_eq!((element.name().as_str(), element.metadata()[FIELD_ID_KEY].as_str()), ("element", "31"));
}

#[test]
fn values_arrive_and_nulls_reach_into_structs() {
    let schema = Schema::new(
        0,
        vec![
            Field::required(1, "id", PrimitiveType::Long.into()),
            Field::optional(2, "s", Type::Struct(vec![Field::required(3, "a", PrimitiveType::Int.into())])),
        ],
    );
    let mut columns = Columns::new(&schema).unwrap();
    for id in 0..3 {
        let [Column::Int64(ids), Column::Struct(structs)] = columns.columns() else { panic!("two columns") };
        ids.push(id);
        if id == 1 {
            structs.push_null();
        } else {
            let [Column::Int32(a)] = structs.members() else { panic!("one member") };
            a.push(10);
            structs.end();
        }
        columns.end_row();
    }
    let batch = columns.finish().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    let structs = batch.column(1).as_struct();
    assert!(structs.is_null(1) && structs.column(0).is_null(1), "no value shows through a null struct");
    assert_eq!(structs.column(0).as_primitive::<Int32Type>().value(2), 10);
    assert!(batch.column(0).nulls().is_none(), "no validity without nulls");
}

#[test]
fn bad_values_are_refused_when_they_come() {
    let schema = every_kind();
    let mut columns = Columns::new(&schema).unwrap();
    let [Column::Decimal(decimal)] = &mut columns.columns()[5..6] else { panic!("decimal") };
    assert_eq!(decimal.push(100_000), Err(RejectReason::OutOfRange));
    assert_eq!(decimal.push(-99_999), Ok(()));
    let [Column::Utf8(text)] = &mut columns.columns()[10..11] else { panic!("string") };
    assert_eq!(text.push(b"\xff\xfe"), Err(RejectReason::InvalidUtf8));
    let long = [b"x".repeat(100), b"\xc3".to_vec()].concat();
    assert_eq!(text.push(&long), Err(RejectReason::InvalidUtf8));
    assert_eq!(text.push("añ".as_bytes()), Ok(()));
    let [Column::FixedBytes(fixed)] = &mut columns.columns()[12..13] else { panic!("fixed") };
    assert_eq!(fixed.push(b"ab"), Err(RejectReason::BadLength));
}

#[test]
fn a_null_in_a_required_column_is_found_at_the_end() {
    let schema = Schema::new(0, vec![Field::required(1, "id", PrimitiveType::Long.into())]);
    let mut columns = Columns::new(&schema).unwrap();
    columns.columns()[0].append_null();
    columns.end_row();
    assert!(columns.finish().is_err());
    assert_eq!((columns.rows(), columns.bytes()), (0, 0));
}

#[test]
fn nothing_shows_a_value() {
    let schema = Schema::new(0, vec![Field::required(1, "id", PrimitiveType::String.into())]);
    let mut columns = Columns::new(&schema).unwrap();
    if let Column::Utf8(values) = &mut columns.columns()[0] {
        values.push_str("canary").unwrap();
        assert!(!format!("{values:?}").contains("canary"));
    }
    columns.end_row();
    let shown = format!("{columns:?}") + &format!("{:?}", columns.columns());
    assert!(!shown.contains("canary"));
}

#[test]
fn a_struct_without_members_is_refused() {
    let schema = Schema::new(0, vec![Field::optional(1, "s", Type::Struct(vec![]))]);
    assert!(Columns::new(&schema).is_err());
}
