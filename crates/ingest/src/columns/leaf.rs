//! Builders of leaf columns: plain vectors and a validity.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, PrimitiveArray,
        StringArray,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, DataType},
};
use siltstone_protocol::RejectReason;

use super::validity::{BitVec, Validity};
use crate::IngestError;

/// Values of one fixed width: int, long, float, double, date, time, timestamps.
#[derive(Default)]
pub struct Values<T> {
    values: Vec<T>,
    validity: Validity,
}

impl<T: Copy + Default> Values<T> {
    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
        self.validity.push_valid();
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.validity.push_null(self.values.len());
        self.values.push(T::default());
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.validity.truncate(len);
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice()) + self.validity.bytes()
    }

    fn take(&mut self) -> Vec<T> {
        let hint = self.values.len();
        std::mem::replace(&mut self.values, Vec::with_capacity(hint))
    }

    pub(super) fn finish<P>(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError>
    where
        P: ArrowPrimitiveType<Native = T>,
        T: arrow::datatypes::ArrowNativeType,
    {
        let values = ScalarBuffer::from(self.take());
        let array =
            PrimitiveArray::<P>::try_new(values, self.validity.take()).map_err(|_| broken("values"))?;
        if array.data_type() == data_type {
            return Ok(Arc::new(array));
        }
        if !PrimitiveArray::<P>::is_compatible(data_type) {
            return Err(broken("a type"));
        }
        Ok(Arc::new(array.with_data_type(data_type.clone())))
    }
}

/// Unscaled decimals, checked against their precision.
pub struct DecimalValues {
    values: Values<i128>,
    /// Largest unscaled magnitude of the precision.
    limit: i128,
    scale: u8,
}

impl DecimalValues {
    pub(super) fn new(precision: u8, scale: u8) -> Self {
        // 10^38 - 1 still fits: i128 goes to 1.7 * 10^38.
        let limit = 10i128.checked_pow(u32::from(precision)).map_or(i128::MAX, |power| power - 1);
        Self { values: Values::default(), limit, scale }
    }

    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// Appends an unscaled value of this column's scale.
    #[inline]
    pub fn push(&mut self, unscaled: i128) -> Result<(), RejectReason> {
        if unscaled > self.limit || unscaled < -self.limit {
            return Err(RejectReason::OutOfRange);
        }
        self.values.push(unscaled);
        Ok(())
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.values.push_null();
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn values(&self) -> &Values<i128> {
        &self.values
    }

    pub(super) fn values_mut(&mut self) -> &mut Values<i128> {
        &mut self.values
    }

    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError> {
        let values = ScalarBuffer::from(self.values.take());
        let array =
            Decimal128Array::try_new(values, self.values.validity.take()).map_err(|_| broken("decimals"))?;
        match data_type {
            DataType::Decimal128(precision, scale) => array
                .with_precision_and_scale(*precision, *scale)
                .map(|array| Arc::new(array) as ArrayRef)
                .map_err(|_| broken("a decimal type")),
            _ => Err(broken("a decimal type")),
        }
    }
}

/// Booleans.
#[derive(Default)]
pub struct Bits {
    bits: BitVec,
    validity: Validity,
}

impl Bits {
    #[inline]
    pub fn push(&mut self, value: bool) {
        self.bits.push(value);
        self.validity.push_valid();
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.validity.push_null(self.bits.len());
        self.bits.push(false);
    }

    pub fn len(&self) -> usize {
        self.bits.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bits.len() == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.bits.truncate(len);
        self.validity.truncate(len);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bits.bytes() + self.validity.bytes()
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let hint = self.bits.len();
        let array = BooleanArray::new(self.bits.take(), self.validity.take());
        self.bits = BitVec::with_capacity(hint);
        Arc::new(array)
    }
}

/// Byte strings.
pub struct Binary {
    /// One more than there are values; begins with 0.
    offsets: Vec<i32>,
    data: Vec<u8>,
    validity: Validity,
}

impl Default for Binary {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new(), validity: Validity::default() }
    }
}

impl Binary {
    /// Appends a value; `TooLarge` when the column would pass what 32-bit offsets can hold.
    #[inline]
    pub fn push(&mut self, value: &[u8]) -> Result<(), RejectReason> {
        let end = i32::try_from(self.data.len() + value.len()).map_err(|_| RejectReason::TooLarge)?;
        self.data.extend_from_slice(value);
        self.offsets.push(end);
        self.validity.push_valid();
        Ok(())
    }

    /// The value at `index`, empty for a null and past the end.
    pub(crate) fn value(&self, index: usize) -> &[u8] {
        let Some([start, end]) = self.offsets.get(index..index + 2) else { return &[] };
        self.data.get(*start as usize..*end as usize).unwrap_or_default()
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.validity.push_null(self.len());
        // Repeating the last offset: an empty slot.
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.data.truncate(self.offsets.last().map_or(0, |end| *end as usize));
        self.validity.truncate(len);
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + size_of_val(self.offsets.as_slice()) + self.validity.bytes()
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let (values, bytes) = (self.offsets.len(), self.data.len());
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(values));
        self.offsets.push(0);
        let data = std::mem::replace(&mut self.data, Vec::with_capacity(bytes));
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data))
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, IngestError> {
        let (offsets, data) = self.take();
        let array = BinaryArray::try_new(offsets, data, self.validity.take()).map_err(|_| broken("bytes"))?;
        Ok(Arc::new(array))
    }

    fn finish_utf8(&mut self) -> Result<ArrayRef, IngestError> {
        let (offsets, data) = self.take();
        // Checks UTF-8 once more over the whole buffer: about a nanosecond per value, for no `unsafe`.
        let array =
            StringArray::try_new(offsets, data, self.validity.take()).map_err(|_| broken("strings"))?;
        Ok(Arc::new(array))
    }
}

/// Strings: bytes that were UTF-8 when they came in, so that a bad one is found at its own row.
#[derive(Default)]
pub struct Utf8 {
    bytes: Binary,
}

impl Utf8 {
    /// Appends bytes if they are UTF-8, `InvalidUtf8` if not.
    #[inline]
    pub fn push(&mut self, value: &[u8]) -> Result<(), RejectReason> {
        if !is_utf8(value) {
            return Err(RejectReason::InvalidUtf8);
        }
        self.bytes.push(value)
    }

    #[inline]
    pub fn push_str(&mut self, value: &str) -> Result<(), RejectReason> {
        self.bytes.push(value.as_bytes())
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.bytes.push_null();
    }

    /// The value at `index`, empty for a null and past the end.
    pub(crate) fn value(&self, index: usize) -> &[u8] {
        self.bytes.value(index)
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn inner(&self) -> &Binary {
        &self.bytes
    }

    pub(super) fn inner_mut(&mut self) -> &mut Binary {
        &mut self.bytes
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, IngestError> {
        self.bytes.finish_utf8()
    }
}

/// Short ASCII, the common case, is decided inline; the rest by the standard library.
#[inline]
fn is_utf8(value: &[u8]) -> bool {
    if value.len() <= 64 && value.is_ascii() {
        return true;
    }
    std::str::from_utf8(value).is_ok()
}

/// Byte strings of one length: fixed and uuid.
pub struct FixedBytes {
    width: usize,
    data: Vec<u8>,
    len: usize,
    validity: Validity,
}

impl FixedBytes {
    pub(super) fn new(width: usize) -> Self {
        Self { width, data: Vec::new(), len: 0, validity: Validity::default() }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Appends a value; `BadLength` when it is not of the column's width.
    #[inline]
    pub fn push(&mut self, value: &[u8]) -> Result<(), RejectReason> {
        if value.len() != self.width {
            return Err(RejectReason::BadLength);
        }
        if self.data.len() + value.len() > i32::MAX as usize {
            return Err(RejectReason::TooLarge);
        }
        self.data.extend_from_slice(value);
        self.len += 1;
        self.validity.push_valid();
        Ok(())
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.validity.push_null(self.len);
        self.data.resize(self.data.len() + self.width, 0);
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.data.truncate(len * self.width);
            self.validity.truncate(len);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.validity.bytes()
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, IngestError> {
        self.len = 0;
        let hint = self.data.len();
        let data = Buffer::from_vec(std::mem::replace(&mut self.data, Vec::with_capacity(hint)));
        let width = i32::try_from(self.width).map_err(|_| broken("a width"))?;
        let array = FixedSizeBinaryArray::try_new(width, data, self.validity.take());
        Ok(Arc::new(array.map_err(|_| broken("fixed bytes"))?))
    }
}

pub(super) fn broken(what: &str) -> IngestError {
    IngestError::internal(format!("column builders hold {what} that Arrow does not take"))
}
