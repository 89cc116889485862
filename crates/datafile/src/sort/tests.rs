use std::cmp::Ordering;

use proptest::prelude::*;
use siltstone_protocol::{PartitionField, PrimitiveType as P, SortField};

use super::*;
use crate::testing::{self, Cell};

const PRIMITIVES: i32 = 16;

/// Transforms that the type of column `id` of `every_type` takes.
fn transforms(id: i32) -> Vec<Transform> {
    let schema = crate::layout::tests::every_type();
    let primitive = source_column(&schema, id).unwrap().primitive;
    let all = [
        Transform::Identity,
        Transform::Bucket(5),
        Transform::Truncate(3),
        Transform::Year,
        Transform::Month,
        Transform::Day,
        Transform::Hour,
        Transform::Void,
    ];
    all.into_iter().filter(|t| crate::transform::result_type(*t, primitive).is_ok()).collect()
}

fn sort_field(id: i32, transform: Transform, bits: u8) -> SortField {
    SortField {
        transform,
        source_id: id,
        direction: if bits & 1 == 0 { SortDirection::Asc } else { SortDirection::Desc },
        null_order: if bits & 2 == 0 { NullOrder::NullsFirst } else { NullOrder::NullsLast },
    }
}

/// The order by definition: all rows by all keys, value by value, stable.
fn naive(batches: &Batches, keys: &[Key]) -> Vec<u32> {
    let mut places: Vec<u32> = batches.places().collect();
    let cell = |key: &Key, place: u32| {
        let (batch, row) = batches.locate(place);
        Cell::of(key.arrays[batch].as_ref(), row)
    };
    places.sort_by(|a, b| {
        for key in keys {
            let (a, b) = (cell(key, *a), cell(key, *b));
            let order = match (&a, &b) {
                (Cell::Null, Cell::Null) => Ordering::Equal,
                (Cell::Null, _) => {
                    if key.nulls_last {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                (_, Cell::Null) => {
                    if key.nulls_last {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                _ if key.descending => b.order(&a),
                _ => a.order(&b),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    });
    places
}

fn check(sizes: &[usize], seed: u64, spec: &PartitionSpec, order: &SortOrder) {
    let schema = crate::layout::tests::every_type();
    let arrow = crate::arrow_schema(&schema).unwrap();
    let batches = Batches::new(testing::batches(&schema, sizes, seed), &arrow).unwrap();
    assert_eq!(batches.rows(), sizes.iter().sum::<usize>());
    let index = sort(&batches, &schema, spec, order).unwrap();
    let mut keys = Vec::new();
    for arrays in &index.partition_columns {
        keys.push(Key { arrays: arrays.clone(), descending: false, nulls_last: false });
    }
    let partition_keys = keys.len();
    for field in &order.fields {
        let column = source_column(&schema, field.source_id).unwrap();
        let each = |batch| transform(field.transform, &source_array(batch, &column).unwrap()).unwrap();
        keys.push(Key {
            arrays: batches.batches().iter().map(each).collect(),
            descending: field.direction == SortDirection::Desc,
            nulls_last: field.null_order == NullOrder::NullsLast,
        });
    }
    assert_eq!(index.rows, naive(&batches, &keys));
    // Partitions: consecutive, complete, equal inside, different between neighbours.
    let value = |at: usize| -> Vec<Option<Vec<u8>>> {
        let (batch, row) = batches.locate(index.rows[at]);
        let value = |key: &Key| match Cell::of(key.arrays[batch].as_ref(), row) {
            Cell::Double(value) if value.is_nan() => Some(b"nan".to_vec()),
            _ => crate::partition::value_bytes(key.arrays[batch].as_ref(), row).unwrap(),
        };
        keys[..partition_keys].iter().map(value).collect()
    };
    let mut next = 0;
    for range in &index.partitions {
        assert_eq!(range.start, next);
        assert!(range.clone().all(|at| value(at) == value(range.start)));
        assert!(range.start == 0 || value(range.start) != value(range.start - 1));
        next = range.end;
    }
    assert_eq!(next, index.rows.len());
}

prop_compose! {
    fn key()(
        id in prop_oneof![1..=PRIMITIVES, Just(20), Just(22), Just(23), Just(24)],
        pick in any::<prop::sample::Index>(),
        bits in 0_u8..4,
    )
        -> (i32, Transform, u8) {
        (id, *pick.get(&transforms(id)), bits)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn sorts_and_divides_as_defined(
        sizes in prop::collection::vec(0_usize..400, 0..5),
        seed in any::<u64>(),
        by in prop::collection::vec(key(), 0..3),
        keys in prop::collection::vec(key(), 0..4),
    ) {
        let fields = by.iter().zip(1000..).map(|((id, transform, _), field_id)| PartitionField {
            source_id: *id, field_id, name: format!("p{field_id}"), transform: *transform,
        });
        let spec = PartitionSpec { spec_id: 1, fields: fields.collect() };
        let fields = keys.iter().map(|(id, transform, bits)| sort_field(*id, *transform, *bits));
        check(&sizes, seed, &spec, &SortOrder { order_id: 1, fields: fields.collect() });
    }
}

#[test]
fn large_flushes_take_the_radix_path() {
    let order = SortOrder {
        order_id: 1,
        fields: vec![sort_field(3, Transform::Identity, 3), sort_field(11, Transform::Hour, 0)],
    };
    check(&[5000, 70_000, 100, 3], 1, &PartitionSpec::default(), &order);
    let order = SortOrder { order_id: 1, fields: vec![sort_field(20, Transform::Bucket(100), 0)] };
    check(&[6000, 6000], 2, &PartitionSpec::default(), &order);
}

#[test]
fn strings_with_a_shared_prefix_and_many_values() {
    use arrow::array::{RecordBatch, StringArray};
    use siltstone_protocol::Field;
    let schema = Schema::new(0, vec![Field::required(1, "u", P::String.into())]);
    let arrow = crate::arrow_schema(&schema).unwrap();
    let texts: Vec<String> = (0..20_000_u32)
        .map(|n| format!("https://shop.example/item/{:x}/{}", n.wrapping_mul(2_654_435_761), n % 7))
        .collect();
    let batch =
        RecordBatch::try_new(arrow.clone(), vec![std::sync::Arc::new(StringArray::from(texts.clone()))]);
    let batches = Batches::new(vec![batch.unwrap()], &arrow).unwrap();
    let order = SortOrder { order_id: 1, fields: vec![sort_field(1, Transform::Identity, 0)] };
    let index = sort(&batches, &schema, &PartitionSpec::default(), &order).unwrap();
    let sorted: Vec<&String> = index.rows.iter().map(|place| &texts[batches.locate(*place).1]).collect();
    assert!(sorted.is_sorted());
}

#[test]
fn a_key_that_is_no_column_is_refused() {
    let schema = crate::layout::tests::every_type();
    let batches = Batches::new(Vec::new(), &crate::arrow_schema(&schema).unwrap()).unwrap();
    for (id, transform) in [
        (99, Transform::Identity),
        (31, Transform::Identity),
        (1, Transform::Hour),
        (21, Transform::Identity),
    ] {
        let order = SortOrder { order_id: 1, fields: vec![sort_field(id, transform, 0)] };
        assert!(sort(&batches, &schema, &PartitionSpec::default(), &order).is_err(), "{id}");
    }
}
