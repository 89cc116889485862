//! The grammar: what may be written in a spec, declared once.
//!
//! From these types come the checks of `walk`, the JSON Schema for editors and the reference; their
//! comments are the descriptions that users read, and `default` is what an absent field stands for.

mod catalog;
mod table;
mod transforms;
mod upkeep;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

pub(crate) use self::{catalog::*, table::*, transforms::*, upkeep::*};
use crate::{
    forms::{Broker, DestinationText, Host, HttpUrl, Name, SecretText, Slot, TablePatternText, Text},
    limits,
};

/// Refused values or fields and why: a schema keyword, dropped from the published schema.
pub(crate) const REFUSED: &str = "x-siltstone-refused";
/// Marks what may be at fault while the rest is still checked.
pub(crate) const SLOT: &str = "x-siltstone-slot";
/// Marks mappings whose unknown field names are not repeated, because a secret may have slipped there.
pub(crate) const PRIVATE: &str = "x-siltstone-private";

/// Kafka topics that become Iceberg and Delta tables.
///
/// Any value but a secret may hold `${VAR}` or `${VAR:-default}`, replaced from the environment.
/// A secret is always one reference: `${VAR}`, or `${file:/path}` for the content of a file.
/// `$${` stands for the two characters themselves.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Siltstone table spec")]
pub(crate) struct RawSpec {
    /// Version of this grammar.
    #[schemars(range(min = 1, max = 1), extend("default" = 1))]
    #[allow(dead_code)]
    pub(crate) version: u32,
    /// Kafka clusters that tables read from.
    #[schemars(length(min = 1, max = limits::CLUSTERS_MAX), extend("x-siltstone-slot" = true))]
    pub(crate) source_clusters: Vec<Slot<RawCluster>>,
    /// Where the tables live: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
    /// `file:///absolute/path`. Options follow a `?`: `region`, `endpoint`, `path_style`, `allow_http`,
    /// `profile`, `skip_signature` for s3; `endpoint`, `allow_http`, `credentials_file`, `skip_signature`
    /// for gs; `account`, `endpoint`, `allow_http`, `use_emulator` for az. Credentials come from the
    /// environment or the instance, never from here.
    #[schemars(example = "s3://acme-lake/tables?region=eu-west-1", extend("x-siltstone-slot" = true))]
    pub(crate) destination_bucket_url: Slot<DestinationText>,
    /// The control plane to which workers report what they did. Absent: nothing is ever sent.
    pub(crate) control_plane: Option<RawControlPlane>,
    /// A read-only Iceberg REST catalog of these tables, which workers serve. Absent: none.
    pub(crate) readers_catalog: Option<RawReadersCatalog>,
    /// One table per topic.
    #[schemars(length(min = 1, max = limits::TABLES_MAX), extend("x-siltstone-slot" = true))]
    pub(crate) tables: Vec<Slot<RawTable>>,
}

/// The control plane. What can be sent to it: `siltstone disclosures`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ControlPlane", extend("x-siltstone-private" = true))]
pub(crate) struct RawControlPlane {
    /// Base URL: https, or http to this machine itself.
    #[schemars(example = "https://control.internal")]
    pub(crate) url: HttpUrl,
    /// API key of the worker's cluster.
    #[schemars(example = "${SILTSTONE_CONTROL_PLANE_KEY}")]
    pub(crate) api_key: SecretText,
    /// PEM file of trusted authorities. Absent: the usual ones.
    pub(crate) ca_file: Option<Text>,
    /// The region in which the control plane must keep what it is told; one of another region refuses it.
    #[schemars(example = &"eu-west-1")]
    pub(crate) region: Option<Name>,
    /// False: every command of the control plane is refused.
    #[schemars(extend("default" = true))]
    pub(crate) commands: bool,
}

/// The catalog that every worker with `--http` serves at `http://<address>/iceberg`: all tables of the spec
/// that have the format `iceberg` and are in no catalog of `catalogs`, and their dead-letter tables. Nothing can be
/// written through it, and it hands out no credentials of the bucket.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReadersCatalog", extend("x-siltstone-private" = true))]
pub(crate) struct RawReadersCatalog {
    /// Who may read. None: everybody, and workers then serve loopback addresses only.
    #[schemars(length(max = limits::READER_TOKENS_MAX), extend("default" = json!([])))]
    pub(crate) tokens: Vec<RawReaderToken>,
}

/// A bearer token of readers. Clients send it as `token`, or as the secret of their `credential`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReaderToken", extend("x-siltstone-private" = true))]
pub(crate) struct RawReaderToken {
    /// Whose token it is; the client id when a client sends one.
    #[schemars(example = &"reports")]
    pub(crate) name: Name,
    /// The token: at least 16 characters, letters, digits and `- . _ ~ + /`, with `=` at the end.
    #[schemars(example = "${REPORTS_TOKEN}")]
    pub(crate) token: SecretText,
    /// Tables that it opens: `shop.orders`, `shop.*` for all that begins with `shop.`, `*` for all.
    #[schemars(length(min = 1, max = limits::READER_PATTERNS_MAX), extend("default" = json!(["*"])))]
    pub(crate) allow: Vec<TablePatternText>,
}

/// A Kafka cluster.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SourceCluster")]
pub(crate) struct RawCluster {
    /// The name by which tables refer to it. It is part of the ledger: renaming it later makes it
    /// another cluster, whose topics are read from the start.
    #[schemars(example = &"prod")]
    pub(crate) name: Name,
    /// Brokers to ask first, each `host:port` or `{hostname, port}`.
    #[schemars(length(min = 1, max = limits::BROKERS_MAX))]
    pub(crate) bootstrap_brokers: Vec<RawBroker>,
    /// TLS to the brokers; `tls: {}` trusts the system's authorities. Absent: no TLS.
    pub(crate) tls: Option<RawTls>,
    /// SASL to the brokers. Absent: no SASL.
    pub(crate) sasl: Option<RawSasl>,
    /// Schema registry with Confluent's API.
    pub(crate) schema_registry: Option<RawRegistry>,
    /// Further librdkafka consumer properties. What Siltstone itself sets is refused.
    #[schemars(length(max = limits::CLIENT_OPTIONS_MAX), extend("default" = json!({})),
        example = json!({"client.rack": "eu-west-1a"}))]
    pub(crate) client_options: BTreeMap<String, Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawBroker {
    Text(Broker),
    Parts(RawBrokerParts),
}

/// A broker's address in parts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Broker")]
pub(crate) struct RawBrokerParts {
    /// Host name or address.
    #[schemars(example = "broker-1.internal")]
    pub(crate) hostname: Host,
    /// Port.
    #[schemars(range(min = 1, max = 65535), extend("default" = 9092))]
    pub(crate) port: u16,
}

/// TLS. Relative paths start at the spec file's directory.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tls", extend("x-siltstone-private" = true))]
pub(crate) struct RawTls {
    /// PEM file of trusted authorities. Absent: the system's.
    pub(crate) ca_file: Option<Text>,
    /// PEM client certificate for mutual TLS; needs `key_file`.
    pub(crate) cert_file: Option<Text>,
    /// PEM key of the client certificate; needs `cert_file`.
    pub(crate) key_file: Option<Text>,
    /// Password of the key.
    pub(crate) key_password: Option<SecretText>,
}

/// SASL with a username and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sasl", extend("x-siltstone-private" = true))]
pub(crate) struct RawSasl {
    /// Mechanism.
    pub(crate) mechanism: RawMechanism,
    /// Username.
    pub(crate) username: SecretText,
    /// Password.
    pub(crate) password: SecretText,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[schemars(inline)]
pub(crate) enum RawMechanism {
    /// Username and password as they are: use TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// A schema registry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SchemaRegistry", extend("x-siltstone-private" = true))]
pub(crate) struct RawRegistry {
    /// Base URL, or several that are tried in turn.
    #[schemars(example = "https://registry.internal")]
    pub(crate) url: RawUrls,
    /// Username of basic authentication; needs `password`.
    pub(crate) username: Option<SecretText>,
    /// Password of basic authentication; needs `username`.
    pub(crate) password: Option<SecretText>,
    /// Bearer token, instead of username and password.
    pub(crate) token: Option<SecretText>,
    /// Trusted authorities and client certificate for the registry.
    #[schemars(extend("default" = json!({})))]
    pub(crate) tls: RawTls,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawUrls {
    One(HttpUrl),
    Several(Vec<HttpUrl>),
}
