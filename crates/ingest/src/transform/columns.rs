//! Columns of a source to columns of a table.
//!
//! Two walks meet here, once for each pair of schemas: what the spec makes of the source
//! ([`siltstone_spec::transform::Derived`]), and what the table, which may be wider and have columns of other times,
//! makes
//! of that. The table is known here by two names: columns are found by those that records call them by, and laid out
//! under the table's own, which members of structs carry in their arrays. Per batch nothing is looked up by name, and
//! columns that stay as they are are not copied.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, StringArray},
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

use super::{
    build::{Cause, Made, build},
    cast,
    key::Keys,
    protect::Protector,
};
use crate::{
    IngestError,
    dead_letter::About,
    trail::{ELEMENT, MAP_KEY, MAP_VALUE, dotted},
};

/// How the columns of a table are made.
#[derive(Debug)]
pub(super) struct Shape {
    columns: Vec<Column>,
    /// What rows are about that fail at a step, by its cause.
    abouts: Vec<Arc<About>>,
}

#[derive(Debug)]
pub(super) enum Column {
    /// Null in every row.
    Missing(DataType),
    /// An array of the one value.
    Constant(ArrayRef),
    /// As it is in the source.
    Kept { index: usize, fit: Fit },
    /// A struct of members of the source's struct.
    Members { index: usize, members: Vec<Column>, fields: Fields },
    /// `fit`: of the texts that protection gives.
    Changed { index: usize, steps: Vec<Step>, protector: Option<Protector>, fit: Option<Step> },
}

/// One type's values as another's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    from: PrimitiveType,
    to: PrimitiveType,
    /// Only numbers that stay what they are: nobody asked for a cast.
    exact: bool,
    can_fail: bool,
    pub(super) cause: Cause,
}

/// How values of a source's type are laid into a column of the table's.
#[derive(Debug)]
pub(super) enum Fit {
    Same,
    Widen(Step),
    Struct { members: Vec<(Option<usize>, Fit)>, fields: Fields },
    List { element: Box<Fit>, field: FieldRef },
    Map { key: Box<Fit>, value: Box<Fit>, entries: FieldRef, fields: Fields },
}

impl Shape {
    pub(super) fn compile(
        source: &Schema,
        outcome: &Outcome,
        (called, laid): (&Schema, &Fields),
        keys: &Keys,
    ) -> Result<Self, IngestError> {
        let mut compiler = Compiler { keys, path: Vec::new(), abouts: Vec::new() };
        let columns = compiler.columns(&source.fields, &outcome.columns, (&called.fields, laid))?;
        Ok(Self { columns, abouts: compiler.abouts })
    }

    pub(super) fn can_fail(&self) -> bool {
        self.columns.iter().any(Column::can_fail)
    }

    /// The table's columns, or the rows that hold a value which a step cannot take.
    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<Made<Vec<ArrayRef>>, IngestError> {
        build(&self.columns, batch.columns(), batch.num_rows(), None)
    }

    /// What a row is about that fails at this step.
    pub(super) fn about(&self, cause: Cause) -> Result<&Arc<About>, IngestError> {
        let about = self.abouts.get(cause as usize);
        about.ok_or_else(|| IngestError::internal("a row fails at a step that is none"))
    }
}

impl Column {
    fn can_fail(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Constant(_) => false,
            Self::Kept { fit, .. } => fit.can_fail(),
            Self::Members { members, .. } => members.iter().any(Self::can_fail),
            Self::Changed { steps, .. } => steps.iter().any(|step| step.can_fail),
        }
    }
}

impl Step {
    /// Null for what it cannot take.
    pub(super) fn take(&self, array: &ArrayRef) -> Result<ArrayRef, IngestError> {
        if self.exact {
            cast::exact(array, self.from, self.to)
        } else {
            cast::cast(array, self.from, self.to)
        }
    }

    /// What is wrong with a value that it cannot take, in the words of other rejections.
    fn detail(&self) -> String {
        use PrimitiveType as P;
        let Self { from, to, exact, .. } = self;
        match (from, to) {
            _ if *exact => format!("{from} that {to} cannot hold exactly"),
            (P::Binary | P::Fixed(_), P::String) => format!("{from} that is not UTF-8 where {to} is wanted"),
            (P::String, _) => format!("{from} that is no {to}"),
            _ => format!("{from} that does not fit {to}"),
        }
    }
}

impl Fit {
    pub(super) fn can_fail(&self) -> bool {
        match self {
            Self::Same => false,
            Self::Widen(step) => step.can_fail,
            Self::Struct { members, .. } => members.iter().any(|(_, fit)| fit.can_fail()),
            Self::List { element, .. } => element.can_fail(),
            Self::Map { key, value, .. } => key.can_fail() || value.can_fail(),
        }
    }
}

struct Compiler<'a> {
    keys: &'a Keys,
    /// In the table's words.
    path: Vec<String>,
    abouts: Vec<Arc<About>>,
}

impl Compiler<'_> {
    fn refused(&self, why: impl Into<String>) -> IngestError {
        IngestError::column_refused(dotted(&self.path), why)
    }

    /// A step for the column that is being compiled.
    fn step(&mut self, from: PrimitiveType, to: PrimitiveType, exact: bool, can_fail: bool) -> Step {
        let step = Step { from, to, exact, can_fail, cause: self.abouts.len() as Cause };
        let about = About { field: Some(dotted(&self.path)), detail: step.detail() };
        self.abouts.push(Arc::new(about));
        step
    }

    /// As the spec asks for it.
    fn cast(&mut self, from: PrimitiveType, to: PrimitiveType) -> Step {
        self.step(from, to, false, castable(from, to) != Castable::Always)
    }

    /// `laid`: the same columns as `called`, as the table has them.
    fn columns(
        &mut self,
        source: &[Field],
        derived: &[Derived],
        (called, laid): (&[Field], &Fields),
    ) -> Result<Vec<Column>, IngestError> {
        let mut columns = Vec::with_capacity(called.len());
        for (field, laid) in called.iter().zip(laid) {
            self.path.push(laid.name().clone());
            columns.push(match derived.iter().find(|derived| derived.field.name == field.name) {
                Some(derived) => self.column(source, derived, field, laid.data_type())?,
                None if field.required => {
                    return Err(self.refused("the column is required and nothing makes it"));
                }
                None => Column::Missing(laid.data_type().clone()),
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
        laid: &DataType,
    ) -> Result<Column, IngestError> {
        let lost = || IngestError::internal("a transform names a column that its source lacks");
        let Some(index) = derived.origin.index() else {
            let Origin::Constant(literal) = &derived.origin else { return Err(lost()) };
            let one = constant(literal)?;
            let Some(step) = self.widen(literal.data_type(), &target.data_type)? else {
                return Ok(Column::Constant(one));
            };
            let one = step.take(&one)?;
            if one.null_count() > 0 {
                let why = format!("the table's {} cannot hold it exactly", step.to);
                return Err(IngestError::invalid(format!("transforms.constant.{}", target.name), why));
            }
            return Ok(Column::Constant(one));
        };
        let from = source.get(index).ok_or_else(lost)?;
        match (&derived.origin, &from.data_type, &target.data_type) {
            (Origin::Members { members, .. }, Type::Struct(inside), Type::Struct(wanted)) => {
                let DataType::Struct(fields) = laid else { return Err(otherwise_laid()) };
                let members = self.columns(inside, members, (wanted, fields))?;
                Ok(Column::Members { index, members, fields: fields.clone() })
            }
            (Origin::Changed { cast, protection, .. }, Type::Primitive(from), to) => {
                let now = cast.unwrap_or(*from);
                let mut steps: Vec<Step> = cast.iter().map(|to| self.cast(*from, *to)).collect();
                let Some(how) = protection else {
                    steps.extend(self.widen(now, to)?);
                    return Ok(Column::Changed { index, steps, protector: None, fit: None });
                };
                let text = PrimitiveType::String;
                if !Protector::takes(now) {
                    steps.push(self.cast(now, text));
                }
                let protector = Some(Protector::new(*how, self.keys)?);
                Ok(Column::Changed { index, steps, protector, fit: self.widen(text, to)? })
            }
            (_, from, to) => Ok(Column::Kept { index, fit: self.fit(from, to, laid)? }),
        }
    }

    /// The step from what comes to what the table has, for every pair that `siltstone_spec::evolve` lets meet; `None`
    /// when they are the same.
    fn widen(&mut self, from: PrimitiveType, to: &Type) -> Result<Option<Step>, IngestError> {
        use PrimitiveType as P;
        let Type::Primitive(to) = *to else {
            return Err(self.refused(format!("{from} does not fit the table's column, which has members")));
        };
        let exact = matches!((from, to), (P::Int, P::Float) | (P::Long, P::Float | P::Double));
        // Only bytes that are UTF-8 can be rows.
        let can_fail = exact || (from, to) == (P::Binary, P::String);
        let fits = match (from, to) {
            (same, other) if same == other => return Ok(None),
            (P::Decimal { precision, scale }, P::Decimal { precision: digits, scale: point }) => {
                point >= scale && digits.saturating_sub(point) >= precision.saturating_sub(scale)
            }
            (P::Int, P::Long | P::Double) | (P::Float, P::Double) => true,
            (P::String | P::Fixed(_), P::Binary) => true,
            _ => can_fail,
        };
        if fits {
            Ok(Some(self.step(from, to, exact, can_fail)))
        } else {
            Err(self.refused(format!("{from} does not fit the table's {to}")))
        }
    }

    fn fit(&mut self, from: &Type, to: &Type, laid: &DataType) -> Result<Fit, IngestError> {
        Ok(match (from, to) {
            (Type::Primitive(from), to @ Type::Primitive(_)) => {
                self.widen(*from, to)?.map_or(Fit::Same, Fit::Widen)
            }
            (Type::Struct(inside), Type::Struct(wanted)) => {
                let DataType::Struct(fields) = laid else { return Err(otherwise_laid()) };
                let mut members = Vec::with_capacity(wanted.len());
                for (member, laid) in wanted.iter().zip(fields) {
                    self.path.push(laid.name().clone());
                    let index = inside.iter().position(|known| known.name == member.name);
                    let fit = match index.and_then(|index| inside.get(index)) {
                        Some(known) => self.fit(&known.data_type, &member.data_type, laid.data_type())?,
                        None if member.required => {
                            return Err(self.refused("the column is required and nothing makes it"));
                        }
                        None => Fit::Same,
                    };
                    members.push((index, fit));
                    self.path.pop();
                }
                Fit::Struct { members, fields: fields.clone() }
            }
            (Type::List { element: inside, .. }, Type::List { element, .. }) => {
                let DataType::List(field) = laid else { return Err(otherwise_laid()) };
                self.path.push(ELEMENT.to_owned());
                let fit = self.fit(inside, element, field.data_type())?;
                self.path.pop();
                Fit::List { element: Box::new(fit), field: Arc::clone(field) }
            }
            (Type::Map { key: key_in, value: value_in, .. }, Type::Map { key, value, .. }) => {
                let DataType::Map(entries, _) = laid else { return Err(otherwise_laid()) };
                let DataType::Struct(fields) = entries.data_type() else { return Err(otherwise_laid()) };
                let (Some(of_key), Some(of_value)) = (fields.first(), fields.get(1)) else {
                    return Err(otherwise_laid());
                };
                self.path.push(MAP_KEY.to_owned());
                let key = Box::new(self.fit(key_in, key, of_key.data_type())?);
                self.path.pop();
                self.path.push(MAP_VALUE.to_owned());
                let value = Box::new(self.fit(value_in, value, of_value.data_type())?);
                self.path.pop();
                Fit::Map { key, value, entries: Arc::clone(entries), fields: fields.clone() }
            }
            _ => return Err(self.refused("its type does not fit the table's")),
        })
    }
}

fn otherwise_laid() -> IngestError {
    IngestError::internal("a table's columns are laid out as other types than they are")
}

fn constant(literal: &Literal) -> Result<ArrayRef, IngestError> {
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
