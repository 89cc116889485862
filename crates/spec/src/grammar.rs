//! The grammar as a JSON Schema: the working one, with our keywords, and the published one.

use std::{collections::BTreeMap, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::{
    forms::FORM,
    raw::{PRIVATE, REFUSED, RawSpec, SLOT},
};

static WORKING: LazyLock<Value> = LazyLock::new(|| {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RawSpec>().to_value();
    visit(&mut schema, &mut drop_defaulted_from_required);
    // The same text however other crates build the JSON library.
    visit(&mut schema, &mut |object| {
        let sorted: BTreeMap<String, Value> = std::mem::take(object).into_iter().collect();
        *object = sorted.into_iter().collect();
    });
    schema
});

/// With our keywords: what the walker works by.
pub(crate) fn working() -> &'static Value {
    &WORKING
}

/// The JSON Schema (draft 2020-12) of a spec file, for editors.
pub fn json_schema() -> Value {
    let mut schema = WORKING.clone();
    visit(&mut schema, &mut |object| {
        for keyword in [FORM, REFUSED, SLOT, PRIVATE] {
            object.remove(keyword);
        }
    });
    schema
}

/// A field with a default need not be written.
fn drop_defaulted_from_required(object: &mut Map<String, Value>) {
    let defaulted: Vec<String> = match object.get("properties") {
        Some(Value::Object(properties)) => {
            let with_default = |(_, property): &(&String, &Value)| property.get("default").is_some();
            properties.iter().filter(with_default).map(|(name, _)| name.clone()).collect()
        }
        _ => return,
    };
    let Some(Value::Array(required)) = object.get_mut("required") else { return };
    required.retain(|name| name.as_str().is_none_or(|name| !defaulted.iter().any(|known| known == name)));
    if required.is_empty() {
        object.remove("required");
    }
}

/// Calls `change` with every object of the schema, outer ones first.
fn visit(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| visit(value, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, change)),
        _ => {}
    }
}

/// The schemas that a value may follow: references followed, alternatives side by side, null left out.
pub(crate) fn alternatives(schema: &'static Value) -> Vec<&'static Value> {
    let mut found = Vec::new();
    collect(schema, &mut found);
    found
}

fn collect(schema: &'static Value, found: &mut Vec<&'static Value>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        if let Some(target) = reference.strip_prefix('#').and_then(|pointer| working().pointer(pointer)) {
            collect(target, found);
        }
        return;
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = schema.get(keyword) {
            branches.iter().for_each(|branch| collect(branch, found));
            return;
        }
    }
    if schema.get("type").and_then(Value::as_str) != Some("null") {
        found.push(schema);
    }
}

/// True when the schema's `type` is or names `wanted`.
pub(crate) fn has_type(schema: &Value, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == wanted,
        Some(Value::Array(names)) => names.iter().any(|name| name == wanted),
        _ => false,
    }
}

/// The words of an enumeration.
pub(crate) fn words(schema: &'static Value) -> Vec<&'static str> {
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return vec![word];
    }
    let list = schema.get("enum").and_then(Value::as_array);
    list.map(|words| words.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}
