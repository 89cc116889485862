//! Table schemas in Iceberg's types and Iceberg's JSON form (table spec, appendix C).
//!
//! Names, types, ids and nullability: no documentation, no defaults, no enum symbols, because
//! those can hold what must not leave.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A table schema: the columns and their field ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schema {
    /// Always `struct`: Iceberg's form.
    #[serde(rename = "type", default)]
    tag: StructTag,
    /// Id of the schema; files name theirs.
    pub schema_id: i32,
    /// The columns.
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StructTag {
    #[default]
    Struct,
}

impl Schema {
    /// A schema of these columns. Ids must be unique over all nesting levels and positive.
    pub fn new(schema_id: i32, fields: Vec<Field>) -> Self {
        Self { tag: StructTag::Struct, schema_id, fields }
    }

    /// The largest field id in use at any depth, 0 when there is none.
    pub fn last_field_id(&self) -> i32 {
        let mut last = 0;
        self.visit(&mut |id| last = last.max(id));
        last
    }

    /// The schema without what only writers go by: what readers of Iceberg know.
    #[must_use]
    pub fn for_readers(&self) -> Self {
        fn fields(of: &[Field]) -> Vec<Field> {
            let plain =
                |field: &Field| Field::new(field.id, &field.name, field.required, inside(&field.data_type));
            of.iter().map(plain).collect()
        }
        fn inside(of: &Type) -> Type {
            match of.clone() {
                Type::Primitive(primitive) => primitive.into(),
                Type::Struct(members) => Type::Struct(fields(&members)),
                Type::List { element_id, element_required, element } => {
                    Type::List { element_id, element_required, element: Box::new(inside(&element)) }
                }
                Type::Map { key_id, key, value_id, value_required, value } => {
                    Type::Map { key_id, key, value_id, value_required, value: Box::new(inside(&value)) }
                }
            }
        }
        Self::new(self.schema_id, fields(&self.fields))
    }

    /// Calls `visit` with every field id: columns, struct members, list elements, map keys and values.
    pub fn visit(&self, visit: &mut dyn FnMut(i32)) {
        for field in &self.fields {
            visit(field.id);
            field.data_type.visit(visit);
        }
    }

    /// The top-level column of this name.
    pub fn column(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The column or struct member with this id, and its path from the root (not inside lists or maps).
    pub fn path_of(&self, id: i32) -> Option<Vec<&Field>> {
        fn search<'a>(fields: &'a [Field], id: i32, path: &mut Vec<&'a Field>) -> bool {
            for field in fields {
                path.push(field);
                if field.id == id {
                    return true;
                }
                if let Type::Struct(members) = &field.data_type
                    && search(members, id, path)
                {
                    return true;
                }
                path.pop();
            }
            false
        }
        let mut path = Vec::new();
        search(&self.fields, id, &mut path).then_some(path)
    }

    /// The column or struct member at this dotted path, by names, or by aliases where nothing bears the name.
    pub fn field_at(&self, path: &str) -> Option<&Field> {
        let mut fields = &self.fields;
        let mut parts = path.split('.').peekable();
        loop {
            let part = parts.next()?;
            let field = Field::of_name(fields, part)?;
            if parts.peek().is_none() {
                return Some(field);
            }
            let Type::Struct(members) = &field.data_type else { return None };
            fields = members;
        }
    }
}

/// A column or a struct member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Field {
    /// Field id: stays when a column is renamed.
    pub id: i32,
    /// The column's name.
    pub name: String,
    /// False: a row may have null there.
    pub required: bool,
    /// The column's type.
    #[serde(rename = "type")]
    pub data_type: Type,
    /// Other names by which records may call it: names that it had, and aliases in the schemas of records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Id of the field beside it whose values it takes when they are of this type instead of that field's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant_of: Option<i32>,
    /// Number of the Protobuf field whose values it takes, by which a new name of that field is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

impl Field {
    pub fn new(id: i32, name: impl Into<String>, required: bool, data_type: Type) -> Self {
        Self {
            id,
            name: name.into(),
            required,
            data_type,
            aliases: Vec::new(),
            variant_of: None,
            number: None,
        }
    }

    pub fn required(id: i32, name: impl Into<String>, data_type: Type) -> Self {
        Self::new(id, name, true, data_type)
    }

    pub fn optional(id: i32, name: impl Into<String>, data_type: Type) -> Self {
        Self::new(id, name, false, data_type)
    }

    /// True when records may call it so: by its name or an alias.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// The field of this name; where none bears it, the one that has it as an alias. A variant takes nothing by alias.
    pub fn of_name<'f>(fields: &'f [Self], name: &str) -> Option<&'f Self> {
        let called = |field: &&Self| field.variant_of.is_none() && field.is_called(name);
        fields.iter().find(|field| field.name == name).or_else(|| fields.iter().find(called))
    }
}

/// A column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Primitive(PrimitiveType),
    Struct(Vec<Field>),
    List { element_id: i32, element_required: bool, element: Box<Type> },
    Map { key_id: i32, key: Box<Type>, value_id: i32, value_required: bool, value: Box<Type> },
}

impl Type {
    /// How many members structs in it have, at every depth.
    pub fn count_members(&self) -> usize {
        match self {
            Self::Primitive(_) => 0,
            Self::Struct(members) => members.iter().map(|member| 1 + member.data_type.count_members()).sum(),
            Self::List { element, .. } => element.count_members(),
            Self::Map { key, value, .. } => key.count_members() + value.count_members(),
        }
    }
}

impl Type {
    fn visit(&self, visit: &mut dyn FnMut(i32)) {
        match self {
            Self::Primitive(_) => {}
            Self::Struct(fields) => {
                for field in fields {
                    visit(field.id);
                    field.data_type.visit(visit);
                }
            }
            Self::List { element_id, element, .. } => {
                visit(*element_id);
                element.visit(visit);
            }
            Self::Map { key_id, key, value_id, value, .. } => {
                visit(*key_id);
                key.visit(visit);
                visit(*value_id);
                value.visit(visit);
            }
        }
    }
}

impl From<PrimitiveType> for Type {
    fn from(primitive: PrimitiveType) -> Self {
        Self::Primitive(primitive)
    }
}

/// Iceberg's primitive types. Times and timestamps are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrimitiveType {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Date,
    Time,
    Timestamp,
    Timestamptz,
    String,
    Uuid,
    Fixed(u32),
    Binary,
}

impl fmt::Display for PrimitiveType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Timestamptz => f.write_str("timestamptz"),
            Self::String => f.write_str("string"),
            Self::Uuid => f.write_str("uuid"),
            Self::Fixed(length) => write!(f, "fixed[{length}]"),
            Self::Binary => f.write_str("binary"),
        }
    }
}

/// The text is not a primitive type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a primitive type")]
pub struct ParseTypeError;

impl FromStr for PrimitiveType {
    type Err = ParseTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "string" => Self::String,
            "uuid" => Self::Uuid,
            "binary" => Self::Binary,
            _ => return parse_parametric(text).ok_or(ParseTypeError),
        })
    }
}

fn parse_parametric(text: &str) -> Option<PrimitiveType> {
    if let Some(length) = text.strip_prefix("fixed[") {
        let length: u32 = length.strip_suffix(']')?.trim().parse().ok()?;
        return (length > 0).then_some(PrimitiveType::Fixed(length));
    }
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale): (u8, u8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    (1..=38).contains(&precision).then_some(())?;
    (scale <= precision).then_some(PrimitiveType::Decimal { precision, scale })
}

/// The JSON form of nested types.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum NestedJson {
    /// Members of their own.
    Struct {
        /// The members of the struct.
        fields: Vec<Field>,
    },
    /// Any number of elements.
    #[serde(rename_all = "kebab-case")]
    List {
        /// Field id of the elements.
        element_id: i32,
        /// False: an element may be null.
        element_required: bool,
        /// Type of the elements.
        element: Type,
    },
    /// Any number of keys with their values.
    #[serde(rename_all = "kebab-case")]
    Map {
        /// Field id of the keys.
        key_id: i32,
        /// Type of the keys.
        key: Type,
        /// Field id of the values.
        value_id: i32,
        /// False: a value may be null.
        value_required: bool,
        /// Type of the values.
        value: Type,
    },
}

impl JsonSchema for Type {
    fn schema_name() -> Cow<'static, str> {
        "Type".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let nested = NestedJson::json_schema(generator);
        json_schema!({
            "description": "A column's type: the name of a primitive type, or a nested type.",
            "anyOf": [
                { "type": "string", "pattern": PRIMITIVE_PATTERN },
                nested,
            ],
        })
    }
}

/// What `PrimitiveType` reads, but for the bounds of numbers.
const PRIMITIVE_PATTERN: &str = "^(boolean|int|long|float|double|date|time|timestamp|timestamptz|string|uuid|binary|\
    fixed\\[[1-9][0-9]*\\]|decimal\\([0-9]+, ?[0-9]+\\))$";

impl Serialize for Type {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.clone() {
            Self::Primitive(primitive) => return serializer.collect_str(&primitive),
            Self::Struct(fields) => NestedJson::Struct { fields },
            Self::List { element_id, element_required, element } => {
                NestedJson::List { element_id, element_required, element: *element }
            }
            Self::Map { key_id, key, value_id, value_required, value } => {
                NestedJson::Map { key_id, key: *key, value_id, value_required, value: *value }
            }
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TypeVisitor;
        impl<'de> serde::de::Visitor<'de> for TypeVisitor {
            type Value = Type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type name or a nested type")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Type, E> {
                text.parse().map(Type::Primitive).map_err(E::custom)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Type, A::Error> {
                let nested = NestedJson::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(match nested {
                    NestedJson::Struct { fields } => Type::Struct(fields),
                    NestedJson::List { element_id, element_required, element } => {
                        Type::List { element_id, element_required, element: Box::new(element) }
                    }
                    NestedJson::Map { key_id, key, value_id, value_required, value } => Type::Map {
                        key_id,
                        key: Box::new(key),
                        value_id,
                        value_required,
                        value: Box::new(value),
                    },
                })
            }
        }
        deserializer.deserialize_any(TypeVisitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn schema_json_is_icebergs_form() {
        let json = r#"{"type":"struct","schema-id":3,"fields":[{"id":1,"name":"a","required":true,"type":"decimal(9, 2)"},{"id":2,"name":"b","required":false,"type":{"type":"list","element-id":3,"element-required":false,"element":"fixed[16]"}},{"id":4,"name":"c","required":false,"type":{"type":"map","key-id":5,"key":"string","value-id":6,"value-required":true,"value":{"type":"struct","fields":[{"id":7,"name":"d","required":true,"type":"timestamptz"}]}}}]}"#;
        let schema: Schema = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&schema).unwrap(), json);
        assert_eq!(schema.last_field_id(), 7);
        assert!(schema.field_at("c").is_some() && schema.field_at("c.d").is_none());
    }

    #[test]
    fn what_a_column_takes_beside_its_name_is_written_only_when_there_is_something() {
        let plain = r#"{"id":1,"name":"a","required":true,"type":"int"}"#;
        let field: Field = serde_json::from_str(plain).unwrap();
        assert_eq!(serde_json::to_string(&field).unwrap(), plain);
        let full = r#"{"id":2,"name":"a_string","required":false,"type":"string","aliases":["b"],"variant-of":1,"number":7}"#;
        let field: Field = serde_json::from_str(full).unwrap();
        assert_eq!(serde_json::to_string(&field).unwrap(), full);
        assert!(field.is_called("b") && field.is_called("a_string") && !field.is_called("a"));
    }

    #[test]
    fn a_name_goes_before_an_alias_and_variants_have_none() {
        let field = |id, name: &str, aliases: &[&str], variant_of| Field {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            variant_of,
            ..Field::optional(id, name, PrimitiveType::Int.into())
        };
        let fields = [
            field(1, "mail", &["post", "letter"], None),
            field(2, "post", &[], None),
            field(3, "post_int", &["parcel"], Some(2)),
        ];
        let id = |name| Field::of_name(&fields, name).map(|field| field.id);
        assert_eq!(["post", "letter", "post_int", "parcel"].map(id), [Some(2), Some(1), Some(3), None]);
    }

    #[test]
    fn impossible_types_are_refused() {
        for text in ["decimal(39, 2)", "decimal(4, 5)", "fixed[0]", "varchar", ""] {
            assert!(text.parse::<PrimitiveType>().is_err(), "{text}");
        }
    }
}
