//! What a table becomes when records of another schema arrive.
//!
//! Columns match by name and are never renamed, reordered or dropped: a column that the incoming schema
//! lacks stays and is null for its records. A table follows by what every reader of its files can follow:
//!
//! 1. additions, always optional, with ids after the last one ever used;
//! 2. widenings: int to long, float to double, more decimal digits;
//! 3. required to optional.
//!
//! An incoming schema that is narrower than the table changes nothing. Pure, and knows nothing of Avro or
//! JSON.

use siltstone_protocol::{Field, PrimitiveType, Schema, Type};

/// What [`merge`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// The table can take the records as it is.
    Same,
    /// The table can take them once it is this.
    Evolves(Schema),
    /// The table can never take them.
    Refused {
        /// Dotted path of the column.
        field: String,
        why: String,
    },
}

/// The table schema that takes records of `incoming` too; its `schema_id` is one more.
pub fn merge(table: &Schema, incoming: &Schema) -> Merge {
    let mut merger = Merger { last_id: table.last_field_id(), changed: false, path: Vec::new() };
    match merger.fields(&table.fields, &incoming.fields) {
        Ok(_) if !merger.changed => Merge::Same,
        Ok(fields) => Merge::Evolves(Schema::new(table.schema_id + 1, fields)),
        Err(why) => Merge::Refused { field: merger.path.join("."), why },
    }
}

/// Numbers fields depth-first: a field, then what is inside it, then the next one.
pub(crate) fn assign_ids(fields: &mut [Field], last: &mut i32) {
    for field in fields {
        *last += 1;
        field.id = *last;
        assign_type_ids(&mut field.data_type, last);
    }
}

fn assign_type_ids(data_type: &mut Type, last: &mut i32) {
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

struct Merger {
    last_id: i32,
    changed: bool,
    /// Where the walk is; where it stopped, after an error.
    path: Vec<String>,
}

impl Merger {
    fn fields(&mut self, table: &[Field], incoming: &[Field]) -> Result<Vec<Field>, String> {
        let mut merged = Vec::with_capacity(table.len());
        for field in table {
            let newer = incoming.iter().find(|newer| newer.name == field.name);
            let required = self.required(field.required, newer.is_some_and(|newer| newer.required));
            let data_type = match newer {
                Some(newer) => self.inside(&field.name, &field.data_type, &newer.data_type)?,
                None => field.data_type.clone(),
            };
            merged.push(Field { id: field.id, name: field.name.clone(), required, data_type });
        }
        let known = |name: &str| table.iter().any(|field| field.name == name);
        for added in incoming.iter().filter(|field| !known(&field.name)) {
            // Rows that are there already have no value for it.
            let mut added = Field { required: false, ..added.clone() };
            assign_ids(std::slice::from_mut(&mut added), &mut self.last_id);
            merged.push(added);
            self.changed = true;
        }
        Ok(merged)
    }

    fn required(&mut self, table: bool, incoming: bool) -> bool {
        self.changed |= table && !incoming;
        table && incoming
    }

    fn inside(&mut self, name: &str, table: &Type, incoming: &Type) -> Result<Type, String> {
        self.path.push(name.to_owned());
        let merged = self.data_type(table, incoming)?;
        self.path.pop();
        Ok(merged)
    }

    fn data_type(&mut self, table: &Type, incoming: &Type) -> Result<Type, String> {
        Ok(match (table, incoming) {
            (Type::Primitive(from), Type::Primitive(to)) => self.primitive(*from, *to)?.into(),
            (Type::Struct(members), Type::Struct(newer)) => Type::Struct(self.fields(members, newer)?),
            (
                Type::List { element_id, element_required, element },
                Type::List { element_required: newer_required, element: newer, .. },
            ) => Type::List {
                element_id: *element_id,
                element_required: self.required(*element_required, *newer_required),
                element: Box::new(self.inside("element", element, newer)?),
            },
            (
                Type::Map { key_id, key, value_id, value_required, value },
                Type::Map { key: newer_key, value_required: newer_required, value: newer, .. },
            ) => {
                if shape(key) != shape(newer_key) {
                    return Err("the type of map keys cannot change".to_owned());
                }
                Type::Map {
                    key_id: *key_id,
                    key: key.clone(),
                    value_id: *value_id,
                    value_required: self.required(*value_required, *newer_required),
                    value: Box::new(self.inside("value", value, newer)?),
                }
            }
            _ => return Err(format!("{} cannot become {}", shape(table), shape(incoming))),
        })
    }

    fn primitive(&mut self, table: PrimitiveType, incoming: PrimitiveType) -> Result<PrimitiveType, String> {
        use PrimitiveType as P;
        let decimals = |from: (u8, u8), to: (u8, u8)| {
            // Digits before and after the point; a smaller scale is multiplied out.
            let whole = (from.0.saturating_sub(from.1)).max(to.0.saturating_sub(to.1));
            (to.1 <= from.1 && whole + from.1 <= 38).then_some((whole + from.1).max(from.0))
        };
        match (table, incoming) {
            (same, other) if same == other => Ok(table),
            (P::Long | P::Float | P::Double, P::Int)
            | (P::Float | P::Double, P::Long)
            | (P::Double, P::Float)
            | (P::String, P::Binary)
            | (P::Binary, P::String | P::Fixed(_)) => Ok(table),
            (P::Int, P::Long) | (P::Float, P::Double) => {
                self.changed = true;
                Ok(incoming)
            }
            (P::Decimal { precision, scale }, P::Decimal { precision: digits, scale: point }) => {
                match decimals((precision, scale), (digits, point)) {
                    Some(widened) => {
                        self.changed |= widened != precision;
                        Ok(P::Decimal { precision: widened, scale })
                    }
                    None => Err(format!("{table} cannot become {incoming}")),
                }
            }
            _ => Err(format!("{table} cannot become {incoming}")),
        }
    }
}

/// What a type is called in messages.
fn shape(data_type: &Type) -> String {
    match data_type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "struct".to_owned(),
        Type::List { .. } => "list".to_owned(),
        Type::Map { .. } => "map".to_owned(),
    }
}
