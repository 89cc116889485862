//! A data file as Iceberg manifests list it.
//!
//! Bounds are kept as the bytes of Iceberg's single-value serialization: a manifest is rewritten
//! without decoding them, and nothing here can print one (`Debug` gives the path and counts).

use std::{fmt, sync::Arc};

use iceberg::spec::{Datum, Literal, PrimitiveLiteral, PrimitiveType};
use siltstone_datafile::FileDetails;
use siltstone_protocol::FileEntry;

use crate::error::LakeError;

use super::fault;

/// Whether an entry's file is new in its snapshot, older, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Existing = 0,
    Added = 1,
    Deleted = 2,
}

/// One file in one manifest, with everything inherited from the manifest list filled in.
#[derive(Debug, Clone)]
pub(crate) struct ManifestEntry {
    pub(crate) status: Status,
    /// The snapshot that added the file, or that deleted it.
    pub(crate) snapshot_id: i64,
    /// Data sequence number.
    pub(crate) sequence_number: i64,
    pub(crate) file_sequence_number: i64,
    pub(crate) file: Arc<DataFile>,
}

impl ManifestEntry {
    pub(crate) fn is_live(&self) -> bool {
        self.status != Status::Deleted
    }
}

/// Path, size, partition and statistics of one data file.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct DataFile {
    /// 0 of rows; 1 and 2 of deletes by position and by equality, which others write.
    pub(crate) content: i64,
    /// Absolute URL.
    pub(crate) path: String,
    /// `PARQUET` for ours; another writer's files keep their own.
    pub(crate) format: String,
    pub(crate) partition: Vec<Option<Literal>>,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    pub(crate) column_sizes: Vec<(i32, i64)>,
    pub(crate) value_counts: Vec<(i32, i64)>,
    pub(crate) null_counts: Vec<(i32, i64)>,
    pub(crate) nan_counts: Vec<(i32, i64)>,
    pub(crate) lower_bounds: Vec<(i32, Vec<u8>)>,
    pub(crate) upper_bounds: Vec<(i32, Vec<u8>)>,
    pub(crate) key_metadata: Option<Vec<u8>>,
    pub(crate) split_offsets: Option<Vec<i64>>,
    pub(crate) equality_ids: Option<Vec<i32>>,
    pub(crate) sort_order_id: Option<i32>,
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile")
            .field("path", &self.path)
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl DataFile {
    /// The manifest's view of a file of ours. `url` is the file's absolute URL.
    pub(crate) fn new(url: String, entry: &FileEntry, details: &FileDetails) -> Result<Self, LakeError> {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut file = Self {
            path: url,
            format: "PARQUET".to_owned(),
            partition: details.partition.clone(),
            rows: count(entry.rows),
            bytes: count(entry.bytes),
            split_offsets: (!details.split_offsets.is_empty()).then(|| details.split_offsets.clone()),
            sort_order_id: Some(i32::try_from(entry.sort_order_id).unwrap_or(0)),
            ..Self::default()
        };
        for (&id, column) in &details.columns {
            file.column_sizes.push((id, count(column.size_bytes)));
            file.value_counts.push((id, count(column.values)));
            file.null_counts.extend(column.nulls.map(|n| (id, count(n))));
            file.nan_counts.extend(column.nans.map(|n| (id, count(n))));
            if let Some(bound) = &column.lower {
                file.lower_bounds.push((id, bound_bytes(bound, &entry.path)?));
            }
            if let Some(bound) = &column.upper {
                file.upper_bounds.push((id, bound_bytes(bound, &entry.path)?));
            }
        }
        Ok(file)
    }

    /// Roughly what the entry takes in a manifest, to cut manifests at their target size.
    pub(crate) fn encoded_bytes_estimate(&self) -> usize {
        let bounds = |bounds: &[(i32, Vec<u8>)]| bounds.iter().map(|(_, v)| v.len() + 3).sum::<usize>();
        let counts = self.column_sizes.len()
            + self.value_counts.len()
            + self.null_counts.len()
            + self.nan_counts.len();
        80 + self.path.len()
            + self.partition.len() * 12
            + counts * 5
            + bounds(&self.lower_bounds)
            + bounds(&self.upper_bounds)
    }
}

fn bound_bytes(bound: &Datum, path: &str) -> Result<Vec<u8>, LakeError> {
    // The error of the crate may quote the value: only the path goes on.
    bound.to_bytes().map(|bytes| bytes.into_vec()).map_err(|_| fault::bad_statistics(path))
}

/// A partition value in the form of `wanted`: columns widen, values written before stay narrow.
pub(crate) fn promote(value: &PrimitiveLiteral, wanted: &PrimitiveType) -> PrimitiveLiteral {
    match (value, wanted) {
        (PrimitiveLiteral::Int(v), PrimitiveType::Long) => PrimitiveLiteral::Long(i64::from(*v)),
        (PrimitiveLiteral::Float(v), PrimitiveType::Double) => {
            PrimitiveLiteral::Double(f64::from(v.0).into())
        }
        _ => value.clone(),
    }
}

/// The bytes of a bound in the form of `wanted`: those of a column that widened are extended.
pub(crate) fn promote_bytes(bytes: &[u8], wanted: &PrimitiveType) -> Option<[u8; 8]> {
    let narrow: [u8; 4] = bytes.try_into().ok()?;
    match wanted {
        PrimitiveType::Long => Some(i64::from(i32::from_le_bytes(narrow)).to_le_bytes()),
        PrimitiveType::Double => Some(f64::from(f32::from_le_bytes(narrow)).to_le_bytes()),
        _ => None,
    }
}

/// Iceberg's single-value serialization of a partition value, for the ranges in a manifest list.
pub(crate) fn single_value(value: &PrimitiveLiteral) -> Option<Vec<u8>> {
    Some(match value {
        PrimitiveLiteral::Boolean(v) => vec![u8::from(*v)],
        PrimitiveLiteral::Int(v) => v.to_le_bytes().to_vec(),
        PrimitiveLiteral::Long(v) => v.to_le_bytes().to_vec(),
        PrimitiveLiteral::Float(v) => v.0.to_le_bytes().to_vec(),
        PrimitiveLiteral::Double(v) => v.0.to_le_bytes().to_vec(),
        PrimitiveLiteral::String(v) => v.as_bytes().to_vec(),
        PrimitiveLiteral::Binary(v) => v.clone(),
        PrimitiveLiteral::UInt128(v) => v.to_be_bytes().to_vec(),
        PrimitiveLiteral::Int128(v) => shortest_two_complement(*v),
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => return None,
    })
}

/// Big-endian bytes without those that only repeat the sign.
fn shortest_two_complement(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let redundant = |pair: &[u8]| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0;
    let skip = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    bytes[skip..].to_vec()
}
