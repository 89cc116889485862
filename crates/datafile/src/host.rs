//! What the machine gives that is no input: the time, names that nobody else has, threads for work that blocks.
//!
//! A worker takes the machine's own. A simulation hands in others, so that a run repeats from its seed; work that
//! blocks is then done in place, on the one thread there is.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ulid::Ulid;

/// A made-up machine.
pub trait Machine: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;

    /// Numbers that do not come again.
    fn random(&self) -> u128;
}

/// The machine; by default, the one that the program runs on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Host {
    simulated: Option<Arc<dyn Machine>>,
}

impl Host {
    /// A made-up machine, with one thread.
    pub fn simulated(machine: Arc<dyn Machine>) -> Self {
        Self { simulated: Some(machine) }
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        match &self.simulated {
            Some(machine) => machine.now_ms(),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
        }
    }

    /// A name that nobody else has, and that says when it was made.
    pub fn ulid(&self) -> Ulid {
        match &self.simulated {
            Some(machine) => {
                Ulid::from_parts(u64::try_from(machine.now_ms()).unwrap_or_default(), machine.random())
            }
            None => Ulid::new(),
        }
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        match &self.simulated {
            Some(machine) => machine.random() as u64,
            None => rand::random(),
        }
    }

    /// False: what blocks is done in place.
    pub(crate) fn has_threads(&self) -> bool {
        self.simulated.is_none()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("simulated", &self.simulated.is_some()).finish()
    }
}
