//! The workspace keeps its own rules: dependency arrows, the wall, file sizes, lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Who may depend on whom: every arrow of `crates/README.md`, and no other.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("spec", &["protocol"]),
    ("ingest", &["protocol", "spec"]),
    ("datafile", &["protocol", "spec"]),
    ("lakehouse", &["datafile", "protocol", "spec"]),
    ("compaction", &["datafile", "lakehouse", "protocol", "spec"]),
    ("worker", &["compaction", "datafile", "ingest", "lakehouse", "protocol", "spec"]),
    ("control-plane", &["protocol"]),
    ("cli", &["protocol", "spec", "worker"]),
];

/// `protocol` is the wall: what it depends on can reach every message that leaves.
const PROTOCOL_MAY_USE: &[&str] = &["schemars", "serde", "serde_json", "thiserror"];

/// Lines of a Rust file outside its tests.
const FILE_LINES_MAX: usize = 500;
const LINE_COLUMNS_MAX: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal and build dependencies by package, our own prefix stripped.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let needed = package["dependencies"].as_array().unwrap().iter();
            let needed = needed.filter(|needed| needed["kind"] != "dev");
            let needed = needed.map(|needed| needed["name"].as_str().unwrap().to_owned()).collect();
            (package["name"].as_str().unwrap().to_owned(), needed)
        })
        .collect()
}

#[test]
fn dependency_arrows_are_those_of_the_map() {
    let all = dependencies();
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        let needed = all.get(&format!("siltstone-{name}")).unwrap_or_else(|| panic!("no crate {name}"));
        for needed in needed.iter().filter_map(|needed| needed.strip_prefix("siltstone-")) {
            if !allowed.contains(&needed) {
                wrong.push(format!("{name} -> {needed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that must not be: {wrong:?}");
    let crates: BTreeSet<_> = fs::read_dir(root().join("crates"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| !name.contains('.'))
        .collect();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(crates, known, "crates on disk and crates with arrows differ");
}

#[test]
fn the_wall_has_no_door() {
    let all = dependencies();
    let protocol = &all["siltstone-protocol"];
    let other: Vec<_> = protocol.iter().filter(|name| !PROTOCOL_MAY_USE.contains(&name.as_str())).collect();
    assert!(other.is_empty(), "protocol may not depend on {other:?}");
    for (path, text) in rust_files() {
        // `disclosure` reads the schemas of messages and makes none.
        if path.starts_with("crates/protocol/src") && !path.ends_with("disclosure.rs") {
            let code = text.split("#[cfg(test)]").next().unwrap();
            // Examples of what does not compile stand in comments.
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let code = code.lines().filter(is_code).collect::<Vec<_>>().join("\n");
            for door in ["serde_json::Value", "Vec<u8>", "&[u8]", "bytes::"] {
                assert!(!code.contains(door), "{}: {door} can carry anything", path.display());
            }
        }
    }
}

/// What crosses beyond the fixed list is decided where the user's spec is read, and messages leave from one place.
#[test]
fn disclosure_and_sending_have_one_place_each() {
    let places = [
        ("Disclosure::of_spec(", "crates/spec/src/lower/table.rs"),
        ("serde_json::to_vec(message)", "crates/worker/src/control/wire.rs"),
        (".client.post(", "crates/worker/src/control/wire.rs"),
    ];
    for (call, place) in places {
        let mut found = Vec::new();
        for (path, text) in rust_files() {
            let engine = path.starts_with("crates") && !path.starts_with("crates/control-plane");
            let code = text.split("#[cfg(test)]").next().unwrap();
            if engine && !path.components().any(|part| part.as_os_str() == "tests") && code.contains(call) {
                found.push(path.display().to_string());
            }
        }
        assert_eq!(found, [place], "{call}");
    }
    // Who makes statistics of files: they take a disclosure, and none makes one.
    for (path, text) in rust_files() {
        let code = text.split("#[cfg(test)]").next().unwrap();
        if !path.starts_with("crates/protocol") && !path.starts_with("tests") {
            assert!(!code.contains("FileStatistics {"), "{} makes statistics by hand", path.display());
        }
    }
}

#[test]
fn the_map_names_every_crate_and_invariant() {
    let map = fs::read_to_string(root().join("crates/README.md")).unwrap();
    for (name, _) in ARROWS {
        assert!(map.contains(&format!("`{name}`")), "crates/README.md does not name {name}");
    }
    for (path, text) in rust_files() {
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '-')) {
            let Some(number) = word.strip_prefix("I-").filter(|number| number.parse::<u32>().is_ok()) else {
                continue;
            };
            assert!(map.contains(&format!("I-{number}")), "{}: I-{number} is not in the map", path.display());
        }
    }
}

#[test]
fn files_and_lines_are_readable() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines = code.lines().count();
        let test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        if lines > FILE_LINES_MAX && !test {
            faults.push(format!("{}: {lines} lines, look for the seam", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            // A line that a string literal makes long cannot be broken.
            if line.chars().count() > LINE_COLUMNS_MAX && !line.contains('"') && !line.contains("//! |") {
                faults.push(format!("{}:{}: {} columns", path.display(), number + 1, line.chars().count()));
            }
        }
        if path.starts_with("crates") && path.components().any(|part| part.as_os_str() == "src") && !test {
            let opens = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
            if !opens.starts_with("//!") {
                faults.push(format!("{}: does not open with what it promises", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for (name, _) in ARROWS {
        let text = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{name} does not take the workspace's lints");
    }
}

fn rust_files() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for top in ["crates", "tests", "benches", "examples"] {
        walk(&root().join(top), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().to_path_buf(), text)
        })
        .collect()
}
