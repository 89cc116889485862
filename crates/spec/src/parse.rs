//! From text to `Spec`, or to every fault in it.

use std::path::{Path, PathBuf};

use crate::{
    environment::{self, Sources},
    error::{Fault, Faults},
    grammar, limits,
    lower::Lower,
    model::Spec,
    raw::RawSpec,
    walk::Walker,
    yaml,
};

impl Spec {
    /// Reads a spec file; references are replaced from the process's environment.
    ///
    /// # Errors
    /// All faults of the file, with their places.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let text = environment::read_file(path, limits::SPEC_BYTES_MAX)
            .map_err(|error| Faults::whole_file(&file, format!("cannot be read: {}", error.kind())))?;
        parse(&text, &file, &|name| std::env::var(name).ok())
    }
}

/// Reads a spec. `file` is its name in faults and the place where relative paths start; `env` answers
/// for environment variables.
///
/// # Errors
/// All faults of the text, with their places.
pub fn parse(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Spec, Faults> {
    let directory = Path::new(file).parent().map(PathBuf::from).unwrap_or_default();
    let sources = Sources { env, read: &environment::read_file, directory };
    parse_from(text, file, &sources)
}

pub(crate) fn parse_from(text: &str, file: &str, sources: &Sources<'_>) -> Result<Spec, Faults> {
    if text.len() as u64 > limits::SPEC_BYTES_MAX {
        let message = format!("is longer than {} bytes", limits::SPEC_BYTES_MAX);
        return Err(Faults::whole_file(file, message));
    }
    let root = yaml::read(text).map_err(|fault| Faults::new(file, vec![fault]))?;
    let mut walker = Walker { sources, faults: Vec::new() };
    let value = walker.value(&root, grammar::working(), "");
    let mut faults = walker.faults;
    let Some(value) = value else { return Err(Faults::new(file, faults)) };
    // The reader's own message may quote a secret.
    let raw: RawSpec = serde_json::from_value(value).map_err(|_| {
        let message = "the grammar and its reader disagree; this is a bug of Siltstone";
        let (line, column) = (root.position.line, root.position.column);
        faults.push(Fault { line, column, path: String::new(), message: message.to_owned() });
        Faults::new(file, std::mem::take(&mut faults))
    })?;
    let mut lower = Lower::new(sources);
    let spec = lower.spec(raw, &root);
    faults.append(&mut lower.faults);
    match spec {
        Some(spec) if faults.is_empty() => Ok(spec),
        _ => Err(Faults::new(file, faults)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
