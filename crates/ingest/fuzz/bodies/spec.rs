//! Any text as a spec: a spec, or faults with places in it, never a panic. What is refused is refused the same
//! way twice, and no fault holds what the environment answered.

use siltstone_spec::parse;

/// What every variable holds. No word of the grammar.
const SECRET: &str = "zq9-hidden-zq9";

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Files are not for fuzzing: what a path names depends on the machine.
    if text.contains("file") {
        return;
    }
    let read = || parse(text, "fuzz.yaml", &|_| Some(SECRET.to_owned()));
    match read() {
        Ok(spec) => assert!(!spec.tables.is_empty()),
        Err(faults) => {
            let said = faults.to_string();
            assert!(!said.is_empty() && !said.contains(SECRET));
            assert_eq!(read().map_err(|faults| faults.to_string()).err().as_deref(), Some(said.as_str()));
        }
    }
}
