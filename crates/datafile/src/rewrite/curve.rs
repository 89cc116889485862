//! Places along a space-filling curve: one integer per row, near for rows whose columns are near.
//!
//! 1. Each column's value becomes a coordinate: its place between the least and the greatest value of all
//!    inputs, as their statistics tell, in [`bits`] bits. Strings and bytes count by eight bytes after the
//!    prefix that the bounds share. Null is the least coordinate.
//! 2. The coordinates are interleaved (Z-order), or walked along Hilbert's curve (Skilling's transform).

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};

use super::{keys::KeyColumn, run::FileRun};
use crate::{
    column::source_array,
    error::{DataFileError, Result},
    sort::{ordered_f32, ordered_f64},
    transform::transform,
};

/// Dimensions that a curve may have.
const DIMENSIONS_MAX: usize = 4;

pub(super) struct Curve {
    columns: Vec<(KeyColumn, Scale)>,
    hilbert: bool,
    bits: u32,
}

/// From a value to a coordinate.
#[derive(Debug, Clone)]
struct Scale {
    /// Bytes that all values share.
    shared: usize,
    least: u64,
    factor: f64,
}

/// Bits of a coordinate: all of them fit 63.
fn bits(dimensions: usize) -> u32 {
    (63 / dimensions.max(1) as u32).min(16)
}

impl Curve {
    /// A curve over these columns, scaled by what the files' statistics say.
    pub(super) fn new(columns: Vec<KeyColumn>, files: &[FileRun], hilbert: bool) -> Result<Self> {
        if columns.is_empty() || columns.len() > DIMENSIONS_MAX {
            return Err(DataFileError::compute("clustering by no column or by more than four"));
        }
        let bits = bits(columns.len());
        let scaled = |column: KeyColumn| {
            let scale = scale(&column, files, bits)?;
            Ok((column, scale))
        };
        let columns = columns.into_iter().map(scaled).collect::<Result<_>>()?;
        Ok(Self { columns, hilbert, bits })
    }

    /// The place of every row.
    pub(super) fn places(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let mut coordinates: Vec<[u32; DIMENSIONS_MAX]> = vec![[0; DIMENSIONS_MAX]; batch.num_rows()];
        for (dimension, (column, scale)) in self.columns.iter().enumerate() {
            let array = transform(column.transform, &source_array(batch, &column.source)?)?;
            let most = (1_u64 << self.bits) - 1;
            codes(array.as_ref(), scale.shared, |row, code| {
                let above = code.saturating_sub(scale.least) as f64 * scale.factor;
                coordinates[row][dimension] = (above as u64).min(most) as u32;
            })?;
        }
        let dimensions = self.columns.len();
        let place = |mut point: [u32; DIMENSIONS_MAX]| {
            if self.hilbert {
                along_hilbert(&mut point[..dimensions], self.bits);
            }
            interleave(&point[..dimensions], self.bits)
        };
        Ok(Arc::new(Int64Array::from_iter_values(coordinates.into_iter().map(place))))
    }
}

fn scale(column: &KeyColumn, files: &[FileRun], bits: u32) -> Result<Scale> {
    let mut bounds: Vec<ArrayRef> = Vec::new();
    for file in files {
        for group in 0..file.metadata().num_row_groups() {
            let stats = file.key_stats(column, group);
            bounds.extend(stats.min.into_iter().chain(stats.max));
        }
    }
    let shared = shared_prefix(&bounds);
    let (mut least, mut greatest) = (u64::MAX, 0);
    for bound in &bounds {
        codes(bound.as_ref(), shared, |_, code| {
            least = least.min(code);
            greatest = greatest.max(code);
        })?;
    }
    if least > greatest {
        (least, greatest) = (0, u64::MAX);
    }
    let factor = ((1_u64 << bits) - 1) as f64 / (greatest - least).max(1) as f64;
    Ok(Scale { shared, least, factor })
}

fn byte_value(array: &dyn Array, row: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => Some(array.as_binary::<i32>().value(row)),
        DataType::FixedSizeBinary(_) => Some(array.as_fixed_size_binary().value(row)),
        _ => None,
    }
}

fn shared_prefix(bounds: &[ArrayRef]) -> usize {
    let mut values = bounds.iter().filter_map(|bound| byte_value(bound.as_ref(), 0));
    let Some(first) = values.next() else { return 0 };
    values.fold(first.len(), |shared, value| {
        first.iter().zip(value).take(shared).take_while(|(a, b)| a == b).count()
    })
}

/// Visits each value as an integer that rises with it; null as zero.
fn codes(array: &dyn Array, shared: usize, mut visit: impl FnMut(usize, u64)) -> Result<()> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    let mut each = |row: usize, code: u64| {
        visit(row, if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) { 0 } else { code });
    };
    macro_rules! values {
        ($type:ty, $code:expr) => {
            for (row, value) in array.as_primitive::<$type>().values().iter().enumerate() {
                each(row, $code(*value));
            }
        };
    }
    let signed = |value: i64| (value ^ i64::MIN) as u64;
    match array.data_type() {
        DataType::Boolean => {
            array.as_boolean().values().iter().enumerate().for_each(|(row, value)| each(row, value.into()));
        }
        DataType::Int32 => values!(Int32Type, |value: i32| signed(value.into())),
        DataType::Int64 => values!(Int64Type, signed),
        DataType::Date32 => values!(Date32Type, |value: i32| signed(value.into())),
        DataType::Time64(_) => values!(Time64MicrosecondType, signed),
        DataType::Timestamp(..) => values!(TimestampMicrosecondType, signed),
        DataType::Float32 => values!(Float32Type, |value: f32| signed(ordered_f32(value).into())),
        DataType::Float64 => values!(Float64Type, |value: f64| signed(ordered_f64(value))),
        DataType::Decimal128(..) => {
            let narrow =
                |value: i128| i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX });
            values!(Decimal128Type, |value: i128| signed(narrow(value)));
        }
        DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(_) => {
            for row in 0..array.len() {
                let value = byte_value(array, row).unwrap_or_default();
                let mut word = [0; 8];
                let rest = value.get(shared..).unwrap_or_default();
                let length = rest.len().min(8);
                word[..length].copy_from_slice(&rest[..length]);
                each(row, u64::from_be_bytes(word));
            }
        }
        _ => return Err(DataFileError::compute("clustering by a column")),
    }
    Ok(())
}

/// The bits of all coordinates, the highest of each first.
fn interleave(point: &[u32], bits: u32) -> i64 {
    let mut place = 0_i64;
    for bit in (0..bits).rev() {
        for coordinate in point {
            place = place << 1 | i64::from(coordinate >> bit & 1);
        }
    }
    place
}

/// Coordinates such that interleaving them gives the place along Hilbert's curve (J. Skilling,
/// "Programming the Hilbert curve", 2004).
fn along_hilbert(point: &mut [u32], bits: u32) {
    let top = 1_u32 << (bits - 1);
    let mut bit = top;
    while bit > 1 {
        let below = bit - 1;
        for dimension in 0..point.len() {
            if point[dimension] & bit != 0 {
                point[0] ^= below;
            } else {
                let swap = (point[0] ^ point[dimension]) & below;
                point[0] ^= swap;
                point[dimension] ^= swap;
            }
        }
        bit >>= 1;
    }
    for dimension in 1..point.len() {
        point[dimension] ^= point[dimension - 1];
    }
    let mut flip = 0;
    let mut bit = top;
    while bit > 1 {
        if point.last().is_some_and(|last| last & bit != 0) {
            flip ^= bit - 1;
        }
        bit >>= 1;
    }
    point.iter_mut().for_each(|coordinate| *coordinate ^= flip);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn hilberts_curve_visits_every_cell_and_steps_by_one() {
        for (dimensions, bits) in [(2_u32, 4_u32), (3, 2), (4, 2)] {
            let side = 1_u32 << bits;
            let cells = side.pow(dimensions);
            let mut along: HashMap<i64, Vec<u32>> = HashMap::new();
            for cell in 0..cells {
                let point: Vec<u32> = (0..dimensions).map(|d| cell / side.pow(d) % side).collect();
                let mut walked = point.clone();
                along_hilbert(&mut walked, bits);
                along.insert(interleave(&walked, bits), point);
            }
            assert_eq!(along.len(), cells as usize, "every cell has its own place");
            for place in 1..i64::from(cells) {
                let (a, b) = (&along[&(place - 1)], &along[&place]);
                let steps: u32 = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).sum();
                assert_eq!(steps, 1, "places {place} and the one before are neighbours");
            }
        }
    }

    #[test]
    fn z_order_interleaves_from_the_top() {
        assert_eq!(interleave(&[0b10, 0b01], 2), 0b10_01);
        assert_eq!(interleave(&[0b11, 0b00], 2), 0b10_10);
    }
}
