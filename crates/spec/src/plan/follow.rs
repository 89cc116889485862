//! How a table follows what producers register: what [`evolve::merge`] does when records come, told before they do.

use siltstone_protocol::{
    Field, Schema, Type,
    path::{ELEMENT, MAP_VALUE, inside},
};

use super::{
    Notice, Step,
    schema::{Evolved, describe},
};
use crate::{
    evolve::{self, Merge, Mismatch, Rules},
    model::{OnIncompatible, TableSpec},
};

/// `wanted`: the newest registered schema.
/// `last_field_id`: the largest that the table ever had.
pub(super) fn follow(table: &TableSpec, live: &Schema, wanted: &Schema, last_field_id: i32) -> Evolved {
    let mut wanted = wanted.clone();
    // What is the engine's own is not spoken of.
    let own = live.column("_kafka").filter(|_| table.kafka_metadata && wanted.column("_kafka").is_none());
    wanted.fields.extend(own.cloned());
    let unchanged = |notices| Evolved { notices, ..Evolved::unchanged(live.clone()) };
    let schema = match evolve::merge(live, &wanted, Rules { last_field_id, ..Rules::of(table) }) {
        Merge::Same { .. } => return unchanged(Vec::new()),
        Merge::Refused(mismatch) => return unchanged(vec![refused(table, &mismatch)]),
        Merge::Evolves(schema) => schema,
    };
    let mut walk = Walk { steps: Vec::new(), notices: Vec::new() };
    walk.fields(&live.fields, &schema.fields, "");
    let Walk { steps, notices } = walk;
    Evolved { schema, steps, reasons: Vec::new(), notices }
}

fn refused(table: &TableSpec, mismatch: &Mismatch) -> Notice {
    incompatible(table, &format!("column {}: {mismatch}", mismatch.field))
}

/// What becomes of records of a schema that the table cannot take.
pub fn incompatible(table: &TableSpec, why: &str) -> Notice {
    let then = match table.on_incompatible {
        OnIncompatible::Stop => "the table stops at their first",
        OnIncompatible::DeadLetter | OnIncompatible::NewColumn => "they are rejected",
    };
    Notice { what: format!("records of the newest schema do not fit, {then}"), why: why.to_owned() }
}

struct Walk {
    steps: Vec<Step>,
    notices: Vec<Notice>,
}

impl Walk {
    /// `outer`: path of the struct; empty for the table.
    fn fields(&mut self, live: &[Field], after: &[Field], outer: &str) {
        for field in after {
            let path = inside(outer, &field.name);
            match live.iter().find(|known| known.id == field.id) {
                Some(known) => self.field(known, field, outer, &path),
                None => self.added(live, field, outer, path),
            }
        }
    }

    fn added(&mut self, live: &[Field], field: &Field, outer: &str, column: String) {
        if let Some(base) = live.iter().find(|known| Some(known.id) == field.variant_of) {
            let (base, data_type) = (inside(outer, &base.name), describe(&field.data_type));
            self.notices.push(Notice {
                what: format!("the new column {column} takes the values of {base} that are {data_type}"),
                why: format!("column {base} cannot, and on_incompatible is new_column"),
            });
        }
        self.steps.push(Step::AddColumn { column, data_type: describe(&field.data_type) });
    }

    fn field(&mut self, known: &Field, field: &Field, outer: &str, path: &str) {
        if known.name != field.name {
            let column = inside(outer, &known.name);
            self.steps.push(Step::RenameColumn { column, name: field.name.clone() });
        }
        for alias in field.aliases.iter().filter(|alias| !known.is_called(alias) && **alias != field.name) {
            self.notices.push(Notice {
                what: format!("column {path} takes the values of fields called {alias}"),
                why: "an alias in the schema of records says so".to_owned(),
            });
        }
        if known.required && !field.required {
            self.steps.push(Step::MakeOptional { column: path.to_owned() });
        }
        self.data_type(&known.data_type, &field.data_type, path);
    }

    fn data_type(&mut self, known: &Type, after: &Type, path: &str) {
        let mut item = |required: (bool, bool), path: &str| {
            if required == (true, false) {
                self.steps.push(Step::MakeOptional { column: path.to_owned() });
            }
        };
        match (known, after) {
            (Type::Primitive(from), Type::Primitive(to)) if from != to => {
                let (from, to) = (from.to_string(), to.to_string());
                self.steps.push(Step::Widen { column: path.to_owned(), from, to });
            }
            (Type::Struct(known), Type::Struct(after)) => self.fields(known, after, path),
            (
                Type::List { element_required: was, element: known, .. },
                Type::List { element_required: is, element: after, .. },
            ) => {
                let path = inside(path, ELEMENT);
                item((*was, *is), &path);
                self.data_type(known, after, &path);
            }
            (
                Type::Map { value_required: was, value: known, .. },
                Type::Map { value_required: is, value: after, .. },
            ) => {
                let path = inside(path, MAP_VALUE);
                item((*was, *is), &path);
                self.data_type(known, after, &path);
            }
            _ => {}
        }
    }
}
