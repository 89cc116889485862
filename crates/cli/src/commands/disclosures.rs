//! `disclosures`: what can leave for the control plane under a spec, field by field, with examples.
//!
//! The fields are read from the message types, and the examples are messages of those types made from the spec: real
//! names of tables and topics, invented counts.

use serde_json::Value as Json;
use siltstone_protocol::disclosure::{self, DisclosedField};
use siltstone_spec::Spec;
use siltstone_worker::control::examples;

use super::load;
use crate::{args::DisclosuresArgs, output};

const EXAMPLE_CHARS_MAX: usize = 60;

pub fn disclosures(args: &DisclosuresArgs) -> anyhow::Result<u8> {
    if args.markdown {
        print!("{}", disclosure::document());
        return Ok(output::DONE);
    }
    let Some(file) = &args.file else {
        return Err(output::Invalid("name a spec with -f, or ask for --markdown".to_owned()).into());
    };
    let spec = load(file)?;
    let fields: Vec<Field> = fields(&spec)?;
    if args.json {
        let opted_in: Vec<_> = spec.tables.iter().map(opted_in).collect();
        let control_plane = spec.control_plane.as_ref().map(|plane| &plane.url);
        let never = disclosure::NEVER;
        output::print_json(&serde_json::json!({
            "control_plane": control_plane, "fields": fields, "opted_in": opted_in, "never": never,
        }))?;
        return Ok(output::DONE);
    }
    match &spec.control_plane {
        Some(plane) => println!("This spec reports to {}. What a worker can send there:\n", plane.url),
        None => {
            println!("This spec names no control plane: nothing is sent. With one, a worker could send:\n")
        }
    }
    for (kept, title) in [("database", "KEPT IN THE DATABASE"), ("memory", "IN MEMORY ONLY")] {
        println!("{title}");
        let mut message = "";
        for field in fields.iter().filter(|field| field.disclosed.kept.as_str() == kept && field.can_cross) {
            if field.disclosed.message != message {
                message = &field.disclosed.message;
                println!("\n  {message}");
            }
            let example = field.example.as_ref().map(|example| format!("  e.g. {}", shown(example)));
            println!("    {}: {}{}", field.disclosed.path, field.disclosed.kind, example.unwrap_or_default());
            println!("        {}", field.disclosed.description);
        }
        println!();
    }
    println!("OPTED IN BY THIS SPEC\n");
    for table in &spec.tables {
        let opted = &table.disclose;
        if !opted.columns().is_empty() {
            println!("  {}: least and greatest value per file of {}", table.name, opted.columns().join(", "));
        }
        if opted.partition_values() {
            println!("  {}: partition values", table.name);
        }
    }
    if spec.tables.iter().all(|table| table.disclose.is_nothing()) {
        println!("  nothing");
    }
    println!("\nNEVER\n");
    for line in disclosure::NEVER {
        println!("  {line}");
    }
    Ok(output::DONE)
}

/// A field that can cross, as this spec has it.
#[derive(Debug, serde::Serialize)]
struct Field {
    #[serde(flatten)]
    disclosed: DisclosedField,
    /// False: only with a setting that no table of the spec has.
    can_cross: bool,
    example: Option<Json>,
}

fn fields(spec: &Spec) -> anyhow::Result<Vec<Field>> {
    let examples = examples(spec)?;
    let of = |disclosed: DisclosedField| {
        let opted = |setting: &str| {
            spec.tables.iter().any(|table| match setting {
                "disclose.bounds" => !table.disclose.columns().is_empty(),
                "disclose.partition_values" => table.disclose.partition_values(),
                _ => false,
            })
        };
        let can_cross = disclosed.opt_in.as_deref().is_none_or(opted);
        let messages = examples.iter().filter(|(name, _)| *name == disclosed.message);
        let example = messages.filter_map(|(_, message)| find(message, &disclosed.path)).next();
        Field { can_cross, example: example.filter(|_| can_cross).cloned(), disclosed }
    };
    Ok(disclosure::fields().into_iter().map(of).collect())
}

/// The first value at a path of [`DisclosedField::path`]'s form.
fn find<'a>(message: &'a Json, path: &str) -> Option<&'a Json> {
    let mut found = vec![message];
    for part in path.split('.') {
        let elements = part.matches("[]").count();
        let part = part.replace("[]", "");
        let (member, alternative) = match part.split_once('(') {
            Some((member, tag)) => (member, Some(tag.trim_end_matches(')'))),
            None => (part.as_str(), None),
        };
        if !member.is_empty() {
            found = found.into_iter().filter_map(|value| value.get(member)).collect();
        }
        for _ in 0..elements {
            found = found.into_iter().filter_map(Json::as_array).flatten().collect();
        }
        if let Some(tag) = alternative {
            let is_it = |value: &&Json| {
                let members = value.as_object();
                members.is_some_and(|members| {
                    members.contains_key(tag) || members.values().any(|word| word == tag)
                })
            };
            found.retain(is_it);
        }
    }
    found.into_iter().find(|value| !value.is_null() && !value.is_object())
}

fn shown(example: &Json) -> String {
    let text = example.to_string();
    match text.char_indices().nth(EXAMPLE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn opted_in(table: &siltstone_spec::TableSpec) -> Json {
    serde_json::json!({
        "table": table.name,
        "bounds": table.disclose.columns(),
        "partition_values": table.disclose.partition_values(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_found_by_path() {
        let message = serde_json::json!({
            "table": {"name": "a.b"},
            "entries": [
                {"change": {"kind": "create", "formats": ["iceberg"]}},
                {"change": {"kind": "append", "files": [{"path": "p"}]}},
            ],
            "statistics": [{"bounds": [{"least": {"date": 3}}]}],
        });
        let at = |path| find(&message, path).cloned();
        assert_eq!(at("table.name"), Some("a.b".into()));
        assert_eq!(at("entries[].change(append).files[].path"), Some("p".into()));
        assert_eq!(at("entries[].change(create).formats[]"), Some("iceberg".into()));
        assert_eq!(at("entries[].change(delete).removed[]"), None);
        assert_eq!(at("statistics[].bounds[].least.date"), Some(3.into()));
    }
}
