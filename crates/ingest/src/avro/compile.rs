//! Writer schema and table schema to a program.
//!
//! Fields match columns by name. A writer may be narrower than the table (int to long, float or double; long
//! to float or double; float to double; fewer decimal digits; fixed to binary; string to binary and back) and
//! may lack optional columns. Anything else must first become part of the table, unless the caller says that the
//! table has some of the fields only.

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use super::{
    program::{AvroProgram, Branches, Fields, Op, Passed, Step},
    schema::{AvroSchema, Kind, Node, NodeId, RecordField, Unit},
    table::{BARE_COLUMN, branches, column_of},
};
use crate::{
    IngestError,
    trail::{ELEMENT, MAP_VALUE, dotted},
};

impl AvroProgram {
    /// Compiles a program for records of `writer` into columns of `table`.
    ///
    /// # Errors
    /// `SchemaRefused`, naming the column that the table must gain, widen or make optional first.
    pub fn compile(writer: &AvroSchema, table: &Schema) -> Result<Self, IngestError> {
        Self::compiled(writer, table, false)
    }

    /// As [`Self::compile`], for a table of some of the fields: the others, and such members of records and unions, are
    /// passed over in the bytes and never built. How they are encoded must be as the schema says (lengths, numbers,
    /// branches, symbols); what they mean is not looked at: a text that is not UTF-8, or a decimal of too many digits,
    /// rejects no record there.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn compile_some(writer: &AvroSchema, table: &Schema) -> Result<Self, IngestError> {
        Self::compiled(writer, table, true)
    }

    fn compiled(writer: &AvroSchema, table: &Schema, passes: bool) -> Result<Self, IngestError> {
        let mut compiler = Compiler { writer, passes, path: Vec::new() };
        let row = match writer.node(writer.root) {
            Some((_, Node { kind: Kind::Record(fields), .. })) => compiler.fields(fields, &table.fields)?,
            _ => {
                let field =
                    RecordField { name: BARE_COLUMN.to_owned(), aliases: Vec::new(), node: writer.root };
                compiler.fields(&[field], &table.fields)?
            }
        };
        Ok(Self { row })
    }
}

struct Compiler<'a> {
    writer: &'a AvroSchema,
    /// Fields without a column are passed over.
    passes: bool,
    path: Vec<String>,
}

impl Compiler<'_> {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        IngestError::column_refused(dotted(&self.path), why)
    }

    fn node(&self, id: NodeId) -> Result<&Node, IngestError> {
        self.writer.node(id).map(|(_, node)| node).ok_or_else(|| IngestError::internal("a type id is wrong"))
    }

    fn fields(&mut self, writer: &[RecordField], columns: &[Field]) -> Result<Fields, IngestError> {
        let mut steps = Vec::with_capacity(writer.len());
        for field in writer {
            if self.is_null(field.node) {
                continue; // Takes no bytes and has no column.
            }
            self.path.push(field.name.clone());
            let position = columns.iter().position(|column| column.name == field.name);
            let found = position.and_then(|index| Some((index, columns.get(index)?)));
            let step = match found {
                Some((column, target)) => {
                    let op = self.op(field.node, &target.data_type, target.required)?;
                    Step { column, op }
                }
                None => {
                    let column = columns.len() + steps.len();
                    Step { column, op: self.passed(&field.name, field.node)? }
                }
            };
            steps.push(step);
            self.path.pop();
        }
        let taken = |index: &usize| steps.iter().any(|step| step.column == *index);
        let absent: Vec<usize> = (0..columns.len()).filter(|index| !taken(index)).collect();
        if let Some(column) =
            absent.iter().filter_map(|index| columns.get(*index)).find(|column| column.required)
        {
            self.path.push(column.name.clone());
            return Err(self.refused("the column is required and the schema does not have it"));
        }
        Ok(Fields { steps: steps.into(), absent: absent.into() })
    }

    /// How a field that has no column is passed over.
    fn passed(&mut self, name: &str, id: NodeId) -> Result<Op, IngestError> {
        if !self.passes {
            return Err(self.refused("the table has no such column yet"));
        }
        let column = column_of(self.writer, id)?;
        let (data_type, nullable) =
            column.ok_or_else(|| IngestError::internal("a field without values is passed over"))?;
        let op = self.op(id, &data_type, !nullable)?;
        Ok(Op::Passed(Box::new(Passed { name: name.into(), data_type, op })))
    }

    /// True for a null, or a union of nothing but null: not a byte, or a byte that says nothing.
    fn is_null(&self, id: NodeId) -> bool {
        matches!(self.writer.node(id), Some((_, Node { kind: Kind::Null, .. })))
    }

    fn op(&mut self, id: NodeId, target: &Type, required: bool) -> Result<Op, IngestError> {
        let writer = self.writer;
        let (_, node) = writer.node(id).ok_or_else(|| IngestError::internal("a type id is wrong"))?;
        let op = match (&node.kind, target) {
            (Kind::Union(ids), _) => return self.union(ids, target, required),
            (Kind::Record(fields), Type::Struct(members)) => {
                Op::Struct(Box::new(self.fields(fields, members)?))
            }
            (Kind::Array(items), Type::List { element, element_required, .. }) => {
                Op::List(Box::new(self.inside(ELEMENT, *items, element, *element_required)?))
            }
            (Kind::Map(values), Type::Map { key, value, value_required, .. })
                if **key == Type::Primitive(PrimitiveType::String) =>
            {
                Op::Map(Box::new(self.inside(MAP_VALUE, *values, value, *value_required)?))
            }
            (kind, Type::Primitive(primitive)) => match leaf(kind, *primitive) {
                Some(op) => op,
                None => return Err(self.refused(format!("its type does not fit column type {primitive}"))),
            },
            _ => return Err(self.refused("its type does not fit the column's type")),
        };
        Ok(op)
    }

    fn inside(&mut self, name: &str, id: NodeId, target: &Type, required: bool) -> Result<Op, IngestError> {
        self.path.push(name.to_owned());
        let op = self.op(id, target, required)?;
        self.path.pop();
        Ok(op)
    }

    fn union(&mut self, ids: &[NodeId], target: &Type, required: bool) -> Result<Op, IngestError> {
        let (values, null) = branches(self.writer, ids);
        if null.is_some() && required {
            return Err(self.refused("the column is required and the schema lets it be null"));
        }
        match (values.as_slice(), null) {
            ([(_, only)], Some(null)) => {
                Ok(Op::Optional { null, op: Box::new(self.op(*only, target, required)?) })
            }
            ([(_, only)], None) => Ok(Op::Only(Box::new(self.op(*only, target, required)?))),
            ([], _) => Ok(Op::Union(Box::new(Branches { members: ids.iter().map(|_| None).collect() }))),
            (several, _) => {
                let Type::Struct(members) = target else {
                    return Err(self.refused("a union of several types does not fit the column's type"));
                };
                let mut steps: Vec<Option<Step>> = ids.iter().map(|_| None).collect();
                for (branch, id) in several {
                    let name = self.node(*id)?.branch_name().to_owned();
                    self.path.push(name.clone());
                    let step = match members.iter().enumerate().find(|(_, member)| member.name == name) {
                        Some((_, member)) if member.required => {
                            return Err(self.refused("a union's member is required in the table"));
                        }
                        Some((column, member)) => {
                            Step { column, op: self.op(*id, &member.data_type, false)? }
                        }
                        None => Step { column: members.len() + branch, op: self.passed(&name, *id)? },
                    };
                    if let Some(place) = steps.get_mut(*branch) {
                        *place = Some(step);
                    }
                    self.path.pop();
                }
                if members.iter().any(|member| member.required) {
                    return Err(self.refused("a union's member is required in the table"));
                }
                Ok(Op::Union(Box::new(Branches { members: steps.into() })))
            }
        }
    }
}

/// The instruction that turns a leaf of the writer into this column type; `None` when they do not fit.
fn leaf(kind: &Kind, target: PrimitiveType) -> Option<Op> {
    use PrimitiveType as To;
    Some(match (kind, target) {
        (Kind::Boolean, To::Boolean) => Op::Boolean,
        (Kind::Int, To::Int) | (Kind::Date, To::Date) => Op::Int,
        (Kind::Int, To::Long) => Op::IntToLong,
        (Kind::Int, To::Float) => Op::IntToFloat,
        (Kind::Int, To::Double) => Op::IntToDouble,
        (Kind::Long, To::Long) => Op::Long,
        (Kind::Long, To::Float) => Op::LongToFloat,
        (Kind::Long, To::Double) => Op::LongToDouble,
        (Kind::Float, To::Float) => Op::Float,
        (Kind::Float, To::Double) => Op::FloatToDouble,
        (Kind::Double, To::Double) => Op::Double,
        (Kind::TimeMillis, To::Time) => Op::TimeMillis,
        (Kind::TimeMicros, To::Time) => Op::TimeMicros,
        (Kind::Timestamp { unit, utc: true }, To::Timestamptz)
        | (Kind::Timestamp { unit, utc: false }, To::Timestamp) => match unit {
            Unit::Millis => Op::MillisToMicros,
            Unit::Micros => Op::Long,
            Unit::Nanos => Op::NanosToMicros,
        },
        (Kind::String, To::String) => Op::Text,
        (Kind::Bytes, To::String) => Op::BytesToText,
        (Kind::String | Kind::Bytes, To::Binary) => Op::Bytes,
        (Kind::Enum(symbols), To::String) => Op::Enum(symbols.clone().into()),
        (Kind::Enum(symbols), To::Binary) => Op::EnumToBytes(symbols.clone().into()),
        (Kind::Fixed(size), To::Fixed(length)) if u32::try_from(*size) == Ok(length) => Op::Fixed(*size),
        (Kind::Fixed(size), To::Binary) => Op::FixedToBytes(*size),
        (Kind::UuidFixed, To::Uuid) => Op::Fixed(16),
        (Kind::UuidText, To::Uuid) => Op::UuidText,
        (Kind::Decimal { precision, scale, size }, To::Decimal { precision: digits, scale: point }) => {
            let shift = u32::from(point).checked_sub(*scale)?;
            if precision.checked_add(shift)? > u32::from(digits) {
                return None;
            }
            Op::Decimal { size: *size, factor: 10i128.checked_pow(shift)? }
        }
        _ => return None,
    })
}
