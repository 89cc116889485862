#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};

use apache_avro::{Decimal, Duration, types::Value};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use proptest::prelude::*;
use serde_json::json;

/// An Avro schema as the tests think of it.
#[derive(Debug, Clone)]
pub(super) enum Avro {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(usize),
    Date,
    TimeMillis,
    TimeMicros,
    /// Unit name and whether it is local.
    Timestamp(&'static str, bool),
    Uuid,
    Duration,
    /// Fixed base?
    Decimal(bool),
    Record(Vec<Avro>),
    Array(Box<Avro>),
    Map(Box<Avro>),
    /// Null first?
    Optional(bool, Box<Avro>),
    /// `[null, int, string, record]`
    Union(Vec<Avro>),
}

pub(super) const DECIMAL: (u32, u32) = (20, 3);

pub(super) fn leaf() -> impl Strategy<Value = Avro> {
    let units = prop::sample::select(vec!["millis", "micros", "nanos"]);
    prop_oneof![
        Just(Avro::Boolean),
        Just(Avro::Int),
        Just(Avro::Long),
        Just(Avro::Float),
        Just(Avro::Double),
        Just(Avro::Bytes),
        Just(Avro::Text),
        (1usize..20).prop_map(Avro::Fixed),
        (1usize..200).prop_map(Avro::Enum),
        Just(Avro::Date),
        Just(Avro::TimeMillis),
        Just(Avro::TimeMicros),
        (units, any::<bool>()).prop_map(|(unit, local)| Avro::Timestamp(unit, local)),
        Just(Avro::Uuid),
        Just(Avro::Duration),
        any::<bool>().prop_map(Avro::Decimal),
    ]
}

pub(super) fn any_type() -> impl Strategy<Value = Avro> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        let not_optional = inner
            .clone()
            .prop_filter("no union in a union", |avro| !matches!(avro, Avro::Optional(..) | Avro::Union(_)));
        prop_oneof![
            3 => (any::<bool>(), not_optional)
                .prop_map(|(first, avro)| Avro::Optional(first, Box::new(avro))),
            1 => prop::collection::vec(inner.clone(), 1..4).prop_map(Avro::Record),
            1 => inner.clone().prop_map(|avro| Avro::Array(Box::new(avro))),
            1 => inner.clone().prop_map(|avro| Avro::Map(Box::new(avro))),
            1 => prop::collection::vec(inner, 1..3)
                .prop_map(|fields| Avro::Union(vec![Avro::Int, Avro::Text, Avro::Record(fields)])),
        ]
    })
}

pub(super) fn record() -> impl Strategy<Value = Avro> {
    prop::collection::vec(any_type(), 1..7).prop_map(Avro::Record)
}

impl Avro {
    /// The schema text; names are numbered, so that each is defined once.
    pub(super) fn json(&self, names: &mut u32) -> serde_json::Value {
        *names += 1;
        let name = format!("N{names}");
        let logical = |base: &str, logical: &str| json!({"type": base, "logicalType": logical});
        match self {
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Bytes => json!("bytes"),
            Self::Text => json!("string"),
            Self::Fixed(size) => json!({"type": "fixed", "name": name, "size": size}),
            Self::Enum(count) => {
                let symbols: Vec<String> = (0..*count).map(|index| format!("S{index}")).collect();
                json!({"type": "enum", "name": name, "symbols": symbols})
            }
            Self::Date => logical("int", "date"),
            Self::TimeMillis => logical("int", "time-millis"),
            Self::TimeMicros => logical("long", "time-micros"),
            Self::Timestamp(unit, false) => logical("long", &format!("timestamp-{unit}")),
            Self::Timestamp(unit, true) => logical("long", &format!("local-timestamp-{unit}")),
            Self::Uuid => logical("string", "uuid"),
            Self::Duration => json!({"type": "fixed", "name": name, "size": 12, "logicalType": "duration"}),
            Self::Decimal(false) => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": DECIMAL.0, "scale": DECIMAL.1})
            }
            Self::Decimal(true) => {
                json!({"type": "fixed", "name": name, "size": 11, "logicalType": "decimal",
                "precision": DECIMAL.0, "scale": DECIMAL.1})
            }
            Self::Record(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| json!({"name": format!("f{index}"), "type": field.json(names)}))
                    .collect();
                json!({"type": "record", "name": name, "fields": fields})
            }
            Self::Array(item) => json!({"type": "array", "items": item.json(names)}),
            Self::Map(value) => json!({"type": "map", "values": value.json(names)}),
            Self::Optional(true, inner) => json!(["null", inner.json(names)]),
            Self::Optional(false, inner) => json!([inner.json(names), "null"]),
            Self::Union(members) => {
                let mut branches = vec![json!("null")];
                branches.extend(members.iter().map(|member| member.json(names)));
                json!(branches)
            }
        }
    }

    /// A value made from the random numbers.
    pub(super) fn value(&self, random: &mut Random) -> Value {
        let number = random.next();
        let signed = (number as i64) >> (number % 64);
        match self {
            Self::Boolean => Value::Boolean(number.is_multiple_of(2)),
            Self::Int => Value::Int(signed as i32),
            Self::Long => Value::Long(signed),
            Self::Float => Value::Float(signed as f32 / 3.0),
            Self::Double => Value::Double(signed as f64 / 3.0),
            Self::Bytes => Value::Bytes(random.bytes((number % 40) as usize)),
            Self::Text => Value::String("aé漢😀".chars().cycle().take((number % 90) as usize).collect()),
            Self::Fixed(size) => Value::Fixed(*size, random.bytes(*size)),
            Self::Enum(count) => {
                let index = number as usize % count;
                Value::Enum(index as u32, format!("S{index}"))
            }
            Self::Date => Value::Date(signed as i32),
            Self::TimeMillis => Value::TimeMillis((number % 86_400_000) as i32),
            Self::TimeMicros => Value::TimeMicros((number % 86_400_000_000) as i64),
            Self::Timestamp("millis", false) => Value::TimestampMillis(signed / 1000),
            Self::Timestamp("micros", false) => Value::TimestampMicros(signed),
            Self::Timestamp(_, false) => Value::TimestampNanos(signed),
            Self::Timestamp("millis", true) => Value::LocalTimestampMillis(signed / 1000),
            Self::Timestamp("micros", true) => Value::LocalTimestampMicros(signed),
            Self::Timestamp(_, true) => Value::LocalTimestampNanos(signed),
            Self::Uuid => Value::Uuid(uuid::Uuid::from_u64_pair(number, random.next())),
            Self::Duration => {
                let bytes: [u8; 12] = random.bytes(12).try_into().unwrap();
                Value::Duration(Duration::from(bytes))
            }
            Self::Decimal(_) => {
                // Up to 19 digits of either sign, with redundant sign bytes now and then.
                let unscaled = i128::from(signed) * 10;
                let unscaled = if unscaled.unsigned_abs() >= 10u128.pow(DECIMAL.0) { 7 } else { unscaled };
                Value::Decimal(Decimal::from(&unscaled.to_be_bytes()[5..]))
            }
            Self::Record(fields) => Value::Record(
                fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| (format!("f{index}"), field.value(random)))
                    .collect(),
            ),
            Self::Array(item) => Value::Array((0..number % 5).map(|_| item.value(random)).collect()),
            Self::Map(inner) => {
                let entries = (0..number % 4).map(|key| (format!("k{key}"), inner.value(random)));
                Value::Map(entries.collect::<HashMap<_, _>>())
            }
            Self::Optional(first, inner) => {
                let null = u32::from(!first);
                if number.is_multiple_of(3) {
                    return Value::Union(null, Box::new(Value::Null));
                }
                Value::Union(1 - null, Box::new(inner.value(random)))
            }
            Self::Union(members) => match number as usize % (members.len() + 1) {
                0 => Value::Union(0, Box::new(Value::Null)),
                branch => Value::Union(branch as u32, Box::new(members[branch - 1].value(random))),
            },
        }
    }

    /// The cell that a table should hold for what the oracle read.
    pub(super) fn cell(&self, value: &Value) -> Cell {
        match (self, value) {
            (_, Value::Boolean(bit)) => Cell::Number(i128::from(*bit)),
            (_, Value::Int(number) | Value::Date(number)) => Cell::Number(i128::from(*number)),
            (_, Value::Long(number) | Value::TimeMicros(number)) => Cell::Number(i128::from(*number)),
            (_, Value::Float(number)) => Cell::Float(f64::from(*number).to_bits()),
            (_, Value::Double(number)) => Cell::Float(number.to_bits()),
            (_, Value::TimeMillis(number)) => Cell::Number(i128::from(*number) * 1000),
            (_, Value::TimestampMillis(number) | Value::LocalTimestampMillis(number)) => {
                Cell::Number(i128::from(*number) * 1000)
            }
            (_, Value::TimestampMicros(number) | Value::LocalTimestampMicros(number)) => {
                Cell::Number(i128::from(*number))
            }
            (_, Value::TimestampNanos(number) | Value::LocalTimestampNanos(number)) => {
                Cell::Number(i128::from(number.div_euclid(1000)))
            }
            (_, Value::Bytes(bytes) | Value::Fixed(_, bytes)) => Cell::Bytes(bytes.clone()),
            (_, Value::String(text) | Value::Enum(_, text)) => Cell::Bytes(text.clone().into_bytes()),
            (_, Value::Uuid(uuid)) => Cell::Bytes(uuid.as_bytes().to_vec()),
            (_, Value::Duration(duration)) => Cell::Bytes(<[u8; 12]>::from(*duration).to_vec()),
            (_, Value::Decimal(decimal)) => {
                let bytes = Vec::<u8>::try_from(decimal).unwrap();
                let start = if bytes[0] & 0x80 == 0 { 0 } else { -1i128 };
                Cell::Number(bytes.iter().fold(start, |number, byte| number << 8 | i128::from(*byte)))
            }
            (Self::Record(fields), Value::Record(values)) => {
                Cell::Struct(fields.iter().zip(values).map(|(field, (_, value))| field.cell(value)).collect())
            }
            (Self::Array(item), Value::Array(items)) => {
                Cell::List(items.iter().map(|value| item.cell(value)).collect())
            }
            (Self::Map(inner), Value::Map(entries)) => {
                Cell::Map(entries.iter().map(|(key, value)| (key.clone(), inner.cell(value))).collect())
            }
            (Self::Optional(..) | Self::Union(_), Value::Union(_, value)) if **value == Value::Null => {
                Cell::Null
            }
            (Self::Optional(_, inner), Value::Union(_, value)) => inner.cell(value),
            (Self::Union(members), Value::Union(branch, value)) => Cell::Struct(
                members
                    .iter()
                    .zip(1..)
                    .map(|(member, index)| if index == *branch { member.cell(value) } else { Cell::Null })
                    .collect(),
            ),
            _ => panic!("the oracle read something else"),
        }
    }
}

/// What a table holds in one place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Number(i128),
    /// Bits, so that NaN equals itself.
    Float(u64),
    Bytes(Vec<u8>),
    Struct(Vec<Cell>),
    List(Vec<Cell>),
    Map(BTreeMap<String, Cell>),
}

pub(super) fn read(array: &ArrayRef, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    let number = |value: i64| Cell::Number(i128::from(value));
    match array.data_type() {
        DataType::Boolean => Cell::Number(i128::from(array.as_boolean().value(row))),
        DataType::Int32 => number(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Date32 => number(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Int64 => number(array.as_primitive::<Int64Type>().value(row)),
        DataType::Time64(_) => number(array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(..) => number(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Float32 => Cell::Float(f64::from(array.as_primitive::<Float32Type>().value(row)).to_bits()),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => Cell::Number(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => Cell::Bytes(array.as_string::<i32>().value(row).as_bytes().to_vec()),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        DataType::Struct(_) => {
            Cell::Struct(array.as_struct().columns().iter().map(|child| read(child, row)).collect())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List((0..items.len()).map(|item| read(&items, item)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else { panic!("two columns") };
            let key = |item| keys.as_string::<i32>().value(item).to_owned();
            Cell::Map((0..entries.len()).map(|item| (key(item), read(values, item))).collect())
        }
        other => panic!("no such column type: {other}"),
    }
}

/// SplitMix64: the values follow from one seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
