//! The batches of a flush, sized so that a row's place fits 32 bits.

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};

use crate::error::{DataFileError, Result};

/// Batches longer than this are cut (without copying).
const ROWS_MAX: usize = 1 << 16;
/// Neighbours shorter than this are joined, up to [`ROWS_JOINED`].
const ROWS_MIN: usize = 1 << 11;
const ROWS_JOINED: usize = 1 << 13;

/// The batches of a flush. A place is `batch << row_bits | row`: places rise in arrival order.
#[derive(Clone)]
pub struct Batches {
    batches: Vec<RecordBatch>,
    row_bits: u32,
    rows: usize,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches")
            .field("batches", &self.batches.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Batches {
    /// Takes batches of one schema, in arrival order.
    ///
    /// # Errors
    /// `TooManyRows`.
    pub fn new(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Self> {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let mut sized: Vec<RecordBatch> = Vec::with_capacity(batches.len());
        let mut small: Vec<RecordBatch> = Vec::new();
        let mut small_rows = 0;
        let join = |small: &mut Vec<RecordBatch>, sized: &mut Vec<RecordBatch>| match small.len() {
            0 => Ok(()),
            1 => {
                sized.append(small);
                Ok(())
            }
            _ => {
                let joined = concat_batches(schema, small.iter());
                small.clear();
                joined.map(|joined| sized.push(joined)).map_err(|_| DataFileError::compute("joining batches"))
            }
        };
        for batch in batches {
            if batch.num_rows() == 0 {
                continue;
            }
            if batch.num_rows() < ROWS_MIN {
                small_rows += batch.num_rows();
                small.push(batch);
                if small_rows >= ROWS_JOINED {
                    join(&mut small, &mut sized)?;
                    small_rows = 0;
                }
                continue;
            }
            join(&mut small, &mut sized)?;
            small_rows = 0;
            let mut start = 0;
            while start < batch.num_rows() {
                let length = ROWS_MAX.min(batch.num_rows() - start);
                sized.push(batch.slice(start, length));
                start += length;
            }
        }
        join(&mut small, &mut sized)?;
        let longest = sized.iter().map(RecordBatch::num_rows).max().unwrap_or(1);
        let row_bits = bits_for(longest);
        if row_bits + bits_for(sized.len()) > 32 {
            return Err(DataFileError::TooManyRows { rows });
        }
        Ok(Self { batches: sized, row_bits, rows })
    }

    /// Takes batches as they are, however small; none may have more than [`ROWS_MAX`] rows.
    pub(crate) fn of_parts(batches: Vec<RecordBatch>) -> Result<Self> {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let longest = batches.iter().map(RecordBatch::num_rows).max().unwrap_or(1);
        let row_bits = bits_for(longest);
        if longest > ROWS_MAX || row_bits + bits_for(batches.len()) > 32 {
            return Err(DataFileError::TooManyRows { rows });
        }
        Ok(Self { batches, row_bits, rows })
    }

    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Batch and row of a place.
    #[inline]
    pub fn locate(&self, place: u32) -> (usize, usize) {
        locate(place, self.row_bits)
    }

    pub(crate) fn row_bits(&self) -> u32 {
        self.row_bits
    }

    /// Every place, in arrival order.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> + '_ {
        self.batches.iter().enumerate().flat_map(|(batch, rows)| {
            let first = (batch as u32) << self.row_bits;
            first..first + rows.num_rows() as u32
        })
    }
}

#[inline]
pub(crate) fn locate(place: u32, row_bits: u32) -> (usize, usize) {
    let row_mask = (1_u32 << row_bits) - 1;
    ((u64::from(place) >> row_bits) as usize, (place & row_mask) as usize)
}

/// Bits that hold every number below `count`.
fn bits_for(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}
