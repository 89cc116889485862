//! The grammar of a catalog.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawTls;
use crate::forms::{HttpUrl, Name, SecretText, Text};

/// An Iceberg REST catalog. Workers commit there; files and their paths stay as they are without one. The table's
/// location is below the destination, so the catalog must take a location there (it writes the metadata files).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Catalog", extend("x-siltstone-private" = true))]
pub(crate) struct RawCatalog {
    /// Kind of catalog.
    #[serde(rename = "type")]
    #[allow(dead_code)]
    pub(crate) kind: RawCatalogKind,
    /// Base URL, the part before `/v1`.
    #[schemars(example = "https://catalog.internal")]
    pub(crate) uri: HttpUrl,
    /// Warehouse that the catalog is asked for.
    #[schemars(example = &"main")]
    pub(crate) warehouse: Option<Text>,
    /// Prefix of the catalog's paths, for one that names none itself.
    pub(crate) prefix: Option<Text>,
    /// Namespace; dots divide its levels. It is made when absent. Default: the table's name up to its last dot,
    /// or `default`.
    pub(crate) namespace: Option<Name>,
    /// Table. Default: the table's name after its last dot. The dead-letter table's name is this with
    /// `__dead_letters`.
    pub(crate) table: Option<Name>,
    /// Bearer token. At most one of `token`, `oauth2` and `sigv4`.
    pub(crate) token: Option<SecretText>,
    /// OAuth2 client credentials.
    pub(crate) oauth2: Option<RawOAuth2>,
    /// AWS Signature Version 4, with AWS credentials of the environment.
    pub(crate) sigv4: Option<RawSigV4>,
    /// Trusted authorities and client certificate for the catalog.
    #[schemars(extend("default" = serde_json::json!({})))]
    pub(crate) tls: RawTls,
    /// Reads and writes the table's files (all of them, the ledger's too) with credentials that the catalog hands
    /// out, in place of those of the environment. For `s3://` destinations.
    #[schemars(extend("default" = false))]
    pub(crate) vended_credentials: bool,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RawCatalogKind {
    /// The Iceberg REST protocol.
    Rest,
}

/// OAuth2 client credentials.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OAuth2", extend("x-siltstone-private" = true))]
pub(crate) struct RawOAuth2 {
    /// Token endpoint. Default: `v1/oauth/tokens` below `uri`.
    pub(crate) token_url: Option<HttpUrl>,
    /// Client id.
    pub(crate) client_id: SecretText,
    /// Client secret.
    pub(crate) client_secret: SecretText,
    /// Scope.
    #[schemars(extend("default" = "catalog"))]
    pub(crate) scope: Text,
}

/// AWS Signature Version 4.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SigV4", extend("x-siltstone-private" = true))]
pub(crate) struct RawSigV4 {
    /// Region. Default: that of the environment.
    #[schemars(example = &"eu-west-1")]
    pub(crate) region: Option<Text>,
    /// Service that requests are signed for: `execute-api`, `glue`, `s3tables`.
    #[schemars(extend("default" = "execute-api"))]
    pub(crate) signing_name: Text,
}
