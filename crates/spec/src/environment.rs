//! References in scalars: `${VAR}`, `${VAR:-default}`, `${file:/path}`; `$${` is a plain `${`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What a spec may draw on besides its own text.
pub(crate) struct Sources<'a> {
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a whole file of at most so many bytes.
    pub(crate) read: &'a dyn Fn(&Path, u64) -> io::Result<String>,
    /// The spec file's directory: relative paths start here.
    pub(crate) directory: PathBuf,
}

impl Sources<'_> {
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}

/// Reads a file, refusing to read more than `bytes_max`.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

/// Replaces every reference of a field that is no secret. The error names variables, never values.
pub(crate) fn expand(text: &str, sources: &Sources<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let (reference, tail) = rest[start + 2..].split_once('}').ok_or_else(|| UNCLOSED.to_owned())?;
        if reference.starts_with("file:") {
            return Err("${file:..} is for secrets only".to_owned());
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        out.push_str(&variable(name, default, sources)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// The secret that one reference stands for.
pub(crate) fn secret(text: &str, sources: &Sources<'_>) -> Result<String, String> {
    let reference = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|reference| !reference.contains(['{', '}']))
        .ok_or("a secret must be one reference, ${VAR} or ${file:/path}, never the secret itself")?;
    let value = match reference.strip_prefix("file:") {
        Some(path) => read_secret(path, sources)?,
        None if reference.contains(":-") => {
            return Err("a secret has no default; write ${VAR} or ${file:/path}".to_owned());
        }
        None => variable(reference, None, sources)?,
    };
    if value.is_empty() { Err("the reference stands for an empty secret".to_owned()) } else { Ok(value) }
}

const UNCLOSED: &str = "`${` without `}`; write $${ for the two characters themselves";

fn variable(name: &str, default: Option<&str>, sources: &Sources<'_>) -> Result<String, String> {
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !letters || name.starts_with(|c: char| c.is_ascii_digit()) || name.len() > 128 {
        return Err("not a reference: a variable's name is letters, digits and _".to_owned());
    }
    match ((sources.env)(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

fn read_secret(path: &str, sources: &Sources<'_>) -> Result<String, String> {
    let read = (sources.read)(&sources.path(path), crate::limits::SECRET_FILE_BYTES_MAX);
    let text = read.map_err(|error| format!("the file of ${{file:..}} cannot be read: {}", error.kind()))?;
    let trimmed =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(trimmed.to_owned())
}
