//! The validated spec: what the rest of the engine works from. Made by parsing only.

mod transforms;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use siltstone_protocol::{Format, NullOrder, Schema, SortDirection, Transform, disclosed::Disclosure};

pub use self::transforms::{KeyService, Literal, Protection, ProtectionKey, Transforms};
use crate::secret::Secret;

/// A whole spec file, validated: every name resolves, every value is in bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub source_clusters: Vec<SourceCluster>,
    pub destination: Destination,
    /// `None`: nothing is ever sent.
    pub control_plane: Option<ControlPlane>,
    /// `None`: workers serve no catalog.
    pub readers_catalog: Option<ReadersCatalog>,
    pub tables: Vec<TableSpec>,
}

impl Spec {
    /// The cluster that a table reads from. Validation guarantees that it exists.
    pub fn cluster_of(&self, table: &TableSpec) -> Option<&SourceCluster> {
        self.source_clusters.iter().find(|cluster| cluster.name == table.cluster)
    }
}

/// The control plane to which workers report.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlane {
    /// Base URL without a trailing slash: https, or http to a loopback address.
    pub url: String,
    pub api_key: Secret,
    /// PEM file of trusted authorities, instead of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Where the control plane must keep what it is told.
    pub region: Option<String>,
    /// False: every command is refused.
    pub commands: bool,
}

/// Where readers of the catalog find tables whose name has no dot.
pub const READERS_DEFAULT_NAMESPACE: &str = "default";

/// The read-only catalog that workers serve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadersCatalog {
    /// Names and tokens do not repeat. Empty: everybody may read.
    pub tokens: Vec<ReaderToken>,
}

/// A bearer token (RFC 6750, section 2.1) and what it opens.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderToken {
    pub name: String,
    pub token: Secret,
    pub allow: Vec<TablePattern>,
}

/// Names of tables, dead-letter tables too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablePattern {
    All,
    /// What begins with this name and a dot.
    Below(String),
    One(String),
}

impl TablePattern {
    /// `*`, `name.*` or a name, whose form was checked.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix(".*") {
            _ if text == "*" => Self::All,
            Some(name) => Self::Below(name.to_owned()),
            None => Self::One(text.to_owned()),
        }
    }

    /// Whether the table of this dotted name is meant.
    pub fn matches(&self, table: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(name) => table.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')),
            Self::One(name) => name == table,
        }
    }
}

/// A Kafka cluster and its schema registry.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceCluster {
    pub name: String,
    /// `host:port`, at least one.
    pub bootstrap_brokers: Vec<String>,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    pub schema_registry: Option<Registry>,
    /// Further librdkafka consumer properties, none of which Siltstone itself sets.
    pub client_options: BTreeMap<String, String>,
}

/// TLS to brokers or to a registry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tls {
    /// PEM file of trusted authorities; the system's store when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate and key for mutual TLS: both or neither.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub key_password: Option<Secret>,
}

/// SASL to brokers.
#[derive(Debug, Clone, PartialEq)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: Secret,
    pub password: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A schema registry with Confluent's API.
#[derive(Debug, Clone, PartialEq)]
pub struct Registry {
    /// Base URLs, tried in turn; without a trailing slash.
    pub urls: Vec<String>,
    pub auth: Option<RegistryAuth>,
    pub tls: Tls,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RegistryAuth {
    Basic { username: Secret, password: Secret },
    Bearer(Secret),
}

/// Where the tables live: `scheme://bucket/prefix?option=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// `file`, `s3`, `gs` or `az`, with bucket and prefix, without options and trailing slash.
    pub url: String,
    /// Options after the question mark, e.g. `region`, `endpoint`, `path_style`, `allow_http`. Never secrets.
    pub options: BTreeMap<String, String>,
}

/// One table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSpec {
    /// Dotted name; its location below the destination is the name with `/` for `.`.
    pub name: String,
    pub cluster: String,
    pub topic: String,
    /// Kafka consumer group; default `siltstone-<name>`.
    pub group: String,
    pub source_format: SourceFormat,
    pub wire_format: WireFormat,
    pub schema_mode: SchemaMode,
    /// Full name of the Protobuf message that records are; `None`: the one they name, or the schema's first.
    pub message_type: Option<String>,
    /// What is done to rows between decoding and writing.
    pub transforms: Transforms,
    /// Columns by their final names, dotted inside structs, that are protected after all other transforms.
    pub protect: BTreeMap<String, Protection>,
    /// Present when one of `protect` needs a key.
    pub protection: Option<ProtectionKey>,
    /// Which records are the table's, by the names of their types; `None`: all, and the names do not matter.
    pub event_types: Option<EventTypes>,
    pub start: Start,
    /// What to do when the broker no longer has the position.
    pub on_lost_range: OnLostRange,
    /// Non-empty, sorted, no repeats.
    pub formats: Vec<Format>,
    /// Where the Iceberg table's metadata is kept; `None`: in the bucket, beside its files.
    pub catalog: Option<RestCatalog>,
    pub partition_by: Vec<PartitionBy>,
    pub sort_by: Vec<SortBy>,
    pub freshness: Freshness,
    pub files: Files,
    pub dlq_mode: DlqMode,
    /// What to do with records of a schema that the table cannot take.
    pub on_incompatible: OnIncompatible,
    pub tombstones: Tombstones,
    pub extra_fields: ExtraFields,
    /// True: every row carries the `_kafka` struct column.
    pub kafka_metadata: bool,
    pub retention: Retention,
    /// Between two rounds of maintenance; `None`: workers leave it alone.
    pub maintenance_every: Option<Duration>,
    /// What may cross to the control plane beyond the fixed list. Default: nothing.
    pub disclose: Disclosure,
    pub compaction: CompactionPolicy,
}

impl TableSpec {
    /// Location below the destination, without slashes at the ends.
    pub fn location(&self) -> String {
        self.name.replace('.', "/")
    }

    /// Whether rows are written otherwise than they are decoded.
    pub fn has_transforms(&self) -> bool {
        !self.transforms.is_empty() || !self.protect.is_empty()
    }

    /// Name of the table that takes this table's rejected records.
    pub fn dead_letter_name(&self) -> String {
        format!("{}__dead_letters", self.name)
    }
}

/// A table in an Iceberg REST catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct RestCatalog {
    /// Base URL, before `/v1`; without a trailing slash.
    pub uri: String,
    pub warehouse: Option<String>,
    /// Where the catalog names none.
    pub prefix: Option<String>,
    /// One level at least.
    pub namespace: Vec<String>,
    pub table: String,
    pub auth: CatalogAuth,
    pub tls: Tls,
    /// The table's files are read and written with credentials that the catalog hands out.
    pub vended_credentials: bool,
}

impl RestCatalog {
    /// `namespace.table`.
    pub fn identifier(&self) -> String {
        format!("{}.{}", self.namespace.join("."), self.table)
    }

    /// For people: `namespace.table in https://catalog.internal`.
    pub fn place(&self) -> String {
        format!("{} in {}", self.identifier(), self.uri)
    }

    /// The dead-letter table's place in the same catalog.
    pub fn for_dead_letters(&self) -> Self {
        Self { table: format!("{}__dead_letters", self.table), ..self.clone() }
    }
}

/// How requests to a catalog show who they come from.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogAuth {
    None,
    /// Bearer token.
    Token(Secret),
    /// Client credentials; `token_url` is below `uri` when absent.
    OAuth2 {
        token_url: Option<String>,
        client_id: Secret,
        client_secret: Secret,
        scope: Option<String>,
    },
    /// AWS Signature Version 4, with AWS credentials of the environment. The region may be there, too.
    SigV4 {
        region: Option<String>,
        signing_name: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    Avro,
    Json,
    Protobuf,
    /// Each record's value as one `value` binary column.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFormat {
    /// Magic byte 0, schema id (4 bytes, big-endian), body.
    Confluent,
    /// The body alone.
    Raw,
}

/// Where the schema of the records comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaMode {
    /// By the id in each record.
    Registry,
    /// The latest version of a subject, for bare payloads. Default subject: `<topic>-value`.
    RegistryLatest { subject: String },
    /// From the spec itself.
    Inline(InputSchema),
    /// No schema: raw records.
    None,
}

/// Records of several types in one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventTypes {
    /// Names without repeats; `None`: every type.
    pub take: Option<Vec<String>>,
    /// The column that gets the name of the record's type.
    pub column: Option<String>,
}

impl EventTypes {
    /// Whether records of this type are the table's. One without a name is of no type that could be asked for.
    pub fn takes(&self, name: Option<&str>) -> bool {
        match &self.take {
            None => true,
            Some(names) => name.is_some_and(|name| names.iter().any(|wanted| wanted == name)),
        }
    }
}

/// A schema written in the spec.
#[derive(Debug, Clone, PartialEq)]
pub enum InputSchema {
    /// Avro schema (JSON text).
    Avro(String),
    /// JSON Schema (JSON text).
    JsonSchema(String),
    /// The text of a `.proto` file.
    Protobuf(String),
    /// A list of columns; field ids are assigned in order, as in `Schema`.
    Fields(Schema),
}

/// Where a partition without a committed position begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// First record at or after this time, milliseconds since 1970 UTC.
    Timestamp(i64),
    /// By partition; partitions not named begin at the earliest offset.
    Offsets(BTreeMap<i32, i64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLostRange {
    Stop,
    /// Record the gap in the ledger and go on at the earliest offset.
    Continue,
}

/// One partition field: a transform of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBy {
    /// Column name, dotted inside structs.
    pub column: String,
    pub transform: Transform,
    /// Partition field name; default as Iceberg names it (`ts_day`, `id_bucket`, the column for identity).
    pub name: String,
}

/// One sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortBy {
    /// Column name, dotted inside structs.
    pub column: String,
    pub direction: SortDirection,
    /// Default: nulls first ascending, nulls last descending.
    pub null_order: NullOrder,
}

/// When buffered rows are committed: whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    pub max_age: Duration,
    /// Input bytes of the records buffered for the table.
    pub max_bytes: u64,
    pub max_rows: u64,
}

/// How data files are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// Files are closed near this size, bytes.
    pub target_size: u64,
    pub row_group_bytes: u64,
    pub compression: Compression,
    /// Columns with a bloom filter.
    pub bloom_filters: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zstd { level: i32 },
    Snappy,
    Lz4,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DlqMode {
    DeadLetter,
    Skip,
    Stop,
}

/// Records whose schema has a type for a field that its column cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIncompatible {
    /// Rejected with `incompatible_schema`, by `dlq_mode`.
    DeadLetter,
    /// The table stops at the first.
    Stop,
    /// The field's values go to a column of their own.
    NewColumn,
}

/// Records with a null value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// Passed over and counted (`null_value`), whatever `dlq_mode` says.
    Skip,
    /// Rejected with `null_value`, by `dlq_mode`.
    Reject,
    /// A row with every column null but `_kafka`; needs a schema with no required column.
    Row,
}

/// JSON members (and only those) that the schema does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraFields {
    Ignore,
    Reject,
}

/// How long things are kept. Applied by maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub rows: Option<Duration>,
    /// Column that tells a row's age, dotted inside structs. Present when `rows` is.
    pub rows_by: Option<String>,
    /// Files that hold old rows beside others are rewritten without them.
    pub rows_rewrite: bool,
    pub snapshots: Duration,
    /// Snapshots in the metadata are at most this many, whatever their age.
    pub snapshots_max: u32,
    /// Snapshots kept at least, whatever their age.
    pub snapshots_min: u32,
    pub orphans: Duration,
}

/// When data files are rewritten, and how the rewritten ones are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Workers compact beside ingestion.
    pub enabled: bool,
    /// Bytes a second that one worker rewrites at most.
    pub max_rate: Option<u64>,
    /// Percent of the time in which one worker rewrites.
    pub busy_percent: u32,
    /// Rewritten files are closed near this size, bytes. Default: `files.target_size`.
    pub target_size: u64,
    /// Fewer small files than this are left alone.
    pub min_inputs: u32,
    /// One rewrite takes at most this many files.
    pub max_inputs: u32,
    /// More files than this with overlapping sort-key ranges are rewritten into disjoint ones.
    pub max_overlap: u32,
    /// A partition without new files for this long is compacted even below `min_inputs`.
    pub quiet_after: Duration,
    pub cluster: Clustering,
}

/// How rewritten rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clustering {
    /// By `sort_by`.
    Sort,
    /// Along a Z-order curve over the columns of `sort_by`.
    ZOrder,
    /// Along a Hilbert curve over the columns of `sort_by`.
    Hilbert,
}
