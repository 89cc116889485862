//! JSON Schema to table schema.
//!
//! | JSON Schema | column |
//! | --- | --- |
//! | `object` with `properties` | struct; required are those that `required` names and that cannot be null |
//! | `object` with only `additionalProperties` (or one `patternProperties`) | map of string to that schema |
//! | `array` with one schema of `items` | list |
//! | `integer` | long; int for `format: int32`, Connect's int8 to int32; decimal(20, 0) for `uint64` |
//! | `number` | double; float for `format: float`, Connect's float32 |
//! | `string` | string; by `format` date, time, uuid, `date-time` timestamptz, `local-date-time` timestamp |
//! | `string` with `contentEncoding` base64, `format: byte`, or Connect's bytes | binary |
//! | `string` or `number` with `format: decimal`, `scale` (and `precision`, default 38) | decimal |
//! | Connect's Decimal, Date, Time, Timestamp (`title`) | decimal of its scale, date, time, timestamptz |
//! | `boolean` | boolean |
//! | `enum` or `const` of strings, whole numbers, booleans | string, long, boolean |
//! | `oneOf`/`anyOf` with null, `type: [.., "null"]`, `nullable` | the same, optional |
//! | several types that have one in common (`integer` and `number`) | the wider one |
//! | anything else, or no type at all | string with the member's raw JSON text ([`Encoding::RawJson`]) |
//!
//! `minimum` and `maximum` do not choose a type: they say what is valid today, and a column outlives them.
//! `$ref`, `allOf` and the members next to them are read as one schema; where two say something different the
//! first wins. A `oneOf` next to `properties` is validation only. What is recursive is refused by name.
//! Absent on purpose: defaults, descriptions, titles and enum values, here and in every error.

use std::collections::BTreeMap;

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};
use siltstone_spec::evolve::assign_ids;

use super::{
    conjunction::Conjunction,
    ordered::Json,
    resolve::{Documents, Node},
};
use crate::{
    error::IngestError,
    registry::SchemaReference,
    trail::{ELEMENT, MAP_VALUE, dotted},
};

/// Values nest at most this deep, in schemas and in records.
pub(super) const DEPTH_MAX: usize = 64;
/// Bound on columns and nested fields together; references can multiply without end.
const FIELDS_MAX: usize = 10_000;
/// Name of the only column of a table whose records are not objects.
pub(super) const BARE_COLUMN: &str = "value";

/// What a JSON Schema knows about the records and a table schema cannot say. The decoder takes it beside the
/// table's schema; without it every record is an object, string columns take only strings, and decimals are
/// written out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// By path of names from the root, list elements as `[]` and map values as `{}`.
    pub encodings: BTreeMap<Vec<String>, Encoding>,
    /// The whole record is the value of the single column `value`.
    pub bare: bool,
}

/// How a value is written when its column's type alone does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A string column that takes any value as its JSON text, strings with their quotes.
    RawJson,
    /// A decimal column whose strings are base64 of the unscaled number, big-endian (Connect's default).
    Base64Decimal,
}

/// The table for records of this JSON Schema (drafts 4 to 2020-12), field ids assigned depth-first from 1.
pub fn table_schema(json_schema: &str, references: &[SchemaReference]) -> Result<Schema, IngestError> {
    table_schema_with_hints(json_schema, references).map(|(schema, _)| schema)
}

/// [`table_schema`], and what the decoder should know besides.
pub fn table_schema_with_hints(
    json_schema: &str,
    references: &[SchemaReference],
) -> Result<(Schema, Hints), IngestError> {
    let parse = |name: &str, text: &str| {
        Json::parse(text).ok_or_else(|| IngestError::schema_refused(name, "it is not a JSON document"))
    };
    let mut documents = Documents::new(parse("JSON Schema", json_schema)?);
    for reference in references {
        documents.add(&reference.name, parse(&format!("reference {}", reference.name), &reference.schema)?);
    }
    let mut mapper = Mapper {
        documents: &documents,
        active: Vec::new(),
        path: Vec::new(),
        fields: 0,
        hints: Hints::default(),
    };
    let root = documents.root().ok_or_else(|| IngestError::internal("no root document"))?;
    let mut fields = match mapper.map_root(root)? {
        Column { data_type: Type::Struct(fields), .. } => fields,
        Column { data_type, nullable } => {
            mapper.hints.bare = true;
            vec![Field::new(0, BARE_COLUMN, !nullable, data_type)]
        }
    };
    assign_ids(&mut fields, &mut 0);
    Ok((Schema::new(0, fields), mapper.hints))
}

/// The schema's title, which names the type of its records.
pub fn title(json_schema: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Titled {
        title: Option<serde_json::Value>,
    }
    let titled: Titled = serde_json::from_str(json_schema).ok()?;
    titled.title.as_ref().and_then(serde_json::Value::as_str).map(str::to_owned)
}

/// A mapped schema. Ids are assigned at the end, so that equal types compare equal.
struct Column {
    data_type: Type,
    nullable: bool,
}

impl Column {
    fn of(primitive: PrimitiveType) -> Self {
        Self { data_type: primitive.into(), nullable: false }
    }
}

struct Mapper<'a> {
    documents: &'a Documents,
    /// The schemas being mapped, outermost first.
    active: Vec<&'a Json>,
    /// Names from the root to what is being mapped.
    path: Vec<String>,
    fields: usize,
    hints: Hints,
}

impl<'a> Mapper<'a> {
    fn refuse(&self, why: &str) -> IngestError {
        match self.path.as_slice() {
            [] => IngestError::schema_refused("of JSON", why),
            path => IngestError::column_refused(dotted(path), why),
        }
    }

    fn map_root(&mut self, root: Node<'a>) -> Result<Column, IngestError> {
        let all = self.conjunction(root)?;
        if !all.properties().is_empty() || matches!(root.json, Json::Bool(_)) {
            return self.map(all);
        }
        // Anything below is a bare value: its paths begin with the name of its column.
        self.path.push(BARE_COLUMN.to_owned());
        let column = self.map(all);
        self.path.pop();
        column
    }

    fn map_node(&mut self, node: Node<'a>, name: &str) -> Result<Column, IngestError> {
        self.path.push(name.to_owned());
        let column = self.conjunction(node).and_then(|all| self.map(all));
        self.path.pop();
        column
    }

    /// The schema with its references and `allOf` members, flat.
    fn conjunction(&self, node: Node<'a>) -> Result<Conjunction<'a>, IngestError> {
        let mut all = Conjunction { nodes: Vec::new() };
        self.collect(node, &mut all, 0)?;
        Ok(all)
    }

    fn collect(&self, node: Node<'a>, all: &mut Conjunction<'a>, depth: usize) -> Result<(), IngestError> {
        if depth > DEPTH_MAX || all.nodes.len() > FIELDS_MAX {
            return Err(self.refuse("references nest too deep"));
        }
        all.nodes.push(node);
        if let Some(reference) = node.json.get("$ref").and_then(Json::as_str) {
            let target = self.documents.resolve(node.document, reference).ok_or_else(|| {
                self.refuse("a $ref points at nothing in the schema or its registry references")
            })?;
            let known = |known: &Json| std::ptr::eq(known, target.json);
            if self.active.iter().any(|active| known(active)) || all.nodes.iter().any(|node| known(node.json))
            {
                return Err(self.refuse("the schema is recursive, which no table can hold"));
            }
            self.collect(target, all, depth + 1)?;
        }
        for member in node.json.get("allOf").map_or(&[][..], Json::items) {
            self.collect(Node { document: node.document, json: member }, all, depth + 1)?;
        }
        Ok(())
    }

    fn map(&mut self, all: Conjunction<'a>) -> Result<Column, IngestError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(self.refuse("the schema has too many fields"));
        }
        if self.path.len() > DEPTH_MAX {
            return Err(self.refuse("the schema nests too deep"));
        }
        let outer = self.active.len();
        self.active.extend(all.nodes.iter().map(|node| node.json));
        let column = self.map_active(&all);
        self.active.truncate(outer);
        column
    }

    fn map_active(&mut self, all: &Conjunction<'a>) -> Result<Column, IngestError> {
        let (kinds, mut nullable) = all.kinds();
        let mut column = match kinds.as_slice() {
            [] => match all.union() {
                Some(branches) => self.map_union(&branches)?,
                None => self.map_untyped(all)?,
            },
            [only] => self.map_kind(only, all)?,
            ["integer", "number"] | ["number", "integer"] => self.map_kind("number", all)?,
            _ => self.raw_json(),
        };
        nullable |= all.union_has_null() || all.values().is_some_and(|values| values.contains(&&Json::Null));
        column.nullable |= nullable;
        Ok(column)
    }

    fn map_union(&mut self, branches: &[Node<'a>]) -> Result<Column, IngestError> {
        let before = self.hints.clone();
        let mut merged: Option<Column> = None;
        for branch in branches {
            let branch = self.conjunction(*branch)?;
            let column = self.map(branch)?;
            merged = match merged.take() {
                None => Some(column),
                Some(first) => match wider(&first.data_type, &column.data_type) {
                    Some(data_type) => Some(Column { data_type, nullable: first.nullable | column.nullable }),
                    None => {
                        self.hints = before;
                        let mut raw = self.raw_json();
                        raw.nullable = true;
                        return Ok(raw);
                    }
                },
            };
        }
        Ok(merged.unwrap_or_else(|| self.raw_json()))
    }

    /// No `type`: the other keywords may still tell.
    fn map_untyped(&mut self, all: &Conjunction<'a>) -> Result<Column, IngestError> {
        if !all.properties().is_empty() {
            return self.map_kind("object", all);
        }
        if all.get("items").is_some() {
            return self.map_kind("array", all);
        }
        let kind = all.values().and_then(|values| {
            let mut kinds =
                values.iter().filter(|value| !matches!(value, Json::Null)).map(|value| match value {
                    Json::String(_) => Some("string"),
                    Json::Number(Some(_)) => Some("integer"),
                    Json::Bool(_) => Some("boolean"),
                    _ => None,
                });
            let first = kinds.next()??;
            kinds.all(|kind| kind == Some(first)).then_some(first)
        });
        match kind {
            Some(kind) => self.map_kind(kind, all),
            None => Ok(Column { nullable: true, ..self.raw_json() }),
        }
    }

    fn map_kind(&mut self, kind: &str, all: &Conjunction<'a>) -> Result<Column, IngestError> {
        Ok(match kind {
            "object" => return self.map_object(all),
            "array" => return self.map_array(all),
            "boolean" => Column::of(PrimitiveType::Boolean),
            "integer" => match self.decimal(all)? {
                Some(decimal) => decimal,
                None => Column::of(integer(all)),
            },
            "number" => match self.decimal(all)? {
                Some(decimal) => decimal,
                None if all.text("format") == Some("float") || all.connect("float32") => {
                    Column::of(PrimitiveType::Float)
                }
                None => Column::of(PrimitiveType::Double),
            },
            "string" => match self.decimal(all)? {
                Some(decimal) => {
                    if all.text("format") != Some("decimal") {
                        self.hints.encodings.insert(self.path.clone(), Encoding::Base64Decimal);
                    }
                    decimal
                }
                None => Column::of(string(all)),
            },
            // Only null, or no type that JSON Schema knows.
            "null" => self.raw_json(),
            _ => return Err(self.refuse("a type is none of JSON Schema's")),
        })
    }

    fn map_object(&mut self, all: &Conjunction<'a>) -> Result<Column, IngestError> {
        let properties = all.properties();
        if properties.is_empty() {
            let Some(value) = all.map_values() else { return Ok(self.raw_json()) };
            let value = self.map_node(value, MAP_VALUE)?;
            let data_type = Type::Map {
                key_id: 0,
                key: Box::new(PrimitiveType::String.into()),
                value_id: 0,
                value_required: !value.nullable,
                value: Box::new(value.data_type),
            };
            return Ok(Column { data_type, nullable: false });
        }
        let mut fields = Vec::with_capacity(properties.len());
        for (name, nodes) in properties {
            if name.is_empty() {
                return Err(self.refuse("a property has an empty name"));
            }
            if nodes.iter().any(|node| matches!(node.json, Json::Bool(false))) {
                continue;
            }
            self.path.push(name.to_owned());
            let mut merged = Conjunction { nodes: Vec::new() };
            for node in nodes {
                self.collect(node, &mut merged, 0)?;
            }
            let column = self.map(merged)?;
            self.path.pop();
            let required = !column.nullable && all.requires(name);
            fields.push(Field::new(0, name, required, column.data_type));
        }
        if fields.is_empty() {
            return Ok(self.raw_json());
        }
        Ok(Column { data_type: Type::Struct(fields), nullable: false })
    }

    fn map_array(&mut self, all: &Conjunction<'a>) -> Result<Column, IngestError> {
        let items = all.get("items").filter(|node| !matches!(node.json, Json::Array(_) | Json::Bool(_)));
        let (Some(items), None) = (items, all.get("prefixItems")) else { return Ok(self.raw_json()) };
        let element = self.map_node(items, ELEMENT)?;
        let data_type = Type::List {
            element_id: 0,
            element_required: !element.nullable,
            element: Box::new(element.data_type),
        };
        Ok(Column { data_type, nullable: false })
    }

    /// A decimal, when the schema says so and gives the scale.
    fn decimal(&self, all: &Conjunction<'a>) -> Result<Option<Column>, IngestError> {
        let number = |found: Option<Node<'a>>| found.and_then(|node| node.json.as_whole());
        let (precision, scale) = if all.text("title") == Some("org.apache.kafka.connect.data.Decimal") {
            let parameter = |name| number(all.get("connect.parameters")?.member(name));
            let precision = parameter("connect.decimal.precision").or_else(|| parameter("precision"));
            (precision, parameter("scale").unwrap_or(0))
        } else if all.text("format") == Some("decimal") {
            let Some(scale) = number(all.get("scale")) else { return Ok(None) };
            (number(all.get("precision")), scale)
        } else {
            return Ok(None);
        };
        let fits = |number: i64| u8::try_from(number).ok().filter(|number| *number <= 38);
        match (fits(precision.unwrap_or(38)), fits(scale)) {
            (Some(precision), Some(scale)) if precision > 0 && scale <= precision => {
                Ok(Some(Column::of(PrimitiveType::Decimal { precision, scale })))
            }
            _ => {
                Err(self.refuse("a decimal's precision is not 1 to 38, or its scale not 0 to the precision"))
            }
        }
    }

    fn raw_json(&mut self) -> Column {
        self.hints.encodings.insert(self.path.clone(), Encoding::RawJson);
        Column { data_type: PrimitiveType::String.into(), nullable: false }
    }
}

fn integer(all: &Conjunction<'_>) -> PrimitiveType {
    match (all.text("title"), all.text("format")) {
        (Some("org.apache.kafka.connect.data.Date"), _) => PrimitiveType::Date,
        (Some("org.apache.kafka.connect.data.Time"), _) => PrimitiveType::Time,
        (Some("org.apache.kafka.connect.data.Timestamp"), _) => PrimitiveType::Timestamptz,
        (_, Some("int32")) => PrimitiveType::Int,
        (_, Some("uint64")) => PrimitiveType::Decimal { precision: 20, scale: 0 },
        _ if ["int8", "int16", "int32"].into_iter().any(|name| all.connect(name)) => PrimitiveType::Int,
        _ => PrimitiveType::Long,
    }
}

fn string(all: &Conjunction<'_>) -> PrimitiveType {
    let encoded = matches!(all.text("contentEncoding"), Some("base64" | "base64url"));
    match all.text("format") {
        _ if encoded || all.connect("bytes") => PrimitiveType::Binary,
        Some("byte") => PrimitiveType::Binary,
        Some("date-time") => PrimitiveType::Timestamptz,
        Some("local-date-time") => PrimitiveType::Timestamp,
        Some("date") => PrimitiveType::Date,
        Some("time") => PrimitiveType::Time,
        Some("uuid") => PrimitiveType::Uuid,
        _ => PrimitiveType::String,
    }
}

/// The type that holds the values of both.
fn wider(left: &Type, right: &Type) -> Option<Type> {
    use PrimitiveType::{Double, Float, Int, Long};
    if left == right {
        return Some(left.clone());
    }
    let (Type::Primitive(left), Type::Primitive(right)) = (left, right) else { return None };
    let number = |data_type: &PrimitiveType| matches!(data_type, Int | Long | Float | Double);
    let whole = |data_type: &PrimitiveType| matches!(data_type, Int | Long);
    match (left, right) {
        (left, right) if whole(left) && whole(right) => Some(Long.into()),
        (left, right) if number(left) && number(right) => Some(Double.into()),
        _ => None,
    }
}
