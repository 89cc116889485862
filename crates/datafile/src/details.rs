//! What table formats want to know of a data file beyond its ledger entry.

use std::collections::BTreeMap;

use iceberg::spec::{Datum, Literal, PrimitiveLiteral};

use crate::sort_key::KeyRange;

/// Everything here can be read again from the Parquet footer.
///
/// It holds values of rows (bounds, partition values): they belong into the manifests and logs in the
/// user's bucket, so `Debug` prints counts alone.
#[derive(Clone, PartialEq)]
pub struct FileDetails {
    /// Path below the table's location.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub spec_id: i32,
    /// One per partition field, transformed.
    pub partition: Vec<Option<Literal>>,
    /// Leaf columns by field id.
    pub columns: BTreeMap<i32, ColumnStats>,
    /// Offset of each row group.
    pub split_offsets: Vec<i64>,
    /// Least and greatest sort key; `None` for files that are not sorted or do not say.
    pub key_range: Option<KeyRange>,
}

impl std::fmt::Debug for FileDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDetails")
            .field("path", &self.path)
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .field("columns", &self.columns.len())
            .finish_non_exhaustive()
    }
}

/// Statistics of one leaf column.
///
/// Bounds are always safe: no value lies outside. Strings and binary are cut to 16 characters or bytes,
/// the upper bound then rounded up. NaN lies outside bounds, as Iceberg has it: where [`Self::nans`] is not
/// zero or not known, NaN rows may exist. Columns in lists and maps have counts and no bounds.
#[derive(Clone, Default, PartialEq)]
pub struct ColumnStats {
    /// Compressed size in the file, bytes.
    pub size_bytes: u64,
    /// Values, with nulls and NaN.
    pub values: u64,
    pub nulls: Option<u64>,
    /// `Some` for float and double outside lists and maps.
    pub nans: Option<u64>,
    pub lower: Option<Datum>,
    pub upper: Option<Datum>,
}

impl ColumnStats {
    /// Least and greatest value of a column of whole numbers; `None` where they are not known.
    pub fn integer_bounds(&self) -> Option<(i64, i64)> {
        let number = |datum: &Datum| match datum.literal() {
            PrimitiveLiteral::Int(number) => Some(i64::from(*number)),
            PrimitiveLiteral::Long(number) => Some(*number),
            _ => None,
        };
        Some((number(self.lower.as_ref()?)?, number(self.upper.as_ref()?)?))
    }
}

impl std::fmt::Debug for ColumnStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnStats")
            .field("size_bytes", &self.size_bytes)
            .field("values", &self.values)
            .field("nulls", &self.nulls)
            .field("nans", &self.nans)
            .field("bounded", &(self.lower.is_some(), self.upper.is_some()))
            .finish()
    }
}
