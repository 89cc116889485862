//! Time, commit ids and jitter: everything else of a worker is a function of its inputs.

use std::time::Duration;

use siltstone_datafile::Host;

/// The one source of time, commit ids and jitter.
#[derive(Debug, Default)]
pub struct Identity {
    host: Host,
}

impl Identity {
    /// From this host.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// A fresh commit id.
    pub fn commit_id(&self) -> String {
        self.host.ulid().to_string()
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        self.host.now_ms()
    }

    /// Between half and all of `pause`.
    pub fn jitter(&self, pause: Duration) -> Duration {
        let share = (self.host.random() >> 11) as f64 / (1u64 << 53) as f64;
        pause.mul_f64(0.5 + share / 2.0)
    }
}
