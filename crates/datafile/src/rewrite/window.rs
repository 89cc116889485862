//! Rows of several runs that may be written now, in their order.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};

use super::keys::Keys;
use crate::{
    error::Result,
    gather::Gather,
    partition::{PartitionValues, value_bytes},
    sort::{Batches, Key, sort_keys},
    sort_key::key_bytes,
};

/// A sorted set of rows.
pub(super) struct Window {
    pub(super) batches: Batches,
    keys: Vec<Key>,
    /// Places in `batches`, in key order.
    pub(super) rows: Vec<u32>,
    /// Ranges of `rows`, one a partition.
    pub(super) partitions: Vec<Range<usize>>,
    partition_keys: usize,
    /// Bytes of the batches, about.
    pub(super) bytes: usize,
}

impl Window {
    /// Sorts rows: batches of at most 65,536 rows, and their key columns.
    pub(super) fn new(parts: Vec<(RecordBatch, Vec<ArrayRef>)>, bytes: usize, keys: &Keys) -> Result<Self> {
        let (directions, partition_keys) = (keys.directions(), keys.partition_keys());
        let (batches, arrays): (Vec<RecordBatch>, Vec<Vec<ArrayRef>>) = parts.into_iter().unzip();
        let batches = Batches::of_parts(batches)?;
        let key = |(number, (descending, nulls_last)): (usize, &(bool, bool))| Key {
            arrays: arrays.iter().map(|arrays| ArrayRef::clone(&arrays[number])).collect(),
            descending: *descending,
            nulls_last: *nulls_last,
        };
        let keys: Vec<Key> = directions.iter().enumerate().map(key).collect();
        let (rows, partitions) = sort_keys(&batches, &keys, partition_keys)?;
        Ok(Self { batches, keys, rows, partitions, partition_keys, bytes })
    }

    /// The key of one of `rows`.
    pub(super) fn key(&self, row: usize) -> Result<Vec<u8>> {
        let (batch, row) = self.batches.locate(self.rows[row]);
        key_bytes(&self.keys, batch, row)
    }

    /// The key of one of `rows` within its partition.
    pub(super) fn sort_key(&self, row: usize) -> Result<Vec<u8>> {
        let (batch, row) = self.batches.locate(self.rows[row]);
        key_bytes(&self.keys[self.partition_keys..], batch, row)
    }

    /// The partition of one of `rows`.
    pub(super) fn partition_values(&self, row: usize, spec_id: i32) -> Result<PartitionValues> {
        let (batch, row) = self.batches.locate(self.rows[row]);
        let keys = self.keys.iter().take(self.partition_keys);
        let values = keys.map(|key| value_bytes(key.arrays[batch].as_ref(), row));
        Ok(PartitionValues::new(spec_id, &values.collect::<Result<Vec<_>>>()?))
    }

    pub(super) fn gather(&self, columns: usize) -> Result<Vec<Gather>> {
        (0..columns).map(|column| Gather::new(&self.batches, column)).collect()
    }
}
