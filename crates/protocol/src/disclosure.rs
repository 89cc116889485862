//! Every field that can cross, read from the message types themselves, so that no list can say something else.
//!
//! This module reads JSON Schemas of messages; it makes none.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::message::{self, Kept};

/// Nested deeper than this, a type is said to repeat.
const DEPTH_MAX: usize = 24;

/// One field that can cross.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisclosedField {
    /// The message's name.
    pub message: String,
    /// Where in the message: members after dots, `[]` for each element, `(x)` for the alternative x.
    pub path: String,
    /// The JSON type, or the closed list of words.
    pub kind: String,
    /// What it is.
    pub description: String,
    /// Where the control plane keeps it.
    pub kept: Kept,
    /// The spec's setting without which it never crosses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_in: Option<String>,
}

/// Every field of every message, in the order of the types.
pub fn fields() -> Vec<DisclosedField> {
    let mut found = Vec::new();
    for (name, _, kept, schema) in message::all() {
        let root = schema.as_value();
        let definitions = root.get("$defs").and_then(Json::as_object);
        let definitions = definitions.into_iter().flatten().map(|(name, of)| (name.as_str(), of)).collect();
        let mut walk = Walk { name, kept, definitions, found: &mut found, within: Vec::new() };
        walk.schema(root, &At::default());
    }
    found
}

/// What never crosses, whatever the spec says: no message has a place for it.
pub const NEVER: &[&str] = &[
    "Records: no key, value or header, whole or in part, and no row of a table.",
    "Names of members that a record has and its table's schema does not.",
    "Values of columns and of partitions, but for those that the spec's `disclose` list names.",
    "Documentation, defaults, symbols and properties of schemas, and aliases of anything but a column.",
    "Texts of errors and log lines: only their closed kinds and codes, counted.",
    "Credentials: keys and passwords of brokers, registries and stores. The API key is in the header of each message.",
    "Addresses of brokers, registries and stores, and options of the bucket's URL.",
    "The spec itself: only a digest of each table's part.",
];

/// The whole document about what can cross.
pub fn document() -> String {
    let never: String = NEVER.iter().map(|line| format!("- {line}\n")).collect();
    format!(
        "# What can leave the user's network\n\n\
         Written from the message types of `siltstone-protocol`; do not edit by hand. A worker sends these messages \
         to the control plane that its spec names, and nothing else to anybody; without `control_plane` in the spec \
         it sends nothing. `siltstone disclosures -f SPEC` prints the list for a spec, with examples; \
         `siltstone run --record FILE` keeps a copy of all that was sent.\n\n\
         ## Never\n\n{never}\n## Messages\n\n{}",
        markdown()
    )
}

/// The list as a Markdown table for each message.
pub fn markdown() -> String {
    let mut text = String::new();
    let mut message = String::new();
    for field in fields() {
        if field.message != message {
            message.clone_from(&field.message);
            let kept = match field.kept {
                Kept::Database => "kept in the database",
                Kept::Memory => "in memory only",
            };
            text += &format!("\n### `{message}` ({kept})\n\n| field | type | what it is |\n|---|---|---|\n");
        }
        let opt_in = field.opt_in.map(|setting| format!(" **Only with `{setting}`.**")).unwrap_or_default();
        let kind = field.kind.replace('|', "\\|");
        text += &format!("| `{}` | {kind} | {}{opt_in} |\n", field.path, field.description);
    }
    text.trim_start().to_owned()
}

/// Where the walk is, and what was said of it on the way there.
#[derive(Clone, Default)]
struct At {
    path: String,
    description: String,
    opt_in: Option<String>,
}

impl At {
    fn below(&self, path: String) -> Self {
        Self { path, description: String::new(), opt_in: self.opt_in.clone() }
    }
}

struct Walk<'a> {
    name: &'static str,
    kept: Kept,
    definitions: BTreeMap<&'a str, &'a Json>,
    found: &'a mut Vec<DisclosedField>,
    /// Names of the definitions that are being read.
    within: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Json, at: &At) {
        let text = |key: &str| schema.get(key).and_then(Json::as_str);
        let mut at = at.clone();
        if let Some(description) = text("description").filter(|_| at.description.is_empty()) {
            description.clone_into(&mut at.description);
        }
        if let Some(setting) = text("x-siltstone-opt-in") {
            at.opt_in = Some(setting.to_owned());
        }
        if let Some(name) = text("$ref") {
            return self.definition(name.trim_start_matches("#/$defs/"), &at);
        }
        if let Some(words) = words(schema) {
            return self.leaf(&at, format!("one of {}", words.join(", ")));
        }
        for alternatives in ["oneOf", "anyOf"].iter().filter_map(|key| schema.get(key)?.as_array()) {
            for alternative in alternatives {
                // An optional field is an alternative between its type and null.
                if alternative.get("type").and_then(Json::as_str) == Some("null") {
                    continue;
                }
                let path = match tag(alternative) {
                    Some(tag) => format!("{}({tag})", at.path),
                    None => at.path.clone(),
                };
                self.schema(alternative, &At { path, ..at.clone() });
            }
        }
        if let Some(members) = schema.get("properties").and_then(Json::as_object) {
            for (name, member) in members {
                let path = if at.path.is_empty() { name.clone() } else { format!("{}.{name}", at.path) };
                let mut below = at.below(path);
                // The word of an alternative, and its only member, are what the alternative is.
                if member.get("description").is_none()
                    && (member.get("const").is_some() || members.len() == 1)
                {
                    text("description").unwrap_or_default().clone_into(&mut below.description);
                }
                self.schema(member, &below);
            }
        } else if let Some(items) = schema.get("items") {
            self.schema(items, &At { path: format!("{}[]", at.path), ..at });
        } else if let Some(kind) = schema.get("type") {
            self.leaf(&at, kind_name(kind));
        } else if let Some(word) = text("const") {
            self.leaf(&at, word.to_owned());
        }
    }

    fn definition(&mut self, name: &'a str, at: &At) {
        if self.within.contains(&name) || self.within.len() >= DEPTH_MAX {
            return self.leaf(at, format!("{name}, as above"));
        }
        let Some(definition) = self.definitions.get(name).copied() else { return };
        self.within.push(name);
        self.schema(definition, at);
        self.within.pop();
    }

    fn leaf(&mut self, at: &At, kind: String) {
        self.found.push(DisclosedField {
            message: self.name.to_owned(),
            path: at.path.clone(),
            kind,
            description: plain(&at.description),
            kept: self.kept,
            opt_in: at.opt_in.clone(),
        });
    }
}

/// A comment on one line, without the links of Rust's documentation.
fn plain(comment: &str) -> String {
    let line = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("[`", "`").replace("`]", "`")
}

/// The words of a closed list, when the schema is one.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().map(Json::as_str).collect();
    }
    let of_one =
        |alternative: &'_ Json| alternative.get("const").is_some() || alternative.get("enum").is_some();
    let alternatives = schema.get("oneOf")?.as_array()?;
    alternatives.iter().all(of_one).then_some(())?;
    let mut all = Vec::new();
    for alternative in alternatives {
        match alternative.get("const").and_then(Json::as_str) {
            Some(word) => all.push(word),
            None => all.extend(words(alternative)?),
        }
    }
    Some(all)
}

/// The word by which an alternative is known: its constant member, or its only member.
fn tag(alternative: &Json) -> Option<&str> {
    let members = alternative.get("properties")?.as_object()?;
    members.values().find_map(|member| member.get("const")?.as_str())
}

fn kind_name(kind: &Json) -> String {
    match kind {
        Json::String(name) => name.clone(),
        Json::Array(names) => {
            let names = names.iter().filter_map(Json::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" or ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described_and_values_are_opt_in() {
        let all = fields();
        for field in &all {
            assert!(!field.kind.is_empty() && !field.description.is_empty(), "{field:?}");
            let may_hold_values =
                field.path.contains("statistics[].bounds") || field.path.contains(".partition[]");
            assert_eq!(field.opt_in.is_some(), may_hold_values, "{field:?}");
        }
        let at = |message: &str, path: &str| {
            all.iter().any(|field| field.message == message && field.path == path)
        };
        assert!(at("report", "entries[].change(append).files[].path"), "{:#?}", all);
        assert!(at("report", "statistics[].bounds[].least.long"));
        assert!(at("presence", "utilisation_percent"));
        assert!(at("poll", "wait_seconds"));
    }

    /// `UPDATE_SPEC_DOCS=1` writes the file anew.
    #[test]
    fn the_stored_list_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("DISCLOSURES.md");
        let text = document();
        if std::env::var_os("UPDATE_SPEC_DOCS").is_some() {
            assert!(std::fs::write(&path, &text).is_ok());
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == text, "DISCLOSURES.md is stale: run the tests with UPDATE_SPEC_DOCS=1");
    }
}
