//! Reading Avro's binary encoding. Every read is bounded by what is left.

use siltstone_protocol::RejectReason;

pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// A zigzag varint of up to 64 bits.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, RejectReason> {
        match self.rest {
            [byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(zigzag(u64::from(*byte)))
            }
            [low, byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(zigzag(u64::from(low & 0x7f) | u64::from(*byte) << 7))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<i64, RejectReason> {
        let mut value = 0u64;
        let head = self.rest.get(..10).unwrap_or(self.rest);
        for (index, byte) in head.iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                if index == 9 && *byte > 1 {
                    return Err(RejectReason::Malformed);
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(zigzag(value));
            }
        }
        Err(if head.len() == 10 { RejectReason::Malformed } else { RejectReason::Truncated })
    }

    /// A zigzag varint that fits 32 bits.
    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, RejectReason> {
        i32::try_from(self.long()?).map_err(|_| RejectReason::Malformed)
    }

    /// An index below `count`: of a union branch or an enum symbol.
    #[inline]
    pub(super) fn index(&mut self, count: usize) -> Result<usize, RejectReason> {
        let index = usize::try_from(self.long()?).map_err(|_| RejectReason::Malformed)?;
        if index < count { Ok(index) } else { Err(RejectReason::Malformed) }
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, RejectReason> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(RejectReason::Malformed),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RejectReason> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(RejectReason::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    /// The next `length` bytes.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], RejectReason> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(RejectReason::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A length, then as many bytes: `bytes`, `string`.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RejectReason> {
        let length = usize::try_from(self.long()?).map_err(|_| RejectReason::Malformed)?;
        self.take(length)
    }

    /// The head of a block of an array or map: how many items follow. 0 ends the collection.
    #[inline]
    pub(super) fn block(&mut self) -> Result<usize, RejectReason> {
        let count = self.long()?;
        if count >= 0 {
            return usize::try_from(count).map_err(|_| RejectReason::Malformed);
        }
        // A negative count is followed by the block's size in bytes, for those who skip.
        let size = usize::try_from(self.long()?).map_err(|_| RejectReason::Malformed)?;
        if size > self.left() {
            return Err(RejectReason::Truncated);
        }
        let count = count.checked_neg().ok_or(RejectReason::Malformed)?;
        usize::try_from(count).map_err(|_| RejectReason::Malformed)
    }
}

#[inline]
fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
