//! Holds the YAML tree against the grammar and converts it to what the grammar's types read.
//!
//! 1. Every node is checked; every fault is noted with its place. Nothing stops at the first.
//! 2. References to the environment are replaced; absent fields get their defaults.
//! 3. What is at fault yields nothing, and so does what holds it, up to the nearest slot: the rest of
//!    the spec can still be checked for sense.
//!
//! Messages name places and what is allowed there. They never repeat a value.

use serde_json::{Map, Value};

use crate::{
    environment::{self, Sources},
    error::Fault,
    forms::{self, FORM},
    grammar::{alternatives, has_type, words},
    limits,
    nearest::nearest,
    raw::{PRIVATE, REFUSED, SLOT},
    yaml::{Data, Key, Node, Position, Scalar},
};

pub(crate) struct Walker<'a> {
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) faults: Vec<Fault>,
}

impl Walker<'_> {
    pub(crate) fn fault(&mut self, position: Position, path: &str, message: impl Into<String>) {
        let (line, column) = (position.line, position.column);
        if self.faults.len() < limits::FAULTS_NOTED_MAX {
            self.faults.push(Fault { line, column, path: path.to_owned(), message: message.into() });
        }
    }

    /// The node's value by the schema; `None` when a fault was noted.
    pub(crate) fn value(&mut self, node: &Node, schema: &'static Value, path: &str) -> Option<Value> {
        let choices = alternatives(schema);
        let json = choices.iter().find(|choice| form_name(choice) == Some("json"));
        if json.is_some() && !matches!(node.data, Data::Scalar(_)) {
            return Some(Value::String(as_json(node).to_string()));
        }
        let chosen = match &node.data {
            Data::Scalar(scalar) => return self.scalar(node, scalar, schema, &choices, path),
            Data::Sequence(_) => choices.iter().find(|choice| has_type(choice, "array")),
            Data::Mapping(_) => choices.iter().find(|choice| has_type(choice, "object")),
        };
        match (chosen, &node.data) {
            (Some(chosen), Data::Sequence(items)) => {
                let slots = schema.get(SLOT).is_some();
                self.sequence(node, items.iter().map(AsRef::as_ref), chosen, slots, path)
            }
            (Some(chosen), Data::Mapping(_)) => self.mapping(node, chosen, path),
            _ => {
                self.fault(node.position, path, format!("must be {}", describe(&choices)));
                None
            }
        }
    }

    fn sequence<'n>(
        &mut self,
        node: &Node,
        items: impl ExactSizeIterator<Item = &'n Node>,
        schema: &'static Value,
        slots: bool,
        path: &str,
    ) -> Option<Value> {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let length = items.len() as u64;
        if bound("minItems").is_some_and(|min| length < min) {
            let min = bound("minItems").unwrap_or_default();
            self.fault(node.position, path, format!("must have at least {min} item{}", plural(min)));
            return None;
        }
        if bound("maxItems").is_some_and(|max| length > max) {
            let max = bound("maxItems").unwrap_or_default();
            self.fault(node.position, path, format!("must have at most {max} item{}", plural(max)));
            return None;
        }
        let item_schema = schema.get("items")?;
        let mut values = Vec::with_capacity(items.len());
        let mut sound = true;
        for (index, item) in items.enumerate() {
            let value = self.value(item, item_schema, &format!("{path}[{index}]"));
            sound &= value.is_some() || slots;
            values.push(value.unwrap_or(Value::Null));
        }
        sound.then_some(Value::Array(values))
    }

    fn mapping(&mut self, node: &Node, schema: &'static Value, path: &str) -> Option<Value> {
        let Data::Mapping(entries) = &node.data else { return None };
        let Some(Value::Object(properties)) = schema.get("properties") else {
            return self.free_mapping(entries, schema, path);
        };
        let mut sound = true;
        for (key, _) in entries {
            if !properties.contains_key(&key.text) {
                self.unknown_field(key, schema, properties, path);
                sound = false;
            }
        }
        let mut values = Map::new();
        for (name, property) in properties {
            let at = join(path, name);
            let written = node.get(name);
            let position = written.map_or(node.position, |value| value.position);
            let value = match written.filter(|value| !value.is_null()) {
                Some(value) => self.value(value, property, &at),
                None => match self.absent(position, schema, name, property, &at) {
                    Absent::Optional => continue,
                    Absent::Default(value) => value,
                    Absent::Missing => None,
                },
            };
            match value {
                Some(value) => {
                    values.insert(name.clone(), value);
                }
                None if property.get(SLOT).is_some() => {
                    let is_list = has_type(property, "array");
                    values.insert(name.clone(), if is_list { Value::Array(Vec::new()) } else { Value::Null });
                }
                None => sound = false,
            }
        }
        sound.then_some(Value::Object(values))
    }

    fn absent(
        &mut self,
        position: Position,
        schema: &'static Value,
        name: &str,
        property: &'static Value,
        path: &str,
    ) -> Absent {
        if let Some(default) = property.get("default") {
            return Absent::Default(self.value(&as_node(default, position), property, path));
        }
        let required = schema.get("required").and_then(Value::as_array);
        if !required.is_some_and(|required| required.iter().any(|known| known == name)) {
            return Absent::Optional;
        }
        self.fault(position, path, format!("is missing; it is {}", describe(&alternatives(property))));
        Absent::Missing
    }

    /// A mapping with names of the user's.
    fn free_mapping(
        &mut self,
        entries: &[(Key, std::sync::Arc<Node>)],
        schema: &'static Value,
        path: &str,
    ) -> Option<Value> {
        let schema = schema.get("additionalProperties")?;
        let mut values = Map::new();
        let mut sound = true;
        for (key, value) in entries {
            match self.value(value, schema, &join(path, &shown(&key.text))) {
                Some(value) => {
                    values.insert(key.text.clone(), value);
                }
                None => sound = false,
            }
        }
        sound.then_some(Value::Object(values))
    }

    fn unknown_field(
        &mut self,
        key: &Key,
        schema: &'static Value,
        properties: &'static Map<String, Value>,
        path: &str,
    ) {
        if let Some(reason) = schema.pointer(&format!("/{REFUSED}/{}", key.text)).and_then(Value::as_str) {
            return self.fault(key.position, &join(path, &key.text), reason);
        }
        let names = properties.keys().map(String::as_str);
        let message = match nearest(&key.text, names.clone()) {
            Some(name) => format!("unknown field, did you mean {name}?"),
            None => match owner(&key.text, properties) {
                Some(owner) => format!("unknown field here; it belongs under {owner}"),
                None => format!("unknown field; known here: {}", names.collect::<Vec<_>>().join(", ")),
            },
        };
        let hidden = schema.get(PRIVATE).is_some();
        let path = if hidden { path.to_owned() } else { join(path, &shown(&key.text)) };
        self.fault(key.position, &path, message);
    }

    fn scalar(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        schema: &'static Value,
        choices: &[&'static Value],
        path: &str,
    ) -> Option<Value> {
        match self.convert(node, scalar, schema, choices) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(node.position, path, message);
                None
            }
        }
    }

    fn convert(
        &self,
        node: &Node,
        scalar: &Scalar,
        schema: &'static Value,
        choices: &[&'static Value],
    ) -> Result<Value, String> {
        let form = choices.iter().find_map(|choice| choice.get(FORM));
        let name = form.and_then(|form| form.get("name")).and_then(Value::as_str);
        if node.is_null() {
            return Err(format!("must not be empty; it is {}", describe(choices)));
        }
        match name {
            Some("secret") => return environment::secret(&scalar.text, self.sources).map(Value::String),
            // Schemas may hold `${` of their own.
            Some("json") => {
                return forms::json_text(&scalar.text).map(|()| Value::String(scalar.text.clone()));
            }
            Some("verbatim_json" | "verbatim") => {
                return form.map_or(Ok(Value::Null), |form| forms::check(form, &scalar.text));
            }
            _ => {}
        }
        let text = environment::expand(&scalar.text, self.sources)?;
        if let Some(reason) =
            schema.get(REFUSED).and_then(|refused| refused.get(&text)).and_then(Value::as_str)
        {
            return Err(reason.to_owned());
        }
        let known: Vec<&'static str> = choices.iter().flat_map(|choice| words(choice)).collect();
        if known.contains(&text.as_str()) {
            return Ok(Value::String(text));
        }
        if let Some(form) = form {
            return forms::check(form, &text);
        }
        if let Some(choice) = choices.iter().find(|choice| has_type(choice, "integer")) {
            return integer(&text, choice);
        }
        if choices.iter().any(|choice| has_type(choice, "boolean")) {
            return text.parse().map(Value::Bool).map_err(|_| "must be true or false".to_owned());
        }
        let hint = nearest(&text, known.iter().copied()).map(|word| format!(", did you mean {word}?"));
        Err(format!("must be {}{}", describe(choices), hint.unwrap_or_default()))
    }
}

/// The sibling mapping that has a field of this name.
fn owner(name: &str, properties: &'static Map<String, Value>) -> Option<&'static str> {
    let has = |schema: &&'static Value| schema.pointer(&format!("/properties/{name}")).is_some();
    let owns = |(_, property): &(&String, &'static Value)| alternatives(property).iter().any(has);
    properties.iter().find(owns).map(|(owner, _)| owner.as_str())
}

enum Absent {
    Optional,
    Default(Option<Value>),
    Missing,
}

fn integer(text: &str, schema: &Value) -> Result<Value, String> {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
    let (min, max) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
    let number: Option<i64> = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.map(Value::from).ok_or_else(|| format!("must be {}", describe_integer(schema)))
}

fn describe_integer(schema: &Value) -> String {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
    match (bound("minimum"), bound("maximum")) {
        (Some(min), Some(max)) if min == max => format!("{min}"),
        (Some(min), Some(max)) if max < i64::MAX => format!("a whole number from {min} to {max}"),
        (Some(min), _) => format!("a whole number from {min}"),
        _ => "a whole number".to_owned(),
    }
}

/// What the alternatives take, in words.
fn describe(choices: &[&'static Value]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let known: Vec<&str> = choices.iter().flat_map(|choice| words(choice)).collect();
    if !known.is_empty() {
        let one_of = if known.len() > 1 { "one of " } else { "" };
        parts.push(format!("{one_of}{}", known.join(", ")));
    }
    for choice in choices.iter().filter(|choice| words(choice).is_empty()) {
        parts.push(match choice.get(FORM) {
            Some(form) => format!("a {}", forms::describe(form).replace('`', "")),
            None if has_type(choice, "integer") => describe_integer(choice),
            None if has_type(choice, "boolean") => "true or false".to_owned(),
            None if has_type(choice, "array") => "a list".to_owned(),
            None => match choice.get("properties").and_then(Value::as_object) {
                Some(fields) => format!("a mapping with {}", list(fields)),
                None => "a mapping".to_owned(),
            },
        });
    }
    parts.join(", or ")
}

fn list(fields: &Map<String, Value>) -> String {
    fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn form_name(schema: &Value) -> Option<&str> {
    schema.get(FORM)?.get("name")?.as_str()
}

fn plural(number: u64) -> &'static str {
    if number == 1 { "" } else { "s" }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A name of the user's, fit for a message.
fn shown(name: &str) -> String {
    let clean = |c: char| if c.is_control() || c.is_whitespace() { '?' } else { c };
    let mut shown: String = name.chars().take(64).map(clean).collect();
    if name.chars().count() > 64 {
        shown.push_str("..");
    }
    shown
}

/// A default as if it were written.
fn as_node(value: &Value, position: Position) -> Node {
    match value {
        Value::Object(entries) => {
            let key = |name: &String| Key { position, text: name.clone() };
            let entries = entries.iter().map(|(name, value)| (key(name), as_node(value, position).into()));
            Node::of(position, Data::Mapping(entries.collect()))
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| as_node(item, position).into());
            Node::of(position, Data::Sequence(items.collect()))
        }
        Value::String(text) => Node::scalar(position, text.clone(), false),
        other => Node::scalar(position, other.to_string(), true),
    }
}

/// YAML of JSON's shape: plain scalars are read by YAML's core schema.
fn as_json(node: &Node) -> Value {
    match &node.data {
        Data::Scalar(_) if node.is_null() => Value::Null,
        Data::Scalar(Scalar { text, plain: true }) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => {
                let integer = text.parse::<i64>().map(Value::from).ok();
                let number =
                    || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
                let looks_numeric = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
                let number = if looks_numeric { integer.or_else(number) } else { None };
                number.unwrap_or_else(|| Value::String(text.clone()))
            }
        },
        Data::Scalar(Scalar { text, .. }) => Value::String(text.clone()),
        Data::Sequence(items) => Value::Array(items.iter().map(|item| as_json(item)).collect()),
        Data::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text.clone(), as_json(value))).collect())
        }
    }
}
