//! Avro schema to table schema.
//!
//! | Avro | column |
//! | --- | --- |
//! | `boolean`, `int`, `long`, `float`, `double`, `string`, `bytes` | the same (`bytes` is binary) |
//! | `fixed` | fixed of its size; `duration` too, as fixed(12) |
//! | `enum` | string |
//! | `decimal` on bytes or fixed | decimal, up to 38 digits; more are refused |
//! | `big-decimal`, unknown and ill-fitting logical types | the base type |
//! | `uuid` on string or fixed(16) | uuid |
//! | `date`, `time-millis`, `time-micros` | date, time |
//! | `timestamp-millis`, `-micros`, `-nanos` | timestamptz; nanoseconds are rounded down to microseconds |
//! | `local-timestamp-*` | timestamp, likewise |
//! | `record`, `array`, `map` | struct, list, map of string to that |
//! | union of null and one type | that type, optional |
//! | any other union | struct with one optional member per branch; see below |
//! | `null` alone | no column, until a later schema gives the field a type |
//! | a whole schema that is no record | the single column `value` |
//!
//! Aliases of a field are those of its column, those of a named type those of a union's member.
//!
//! Members of a union's struct are called as Avro calls the branch: the name of a record, enum or fixed
//! without its namespace, else the base type's name (`int`, `long`, `string`, `array`, ..). Names stay as
//! branches come. What is recursive is refused by name, and so is a record without fields: no format can
//! hold it.
//!
//! Field ids are assigned depth-first from 1: a field, then what is inside it, then the next one.

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use super::schema::{AvroSchema, Kind, Node, NodeId};
use siltstone_spec::evolve::assign_ids;

use crate::{
    IngestError,
    trail::{ELEMENT, MAP_VALUE, dotted},
};

/// Types nest at most this deep.
const DEPTH_MAX: usize = 64;
/// Bound on columns and nested fields together; references can multiply without end.
const FIELDS_MAX: usize = 10_000;
/// Name of the only column of a table whose records are no Avro records.
pub(super) const BARE_COLUMN: &str = "value";

/// The table for records of this schema.
///
/// # Errors
/// `SchemaRefused`, naming the column.
pub fn table_schema(writer: &AvroSchema) -> Result<Schema, IngestError> {
    let mut mapper = Mapper { writer, active: Vec::new(), path: Vec::new(), fields: 0 };
    let mut fields = match writer.node(writer.root) {
        Some((id, Node { kind: Kind::Record(_), .. })) => mapper.record(id)?,
        _ => mapper.field(BARE_COLUMN, writer.root)?.into_iter().collect(),
    };
    if fields.is_empty() {
        return Err(mapper.refused("there is no field with a type"));
    }
    assign_ids(&mut fields, &mut 0);
    Ok(Schema::new(0, fields))
}

/// What a column of this type is, and whether it may be null; `None`: it is only ever null.
pub(super) fn column_of(writer: &AvroSchema, id: NodeId) -> Result<Option<Mapped>, IngestError> {
    Mapper { writer, active: Vec::new(), path: Vec::new(), fields: 0 }.column(id)
}

/// The branches of a union that hold values, by position, and whether one is null.
pub(super) fn branches(writer: &AvroSchema, ids: &[NodeId]) -> (Vec<(usize, NodeId)>, Option<usize>) {
    let is_null = |id: &NodeId| matches!(writer.node(*id), Some((_, Node { kind: Kind::Null, .. })));
    let values = ids.iter().copied().enumerate().filter(|(_, id)| !is_null(id)).collect();
    (values, ids.iter().position(is_null))
}

struct Mapper<'a> {
    writer: &'a AvroSchema,
    /// Records being mapped, outermost first.
    active: Vec<NodeId>,
    path: Vec<String>,
    fields: usize,
}

/// A column's type and whether it may be null.
pub(super) type Mapped = (Type, bool);

impl Mapper<'_> {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        match self.path.as_slice() {
            [] => IngestError::schema_refused("of Avro", why),
            path => IngestError::column_refused(dotted(path), why),
        }
    }

    fn field(&mut self, name: &str, node: NodeId) -> Result<Option<Field>, IngestError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(self.refused("the schema has more than 10000 fields"));
        }
        if self.path.len() >= DEPTH_MAX {
            return Err(self.refused("types nest deeper than 64"));
        }
        self.path.push(name.to_owned());
        let mapped = self.column(node)?;
        self.path.pop();
        Ok(mapped.map(|(data_type, nullable)| Field::new(0, name, !nullable, data_type)))
    }

    /// `None`: only ever null.
    fn column(&mut self, id: NodeId) -> Result<Option<Mapped>, IngestError> {
        let Some((id, node)) = self.writer.node(id) else {
            return Err(IngestError::internal("a type id is wrong"));
        };
        let required = |data_type: Type| Ok(Some((data_type, false)));
        match &node.kind {
            Kind::Null => Ok(None),
            Kind::Union(ids) => self.union(ids),
            Kind::Record(_) => required(Type::Struct(self.record(id)?)),
            Kind::Array(items) => {
                let Some(item) = self.field(ELEMENT, *items)? else {
                    return Err(self.refused("it is an array of null"));
                };
                let (element_required, element) = (item.required, Box::new(item.data_type));
                required(Type::List { element_id: 0, element_required, element })
            }
            Kind::Map(values) => {
                let Some(value) = self.field(MAP_VALUE, *values)? else {
                    return Err(self.refused("it is a map of null"));
                };
                required(Type::Map {
                    key_id: 0,
                    key: Box::new(PrimitiveType::String.into()),
                    value_id: 0,
                    value_required: value.required,
                    value: Box::new(value.data_type),
                })
            }
            kind => required(self.leaf(kind)?.into()),
        }
    }

    fn record(&mut self, id: NodeId) -> Result<Vec<Field>, IngestError> {
        let Some((_, Node { kind: Kind::Record(fields), name, .. })) = self.writer.node(id) else {
            return Err(IngestError::internal("a record is none"));
        };
        let name = name.as_deref().unwrap_or_default();
        if self.active.contains(&id) {
            return Err(self.refused(format!("record {name} contains itself; a table cannot be recursive")));
        }
        self.active.push(id);
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let column = self.field(&field.name, field.node)?;
            columns.extend(column.map(|column| Field { aliases: field.aliases.clone(), ..column }));
        }
        self.active.pop();
        if columns.is_empty() {
            return Err(self.refused(format!("record {name} has no field with a type")));
        }
        Ok(columns)
    }

    fn union(&mut self, ids: &[NodeId]) -> Result<Option<Mapped>, IngestError> {
        let (values, null) = branches(self.writer, ids);
        match values.as_slice() {
            [] => Err(self.refused("it is a union of null alone")),
            [(_, only)] => {
                let mapped = self.column(*only)?;
                Ok(mapped.map(|(data_type, nullable)| (data_type, nullable || null.is_some())))
            }
            several => {
                let mut members: Vec<Field> = Vec::with_capacity(several.len());
                for (_, id) in several {
                    let Some((_, node)) = self.writer.node(*id) else {
                        return Err(IngestError::internal("a type id is wrong"));
                    };
                    let name = node.branch_name();
                    if members.iter().any(|member| member.name == name) {
                        return Err(self.refused(format!("its union has two branches called {name}")));
                    }
                    let member = self.field(name, *id)?;
                    let aliases = node.branch_aliases();
                    members.extend(member.map(|member| Field { required: false, aliases, ..member }));
                }
                Ok(Some((Type::Struct(members), null.is_some())))
            }
        }
    }

    fn leaf(&self, kind: &Kind) -> Result<PrimitiveType, IngestError> {
        Ok(match kind {
            Kind::Boolean => PrimitiveType::Boolean,
            Kind::Int => PrimitiveType::Int,
            Kind::Long => PrimitiveType::Long,
            Kind::Float => PrimitiveType::Float,
            Kind::Double => PrimitiveType::Double,
            Kind::Bytes => PrimitiveType::Binary,
            Kind::String | Kind::Enum(_) => PrimitiveType::String,
            Kind::Date => PrimitiveType::Date,
            Kind::TimeMillis | Kind::TimeMicros => PrimitiveType::Time,
            Kind::Timestamp { utc: true, .. } => PrimitiveType::Timestamptz,
            Kind::Timestamp { utc: false, .. } => PrimitiveType::Timestamp,
            Kind::UuidText | Kind::UuidFixed => PrimitiveType::Uuid,
            Kind::Decimal { precision, scale, .. } => {
                match (u8::try_from(*precision), u8::try_from(*scale)) {
                    (Ok(precision @ ..=38), Ok(scale)) => PrimitiveType::Decimal { precision, scale },
                    _ => return Err(self.refused("its decimal has more than 38 digits")),
                }
            }
            Kind::Fixed(0) => return Err(self.refused("its fixed has size 0")),
            Kind::Fixed(size) => PrimitiveType::Fixed(
                u32::try_from(*size).map_err(|_| self.refused("its fixed is too large"))?,
            ),
            Kind::Unresolved
            | Kind::Alias(_)
            | Kind::Null
            | Kind::Record(_)
            | Kind::Array(_)
            | Kind::Map(_)
            | Kind::Union(_) => return Err(IngestError::internal("a nested type is no leaf")),
        })
    }
}
