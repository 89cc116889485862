//! Rows by their places: one column of one slice of the sorted flush at a time.
//!
//! Values are copied from the buffered batches straight into the slice's array, which is small enough to
//! stay in cache until it is encoded. Nothing else is allocated: the extra memory is one column of one slice.
//! Rows that lie one after the other in a batch, as those of an unsorted table do, are not copied at all; where they do
//! so in long stretches, as those of sorted runs and of history in order do, stretches are copied.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray,
        PrimitiveArray, StringArray, StructArray,
    },
    buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::{concat, interleave},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Fields, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};

use crate::{
    error::{DataFileError, Result},
    sort::Batches,
};

/// Takes rows of one column from all batches of a flush.
pub struct Gather {
    column: Column,
    row_bits: u32,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

/// Makes the array of these places, with these nulls: once, for text is looked through whenever an array of it is made.
type GatherFn = Box<dyn Fn(&[u32], u32, Option<NullBuffer>) -> Result<ArrayRef> + Send>;

enum Column {
    Flat {
        arrays: Vec<ArrayRef>,
        take: GatherFn,
        nulls: Nulls,
    },
    Struct {
        fields: Fields,
        members: Vec<Column>,
        nulls: Nulls,
    },
    /// Lists and maps: Arrow's own kernel.
    Other(Vec<ArrayRef>),
}

impl Gather {
    /// Prepares the column of this index.
    ///
    /// # Errors
    /// `Compute`: the column is of a type that tables do not have.
    pub fn new(batches: &Batches, column: usize) -> Result<Self> {
        let arrays: Vec<ArrayRef> =
            batches.batches().iter().map(|batch| Arc::clone(batch.column(column))).collect();
        Self::of_arrays(arrays, batches.row_bits())
    }

    pub(crate) fn of_arrays(arrays: Vec<ArrayRef>, row_bits: u32) -> Result<Self> {
        Ok(Self { column: prepare(arrays)?, row_bits })
    }

    /// The rows at these places, in their order.
    ///
    /// # Errors
    /// `Compute`: the slice's strings exceed what one array can hold.
    pub fn rows(&self, places: &[u32]) -> Result<ArrayRef> {
        take(&self.column, places, self.row_bits)
    }
}

#[inline]
fn locate(place: u32, row_bits: u32) -> (usize, usize) {
    crate::sort::locate(place, row_bits)
}

/// Rows that lie one after the other in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    batch: usize,
    row: usize,
    rows: usize,
}

/// A stretch of fewer rows costs as much as its rows one by one.
const STRETCH_ROWS: usize = 32;

/// What these places are made of, if that is stretches: no more than one break in [`STRETCH_ROWS`] rows.
fn stretches(places: &[u32], row_bits: u32) -> Option<Vec<Stretch>> {
    let follows = |(place, next): (&u32, &u32)| place.wrapping_add(1) == *next;
    let followers = places.get(1..).unwrap_or_default();
    let apart = places.iter().zip(followers).filter(|pair| !follows(*pair)).count();
    if places.len() < 2 || apart > places.len() / STRETCH_ROWS {
        return None;
    }
    let mut stretches: Vec<Stretch> = Vec::with_capacity(apart + 1);
    let mut next = None;
    for place in places {
        let (batch, row) = locate(*place, row_bits);
        // A full batch's last place is followed by that of the next one's first row.
        match stretches.last_mut() {
            Some(last) if next == Some(*place) && last.batch == batch => last.rows += 1,
            _ => stretches.push(Stretch { batch, row, rows: 1 }),
        }
        next = place.checked_add(1);
    }
    Some(stretches)
}

/// Stretches of a column, copied unless there is one.
fn copied(arrays: &[ArrayRef], stretches: &[Stretch]) -> Result<ArrayRef> {
    let part = |stretch: &Stretch| arrays[stretch.batch].slice(stretch.row, stretch.rows);
    let parts: Vec<ArrayRef> = stretches.iter().map(part).collect();
    match parts.as_slice() {
        [part] => Ok(Arc::clone(part)),
        parts => {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            concat(&parts).map_err(|_| DataFileError::compute("gathering stretches of a column"))
        }
    }
}

fn take(column: &Column, places: &[u32], row_bits: u32) -> Result<ArrayRef> {
    match column {
        Column::Flat { arrays, take, nulls } => match stretches(places, row_bits) {
            Some(stretches) => copied(arrays, &stretches),
            None => take(places, row_bits, nulls.take(places, row_bits)),
        },
        Column::Struct { fields, members, nulls } => {
            let members =
                members.iter().map(|member| take(member, places, row_bits)).collect::<Result<Vec<_>>>()?;
            let nulls = nulls.take(places, row_bits);
            let array = StructArray::try_new_with_length(fields.clone(), members, nulls, places.len());
            Ok(Arc::new(array.map_err(|_| DataFileError::compute("gathering a struct"))?))
        }
        Column::Other(arrays) => {
            if let Some(stretches) = stretches(places, row_bits) {
                return copied(arrays, &stretches);
            }
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            let indices: Vec<(usize, usize)> = places.iter().map(|place| locate(*place, row_bits)).collect();
            interleave(&arrays, &indices).map_err(|_| DataFileError::compute("gathering a list"))
        }
    }
}

/// The null masks of a column; `None` per batch without nulls.
struct Nulls(Vec<Option<NullBuffer>>);

impl Nulls {
    fn of(arrays: &[ArrayRef]) -> Self {
        let nulls = |array: &ArrayRef| array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
        let nulls: Vec<_> = arrays.iter().map(nulls).collect();
        Self(if nulls.iter().all(Option::is_none) { Vec::new() } else { nulls })
    }

    fn take(&self, places: &[u32], row_bits: u32) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        let valid = BooleanBuffer::collect_bool(places.len(), |index| {
            let (batch, row) = locate(places[index], row_bits);
            self.0[batch].as_ref().is_none_or(|nulls| nulls.is_valid(row))
        });
        Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
    }
}

fn prepare(arrays: Vec<ArrayRef>) -> Result<Column> {
    let Some(first) = arrays.first() else { return Ok(Column::Other(arrays)) };
    let nulls = Nulls::of(&arrays);
    let take: GatherFn = match first.data_type().clone() {
        DataType::Boolean => boolean(&arrays),
        DataType::Int32 => primitive::<Int32Type>(&arrays),
        DataType::Int64 => primitive::<Int64Type>(&arrays),
        DataType::Float32 => primitive::<Float32Type>(&arrays),
        DataType::Float64 => primitive::<Float64Type>(&arrays),
        DataType::Date32 => primitive::<Date32Type>(&arrays),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(&arrays),
        DataType::Timestamp(..) => primitive::<TimestampMicrosecondType>(&arrays),
        DataType::Decimal128(..) => primitive::<Decimal128Type>(&arrays),
        DataType::Utf8 => strings(&arrays),
        DataType::Binary => binary(&arrays),
        DataType::FixedSizeBinary(size) => fixed(&arrays, size),
        DataType::Struct(fields) => {
            let member = |index: usize| {
                prepare(arrays.iter().map(|array| Arc::clone(array.as_struct().column(index))).collect())
            };
            let members = (0..fields.len()).map(member).collect::<Result<_>>()?;
            return Ok(Column::Struct { fields, members, nulls });
        }
        DataType::List(_) | DataType::Map(..) => return Ok(Column::Other(arrays)),
        _ => return Err(DataFileError::compute("gathering a column")),
    };
    Ok(Column::Flat { arrays, take, nulls })
}

fn primitive<T: ArrowPrimitiveType>(arrays: &[ArrayRef]) -> GatherFn {
    let values: Vec<ScalarBuffer<T::Native>> =
        arrays.iter().map(|array| array.as_primitive::<T>().values().clone()).collect();
    let data_type = arrays.first().map_or(DataType::Null, |array| array.data_type().clone());
    Box::new(move |places, row_bits, nulls| {
        let slices: Vec<&[T::Native]> = values.iter().map(|values| values.as_ref()).collect();
        let taken: Vec<T::Native> = places
            .iter()
            .map(|place| {
                let (batch, row) = locate(*place, row_bits);
                slices[batch][row]
            })
            .collect();
        Ok(Arc::new(PrimitiveArray::<T>::new(taken.into(), nulls).with_data_type(data_type.clone())))
    })
}

fn boolean(arrays: &[ArrayRef]) -> GatherFn {
    let values: Vec<BooleanBuffer> = arrays.iter().map(|array| array.as_boolean().values().clone()).collect();
    Box::new(move |places, row_bits, nulls| {
        let taken = BooleanBuffer::collect_bool(places.len(), |index| {
            let (batch, row) = locate(places[index], row_bits);
            values[batch].value(row)
        });
        Ok(Arc::new(BooleanArray::new(taken, nulls)))
    })
}

fn strings(arrays: &[ArrayRef]) -> GatherFn {
    let parts = arrays.iter().map(|array| {
        let array = array.as_string::<i32>();
        (array.offsets().clone(), array.values().clone())
    });
    let parts: Vec<_> = parts.collect();
    Box::new(move |places, row_bits, nulls| {
        let (offsets, values) = take_bytes(&parts, places, row_bits)?;
        let array = StringArray::try_new(offsets, values, nulls);
        Ok(Arc::new(array.map_err(|_| DataFileError::compute("gathering strings"))?))
    })
}

fn binary(arrays: &[ArrayRef]) -> GatherFn {
    let parts = arrays.iter().map(|array| {
        let array = array.as_binary::<i32>();
        (array.offsets().clone(), array.values().clone())
    });
    let parts: Vec<_> = parts.collect();
    Box::new(move |places, row_bits, nulls| {
        let (offsets, values) = take_bytes(&parts, places, row_bits)?;
        let array = BinaryArray::try_new(offsets, values, nulls);
        Ok(Arc::new(array.map_err(|_| DataFileError::compute("gathering bytes"))?))
    })
}

/// Values up to these lengths are copied as one block of constant size: a few moves and no call.
const SHORT: usize = 16;
const LONG: usize = 64;

/// Appends the block that a value begins, and cuts off what is not of the value. False: so near the end there is none.
#[inline]
fn push_block<const SIZE: usize>(values: &mut Vec<u8>, source: &[u8], length: usize) -> bool {
    let Some(block) = source.first_chunk::<SIZE>() else { return false };
    let end = values.len() + length;
    values.extend_from_slice(block);
    values.truncate(end);
    true
}

/// Two passes: the places of the values first, so that their cache misses overlap, then the bytes. Nothing clears the
/// memory first: that would cost as much as the copy.
fn take_bytes(
    parts: &[(OffsetBuffer<i32>, Buffer)],
    places: &[u32],
    row_bits: u32,
) -> Result<(OffsetBuffer<i32>, Buffer)> {
    let slices: Vec<(&[i32], &[u8])> =
        parts.iter().map(|(offsets, values)| (offsets.as_ref(), values.as_slice())).collect();
    let mut total = 0_usize;
    let mut sources: Vec<(&[u8], usize)> = Vec::with_capacity(places.len());
    sources.extend(places.iter().map(|place| {
        let (batch, row) = locate(*place, row_bits);
        let (offsets, bytes) = slices[batch];
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        total += end - start;
        (&bytes[start..], end - start)
    }));
    if total > i32::MAX as usize {
        return Err(DataFileError::compute("gathering more than 2 GiB of one column at once"));
    }
    let mut values: Vec<u8> = Vec::with_capacity(total + LONG);
    let mut offsets: Vec<i32> = Vec::with_capacity(places.len() + 1);
    offsets.push(0);
    offsets.extend(sources.into_iter().map(|(source, length)| {
        let done = if length <= SHORT {
            push_block::<SHORT>(&mut values, source, length)
        } else {
            length <= LONG && push_block::<LONG>(&mut values, source, length)
        };
        if !done {
            values.extend_from_slice(&source[..length]);
        }
        values.len() as i32
    }));
    Ok((OffsetBuffer::new(offsets.into()), values.into()))
}

fn fixed(arrays: &[ArrayRef], size: i32) -> GatherFn {
    let arrays: Vec<FixedSizeBinaryArray> =
        arrays.iter().map(|array| array.as_fixed_size_binary().clone()).collect();
    Box::new(move |places, row_bits, nulls| {
        let mut values = MutableBuffer::with_capacity(places.len() * size.unsigned_abs() as usize);
        for place in places {
            let (batch, row) = locate(*place, row_bits);
            values.extend_from_slice(arrays[batch].value(row));
        }
        let array = FixedSizeBinaryArray::try_new(size, values.into(), nulls);
        Ok(Arc::new(array.map_err(|_| DataFileError::compute("gathering fixed bytes"))?))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{array::UInt32Array, compute::take};

    use super::*;
    use crate::{arrow_schema, layout::tests::every_type, testing};

    /// The place after the last of a full batch is that of the next one's first row.
    #[test]
    fn a_stretch_ends_with_its_batch() {
        let stretch = |batch, row, rows| Stretch { batch, row, rows };
        let places: Vec<u32> = (4_000..4_200).collect();
        assert_eq!(stretches(&places, 12), Some(vec![stretch(0, 4_000, 96), stretch(1, 0, 104)]));
        let places: Vec<u32> = (0..8_192).collect();
        assert_eq!(stretches(&places, 12), Some(vec![stretch(0, 0, 4_096), stretch(1, 0, 4_096)]));
        assert_eq!(stretches(&places, 13), Some(vec![stretch(0, 0, 8_192)]));
        assert_eq!(stretches(&[7, 8, 3, 4], 12), None);
    }

    /// Blocks of constant size end where the buffer does.
    #[test]
    fn texts_of_every_length_come_whole() {
        let texts: Vec<String> = (0..100).rev().map(|length| "x".repeat(length)).collect();
        let arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts.clone()))];
        let gather = Gather::of_arrays(arrays, 7).unwrap();
        let places: Vec<u32> = (0..100).rev().collect();
        let found = gather.rows(&places).unwrap();
        let expected: Vec<&str> = texts.iter().rev().map(String::as_str).collect();
        assert_eq!(found.as_string::<i32>(), &StringArray::from(expected));
    }

    #[test]
    fn rows_come_as_they_are_wherever_they_lie() {
        let schema = every_type();
        let batch = |seed| testing::batch(&schema, 3_000, &mut testing::rng(seed));
        let batches = Batches::new(vec![batch(1), batch(2)], &arrow_schema(&schema).unwrap()).unwrap();
        let places: Vec<u32> = batches.places().collect();
        let rows: [Vec<u32>; 11] = [
            Vec::new(),
            vec![17],
            // Stretches, across batches too.
            (2_900..3_100).chain(5..90).chain(4_000..4_500).collect(),
            (0..3_000).collect(),
            (17..2_999).collect(),
            (3_001..6_000).collect(),
            (2_990..3_010).collect(),
            vec![7, 7, 9],
            vec![7, 9, 8, 10],
            vec![9, 8, 7],
            (0..6_000).rev().step_by(7).collect(),
        ];
        for column in 0..schema.fields.len() {
            let arrays = batches.batches().iter().map(|batch| batch.column(column).as_ref());
            let all = concat(&arrays.collect::<Vec<_>>()).unwrap();
            let gather = Gather::new(&batches, column).unwrap();
            for rows in &rows {
                let wanted: Vec<u32> = rows.iter().map(|row| places[*row as usize]).collect();
                let found = gather.rows(&wanted).unwrap();
                let expected = take(&all, &UInt32Array::from(rows.clone()), None).unwrap();
                assert_eq!(&found, &expected, "column {column}");
            }
        }
    }
}
