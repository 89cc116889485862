//! Bytes written as strings: uuid and base64.

use siltstone_protocol::RejectReason;

/// The bytes of a uuid: hyphenated or 32 digits, also in braces or after `urn:uuid:`.
pub(super) fn uuid(text: &str) -> Result<[u8; 16], RejectReason> {
    parse_uuid(text.as_bytes()).ok_or(RejectReason::BadLength)
}

fn parse_uuid(mut text: &[u8]) -> Option<[u8; 16]> {
    if let [b'{', inner @ .., b'}'] = text {
        text = inner;
    } else if let Some((b"urn:uuid:", rest)) = text.split_at_checked(9) {
        text = rest;
    }
    let hyphens = match text.len() {
        32 => false,
        36 => true,
        _ => return None,
    };
    let mut bytes = [0; 16];
    let mut at = 0;
    for (index, byte) in bytes.iter_mut().enumerate() {
        if hyphens && matches!(index, 4 | 6 | 8 | 10) {
            (text.get(at) == Some(&b'-')).then_some(())?;
            at += 1;
        }
        *byte = hex(*text.get(at)?)? << 4 | hex(*text.get(at + 1)?)?;
        at += 2;
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

const INVALID: u8 = 64;

/// Values of the digits of base64 and base64url, which do not contradict one another.
static DIGITS: [u8; 256] = digits();

const fn digits() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut table = [INVALID; 256];
    let mut value = 0;
    while value < alphabet.len() {
        table[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    table[b'-' as usize] = 62;
    table[b'_' as usize] = 63;
    table
}

/// Appends the bytes of base64 text: either alphabet, with or without padding. `Malformed` for anything else,
/// also for bits that belong to no byte.
pub(super) fn base64(text: &str, out: &mut Vec<u8>) -> Result<(), RejectReason> {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = bytes.get(..bytes.len() - padding).unwrap_or_default();
    if padding > 0 && !bytes.len().is_multiple_of(4) {
        return Err(RejectReason::Malformed);
    }
    let value = |digit: u8| u32::from(DIGITS[digit as usize]);
    let (groups, tail) = digits.as_chunks::<4>();
    out.reserve(digits.len() / 4 * 3 + 2);
    for [a, b, c, d] in groups {
        let (a, b, c, d) = (value(*a), value(*b), value(*c), value(*d));
        if (a | b | c | d) >= u32::from(INVALID) {
            return Err(RejectReason::Malformed);
        }
        let [_, group @ ..] = (a << 18 | b << 12 | c << 6 | d).to_be_bytes();
        out.extend_from_slice(&group);
    }
    let (bits, count) = match *tail {
        [] => return Ok(()),
        [a, b] => (value(a) << 10 | value(b) << 4, 1),
        [a, b, c] => (value(a) << 10 | value(b) << 4 | value(c) >> 2, 2),
        _ => return Err(RejectReason::Malformed),
    };
    let invalid = tail.iter().any(|digit| value(*digit) >= u32::from(INVALID));
    let left_over = match *tail {
        [_, b] => value(b) & 0xf,
        [_, _, c] => value(c) & 0x3,
        _ => 0,
    };
    if invalid || left_over != 0 {
        return Err(RejectReason::Malformed);
    }
    let [_, _, pair @ ..] = bits.to_be_bytes();
    out.extend_from_slice(pair.get(..count).unwrap_or_default());
    Ok(())
}

/// A big-endian two's complement number.
pub(super) fn big_endian(bytes: &[u8]) -> Result<i128, RejectReason> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (above, low) = bytes.split_at(extra);
    let mut whole = [fill; 16];
    whole[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(whole);
    let extends = above.iter().all(|byte| *byte == fill) && (value < 0) == negative;
    if bytes.is_empty() {
        return Err(RejectReason::BadLength);
    }
    if extends { Ok(value) } else { Err(RejectReason::OutOfRange) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("00112233-4455-6677-8899-aabbccddeeff", true)]
    #[case("00112233-4455-6677-8899-AABBCCDDEEFF", true)]
    #[case("00112233445566778899aabbccddeeff", true)]
    #[case("{00112233-4455-6677-8899-aabbccddeeff}", true)]
    #[case("urn:uuid:00112233-4455-6677-8899-aabbccddeeff", true)]
    #[case("0011223344-55-6677-8899-aabbccddeeff", false)]
    #[case("00112233-4455-6677-8899-aabbccddeef", false)]
    #[case("00112233-4455-6677-8899-aabbccddeefg", false)]
    #[case("", false)]
    fn uuids(#[case] text: &str, #[case] good: bool) {
        let expected = std::array::from_fn(|index| u8::try_from(index * 0x11).unwrap());
        assert_eq!(uuid(text), if good { Ok(expected) } else { Err(RejectReason::BadLength) });
    }

    #[rstest]
    #[case("", Some(&b""[..]))]
    #[case("Zg==", Some(&b"f"[..]))]
    #[case("Zg", Some(&b"f"[..]))]
    #[case("Zm8=", Some(&b"fo"[..]))]
    #[case("Zm9v", Some(&b"foo"[..]))]
    #[case("-_-_", Some(&b"\xfb\xff\xbf"[..]))]
    #[case("+/+/", Some(&b"\xfb\xff\xbf"[..]))]
    #[case("Zh==", None)]
    #[case("Zg=", None)]
    #[case("Z", None)]
    #[case("Z===", None)]
    #[case("====", None)]
    #[case("Zm9v====", None)]
    #[case("Zm 9v", None)]
    #[case("Zm9\u{e9}", None)]
    fn base64_texts(#[case] text: &str, #[case] bytes: Option<&[u8]>) {
        let mut out = Vec::new();
        assert_eq!(base64(text, &mut out).ok().map(|()| out.as_slice()), bytes);
    }

    #[test]
    fn big_endian_numbers() {
        assert_eq!(big_endian(&[0x7f]), Ok(127));
        assert_eq!(big_endian(&[0xff]), Ok(-1));
        assert_eq!(big_endian(&[0x00, 0x80]), Ok(128));
        assert_eq!(big_endian(&[0xff; 20]), Ok(-1));
        assert_eq!(big_endian(&[0x00; 17]), Ok(0));
        let mut large = [0xff; 17];
        large[0] = 0;
        assert_eq!(big_endian(&large), Err(RejectReason::OutOfRange));
        assert_eq!(big_endian(&[]), Err(RejectReason::BadLength));
    }

    proptest! {
        #[test]
        fn big_endian_is_the_inverse(value: i128) {
            prop_assert_eq!(big_endian(&value.to_be_bytes()), Ok(value));
        }
    }
}
