//! Rows of several runs that may be written now, in their order.

use arrow::array::{ArrayRef, RecordBatch};

use super::keys::Keys;
use crate::{
    error::Result,
    gather::Gather,
    sort::{Batches, Key, sort_keys},
    sort_key::key_bytes,
};

/// A sorted set of rows.
pub(super) struct Window {
    pub(super) batches: Batches,
    keys: Vec<Key>,
    /// Places in `batches`, in key order.
    pub(super) rows: Vec<u32>,
    /// Bytes of the batches, about.
    pub(super) bytes: usize,
}

impl Window {
    /// Sorts rows: batches of at most 65,536 rows, and their key columns.
    pub(super) fn new(parts: Vec<(RecordBatch, Vec<ArrayRef>)>, bytes: usize, keys: &Keys) -> Result<Self> {
        let directions = keys.directions();
        let (batches, arrays): (Vec<RecordBatch>, Vec<Vec<ArrayRef>>) = parts.into_iter().unzip();
        let batches = Batches::of_parts(batches)?;
        let key = |(number, (descending, nulls_last)): (usize, &(bool, bool))| Key {
            arrays: arrays.iter().map(|arrays| ArrayRef::clone(&arrays[number])).collect(),
            descending: *descending,
            nulls_last: *nulls_last,
        };
        let keys: Vec<Key> = directions.iter().enumerate().map(key).collect();
        let (rows, _) = sort_keys(&batches, &keys, 0)?;
        Ok(Self { batches, keys, rows, bytes })
    }

    /// The key of one of `rows`.
    pub(super) fn key(&self, row: usize) -> Result<Vec<u8>> {
        let (batch, row) = self.batches.locate(self.rows[row]);
        key_bytes(&self.keys, batch, row)
    }

    pub(super) fn gather(&self, columns: usize) -> Result<Vec<Gather>> {
        (0..columns).map(|column| Gather::new(&self.batches, column)).collect()
    }
}
