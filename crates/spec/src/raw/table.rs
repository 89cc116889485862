//! The grammar of one table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    RawCatalog, RawCompaction, RawDisclose, RawEventTypes, RawMaintenance, RawProtection, RawProtectionKey,
    RawRetention, RawTransforms,
};
use crate::{
    forms::{
        Age, Column, ColumnName, CompressionText, Group, JsonText, Moment, Name, PartitionText, Size,
        SortText, Text, TypeText, Verbatim, VerbatimJson,
    },
    limits,
};

/// One table, fed from one topic.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Table")]
pub(crate) struct RawTable {
    /// Table name; its dots are directories below the destination. Default: `<cluster>__<topic>`.
    #[schemars(example = "shop.orders")]
    pub(crate) name: Option<Name>,
    /// Name of one of `source_clusters`.
    #[schemars(example = &"prod")]
    pub(crate) source_cluster_name: Name,
    /// Topic.
    #[schemars(example = &"orders")]
    pub(crate) source_topic: Name,
    /// Kafka consumer group. Default: `siltstone-<name>`.
    pub(crate) group: Option<Group>,
    /// Format of the records' values.
    pub(crate) source_format: RawSourceFormat,
    /// What surrounds the value. Default: `confluent` with `schema_mode: registry`, else `raw`.
    pub(crate) wire_format: Option<RawWireFormat>,
    /// Where the schema comes from. Default: `inline` when `input_schema` is given, `none` for
    /// `source_format: raw`, else `registry`.
    #[schemars(extend("x-siltstone-refused" = json!({
        "inferred": "inferred schemas are not supported yet; use registry, registry_latest or inline",
    })))]
    pub(crate) schema_mode: Option<RawSchemaMode>,
    /// Subject of `schema_mode: registry_latest`. Default: `<topic>-value`.
    pub(crate) subject: Option<Text>,
    /// The schema of `schema_mode: inline`. A text is an Avro schema for `source_format: avro` and a
    /// JSON Schema for `json`; otherwise exactly one of the fields.
    pub(crate) input_schema: Option<RawInputSchema>,
    /// Full name of the Protobuf message that the records are, for `source_format: protobuf`. Default: with
    /// `schema_mode: registry` the one that each record names, else the first of the schema. Records
    /// that name another one are rejected.
    #[schemars(example = &"shop.Order")]
    pub(crate) message_type: Option<Name>,
    /// What becomes of records' columns before they are written.
    #[schemars(extend("default" = json!({})))]
    pub(crate) transforms: RawTransforms,
    /// Columns, by their final names, whose values readers of the table must not see. Null stays null; the column
    /// becomes
    /// a string (`drop`: none), here and in every statistic. Rows that are there already stay as they are.
    /// Dead letters keep rejected records as they came: with `dlq_mode: skip` there are none.
    #[schemars(length(max = limits::COLUMNS_MAX), extend("default" = json!({})),
        example = json!({"email": "hash", "phone": "mask"}))]
    pub(crate) protect: BTreeMap<String, RawProtection>,
    /// The key of `protect`, for all but `mask` and `drop`.
    pub(crate) protection: Option<RawProtectionKey>,
    /// Which records of the topic are this table's, by the names of their types, for topics that hold several: a list
    /// of names, or a mapping. The name of a type is that of the Avro record or of the Protobuf message, in full, or
    /// the `title` of the JSON Schema. Needs `schema_mode: registry`. Records of other types are passed over and
    /// counted (`other_event_type`). Absent: every record is the table's.
    #[schemars(example = json!(["com.shop.OrderPlaced", "com.shop.OrderPaid"]))]
    pub(crate) event_types: Option<RawEventTypes>,
    /// Where a partition without committed position begins.
    #[schemars(extend("default" = "earliest"))]
    pub(crate) start: RawStart,
    /// What to do when the broker no longer has the next offset.
    #[schemars(extend("default" = "stop"))]
    pub(crate) on_lost_range: RawOnLostRange,
    /// Table formats in which the same files are shown. One can be added later, not taken away.
    #[schemars(length(min = 1, max = 2), extend("default" = json!(["iceberg", "delta"])))]
    pub(crate) formats: Vec<RawFormat>,
    /// The catalog that keeps the Iceberg table's metadata; at most one. Absent: readers open the table by its
    /// location. A catalog that is added later shows the table anew from the ledger; what was kept before is left as it
    /// stands, and so with one that is taken away.
    #[schemars(length(max = 1), extend("default" = json!([])))]
    pub(crate) catalogs: Vec<RawCatalog>,
    /// Partition fields: a column, or `year(c)`, `month(c)`, `day(c)`, `hour(c)`, `bucket(n, c)`,
    /// `truncate(n, c)`, `identity(c)`, `void(c)`, each with an optional ` as name`.
    /// Delta declares the identity fields of type boolean, int, long and decimal as its partition columns
    /// and prunes the others by the files' statistics.
    #[schemars(length(max = limits::PARTITION_FIELDS_MAX), extend("default" = json!([])),
        example = json!(["day(ordered_at)", "bucket(16, customer_id)"]))]
    pub(crate) partition_by: Vec<PartitionText>,
    /// Partitions by the records' Kafka timestamp, instead of `partition_by`; needs `kafka_metadata`.
    pub(crate) partitioning_scheme: Option<RawScheme>,
    /// Order of rows inside every file: columns, each with an optional `asc` or `desc` and an optional
    /// `nulls first` or `nulls last`. Default: unsorted.
    #[schemars(length(max = limits::SORT_FIELDS_MAX), extend("default" = json!([])),
        example = json!(["customer_id", "ordered_at desc"]))]
    pub(crate) sort_by: Vec<SortText>,
    /// When buffered rows are committed.
    #[schemars(extend("default" = json!({})))]
    pub(crate) freshness: RawFreshness,
    /// How data files are written.
    #[schemars(extend("default" = json!({})))]
    pub(crate) files: RawFiles,
    /// What happens to a record that cannot become a row.
    #[schemars(extend("default" = "dead_letter"))]
    pub(crate) dlq_mode: RawDlqMode,
    /// What happens to records whose schema has a type for a field that the column of the field cannot take.
    /// Columns take narrower types, and get wider ones (int to long, float to double, more digits of a decimal) where
    /// the table is not shown as Delta.
    #[schemars(extend("default" = "dead_letter"))]
    pub(crate) on_incompatible: RawOnIncompatible,
    /// What happens to a record with a null value.
    #[schemars(extend("default" = "skip"))]
    pub(crate) tombstones: RawTombstones,
    /// What happens to JSON members that the schema does not name.
    #[schemars(extend("default" = "ignore"))]
    pub(crate) extra_fields: RawExtraFields,
    /// Gives every row a `_kafka` column with topic, partition, offset, timestamp, key and headers.
    #[schemars(extend("default" = false))]
    pub(crate) kafka_metadata: bool,
    /// How long things are kept.
    #[schemars(extend("default" = json!({})))]
    pub(crate) retention: RawRetention,
    /// When workers apply `retention`.
    #[schemars(extend("default" = json!({})))]
    pub(crate) maintenance: RawMaintenance,
    /// What may cross to the control plane beyond the fixed list.
    #[schemars(extend("default" = json!({})))]
    pub(crate) disclose: RawDisclose,
    /// When files are rewritten, and how.
    #[schemars(extend("default" = json!({})))]
    pub(crate) compaction: RawCompaction,
}

macro_rules! words {
    ($($name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ })+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(inline)]
        pub(crate) enum $name { $($(#[doc = $doc])+ $variant,)+ }
    )+};
}

words! {
    RawSourceFormat {
        /// Avro.
        Avro,
        /// JSON objects.
        Json,
        /// Protobuf messages.
        Protobuf,
        /// No decoding: the value becomes one binary column, `value`.
        Raw,
    }
    RawWireFormat {
        /// Magic byte 0 and the schema's id, then the value.
        Confluent,
        /// The value alone.
        Raw,
    }
    RawSchemaMode {
        /// By the id in each record.
        Registry,
        /// The latest version of a subject.
        RegistryLatest,
        /// From `input_schema`.
        Inline,
        /// No schema: `source_format: raw`.
        None,
    }
    RawStartWord {
        /// The oldest record that the broker has.
        Earliest,
        /// What comes from now on.
        Latest,
    }
    RawOnLostRange {
        /// Stop the table, so that a person decides.
        Stop,
        /// Record the gap in the ledger and go on.
        Continue,
    }
    RawFormat {
        /// Apache Iceberg.
        Iceberg,
        /// Delta Lake.
        Delta,
    }
    RawScheme {
        /// By year.
        Year,
        /// By month.
        Month,
        /// By day.
        Day,
        /// By hour.
        Hour,
    }
    RawDlqMode {
        /// It becomes a row of the table `<name>__dead_letters`.
        DeadLetter,
        /// It is passed over and counted.
        Skip,
        /// The table stops at it.
        Stop,
    }
    RawOnIncompatible {
        /// They are rejected as `incompatible_schema`, by `dlq_mode`.
        DeadLetter,
        /// The table stops at the first of them.
        Stop,
        /// A column `<name>_<type>` beside it takes the values; with `transforms` or `protect`, they are rejected.
        NewColumn,
    }
    RawTombstones {
        /// It is passed over and counted, whatever `dlq_mode` says.
        Skip,
        /// It is rejected, by `dlq_mode`.
        Reject,
        /// It becomes a row of nulls; needs `kafka_metadata` and a schema without required columns.
        Row,
    }
    RawExtraFields {
        /// They are passed over.
        Ignore,
        /// The record is rejected, by `dlq_mode`.
        Reject,
    }
    RawCodec {
        /// Zstandard.
        Zstd,
        /// Snappy.
        Snappy,
        /// LZ4.
        Lz4,
        /// Uncompressed.
        None,
    }
    RawClustering {
        /// By `sort_by`.
        Sort,
        /// Along a Z-order curve over the columns of `sort_by`.
        Zorder,
        /// Along a Hilbert curve over the columns of `sort_by`.
        Hilbert,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawStart {
    Word(RawStartWord),
    At(RawStartAt),
}

/// Exactly one of both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StartAt")]
pub(crate) struct RawStartAt {
    /// The first record at or after this time.
    #[schemars(example = "2026-01-31T00:00:00Z")]
    pub(crate) timestamp: Option<Moment>,
    /// Offsets by partition; the others begin at the earliest.
    #[schemars(length(min = 1, max = limits::START_OFFSETS_MAX), example = json!({"0": 1000}))]
    pub(crate) offsets: Option<BTreeMap<String, RawOffset>>,
}

/// An offset.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct RawOffset(#[schemars(range(min = 0, max = i64::MAX))] pub(crate) i64);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawInputSchema {
    Text(VerbatimJson),
    Parts(Box<RawInputSchemaParts>),
}

/// Exactly one of these. Relative paths start at the spec file's directory.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InputSchema")]
pub(crate) struct RawInputSchemaParts {
    /// An Avro schema.
    pub(crate) avro: Option<JsonText>,
    /// A file with an Avro schema.
    pub(crate) avro_file: Option<Text>,
    /// A JSON Schema.
    pub(crate) json_schema: Option<JsonText>,
    /// A file with a JSON Schema.
    pub(crate) json_schema_file: Option<Text>,
    /// A Protobuf schema: the text of one `.proto` file. It may import Google's well-known types.
    pub(crate) protobuf: Option<Verbatim>,
    /// A `.proto` file, likewise.
    pub(crate) protobuf_file: Option<Text>,
    /// Columns.
    #[schemars(length(min = 1, max = limits::COLUMNS_MAX))]
    pub(crate) fields: Option<Vec<RawField>>,
}

/// A column or a struct's member.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Field")]
pub(crate) struct RawField {
    /// Name.
    pub(crate) name: ColumnName,
    /// `boolean`, `int`, `long`, `float`, `double`, `decimal(p, s)`, `date`, `time`, `timestamp`,
    /// `timestamptz`, `string`, `uuid`, `fixed[n]`, `binary`, `list<type>`, `map<type, type>`, or a
    /// mapping with `struct`, `list` or `map`.
    #[serde(rename = "type")]
    pub(crate) data_type: RawType,
    /// True: a record without a value here is rejected.
    #[schemars(extend("default" = false))]
    pub(crate) required: bool,
}

/// A column's type: a name such as `long`, `decimal(10, 2)`, `list<string>`, or a mapping.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Type")]
pub(crate) enum RawType {
    Text(TypeText),
    Nested(Box<RawNested>),
}

/// A nested type: exactly one of `struct`, `list` and `map`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NestedType")]
pub(crate) struct RawNested {
    /// Members of a struct.
    #[serde(rename = "struct")]
    #[schemars(length(min = 1, max = limits::COLUMNS_MAX))]
    pub(crate) members: Option<Vec<RawField>>,
    /// Type of a list's elements.
    pub(crate) list: Option<RawType>,
    /// Types of a map's keys and values.
    pub(crate) map: Option<RawMap>,
    /// True: elements of the list, or values of the map, are never null.
    #[schemars(extend("default" = false))]
    pub(crate) required: bool,
}

/// A map's types.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MapType")]
pub(crate) struct RawMap {
    /// Type of the keys: a primitive type.
    #[schemars(extend("default" = "string"))]
    pub(crate) key: TypeText,
    /// Type of the values.
    pub(crate) value: RawType,
}

/// Whichever comes first.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Freshness")]
pub(crate) struct RawFreshness {
    /// Age of the oldest buffered row.
    #[schemars(extend("default" = limits::MAX_AGE_DEFAULT))]
    pub(crate) max_age: Age<{ limits::MAX_AGE_MIN }, { limits::MAX_AGE_MAX }>,
    /// Input bytes of the buffered records.
    #[schemars(extend("default" = limits::MAX_BYTES_DEFAULT))]
    pub(crate) max_bytes: Size<{ limits::MAX_BYTES_MIN }, { limits::MAX_BYTES_MAX }>,
    /// Buffered rows.
    #[schemars(range(min = 1, max = limits::MAX_ROWS_MAX), extend("default" = limits::MAX_ROWS_DEFAULT))]
    pub(crate) max_rows: u64,
}

/// Data files.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Files")]
pub(crate) struct RawFiles {
    /// A file is closed near this size.
    #[schemars(extend("default" = limits::TARGET_SIZE_DEFAULT))]
    pub(crate) target_size: Size<{ limits::TARGET_SIZE_MIN }, { limits::TARGET_SIZE_MAX }>,
    /// Size of a row group in the file, about. Many readers fetch a row group or nothing, so this is what a
    /// look-up by the sort order costs them. Larger ones suit tables of very many columns.
    #[schemars(extend("default" = limits::ROW_GROUP_BYTES_DEFAULT))]
    pub(crate) row_group_bytes: Size<{ limits::ROW_GROUP_BYTES_MIN }, { limits::ROW_GROUP_BYTES_MAX }>,
    /// `zstd`, `zstd(level)`, `snappy`, `lz4`, `none`, or `{codec, level}`. `zstd` alone is level 1,
    /// which writes fastest; higher levels gain a few percent in size for a multiple of the time.
    #[schemars(extend("default" = "zstd"))]
    pub(crate) compression: RawCompression,
    /// Columns with a bloom filter, for look-ups by values that sorting does not bring together.
    #[schemars(length(max = limits::BLOOM_FILTERS_MAX), extend("default" = json!([])),
        example = json!(["order_id"]))]
    pub(crate) bloom_filters: Vec<Column>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawCompression {
    Text(CompressionText),
    Parts(RawCompressionParts),
}

/// A codec with a level.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Compression")]
pub(crate) struct RawCompressionParts {
    /// Codec.
    pub(crate) codec: RawCodec,
    /// Level, for zstd only. Default: 1.
    #[schemars(range(min = limits::ZSTD_LEVEL_MIN, max = limits::ZSTD_LEVEL_MAX))]
    pub(crate) level: Option<i32>,
}
