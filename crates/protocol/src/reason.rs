//! Why a record was rejected: a closed list of codes, so that no value can hide in a reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// The closed reason code of a rejected record; its name is a metric label and a column of
        /// the dead-letter table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum RejectReason { $($(#[doc = $doc])+ $name,)+ }

        impl RejectReason {
            /// Every reason, in a stable order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable snake_case code.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }
        }
    };
}

reasons! {
    /// The record has a null value and the table does not take tombstones.
    NullValue = "null_value",
    /// The Confluent header is missing, too short, or its magic byte is not zero.
    BadFraming = "bad_framing",
    /// The registry answered that it has no schema of this id.
    UnknownSchemaId = "unknown_schema_id",
    /// The writer schema is of another format than the table's source format.
    WrongSchemaFormat = "wrong_schema_format",
    /// The writer schema changes the table in a way that it cannot follow.
    IncompatibleSchema = "incompatible_schema",
    /// The payload ends before the schema says so.
    Truncated = "truncated",
    /// Bytes are left after the value that the schema describes.
    TrailingBytes = "trailing_bytes",
    /// The payload breaks its encoding (bad varint, bad branch index, bad block, JSON syntax).
    Malformed = "malformed",
    /// A string is not UTF-8.
    InvalidUtf8 = "invalid_utf8",
    /// A value is of another type than its column.
    WrongType = "wrong_type",
    /// A required column has no value.
    MissingField = "missing_field",
    /// A field is unknown and the table rejects unknown fields.
    UnknownField = "unknown_field",
    /// A number does not fit its column (range, precision or scale).
    OutOfRange = "out_of_range",
    /// A date, time or timestamp cannot be read.
    BadTimestamp = "bad_timestamp",
    /// A uuid or fixed-length value has the wrong form.
    BadLength = "bad_length",
    /// The record is larger than the limit.
    TooLarge = "too_large",
    /// The value nests deeper, or a collection declares more items, than the limit.
    TooDeep = "too_deep",
    /// The table's filter leaves the row out.
    Filtered = "filtered",
    /// A transform of the table cannot be done with the record's values: a cast, or the filter's condition.
    TransformFailed = "transform_failed",
}

impl std::fmt::Display for RejectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
