//! The reference for readers, written from the grammar: nothing in it is said twice.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    forms::{self, FORM},
    grammar::{alternatives, has_type, words, working},
};

const OPENING: &str = "\
# Table spec

Written from the grammar; do not edit by hand. `table-specs/schema.json` is the same for editors:
begin a spec with

```yaml
# yaml-language-server: $schema=schema.json
```
";

/// The reference of the grammar, as Markdown.
pub fn reference_markdown() -> String {
    let mut out = OPENING.to_owned();
    section(&mut out, "The file", working());
    let definitions = working().get("$defs").and_then(Value::as_object);
    for name in reading_order() {
        if let Some(schema) = definitions.and_then(|definitions| definitions.get(name.as_str())) {
            section(&mut out, &name, schema);
        }
    }
    out
}

fn section(out: &mut String, title: &str, schema: &'static Value) {
    let _ = write!(out, "\n## {title}\n\n{}\n", description(schema));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        let _ = writeln!(out, "\nEither {}.", kind(schema));
        return;
    };
    out.push('\n');
    out.push_str("| Field | Type | Default | Meaning |\n| --- | --- | --- | --- |\n");
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|known| known == name));
    let mut rows: Vec<_> = properties.iter().collect();
    rows.sort_by_key(|(name, _)| !is_required(name));
    for (name, property) in rows {
        let required = is_required(name);
        let default = match property.get("default") {
            Some(default) => {
                format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned))
            }
            None if required => "required".to_owned(),
            None => String::new(),
        };
        let kind = kind(property).replace('|', "\\|");
        let _ = writeln!(out, "| `{name}` | {kind} | {default} | {} |", meaning(property));
    }
}

/// Definitions in the order in which a reader meets them, what a definition uses right after it.
fn reading_order() -> Vec<String> {
    let mut order = Vec::new();
    meet(working().get("properties"), &mut order);
    order
}

fn meet(schema: Option<&'static Value>, order: &mut Vec<String>) {
    let mut found = Vec::new();
    schema.into_iter().for_each(|schema| references(schema, &mut found));
    for name in found {
        if !order.contains(&name) {
            order.push(name.clone());
            meet(working().pointer(&format!("/$defs/{name}")), order);
        }
    }
}

fn references(schema: &'static Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(name) =
                object.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"))
            {
                found.push(name.to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().trim().to_owned()
}

/// A field's description on one line, with its words and an example.
fn meaning(property: &'static Value) -> String {
    let mut text = description(property).replace("\n\n", " ").replace('\n', " ");
    for choice in alternatives(property) {
        if let Some(word) = words(choice).first().filter(|_| choice.get("const").is_some()) {
            let _ = write!(text, " `{word}`: {}", description(choice));
        }
    }
    if let Some(example) = property.pointer("/examples/0") {
        let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        let _ = write!(text, " Example: `{example}`.");
    }
    text.replace('|', "\\|")
}

fn kind(schema: &'static Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = schema.get(keyword) {
            let mut kinds: Vec<String> = branches.iter().map(kind).filter(|kind| !kind.is_empty()).collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
    }
    let known = words(schema);
    if !known.is_empty() {
        return known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(form) = schema.get(FORM) {
        return forms::describe(form);
    }
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
    if has_type(schema, "integer") {
        return match (bound("minimum"), bound("maximum")) {
            (Some(min), Some(max)) if max < i64::MAX => format!("integer, {min} to {max}"),
            (Some(min), _) => format!("integer, from {min}"),
            _ => "integer".to_owned(),
        };
    }
    if has_type(schema, "boolean") {
        return "`true`, `false`".to_owned();
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    schema
        .get("additionalProperties")
        .filter(|inner| inner.is_object())
        .map_or_else(String::new, |inner| format!("mapping of names to {}", kind(inner)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_SPEC_DOCS=1` writes the file anew.
    fn fresh(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../table-specs").join(name);
        if std::env::var_os("UPDATE_SPEC_DOCS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == text, "table-specs/{name} is stale: run the tests with UPDATE_SPEC_DOCS=1");
    }

    #[test]
    fn the_stored_schema_is_fresh() {
        let text = serde_json::to_string_pretty(&crate::json_schema()).unwrap();
        assert!(!text.contains("x-siltstone"));
        fresh("schema.json", &format!("{text}\n"));
    }

    #[test]
    fn the_stored_reference_is_fresh() {
        fresh("REFERENCE.md", &reference_markdown());
    }

    #[test]
    fn every_field_is_described() {
        fn walk(schema: &Value, path: &str) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, property) in properties {
                    assert!(!description(property).is_empty(), "{path}.{name}");
                }
            }
        }
        walk(working(), "");
        for (name, schema) in working().get("$defs").and_then(Value::as_object).unwrap() {
            walk(schema, name);
        }
    }
}
