//! The grammar of what is done to rows on the way in.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{
    forms::{Column, ColumnName, Expression, HttpUrl, SecretText, Text, TypeText},
    limits,
};

/// What becomes of a record's columns before they are written, in this order: `filter`, `select`, `drop`, `rename`,
/// `cast`, `constant`; then `protect` of the table. Everything else of the table (`partition_by`, `sort_by`, ..)
/// names columns as they are called in the end.
///
/// On a table that is there, `siltstone apply` makes its columns so. One that is renamed keeps its values; the Delta
/// form then has column mapping, and readers that do not know it refuse the table. One that is dropped is no longer
/// shown. One with another type is widened where that is no loss (int to long, float to double, more digits of a
/// decimal; Delta cannot show it), else a new column takes its name, and rows already written read as null there. For
/// a drop or such a type `apply` wants `--allow-data-loss`. A column by which files are or were partitioned can only
/// be renamed. A worker with the spec before goes on over a rename, and stops where its records would bring back what
/// left; one with the new spec does not start before `apply` renamed and retyped.
///
/// Columns that come to the topic later are taken in like the others, unless `select` leaves them out. The column
/// `_kafka` is not touched, but for `protect`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Transforms")]
pub(crate) struct RawTransforms {
    /// A condition in SQL, over the source's columns (members of structs with dots, names as they are written, in
    /// double quotes where they hold other characters than letters, digits and `_`). Rows for which it is not true
    /// (false, or null) are left out and counted as `filtered`. A row for which it cannot be computed (a division by
    /// zero,
    /// a text that is no number) is rejected as `transform_failed`.
    #[schemars(example = "amount > 0 and country <> 'XX'")]
    pub(crate) filter: Option<Expression>,
    /// Source columns to keep, dotted inside structs. Absent: all.
    #[schemars(length(min = 1, max = limits::COLUMNS_MAX), example = json!(["order_id", "customer.id"]))]
    pub(crate) select: Option<Vec<Column>>,
    /// Source columns to leave out, dotted inside structs.
    #[schemars(length(max = limits::COLUMNS_MAX), extend("default" = json!([])), example = json!(["internal_note"]))]
    pub(crate) drop: Vec<Column>,
    /// Source columns, dotted inside structs, and their new names, without dots: a member stays in its struct.
    #[schemars(length(max = limits::COLUMNS_MAX), extend("default" = json!({})),
        example = json!({"cust": "customer"}))]
    pub(crate) rename: BTreeMap<String, ColumnName>,
    /// Columns, by their final names, and their new types. A record with a value that the type cannot hold is rejected
    /// as `transform_failed`. Texts are read as numbers, dates and times are written (ISO 8601, UTC where no zone is
    /// said); digits after the point that the new type does not keep are rounded away for decimals and cut off for
    /// integers.
    #[schemars(length(max = limits::COLUMNS_MAX), extend("default" = json!({})),
        example = json!({"amount": "decimal(12, 2)"}))]
    pub(crate) cast: BTreeMap<String, TypeText>,
    /// New columns with the same value in every row.
    #[schemars(length(max = limits::COLUMNS_MAX), extend("default" = json!({})),
        example = json!({"region": {"type": "string", "value": "eu"}}))]
    pub(crate) constant: BTreeMap<String, RawConstant>,
}

/// The value of a column.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Constant")]
pub(crate) struct RawConstant {
    /// `boolean`, `int`, `long`, `float`, `double`, `decimal(p, s)`, `date`, `timestamp`, `timestamptz` or `string`.
    #[serde(rename = "type")]
    pub(crate) data_type: TypeText,
    /// The value.
    #[schemars(example = &"eu")]
    pub(crate) value: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RawProtection {
    /// HMAC-SHA256 of the value, as 64 hexadecimal digits: equal values stay equal, and can be joined.
    Hash,
    /// Letters and digits become `*`, but for the last four of a value that has eight or more; the rest stays.
    Mask,
    /// 26 letters and digits computed from the value and the key: equal values get equal tokens.
    Tokenize,
    /// The column is left out.
    Drop,
    /// AES-256-GCM under the key: whoever has it can read the value.
    Encrypt,
}

/// The key of `protect`: exactly one of both. Another key makes other hashes and tokens, so that old and new rows
/// cannot be joined any more. The exact bytes, with programs that compute and decrypt them: `examples/README.md`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ProtectionKey", extend("x-siltstone-private" = true))]
pub(crate) struct RawProtectionKey {
    /// The key: at least 32 characters, at random, such as `openssl rand -base64 32` makes.
    #[schemars(example = "${PII_KEY}")]
    pub(crate) key: Option<SecretText>,
    /// A key service that opens the key when the table starts. The key is kept in memory alone.
    pub(crate) kms: Option<RawKeyService>,
}

/// A key service with the protocol of HashiCorp Vault's transit engine.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KeyService", extend("x-siltstone-private" = true))]
pub(crate) struct RawKeyService {
    /// The wrapping key: https, or http to this machine itself.
    #[schemars(example = "https://vault.internal/v1/transit/keys/pii")]
    pub(crate) url: HttpUrl,
    /// Token that may decrypt with it.
    #[schemars(example = "${VAULT_TOKEN}")]
    pub(crate) token: SecretText,
    /// The table's key, of 32 bytes or more, as the service wrapped it: the `ciphertext` that
    /// `v1/transit/datakey/wrapped/NAME` answers.
    #[schemars(example = &"vault:v1:8SDd3WHDOjf7..")]
    pub(crate) wrapped_key: Text,
    /// PEM file of trusted authorities. Absent: the usual ones.
    pub(crate) ca_file: Option<Text>,
}
