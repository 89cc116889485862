#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StructArray},
    datatypes::{DataType, FieldRef},
};
use proptest::prelude::*;
use protox::{
    prost::Message,
    prost_reflect::{
        DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
    },
};
use siltstone_protocol::{Field, Type};

use super::shown::{Case, list, map, members, plain, row, schema};
use crate::{
    columns::Columns,
    protobuf::{ProtobufProgram, table_schema},
};

const NEW: &str = include_str!("new.proto");
const OLD: &str = include_str!("old.proto");

/// SplitMix64: the values follow from one seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Small numbers, all numbers, the extremes.
    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(4),
            1 => u64::MAX - self.below(4),
            2 => self.next() >> self.below(64),
            _ => 1 << self.below(64),
        }
    }

    fn text(&mut self) -> String {
        let length = self.below(5);
        (0..length).map(|_| ['a', '"', 'ß', '\n', '𝄞', '\\'][self.below(6) as usize]).collect()
    }

    fn message(&mut self, of: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        match of.full_name() {
            "google.protobuf.Timestamp" => {
                let seconds = self.bits().cast_signed() % 62_135_596_800;
                message.set_field_by_name("seconds", Value::I64(seconds));
                message.set_field_by_name("nanos", Value::I32(self.below(1_000_000_000) as i32));
                return message;
            }
            "google.protobuf.Duration" => {
                // Of one sign, so that pieces which are merged agree.
                let seconds = (self.bits() % 315_576_000_000).cast_signed();
                message.set_field_by_name("seconds", Value::I64(seconds));
                message.set_field_by_name("nanos", Value::I32(self.below(1_000_000_000) as i32));
                return message;
            }
            _ => {}
        }
        for field in of.fields() {
            let wanted = field.is_required() || self.below(3) > 0;
            if !wanted || depth == 0 && matches!(field.kind(), Kind::Message(_)) && !field.is_required() {
                continue;
            }
            let value = if field.is_map() {
                let Kind::Message(entry) = field.kind() else { panic!("an entry") };
                let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
                let entries = (0..self.below(12)).map(|_| {
                    let key = self.value(&key, depth).into_map_key().unwrap();
                    (key, self.value(&value, depth))
                });
                Value::Map(entries.collect())
            } else if field.is_list() {
                Value::List((0..self.below(4)).map(|_| self.value(&field, depth)).collect())
            } else {
                self.value(&field, depth)
            };
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let bits = self.bits();
        match field.kind() {
            Kind::Bool => Value::Bool(bits & 1 == 1),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(bits as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(bits.cast_signed()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(bits),
            Kind::Float => Value::F32(f32::from_bits(bits as u32)),
            // In google.protobuf.Value it must be finite.
            Kind::Double if field.name() == "number_value" => Value::F64(bits.cast_signed() as f64 / 8.0),
            Kind::Double => Value::F64(f64::from_bits(bits)),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(self.text().into_bytes().into()),
            Kind::Enum(of) if of.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
            Kind::Enum(of) => {
                let known: Vec<i32> = of.values().map(|value| value.number()).collect();
                let unknown = self.below(8) == 0;
                Value::EnumNumber(if unknown { bits as i32 } else { known[bits as usize % known.len()] })
            }
            Kind::Message(of) => Value::Message(self.message(&of, depth.saturating_sub(1))),
        }
    }
}

/// The row that a message should become.
fn expected(message: &DynamicMessage) -> String {
    let of = message.descriptor();
    // An empty message has no column.
    let empty = |field: &FieldDescriptor| match field.kind() {
        Kind::Message(of) => of.fields().len() == 0,
        _ => false,
    };
    let mut fields: Vec<FieldDescriptor> = of.fields().filter(|field| !empty(field)).collect();
    fields.sort_by_key(|field| {
        of.descriptor_proto().field.iter().position(|one| one.name() == field.name()).unwrap()
    });
    members(fields.iter().map(|field| {
        let value = message.get_field(field);
        let shown = if field.supports_presence() && !message.has_field(field) {
            "null".to_owned()
        } else {
            match value.as_ref() {
                Value::List(items) => list(items.iter().map(|item| one(&field.kind(), item))),
                Value::Map(entries) => {
                    let Kind::Message(entry) = field.kind() else { panic!("an entry") };
                    let kind = entry.map_entry_value_field().kind();
                    map(entries.iter().map(|(key, value)| {
                        let key = match key {
                            MapKey::Bool(key) => plain(key),
                            MapKey::I32(key) => plain(key),
                            MapKey::I64(key) => plain(key),
                            MapKey::U32(key) => plain(key),
                            MapKey::U64(key) => plain(key),
                            MapKey::String(key) => plain(key),
                        };
                        (key, one(&kind, value))
                    }))
                }
                value => one(&field.kind(), value),
            }
        };
        (field.name().to_owned(), shown)
    }))
}

fn one(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Bool(value)) => plain(value),
        (_, Value::I32(value)) => plain(value),
        (_, Value::I64(value)) => plain(value),
        (_, Value::U32(value)) => plain(value),
        (_, Value::U64(value)) => plain(value),
        (_, Value::F32(value)) => plain(value),
        (_, Value::F64(value)) => plain(value),
        (_, Value::String(value)) => plain(value),
        (_, Value::Bytes(value)) => plain(value.to_vec()),
        (Kind::Enum(of), Value::EnumNumber(number)) => {
            plain(of.get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_owned()))
        }
        (_, Value::Message(message)) => {
            let of = message.descriptor();
            let number = |name: &str| match message.get_field_by_name(name).unwrap().as_ref() {
                Value::I64(value) => *value,
                Value::I32(value) => i64::from(*value),
                _ => panic!("a number"),
            };
            match of.full_name() {
                "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                    let nanos = i128::from(number("seconds")) * 1_000_000_000 + i128::from(number("nanos"));
                    plain(nanos.div_euclid(1000))
                }
                "google.protobuf.FieldMask" => {
                    let paths = message.get_field_by_name("paths").unwrap();
                    list(paths.as_list().unwrap().iter().map(|path| one(&Kind::String, path)))
                }
                "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
                    plain(json(message))
                }
                name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                    let field = of.get_field(1).unwrap();
                    one(&field.kind(), message.get_field(&field).as_ref())
                }
                _ => expected(message),
            }
        }
        _ => panic!("no such value"),
    }
}

fn json(message: &DynamicMessage) -> String {
    match message.descriptor().name() {
        "Struct" => {
            let fields = message.get_field_by_name("fields").unwrap();
            let mut members: Vec<_> = fields.as_map().unwrap().iter().collect();
            members.sort_by_key(|(name, _)| name.as_str().unwrap().to_owned());
            let text = |(name, value): (&MapKey, &Value)| {
                let name = serde_json::to_string(name.as_str().unwrap()).unwrap();
                format!("{name}:{}", json(value.as_message().unwrap()))
            };
            format!("{{{}}}", members.into_iter().map(text).collect::<Vec<_>>().join(","))
        }
        "ListValue" => {
            let values = message.get_field_by_name("values").unwrap();
            list(values.as_list().unwrap().iter().map(|value| json(value.as_message().unwrap())))
        }
        _ => {
            let Some((field, value)) = message.fields().next() else { return "null".to_owned() };
            match (field.number(), value) {
                (2, Value::F64(number))
                    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 =>
                {
                    (*number as i64).to_string()
                }
                (2, Value::F64(number)) => serde_json::to_string(number).unwrap(),
                (3, Value::String(text)) => serde_json::to_string(text).unwrap(),
                (4, Value::Bool(value)) => value.to_string(),
                (5 | 6, Value::Message(inner)) => json(inner),
                _ => "null".to_owned(),
            }
        }
    }
}

/// Some of the columns, and of the members of structs.
fn some_of(fields: &[Field], random: &mut Random) -> Vec<Field> {
    let mut some = Vec::new();
    for field in fields {
        let mut field = field.clone();
        if let Type::Struct(members) = &mut field.data_type {
            *members = some_of(members, random);
            if members.is_empty() {
                continue;
            }
        }
        if random.below(2) == 0 {
            some.push(field);
        }
    }
    some
}

/// The column with those members alone that this type has.
fn only(column: &ArrayRef, like: &DataType) -> ArrayRef {
    let DataType::Struct(fields) = like else { return Arc::clone(column) };
    let all = column.as_struct();
    let one = |field: &FieldRef| only(all.column_by_name(field.name()).unwrap(), field.data_type());
    let members = fields.iter().map(one).collect();
    Arc::new(StructArray::new(fields.clone(), members, all.nulls().cloned()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// What prost-reflect reads is what the columns hold; also of messages in several pieces.
    #[test]
    fn columns_hold_what_the_oracle_reads(
        old in any::<bool>(),
        seeds in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..4), 1..12),
    ) {
        let schema = schema(if old { OLD } else { NEW }, None);
        let of = schema.message().clone();
        let mut case = Case::of(&schema);
        let mut rows = Vec::new();
        for pieces in seeds {
            let pieces = pieces.iter().map(|seed| Random(*seed).message(&of, 4).encode_to_vec());
            let bytes = pieces.collect::<Vec<_>>().concat();
            rows.push(expected(&DynamicMessage::decode(of.clone(), bytes.as_slice()).unwrap()));
            prop_assert_eq!(case.decode(&bytes), Ok(()));
        }
        let batch = case.columns.finish().unwrap();
        for (index, expected) in rows.iter().enumerate() {
            prop_assert_eq!(&row(&batch, index), expected);
        }
    }

    /// A program for some of the columns, and of the members of messages, reads the same of those; also of messages in
    /// several pieces.
    #[test]
    fn fields_without_a_column_are_passed_over(
        choice in any::<u64>(),
        seeds in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..4), 1..8),
    ) {
        let schema = schema(NEW, None);
        let of = schema.message().clone();
        let mut case = Case::of(&schema);
        let (mut table, mut random) = (table_schema(&schema).unwrap(), Random(choice));
        table.fields = some_of(&table.fields, &mut random);
        let mut program = ProtobufProgram::compile_some(&schema, &table).unwrap();
        let mut columns = Columns::new(&table).unwrap();
        for pieces in seeds {
            let pieces = pieces.iter().map(|seed| Random(*seed).message(&of, 4).encode_to_vec());
            let bytes = pieces.collect::<Vec<_>>().concat();
            prop_assert_eq!(case.decode(&bytes), Ok(()));
            prop_assert_eq!(program.decode(&mut columns, &bytes), Ok(()));
        }
        let (all, some) = (case.columns.finish().unwrap(), columns.finish().unwrap());
        for (field, column) in table.fields.iter().zip(some.columns()) {
            let expected = only(all.column_by_name(&field.name).unwrap(), column.data_type());
            prop_assert_eq!(&expected, column);
        }
    }

    /// Broken records anywhere among good ones: the batch is that of the good ones alone.
    #[test]
    fn broken_records_leave_no_trace(
        records in prop::collection::vec((any::<u64>(), prop::option::of(any::<(u16, u8)>())), 1..20),
    ) {
        let schema = schema(NEW, None);
        let of = schema.message().clone();
        let (mut all, mut good) = (Case::of(&schema), Case::of(&schema));
        for (seed, corruption) in records {
            let mut bytes = Random(seed).message(&of, 3).encode_to_vec();
            if let Some((at, byte)) = corruption {
                match at as usize % (bytes.len() + 1) {
                    at if at < bytes.len() && byte % 2 == 0 => bytes.truncate(at),
                    at if at < bytes.len() => bytes[at] ^= byte,
                    _ => bytes.push(byte),
                }
            }
            let before = all.columns.rows();
            if all.decode(&bytes).is_ok() {
                prop_assert_eq!(good.decode(&bytes), Ok(()));
                // Whoever is stricter: what we take, the oracle takes.
                prop_assert!(DynamicMessage::decode(of.clone(), bytes.as_slice()).is_ok());
            } else {
                prop_assert_eq!(all.columns.rows(), before);
            }
        }
        prop_assert_eq!(all.columns.finish().unwrap(), good.columns.finish().unwrap());
    }

    #[test]
    fn any_bytes_are_a_row_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut case = Case::new(NEW);
        let rows = usize::from(case.decode(&bytes).is_ok());
        prop_assert_eq!(case.columns.finish().unwrap().num_rows(), rows);
    }
}
