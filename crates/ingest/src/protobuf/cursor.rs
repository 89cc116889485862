//! Reading Protobuf's wire format. Every read is bounded by what is left.

use siltstone_protocol::RejectReason;

/// Groups of unknown fields nest at most this deep.
pub(super) const GROUPS_MAX: u32 = 100;

/// The four encodings that fields have, and the two marks of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Group,
    GroupEnd,
    Fixed32,
}

impl Wire {
    /// What a value of this encoding is called in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Varint => "varint",
            Self::Fixed64 => "64-bit value",
            Self::Bytes => "length-delimited value",
            Self::Group => "group",
            Self::GroupEnd => "end of a group",
            Self::Fixed32 => "32-bit value",
        }
    }
}

/// Bytes of the record, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Range {
    #[inline]
    pub(super) fn bits(self) -> u64 {
        u64::from(self.start) << 32 | u64::from(self.end)
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { start: (bits >> 32) as u32, end: bits as u32 }
    }

    #[inline]
    pub(super) fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

pub(super) struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Over a part of `body`; positions are those in `body`.
    #[inline]
    pub(super) fn new(body: &'a [u8], part: Range) -> Self {
        Self { body: body.get(..part.end as usize).unwrap_or(body), at: part.start as usize }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.body.len()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// A field's number and encoding.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<(u32, Wire), RejectReason> {
        let tag = u32::try_from(self.varint()?).map_err(|_| RejectReason::Malformed)?;
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::Group,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(RejectReason::Malformed),
        };
        match tag >> 3 {
            0 => Err(RejectReason::Malformed),
            number => Ok((number, wire)),
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, RejectReason> {
        match self.rest() {
            [byte @ ..0x80, ..] => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            [low, byte @ ..0x80, ..] => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(*byte) << 7)
            }
            rest => self.long_varint(rest),
        }
    }

    fn long_varint(&mut self, rest: &[u8]) -> Result<u64, RejectReason> {
        let mut value = 0u64;
        let head = rest.get(..10).unwrap_or(rest);
        for (index, byte) in head.iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                if index == 9 && *byte > 1 {
                    return Err(RejectReason::Malformed);
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(if head.len() == 10 { RejectReason::Malformed } else { RejectReason::Truncated })
    }

    #[inline]
    pub(super) fn fixed32(&mut self) -> Result<u64, RejectReason> {
        let bytes = self.rest().first_chunk().ok_or(RejectReason::Truncated)?;
        self.at += 4;
        Ok(u64::from(u32::from_le_bytes(*bytes)))
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64, RejectReason> {
        let bytes = self.rest().first_chunk().ok_or(RejectReason::Truncated)?;
        self.at += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A length, then as many bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<Range, RejectReason> {
        let length = usize::try_from(self.varint()?).map_err(|_| RejectReason::Truncated)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.body.len());
        let range = range(self.at, end.ok_or(RejectReason::Truncated)?)?;
        self.at = range.end as usize;
        Ok(range)
    }

    /// What is between the start of group `number`, just read, and its end.
    pub(super) fn group(&mut self, number: u32) -> Result<Range, RejectReason> {
        let start = self.at;
        loop {
            let end = self.at;
            match self.tag()? {
                (inner, Wire::GroupEnd) if inner == number => return range(start, end),
                (inner, wire) => self.skip(inner, wire, GROUPS_MAX)?,
            }
        }
    }

    /// Passes over the value of a field that nobody wants.
    pub(super) fn pass(&mut self, number: u32, wire: Wire) -> Result<(), RejectReason> {
        self.skip(number, wire, GROUPS_MAX)
    }

    fn skip(&mut self, number: u32, wire: Wire, groups: u32) -> Result<(), RejectReason> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.fixed64().map(drop),
            Wire::Fixed32 => self.fixed32().map(drop),
            Wire::Bytes => self.bytes().map(drop),
            Wire::GroupEnd => Err(RejectReason::Malformed),
            Wire::Group => {
                let groups = groups.checked_sub(1).ok_or(RejectReason::TooDeep)?;
                loop {
                    match self.tag()? {
                        (inner, Wire::GroupEnd) if inner == number => return Ok(()),
                        (inner, wire) => self.skip(inner, wire, groups)?,
                    }
                }
            }
        }
    }

    /// The value of a scalar of this encoding; of bytes and groups, where they lie.
    #[inline]
    pub(super) fn value(&mut self, number: u32, wire: Wire) -> Result<u64, RejectReason> {
        match wire {
            Wire::Varint => self.varint(),
            Wire::Fixed64 => self.fixed64(),
            Wire::Fixed32 => self.fixed32(),
            Wire::Bytes => self.bytes().map(Range::bits),
            Wire::Group => self.group(number).map(Range::bits),
            Wire::GroupEnd => Err(RejectReason::Malformed),
        }
    }
}

/// Records are far shorter than 4 GiB; this is the backstop.
#[inline]
fn range(start: usize, end: usize) -> Result<Range, RejectReason> {
    let narrow = |at| u32::try_from(at).map_err(|_| RejectReason::TooLarge);
    Ok(Range { start: narrow(start)?, end: narrow(end)? })
}
