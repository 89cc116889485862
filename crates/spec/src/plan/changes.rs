//! What the spec's transforms mean for a table that is there: columns that leave, are renamed, or come anew with
//! another type. Pure.
//!
//! | spec | live table | what becomes of rows already written |
//! | --- | --- | --- |
//! | `transforms.drop`, `protect: drop` | the column leaves | they no longer show it |
//! | `transforms.rename` | the column is renamed, and keeps its id | they show it under the new name |
//! | `transforms.cast`, `protect` to a type that the old one widens to | the column is widened; refused over Delta | they show it, widened |
//! | the same, to any other type | a new column takes the name, the old one leaves | they read null there |
//!
//! Only what these name is dropped or retyped: what a schema merely leaves out stays, or is refused. What takes
//! values from readers' eyes is refused without consent ([`super::TablePlan::without_loss`]), for which `apply` asks.
//! The values stay in the data files until these are rewritten, and in older snapshots until those expire.
//!
//! What the spec says of a column holds whether or not the source still has it: a worker asks the table alone
//! ([`pending`]), and must not wait for what no plan would do. Variants of a column that is dropped leave with it.
//!
//! Ids are never used again. What was renamed is known again by the names that it had ([`Field::aliases`]), so that a
//! plan, once applied, leaves nothing to do even when names were swapped.
//!
//! Partition fields of Iceberg stay in its metadata for good, and some readers look up the source column of each. So a
//! column by which files are, or were, partitioned can be renamed, but neither dropped nor retyped.

use std::collections::HashSet;

use siltstone_protocol::{
    ErrorCode, Field, Format, PartitionSpec, PrimitiveType, Schema, SchemaHistory, Type,
};

use super::{
    LiveTable, Reason, Step,
    schema::{Numbers, describe, same_shape, widens},
};
use crate::{
    model::{Protection, TableSpec, Transforms},
    transform::{KAFKA, is_event_type},
};

/// The live table's fields after what the transforms say.
pub(super) struct Changed {
    pub(super) fields: Vec<Field>,
    pub(super) steps: Vec<Step>,
    pub(super) reasons: Vec<Reason>,
}

/// `wanted`: the table's schema by the spec, transforms applied; `None` while the source's is not known.
pub(super) fn change(
    table: &TableSpec,
    live: &LiveTable,
    wanted: Option<&Schema>,
    numbers: &mut Numbers,
) -> Changed {
    let mut work = Work { table, live, numbers, steps: Vec::new(), reasons: Vec::new() };
    let wanted = wanted.map(|wanted| wanted.fields.as_slice());
    let fields = work.fields(&live.schema.fields, wanted, Level::default());
    work.named_elsewhere(&fields);
    Changed { fields, steps: work.steps, reasons: work.reasons }
}

/// What `apply` has to do before a worker with this spec may write to the table, in words. Columns that the spec drops
/// are not waited for: their rows are null meanwhile.
pub fn pending(table: &TableSpec, live: &Schema) -> Option<String> {
    let renames = Renames { transforms: &table.transforms };
    if let Some((from, to)) = renames.pending(&live.fields, &Level::default()) {
        return Some(format!("column {from} is to be renamed to {to}"));
    }
    pending_type(table, &live.fields, "")
}

fn pending_type(table: &TableSpec, live: &[Field], prefix: &str) -> Option<String> {
    live.iter().find_map(|field| {
        let path = format!("{prefix}{}", field.name);
        if let Some(Asked::Another(to) | Asked::Wider(to)) = asked(table, &path, &field.data_type, None) {
            let (from, to) = (describe(&field.data_type), describe(&to));
            return Some(format!("column {path} of type {from} is to be {to}"));
        }
        let Type::Struct(members) = &field.data_type else { return None };
        pending_type(table, members, &format!("{path}."))
    })
}

/// A type that the spec asks for, and that a live column does not take as records come.
enum Asked {
    /// A new column takes the name.
    Another(Type),
    /// A wider one, which Delta has no form for.
    Wider(Type),
}

/// `wanted`: the column by the spec, if the source is known and has it; else the spec alone says the type.
fn asked(table: &TableSpec, path: &str, live: &Type, wanted: Option<&Field>) -> Option<Asked> {
    let to = match table.protect.get(path) {
        Some(Protection::Drop) => return None,
        Some(_) => PrimitiveType::String,
        None => *table.transforms.cast.get(path)?,
    };
    let to = match (wanted, live) {
        (Some(wanted), _) => wanted.data_type.clone(),
        (None, Type::Primitive(_)) => Type::Primitive(to),
        (None, _) => return None,
    };
    if is_another(live, &to) {
        return Some(Asked::Another(to));
    }
    let (Type::Primitive(from), Type::Primitive(wider)) = (live, &to) else { return None };
    let is_stuck = table.formats.contains(&Format::Delta) && widens(*from, *wider);
    is_stuck.then_some(Asked::Wider(to))
}

/// What records would bring back that the table gave up: a worker with an older spec than the table's, or with one
/// that a person has yet to apply, still meets it. In words, with the column.
///
/// A column that was renamed takes records that call it by its old name, and is not spoken of here.
pub fn given_up(
    history: &SchemaHistory,
    table: &Schema,
    incoming: &Schema,
) -> Option<(String, &'static str)> {
    given_up_in(history, 0, &table.fields, &incoming.fields, "")
}

fn given_up_in(
    history: &SchemaHistory,
    parent: i32,
    table: &[Field],
    incoming: &[Field],
    prefix: &str,
) -> Option<(String, &'static str)> {
    incoming.iter().find_map(|field| {
        let path = format!("{prefix}{}", field.name);
        let by_name = table.iter().find(|column| column.name == field.name);
        let called =
            || table.iter().find(|column| column.is_called(&field.name) || field.is_called(&column.name));
        let Some(column) = by_name.or_else(called) else {
            return history.former(parent, &field.name, None).map(|_| (path, "dropped or renamed"));
        };
        if let Some(former) = history.former(parent, &column.name, Some(column.id))
            && !table.iter().any(|column| column.id == former.id)
            && is_another(&column.data_type, &field.data_type)
            && !is_another(&former.data_type, &field.data_type)
        {
            return Some((path, "retyped"));
        }
        let (Type::Struct(members), Type::Struct(newer)) = (&column.data_type, &field.data_type) else {
            return None;
        };
        given_up_in(history, column.id, members, newer, &format!("{path}."))
    })
}

/// A struct, or the table itself.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Its path by the source's names, and by the final ones, each with a dot behind it.
    source: String,
    named: String,
}

impl Level {
    fn inside(&self, source: &str, named: &str) -> Self {
        Self { source: format!("{}{source}.", self.source), named: format!("{}{named}.", self.named) }
    }
}

struct Renames<'a> {
    transforms: &'a Transforms,
}

impl<'a> Renames<'a> {
    /// Old and new names at this level.
    fn at(&self, level: &Level) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = level.source.clone();
        self.transforms.rename.iter().filter_map(move |(from, to)| {
            let from = from.strip_prefix(&prefix).filter(|from| !from.contains('.'))?;
            Some((from, to.as_str()))
        })
    }

    /// What the source calls a live column. One that bears the new name of a rename was renamed already, unless the
    /// column of the old name is still there. One that was renamed otherwise before is known by its old name.
    fn source_name<'f>(&self, field: &'f Field, live: &[Field], level: &Level) -> &'f str
    where
        'a: 'f,
    {
        let was = |name: &str| field.aliases.iter().any(|alias| alias == name);
        let is_there = |name: &str| live.iter().any(|field| field.name == name);
        let done =
            |(from, to): &(&str, &str)| *to == field.name && from != to && (was(from) || !is_there(from));
        let other = |(from, to): &(&str, &str)| was(from) && !is_there(from) && !is_there(to);
        let renamed = self.at(level).find(done);
        let is_source = || self.at(level).any(|(from, _)| from == field.name);
        let renamed = renamed.or_else(|| if is_source() { None } else { self.at(level).find(other) });
        renamed.map_or(field.name.as_str(), |(from, _)| from)
    }

    fn new_name(&self, source: &str, level: &Level) -> Option<&'a str> {
        self.at(level).find(|(from, _)| *from == source).map(|(_, to)| to)
    }

    /// The first rename that the table has yet to follow.
    fn pending(&self, live: &[Field], level: &Level) -> Option<(String, String)> {
        live.iter().find_map(|field| {
            let source = self.source_name(field, live, level);
            let named = self.new_name(source, level).unwrap_or(&field.name);
            if named != field.name && !self.transforms.drop.contains(&format!("{}{source}", level.source)) {
                return Some((format!("{}{}", level.named, field.name), named.to_owned()));
            }
            let Type::Struct(members) = &field.data_type else { return None };
            self.pending(members, &level.inside(source, named))
        })
    }
}

struct Work<'a, 'n> {
    table: &'a TableSpec,
    live: &'a LiveTable,
    numbers: &'n mut Numbers,
    steps: Vec<Step>,
    reasons: Vec<Reason>,
}

impl Work<'_, '_> {
    fn refuse(&mut self, what: String, why: &str, way_out: &str) {
        let code = ErrorCode::ColumnChangeRefused;
        self.reasons.push(Reason { code, what, why: why.to_owned(), way_out: way_out.to_owned() });
    }

    /// `wanted`: the fields of the same struct by the spec, if it has it.
    fn fields(&mut self, live: &[Field], wanted: Option<&[Field]>, level: Level) -> Vec<Field> {
        let renames = Renames { transforms: &self.table.transforms };
        let mut kept: Vec<Field> = Vec::with_capacity(live.len());
        let dropped = live
            .iter()
            .filter(|field| self.is_dropped(field, renames.source_name(field, live, &level), wanted, &level));
        let dropped: HashSet<i32> = dropped.map(|field| field.id).collect();
        for field in live {
            let source = renames.source_name(field, live, &level);
            let path = format!("{}{}", level.named, field.name);
            // A variant holds values of the column as well.
            if dropped.contains(&field.id) || field.variant_of.is_some_and(|of| dropped.contains(&of)) {
                if self.may_leave(field, &path, "is dropped") {
                    self.steps.push(Step::DropColumn { column: path });
                }
                continue;
            }
            let named = renames.new_name(source, &level).unwrap_or(&field.name);
            let mut field = field.clone();
            if named != field.name {
                self.steps.push(Step::RenameColumn { column: path, name: named.to_owned() });
                let old = std::mem::replace(&mut field.name, named.to_owned());
                field.aliases.retain(|alias| *alias != old && *alias != field.name);
                field.aliases.push(old);
            }
            let wanted = wanted.and_then(|wanted| wanted.iter().find(|wanted| wanted.name == field.name));
            kept.push(self.field(field, source, wanted, &level));
        }
        for (index, field) in kept.iter().enumerate() {
            if kept[..index].iter().any(|other| other.name == field.name) {
                let what = format!("column {}{} is there already", level.named, field.name);
                let why = "transforms.rename would give two columns this name";
                self.refuse(what, why, "choose another name, or name the other column in transforms.drop");
            }
        }
        if kept.is_empty() && !live.is_empty() {
            let of = match level.named.trim_end_matches('.') {
                "" => "the table".to_owned(),
                column => format!("column {column}"),
            };
            let why = "a table and a struct have at least one column";
            self.refuse(
                format!("all of {of} is dropped"),
                why,
                "keep one of its columns, or drop it as a whole",
            );
        }
        kept
    }

    /// Whether the spec drops a live column: by name, and not only to put another one into its place.
    fn is_dropped(&self, field: &Field, source: &str, wanted: Option<&[Field]>, level: &Level) -> bool {
        let TableSpec { transforms, protect, .. } = self.table;
        let by_protection = protect.get(&format!("{}{}", level.named, field.name)) == Some(&Protection::Drop);
        if !by_protection && !transforms.drop.contains(&format!("{}{source}", level.source)) {
            return false;
        }
        let renames = Renames { transforms };
        let replaced = renames.at(level).any(|(_, to)| to == field.name);
        // A constant, say.
        let stays = match wanted {
            Some(wanted) => wanted.iter().any(|wanted| wanted.name == field.name),
            None => !by_protection && level.named.is_empty() && is_own(self.table, &field.name),
        };
        replaced || !stays
    }

    fn field(&mut self, mut field: Field, source: &str, wanted: Option<&Field>, level: &Level) -> Field {
        let path = format!("{}{}", level.named, field.name);
        if let Type::Struct(members) = &field.data_type {
            let inside = wanted.and_then(|wanted| match &wanted.data_type {
                Type::Struct(members) => Some(members.as_slice()),
                _ => None,
            });
            let members = self.fields(members, inside, level.inside(source, &field.name));
            field.data_type = Type::Struct(members);
        }
        match asked(self.table, &path, &field.data_type, wanted) {
            Some(Asked::Another(to)) if self.may_leave(&field, &path, "is retyped") => {
                let from = describe(&field.data_type);
                self.steps.push(Step::RetypeColumn { column: path, from, to: describe(&to) });
                let id = self.numbers.next();
                let data_type = self.numbers.renumbered(&to);
                Field { id, required: false, data_type, ..field }
            }
            Some(Asked::Wider(to)) => {
                self.reasons.push(not_widened(&field, &path, &to));
                field
            }
            _ => field,
        }
    }

    /// False, with a reason, when files are or were partitioned by the column or something in it.
    fn may_leave(&mut self, field: &Field, path: &str, how: &str) -> bool {
        let mut ids = HashSet::new();
        Schema::new(0, vec![field.clone()]).visit(&mut |id| {
            ids.insert(id);
        });
        let uses = |spec: &PartitionSpec| spec.fields.iter().any(|field| ids.contains(&field.source_id));
        if !self.live.partition_specs.iter().any(uses) {
            return true;
        }
        let why = "files of the table are partitioned by it, or were, and Iceberg keeps every partition spec";
        self.refuse(format!("column {path} {how}"), why, "keep the column, or make a new table");
        false
    }

    /// Other settings that name a column which leaves: with it they would quietly do nothing.
    fn named_elsewhere(&mut self, fields: &[Field]) {
        let after = Schema::new(0, fields.to_vec());
        let retention = self.table.retention.rows_by.iter().map(|column| ("retention.rows_by", column));
        let blooms = self.table.files.bloom_filters.iter().map(|column| ("files.bloom_filters", column));
        let disclosed = self.table.disclose.columns().iter().map(|column| ("disclose.bounds", column));
        for (setting, column) in retention.chain(blooms).chain(disclosed) {
            if is_called_so(&self.live.schema, column) && !is_called_so(&after, column) {
                let what = format!("column {column} is named in {setting}");
                let why = "the table no longer has a column of this name".to_owned();
                let way_out = format!("take it out of {setting}, or name the column as it is called now");
                self.reasons.push(Reason { code: ErrorCode::UnknownColumn, what, why, way_out });
            }
        }
    }
}

/// As the format says it, which would be asked only of a plan that widens the column.
fn not_widened(field: &Field, path: &str, to: &Type) -> Reason {
    let (from, to) = (describe(&field.data_type), describe(to));
    Reason {
        code: ErrorCode::FormatCannotShow,
        what: format!("delta and column {path}"),
        why: format!("it goes from {from} to {to}, which Delta without type widening cannot follow"),
        way_out: format!("keep it {from}, or make a new table"),
    }
}

/// True for a column that comes of the spec, and of no field of the source.
fn is_own(table: &TableSpec, name: &str) -> bool {
    table.transforms.constant.contains_key(name)
        || is_event_type(table, name)
        || (table.kafka_metadata && name == KAFKA)
}

/// True when the schema has a column of this dotted name, and not only one that had it once.
fn is_called_so(schema: &Schema, column: &str) -> bool {
    let path = schema.field_at(column).and_then(|field| schema.path_of(field.id));
    path.is_some_and(|path| path.iter().map(|field| field.name.as_str()).eq(column.split('.')))
}

/// True for a type that the column cannot become with its values.
fn is_another(live: &Type, wanted: &Type) -> bool {
    match (live, wanted) {
        (Type::Primitive(live), Type::Primitive(wanted)) => {
            live != wanted && !widens(*live, *wanted) && !widens(*wanted, *live)
        }
        _ => !same_shape(live, wanted),
    }
}
