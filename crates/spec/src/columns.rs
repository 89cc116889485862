//! Columns written in a spec, to a schema. Field ids are given depth-first from 1.

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use crate::{
    limits,
    nearest::nearest,
    raw::{RawField, RawNested, RawType},
};

const NAMES: [&str; 12] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "string",
    "uuid",
    "binary",
];

const KNOWN: &str = "known are boolean, int, long, float, double, decimal(p, s) with p from 1 to 38 and \
 s up to p, date, \
                     time, timestamp, timestamptz, string, uuid, fixed[n], binary, list<type>, \
                     map<primitive type, type>, \
                     and a mapping with struct, list or map";

/// A fault below a table's `fields`, with the way there: `[0].type.struct[1]`.
#[derive(Debug)]
pub(crate) struct ColumnFault {
    pub(crate) path: Vec<Step>,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Item(usize),
    Key(&'static str),
}

/// The schema of these columns, or everything that is wrong with them.
pub(crate) fn schema(fields: &[RawField]) -> Result<Schema, Vec<ColumnFault>> {
    let mut maker = Maker { last_id: 0, path: Vec::new(), faults: Vec::new() };
    let columns = maker.fields(fields);
    if maker.last_id > limits::COLUMNS_MAX as i32 {
        maker.fault(format!("more than {} columns and nested fields", limits::COLUMNS_MAX));
    }
    if maker.faults.is_empty() { Ok(Schema::new(0, columns)) } else { Err(maker.faults) }
}

struct Maker {
    last_id: i32,
    path: Vec<Step>,
    faults: Vec<ColumnFault>,
}

impl Maker {
    fn id(&mut self) -> i32 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    fn fault(&mut self, message: impl Into<String>) {
        self.faults.push(ColumnFault { path: self.path.clone(), message: message.into() });
    }

    fn at<T>(&mut self, step: Step, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = work(self);
        self.path.pop();
        result
    }

    fn fields(&mut self, fields: &[RawField]) -> Vec<Field> {
        let mut seen = std::collections::HashSet::new();
        let mut made = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let field = self.at(Step::Item(index), |maker| {
                if !seen.insert(field.name.0.as_str()) {
                    maker.at(Step::Key("name"), |maker| maker.fault("the name is taken by a field before"));
                }
                let id = maker.id();
                let data_type = maker.at(Step::Key("type"), |maker| maker.data_type(&field.data_type));
                Field::new(id, &field.name.0, field.required, data_type)
            });
            made.push(field);
        }
        made
    }

    fn data_type(&mut self, raw: &RawType) -> Type {
        match raw {
            RawType::Text(text) => self.named(&text.0),
            RawType::Nested(nested) => self.nested(nested),
        }
    }

    fn nested(&mut self, nested: &RawNested) -> Type {
        match (&nested.members, &nested.list, &nested.map) {
            (Some(members), None, None) => {
                if nested.required {
                    self.fault("required here is for lists and maps; write it beside the field's type");
                }
                Type::Struct(self.at(Step::Key("struct"), |maker| maker.fields(members)))
            }
            (None, Some(element), None) => {
                let element_id = self.id();
                let element = Box::new(self.at(Step::Key("list"), |maker| maker.data_type(element)));
                Type::List { element_id, element_required: nested.required, element }
            }
            (None, None, Some(map)) => self.at(Step::Key("map"), |maker| {
                let key_id = maker.id();
                let key = maker.at(Step::Key("key"), |maker| maker.named(&map.key.0));
                if !matches!(key, Type::Primitive(_)) {
                    maker.at(Step::Key("key"), |maker| maker.fault("a map's key is a primitive type"));
                }
                let value_id = maker.id();
                let value = Box::new(maker.at(Step::Key("value"), |maker| maker.data_type(&map.value)));
                Type::Map { key_id, key: Box::new(key), value_id, value_required: nested.required, value }
            }),
            _ => {
                self.fault("must have exactly one of struct, list, map");
                Type::Primitive(PrimitiveType::Binary)
            }
        }
    }

    fn named(&mut self, text: &str) -> Type {
        parse_type(text, &mut || self.id(), 0).unwrap_or_else(|message| {
            self.fault(message);
            Type::Primitive(PrimitiveType::Binary)
        })
    }
}

/// Whether the text names a type.
pub(crate) fn check_type_text(text: &str) -> Result<(), String> {
    parse_type(text, &mut || 0, 0).map(drop)
}

fn parse_type(text: &str, id: &mut dyn FnMut() -> i32, depth: usize) -> Result<Type, String> {
    let text = text.trim();
    if depth > limits::DEPTH_MAX {
        return Err(format!("nested deeper than {} levels", limits::DEPTH_MAX));
    }
    if let Some(element) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
        let element_id = id();
        let element = Box::new(parse_type(element, id, depth + 1)?);
        return Ok(Type::List { element_id, element_required: false, element });
    }
    if let Some(inner) = text.strip_prefix("map<").and_then(|rest| rest.strip_suffix('>')) {
        let (key, value) = split_key(inner).ok_or("a map is map<key type, value type>")?;
        let key_id = id();
        let key: PrimitiveType = key.trim().parse().map_err(|_| unknown_type(key))?;
        let value_id = id();
        let value = Box::new(parse_type(value, id, depth + 1)?);
        return Ok(Type::Map { key_id, key: Box::new(key.into()), value_id, value_required: false, value });
    }
    text.parse().map(Type::Primitive).map_err(|_| unknown_type(text))
}

/// Splits at the first comma outside brackets, because `decimal(p, s)` has one of its own.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0i32;
    for (index, c) in text.char_indices() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => return Some((&text[..index], &text[index + 1..])),
            _ => {}
        }
    }
    None
}

fn unknown_type(text: &str) -> String {
    let synonym = match text.trim().to_ascii_lowercase().as_str() {
        "integer" | "int32" | "short" | "byte" => Some("int"),
        "bigint" | "int64" | "number" => Some("long"),
        "bool" => Some("boolean"),
        "varchar" | "text" | "char" => Some("string"),
        "bytes" => Some("binary"),
        "real" | "float32" => Some("float"),
        "float64" => Some("double"),
        "datetime" | "timestamp_tz" => Some("timestamptz"),
        _ => None,
    };
    let hint = synonym.or_else(|| nearest(text.trim(), NAMES));
    let hint = hint.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
    if hint.is_empty() { format!("unknown type; {KNOWN}") } else { format!("unknown type{hint}") }
}
