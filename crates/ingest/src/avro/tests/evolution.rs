//! Schemas as producers change them, by chance, against apache-avro: what its rules let a registry accept is never
//! refused but where no table format can follow, and every value comes out as its resolution gives it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};

use apache_avro::{
    Schema as Oracle, from_avro_datum, schema_compatibility::SchemaCompatibility, to_avro_datum, types::Value,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};
use siltstone_spec::evolve::{Merge, Mismatch, Rules, merge};

use super::model::{Cell, Random, read};
use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    Enum(usize),
    Record(Vec<Member>),
    Array(Box<Kind>),
    Map(Box<Kind>),
    Optional(Box<Kind>),
    /// Null and the first so many of string, long, boolean.
    Union(usize),
}

#[derive(Debug, Clone, PartialEq)]
struct Member {
    name: String,
    aliases: Vec<String>,
    /// Stays when the field is renamed: types are called after it.
    tag: u64,
    kind: Kind,
    has_default: bool,
}

const BRANCHES: [&str; 3] = ["string", "long", "boolean"];

impl Member {
    fn new(random: &mut Random, depth: u32) -> Self {
        let tag = random.next() % 100_000;
        let kind = Kind::new(random, depth);
        Self { name: format!("f{tag}"), aliases: Vec::new(), tag, kind, has_default: random.one_of(4) != 0 }
    }

    fn json(&self) -> Json {
        let mut field = json!({"name": self.name, "type": self.kind.json(&format!("T{}", self.tag))});
        if !self.aliases.is_empty() {
            field["aliases"] = json!(self.aliases);
        }
        if self.has_default {
            field["default"] = self.kind.default();
        }
        field
    }
}

impl Random {
    fn one_of(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

fn members(random: &mut Random, depth: u32) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..=random.one_of(4) {
        let member = Member::new(random, depth);
        if !members.iter().any(|known| known.tag == member.tag) {
            members.push(member);
        }
    }
    members
}

impl Kind {
    fn new(random: &mut Random, depth: u32) -> Self {
        let kinds = if depth == 0 { 9 } else { 13 };
        match random.one_of(kinds) {
            0 => Self::Boolean,
            1 | 8 => Self::Int,
            2 => Self::Long,
            3 => Self::Float,
            4 => Self::Double,
            5 => Self::Text,
            6 => Self::Bytes,
            7 => Self::Enum(1 + random.one_of(3) as usize),
            9 => Self::Record(members(random, depth - 1)),
            10 => Self::Array(Box::new(Self::new(random, depth - 1))),
            11 => Self::Map(Box::new(Self::new(random, depth - 1))),
            _ => match Self::new(random, depth - 1) {
                inner @ (Self::Optional(_) | Self::Union(_)) => inner,
                _ if random.one_of(3) == 0 => Self::Union(2),
                inner => Self::Optional(Box::new(inner)),
            },
        }
    }

    fn json(&self, name: &str) -> Json {
        match self {
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Text => json!("string"),
            Self::Bytes => json!("bytes"),
            Self::Enum(count) => {
                let symbols: Vec<_> = (0..*count).map(|symbol| format!("S{symbol}")).collect();
                json!({"type": "enum", "name": name, "symbols": symbols, "default": "S0"})
            }
            Self::Record(members) => {
                let fields: Vec<_> = members.iter().map(Member::json).collect();
                json!({"type": "record", "name": name, "fields": fields})
            }
            Self::Array(item) => json!({"type": "array", "items": item.json(&format!("{name}i"))}),
            Self::Map(value) => json!({"type": "map", "values": value.json(&format!("{name}v"))}),
            Self::Optional(inner) => json!(["null", inner.json(&format!("{name}o"))]),
            Self::Union(count) => {
                let branches = std::iter::once("null").chain(BRANCHES.into_iter().take(*count));
                json!(branches.collect::<Vec<_>>())
            }
        }
    }

    fn default(&self) -> Json {
        match self {
            Self::Boolean => json!(false),
            Self::Int | Self::Long => json!(0),
            Self::Float | Self::Double => json!(0.5),
            Self::Text | Self::Bytes => json!(""),
            Self::Enum(_) => json!("S0"),
            Self::Record(members) => members
                .iter()
                .map(|member| (member.name.clone(), member.kind.default()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Self::Array(_) => json!([]),
            Self::Map(_) => json!({}),
            Self::Optional(_) | Self::Union(_) => Json::Null,
        }
    }

    fn value(&self, random: &mut Random) -> Value {
        let number = random.next();
        match self {
            Self::Boolean => Value::Boolean(number.is_multiple_of(2)),
            Self::Int => Value::Int(number as i32),
            Self::Long => Value::Long(number as i64),
            Self::Float => Value::Float(number as i16 as f32 / 8.0),
            Self::Double => Value::Double(number as i64 as f64 / 3.0),
            Self::Text => Value::String(format!("t{}", number % 1000)),
            Self::Bytes => Value::Bytes(format!("b{}", number % 1000).into_bytes()),
            Self::Enum(count) => {
                let symbol = number as usize % count;
                Value::Enum(symbol as u32, format!("S{symbol}"))
            }
            Self::Record(members) => Value::Record(
                members.iter().map(|member| (member.name.clone(), member.kind.value(random))).collect(),
            ),
            Self::Array(item) => Value::Array((0..number % 3).map(|_| item.value(random)).collect()),
            Self::Map(value) => {
                let entries = (0..number % 3).map(|key| (format!("k{key}"), value.value(random)));
                Value::Map(entries.collect::<HashMap<_, _>>())
            }
            Self::Optional(_) | Self::Union(_) if number.is_multiple_of(3) => {
                Value::Union(0, Box::new(Value::Null))
            }
            Self::Optional(inner) => Value::Union(1, Box::new(inner.value(random))),
            Self::Union(count) => {
                let branch = 1 + (number as usize / 3) % count;
                let value = match branch {
                    1 => Value::String(format!("u{}", number % 1000)),
                    2 => Value::Long(number as i64),
                    _ => Value::Boolean(number.is_multiple_of(2)),
                };
                Value::Union(branch as u32, Box::new(value))
            }
        }
    }

    /// One step of what producers do, somewhere.
    fn change(&mut self, random: &mut Random) {
        let wild = random.one_of(12) == 0;
        *self = match std::mem::replace(self, Self::Int) {
            Self::Record(mut members) => {
                change_record(&mut members, random);
                Self::Record(members)
            }
            _ if wild => Self::new(random, 1),
            Self::Array(mut item) => {
                item.change(random);
                Self::Array(item)
            }
            Self::Map(mut value) => {
                value.change(random);
                Self::Map(value)
            }
            Self::Optional(mut inner) if random.one_of(4) != 0 => {
                match random.one_of(4) {
                    0 if *inner == Self::Text => return *self = Self::Union(2),
                    _ => inner.change(random),
                }
                match *inner {
                    union @ (Self::Optional(_) | Self::Union(_)) => union,
                    _ => Self::Optional(inner),
                }
            }
            Self::Optional(inner) => *inner,
            Self::Union(count) => Self::Union(if count == 2 { 3 } else { 2 }),
            Self::Enum(count) => Self::Enum(count + 1),
            kind if random.one_of(2) == 0 => Self::Optional(Box::new(kind)),
            Self::Int => {
                [Self::Long, Self::Long, Self::Float, Self::Double][random.one_of(4) as usize].clone()
            }
            Self::Long => [Self::Int, Self::Double][random.one_of(2) as usize].clone(),
            Self::Float => Self::Double,
            Self::Double => Self::Float,
            Self::Text => Self::Bytes,
            Self::Bytes => Self::Text,
            kind => kind,
        };
    }
}

fn change_record(members: &mut Vec<Member>, random: &mut Random) {
    let at = random.one_of(members.len() as u64) as usize;
    match random.one_of(6) {
        0 => {
            let added = Member::new(random, 1);
            if !members.iter().any(|known| known.tag == added.tag) {
                members.insert(at, added);
            }
        }
        1 if members.len() > 1 => drop(members.remove(at)),
        2 => {
            let member = &mut members[at];
            let old = std::mem::replace(&mut member.name, format!("f{}_{}", member.tag, random.one_of(1000)));
            member.aliases.push(old);
        }
        3 => members.rotate_left(at),
        _ => members[at].kind.change(random),
    }
}

/// What a column holds for a value that apache-avro read by the writer's schema: each leaf by its resolution.
fn cell(value: &Value, writer: &Oracle, column: &Type) -> Cell {
    match (value, writer, column) {
        (Value::Null, ..) => Cell::Null,
        (Value::Union(branch, value), Oracle::Union(union), column) => {
            if **value == Value::Null {
                return Cell::Null;
            }
            let schema = &union.variants()[*branch as usize];
            let several = union.variants().iter().filter(|branch| **branch != Oracle::Null).count() > 1;
            let Type::Struct(members) = column else { return cell(value, schema, column) };
            if !several {
                return cell(value, schema, column);
            }
            let name = BRANCHES[*branch as usize - 1];
            let member = |member: &Field| match member.name == name {
                true => cell(value, schema, &member.data_type),
                false => Cell::Null,
            };
            Cell::Struct(members.iter().map(member).collect())
        }
        (Value::Record(values), Oracle::Record(record), Type::Struct(members)) => {
            Cell::Struct(row(values, record, members))
        }
        (Value::Array(items), Oracle::Array(of), Type::List { element, .. }) => {
            Cell::List(items.iter().map(|item| cell(item, &of.items, element)).collect())
        }
        (Value::Map(entries), Oracle::Map(of), Type::Map { value: column, .. }) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), cell(value, &of.types, column)));
            Cell::Map(entries.collect::<BTreeMap<_, _>>())
        }
        (value, _, Type::Primitive(column)) => leaf(value, *column),
        _ => panic!("a value that does not fit its column"),
    }
}

fn row(
    values: &[(String, Value)],
    writer: &apache_avro::schema::RecordSchema,
    columns: &[Field],
) -> Vec<Cell> {
    let value = |column: &Field| {
        let found = values.iter().zip(&writer.fields).find(|((name, _), _)| *name == column.name);
        found.map_or(Cell::Null, |((_, value), field)| cell(value, &field.schema, &column.data_type))
    };
    columns.iter().map(value).collect()
}

/// Stands for a whole number that a column of fractions would round, where Avro's resolution does. Such records are
/// rejected.
const ROUNDED: &[u8] = b"rounded";

fn is_rounded(value: &Value, column: PrimitiveType) -> bool {
    let number = match value {
        Value::Int(number) => i64::from(*number),
        Value::Long(number) => *number,
        _ => return false,
    };
    match column {
        PrimitiveType::Float => number as f32 as i128 != i128::from(number),
        PrimitiveType::Double => number as f64 as i128 != i128::from(number),
        _ => false,
    }
}

fn has_rounded(cell: &Cell) -> bool {
    match cell {
        Cell::Bytes(bytes) => bytes == ROUNDED,
        Cell::Struct(cells) | Cell::List(cells) => cells.iter().any(has_rounded),
        Cell::Map(entries) => entries.values().any(has_rounded),
        _ => false,
    }
}

fn leaf(value: &Value, column: PrimitiveType) -> Cell {
    let (name, value) = match (column, value.clone()) {
        (PrimitiveType::Binary, Value::Enum(_, symbol)) => ("bytes", Value::Bytes(symbol.into_bytes())),
        (PrimitiveType::Boolean, value) => ("boolean", value),
        (PrimitiveType::Int, value) => ("int", value),
        (PrimitiveType::Long, value) => ("long", value),
        (PrimitiveType::Float, value) => ("float", value),
        (PrimitiveType::Double, value) => ("double", value),
        (PrimitiveType::String, Value::Enum(_, symbol)) => ("string", Value::String(symbol)),
        (PrimitiveType::String, value) => ("string", value),
        (PrimitiveType::Binary, value) => ("bytes", value),
        (other, _) => panic!("no such column: {other}"),
    };
    if is_rounded(&value, column) {
        return Cell::Bytes(ROUNDED.to_vec());
    }
    match value.resolve(&Oracle::parse_str(&format!("\"{name}\"")).unwrap()).unwrap() {
        Value::Boolean(bit) => Cell::Number(i128::from(bit)),
        Value::Int(number) => Cell::Number(i128::from(number)),
        Value::Long(number) => Cell::Number(i128::from(number)),
        Value::Float(number) => Cell::Float(f64::from(number).to_bits()),
        Value::Double(number) => Cell::Float(number.to_bits()),
        Value::String(text) => Cell::Bytes(text.into_bytes()),
        Value::Bytes(bytes) => Cell::Bytes(bytes),
        other => panic!("no leaf: {other:?}"),
    }
}

/// What Avro's rules allow and neither Iceberg nor Delta can show: whole numbers that become fractions, and a type that
/// becomes one of several, or back.
fn is_documented(mismatch: &Mismatch) -> bool {
    let whole = ["int", "long"].contains(&mismatch.column.as_str());
    let fraction = ["float", "double"].contains(&mismatch.records.as_str());
    (whole && fraction) || (mismatch.column == "struct") != (mismatch.records == "struct")
}

struct Version {
    kind: Kind,
    oracle: Oracle,
    writer: AvroSchema,
    table: Schema,
}

impl Version {
    fn new(kind: Kind) -> Self {
        let text = kind.json("Row").to_string();
        let writer = AvroSchema::parse(&text, []).unwrap();
        let table = table_schema(&writer).unwrap();
        Self { oracle: Oracle::parse_str(&text).unwrap(), writer, table, kind }
    }
}

fn chain(seed: u64, versions: usize) -> Vec<Version> {
    let mut random = Random(seed);
    let mut kind = Kind::Record(members(&mut random, 2));
    let mut chain = vec![Version::new(kind.clone())];
    while chain.len() < versions {
        for _ in 0..=random.one_of(3) {
            kind.change(&mut random);
        }
        chain.push(Version::new(kind.clone()));
    }
    chain
}

const ICEBERG: Rules =
    Rules { renames: true, widens: true, grows_in_maps: true, variants: false, last_field_id: 0 };

fn rules() -> impl Strategy<Value = Rules> {
    any::<(bool, bool)>().prop_map(|(iceberg, variants)| Rules {
        renames: iceberg,
        widens: iceberg,
        grows_in_maps: iceberg,
        variants,
        last_field_id: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// BACKWARD: the newer schema reads records of the older one. FORWARD: the other way round.
    #[test]
    fn what_a_registry_accepts_is_not_refused(seed: u64) {
        let versions = chain(seed, 2);
        let [old, new] = versions.as_slice() else { panic!("two versions") };
        let backward = SchemaCompatibility::can_read(&old.oracle, &new.oracle).is_ok();
        let forward = SchemaCompatibility::can_read(&new.oracle, &old.oracle).is_ok();
        if let (true, Merge::Refused(mismatch)) = (backward || forward, merge(&old.table, &new.table, ICEBERG)) {
            prop_assert!(is_documented(&mismatch), "{}: {mismatch}", mismatch.field);
        }
    }

    /// Records of all versions of a chain, in turn, in one table that followed as they came.
    #[test]
    fn values_survive_every_change(seed: u64, rules in rules(), seeds in prop::collection::vec(any::<u64>(), 4)) {
        let versions = chain(seed, 5);
        let mut table = versions[0].table.clone();
        for _ in 0..4 {
            for version in &versions {
                if let Merge::Evolves(evolved) = merge(&table, &version.table, rules) {
                    table = evolved;
                }
            }
        }
        let mut columns = Columns::new(&table).unwrap();
        let mut expected = Vec::new();
        for seed in seeds {
            for version in &versions {
                let view = match merge(&table, &version.table, rules) {
                    Merge::Same { view } => view,
                    Merge::Refused(_) if !rules.variants => continue,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                let program = AvroProgram::compile(&version.writer, &view).unwrap();
                let bytes = to_avro_datum(&version.oracle, version.kind.value(&mut Random(seed))).unwrap();
                let decoded = program.decode(&mut columns, &bytes);
                let oracle = from_avro_datum(&version.oracle, &mut bytes.as_slice(), None).unwrap();
                let (Value::Record(values), Oracle::Record(record)) = (oracle, &version.oracle) else {
                    panic!("a record")
                };
                let row = row(&values, record, &view.fields);
                if row.iter().any(has_rounded) {
                    prop_assert_eq!(decoded, Err(RejectReason::OutOfRange));
                    continue;
                }
                prop_assert_eq!(decoded, Ok(()));
                expected.push(row);
            }
        }
        let batch = columns.finish().unwrap();
        for (index, expected) in expected.iter().enumerate() {
            let found: Vec<_> = batch.columns().iter().map(|column| read(column, index)).collect();
            prop_assert_eq!(&found, expected);
        }
    }
}
