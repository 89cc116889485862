//! What a table is doing, and what it was told to do: shared by those who work on it and those who speak of it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use siltstone_protocol::{ErrorKind, health::WorkState};

/// One table's state in this worker. A pause is kept in memory: a worker that starts anew reads on, until the control
/// plane, which keeps the pause, hands it out again.
#[derive(Debug)]
pub struct Switch {
    pause: AtomicBool,
    state: Mutex<(WorkState, Option<ErrorKind>)>,
}

impl Default for Switch {
    fn default() -> Self {
        Self { pause: AtomicBool::new(false), state: Mutex::new((WorkState::Starting, None)) }
    }
}

impl Switch {
    /// Asks whoever reads the topic to commit what is read and to stop reading, or to go on.
    pub fn pause(&self, pause: bool) {
        self.pause.store(pause, Ordering::Release);
    }

    /// True while reading is to rest.
    pub fn is_paused(&self) -> bool {
        self.pause.load(Ordering::Acquire)
    }

    /// The table is now in this state.
    pub fn set(&self, state: WorkState, error: Option<ErrorKind>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (state, error);
    }

    /// What the table does, and the kind of its last error.
    pub fn state(&self) -> (WorkState, Option<ErrorKind>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
