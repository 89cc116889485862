//! What the schemas that a table ever had say of its columns: ids that are taken, what columns are called in data
//! files, and names that were given up. Pure, and told by the ledger alone, so that every worker sees the same.
//!
//! **Names in files.** Iceberg finds a column by its id; Delta finds it by a name that never changes (column
//! mapping's *physical name*). So a column is called in files, for good, what it was called when it came. A column that
//! comes under a name that another one had before is called `<name>_<id>` in files: else Delta would read the other
//! one's values in older files. Names that differ only by case are one name, as in Delta.
//!
//! **Names given up.** A column that was dropped, renamed or retyped by the spec must not come back because a worker
//! with an older spec still meets it in records: only a person's `apply` brings a name back, as a new column.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use crate::schema::{Field, Schema, Type};

/// The columns that a table has and had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaHistory {
    last_field_id: i32,
    /// Name in files by field id, of every column and struct member there ever was.
    names: BTreeMap<i32, String>,
    /// The first schema in which a column is called otherwise than in files.
    mapped_since: Option<i32>,
    /// By the id of the column that they are in (0: the table), newest last.
    former: BTreeMap<i32, Vec<FormerField>>,
    /// Where the newest entry of each field is among those of its parent.
    newest: BTreeMap<i32, usize>,
    /// Names in files, in small letters, with the column that they are in.
    taken: HashSet<(i32, String)>,
}

/// A column or struct member as it once was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerField {
    pub id: i32,
    pub name: String,
    pub data_type: Type,
}

impl SchemaHistory {
    /// Of these schemas, in the order of their ids: later ones change nothing that earlier ones say.
    pub fn of<'s>(schemas: impl IntoIterator<Item = &'s Schema>) -> Self {
        schemas.into_iter().fold(Self::default(), Self::and)
    }

    /// With a schema that comes after them.
    #[must_use]
    pub fn and(mut self, schema: &Schema) -> Self {
        self.last_field_id = self.last_field_id.max(schema.last_field_id());
        let mapped = self.add(0, &schema.fields);
        if mapped && self.mapped_since.is_none() {
            self.mapped_since = Some(schema.schema_id);
        }
        self
    }

    /// True when a column is called otherwise than in files.
    fn add(&mut self, parent: i32, fields: &[Field]) -> bool {
        let mut mapped = false;
        for field in fields {
            if !self.names.contains_key(&field.id) {
                let mut name = field.name.clone();
                while !self.taken.insert((parent, name.to_lowercase())) {
                    name = format!("{name}_{}", field.id);
                }
                self.names.insert(field.id, name);
            }
            mapped |= self.names.get(&field.id) != Some(&field.name);
            let former = self.former.entry(parent).or_default();
            let same = |known: &&mut FormerField| known.id == field.id && known.name == field.name;
            let at = self.newest.get(&field.id).copied();
            // A name that it had before it had others stands there once more: the newest is looked up.
            if let Some(known) = at.and_then(|at| former.get_mut(at)).filter(same) {
                known.data_type.clone_from(&field.data_type);
            } else {
                self.newest.insert(field.id, former.len());
                let (name, data_type) = (field.name.clone(), field.data_type.clone());
                former.push(FormerField { id: field.id, name, data_type });
            }
            mapped |= self.add_inside(field.id, &field.data_type);
        }
        mapped
    }

    fn add_inside(&mut self, id: i32, data_type: &Type) -> bool {
        match data_type {
            Type::Primitive(_) => false,
            Type::Struct(members) => self.add(id, members),
            Type::List { element_id, element, .. } => self.add_inside(*element_id, element),
            Type::Map { key_id, key, value_id, value, .. } => {
                self.add_inside(*key_id, key) | self.add_inside(*value_id, value)
            }
        }
    }

    /// The largest field id that was ever in use. Ids are never used again.
    pub fn last_field_id(&self) -> i32 {
        self.last_field_id
    }

    /// True when a reader that finds columns by name must be told their names in files, from this schema on.
    pub fn is_mapped(&self, schema_id: i32) -> bool {
        self.mapped_since.is_some_and(|since| since <= schema_id)
    }

    /// What a column is called in files.
    pub fn name_in_files<'a>(&'a self, field: &'a Field) -> &'a str {
        self.names.get(&field.id).map_or(field.name.as_str(), String::as_str)
    }

    /// The schema with every column called as in files.
    pub fn in_files<'s>(&self, schema: &'s Schema) -> Cow<'s, Schema> {
        if self.mapped_since.is_none() {
            return Cow::Borrowed(schema);
        }
        Cow::Owned(Schema::new(schema.schema_id, self.fields_in_files(&schema.fields)))
    }

    fn fields_in_files(&self, fields: &[Field]) -> Vec<Field> {
        let renamed = |field: &Field| Field {
            name: self.name_in_files(field).to_owned(),
            data_type: self.type_in_files(&field.data_type),
            ..field.clone()
        };
        fields.iter().map(renamed).collect()
    }

    fn type_in_files(&self, data_type: &Type) -> Type {
        match data_type {
            Type::Primitive(primitive) => Type::Primitive(*primitive),
            Type::Struct(members) => Type::Struct(self.fields_in_files(members)),
            Type::List { element_id, element_required, element } => Type::List {
                element_id: *element_id,
                element_required: *element_required,
                element: Box::new(self.type_in_files(element)),
            },
            Type::Map { key_id, key, value_id, value_required, value } => Type::Map {
                key_id: *key_id,
                key: Box::new(self.type_in_files(key)),
                value_id: *value_id,
                value_required: *value_required,
                value: Box::new(self.type_in_files(value)),
            },
        }
    }

    /// The newest column of this name that is, or was, inside `parent` (0: the table) and is not the column `but`.
    pub fn former(&self, parent: i32, name: &str, but: Option<i32>) -> Option<&FormerField> {
        let former = self.former.get(&parent)?;
        former.iter().rev().find(|field| field.name == name && Some(field.id) != but)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::PrimitiveType as P;

    fn schema(id: i32, fields: &[(i32, &str, P)]) -> Schema {
        let fields =
            fields.iter().map(|(id, name, data_type)| Field::optional(*id, *name, (*data_type).into()));
        Schema::new(id, fields.collect())
    }

    #[test]
    fn a_column_is_called_in_files_what_it_was_called_first() {
        let schemas = [
            schema(0, &[(1, "id", P::Long), (2, "cust", P::String), (3, "note", P::String)]),
            schema(1, &[(1, "id", P::Long), (2, "cust", P::String)]),
            schema(2, &[(1, "id", P::Long), (2, "customer", P::String)]),
            schema(3, &[(1, "id", P::Long), (2, "customer", P::String), (4, "Note", P::Int)]),
        ];
        let history = SchemaHistory::of(&schemas);
        let names = |id: usize| -> Vec<String> {
            history.in_files(&schemas[id]).fields.iter().map(|field| field.name.clone()).collect()
        };
        assert_eq!(names(0), ["id", "cust", "note"]);
        assert_eq!(names(3), ["id", "cust", "Note_4"]);
        assert_eq!([0, 1, 2, 3].map(|id| history.is_mapped(id)), [false, false, true, true]);
        assert_eq!(history.last_field_id(), 4);
        // The same whatever came later.
        let earlier = SchemaHistory::of(&schemas[..3]);
        assert_eq!(earlier.in_files(&schemas[2]), history.in_files(&schemas[2]));
    }

    #[test]
    fn names_in_files_are_of_each_level() {
        let inner = |name: &str, id| Field::optional(id, name, P::Int.into());
        let list = |members| Type::List {
            element_id: 5,
            element_required: false,
            element: Box::new(Type::Struct(members)),
        };
        let before = Schema::new(0, vec![Field::optional(4, "a", list(vec![inner("a", 6), inner("b", 7)]))]);
        let after = Schema::new(1, vec![Field::optional(4, "a", list(vec![inner("c", 6), inner("b", 8)]))]);
        let history = SchemaHistory::of([&before, &after]);
        let wanted = list(vec![inner("a", 6), inner("b_8", 8)]);
        assert_eq!(history.in_files(&after).fields[0].data_type, wanted);
        assert_eq!(history.former(5, "b", Some(8)).unwrap().id, 7);
        assert_eq!(history.former(5, "a", None).unwrap().id, 6);
        assert!(history.former(0, "b", None).is_none());
    }

    #[test]
    fn what_stays_as_it_is_is_kept_once() {
        let plain = schema(0, &[(1, "a", P::Int), (2, "b", P::Int)]);
        let swapped = schema(1, &[(1, "b", P::Int), (2, "a", P::Long)]);
        let again = |id, of: &Schema| Schema::new(id, of.fields.clone());
        let mut history = SchemaHistory::of([&plain, &swapped]);
        let kept = history.former[&0].len();
        for id in 2..50 {
            history = history.and(&again(id, &swapped));
        }
        assert_eq!((kept, history.former[&0].len()), (4, 4));
        assert_eq!(history.former(0, "a", None).unwrap().data_type, P::Long.into());
        let back = history.and(&again(50, &plain));
        assert_eq!(back.former(0, "a", None).unwrap().id, 1);
        assert_eq!(back.former(0, "a", Some(1)).unwrap().id, 2);
    }

    #[test]
    fn the_newest_column_of_a_name_is_remembered() {
        let schemas = [
            schema(0, &[(1, "amount", P::Int)]),
            schema(1, &[(2, "amount", P::String)]),
            schema(2, &[(2, "amount", P::String), (3, "b", P::Int)]),
        ];
        let history = SchemaHistory::of(&schemas);
        let former = history.former(0, "amount", Some(2)).unwrap();
        assert_eq!((former.id, &former.data_type), (1, &P::Int.into()));
        assert_eq!(history.former(0, "amount", None).unwrap().id, 2);
        assert!(history.is_mapped(1) && !history.is_mapped(0));
    }
}
