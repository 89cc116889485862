//! Bit vectors: boolean values, and validity that costs nothing until the first null.

use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

/// A growable bit vector, least significant bit first. Bits past the end are zero.
#[derive(Default)]
pub(crate) struct BitVec {
    bytes: Vec<u8>,
    len: usize,
}

impl BitVec {
    pub(crate) fn with_capacity(bits: usize) -> Self {
        Self { bytes: Vec::with_capacity(bits.div_ceil(8)), len: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, bit: bool) {
        let shift = self.len & 7;
        if shift == 0 {
            self.bytes.push(u8::from(bit));
        } else if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << shift;
        }
        self.len += 1;
    }

    /// Appends `count` ones.
    fn push_ones(&mut self, count: usize) {
        let end = self.len + count;
        while self.len < end && self.len & 7 != 0 {
            self.push(true);
        }
        let whole = (end - self.len) / 8;
        self.bytes.resize(self.bytes.len() + whole, 0xff);
        self.len += whole * 8;
        while self.len < end {
            self.push(true);
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.len = len;
        self.bytes.truncate(len.div_ceil(8));
        if len & 7 != 0
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1u8 << (len & 7)) - 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self) -> BooleanBuffer {
        let len = std::mem::take(&mut self.len);
        BooleanBuffer::new(Buffer::from_vec(std::mem::take(&mut self.bytes)), 0, len)
    }
}

/// Which values are present. Empty while all are: the column's own length is the length.
#[derive(Default)]
pub(crate) struct Validity {
    /// `None` until the first null.
    bits: Option<BitVec>,
}

impl Validity {
    /// A value was appended.
    #[inline]
    pub(crate) fn push_valid(&mut self) {
        if let Some(bits) = &mut self.bits {
            bits.push(true);
        }
    }

    /// A null was appended to a column that had `len` values before it.
    #[inline]
    pub(crate) fn push_null(&mut self, len: usize) {
        self.bits.get_or_insert_with(|| all_valid(len)).push(false);
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        if let Some(bits) = &mut self.bits {
            bits.truncate(len);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bits.as_ref().map_or(0, BitVec::bytes)
    }

    /// The validity of a finished column; none when nothing is null (a null may have been rolled back).
    pub(crate) fn take(&mut self) -> Option<NullBuffer> {
        let nulls = NullBuffer::new(self.bits.take()?.take());
        (nulls.null_count() > 0).then_some(nulls)
    }
}

#[cold]
fn all_valid(len: usize) -> BitVec {
    let mut bits = BitVec::with_capacity(len + 64);
    bits.push_ones(len);
    bits
}
