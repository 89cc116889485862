//! No page without a code, no code without a page, and no page that names a setting, a flag, a command or a code that
//! is not there.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser, error::ErrorKind};
use serde_json::Value;
use siltstone_protocol::ErrorCode;

use super::*;
use crate::args::Cli;

const SECTIONS: [&str; 5] =
    ["What it means", "What happened to the data", "Likely causes", "What to do", "Example"];
const LINES_MAX: usize = 60;
const COLUMNS_MAX: usize = 120;
const SUMMARY_CHARS_MAX: usize = 160;

fn pages() -> impl Iterator<Item = &'static Page> {
    GROUPS.iter().flat_map(|group| group.pages)
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let errors = ErrorCode::ALL.iter().map(|code| code.as_str());
    let codes: BTreeSet<_> = errors.chain(RejectReason::ALL.iter().map(|reason| reason.as_str())).collect();
    let listed: Vec<_> = pages().map(|page| page.code).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), codes);
    assert_eq!(listed.len(), codes.len(), "a page is listed twice");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("errors");
    let files =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.map(|name| name.strip_suffix(".md").unwrap().to_owned()).collect();
    assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), codes);
}

#[test]
fn every_page_has_the_same_parts_in_order() {
    for Page { code, text } in pages() {
        assert!(text.starts_with(&format!("# {code}\n\n")), "{code}: its title");
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{code}: its end");
        let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{code}");
        for section in SECTIONS {
            assert!(!body(text, section).is_empty(), "{code}: {section} is empty");
        }
        assert!(text.lines().count() <= LINES_MAX, "{code}: longer than {LINES_MAX} lines");
        let wide = text.lines().find(|line| line.chars().count() > COLUMNS_MAX);
        assert_eq!(wide, None, "{code}");
        assert!(body(text, "What to do").starts_with("1. "), "{code}: what to do first");
        assert!(body(text, "Likely causes").starts_with("- "), "{code}: a list of causes");
        assert!(body(text, "Example").contains(code), "{code}: the example shows another error");
    }
}

#[test]
fn a_summary_is_one_sentence_with_the_way_out() {
    for page in pages() {
        let (code, summary) = (page.code, page.summary());
        assert!(summary.ends_with('.') && summary.chars().count() <= SUMMARY_CHARS_MAX, "{code}: {summary}");
        assert!(summary.starts_with(|first: char| first.is_uppercase() || first == '`'), "{code}: {summary}");
    }
    assert!(RejectReason::ALL.iter().all(|reason| advice(*reason).len() > 20));
}

/// The section's text, without its heading.
fn body<'t>(text: &'t str, section: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap_or_default();
    rest.split_once("\n\n## ").map_or(rest, |(body, _)| body).trim_end()
}

/// Everything between backticks outside of code blocks, and every command of a code block for shells.
#[test]
fn what_a_page_names_is_there() {
    let grammar = Grammar::new();
    let mut wrong = Vec::new();
    for Page { code, text } in pages() {
        let mut fence = None;
        for line in text.lines() {
            if let Some(language) = line.strip_prefix("```") {
                fence = if fence.is_some() { None } else { Some(language) };
                continue;
            }
            let faults: Vec<(&str, String)> = match fence {
                None => {
                    spans(line).into_iter().filter_map(|span| Some((span, grammar.fault(span)?))).collect()
                }
                Some("yaml") => {
                    let named = names(line).into_iter().filter(|name| !grammar.is_setting(name));
                    named.map(|name| (name, "is no setting".to_owned())).collect()
                }
                Some("text") => Vec::new(),
                Some(other) => vec![(other, "is no kind of code block of these pages".to_owned())],
            };
            wrong.extend(faults.into_iter().map(|(span, fault)| format!("{code}: `{span}` {fault}")));
        }
        assert_eq!(fence, None, "{code}: a code block is not closed");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_of_names_finds_faults() {
    let grammar = Grammar::new();
    for right in [
        "dlq_mode",
        "dlq_mode: skip",
        "tables.on_lost_range: continue",
        "schema_registry.tls.ca_file",
        "siltstone plan -f SPEC",
        "siltstone dead-letters list -f SPEC TABLE --reason wrong_type",
        "--older-than",
        "lost_range",
        "delta",
    ] {
        assert_eq!(grammar.fault(right), None, "{right}");
    }
    for wrong in [
        "dlq_mod",
        "dlq_mode: later",
        "tables.ca_file",
        "siltstone plam -f SPEC",
        "siltstone plan -f SPEC --fast",
        "siltstone explain no_such_code",
        "--faster",
        "lost_ranges",
    ] {
        assert!(grammar.fault(wrong).is_some(), "{wrong}");
    }
}

/// The code spans of a line.
fn spans(line: &str) -> Vec<&str> {
    assert_eq!(line.matches('`').count() % 2, 0, "a code span is cut by the end of a line: {line}");
    line.split('`').skip(1).step_by(2).collect()
}

/// The keys of a line of YAML, also of mappings in braces.
fn names(line: &str) -> Vec<&str> {
    let before_colons = line.split(": ").map(|part| part.trim_end_matches(':'));
    let words = before_colons.filter_map(|part| part.rsplit([' ', '{', '[']).next());
    let count = line.matches(':').count();
    words.take(count).filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect()
}

/// What can be named: the spec's settings and their words, the commands and their flags, the codes.
struct Grammar {
    schema: Value,
    words: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Grammar {
    fn new() -> Self {
        let schema = serde_json::to_value(siltstone_spec::json_schema()).unwrap();
        let (mut words, mut flags) = (BTreeSet::new(), BTreeSet::new());
        constants(&schema, &mut words);
        long_flags(&Cli::command(), &mut flags);
        flags.extend(["--version".to_owned(), "--help".to_owned()]);
        Self { schema, words, flags }
    }

    /// Why nothing of this program goes by that name.
    fn fault(&self, span: &str) -> Option<String> {
        if span.starts_with("siltstone ") {
            return self.command_fault(span);
        }
        if let Some((setting, value)) = span.split_once(": ") {
            return match self.nodes(setting) {
                nodes if nodes.is_empty() => Some("is no setting".to_owned()),
                nodes => self.value_fault(&nodes, value),
            };
        }
        // A flag may stand with its value.
        let flag = span.split_whitespace().next().filter(|word| word.starts_with("--"));
        let known = flag.is_some_and(|flag| self.flags.contains(flag))
            || self.words.contains(span)
            || page(span).is_some()
            || self.is_setting(span);
        (!known).then(|| "is no setting, word of the spec, flag, command or code".to_owned())
    }

    fn is_setting(&self, path: &str) -> bool {
        !self.nodes(path).is_empty()
    }

    /// Parses the command as the program does.
    fn command_fault(&self, command: &str) -> Option<String> {
        let words: Vec<&str> = match command.split_once('\'') {
            Some((before, quoted)) => {
                before.split_whitespace().chain([quoted.trim_end_matches('\'')]).collect()
            }
            None => command.split_whitespace().collect(),
        };
        if let ["siltstone", "explain", code] = words.as_slice()
            && *code != "CODE"
            && page(code).is_none()
        {
            return Some("explains what is no code".to_owned());
        }
        match Cli::try_parse_from(words) {
            Ok(_) => None,
            // The name of a command alone is not all of it.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp
                        | ErrorKind::DisplayVersion
                        | ErrorKind::MissingRequiredArgument
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ) =>
            {
                None
            }
            Err(error) => Some(format!("is no command: {error}")),
        }
    }

    /// The schemas of a setting: a dotted path that begins at the file or at any of its parts.
    fn nodes(&self, path: &str) -> Vec<&Value> {
        let parts = self.schema["$defs"].as_object().unwrap().values();
        let mut nodes: Vec<&Value> = std::iter::once(&self.schema).chain(parts).collect();
        for name in path.split('.') {
            let objects = nodes.iter().flat_map(|node| self.objects(node, 0));
            nodes = objects.filter_map(|object| object["properties"].get(name)).collect();
        }
        nodes
    }

    /// The schemas with properties that a schema leads to: itself, its choices, its elements.
    fn objects<'s>(&'s self, node: &'s Value, depth: usize) -> Vec<&'s Value> {
        assert!(depth < 10, "schemas of the spec do not go round");
        let mut objects = Vec::new();
        if node.get("properties").is_some() {
            objects.push(node);
        }
        if let Some(name) = node.get("$ref").and_then(Value::as_str) {
            let part = self.schema.pointer(name.trim_start_matches('#')).unwrap();
            objects.extend(self.objects(part, depth + 1));
        }
        for choice in ["anyOf", "oneOf"] {
            let choices = node.get(choice).and_then(Value::as_array).into_iter().flatten();
            objects.extend(choices.flat_map(|choice| self.objects(choice, depth + 1)));
        }
        if let Some(items) = node.get("items") {
            objects.extend(self.objects(items, depth + 1));
        }
        objects
    }

    /// A setting that takes words takes this one.
    fn value_fault(&self, nodes: &[&Value], value: &str) -> Option<String> {
        let mut words = BTreeSet::new();
        nodes.iter().for_each(|node| constants(node, &mut words));
        let is_boolean = nodes.iter().any(|node| node["type"] == "boolean");
        let taken = match is_boolean {
            true => value == "true" || value == "false",
            false => words.is_empty() || words.contains(value),
        };
        (!taken).then(|| "is no value of this setting".to_owned())
    }
}

/// Every word that a schema takes as it stands.
fn constants(schema: &Value, words: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("const", Value::String(word)) => {
                        words.insert(word.clone());
                    }
                    ("enum", Value::Array(all)) => {
                        words.extend(all.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => constants(member, words),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|member| constants(member, words)),
        _ => {}
    }
}

fn long_flags(command: &clap::Command, flags: &mut BTreeSet<String>) {
    flags.extend(command.get_arguments().filter_map(|flag| Some(format!("--{}", flag.get_long()?))));
    command.get_subcommands().for_each(|command| long_flags(command, flags));
}
