//! Options of a destination: a closed list per scheme, none of them a secret.

use std::collections::BTreeMap;

use siltstone_protocol::ErrorCode;

use crate::error::LakeError;

/// What each scheme understands.
const KNOWN: &[(&str, &[&str])] = &[
    ("file", &[]),
    ("s3", &["region", "endpoint", "path_style", "allow_http", "profile", "skip_signature"]),
    ("gs", &["endpoint", "allow_http", "credentials_file", "skip_signature"]),
    ("az", &["account", "endpoint", "allow_http", "use_emulator"]),
];

/// Checked options of one destination.
#[derive(Debug)]
pub(super) struct Options<'a> {
    subject: &'a str,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    /// Refuses a scheme or an option that is not on the list.
    pub(super) fn new(
        subject: &'a str,
        scheme: &str,
        values: &'a BTreeMap<String, String>,
    ) -> Result<Self, LakeError> {
        let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == scheme) else {
            let schemes: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
            let problem = format!("unknown scheme {scheme}; known are {}", schemes.join(", "));
            return Err(LakeError::invalid(subject, problem).coded(ErrorCode::StoreSettingRefused));
        };
        for name in values.keys() {
            if !known.contains(&name.as_str()) {
                return Err(LakeError::invalid(subject, unknown_option(name, known))
                    .coded(ErrorCode::StoreSettingRefused));
            }
        }
        Ok(Self { subject, values })
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(String::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, LakeError> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(LakeError::invalid(self.subject, format_args!("option {name} is true or false"))
                .coded(ErrorCode::StoreSettingRefused)),
        }
    }
}

fn unknown_option(name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("unknown option {name}; this scheme has none");
    }
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, near)) => format!("unknown option {name}; did you mean {near}?"),
        None => format!("unknown option {name}; known are {}", known.join(", ")),
    }
}
