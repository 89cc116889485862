//! Files that a backfill reads: a bucket and a pattern, as people write them on the command line.
//!
//! `s3://bucket/history/**/*.avro?region=eu-west-1`: `*` stands for any part of a name, `**` for any number of
//! folders. Options are those of a destination. Names that begin with `_` or `.` are passed over, as are the folders
//! below such a name, unless the pattern says them: that is where other programs keep what is not data.

use crate::{model::Destination, url_text};

/// Where files to be read are, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFiles {
    /// The bucket (`file:///` for local files), with options and without a path.
    pub bucket: Destination,
    /// Parts of the path, at least one.
    parts: Vec<String>,
}

impl SourceFiles {
    /// Reads a URL with a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, query) = text.split_once('?').map_or((text, None), |(at, query)| (at, Some(query)));
        let wrong =
            || "must be a URL such as s3://bucket/history/**/*.avro or file:///data/*.parquet".to_owned();
        let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
        let (bucket, path) = rest.split_once('/').ok_or_else(wrong)?;
        let options = query.map(|query| format!("?{query}")).unwrap_or_default();
        // A local destination needs a folder, which the bucket of the pattern is not.
        let mut found = match scheme {
            "file" => url_text::destination(&format!("file://{bucket}/x{options}"))?,
            _ => url_text::destination(&format!("{scheme}://{bucket}{options}"))?,
        };
        found.url = if scheme == "file" { "file:///".to_owned() } else { format!("{scheme}://{bucket}") };
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        if parts.last().is_none_or(String::is_empty) {
            return Err("names a folder; write folder/** for all files below it".to_owned());
        }
        if let Some(part) = parts.iter().find(|part| part.is_empty() || matches!(part.as_str(), "." | "..")) {
            return Err(format!("its path has a part {part:?}, which no file's path has"));
        }
        if let Some(part) = parts.iter().find(|part| part.contains("**") && part.as_str() != "**") {
            return Err(format!("** stands for whole folders, not for a part of the name {part}"));
        }
        Ok(Self { bucket: found, parts })
    }

    /// The same files with these options, if the pattern has none: those of a destination of the same scheme.
    #[must_use]
    pub fn or_options_of(mut self, destination: &Destination) -> Self {
        let scheme = |url: &str| url.split("://").next().map(str::to_owned);
        if self.bucket.options.is_empty() && scheme(&self.bucket.url) == scheme(&destination.url) {
            self.bucket.options.clone_from(&destination.options);
        }
        self
    }

    /// The folder that holds all of them, without slashes at the ends; empty for the whole bucket. When the pattern
    /// is one file's path, the file.
    pub fn prefix(&self) -> String {
        let literal = self.parts.iter().take_while(|part| !part.contains('*'));
        literal.map(String::as_str).collect::<Vec<_>>().join("/")
    }

    /// True when the pattern is one file's path.
    pub fn is_one(&self) -> bool {
        !self.parts.iter().any(|part| part.contains('*'))
    }

    /// Whether a file of this path, without a slash before it, is meant.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        matches_parts(&self.parts, &names)
    }

    /// The URL of a file, without options.
    pub fn url_of(&self, path: &str) -> String {
        let bucket = self.bucket.url.strip_suffix('/').unwrap_or(&self.bucket.url);
        format!("{bucket}/{path}")
    }
}

fn matches_parts(parts: &[String], names: &[&str]) -> bool {
    let Some((part, later)) = parts.split_first() else { return names.is_empty() };
    if part == "**" {
        // The last ** takes files, too.
        let rest = |taken: usize| match later {
            [] => taken == names.len() && taken > 0,
            _ => matches_parts(later, &names[taken..]),
        };
        let visible = names.iter().take_while(|name| !is_hidden(name)).count();
        return (0..=visible).any(rest);
    }
    match names.split_first() {
        Some((name, others)) => matches_name(part, name) && matches_parts(later, others),
        None => false,
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

fn matches_name(part: &str, name: &str) -> bool {
    if is_hidden(name) && !is_hidden(part) {
        return false;
    }
    let mut pieces = part.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_files() {
        let cases: [(&str, &[&str], &[&str]); 6] = [
            (
                "s3://lake/history/**/*.avro",
                &["history/a.avro", "history/2020/01/a.avro"],
                &["history/a.json", "other/a.avro", "history/_tmp/a.avro", "history/.a.avro", "history"],
            ),
            (
                "gs://lake/h/dt=*/part-*.parquet",
                &["h/dt=1/part-0.parquet"],
                &["h/dt=1/x/part-0.parquet", "h/dt=/p"],
            ),
            ("az://lake/**", &["a", "a/b/c.json"], &["_SUCCESS", "a/_SUCCESS", "a/_delta_log/0.json"]),
            ("s3://lake/a/_old/*", &["a/_old/b"], &["a/_old/_b", "a/old/b"]),
            ("s3://lake/one.json", &["one.json"], &["one.json.gz", "a/one.json"]),
            ("s3://lake/a*b*c.*", &["abc.x", "aXbYc.", "abbc.c.x"], &["ac.x", "abcx"]),
        ];
        for (pattern, yes, no) in cases {
            let files = SourceFiles::parse(pattern).unwrap();
            for path in yes {
                assert!(files.matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!files.matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn a_pattern_has_a_bucket_a_prefix_and_options() {
        let files = SourceFiles::parse("s3://lake/a/b/*/c.json?region=eu-west-1").unwrap();
        assert_eq!((files.bucket.url.as_str(), files.prefix().as_str()), ("s3://lake", "a/b"));
        assert_eq!(files.bucket.options["region"], "eu-west-1");
        assert_eq!(files.url_of("a/b/x/c.json"), "s3://lake/a/b/x/c.json");
        let local = SourceFiles::parse("file:///data/x.avro").unwrap();
        assert_eq!((local.bucket.url.as_str(), local.prefix().as_str()), ("file:///", "data/x.avro"));
        assert!(local.is_one() && local.matches("data/x.avro"));
        assert_eq!(local.url_of("data/x.avro"), "file:///data/x.avro");
        let destination = url_text::destination("s3://other/t?endpoint=http%3A%2F%2Fx").unwrap();
        let lent = SourceFiles::parse("s3://lake/a").unwrap().or_options_of(&destination);
        assert_eq!(lent.bucket.options["endpoint"], "http://x");
        assert_eq!(files.clone().or_options_of(&destination), files);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "history/*.avro",
            "ftp://lake/a",
            "s3://lake",
            "s3://lake/a/",
            "s3://lake/a//b",
            "s3://lake/../b",
            "s3://lake/a**",
            "s3://lake/a?password=1",
            "file://host/a",
        ] {
            assert!(SourceFiles::parse(text).is_err(), "{text}");
        }
    }
}
