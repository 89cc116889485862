//! What a table becomes when records of another schema arrive.
//!
//! A field of records is the column of its number, where both have one (Protobuf); else of its name; else the one that
//! has this name as an alias; else the one whose name or alias is among its own aliases, unless its type is another;
//! else it is new. Columns are never dropped or reordered: one that the incoming schema lacks stays and is null for its
//! records. A table follows by what every reader of its files can follow:
//!
//! 1. additions, always optional, with ids after the last one ever used;
//! 2. widenings: int to long, float to double, more decimal digits, where its formats can show them;
//! 3. required to optional;
//! 4. another name, where its formats can show it; the old one becomes an alias. Else the new one does.
//!
//! What does not fit a column refuses the schema, or, with [`Rules::variants`], goes to a column beside it that is
//! called after the type. An incoming schema that is narrower than the table changes nothing.
//!
//! Pure, and knows nothing of Avro or JSON. All that it decides by is in the table's schema, so workers that meet
//! the same schemas in any order come to tables that take them all, and none asks for the same change twice.

mod names;

use siltstone_protocol::{
    Field, Format, PrimitiveType, Schema, Type,
    path::{ELEMENT, MAP_KEY, MAP_VALUE, dotted},
};

use crate::{
    model::{OnIncompatible, TableSpec},
    resolve::kind_of,
};

use names::{bind, free_name, new_aliases, suffix, unseen};

/// A chain of columns that take each other's names is followed so far in one step; more take another step.
const PASSES_MAX: usize = 8;

/// How a table may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Columns get the names that records have now.
    pub renames: bool,
    /// Columns get wider types.
    pub widens: bool,
    /// Structs in maps get members.
    pub grows_in_maps: bool,
    /// What fits no column gets one of its own.
    pub variants: bool,
    /// The largest field id that the table ever had, when it is none of its present ones.
    pub last_field_id: i32,
}

impl Rules {
    /// Those of a table: Delta without column mapping and type widening shows no other name and no other type, and
    /// delta-rs reads no older file once a struct in a map has a member more. Beside
    /// transforms nothing gets a column of its own: what is protected under one name would come in the clear there.
    pub fn of(table: &TableSpec) -> Self {
        let delta = table.formats.contains(&Format::Delta);
        let variants = table.on_incompatible == OnIncompatible::NewColumn && !table.has_transforms();
        Self { renames: !delta, widens: !delta, grows_in_maps: !delta, variants, last_field_id: 0 }
    }
}

/// What [`merge`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// The table can take the records as it is.
    Same {
        /// The table's schema in the words of the records: each column is called as they call it, and one that takes
        /// nothing of them bears a name that no field has.
        view: Schema,
    },
    /// The table can take them once it is this; its `schema_id` is one more.
    Evolves(Schema),
    /// The table can never take them.
    Refused(Mismatch),
}

/// A field that does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("records have {records} for a column of {column}{}", self.hint())]
pub struct Mismatch {
    /// Path of the column, `[]` and `{}` inside lists and maps.
    pub field: String,
    /// The column's type.
    pub column: String,
    /// The type in the incoming schema.
    pub records: String,
    /// Why the column does not follow though Avro's rules would have it.
    pub hindrance: Option<Hindrance>,
}

/// What a format of the table has no form for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// A wider type.
    Widening,
    /// More members of a struct in a map.
    Map,
}

impl Mismatch {
    fn hint(&self) -> &'static str {
        match self.hindrance {
            None => "",
            Some(Hindrance::Widening) => ", and a table in Delta cannot widen a column",
            Some(Hindrance::Map) => {
                " with other members, and readers of Delta cannot follow those inside maps"
            }
        }
    }
}

/// The table schema that takes records of `incoming` too.
pub fn merge(table: &Schema, incoming: &Schema, rules: Rules) -> Merge {
    let mut merged = merge_once(table, incoming, rules);
    // A name that one column gives up may be another one's alias: seen once it is given up.
    for _ in 0..PASSES_MAX {
        let Merge::Evolves(schema) = &merged else { break };
        let rules = Rules { last_field_id: rules.last_field_id.max(table.last_field_id()), ..rules };
        match merge_once(schema, incoming, rules) {
            Merge::Evolves(more) => merged = Merge::Evolves(Schema::new(schema.schema_id, more.fields)),
            Merge::Same { .. } | Merge::Refused(_) => break,
        }
    }
    merged
}

fn merge_once(table: &Schema, incoming: &Schema, rules: Rules) -> Merge {
    let mut merger = Merger { rules, path: Vec::new() };
    let start = Progress { last_id: table.last_field_id().max(rules.last_field_id), changed: false };
    match merger.fields(&table.fields, &incoming.fields, start) {
        Ok((fields, progress)) if progress.changed => {
            Merge::Evolves(Schema::new(table.schema_id + 1, fields.merged))
        }
        Ok((fields, _)) => Merge::Same { view: Schema::new(table.schema_id, fields.view) },
        Err(mismatch) => Merge::Refused(mismatch),
    }
}

/// Numbers fields depth-first: a field, then what is inside it, then the next one.
pub fn assign_ids(fields: &mut [Field], last: &mut i32) {
    for field in fields {
        *last += 1;
        field.id = *last;
        assign_type_ids(&mut field.data_type, last);
    }
}

pub(crate) fn assign_type_ids(data_type: &mut Type, last: &mut i32) {
    let mut next = || {
        *last += 1;
        *last
    };
    match data_type {
        Type::Primitive(_) => {}
        Type::Struct(fields) => assign_ids(fields, last),
        Type::List { element_id, element, .. } => {
            *element_id = next();
            assign_type_ids(element, last);
        }
        Type::Map { key_id, key, value_id, value, .. } => {
            (*key_id, *value_id) = (next(), next());
            assign_type_ids(key, last);
            assign_type_ids(value, last);
        }
    }
}

/// Something as the table is to have it, and as the records see it.
struct Both<T> {
    merged: T,
    view: T,
}

impl<T: Clone> Both<T> {
    fn same(of: T) -> Self {
        Self { merged: of.clone(), view: of }
    }
}

/// How far a merge is: copied, so that a part can be tried.
#[derive(Clone, Copy)]
struct Progress {
    last_id: i32,
    changed: bool,
}

impl Progress {
    fn change(&mut self, changed: bool) {
        self.changed |= changed;
    }
}

type Merged<T> = Result<(Both<T>, Progress), Mismatch>;

struct Merger {
    rules: Rules,
    path: Vec<String>,
}

impl Merger {
    fn fields(&mut self, table: &[Field], incoming: &[Field], mut progress: Progress) -> Merged<Vec<Field>> {
        let mut bound = bind(table, incoming);
        for (base, field) in bound.iter_mut().zip(incoming) {
            if base.is_some_and(|at| self.is_misled(table, at, field, progress)) {
                *base = None;
            }
        }
        let mut columns: Vec<Option<Both<Field>>> = table.iter().map(|_| None).collect();
        let mut added: Vec<Field> = Vec::new();
        for (field, base) in incoming.iter().zip(&bound) {
            let Some(base) = *base else {
                let name = free_name(&field.name, &field.name, table, incoming, &added);
                // Rows that are there already have no value for it.
                let mut new = Field { required: false, name, aliases: Vec::new(), ..field.clone() };
                let called = std::iter::once(&field.name).chain(&field.aliases);
                new.aliases = new_aliases(&new, called, field, table, incoming);
                // Another column has the name, and other records' values: without this it would come again each time.
                if !new.is_called(&field.name) {
                    new.aliases.push(field.name.clone());
                }
                assign_ids(std::slice::from_mut(&mut new), &mut progress.last_id);
                progress.changed = true;
                added.push(new);
                continue;
            };
            match self.place(table, base, field, progress)? {
                Some((column, both, after)) => {
                    progress = after;
                    if let Some(slot) = columns.get_mut(column) {
                        *slot = Some(both);
                    }
                }
                None => {
                    let Some(known) = table.get(base) else { continue };
                    let called = format!("{}_{}", known.name, suffix(&field.data_type));
                    let name = free_name(&called, "", table, incoming, &added);
                    let mut new = Field::optional(0, name, field.data_type.clone());
                    new.variant_of = Some(known.id);
                    assign_ids(std::slice::from_mut(&mut new), &mut progress.last_id);
                    progress.changed = true;
                    added.push(new);
                }
            }
        }
        let mut fields =
            Both { merged: Vec::with_capacity(table.len()), view: Vec::with_capacity(table.len()) };
        for ((position, column), both) in table.iter().enumerate().zip(columns) {
            let both = both.unwrap_or_else(|| {
                progress.change(column.required);
                let name = unseen(column, incoming);
                Both {
                    merged: Field { required: false, ..column.clone() },
                    view: Field { required: false, name, ..column.clone() },
                }
            });
            let base = bound.iter().position(|base| *base == Some(position)).and_then(|at| incoming.get(at));
            let merged = match base {
                Some(field) => self.named(both.merged, field, table, incoming, &mut progress),
                None => both.merged,
            };
            fields.merged.push(merged);
            fields.view.push(both.view);
        }
        fields.view.extend(added.iter().cloned());
        fields.merged.append(&mut added);
        Ok((fields, progress))
    }

    /// True when an alias alone leads to a column that does not take the values. A registry may well let a field go and
    /// another one come in one step; what was meant is then another column.
    fn is_misled(&mut self, table: &[Field], base: usize, field: &Field, progress: Progress) -> bool {
        let Some(column) = table.get(base) else { return false };
        // Looked at first: else each level would be merged twice, and a deep schema would take for ever.
        if column.is_called(&field.name) || (column.number.is_some() && column.number == field.number) {
            return false;
        }
        let fits = self.data_type(&column.data_type, &field.data_type, progress);
        fits.is_err_and(|mismatch| mismatch.hindrance.is_none())
    }

    /// The column that takes `field` with the least change: the one of its name, or a variant. `None`: a variant is to
    /// be made.
    fn place(
        &mut self,
        table: &[Field],
        base: usize,
        field: &Field,
        progress: Progress,
    ) -> Result<Option<(usize, Both<Field>, Progress)>, Mismatch> {
        let base_id = table.get(base).map(|column| column.id);
        let variants = table.iter().enumerate().filter(|(_, column)| column.variant_of == base_id);
        let candidates = table.iter().enumerate().skip(base).take(1).chain(variants);
        let (mut best, mut refused) = (None, None);
        for (position, column) in candidates {
            let before = Progress { changed: false, ..progress };
            self.path.push(column.name.clone());
            match self.data_type(&column.data_type, &field.data_type, before) {
                Ok((types, mut after)) => {
                    let changed = after.changed;
                    let required = column.required && field.required;
                    after.change(progress.changed || required != column.required);
                    let merged = Field { required, data_type: types.merged, ..column.clone() };
                    let name = field.name.clone();
                    let view = Field { required, name, data_type: types.view, ..column.clone() };
                    let found = (position, Both { merged, view }, after);
                    self.path.pop();
                    if !changed {
                        return Ok(Some(found));
                    }
                    best.get_or_insert(found);
                }
                Err(mismatch) => {
                    self.path.pop();
                    refused.get_or_insert(mismatch);
                }
            }
        }
        match (best, refused) {
            (None, Some(mismatch)) if !self.rules.variants => Err(mismatch),
            (best, _) => Ok(best),
        }
    }

    /// The column with what its field's schema says of names and number.
    fn named(
        &self,
        column: Field,
        field: &Field,
        table: &[Field],
        incoming: &[Field],
        progress: &mut Progress,
    ) -> Field {
        let mut named = column.clone();
        let taken = || table.iter().any(|other| other.id != column.id && other.is_called(&field.name));
        if self.rules.renames && !column.is_called(&field.name) && !taken() {
            named.name.clone_from(&field.name);
        }
        let called = [&column.name, &field.name].into_iter().chain(&field.aliases);
        let new = new_aliases(&named, called, field, table, incoming);
        named.aliases.extend(new);
        named.number = column.number.or(field.number);
        progress.change(named != column);
        named
    }

    fn data_type(&mut self, table: &Type, incoming: &Type, mut progress: Progress) -> Merged<Type> {
        let merged = match (table, incoming) {
            (Type::Primitive(from), Type::Primitive(to)) => {
                let wider = self.primitive(*from, *to)?;
                progress.change(wider != *from);
                Both::same(Type::Primitive(wider))
            }
            (Type::Struct(members), Type::Struct(newer)) => {
                let (fields, after) = self.fields(members, newer, progress)?;
                progress = after;
                Both { merged: Type::Struct(fields.merged), view: Type::Struct(fields.view) }
            }
            (
                Type::List { element_id, element_required, element },
                Type::List { element_required: newer_required, element: newer, .. },
            ) => {
                let (types, after) = self.inside(ELEMENT, element, newer, progress)?;
                progress = after;
                let (element_id, required) = (*element_id, *element_required && *newer_required);
                progress.change(required != *element_required);
                let list = |element| Type::List { element_id, element_required: required, element };
                Both { merged: list(Box::new(types.merged)), view: list(Box::new(types.view)) }
            }
            (
                Type::Map { key_id, key, value_id, value_required, value },
                Type::Map { key: newer_key, value_required: newer_required, value: newer, .. },
            ) => {
                if kind_of(key) != kind_of(newer_key) {
                    self.path.push(MAP_KEY.to_owned());
                    let mismatch = self.mismatch(key, newer_key, None);
                    self.path.pop();
                    return Err(mismatch);
                }
                let (types, after) = self.inside(MAP_VALUE, value, newer, progress)?;
                if !self.rules.grows_in_maps && types.merged.count_members() != value.count_members() {
                    return Err(self.mismatch(table, incoming, Some(Hindrance::Map)));
                }
                progress = after;
                let (key_id, value_id, required) = (*key_id, *value_id, *value_required && *newer_required);
                progress.change(required != *value_required);
                let map = |value| {
                    let key = key.clone();
                    Type::Map { key_id, key, value_id, value_required: required, value: Box::new(value) }
                };
                Both { merged: map(types.merged), view: map(types.view) }
            }
            _ => return Err(self.mismatch(table, incoming, None)),
        };
        Ok((merged, progress))
    }

    fn inside(&mut self, name: &str, table: &Type, incoming: &Type, progress: Progress) -> Merged<Type> {
        self.path.push(name.to_owned());
        let merged = self.data_type(table, incoming, progress);
        self.path.pop();
        merged
    }

    fn mismatch(&self, table: &Type, incoming: &Type, hindrance: Option<Hindrance>) -> Mismatch {
        Mismatch { field: dotted(&self.path), column: kind_of(table), records: kind_of(incoming), hindrance }
    }

    fn primitive(&self, table: PrimitiveType, incoming: PrimitiveType) -> Result<PrimitiveType, Mismatch> {
        let widened = common(table, incoming);
        match widened {
            Some(wider) if wider == table || self.rules.widens => Ok(wider),
            _ => Err(self.mismatch(&table.into(), &incoming.into(), widened.map(|_| Hindrance::Widening))),
        }
    }
}

/// The type that holds all values of both and to which files of the first can be read.
pub(crate) fn common(table: PrimitiveType, incoming: PrimitiveType) -> Option<PrimitiveType> {
    use PrimitiveType as P;
    match (table, incoming) {
        (same, other) if same == other => Some(table),
        (P::Long | P::Float | P::Double, P::Int)
        | (P::Float | P::Double, P::Long)
        | (P::Double, P::Float)
        | (P::String, P::Binary)
        | (P::Binary, P::String | P::Fixed(_)) => Some(table),
        (P::Int, P::Long) | (P::Float, P::Double) => Some(incoming),
        (P::Decimal { precision, scale }, P::Decimal { precision: digits, scale: point }) => {
            // Digits before and after the point; a smaller scale is multiplied out.
            let whole = precision.saturating_sub(scale).max(digits.saturating_sub(point));
            let fits = point <= scale && whole.saturating_add(scale) <= 38;
            fits.then(|| P::Decimal { precision: (whole + scale).max(precision), scale })
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
