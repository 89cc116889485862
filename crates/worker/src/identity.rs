//! Time, commit ids and jitter: everything else of a worker is a function of its inputs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The one source of time, commit ids and jitter.
#[derive(Debug, Default)]
pub struct Identity;

impl Identity {
    /// A fresh commit id.
    pub fn commit_id(&self) -> String {
        ulid::Ulid::new().to_string()
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Between half and all of `pause`.
    pub fn jitter(&self, pause: Duration) -> Duration {
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}
