//! Arrays of a source to arrays of a table, as [`super::columns`] compiled it.
//!
//! All of a batch is made in one pass. Where a step turns values into nulls, its rows are told in place of the arrays,
//! each with the first step that it fails at: the caller leaves them out and makes the rest. What stands in the members
//! of a struct that is null, or in no row's list, means nothing, and no row fails by it.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanBufferBuilder, ListArray, MapArray, StructArray, UInt32Array,
        new_null_array,
    },
    buffer::{BooleanBuffer, NullBuffer, OffsetBuffer},
    compute::take,
    datatypes::Fields,
};

use super::columns::{Column, Fit, Step};
use crate::IngestError;

/// What became of rows.
#[derive(Debug)]
pub(super) enum Made<T> {
    All(T),
    /// Nothing is made of any: some cannot be changed.
    Unfit(Unfit),
}

/// Of each row (or element of a list) the first step that it fails at. Only made where one fails.
#[derive(Debug)]
pub(super) struct Unfit(Vec<Cause>);

/// A step, by its place among all of a shape: these rise with the table's columns.
pub(super) type Cause = u32;

/// No step.
const FITS: Cause = Cause::MAX;

impl Unfit {
    /// All of these rows fail at one step.
    fn of(rows: &BooleanBuffer, cause: Cause) -> Self {
        Self(rows.iter().map(|is_unfit| if is_unfit { cause } else { FITS }).collect())
    }

    /// Adds rows that are unfit for something else as well.
    fn add(unfit: &mut Option<Self>, other: Self) {
        let Some(Self(causes)) = unfit else {
            *unfit = Some(other);
            return;
        };
        for (cause, other) in causes.iter_mut().zip(other.0) {
            *cause = other.min(*cause);
        }
    }

    /// Rows that can be changed.
    pub(super) fn others(&self) -> BooleanBuffer {
        self.0.iter().map(|cause| *cause == FITS).collect()
    }

    /// Rows that cannot, ascending, and the step that each fails at.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, Cause)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, cause)| *cause != FITS)
    }
}

impl<T> Made<T> {
    fn map<U>(self, with: impl FnOnce(T) -> Result<U, IngestError>) -> Result<Made<U>, IngestError> {
        match self {
            Self::All(made) => with(made).map(Made::All),
            Self::Unfit(rows) => Ok(Made::Unfit(rows)),
        }
    }
}

/// `outer`: the rows that count; `None`: all of them.
pub(super) fn build(
    columns: &[Column],
    source: &[ArrayRef],
    rows: usize,
    outer: Option<&NullBuffer>,
) -> Result<Made<Vec<ArrayRef>>, IngestError> {
    all(columns.iter().map(|column| made(column, source, rows, outer)))
}

/// All of them, or the rows that are unfit for any.
fn all(
    parts: impl Iterator<Item = Result<Made<ArrayRef>, IngestError>>,
) -> Result<Made<Vec<ArrayRef>>, IngestError> {
    let (mut arrays, mut unfit) = (Vec::new(), None);
    for part in parts {
        match part? {
            Made::All(array) => arrays.push(array),
            Made::Unfit(rows) => Unfit::add(&mut unfit, rows),
        }
    }
    Ok(unfit.map_or(Made::All(arrays), Made::Unfit))
}

fn made(
    column: &Column,
    source: &[ArrayRef],
    rows: usize,
    outer: Option<&NullBuffer>,
) -> Result<Made<ArrayRef>, IngestError> {
    let lost = || IngestError::internal("a column of the source is gone");
    match column {
        Column::Missing(data_type) => Ok(Made::All(new_null_array(data_type, rows))),
        Column::Constant(one) => repeat(one, rows).map(Made::All),
        Column::Kept { index, fit } => fitted(source.get(*index).ok_or_else(lost)?, fit, outer),
        Column::Members { index, members, fields } => {
            let array = source.get(*index).ok_or_else(lost)?;
            let array = array.as_struct_opt().ok_or_else(lost)?;
            let present = NullBuffer::union(outer, array.nulls());
            let inside = build(members, array.columns(), rows, present.as_ref())?;
            inside.map(|inside| struct_of(fields, inside, (array.nulls(), outer), rows))
        }
        Column::Changed { index, steps, protector, fit } => {
            let array = source.get(*index).ok_or_else(lost)?;
            stepped(array, steps, outer)?.map(|mut array| {
                if let Some(protector) = protector {
                    array = protector.apply(&array)?;
                }
                match fit {
                    Some(step) => step.take(&array),
                    None => Ok(array),
                }
            })
        }
    }
}

fn stepped(
    array: &ArrayRef,
    steps: &[Step],
    outer: Option<&NullBuffer>,
) -> Result<Made<ArrayRef>, IngestError> {
    let (mut done, mut unfit) = (Arc::clone(array), None);
    for step in steps {
        let changed = step.take(&done)?;
        if let Some(rows) = newly_null(&done, &changed, outer) {
            Unfit::add(&mut unfit, Unfit::of(&rows, step.cause));
        }
        done = changed;
    }
    Ok(unfit.map_or(Made::All(done), Made::Unfit))
}

/// The rows that count and whose values a step made null; `None`: there are none.
fn newly_null(before: &ArrayRef, after: &ArrayRef, outer: Option<&NullBuffer>) -> Option<BooleanBuffer> {
    let has = after.nulls().filter(|_| after.null_count() > before.null_count())?;
    let mut rows = !has.inner();
    if let Some(had) = NullBuffer::union(before.nulls(), outer) {
        rows = &rows & had.inner();
    }
    (rows.count_set_bits() > 0).then_some(rows)
}

fn fitted(array: &ArrayRef, fit: &Fit, outer: Option<&NullBuffer>) -> Result<Made<ArrayRef>, IngestError> {
    let lost = || IngestError::internal("a column of the source has another type");
    match fit {
        Fit::Same => Ok(Made::All(Arc::clone(array))),
        Fit::Widen(step) => stepped(array, std::slice::from_ref(step), outer),
        Fit::Struct { members, fields } => {
            let array = array.as_struct_opt().ok_or_else(lost)?;
            let present = NullBuffer::union(outer, array.nulls());
            let inside = all(members.iter().zip(fields).map(|((index, fit), field)| match index {
                Some(index) => fitted(array.columns().get(*index).ok_or_else(lost)?, fit, present.as_ref()),
                None => Ok(Made::All(new_null_array(field.data_type(), array.len()))),
            }))?;
            inside.map(|inside| struct_of(fields, inside, (array.nulls(), outer), array.len()))
        }
        Fit::List { element, field } => {
            let array = array.as_list_opt::<i32>().ok_or_else(lost)?;
            let within = Within::of(element.can_fail(), array.offsets(), array.nulls(), outer);
            let values = fitted(array.values(), element, within.present(array.values().len()).as_ref())?;
            within.rows(values).map(|values| {
                let list = ListArray::try_new(
                    field.clone(),
                    array.offsets().clone(),
                    values,
                    array.nulls().cloned(),
                );
                Ok(Arc::new(list.map_err(|_| lost())?) as ArrayRef)
            })
        }
        Fit::Map { key, value, entries, fields } => {
            let array = array.as_map_opt().ok_or_else(lost)?;
            let can_fail = key.can_fail() || value.can_fail();
            let within = Within::of(can_fail, array.offsets(), array.nulls(), outer);
            let present = within.present(array.entries().len());
            let present = present.as_ref();
            let pairs = [(array.keys(), key), (array.values(), value)];
            let inside = all(pairs.into_iter().map(|(array, fit)| fitted(array, fit, present)))?;
            within.rows(inside).map(|inside| {
                let pairs = StructArray::try_new(fields.clone(), inside, array.entries().nulls().cloned());
                let pairs = pairs.map_err(|_| lost())?;
                let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
                let map = MapArray::try_new(entries.clone(), offsets, pairs, nulls, false);
                Ok(Arc::new(map.map_err(|_| lost())?) as ArrayRef)
            })
        }
    }
}

/// From rows to what is in their lists, and back.
struct Within<'a> {
    can_fail: bool,
    offsets: &'a OffsetBuffer<i32>,
    /// Rows that count and have a list.
    listed: Option<NullBuffer>,
}

impl<'a> Within<'a> {
    fn of(
        can_fail: bool,
        offsets: &'a OffsetBuffer<i32>,
        nulls: Option<&NullBuffer>,
        outer: Option<&NullBuffer>,
    ) -> Self {
        Self { can_fail, offsets, listed: NullBuffer::union(outer, nulls) }
    }

    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let at = |offset: &i32| usize::try_from(*offset).unwrap_or_default();
        self.offsets.windows(2).map(move |pair| match pair {
            [start, end] => at(start)..at(end),
            _ => 0..0,
        })
    }

    /// The elements that count, of so many; asked only where one can fail.
    fn present(&self, elements: usize) -> Option<NullBuffer> {
        if !self.can_fail {
            return None;
        }
        let mut present = BooleanBufferBuilder::new(elements);
        for (row, range) in self.ranges().enumerate() {
            present.append_n(range.start.saturating_sub(present.len()), false);
            present.append_n(range.len(), self.listed.as_ref().is_none_or(|listed| listed.is_valid(row)));
        }
        present.append_n(elements.saturating_sub(present.len()), false);
        Some(NullBuffer::new(present.finish()))
    }

    /// Elements that are unfit as rows that are.
    fn rows<T>(&self, made: Made<T>) -> Made<T> {
        match made {
            Made::All(made) => Made::All(made),
            Made::Unfit(Unfit(elements)) => {
                let first = |range: std::ops::Range<usize>| {
                    let causes = elements.get(range).unwrap_or_default();
                    causes.iter().copied().min().unwrap_or(FITS)
                };
                Made::Unfit(Unfit(self.ranges().map(first).collect()))
            }
        }
    }
}

/// `nulls`: its own, and those around it. Where something around it is null it may stand as if it were not, with nulls
/// in members that are required: it is null there then. Not otherwise: what a list requires may stand in no row.
fn struct_of(
    fields: &Fields,
    members: Vec<ArrayRef>,
    (nulls, outer): (Option<&NullBuffer>, Option<&NullBuffer>),
    rows: usize,
) -> Result<ArrayRef, IngestError> {
    let with = |members: Vec<ArrayRef>, nulls: Option<NullBuffer>| {
        StructArray::try_new_with_length(fields.clone(), members, nulls, rows)
    };
    let array =
        with(members.clone(), nulls.cloned()).or_else(|_| with(members, NullBuffer::union(outer, nulls)));
    let array = array.map_err(|_| IngestError::internal("the members of a struct do not fit it"))?;
    Ok(Arc::new(array))
}

fn repeat(one: &ArrayRef, rows: usize) -> Result<ArrayRef, IngestError> {
    take(one.as_ref(), &UInt32Array::from(vec![0; rows]), None)
        .map_err(|_| IngestError::internal("a constant cannot be repeated"))
}
