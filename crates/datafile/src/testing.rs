//! Random batches of any schema, with values chosen to hurt. For tests.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
        StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use siltstone_protocol::Schema;

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn batch(schema: &Schema, rows: usize, rng: &mut StdRng) -> RecordBatch {
    let arrow = crate::arrow_schema(schema).unwrap();
    let columns = arrow.fields().iter().map(|field| array(field, rows, rng)).collect();
    RecordBatch::try_new(arrow, columns).unwrap()
}

pub(crate) fn batches(schema: &Schema, sizes: &[usize], seed: u64) -> Vec<RecordBatch> {
    let mut rng = rng(seed);
    sizes.iter().map(|rows| batch(schema, *rows, &mut rng)).collect()
}

/// One of these, or anything.
fn pick<T: Clone>(rng: &mut StdRng, special: &[T], any: impl FnOnce(&mut StdRng) -> T) -> T {
    match rng.random_range(0..3) {
        0 => special[rng.random_range(0..special.len())].clone(),
        _ => any(rng),
    }
}

pub(crate) fn text(rng: &mut StdRng) -> String {
    let special = [
        "",
        "a",
        "a\0",
        "abcdefghijklmnop",
        "abcdefghijklmnopq",
        "zürich-zürich-zürich",
        "\u{10ffff}\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
    ];
    pick(rng, &special.map(str::to_owned), |rng| {
        let length = rng.random_range(0..90);
        let letter = |rng: &mut StdRng| match rng.random_range(0..4) {
            0 => '\u{10ffff}',
            1 => 'é',
            _ => rng.random_range('a'..='c'),
        };
        (0..length).map(|_| letter(rng)).collect()
    })
}

fn bytes(rng: &mut StdRng) -> Vec<u8> {
    let special = [vec![], vec![0], vec![0xff; 20], vec![0xff; 16], [vec![1; 16], vec![0]].concat()];
    pick(rng, &special, |rng| {
        let length = rng.random_range(0..90);
        (0..length).map(|_| rng.random_range(0..3) * 127).collect()
    })
}

fn long(rng: &mut StdRng) -> i64 {
    pick(rng, &[0, 1, -1, i64::MIN, i64::MAX], |rng| rng.random_range(-50..50))
}

fn double(rng: &mut StdRng) -> f64 {
    let special = [f64::NAN, -f64::NAN, 0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE];
    pick(rng, &special, |rng| f64::from(rng.random_range(-9..9)) / 4.0)
}

/// A column; a third of the nullable ones have no null at all, a third none but nulls here and there.
pub(crate) fn array(field: &Field, rows: usize, rng: &mut StdRng) -> ArrayRef {
    let null_rate = if field.is_nullable() { [0.0, 0.2, 0.9][rng.random_range(0..3)] } else { 0.0 };
    let valid: Vec<bool> = (0..rows).map(|_| !rng.random_bool(null_rate)).collect();
    let narrow = rng.random_bool(0.5);
    macro_rules! column {
        ($array:ty, $value:expr) => {{
            let value = $value;
            let values: Vec<_> = valid.iter().map(|valid| valid.then(|| value(rng))).collect();
            <$array>::from_iter(values)
        }};
    }
    let day = |rng: &mut StdRng| pick(rng, &[0, -1, 365], |rng| rng.random_range(-40_000..40_000));
    let micros = |rng: &mut StdRng| {
        let wide = rng.random_range(-4_000_000_000_000_000..4_000_000_000_000_000);
        if narrow { 1_700_000_000_000_000 + wide % 1000 } else { wide }
    };
    match field.data_type() {
        DataType::Boolean => Arc::new(column!(BooleanArray, |rng: &mut StdRng| rng.random_bool(0.5))),
        DataType::Int32 => {
            Arc::new(column!(Int32Array, |rng: &mut StdRng| if narrow { 7 } else { long(rng) as i32 }))
        }
        DataType::Int64 => {
            Arc::new(column!(Int64Array, |rng: &mut StdRng| if narrow { long(rng) % 5 } else { long(rng) }))
        }
        DataType::Float32 => Arc::new(column!(Float32Array, |rng: &mut StdRng| double(rng) as f32)),
        DataType::Float64 => Arc::new(column!(Float64Array, double)),
        DataType::Date32 => Arc::new(column!(Date32Array, day)),
        DataType::Time64(_) => Arc::new(
            column!(Time64MicrosecondArray, |rng: &mut StdRng| rng.random_range(0..86_400_000_000_i64))
        ),
        data_type @ DataType::Timestamp(..) => {
            Arc::new(column!(TimestampMicrosecondArray, micros).with_data_type(data_type.clone()))
        }
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            let value = |rng: &mut StdRng| {
                pick(rng, &[most, -most, 0, -1], |rng| rng.random_range(-1000..1000) % most)
            };
            Arc::new(column!(Decimal128Array, value).with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Utf8 => {
            let value = |rng: &mut StdRng| {
                if narrow { ["x", "yy", "z"][rng.random_range(0..3)].into() } else { text(rng) }
            };
            Arc::new(column!(StringArray, value))
        }
        DataType::Binary => {
            let values: Vec<_> = valid.iter().map(|valid| valid.then(|| bytes(rng))).collect();
            Arc::new(BinaryArray::from_iter(values))
        }
        DataType::FixedSizeBinary(size) => {
            let value =
                |rng: &mut StdRng| -> Vec<u8> { (0..*size).map(|_| rng.random_range(0..3) * 127).collect() };
            let values: Vec<_> = valid.iter().map(|valid| valid.then(|| value(rng))).collect();
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), *size).unwrap())
        }
        DataType::Struct(fields) => {
            let members = fields.iter().map(|field| array(field, rows, rng)).collect();
            let nulls = Some(NullBuffer::from(valid));
            Arc::new(StructArray::try_new(fields.clone(), members, nulls).unwrap())
        }
        DataType::List(element) => {
            let lengths: Vec<usize> =
                valid.iter().map(|v| if *v { rng.random_range(0..4) } else { 0 }).collect();
            let values = array(element, lengths.iter().sum(), rng);
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, Some(valid.into())).unwrap())
        }
        DataType::Map(entries, _) => {
            let lengths: Vec<usize> =
                valid.iter().map(|v| if *v { rng.random_range(0..3) } else { 0 }).collect();
            let DataType::Struct(fields) = entries.data_type() else { unreachable!() };
            let all = lengths.iter().sum();
            let members: Vec<ArrayRef> = fields.iter().map(|field| array(field, all, rng)).collect();
            let members = StructArray::try_new(fields.clone(), members, None).unwrap();
            let offsets = OffsetBuffer::from_lengths(lengths);
            let nulls = Some(valid.into());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, members, nulls, false).unwrap())
        }
        other => unreachable!("{other}"),
    }
}

/// One value, for naive comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(i128),
    Double(f64),
    Bytes(Vec<u8>),
}

impl Cell {
    pub(crate) fn of(array: &dyn Array, row: usize) -> Self {
        use arrow::{array::AsArray, datatypes as t};
        if array.is_null(row) {
            return Self::Null;
        }
        macro_rules! integer {
            ($type:ty) => {
                Self::Integer(array.as_primitive::<$type>().value(row).into())
            };
        }
        match array.data_type() {
            DataType::Boolean => Self::Integer(array.as_boolean().value(row).into()),
            DataType::Int32 => integer!(t::Int32Type),
            DataType::Int64 => integer!(t::Int64Type),
            DataType::Date32 => integer!(t::Date32Type),
            DataType::Time64(_) => integer!(t::Time64MicrosecondType),
            DataType::Timestamp(..) => integer!(t::TimestampMicrosecondType),
            DataType::Decimal128(..) => integer!(t::Decimal128Type),
            DataType::Float32 => Self::Double(array.as_primitive::<t::Float32Type>().value(row).into()),
            DataType::Float64 => Self::Double(array.as_primitive::<t::Float64Type>().value(row)),
            DataType::Utf8 => Self::Bytes(array.as_string::<i32>().value(row).as_bytes().to_vec()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().value(row).to_vec()),
            DataType::FixedSizeBinary(_) => Self::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
            other => unreachable!("{other}"),
        }
    }

    /// Iceberg's order of two values that are not null.
    pub(crate) fn order(&self, other: &Self) -> std::cmp::Ordering {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => match (a.is_nan(), b.is_nan()) {
                (true, true) => Equal,
                (true, false) => Greater,
                (false, true) => Less,
                _ => a.total_cmp(b),
            },
            _ => unreachable!(),
        }
    }
}
