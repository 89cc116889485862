//! Columns of a source to columns of a table.
//!
//! Two walks meet here, once for each pair of schemas: what the spec makes of the source
//! ([`siltstone_spec::transform::Derived`]), and what the table, which may be wider and have columns of other times,
//! makes
//! of that. Per batch nothing is looked up by name, and columns that stay as they are are not copied.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, RecordBatch, StringArray, StructArray,
        UInt32Array, new_null_array,
    },
    buffer::{BooleanBuffer, NullBuffer},
    compute::take,
    datatypes::{
        DataType, Date32Type, Decimal128Type, FieldRef, Fields, Float32Type, Float64Type, Int32Type,
        Int64Type, TimestampMicrosecondType,
    },
};
use siltstone_protocol::{Field, PrimitiveType, Schema, Type};
use siltstone_spec::{
    Literal,
    transform::{Castable, Derived, Origin, Outcome, castable},
};

use super::{cast, key::Keys, protect::Protector};
use crate::{IngestError, columns::arrow_field};

/// How the columns of a table are made.
#[derive(Debug)]
pub(super) struct Shape {
    columns: Vec<Column>,
    /// Casts that can fail, with the way to each from the top.
    fallible: Vec<(Vec<usize>, Cast)>,
}

#[derive(Debug)]
enum Column {
    /// Null in every row.
    Missing(DataType),
    /// An array of the one value.
    Constant(ArrayRef),
    /// As it is in the source.
    Kept {
        index: usize,
        fit: Fit,
    },
    /// A struct of members of the source's struct.
    Members {
        index: usize,
        members: Vec<Column>,
        fields: Fields,
    },
    Changed {
        index: usize,
        casts: Vec<Cast>,
        protector: Option<Protector>,
        fit: Option<Cast>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Cast {
    from: PrimitiveType,
    to: PrimitiveType,
}

/// How values of a source's type are laid into a column of the table's.
#[derive(Debug)]
enum Fit {
    Same,
    Widen(Cast),
    Struct { members: Vec<(Option<usize>, Fit)>, fields: Fields },
    List { element: Box<Fit>, field: FieldRef },
    Map { key: Box<Fit>, value: Box<Fit>, entries: FieldRef, fields: Fields },
}

impl Shape {
    pub(super) fn compile(
        source: &Schema,
        outcome: &Outcome,
        target: &Schema,
        keys: &Keys,
    ) -> Result<Self, IngestError> {
        let mut compiler = Compiler { keys, path: Vec::new(), fallible: Vec::new() };
        let columns = compiler.columns(&source.fields, &outcome.columns, &target.fields, &[])?;
        Ok(Self { columns, fallible: compiler.fallible })
    }

    pub(super) fn can_fail(&self) -> bool {
        !self.fallible.is_empty()
    }

    /// Rows that hold a value which a cast cannot take.
    pub(super) fn unfit(&self, batch: &RecordBatch) -> Result<BooleanBuffer, IngestError> {
        let mut unfit = BooleanBuffer::new_unset(batch.num_rows());
        for (path, step) in &self.fallible {
            let array = reach(batch, path)?;
            let done = cast::cast(&array, step.from, step.to)?;
            if done.null_count() > array.null_count() {
                let had =
                    array.nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |n| n.inner().clone());
                let has =
                    done.nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |n| n.inner().clone());
                unfit = &unfit | &(&had & &!&has);
            }
        }
        Ok(unfit)
    }

    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, IngestError> {
        build(&self.columns, batch.columns(), batch.num_rows(), None)
    }
}

fn reach(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef, IngestError> {
    let lost = || IngestError::internal("a column of the source is gone");
    let (first, inner) = path.split_first().ok_or_else(lost)?;
    let mut array = batch.columns().get(*first).cloned().ok_or_else(lost)?;
    for index in inner {
        let outer = array.as_struct_opt().ok_or_else(lost)?;
        let member = outer.columns().get(*index).cloned().ok_or_else(lost)?;
        // What stands in the members of a struct that is null means nothing.
        array = match outer.nulls() {
            None => member,
            Some(nulls) => masked(&member, nulls)?,
        };
    }
    Ok(array)
}

/// The array with null wherever the struct around it is null.
fn masked(array: &ArrayRef, outer: &NullBuffer) -> Result<ArrayRef, IngestError> {
    let nulls = NullBuffer::union(array.nulls(), Some(outer));
    let data = array.to_data().into_builder().nulls(nulls).build();
    data.map(arrow::array::make_array).map_err(|_| IngestError::internal("a member cannot be masked"))
}

struct Compiler<'a> {
    keys: &'a Keys,
    path: Vec<String>,
    fallible: Vec<(Vec<usize>, Cast)>,
}

impl Compiler<'_> {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        IngestError::schema_refused(format!("at {}", self.path.join(".")), why)
    }

    /// `way`: from the top of the source to the struct whose members these are.
    fn columns(
        &mut self,
        source: &[Field],
        derived: &[Derived],
        target: &[Field],
        way: &[usize],
    ) -> Result<Vec<Column>, IngestError> {
        let mut columns = Vec::with_capacity(target.len());
        for field in target {
            self.path.push(field.name.clone());
            columns.push(match derived.iter().find(|derived| derived.field.name == field.name) {
                Some(derived) => self.column(source, derived, field, way)?,
                None if field.required => {
                    return Err(self.refused("the column is required and nothing makes it"));
                }
                None => Column::Missing(arrow_field(field)?.data_type().clone()),
            });
            self.path.pop();
        }
        Ok(columns)
    }

    fn column(
        &mut self,
        source: &[Field],
        derived: &Derived,
        target: &Field,
        way: &[usize],
    ) -> Result<Column, IngestError> {
        let lost = || IngestError::internal("a transform names a column that its source lacks");
        let Some(index) = derived.origin.index() else {
            let Origin::Constant(literal) = &derived.origin else { return Err(lost()) };
            let one = constant(literal)?;
            return Ok(Column::Constant(match self.widen(literal.data_type(), &target.data_type)? {
                Some(step) => cast::cast(&one, step.from, step.to)?,
                None => one,
            }));
        };
        let from = source.get(index).ok_or_else(lost)?;
        let way = [way, &[index]].concat();
        match (&derived.origin, &from.data_type, &target.data_type) {
            (Origin::Members { members, .. }, Type::Struct(inside), Type::Struct(wanted)) => {
                let fields = fields_of(target)?;
                let members = self.columns(inside, members, wanted, &way)?;
                Ok(Column::Members { index, members, fields })
            }
            (Origin::Changed { cast, protection, .. }, Type::Primitive(from), to) => {
                let casts: Vec<Cast> = cast.iter().map(|to| Cast { from: *from, to: *to }).collect();
                let now = cast.unwrap_or(*from);
                let can_fail = |step: &Cast| castable(step.from, step.to) != Castable::Always;
                self.fallible.extend(casts.iter().copied().filter(can_fail).map(|step| (way.clone(), step)));
                let protector = match protection {
                    Some(how) => Some(Protector::new(*how, now, self.keys)?),
                    None => None,
                };
                let now = if protector.is_some() { PrimitiveType::String } else { now };
                let fit = self.widen(now, to)?;
                Ok(Column::Changed { index, casts, protector, fit })
            }
            // Bytes that are a text in the table: only those that are UTF-8 can be rows.
            (
                _,
                Type::Primitive(from @ PrimitiveType::Binary),
                Type::Primitive(to @ PrimitiveType::String),
            ) => {
                let step = Cast { from: *from, to: *to };
                self.fallible.push((way, step));
                Ok(Column::Changed { index, casts: vec![step], protector: None, fit: None })
            }
            (_, from, to) => Ok(Column::Kept { index, fit: self.fit(from, target, to)? }),
        }
    }

    /// The cast from what comes to what the table has; `None` when they are the same.
    fn widen(&self, from: PrimitiveType, to: &Type) -> Result<Option<Cast>, IngestError> {
        use PrimitiveType as P;
        let Type::Primitive(to) = *to else {
            return Err(self.refused(format!("{from} does not fit the table's column, which has members")));
        };
        let fits = match (from, to) {
            (same, other) if same == other => return Ok(None),
            (P::Decimal { precision, scale }, P::Decimal { precision: digits, scale: point }) => {
                point >= scale && digits.saturating_sub(point) >= precision.saturating_sub(scale)
            }
            (P::Int, P::Long | P::Float | P::Double)
            | (P::Long, P::Float | P::Double)
            | (P::Float, P::Double) => true,
            (P::String | P::Fixed(_), P::Binary) => true,
            _ => false,
        };
        if fits {
            Ok(Some(Cast { from, to }))
        } else {
            Err(self.refused(format!("{from} does not fit the table's {to}")))
        }
    }

    fn fit(&mut self, from: &Type, field: &Field, to: &Type) -> Result<Fit, IngestError> {
        let refused = |compiler: &Self| Err(compiler.refused("its type does not fit the table's"));
        Ok(match (from, to) {
            (Type::Primitive(from), to @ Type::Primitive(_)) => {
                self.widen(*from, to)?.map_or(Fit::Same, Fit::Widen)
            }
            (Type::Struct(inside), Type::Struct(wanted)) => {
                let mut members = Vec::with_capacity(wanted.len());
                for member in wanted {
                    self.path.push(member.name.clone());
                    let index = inside.iter().position(|known| known.name == member.name);
                    let fit = match index.and_then(|index| inside.get(index)) {
                        Some(known) => self.fit(&known.data_type, member, &member.data_type)?,
                        None if member.required => {
                            return Err(self.refused("the column is required and nothing makes it"));
                        }
                        None => Fit::Same,
                    };
                    members.push((index, fit));
                    self.path.pop();
                }
                Fit::Struct { members, fields: fields_of(field)? }
            }
            (Type::List { element: inside, .. }, Type::List { element, element_id, element_required }) => {
                let member = Field::new(*element_id, "element", *element_required, element.as_ref().clone());
                self.path.push(member.name.clone());
                let fit = self.fit(inside, &member, element)?;
                self.path.pop();
                match arrow_field(field)?.data_type() {
                    DataType::List(field) => Fit::List { element: Box::new(fit), field: Arc::clone(field) },
                    _ => return refused(self),
                }
            }
            (
                Type::Map { key: key_in, value: value_in, .. },
                Type::Map { key_id, key, value_id, value_required, value },
            ) => {
                let named = |id: &i32, name: &str, required: bool, of: &Type| {
                    Field::new(*id, name, required, of.clone())
                };
                let key = Box::new(self.fit(key_in, &named(key_id, "key", true, key), key)?);
                let value =
                    Box::new(self.fit(value_in, &named(value_id, "value", *value_required, value), value)?);
                match arrow_field(field)?.data_type() {
                    DataType::Map(entries, _) => match entries.data_type() {
                        DataType::Struct(fields) => {
                            Fit::Map { key, value, entries: Arc::clone(entries), fields: fields.clone() }
                        }
                        _ => return refused(self),
                    },
                    _ => return refused(self),
                }
            }
            _ => return refused(self),
        })
    }
}

fn fields_of(field: &Field) -> Result<Fields, IngestError> {
    match arrow_field(field)?.data_type() {
        DataType::Struct(fields) => Ok(fields.clone()),
        _ => Err(IngestError::internal("a struct's column is none")),
    }
}

/// `outer`: where the struct around is null; what is made there does not matter, but must not be null where it must
/// not.
fn build(
    columns: &[Column],
    source: &[ArrayRef],
    rows: usize,
    outer: Option<&NullBuffer>,
) -> Result<Vec<ArrayRef>, IngestError> {
    let lost = || IngestError::internal("a column of the source is gone");
    columns
        .iter()
        .map(|column| {
            Ok(match column {
                Column::Missing(data_type) => new_null_array(data_type, rows),
                Column::Constant(one) => repeat(one, rows)?,
                Column::Kept { index, fit } => fitted(source.get(*index).ok_or_else(lost)?, fit)?,
                Column::Members { index, members, fields } => {
                    let array = source.get(*index).ok_or_else(lost)?;
                    let array = array.as_struct_opt().ok_or_else(lost)?;
                    let inside = build(members, array.columns(), rows, array.nulls())?;
                    struct_of(fields, inside, array.nulls(), rows)?
                }
                Column::Changed { index, casts, protector, fit } => {
                    let mut array = source.get(*index).ok_or_else(lost)?.clone();
                    if let Some(outer) = outer {
                        array = masked(&array, outer)?;
                    }
                    for step in casts {
                        array = cast::cast(&array, step.from, step.to)?;
                    }
                    if let Some(protector) = protector {
                        array = protector.apply(&array)?;
                    }
                    match fit {
                        Some(step) => cast::cast(&array, step.from, step.to)?,
                        None => array,
                    }
                }
            })
        })
        .collect()
}

fn fitted(array: &ArrayRef, fit: &Fit) -> Result<ArrayRef, IngestError> {
    let lost = || IngestError::internal("a column of the source has another type");
    Ok(match fit {
        Fit::Same => Arc::clone(array),
        Fit::Widen(step) => cast::cast(array, step.from, step.to)?,
        Fit::Struct { members, fields } => {
            let array = array.as_struct_opt().ok_or_else(lost)?;
            let mut inside = Vec::with_capacity(members.len());
            for ((index, fit), field) in members.iter().zip(fields) {
                inside.push(match index {
                    Some(index) => fitted(array.columns().get(*index).ok_or_else(lost)?, fit)?,
                    None => new_null_array(field.data_type(), array.len()),
                });
            }
            struct_of(fields, inside, array.nulls(), array.len())?
        }
        Fit::List { element, field } => {
            let array = array.as_list_opt::<i32>().ok_or_else(lost)?;
            let values = fitted(array.values(), element)?;
            let list =
                ListArray::try_new(field.clone(), array.offsets().clone(), values, array.nulls().cloned());
            Arc::new(list.map_err(|_| lost())?)
        }
        Fit::Map { key, value, entries, fields } => {
            let array = array.as_map_opt().ok_or_else(lost)?;
            let inside = vec![fitted(array.keys(), key)?, fitted(array.values(), value)?];
            let pairs = StructArray::try_new(fields.clone(), inside, array.entries().nulls().cloned());
            let pairs = pairs.map_err(|_| lost())?;
            let map = MapArray::try_new(
                entries.clone(),
                array.offsets().clone(),
                pairs,
                array.nulls().cloned(),
                false,
            );
            Arc::new(map.map_err(|_| lost())?)
        }
    })
}

fn struct_of(
    fields: &Fields,
    members: Vec<ArrayRef>,
    nulls: Option<&NullBuffer>,
    rows: usize,
) -> Result<ArrayRef, IngestError> {
    let array = StructArray::try_new_with_length(fields.clone(), members, nulls.cloned(), rows);
    let array = array.map_err(|_| IngestError::internal("the members of a struct do not fit it"))?;
    Ok(Arc::new(array))
}

fn repeat(one: &ArrayRef, rows: usize) -> Result<ArrayRef, IngestError> {
    take(one.as_ref(), &UInt32Array::from(vec![0; rows]), None)
        .map_err(|_| IngestError::internal("a constant cannot be repeated"))
}

fn constant(literal: &Literal) -> Result<ArrayRef, IngestError> {
    use arrow::array::PrimitiveArray;
    let target = cast::arrow_type(literal.data_type())?;
    Ok(match literal {
        Literal::Boolean(value) => Arc::new(BooleanArray::from(vec![*value])),
        Literal::Int(value) => Arc::new(PrimitiveArray::<Int32Type>::from(vec![*value])),
        Literal::Long(value) => Arc::new(PrimitiveArray::<Int64Type>::from(vec![*value])),
        Literal::Float(value) => Arc::new(PrimitiveArray::<Float32Type>::from(vec![*value])),
        Literal::Double(value) => Arc::new(PrimitiveArray::<Float64Type>::from(vec![*value])),
        Literal::Decimal { unscaled, .. } => {
            Arc::new(PrimitiveArray::<Decimal128Type>::from(vec![*unscaled]).with_data_type(target))
        }
        Literal::Date(value) => Arc::new(PrimitiveArray::<Date32Type>::from(vec![*value])),
        Literal::Timestamp(value) | Literal::Timestamptz(value) => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(vec![*value]).with_data_type(target))
        }
        Literal::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
    })
}
