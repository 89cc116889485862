//! What a table takes from a JSON record, compiled once.
//!
//! | column | takes |
//! | --- | --- |
//! | boolean | `true`, `false` |
//! | int, long | whole numbers that fit, also as `1.0` or `1e3`; else `out_of_range` |
//! | float, double | numbers, the nearest value (else `out_of_range`); `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | decimal | numbers, also as strings, exactly; digits past the scale must be zeros, else `out_of_range` |
//! | decimal, by hint | numbers; strings as base64 of the unscaled number, big-endian |
//! | date | `"YYYY-MM-DD"`; whole numbers as days since 1970 |
//! | time | `"HH:MM:SS[.f]"`, UTC's offset allowed; whole numbers as milliseconds since midnight |
//! | timestamp | `"YYYY-MM-DDTHH:MM:SS[.f]"` without an offset; whole numbers as milliseconds since 1970 |
//! | timestamptz | RFC 3339 with its offset (forms in `time`); whole numbers as milliseconds since 1970 UTC |
//! | string | strings only |
//! | string, by hint | any value as its JSON text, exactly as written, strings with their quotes |
//! | uuid | its string forms (`bytes`); else `bad_length` |
//! | binary, fixed | base64, either alphabet, padding optional; fixed exactly its length, else `bad_length` |
//! | struct | an object, by this table's rules |
//! | list | an array |
//! | map of string | an object |
//!
//! A member that is missing or `null` is null, and `missing_field` where the column is required. A value of
//! another JSON type is `wrong_type`, a string that is no date or time is `bad_timestamp`. A member, or a key
//! of a map, that comes twice makes the record ambiguous: `malformed`. An unknown member is passed over or
//! `unknown_field`, as the table says. A record is one JSON object, or, where the table has the single column
//! `value`, any other value for that column; what follows it is `trailing_bytes`. Values nest at most 64
//! deep. The whole record must be UTF-8.

use std::sync::atomic::AtomicU32;

use siltstone_protocol::{ErrorCode, Field, PrimitiveType, Schema, Type};
use siltstone_spec::model::ExtraFields;

use super::{
    names::Names,
    schema::{BARE_COLUMN, DEPTH_MAX, Encoding, Hints},
};
use crate::{
    error::IngestError,
    trail::{ELEMENT, MAP_VALUE, dotted},
};

/// How to read the records of one table. Compiled once, shared freely.
#[derive(Debug)]
pub struct JsonProgram {
    pub(super) members: Members,
    pub(super) extra: ExtraFields,
    /// The column that takes a record which is not an object.
    pub(super) bare: Option<usize>,
    /// Objects too are the value of the bare column.
    pub(super) bare_objects: bool,
}

/// The columns of a table or the members of a struct.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) members: Box<[Member]>,
    pub(super) names: Names,
    /// By the member just read plus one (0 at the start): the member that followed it when last seen. A
    /// guess, so that producers which always write the same order never cost a look-up.
    pub(super) follows: Box<[AtomicU32]>,
}

#[derive(Debug)]
pub(super) struct Member {
    /// The name as JSON writes it, quotes included; of the engine's own column a byte that no token begins
    /// with.
    pub(super) quoted: Box<[u8]>,
    pub(super) item: Item,
}

/// A place for a value.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) required: bool,
    pub(super) plan: Plan,
}

/// How to read a value of a column.
#[derive(Debug)]
pub(super) enum Plan {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal { base64: bool },
    Date,
    Time,
    Timestamp,
    Timestamptz,
    String,
    RawJson,
    Uuid,
    Fixed,
    Binary,
    Struct(Members),
    List(Box<Item>),
    Map(Box<Item>),
}

impl JsonProgram {
    /// A program for records of which nothing is known but the table.
    pub fn compile(table: &Schema, extra: ExtraFields) -> Result<Self, IngestError> {
        Self::compile_with_hints(table, extra, &Hints::default())
    }

    /// A program for records of a JSON Schema: with the hints that came with its table schema. Hints for
    /// columns which the table no longer has, or has as another type, are passed over.
    pub fn compile_with_hints(
        table: &Schema,
        extra: ExtraFields,
        hints: &Hints,
    ) -> Result<Self, IngestError> {
        let members = Compiler { hints, path: Vec::new() }.members(&table.fields)?;
        let single = table.fields.len() == 1;
        let bare = table.fields.iter().position(|field| field.name == BARE_COLUMN);
        Ok(Self { members, extra, bare: bare.filter(|_| single || hints.bare), bare_objects: hints.bare })
    }
}

struct Compiler<'a> {
    hints: &'a Hints,
    path: Vec<String>,
}

impl Compiler<'_> {
    fn invalid(&self, why: &str) -> IngestError {
        IngestError::invalid(format!("column {}", dotted(&self.path)), why).coded(ErrorCode::SchemaRefused)
    }

    fn members(&mut self, fields: &[Field]) -> Result<Members, IngestError> {
        let mut members = Vec::with_capacity(fields.len());
        for field in fields {
            let quoted =
                serde_json::to_vec(&field.name).map_err(|_| IngestError::internal("a name is not JSON"))?;
            let item = self.item(&field.name, field.required, &field.data_type)?;
            members.push(Member { quoted: quoted.into(), item });
        }
        let names = Names::new(fields.iter().enumerate().map(|(index, field)| (field.name.as_str(), index)))
            .ok_or_else(|| self.invalid("two members have the same name"))?;
        let follows = (0..=fields.len()).map(|index| AtomicU32::new(u32::try_from(index).unwrap_or(0)));
        Ok(Members { members: members.into(), names, follows: follows.collect() })
    }

    fn item(&mut self, name: &str, required: bool, data_type: &Type) -> Result<Item, IngestError> {
        self.path.push(name.to_owned());
        if self.path.len() > DEPTH_MAX {
            return Err(self.invalid("it nests too deep"));
        }
        let plan = match data_type {
            Type::Primitive(primitive) => self.leaf(*primitive),
            Type::Struct(fields) => Plan::Struct(self.members(fields)?),
            Type::List { element_required, element, .. } => {
                Plan::List(Box::new(self.item(ELEMENT, *element_required, element)?))
            }
            Type::Map { key, value_required, value, .. } => {
                if **key != Type::Primitive(PrimitiveType::String) {
                    return Err(
                        self.invalid("the keys of a JSON object are strings, those of the map are not")
                    );
                }
                Plan::Map(Box::new(self.item(MAP_VALUE, *value_required, value)?))
            }
        };
        self.path.pop();
        Ok(Item { required, plan })
    }

    fn leaf(&self, primitive: PrimitiveType) -> Plan {
        let hint = self.hints.encodings.get(&self.path);
        match primitive {
            PrimitiveType::Boolean => Plan::Boolean,
            PrimitiveType::Int => Plan::Int,
            PrimitiveType::Long => Plan::Long,
            PrimitiveType::Float => Plan::Float,
            PrimitiveType::Double => Plan::Double,
            PrimitiveType::Decimal { .. } => Plan::Decimal { base64: hint == Some(&Encoding::Base64Decimal) },
            PrimitiveType::Date => Plan::Date,
            PrimitiveType::Time => Plan::Time,
            PrimitiveType::Timestamp => Plan::Timestamp,
            PrimitiveType::Timestamptz => Plan::Timestamptz,
            PrimitiveType::String if hint == Some(&Encoding::RawJson) => Plan::RawJson,
            PrimitiveType::String => Plan::String,
            PrimitiveType::Uuid => Plan::Uuid,
            PrimitiveType::Fixed(_) => Plan::Fixed,
            PrimitiveType::Binary => Plan::Binary,
        }
    }
}
