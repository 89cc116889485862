//! How a table's schema follows a wanted one. Known columns keep their ids; new ones get the next.

use siltstone_protocol::{
    ErrorCode, Field, PrimitiveType, Schema, Type,
    path::{ELEMENT, MAP_KEY, MAP_VALUE, inside},
};

use super::{
    LiveTable, Notice, Reason, Step,
    changes::{self, Changed},
    follow,
};
use crate::{
    evolve,
    model::{SchemaMode, TableSpec},
};

pub(super) struct Evolved {
    /// The schema after the steps.
    pub(super) schema: Schema,
    pub(super) steps: Vec<Step>,
    pub(super) reasons: Vec<Reason>,
    pub(super) notices: Vec<Notice>,
}

impl Evolved {
    pub(super) fn unchanged(schema: Schema) -> Self {
        Self { schema, steps: Vec::new(), reasons: Vec::new(), notices: Vec::new() }
    }
}

/// Follows the transforms first, then the wanted schema, which is the table's by the spec, if it is known.
pub(super) fn evolve(table: &TableSpec, live: &LiveTable, wanted: Option<&Schema>) -> Evolved {
    let mut numbers = Numbers { last: live.history.last_field_id().max(live.schema.last_field_id()) };
    let Changed { fields, mut steps, mut reasons } = changes::change(table, live, wanted, &mut numbers);
    let changed = Schema::new(live.schema.schema_id, fields);
    let mut evolved = match (wanted, &table.schema_mode) {
        (None, _) => Evolved::unchanged(changed),
        (Some(wanted), SchemaMode::Inline(_)) => bound(table, &changed, wanted, numbers),
        (Some(wanted), _) => follow::follow(table, &changed, wanted, numbers.last),
    };
    steps.append(&mut evolved.steps);
    reasons.append(&mut evolved.reasons);
    let Evolved { mut schema, notices, .. } = evolved;
    schema.schema_id = live.schema.schema_id;
    if !steps.is_empty() {
        schema.schema_id = live.last_schema_id.max(schema.schema_id) + 1;
        steps.push(Step::SetSchema { schema: schema.clone() });
    }
    Evolved { schema, steps, reasons, notices }
}

/// Follows a schema that is the user's word.
fn bound(table: &TableSpec, live: &Schema, wanted: &Schema, numbers: Numbers) -> Evolved {
    let mut work = Work { numbers, steps: Vec::new(), reasons: Vec::new(), collections: 0 };
    // A wanted schema without `_kafka` does not speak of that column.
    let silent = (table.kafka_metadata && wanted.column("_kafka").is_none()).then_some("_kafka");
    let fields = work.fields(&live.fields, &wanted.fields, "", silent);
    let Work { steps, reasons, .. } = work;
    Evolved { schema: Schema::new(live.schema_id, fields), steps, reasons, notices: Vec::new() }
}

/// Field ids that were never used.
pub(super) struct Numbers {
    last: i32,
}

impl Numbers {
    pub(super) fn next(&mut self) -> i32 {
        self.last += 1;
        self.last
    }

    /// The type with ids of this table, depth-first.
    pub(super) fn renumbered(&mut self, data_type: &Type) -> Type {
        let mut renumbered = data_type.clone();
        evolve::assign_type_ids(&mut renumbered, &mut self.last);
        renumbered
    }
}

struct Work {
    numbers: Numbers,
    steps: Vec<Step>,
    reasons: Vec<Reason>,
    /// Lists and maps around what is looked at: nothing in one can be named in a spec.
    collections: usize,
}

impl Work {
    fn refuse(&mut self, what: String, why: &str, way_out: String) {
        let code = ErrorCode::ColumnChangeRefused;
        self.reasons.push(Reason { code, what, why: why.to_owned(), way_out });
    }

    /// `outer`: path of the struct; empty for the table.
    fn fields(&mut self, live: &[Field], wanted: &[Field], outer: &str, silent: Option<&str>) -> Vec<Field> {
        let mut fields = Vec::with_capacity(live.len());
        for known in live {
            let path = inside(outer, &known.name);
            match wanted.iter().find(|field| field.name == known.name) {
                Some(field) => fields.push(self.field(known, field, &path)),
                None if silent == Some(known.name.as_str()) => fields.push(known.clone()),
                None => fields.push(self.left_out(known, wanted, live, &path)),
            }
        }
        for field in wanted.iter().filter(|field| !live.iter().any(|known| known.name == field.name)) {
            fields.push(self.added(field, &inside(outer, &field.name)));
        }
        fields
    }

    fn field(&mut self, live: &Field, wanted: &Field, path: &str) -> Field {
        let required = self.nullability(live.required, wanted.required, path);
        let data_type = self.data_type(&live.data_type, &wanted.data_type, path);
        Field { required, data_type, ..live.clone() }
    }

    /// Whether the column is required from now on.
    fn nullability(&mut self, live: bool, wanted: bool, path: &str) -> bool {
        if live && !wanted {
            self.steps.push(Step::MakeOptional { column: path.to_owned() });
        }
        if !live && wanted {
            let why = "rows already written may be null there";
            self.refuse(format!("column {path} becomes required"), why, "write required: false".to_owned());
        }
        live && wanted
    }

    fn left_out(&mut self, known: &Field, wanted: &[Field], live: &[Field], path: &str) -> Field {
        let is_new = |field: &&Field| !live.iter().any(|known| known.name == field.name);
        let renamed =
            wanted.iter().filter(is_new).find(|field| same_shape(&field.data_type, &known.data_type));
        let what = match renamed {
            Some(field) => format!("column {path} is left out (perhaps renamed to {})", field.name),
            None => format!("column {path} is left out"),
        };
        let keep = "keep it with required: false; it is null in new rows";
        let way_out = match self.collections {
            0 => format!("name {path} in transforms.drop or transforms.rename, or {keep}"),
            _ => keep.to_owned(),
        };
        let why = "nothing is dropped or renamed that the spec does not name, since rows hold values there";
        self.refuse(what, why, way_out);
        known.clone()
    }

    fn added(&mut self, field: &Field, path: &str) -> Field {
        if field.required {
            let why = "rows already written have no value there";
            self.refuse(
                format!("the new column {path} is required"),
                why,
                "write required: false".to_owned(),
            );
        }
        self.steps.push(Step::AddColumn { column: path.to_owned(), data_type: describe(&field.data_type) });
        let id = self.numbers.next();
        let data_type = self.numbers.renumbered(&field.data_type);
        Field { id, required: false, data_type, ..field.clone() }
    }

    fn data_type(&mut self, live: &Type, wanted: &Type, path: &str) -> Type {
        match (live, wanted) {
            (Type::Primitive(from), Type::Primitive(to)) => Type::Primitive(self.primitive(*from, *to, path)),
            (Type::Struct(live), Type::Struct(wanted)) => Type::Struct(self.fields(live, wanted, path, None)),
            (
                Type::List { element_id, element_required, element },
                Type::List { element_required: wanted_required, element: wanted, .. },
            ) => {
                let (live, wanted) = ((*element_required, &**element), (*wanted_required, &**wanted));
                let (element_required, element) = self.items(live, wanted, &inside(path, ELEMENT));
                Type::List { element_id: *element_id, element_required, element }
            }
            (
                Type::Map { key_id, key, value_id, value_required, value },
                Type::Map { key: wanted_key, value_required: wanted_required, value: wanted, .. },
            ) => {
                if !same_shape(key, wanted_key) {
                    self.within(|work| work.retyped(&inside(path, MAP_KEY), key, wanted_key));
                }
                let (live, wanted) = ((*value_required, &**value), (*wanted_required, &**wanted));
                let (value_required, value) = self.items(live, wanted, &inside(path, MAP_VALUE));
                Type::Map { key_id: *key_id, key: key.clone(), value_id: *value_id, value_required, value }
            }
            _ => {
                self.retyped(path, live, wanted);
                live.clone()
            }
        }
    }

    /// Whether elements of a list, or values of a map, are required from now on, and their type.
    fn items(&mut self, live: (bool, &Type), wanted: (bool, &Type), path: &str) -> (bool, Box<Type>) {
        self.within(|work| {
            let required = work.nullability(live.0, wanted.0, path);
            (required, Box::new(work.data_type(live.1, wanted.1, path)))
        })
    }

    /// Looks at what is inside a list or map.
    fn within<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        self.collections += 1;
        let seen = look(self);
        self.collections -= 1;
        seen
    }

    fn primitive(&mut self, from: PrimitiveType, to: PrimitiveType, path: &str) -> PrimitiveType {
        if from == to {
            return from;
        }
        if widens(from, to) {
            let (column, from, to_text) = (path.to_owned(), from.to_string(), to.to_string());
            self.steps.push(Step::Widen { column, from, to: to_text });
            return to;
        }
        self.retyped(path, &from.into(), &to.into());
        from
    }

    fn retyped(&mut self, path: &str, from: &Type, to: &Type) {
        let can_cast = self.collections == 0 && matches!(to, Type::Primitive(_));
        let (from, to) = (describe(from), describe(to));
        let what = format!("column {path} of type {from} becomes {to}");
        let why = "files already written hold the old type, and only int to long, float to double and more \
                   digits of a decimal can be read as the new one";
        let way_out = if can_cast {
            format!(
                "keep {from}, add the new type as another column, or write transforms.cast: {{{path}: {to}}}; then a new \
                 column takes the name, which rows already written do not have"
            )
        } else {
            format!("keep {from}, or add the new type as another column")
        };
        self.refuse(what, why, way_out);
    }
}

/// Iceberg's type promotions of format version 2.
pub(super) fn widens(from: PrimitiveType, to: PrimitiveType) -> bool {
    from != to && evolve::common(from, to) == Some(to)
}

/// Equal but for ids.
pub(super) fn same_shape(left: &Type, right: &Type) -> bool {
    describe(left) == describe(right)
}

/// The type in the words of a spec.
pub(super) fn describe(data_type: &Type) -> String {
    match data_type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List { element, .. } => format!("list<{}>", describe(element)),
        Type::Map { key, value, .. } => format!("map<{}, {}>", describe(key), describe(value)),
        Type::Struct(members) => {
            let member = |member: &Field| format!("{} {}", member.name, describe(&member.data_type));
            format!("struct<{}>", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}
