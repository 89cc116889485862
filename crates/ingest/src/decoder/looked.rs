//! What a table's transforms make of a source: which columns, and which names of the spec nothing answers to.

use siltstone_protocol::{Field, Schema, Type};
use siltstone_spec::{
    ExtraFields, Protection, SourceFormat, TableSpec, Transforms,
    evolve::assign_ids,
    plan::Notice,
    transform::{Derived, Origin, Outcome, TransformFault, TransformPlace, outcome},
};

use super::{kafka::KAFKA_COLUMN, learn::with_own, staged::spoken_of};
use crate::{
    IngestError,
    transform::{Condition, FilterFault},
};

/// What a record that is no object becomes a value of.
const BARE_COLUMN: &str = "value";

/// A source, and what the spec makes of it.
#[derive(Debug)]
pub(super) struct Looked {
    /// With the engine's own column.
    source: Schema,
    pub(super) outcome: Outcome,
    filter: Option<FilterFault>,
    /// Columns that the filter looks at.
    pub(super) filtered_by: Vec<String>,
    /// Those of them that no records have: it finds null there.
    absent: Vec<String>,
}

/// # Errors
/// What the spec asks for cannot be done with these columns.
pub(super) fn look(table: &TableSpec, source: &Schema) -> Result<Looked, IngestError> {
    let source = with_own(&spoken_of(table, source)?, None, table)?;
    let outcome = outcome(table, &source).map_err(|faults| invalid(table, &faults))?;
    let (mut filter, mut filtered_by) = (None, Vec::new());
    if let Some(text) = &table.transforms.filter {
        match Condition::parse(text, &source) {
            Ok(condition) => {
                filtered_by = condition.columns().into_iter().collect();
                condition.compile()?;
            }
            Err(fault @ FilterFault::UnknownColumn { .. }) => filter = Some(fault),
            Err(fault) => return Err(fault.of(table)),
        }
    }
    Ok(Looked { source, outcome, filter, filtered_by, absent: Vec::new() })
}

/// The source with all columns of the filter. One that it has under another name, and says so in an alias, is called as
/// the filter calls it. Those that it lacks and a live table has are added, and named: the filter finds null there.
/// Records may have them no more; that stops no table.
pub(super) fn with_absent(
    table: &TableSpec,
    mut source: Schema,
    live: Option<&Schema>,
) -> (Schema, Vec<String>) {
    let mut added = Vec::new();
    // Ends: each time the source gets a column of a name that it lacks.
    while let Some(column) = lacking(table, &source) {
        if let Some(field) = source.fields.iter_mut().find(|field| field.is_called(&column)) {
            if call(table, field, &column) {
                continue;
            }
            break;
        }
        let Some(data_type) = live.and_then(|live| absent(table, live, &column)) else { break };
        let mut last_id = source.last_field_id();
        let mut field = Field::optional(0, column.clone(), data_type);
        assign_ids(std::slice::from_mut(&mut field), &mut last_id);
        source.fields.push(field);
        added.push(column);
    }
    (source, added)
}

/// The column that the filter looks for in vain.
fn lacking(table: &TableSpec, source: &Schema) -> Option<String> {
    let looked = look(table, source).ok()?;
    let Some(FilterFault::UnknownColumn { column, .. }) = looked.filter else { return None };
    source.column(&column).is_none().then_some(column)
}

/// Calls a field by its alias. Not one that the spec speaks of by its name: it would be changed and protected no more.
fn call(table: &TableSpec, field: &mut Field, alias: &str) -> bool {
    let Transforms { select, drop, rename, cast, .. } = &table.transforms;
    let listed = drop.iter().chain(select.iter().flatten());
    let mut spoken = listed.chain(rename.keys()).chain(cast.keys()).chain(table.protect.keys());
    let is_of = |path: &String| {
        let rest = path.strip_prefix(field.name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if spoken.any(is_of) {
        return false;
    }
    let Some(known) = field.aliases.iter_mut().find(|known| known.as_str() == alias) else { return false };
    std::mem::swap(known, &mut field.name);
    true
}

/// The type of a source's column, as far as the table that was made of it says.
fn absent(table: &TableSpec, live: &Schema, column: &str) -> Option<Type> {
    let Transforms { rename, cast, constant, .. } = &table.transforms;
    let named = rename.get(column).map_or(column, String::as_str);
    let is_another = rename.iter().any(|(from, to)| to == named && from != column && !from.contains('.'));
    let is_changed =
        cast.contains_key(named) || constant.contains_key(named) || table.protect.contains_key(named);
    let known = live.column(named).filter(|_| !is_another && !is_changed)?;
    Some(known.data_type.clone())
}

/// Whether it is a name of what the spec leaves out of the table.
fn is_left_out(table: &TableSpec, fault: &TransformFault) -> bool {
    match &fault.place {
        TransformPlace::Drop(_) => true,
        TransformPlace::Protect(column) => table.protect.get(column) == Some(&Protection::Drop),
        _ => false,
    }
}

/// The column that stays in, by the name of one that is to be left out and is not there. One that the spec speaks of is
/// not meant.
fn mistaken_for<'f>(table: &TableSpec, fault: &'f TransformFault) -> Option<&'f String> {
    let near = fault.near.as_ref().filter(|_| is_left_out(table, fault))?;
    let Transforms { select, drop, rename, cast, .. } = &table.transforms;
    let is_spoken_of = drop.contains(near)
        || rename.contains_key(near)
        || cast.contains_key(near)
        || table.protect.contains_key(near);
    let is_inside =
        |column: &String| near.strip_prefix(column.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let is_in = select.as_ref().is_none_or(|columns| columns.iter().any(is_inside));
    (is_in && !is_spoken_of).then_some(near)
}

fn invalid(table: &TableSpec, faults: &[TransformFault]) -> IngestError {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    IngestError::invalid(format!("table {}", table.name), faults.join("; "))
}

impl Looked {
    /// `absent`: columns of the filter that were added for want of any.
    pub(super) fn finding_null(self, absent: Vec<String>) -> Self {
        Self { absent, ..self }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.outcome.unknown.is_empty() && self.filter.is_none()
    }

    /// Refuses names that nothing answers to. `live`: the columns of a table that is there already.
    pub(super) fn accept(self, table: &TableSpec, live: Option<&Schema>) -> Result<Self, IngestError> {
        if let Some(fault) = &self.filter {
            return Err(fault.of(table));
        }
        let Some(live) = live else { return self.without(table, |_| true) };
        let is_there = |column: &str| live.field_at(column).is_some();
        self.without(table, |fault| match (&fault.place, mistaken_for(table, fault)) {
            // By its name in the source, or in the table.
            (_, Some(near)) => !is_there(table.transforms.rename.get(near).unwrap_or(near)),
            (TransformPlace::Protect(column), None) => !is_left_out(table, fault) && !is_there(column),
            _ => false,
        })
    }

    /// As `accept`, for a person who looks: names of columns to leave out that nearly are those of others are mistakes.
    /// What else nothing answers to is for them to know.
    pub(super) fn planned(
        self,
        table: &TableSpec,
        live: Option<&Schema>,
    ) -> Result<(Self, Vec<Notice>), IngestError> {
        let looked =
            self.accept(table, live)?.without(table, |fault| mistaken_for(table, fault).is_some())?;
        let notices = looked.outcome.unknown.iter().map(|fault| {
            let column = match &fault.place {
                TransformPlace::Drop(at) => table.transforms.drop.get(*at),
                TransformPlace::Select(at) => table.transforms.select.as_ref().and_then(|all| all.get(*at)),
                _ => None,
            };
            let named = column.map_or_else(String::new, |column| format!(" ({column})"));
            Notice { what: format!("{}{named} does nothing", fault.place), why: fault.message.clone() }
        });
        let nulls = looked.absent.iter().map(|column| Notice {
            what: format!("transforms.filter finds null in {column}"),
            why:
                "the table has this column and records have it no more: mend the filter if it is to keep them"
                    .to_owned(),
        });
        let notices = notices.chain(nulls).collect();
        Ok((looked, notices))
    }

    fn without(
        self,
        table: &TableSpec,
        matters: impl Fn(&TransformFault) -> bool,
    ) -> Result<Self, IngestError> {
        let unknown = self.outcome.unknown.iter();
        let faults: Vec<TransformFault> = unknown.filter(|fault| matters(fault)).cloned().collect();
        if faults.is_empty() { Ok(self) } else { Err(invalid(table, &faults)) }
    }

    /// Tells of names that nothing answers to and that stop nothing.
    pub(super) fn warn(&self, table: &TableSpec) {
        for fault in &self.outcome.unknown {
            tracing::warn!(
                table = %table.name, %fault,
                "nothing in the records answers to this name: if it is mistyped, mend the spec"
            );
        }
        for column in &self.absent {
            tracing::warn!(
                table = %table.name, %column,
                "records have no such column, and transforms.filter finds null there: mend the filter if it is to \
                 keep them"
            );
        }
    }

    /// The schema of a table of its own.
    pub(super) fn table_schema(&self) -> Schema {
        let mut schema = self.outcome.schema();
        schema.schema_id = 0;
        assign_ids(&mut schema.fields, &mut 0);
        schema
    }

    /// The source without columns, and members of structs, that nobody looks at, where a reader of records passes over
    /// what is not there. `absent`: those of the engine's own columns that files lack.
    pub(super) fn narrowed(
        self,
        table: &TableSpec,
        absent: &[String],
    ) -> Result<(Schema, Outcome), IngestError> {
        let passes = match table.source_format {
            SourceFormat::Avro | SourceFormat::Protobuf => true,
            SourceFormat::Json => table.extra_fields == ExtraFields::Ignore,
            SourceFormat::Raw => false,
        };
        if passes { self.narrow(table, absent, true) } else { Ok((self.source, self.outcome)) }
    }

    /// The source without columns that nobody looks at. `inside`: and without such members of structs.
    pub(super) fn narrow(
        self,
        table: &TableSpec,
        absent: &[String],
        inside: bool,
    ) -> Result<(Schema, Outcome), IngestError> {
        let is_json = table.source_format == SourceFormat::Json;
        let kept = |(index, field): (usize, &Field)| {
            // Other schemas of the subject may be of records that are no objects, and have nowhere else to go.
            let is_whole = is_json && field.name == BARE_COLUMN;
            if is_whole || self.filtered_by.contains(&field.name) {
                return Some(field.clone());
            }
            let derived = made_of(&self.outcome.columns, index)?;
            // The engine makes all of its own column, whatever is left out of it.
            Some(if inside && field.name != KAFKA_COLUMN { used(field, derived) } else { field.clone() })
        };
        let fields: Vec<Field> = self.source.fields.iter().enumerate().filter_map(kept).collect();
        let event_type = table.event_types.as_ref().and_then(|types| types.column.as_deref());
        let kafka = table.kafka_metadata.then_some(KAFKA_COLUMN);
        let is_own = |name: &str| {
            Some(name) == event_type || Some(name) == kafka || absent.iter().any(|absent| absent == name)
        };
        // A record of JSON that is not an object is the value of the only column beside the engine's own, where that
        // has this name: this must neither come to be so, nor be so no more.
        let is_bare = |fields: &[Field]| {
            let mut of_records = fields.iter().filter(|field| !is_own(&field.name));
            of_records.next().is_some_and(|field| field.name == BARE_COLUMN) && of_records.next().is_none()
        };
        if fields.is_empty() || is_json && (is_bare(&fields) || is_bare(&self.source.fields)) {
            return Ok((self.source, self.outcome));
        }
        let narrow = Schema::new(self.source.schema_id, fields);
        let outcome = outcome(table, &narrow).map_err(|faults| invalid(table, &faults))?;
        Ok((narrow, outcome))
    }
}

/// Leaves out fields, and members of structs, that these columns lack.
pub(super) fn keep_only(fields: &mut Vec<Field>, columns: &[Field]) {
    fields.retain_mut(|field| {
        let Some(column) = columns.iter().find(|column| column.id == field.id) else { return false };
        if let (Type::Struct(members), Type::Struct(kept)) = (&mut field.data_type, &column.data_type) {
            keep_only(members, kept);
        }
        true
    });
}

/// What the source's field of this place becomes.
fn made_of(columns: &[Derived], index: usize) -> Option<&Derived> {
    columns.iter().find(|column| column.origin.index() == Some(index))
}

/// The field with those of its members of which something is made.
fn used(field: &Field, derived: &Derived) -> Field {
    let mut field = field.clone();
    if let (Type::Struct(inside), Origin::Members { members, .. }) = (&mut field.data_type, &derived.origin) {
        let kept = inside.iter().enumerate();
        *inside = kept.filter_map(|(index, member)| Some(used(member, made_of(members, index)?))).collect();
    }
    field
}
