//! A cursor over one JSON text: tokens as slices of the input, nothing copied, nothing built.
//!
//! The whole text is checked for UTF-8 once; after that every step looks at bytes. Strings are searched eight
//! bytes at a time. The grammar is RFC 8259's, no more: what this cursor accepts, `serde_json` accepts, and
//! the other way round (tested), but for two stated points: a byte order mark is passed over, and nesting
//! ends at `DEPTH_MAX`.

use siltstone_protocol::RejectReason;

use super::{number::Number, schema::DEPTH_MAX};

pub(super) struct Cursor<'a> {
    text: &'a str,
    bytes: &'a [u8],
    position: usize,
}

/// The inside of a string.
#[derive(Clone, Copy)]
pub(super) enum Text<'a> {
    Plain(&'a str),
    /// With escapes still in it.
    Escaped(&'a str),
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Result<Self, RejectReason> {
        let text = std::str::from_utf8(body).map_err(|_| RejectReason::InvalidUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(Self { text, bytes: text.as_bytes(), position: 0 })
    }

    /// The byte that follows, white space passed over; `Truncated` at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8, RejectReason> {
        loop {
            match self.bytes.get(self.position) {
                Some(byte) if *byte > b' ' => return Ok(*byte),
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.position += 1,
                Some(_) => return Err(RejectReason::Malformed),
                None => return Err(RejectReason::Truncated),
            }
        }
    }

    /// Steps over the byte that `peek` showed.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.position += 1;
    }

    /// Where it is.
    #[inline]
    pub(super) fn place(&self) -> usize {
        self.position
    }

    /// The first byte of the token at or after a place.
    pub(super) fn token_at(&self, place: usize) -> Option<u8> {
        self.bytes.get(place..)?.iter().copied().find(|byte| *byte > b' ')
    }

    /// Steps over this byte, which must follow.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), RejectReason> {
        if self.peek()? != byte {
            return Err(RejectReason::Malformed);
        }
        self.advance();
        Ok(())
    }

    /// After an item: true when another follows the comma, false at the end of the array or object.
    #[inline]
    pub(super) fn another(&mut self, end: u8) -> Result<bool, RejectReason> {
        let byte = self.peek()?;
        self.advance();
        match byte {
            b',' => Ok(true),
            byte if byte == end => Ok(false),
            _ => Err(RejectReason::Malformed),
        }
    }

    /// After the opening bracket: steps over the closing one if nothing is between.
    #[inline]
    pub(super) fn is_empty(&mut self, end: u8) -> Result<bool, RejectReason> {
        let empty = self.peek()? == end;
        self.position += usize::from(empty);
        Ok(empty)
    }

    /// Steps over these exact bytes if they follow directly.
    #[inline]
    pub(super) fn take(&mut self, expected: &[u8]) -> bool {
        let follows = self.bytes.get(self.position..).is_some_and(|rest| rest.starts_with(expected));
        if follows {
            self.position += expected.len();
        }
        follows
    }

    /// Steps over a literal (`true`, `false`, `null`) of which the first byte was seen.
    #[inline]
    pub(super) fn literal(&mut self, literal: &'static [u8]) -> Result<(), RejectReason> {
        if self.take(literal) {
            return Ok(());
        }
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        Err(if literal.starts_with(rest) { RejectReason::Truncated } else { RejectReason::Malformed })
    }

    /// Only white space may be left.
    #[inline]
    pub(super) fn end(&mut self) -> Result<(), RejectReason> {
        while let Some(byte) = self.bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Err(RejectReason::TrailingBytes);
            }
            self.position += 1;
        }
        Ok(())
    }

    #[inline]
    fn slice(&self, start: usize, end: usize) -> Result<&'a str, RejectReason> {
        self.text.get(start..end).ok_or(RejectReason::Malformed)
    }

    /// A string, of which the opening quote is next.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text<'a>, RejectReason> {
        self.expect(b'"')?;
        let start = self.position;
        let (end, byte) = self.next_special(start)?;
        if byte == b'"' {
            self.position = end + 1;
            return Ok(Text::Plain(self.slice(start, end)?));
        }
        self.finish_string(end, byte)?;
        Ok(Text::Escaped(self.slice(start, self.position - 1)?))
    }

    /// Steps over the rest of a string from a backslash, which is at `at`.
    #[cold]
    fn finish_string(&mut self, mut at: usize, mut byte: u8) -> Result<(), RejectReason> {
        while byte == b'\\' {
            at += match self.bytes.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                Some(b'u') => {
                    let hex = self.bytes.get(at + 2..at + 6).ok_or(RejectReason::Truncated)?;
                    if !hex.iter().all(u8::is_ascii_hexdigit) {
                        return Err(RejectReason::Malformed);
                    }
                    6
                }
                Some(_) => return Err(RejectReason::Malformed),
                None => return Err(RejectReason::Truncated),
            };
            (at, byte) = self.next_special(at)?;
        }
        if byte != b'"' {
            return Err(RejectReason::Malformed);
        }
        self.position = at + 1;
        Ok(())
    }

    /// The next quote, backslash or control character.
    #[inline]
    fn next_special(&self, from: usize) -> Result<(usize, u8), RejectReason> {
        let rest = self.bytes.get(from..).unwrap_or_default();
        let (words, tail) = rest.as_chunks::<8>();
        let mut at = from;
        for word in words {
            let found = specials(u64::from_le_bytes(*word));
            if found != 0 {
                let offset = (found.trailing_zeros() / 8) as usize;
                return Ok((at + offset, word[offset]));
            }
            at += 8;
        }
        for byte in tail {
            if matches!(byte, b'"' | b'\\' | ..=0x1f) {
                return Ok((at, *byte));
            }
            at += 1;
        }
        Err(RejectReason::Truncated)
    }

    /// A whole number of at most 18 digits, the common case; `None` and nothing read when it is anything
    /// else.
    #[inline]
    pub(super) fn small_integer(&mut self) -> Option<i64> {
        let mut at = self.position;
        let negative = self.bytes.get(at) == Some(&b'-');
        at += usize::from(negative);
        let first = at;
        let mut value = 0i64;
        while let Some(digit) =
            self.bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
        {
            if at - first == 18 {
                return None;
            }
            value = value * 10 + i64::from(digit);
            at += 1;
        }
        let digits = at - first;
        let leading_zero = digits > 1 && self.bytes.get(first) == Some(&b'0');
        if digits == 0 || leading_zero || matches!(self.bytes.get(at), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.position = at;
        Some(if negative { -value } else { value })
    }

    /// Any number, as its text and parts.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>, RejectReason> {
        let start = self.position;
        let negative = self.bytes.get(start) == Some(&b'-');
        let int_start = start + usize::from(negative);
        let int_end = self.digits(int_start)?;
        if int_end - int_start > 1 && self.bytes.get(int_start) == Some(&b'0') {
            return Err(RejectReason::Malformed);
        }
        let (mut end, mut fraction) = (int_end, "");
        if self.bytes.get(end) == Some(&b'.') {
            end = self.digits(int_end + 1)?;
            fraction = self.slice(int_end + 1, end)?;
        }
        let mut exponent = 0;
        if matches!(self.bytes.get(end), Some(b'e' | b'E')) {
            let mut at = end + 1;
            let minus = self.bytes.get(at) == Some(&b'-');
            at += usize::from(minus || self.bytes.get(at) == Some(&b'+'));
            end = self.digits(at)?;
            // More than any column can follow is as good as a number.
            let digits = self.slice(at, end)?.bytes();
            exponent =
                digits.fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000));
            exponent = if minus { -exponent } else { exponent };
        }
        let integer = self.slice(int_start, int_end)?;
        self.position = end;
        Ok(Number { text: self.slice(start, end)?, negative, integer, fraction, exponent })
    }

    /// The end of one digit or more.
    #[inline]
    fn digits(&self, from: usize) -> Result<usize, RejectReason> {
        let mut at = from;
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        match (at > from, self.bytes.get(at)) {
            (true, _) => Ok(at),
            (false, Some(_)) => Err(RejectReason::Malformed),
            (false, None) => Err(RejectReason::Truncated),
        }
    }

    /// Steps over any value. `depth` is how deep it stands.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), RejectReason> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => {
                let depth = deeper(depth)?;
                self.advance();
                let mut more = !self.is_empty(b'}')?;
                while more {
                    self.peek()?;
                    self.string()?;
                    self.expect(b':')?;
                    self.skip(depth)?;
                    more = self.another(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                let depth = deeper(depth)?;
                self.advance();
                let mut more = !self.is_empty(b']')?;
                while more {
                    self.skip(depth)?;
                    more = self.another(b']')?;
                }
                Ok(())
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => Err(RejectReason::Malformed),
        }
    }

    /// Any value, as its text.
    pub(super) fn raw(&mut self, depth: usize) -> Result<&'a str, RejectReason> {
        self.peek()?;
        let start = self.position;
        self.skip(depth)?;
        self.slice(start, self.position)
    }
}

/// One level deeper, if that is allowed.
#[inline]
pub(super) fn deeper(depth: usize) -> Result<usize, RejectReason> {
    if depth >= DEPTH_MAX {
        return Err(RejectReason::TooDeep);
    }
    Ok(depth + 1)
}

const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of every quote, backslash and control character of a word. Bits above the lowest may be
/// false: each of the three subtractions borrows only past its own first hit.
#[inline]
fn specials(word: u64) -> u64 {
    let equal = |byte: u8| {
        let zeros = word ^ repeat(byte);
        zeros.wrapping_sub(repeat(1)) & !zeros
    };
    let controls = word.wrapping_sub(repeat(0x20)) & !word;
    (equal(b'"') | equal(b'\\') | controls) & repeat(0x80)
}

impl Text<'_> {
    /// Appends the string itself. A surrogate without its partner is no character: `InvalidUtf8`.
    pub(super) fn unescape_into(self, out: &mut String) -> Result<(), RejectReason> {
        let mut rest = match self {
            Self::Plain(text) => {
                out.push_str(text);
                return Ok(());
            }
            Self::Escaped(text) => text,
        };
        while let Some((plain, escape)) = rest.split_once('\\') {
            out.push_str(plain);
            let (character, tail) = unescape(escape)?;
            out.push(character);
            rest = tail;
        }
        out.push_str(rest);
        Ok(())
    }
}

/// The character of an escape, and what follows it. The scan has seen that every escape is whole.
fn unescape(escape: &str) -> Result<(char, &str), RejectReason> {
    let mut characters = escape.chars();
    let kind = characters.next().ok_or(RejectReason::Malformed)?;
    let tail = characters.as_str();
    let character = match kind {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let (unit, tail) = hex_unit(tail)?;
            if !(0xd800..0xe000).contains(&unit) {
                return Ok((char::from_u32(unit).ok_or(RejectReason::InvalidUtf8)?, tail));
            }
            let low = tail.strip_prefix("\\u").ok_or(RejectReason::InvalidUtf8)?;
            let (low, tail) = hex_unit(low)?;
            if unit >= 0xdc00 || !(0xdc00..0xe000).contains(&low) {
                return Err(RejectReason::InvalidUtf8);
            }
            let scalar = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            return Ok((char::from_u32(scalar).ok_or(RejectReason::InvalidUtf8)?, tail));
        }
        '"' | '\\' | '/' => kind,
        _ => return Err(RejectReason::Malformed),
    };
    Ok((character, tail))
}

fn hex_unit(text: &str) -> Result<(u32, &str), RejectReason> {
    let (hex, tail) = text.split_at_checked(4).ok_or(RejectReason::Malformed)?;
    Ok((u32::from_str_radix(hex, 16).map_err(|_| RejectReason::Malformed)?, tail))
}
