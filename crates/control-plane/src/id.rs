//! Fresh identities: ULIDs, from a cryptographic generator that the operating system seeds.

use std::time::{Duration, UNIX_EPOCH};

use ulid::Ulid;

/// A fresh identity of this time.
pub fn fresh(now_ms: i64) -> Ulid {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    Ulid::from_datetime_with_source(at, &mut rand::rng())
}
