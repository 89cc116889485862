//! What is done to rows between decoding and writing.

use std::{collections::BTreeMap, path::PathBuf};

use siltstone_protocol::PrimitiveType;

use crate::secret::Secret;

/// What becomes of the source's columns and rows, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transforms {
    /// Rows for which this expression is not true are left out. Over the source's columns.
    pub filter: Option<String>,
    /// Source columns that are kept, dotted inside structs; `None`: all.
    pub select: Option<Vec<String>>,
    /// Source columns that are left out, dotted inside structs.
    pub drop: Vec<String>,
    /// Source columns, dotted inside structs, with their new names, which have no dot: they stay where they are.
    pub rename: BTreeMap<String, String>,
    /// Columns by their final names, dotted inside structs, with their new types.
    pub cast: BTreeMap<String, PrimitiveType>,
    /// Columns that hold one value in every row.
    pub constant: BTreeMap<String, Literal>,
}

impl Transforms {
    /// Whether rows come out as they went in.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A value of a type.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Decimal {
        unscaled: i128,
        precision: u8,
        scale: u8,
    },
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970, without a zone.
    Timestamp(i64),
    /// Microseconds since 1970 UTC.
    Timestamptz(i64),
    String(String),
}

impl Literal {
    pub fn data_type(&self) -> PrimitiveType {
        match self {
            Self::Boolean(_) => PrimitiveType::Boolean,
            Self::Int(_) => PrimitiveType::Int,
            Self::Long(_) => PrimitiveType::Long,
            Self::Float(_) => PrimitiveType::Float,
            Self::Double(_) => PrimitiveType::Double,
            Self::Decimal { precision, scale, .. } => {
                PrimitiveType::Decimal { precision: *precision, scale: *scale }
            }
            Self::Date(_) => PrimitiveType::Date,
            Self::Timestamp(_) => PrimitiveType::Timestamp,
            Self::Timestamptz(_) => PrimitiveType::Timestamptz,
            Self::String(_) => PrimitiveType::String,
        }
    }
}

/// How a column's values are kept from readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// A keyed digest: equal values stay equal.
    Hash,
    /// Letters and digits become `*`, but for the last four of a long value.
    Mask,
    /// A short keyed token: equal values stay equal.
    Tokenize,
    /// The column is left out.
    Drop,
    /// Who has the key can read it.
    Encrypt,
}

impl Protection {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Mask => "mask",
            Self::Tokenize => "tokenize",
            Self::Drop => "drop",
            Self::Encrypt => "encrypt",
        }
    }

    /// Whether it is done with a key.
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Tokenize | Self::Encrypt)
    }
}

/// Where the key of a table's protection is.
#[derive(Debug, Clone, PartialEq)]
pub enum ProtectionKey {
    /// The bytes of this text.
    Secret(Secret),
    /// A key service opens it when the table starts.
    Service(KeyService),
}

/// A key service with the protocol of HashiCorp Vault's transit engine.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyService {
    /// `https://host/v1/transit/keys/NAME`, or http to a loopback address.
    pub url: String,
    pub token: Secret,
    /// The table's key as the service wrapped it: `vault:v1:..`.
    pub wrapped_key: String,
    /// PEM file of trusted authorities, instead of the usual ones.
    pub ca_file: Option<PathBuf>,
}
