//! Which field of records is which column, and what columns are called. Pure.

use siltstone_protocol::{Field, Type};

use crate::resolve::kind_of;

/// Other names that one column may have; more are not kept.
const ALIASES_MAX: usize = 64;

/// The column of each field; no column has two.
pub(super) fn bind(table: &[Field], incoming: &[Field]) -> Vec<Option<usize>> {
    type Rule = fn(&Field, &Field) -> bool;
    let rules: [Rule; 4] = [
        |column, field| column.number.is_some() && column.number == field.number,
        |column, field| column.name == field.name,
        |column, field| column.is_called(&field.name),
        |column, field| field.aliases.iter().any(|alias| column.is_called(alias)),
    ];
    let mut bound: Vec<Option<usize>> = incoming.iter().map(|_| None).collect();
    for rule in rules {
        for (at, field) in incoming.iter().enumerate() {
            let free = |(position, column): &(usize, &Field)| {
                column.variant_of.is_none() && rule(column, field) && !bound.contains(&Some(*position))
            };
            if bound.get(at).is_some_and(Option::is_none) {
                let found = table.iter().enumerate().find(free).map(|(position, _)| position);
                if let Some(slot) = bound.get_mut(at) {
                    *slot = found;
                }
            }
        }
    }
    bound
}

/// Those of the names by which `field` is called that are news to its column, and mean no other column or field.
pub(super) fn new_aliases<'n>(
    column: &Field,
    called: impl Iterator<Item = &'n String>,
    field: &Field,
    table: &[Field],
    incoming: &[Field],
) -> Vec<String> {
    let mut new: Vec<String> = Vec::new();
    let taken = |name: &str| {
        let is_other =
            |other: &Field| other.id != column.id && other.variant_of.is_none() && other.name == name;
        table.iter().any(is_other) || (name != field.name && incoming.iter().any(|other| other.name == name))
    };
    for alias in called {
        let room = column.aliases.len() + new.len() < ALIASES_MAX;
        if room && !column.is_called(alias) && !new.contains(alias) && !taken(alias) {
            new.push(alias.clone());
        }
    }
    new
}

/// `name`, with a number behind it when a column or another field of the records is called so.
pub(super) fn free_name(
    name: &str,
    own: &str,
    table: &[Field],
    incoming: &[Field],
    added: &[Field],
) -> String {
    let taken = |name: &str| {
        table.iter().chain(added).any(|field| field.name == name)
            || (name != own && incoming.iter().any(|field| field.name == name))
    };
    let mut free = name.to_owned();
    // Ends: there are finitely many names.
    for number in 2u32.. {
        if !taken(&free) {
            break;
        }
        free = format!("{name}_{number}");
    }
    free
}

/// What a column that takes nothing of these records is called among them.
pub(super) fn unseen(column: &Field, incoming: &[Field]) -> String {
    if column.variant_of.is_none() && !incoming.iter().any(|field| field.name == column.name) {
        return column.name.clone();
    }
    format!("\0{}", column.id)
}

/// What a column for values of this type is called after another one's name.
pub(super) fn suffix(data_type: &Type) -> String {
    let kind = kind_of(data_type);
    kind.split(['(', '[']).next().unwrap_or(&kind).to_owned()
}
