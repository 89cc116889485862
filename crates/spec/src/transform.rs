//! What a table's columns are after its transforms: pure, from the spec and the source's schema.
//!
//! One walk over the source decides each column: left out, kept as it is, rebuilt from some of its members, cast or
//! protected. Who moves rows ([`Derived`]) and who shows schemas ([`Outcome::schema`]) go by the same walk, so that
//! they
//! cannot disagree. Nothing is said here of `filter`, which leaves out rows, not columns.

use std::{collections::BTreeSet, fmt};

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

use crate::{
    model::{Literal, Protection, TableSpec, Transforms},
    nearest::nearest,
    resolve::{kind_of, paths},
};

/// The engine's own column, which transforms but for `protect` leave alone.
pub(crate) const KAFKA: &str = "_kafka";

/// What transforms make of a source's schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The columns, in the order in which they come to be.
    pub columns: Vec<Derived>,
    /// Names of the spec that nothing in the source answers to: faults when the source is all there will be.
    pub unknown: Vec<TransformFault>,
    schema_id: i32,
}

/// A column or a struct's member, and where its values come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// With the source's field id, or the next free one.
    pub field: Field,
    pub origin: Origin,
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// A field of the source, as it is.
    Source {
        index: usize,
    },
    /// A struct of the source with some of its members, or changed ones.
    Members {
        index: usize,
        members: Vec<Derived>,
    },
    /// A primitive field of the source, cast, then protected.
    Changed {
        index: usize,
        cast: Option<PrimitiveType>,
        protection: Option<Protection>,
    },
    Constant(Literal),
}

impl Origin {
    /// The place among the source's fields at this level.
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Source { index } | Self::Members { index, .. } | Self::Changed { index, .. } => {
                Some(*index)
            }
            Self::Constant(_) => None,
        }
    }
}

/// What is wrong with one entry of `transforms` or `protect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformFault {
    pub place: TransformPlace,
    pub message: String,
    /// The column that a name most likely means which nothing answers to.
    pub near: Option<String>,
}

impl fmt::Display for TransformFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// An entry of the spec.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransformPlace {
    Select(usize),
    Drop(usize),
    Rename(String),
    Cast(String),
    Constant(String),
    Protect(String),
}

impl fmt::Display for TransformPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(index) => write!(f, "transforms.select[{index}]"),
            Self::Drop(index) => write!(f, "transforms.drop[{index}]"),
            Self::Rename(column) => write!(f, "transforms.rename.{column}"),
            Self::Cast(column) => write!(f, "transforms.cast.{column}"),
            Self::Constant(column) => write!(f, "transforms.constant.{column}"),
            Self::Protect(column) => write!(f, "protect.{column}"),
        }
    }
}

impl Outcome {
    /// The table's schema, with field ids of the source: number them anew for a table of their own.
    pub fn schema(&self) -> Schema {
        Schema::new(self.schema_id, self.columns.iter().map(|column| column.field.clone()).collect())
    }
}

/// What the table's transforms and protection make of this source.
///
/// # Errors
/// What cannot be done with any source that has these columns.
pub fn outcome(table: &TableSpec, source: &Schema) -> Result<Outcome, Vec<TransformFault>> {
    let mut walk = Walk { table, transforms: &table.transforms, met: BTreeSet::new(), faults: Vec::new() };
    let mut columns = walk.fields(&source.fields, "", "");
    let mut last_id = source.last_field_id();
    for (name, literal) in &table.transforms.constant {
        let place = TransformPlace::Constant(name.clone());
        if columns.iter().any(|column| column.field.name == *name) {
            walk.fault(
                place.clone(),
                "a column has this name already; choose another, or drop or rename that one",
            );
        }
        if table.protect.contains_key(name) {
            walk.fault(
                TransformPlace::Protect(name.clone()),
                "the value is a constant of the spec: there is nothing to protect",
            );
        }
        walk.met.insert(TransformPlace::Protect(name.clone()));
        last_id += 1;
        let field = Field::optional(last_id, name, literal.data_type().into());
        columns.push(Derived { field, origin: Origin::Constant(literal.clone()) });
    }
    let unknown = walk.unknown(source, &columns);
    // A name that nothing answers to is told first.
    let is_engines = |name: &str| name == KAFKA || is_event_type(table, name);
    let is_bare = columns.iter().all(|column| is_engines(&column.field.name)) && !source.fields.is_empty();
    if is_bare && unknown.is_empty() && walk.faults.is_empty() {
        let place = if table.transforms.select.is_some() {
            TransformPlace::Select(0)
        } else {
            TransformPlace::Drop(0)
        };
        walk.fault(place, "leaves no column of the records");
    }
    match walk.faults.is_empty() {
        true => Ok(Outcome { columns, unknown, schema_id: source.schema_id }),
        false => Err(walk.faults),
    }
}

struct Walk<'a> {
    table: &'a TableSpec,
    transforms: &'a Transforms,
    /// Entries that something in the source answers to.
    met: BTreeSet<TransformPlace>,
    faults: Vec<TransformFault>,
}

impl Walk<'_> {
    fn fault(&mut self, place: TransformPlace, message: impl Into<String>) {
        self.faults.push(TransformFault { place, message: message.into(), near: None });
    }

    /// `path`: of the struct in the source, with a dot behind it; `named`: what it is called in the end.
    fn fields(&mut self, fields: &[Field], path: &str, named: &str) -> Vec<Derived> {
        let mut kept: Vec<Derived> = Vec::with_capacity(fields.len());
        let mut renamed = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let at = format!("{path}{}", field.name);
            if !self.is_kept(&at) {
                continue;
            }
            let place = TransformPlace::Rename(at.clone());
            let new_name = self.transforms.rename.get(&at).filter(|_| !is_own(&at));
            if let Some(name) = new_name {
                self.met.insert(place.clone());
                renamed.push((place, name.clone()));
            }
            let name = new_name.unwrap_or(&field.name);
            let in_the_end = format!("{named}{name}");
            if let Some(derived) = self.field(index, field, name, &at, &in_the_end) {
                kept.push(derived);
            }
        }
        for (place, name) in renamed {
            if kept.iter().filter(|other| other.field.name == name).count() > 1 {
                self.fault(place, format!("there is a {named}{name} already; drop it or rename it too"));
            }
        }
        kept
    }

    /// Whether `select` and `drop` keep something of it.
    fn is_kept(&mut self, path: &str) -> bool {
        if is_own(path) {
            return true;
        }
        let Transforms { select, drop, .. } = self.transforms;
        // Whoever selects columns of records means to leave out others of the records.
        let mut selected = select.is_none() || is_event_type(self.table, path);
        for (index, column) in select.iter().flatten().enumerate() {
            if column == path {
                self.met.insert(TransformPlace::Select(index));
            }
            selected |= column == path || is_inside(column, path) || is_inside(path, column);
        }
        let mut dropped = false;
        for (index, column) in drop.iter().enumerate().filter(|(_, column)| *column == path) {
            self.met.insert(TransformPlace::Drop(index));
            dropped = true;
            if select.iter().flatten().any(|selected| selected == column) {
                self.fault(TransformPlace::Drop(index), "select keeps it; take it out of one of both");
            }
        }
        selected && !dropped
    }

    fn field(&mut self, index: usize, field: &Field, name: &str, path: &str, named: &str) -> Option<Derived> {
        let protection = self.table.protect.get(named).copied();
        let protect_at = TransformPlace::Protect(named.to_owned());
        if protection.is_some() {
            self.met.insert(protect_at.clone());
        }
        if protection == Some(Protection::Drop) {
            return None;
        }
        let cast_at = TransformPlace::Cast(named.to_owned());
        let cast = self.transforms.cast.get(named).copied().filter(|_| !is_own(named));
        if cast.is_some() {
            self.met.insert(cast_at.clone());
        }
        let derived = |data_type: Type, origin| {
            let field = Field { name: name.to_owned(), data_type, ..field.clone() };
            Some(Derived { field, origin })
        };
        let kind = kind_of(&field.data_type);
        let Type::Primitive(from) = field.data_type else {
            if cast.is_some() {
                self.fault(cast_at, format!("a {kind} cannot be cast; name its members"));
            }
            if protection.is_some() {
                self.fault(
                    protect_at,
                    format!("a {kind} is dropped or kept as a whole; name its members, or drop it"),
                );
            }
            let Type::Struct(members) = &field.data_type else {
                return derived(field.data_type.clone(), Origin::Source { index });
            };
            let inside = self.fields(members, &format!("{path}."), &format!("{named}."));
            let is_same = |(at, member): (usize, &Derived)| {
                member.origin == Origin::Source { index: at } && member.field == members[at]
            };
            if inside.len() == members.len() && inside.iter().enumerate().all(is_same) {
                return derived(field.data_type.clone(), Origin::Source { index });
            }
            // A struct without members has no form in any format.
            if inside.is_empty() {
                return None;
            }
            let data_type = Type::Struct(inside.iter().map(|member| member.field.clone()).collect());
            return derived(data_type, Origin::Members { index, members: inside });
        };
        let cast = cast.filter(|to| *to != from);
        if let Some(to) = cast.filter(|to| castable(from, *to) == Castable::Never) {
            self.fault(cast_at, format!("{from} cannot be cast to {to}"));
        }
        if cast.is_none() && protection.is_none() {
            return derived(from.into(), Origin::Source { index });
        }
        let to = if protection.is_some() { PrimitiveType::String } else { cast.unwrap_or(from) };
        derived(to.into(), Origin::Changed { index, cast, protection })
    }

    /// Entries that nothing answered to.
    fn unknown(&mut self, source: &Schema, columns: &[Derived]) -> Vec<TransformFault> {
        let Transforms { select, drop, rename, cast, .. } = self.transforms;
        let of_source = (select.iter().flatten().enumerate())
            .map(|(index, column)| (TransformPlace::Select(index), column))
            .chain(drop.iter().enumerate().map(|(index, column)| (TransformPlace::Drop(index), column)))
            .chain(rename.keys().map(|column| (TransformPlace::Rename(column.clone()), column)));
        let of_table = (cast.keys().map(|column| (TransformPlace::Cast(column.clone()), column)))
            .chain(self.table.protect.keys().map(|column| (TransformPlace::Protect(column.clone()), column)));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        paths(&source.fields, "", &mut before);
        let fields: Vec<Field> = columns.iter().map(|column| column.field.clone()).collect();
        paths(&fields, "", &mut after);
        let mut unknown = Vec::new();
        // The engine's own column is refused where the spec is read.
        let is_unmet = |place: &TransformPlace, column: &str| {
            !self.met.contains(place) && (matches!(place, TransformPlace::Protect(_)) || !is_own(column))
        };
        for (place, column) in of_source.filter(|(place, column)| is_unmet(place, column)) {
            let is_there = before.iter().any(|known| known == column);
            unknown.push(match is_there {
                true => TransformFault { place, message: LEFT_OUT.to_owned(), near: None },
                false => no_column(place, column, &before, "the source"),
            });
        }
        for (place, column) in of_table.filter(|(place, column)| is_unmet(place, column)) {
            let message = match rename.get(column) {
                Some(name) => format!("is renamed: here it is {}", renamed_path(column, name)),
                None if before.iter().any(|known| known == column) => LEFT_OUT.to_owned(),
                None => {
                    unknown.push(no_column(place, column, &after, "the table"));
                    continue;
                }
            };
            unknown.push(TransformFault { place, message, near: None });
        }
        unknown
    }
}

const LEFT_OUT: &str = "is left out by select or drop";

fn renamed_path(column: &str, name: &str) -> String {
    column.rsplit_once('.').map_or_else(|| name.to_owned(), |(outer, _)| format!("{outer}.{name}"))
}

fn no_column(place: TransformPlace, column: &str, known: &[String], whose: &str) -> TransformFault {
    let near = nearest(column, known.iter().map(String::as_str)).map(str::to_owned);
    let message = match &near {
        Some(name) => format!("{whose} has no such column; did you mean {name}?"),
        None => format!("{whose} has no such column (members of lists and maps cannot be named)"),
    };
    TransformFault { place, message, near }
}

/// The column of this schema, dotted inside structs, that a mistyped name most likely means.
pub fn nearest_column(column: &str, schema: &Schema) -> Option<String> {
    let mut known = Vec::new();
    paths(&schema.fields, "", &mut known);
    nearest(column, known.iter().map(String::as_str)).map(str::to_owned)
}

/// Whether this is the engine's own column or in it.
fn is_own(path: &str) -> bool {
    path.split('.').next() == Some(KAFKA)
}

/// Whether this is the column that `event_types` asks for.
pub(crate) fn is_event_type(table: &TableSpec, path: &str) -> bool {
    table.event_types.as_ref().is_some_and(|types| types.column.as_deref() == Some(path))
}

fn is_inside(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// What becomes of values under a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Castable {
    Always,
    /// There are values for which it fails.
    Sometimes,
    Never,
}

/// Whether values of one type can be cast to another.
pub fn castable(from: PrimitiveType, to: PrimitiveType) -> Castable {
    use Castable::{Always, Never, Sometimes};
    use PrimitiveType as P;
    let is_number = |of| matches!(of, P::Int | P::Long | P::Float | P::Double | P::Decimal { .. });
    match (from, to) {
        (same, other) if same == other => Always,
        (P::Int, P::Long | P::Float | P::Double)
        | (P::Long, P::Float | P::Double)
        | (P::Float, P::Double) => Always,
        (P::Boolean, P::Int | P::Long) => Always,
        (P::Decimal { .. }, P::Float | P::Double) => Always,
        (from, to) if is_number(from) && is_number(to) => Sometimes,
        (P::Timestamptz, P::Timestamp) | (P::Timestamp, P::Timestamptz) => Always,
        (P::Timestamp | P::Timestamptz, P::Date) => Always,
        // Days reach further than microseconds, and both further than the calendar of texts.
        (P::Date, P::Timestamp | P::Timestamptz) => Sometimes,
        (P::Date | P::Timestamp | P::Timestamptz | P::Binary | P::Fixed(_), P::String) => Sometimes,
        (P::Fixed(_), P::Binary) | (P::String, P::Binary) => Always,
        (_, P::String) => Always,
        (
            P::String,
            P::Boolean
            | P::Int
            | P::Long
            | P::Float
            | P::Double
            | P::Decimal { .. }
            | P::Date
            | P::Time
            | P::Timestamp
            | P::Timestamptz
            | P::Uuid,
        ) => Sometimes,
        _ => Never,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
