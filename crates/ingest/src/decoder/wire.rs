//! Confluent's framing: a zero byte, the schema id as four bytes, big-endian, and the body.

use siltstone_protocol::RejectReason;

const MAGIC: u8 = 0;

/// The schema id and the body of a framed record value.
#[inline]
pub fn confluent(value: &[u8]) -> Result<(u32, &[u8]), RejectReason> {
    match value.split_first_chunk::<5>() {
        Some(([MAGIC, a, b, c, d], body)) => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        _ => Err(RejectReason::BadFraming),
    }
}
