//! Avro's JSON form to the arena.
//!
//! Names resolve in any order over the schema and its references. Logical types that do not fit their base,
//! and unknown ones, are the base type, as Avro says. Absent on purpose: documentation, defaults and orders
//! are never read, and JSON errors are not passed on, because they quote.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::schema::{AvroSchema, Kind, Node, NodeId, RecordField, Unit, short};
use crate::IngestError;

/// Bytes of one schema text.
const TEXT_MAX: usize = 8 << 20;
/// Aliases of one name that are read.
const ALIASES_MAX: usize = 64;
/// Types of one schema with its references.
const NODES_MAX: usize = 50_000;

impl AvroSchema {
    /// Parses a schema whose names may be defined in `references`.
    ///
    /// # Errors
    /// `SchemaRefused`, naming the type or field at fault.
    pub fn parse<'a>(text: &str, references: impl IntoIterator<Item = &'a str>) -> Result<Self, IngestError> {
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new(), defined: HashSet::new() };
        for reference in references {
            parser.document(reference)?;
        }
        let root = parser.document(text)?;
        parser.resolve()?;
        Ok(Self { nodes: parser.nodes, root })
    }
}

fn refused(why: impl Into<String>) -> IngestError {
    IngestError::schema_refused("of Avro", why)
}

struct Parser {
    nodes: Vec<Node>,
    /// Full name to node, defined or only mentioned.
    names: HashMap<String, NodeId>,
    /// Full names defined in the document being read.
    defined: HashSet<String>,
}

impl Parser {
    fn document(&mut self, text: &str) -> Result<NodeId, IngestError> {
        if text.len() > TEXT_MAX {
            return Err(refused("its text is larger than 8 MiB"));
        }
        // The JSON reader bounds the depth, and with it the recursion here.
        let value: Value =
            serde_json::from_str(text).map_err(|_| refused("its text is not a JSON document"))?;
        self.defined.clear();
        self.schema(&value, "")
    }

    fn add(&mut self, kind: Kind, name: Option<String>) -> Result<NodeId, IngestError> {
        if self.nodes.len() >= NODES_MAX {
            return Err(refused("it has more than 50000 types"));
        }
        self.nodes.push(Node { kind, name, aliases: Vec::new() });
        Ok(self.nodes.len() - 1)
    }

    fn schema(&mut self, value: &Value, namespace: &str) -> Result<NodeId, IngestError> {
        match value {
            Value::String(name) => match primitive(name) {
                Some(kind) => self.add(kind, None),
                None => self.reference(name, namespace),
            },
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            _ => Err(refused("a type is neither a name, an object nor a union")),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, IngestError> {
        let Some(value) = object.get("type") else { return Err(refused("an object has no type")) };
        let Value::String(name) = value else {
            let inner = self.schema(value, namespace)?;
            return self.annotate(inner, object);
        };
        match name.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols =
                    strings(object.get("symbols")).ok_or_else(|| refused("an enum has no symbols"))?;
                self.define(object, namespace, Kind::Enum(symbols)).map(|(id, _)| id)
            }
            "fixed" => {
                let size =
                    object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.filter(|size| i32::try_from(*size).is_ok());
                let size = size.ok_or_else(|| refused("a fixed has no valid size"))?;
                self.define(object, namespace, fixed(size, object)).map(|(id, _)| id)
            }
            "array" => {
                let items = object.get("items").ok_or_else(|| refused("an array has no items"))?;
                let items = self.schema(items, namespace)?;
                self.add(Kind::Array(items), None)
            }
            "map" => {
                let values = object.get("values").ok_or_else(|| refused("a map has no values"))?;
                let values = self.schema(values, namespace)?;
                self.add(Kind::Map(values), None)
            }
            name => match primitive(name) {
                Some(kind) => self.add(logical(kind, object), None),
                None => self.reference(name, namespace),
            },
        }
    }

    /// A logical type written around a primitive: `{"type": {"type": "long"}, "logicalType": ..}`.
    fn annotate(&mut self, id: NodeId, object: &Map<String, Value>) -> Result<NodeId, IngestError> {
        let kind = match self.nodes.get(id).map(|node| &node.kind) {
            Some(Kind::Int) => Kind::Int,
            Some(Kind::Long) => Kind::Long,
            Some(Kind::Bytes) => Kind::Bytes,
            Some(Kind::String) => Kind::String,
            _ => return Ok(id),
        };
        self.add(logical(kind, object), None)
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<NodeId, IngestError> {
        if branches.is_empty() {
            return Err(refused("a union has no branches"));
        }
        if branches.iter().any(Value::is_array) {
            return Err(refused("a union is directly in a union"));
        }
        let branches =
            branches.iter().map(|branch| self.schema(branch, namespace)).collect::<Result<_, _>>()?;
        self.add(Kind::Union(branches), None)
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, IngestError> {
        // Defined before its fields are read: they may refer to it.
        let (id, name) = self.define(object, namespace, Kind::Record(Vec::new()))?;
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let Some(Value::Array(values)) = object.get("fields") else {
            return Err(refused(format!("record {name} has no fields")));
        };
        let mut fields: Vec<RecordField> = Vec::with_capacity(values.len());
        let mut seen = HashSet::new();
        for value in values {
            let field = value.get("name").and_then(Value::as_str).filter(|field| !field.is_empty());
            let field = field.ok_or_else(|| refused(format!("a field of record {name} has no name")))?;
            let data_type = value.get("type");
            let data_type =
                data_type.ok_or_else(|| refused(format!("field {field} of {name} has no type")))?;
            if !seen.insert(field) {
                return Err(refused(format!("record {name} has field {field} twice")));
            }
            // A logical type may stand beside the field's type, against the letter of the standard.
            let node = self.schema(data_type, namespace)?;
            let aliases = aliases(value.get("aliases"))
                .ok_or_else(|| refused(format!("aliases of field {field} of {name} are no list of names")))?;
            fields.push(RecordField { name: field.to_owned(), aliases, node });
        }
        if let Some(node) = self.nodes.get_mut(id)
            && matches!(&node.kind, Kind::Record(fields) if fields.is_empty())
        {
            node.kind = Kind::Record(fields);
        }
        Ok(id)
    }

    /// Gives a named type its slot. Of one name in several documents the first definition stands.
    fn define(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        kind: Kind,
    ) -> Result<(NodeId, String), IngestError> {
        let name = object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| refused("a record, enum or fixed has no name"))?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        if !self.defined.insert(full.clone()) {
            return Err(refused(format!("type {full} is defined twice")));
        }
        let aliases = aliases(object.get("aliases"))
            .ok_or_else(|| refused(format!("aliases of type {full} are no list of names")))?;
        let defined = self.defined_as(kind, full)?;
        if let Some(node) = self.nodes.get_mut(defined.0) {
            node.aliases = aliases;
        }
        Ok(defined)
    }

    fn defined_as(&mut self, kind: Kind, full: String) -> Result<(NodeId, String), IngestError> {
        match self.names.get(&full) {
            Some(&id) if matches!(self.nodes.get(id), Some(Node { kind: Kind::Unresolved, .. })) => {
                if let Some(node) = self.nodes.get_mut(id) {
                    node.kind = kind;
                }
                Ok((id, full))
            }
            Some(_) => Ok((self.add(kind, Some(full.clone()))?, full)),
            None => {
                let id = self.add(kind, Some(full.clone()))?;
                self.names.insert(full.clone(), id);
                Ok((id, full))
            }
        }
    }

    fn reference(&mut self, name: &str, namespace: &str) -> Result<NodeId, IngestError> {
        let full = full_name(name, namespace);
        if let Some(id) = self.names.get(&full) {
            return Ok(*id);
        }
        let id = self.add(Kind::Unresolved, Some(full.clone()))?;
        self.names.insert(full, id);
        Ok(id)
    }

    /// Every name that was only mentioned is either in no namespace after all, or missing.
    fn resolve(&mut self) -> Result<(), IngestError> {
        for id in 0..self.nodes.len() {
            let Some(Node { kind: Kind::Unresolved, name: Some(name), .. }) = self.nodes.get(id) else {
                continue;
            };
            let target = self.names.get(short(name)).copied().filter(|target| {
                *target != id && !matches!(self.nodes[*target].kind, Kind::Unresolved | Kind::Alias(_))
            });
            let target = target.ok_or_else(|| refused(format!("type {name} is not defined")))?;
            self.nodes[id].kind = Kind::Alias(target);
        }
        Ok(())
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        return name.trim_start_matches('.').to_owned();
    }
    format!("{namespace}.{name}")
}

fn strings(value: Option<&Value>) -> Option<Vec<Box<str>>> {
    value?.as_array()?.iter().map(|symbol| symbol.as_str().map(Box::from)).collect()
}

/// At most [`ALIASES_MAX`] of them.
fn aliases(value: Option<&Value>) -> Option<Vec<String>> {
    let Some(value) = value else { return Some(Vec::new()) };
    let names = value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
    names.take(ALIASES_MAX).collect()
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn logical(base: Kind, object: &Map<String, Value>) -> Kind {
    let Some(name) = object.get("logicalType").and_then(Value::as_str) else { return base };
    let timestamp = |unit, utc| Kind::Timestamp { unit, utc };
    match (base, name) {
        (Kind::Int, "date") => Kind::Date,
        (Kind::Int, "time-millis") => Kind::TimeMillis,
        (Kind::Long, "time-micros") => Kind::TimeMicros,
        (Kind::Long, "timestamp-millis") => timestamp(Unit::Millis, true),
        (Kind::Long, "timestamp-micros") => timestamp(Unit::Micros, true),
        (Kind::Long, "timestamp-nanos") => timestamp(Unit::Nanos, true),
        (Kind::Long, "local-timestamp-millis") => timestamp(Unit::Millis, false),
        (Kind::Long, "local-timestamp-micros") => timestamp(Unit::Micros, false),
        (Kind::Long, "local-timestamp-nanos") => timestamp(Unit::Nanos, false),
        (Kind::String, "uuid") => Kind::UuidText,
        (Kind::Bytes, "decimal") => decimal(None, object).unwrap_or(Kind::Bytes),
        (base, _) => base,
    }
}

fn fixed(size: usize, object: &Map<String, Value>) -> Kind {
    match object.get("logicalType").and_then(Value::as_str) {
        Some("uuid") if size == 16 => Kind::UuidFixed,
        Some("decimal") => decimal(Some(size), object).unwrap_or(Kind::Fixed(size)),
        _ => Kind::Fixed(size),
    }
}

fn decimal(size: Option<usize>, object: &Map<String, Value>) -> Option<Kind> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let precision = number(object.get("precision")?)?;
    let scale = object.get("scale").map_or(Some(0), number)?;
    (precision > 0 && scale <= precision && size != Some(0)).then_some(Kind::Decimal {
        precision,
        scale,
        size,
    })
}
