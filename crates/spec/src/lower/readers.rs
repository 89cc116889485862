//! The catalog for readers: tokens that can be told apart, and patterns that mean something.

use super::{Lower, Place};
use crate::{
    limits::{READER_TOKEN_CHARS_MAX, READER_TOKEN_CHARS_MIN},
    model::{READERS_DEFAULT_NAMESPACE, ReaderToken, ReadersCatalog, TablePattern, TableSpec},
    raw::{RawReaderToken, RawReadersCatalog},
};

impl Lower<'_> {
    pub(super) fn readers_catalog(
        &mut self,
        raw: RawReadersCatalog,
        tables: &[TableSpec],
        place: &Place<'_>,
    ) -> ReadersCatalog {
        let at = place.key("tokens");
        let mut tokens: Vec<ReaderToken> = Vec::new();
        for (index, raw) in raw.tokens.into_iter().enumerate() {
            let at = at.item(index);
            let token = self.reader_token(raw, tables, &at);
            if tokens.iter().any(|known| known.name == token.name) {
                self.fault(&at.key("name"), "the name is taken by a token before");
            }
            if tokens.iter().any(|known| known.token == token.token) {
                self.fault(
                    &at.key("token"),
                    "is the same as that of a token before; each reader needs its own",
                );
            }
            tokens.push(token);
        }
        self.default_namespace(tables, place);
        ReadersCatalog { tokens }
    }

    fn reader_token(&mut self, raw: RawReaderToken, tables: &[TableSpec], place: &Place<'_>) -> ReaderToken {
        let text = raw.token.0.reveal();
        let at = place.key("token");
        if !(READER_TOKEN_CHARS_MIN..=READER_TOKEN_CHARS_MAX).contains(&text.len()) {
            let message = format!(
                "must have {READER_TOKEN_CHARS_MIN} to {READER_TOKEN_CHARS_MAX} characters, at random"
            );
            self.fault(&at, message);
        } else if !is_bearer(text) {
            self.fault(&at, "must be letters, digits and - . _ ~ + /, with = at the end alone");
        }
        let allow: Vec<_> = raw.allow.iter().map(|pattern| TablePattern::new(&pattern.0)).collect();
        for (index, pattern) in allow.iter().enumerate() {
            let means = |table: &TableSpec| {
                pattern.matches(&table.name) || pattern.matches(&table.dead_letter_name())
            };
            if !tables.iter().any(means) {
                self.fault(&place.key("allow").item(index), "no table of this spec has such a name");
            }
        }
        ReaderToken { name: raw.name.0, token: raw.token.0, allow }
    }

    /// Readers find `orders` as `default.orders`: that must not be another table's name.
    fn default_namespace(&mut self, tables: &[TableSpec], place: &Place<'_>) {
        let undotted = tables.iter().filter(|table| !table.name.contains('.'));
        for table in undotted {
            let shown = format!("{READERS_DEFAULT_NAMESPACE}.{}", table.name);
            if let Some(other) = tables.iter().find(|other| other.name.eq_ignore_ascii_case(&shown)) {
                let message = format!(
                    "shows table {} as {shown}, which is the name of another table ({}); rename one",
                    table.name, other.name
                );
                self.fault(place, message);
            }
        }
    }
}

/// `b64token` of RFC 6750, section 2.1.
fn is_bearer(text: &str) -> bool {
    let token = text.trim_end_matches('=');
    !token.is_empty() && token.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~+/".contains(&c))
}
