//! Any bytes as a framed record value: an id with the rest of the bytes, or bad framing.

use siltstone_ingest::decoder::wire::confluent;
use siltstone_protocol::RejectReason;

pub(crate) fn run(value: &[u8]) {
    match confluent(value) {
        Ok((id, body)) => {
            let framed = [&[0], &id.to_be_bytes()[..], body].concat();
            assert_eq!(framed, value);
        }
        Err(reason) => {
            assert_eq!(reason, RejectReason::BadFraming);
            assert!(value.len() < 5 || value[0] != 0);
        }
    }
}
