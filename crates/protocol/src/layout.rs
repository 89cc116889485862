//! Partition specs and sort orders, in Iceberg's terms and Iceberg's JSON form
//! (table spec, appendix C), so that they convert without a table of names.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Field ids of partition fields start here, as in Iceberg.
pub const PARTITION_FIELD_ID_START: i32 = 1000;

/// A partition transform of the Iceberg spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    Identity,
    Bucket(u32),
    Truncate(u32),
    Year,
    Month,
    Day,
    Hour,
    Void,
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Bucket(n) => write!(f, "bucket[{n}]"),
            Self::Truncate(n) => write!(f, "truncate[{n}]"),
            Self::Year => f.write_str("year"),
            Self::Month => f.write_str("month"),
            Self::Day => f.write_str("day"),
            Self::Hour => f.write_str("hour"),
            Self::Void => f.write_str("void"),
        }
    }
}

/// The text is not a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a partition transform")]
pub struct ParseTransformError;

impl FromStr for Transform {
    type Err = ParseTransformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let argument = |prefix: &str| -> Option<u32> {
            text.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?.parse().ok().filter(|n| *n > 0)
        };
        Ok(match text {
            "identity" => Self::Identity,
            "year" => Self::Year,
            "month" => Self::Month,
            "day" => Self::Day,
            "hour" => Self::Hour,
            "void" => Self::Void,
            _ => match (argument("bucket"), argument("truncate")) {
                (Some(n), _) => Self::Bucket(n),
                (_, Some(n)) => Self::Truncate(n),
                _ => return Err(ParseTransformError),
            },
        })
    }
}

impl JsonSchema for Transform {
    fn schema_name() -> Cow<'static, str> {
        "Transform".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(identity|year|month|day|hour|void|bucket\\[[1-9][0-9]*\\]|truncate\\[[1-9][0-9]*\\])$",
            "description": "A partition transform of the Iceberg spec.",
        })
    }
}

impl Serialize for Transform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Transform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How rows are split into partitions. Id 0 with no fields: unpartitioned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PartitionSpec {
    /// Id of the partition spec; files name theirs.
    pub spec_id: i32,
    /// The partition fields, in order.
    pub fields: Vec<PartitionField>,
}

/// One partition field: a transform of one source column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PartitionField {
    /// Field id of the source column in the table schema.
    pub source_id: i32,
    /// Id of this partition field, from [`PARTITION_FIELD_ID_START`].
    pub field_id: i32,
    /// Name of the partition field, unique among columns and partition fields
    /// (an identity field may bear its column's name).
    pub name: String,
    /// What is done with a value of the source column, e.g. `day` or `bucket[16]`.
    pub transform: Transform,
}

/// Ascending or descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SortDirection {
    Asc,
    Desc,
}

/// Where nulls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NullOrder {
    NullsFirst,
    NullsLast,
}

/// The order of rows inside every data file. Id 0 with no fields: unsorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SortOrder {
    /// Id of the sort order; files name theirs.
    pub order_id: i64,
    /// The keys, the most significant first.
    pub fields: Vec<SortField>,
}

/// One key of a sort order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SortField {
    /// What is done with a value of the source column, e.g. `day` or `bucket[16]`.
    pub transform: Transform,
    /// Field id of the source column in the table schema.
    pub source_id: i32,
    /// Ascending or descending.
    pub direction: SortDirection,
    /// Where nulls go.
    pub null_order: NullOrder,
}
