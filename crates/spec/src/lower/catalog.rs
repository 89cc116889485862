//! A table's catalog.

use std::collections::HashMap;

use siltstone_protocol::Format;

use super::{Lower, Place};
use crate::{
    model::{CatalogAuth, DlqMode, RestCatalog, TableSpec},
    raw::{RawCatalog, RawOAuth2, RawSigV4},
    url_text,
};

const NAMESPACE_DEFAULT: &str = "default";

impl Lower<'_> {
    pub(super) fn catalog(
        &mut self,
        mut raw: Vec<RawCatalog>,
        table: &str,
        formats: &[Format],
        place: &Place<'_>,
    ) -> Option<RestCatalog> {
        if raw.len() > 1 {
            self.fault(place, "a table is kept in one catalog at most");
        }
        let raw = raw.pop()?;
        if !formats.contains(&Format::Iceberg) {
            self.fault(place, "a catalog keeps the iceberg form of a table; add iceberg to formats");
        }
        let place = place.item(0);
        let name = |at: &str, text: &str, lower: &mut Self| {
            if text.contains('.') {
                lower.fault(
                    &place.key(at),
                    "the name of a table in a catalog has no dots; write them in namespace",
                );
            }
        };
        let (outer, own) = table.rsplit_once('.').unwrap_or((NAMESPACE_DEFAULT, table));
        let own = raw.table.map_or_else(|| own.to_owned(), |table| table.0);
        name("table", &own, self);
        let namespace = raw.namespace.as_ref().map_or(outer, |namespace| namespace.0.as_str());
        Some(RestCatalog {
            uri: url_text::http_url(&raw.uri.0).unwrap_or_default(),
            warehouse: raw.warehouse.map(|text| text.0),
            prefix: raw.prefix.map(|text| text.0),
            namespace: namespace.split('.').map(str::to_owned).collect(),
            table: own,
            auth: self.catalog_auth(raw.token, raw.oauth2, raw.sigv4, &place),
            tls: self.tls(raw.tls, &place.key("tls")),
            vended_credentials: raw.vended_credentials,
        })
    }

    /// No two tables share a place in a catalog.
    pub(super) fn catalog_names(&mut self, tables: &[(usize, TableSpec)], place: &Place<'_>) {
        let mut taken: HashMap<(String, Option<String>, Option<String>, String), usize> = HashMap::new();
        for (index, table) in tables {
            let Some(catalog) = &table.catalog else { continue };
            let dead_letters = (table.dlq_mode == DlqMode::DeadLetter).then(|| catalog.for_dead_letters());
            for own in [Some(catalog.clone()), dead_letters].into_iter().flatten() {
                // Many catalogs do not tell case apart.
                let name = own.identifier().to_lowercase();
                if let Some(other) = taken.insert((own.uri, own.warehouse, own.prefix, name), *index) {
                    let at = place.item(*index).key("catalogs").item(0);
                    self.fault(
                        &at,
                        format!("the name in the catalog is taken by tables[{other}]; set table"),
                    );
                }
            }
        }
    }

    fn catalog_auth(
        &mut self,
        token: Option<crate::forms::SecretText>,
        oauth2: Option<RawOAuth2>,
        sigv4: Option<RawSigV4>,
        place: &Place<'_>,
    ) -> CatalogAuth {
        match (token, oauth2, sigv4) {
            (None, None, None) => CatalogAuth::None,
            (Some(token), None, None) => CatalogAuth::Token(token.0),
            (None, Some(oauth2), None) => CatalogAuth::OAuth2 {
                token_url: oauth2.token_url.and_then(|url| url_text::http_url(&url.0).ok()),
                client_id: oauth2.client_id.0,
                client_secret: oauth2.client_secret.0,
                scope: Some(oauth2.scope.0),
            },
            (None, None, Some(sigv4)) => CatalogAuth::SigV4 {
                region: sigv4.region.map(|region| region.0),
                signing_name: sigv4.signing_name.0,
            },
            _ => {
                self.fault(place, "has more than one of token, oauth2 and sigv4; keep one of them");
                CatalogAuth::None
            }
        }
    }
}
