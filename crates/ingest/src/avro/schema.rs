//! A parsed Avro schema: what decoding needs to know, and nothing else.

use std::fmt;

/// A writer schema with everything it refers to.
pub struct AvroSchema {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
}

impl AvroSchema {
    /// The full name of the record that it is of.
    pub fn name(&self) -> Option<&str> {
        self.node(self.root).and_then(|(_, node)| node.name.as_deref())
    }

    /// The node at `id`, references followed.
    pub(super) fn node(&self, id: NodeId) -> Option<(NodeId, &Node)> {
        let node = self.nodes.get(id)?;
        match node.kind {
            // The parser makes aliases one step long.
            Kind::Alias(target) => Some((target, self.nodes.get(target)?)),
            _ => Some((id, node)),
        }
    }
}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroSchema").field("types", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// Index into the arena. Named types exist once, so a recursive schema is a cycle of ids.
pub(super) type NodeId = usize;

pub(super) struct Node {
    pub(super) kind: Kind,
    /// Full name of a record, enum or fixed.
    pub(super) name: Option<String>,
    /// Other names of it, as they are written.
    pub(super) aliases: Vec<String>,
}

pub(super) enum Kind {
    /// Named before it is defined; none is left when parsing is done.
    Unresolved,
    /// A name that was taken to be in the enclosing namespace and is in none.
    Alias(NodeId),
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp {
        unit: Unit,
        utc: bool,
    },
    UuidText,
    UuidFixed,
    /// `size`: of a fixed base; `None` for bytes.
    Decimal {
        precision: u32,
        scale: u32,
        size: Option<usize>,
    },
    Fixed(usize),
    Enum(Vec<Box<str>>),
    Record(Vec<RecordField>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

pub(super) struct RecordField {
    pub(super) name: String,
    /// Names that it had in earlier schemas.
    pub(super) aliases: Vec<String>,
    pub(super) node: NodeId,
}

impl Node {
    /// What a union calls this branch: the type's name without namespace, or the unnamed type's own name.
    pub(super) fn branch_name(&self) -> &str {
        if let Some(name) = &self.name {
            return short(name);
        }
        match &self.kind {
            Kind::Null | Kind::Unresolved | Kind::Alias(_) => "null",
            Kind::Boolean => "boolean",
            Kind::Int | Kind::Date | Kind::TimeMillis => "int",
            Kind::Long | Kind::TimeMicros | Kind::Timestamp { .. } => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes | Kind::Decimal { .. } => "bytes",
            Kind::String | Kind::UuidText => "string",
            Kind::UuidFixed | Kind::Fixed(_) => "fixed",
            Kind::Enum(_) => "enum",
            Kind::Record(_) => "record",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
            Kind::Union(_) => "union",
        }
    }

    /// What a union called this branch before.
    pub(super) fn branch_aliases(&self) -> Vec<String> {
        self.aliases.iter().map(|alias| short(alias).to_owned()).collect()
    }
}

/// A name without its namespace.
pub(super) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
