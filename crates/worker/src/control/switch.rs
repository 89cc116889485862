//! What a table is doing, and what it was told to do: shared by those who work on it and those who speak of it.

use std::sync::atomic::{AtomicBool, Ordering};

use siltstone_protocol::{ErrorKind, health::WorkState};
use tokio::sync::watch;

/// One table's state in this worker. A pause is kept in memory: a worker that starts anew reads on, until the control
/// plane, which keeps the pause, hands it out again.
#[derive(Debug)]
pub struct Switch {
    pause: AtomicBool,
    state: watch::Sender<(WorkState, Option<ErrorKind>)>,
}

impl Default for Switch {
    fn default() -> Self {
        Self { pause: AtomicBool::new(false), state: watch::Sender::new((WorkState::Starting, None)) }
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

    /// Returns when what was asked last is so: nobody reads any more, or nobody rests. Whoever begins to read looks
    /// first. Cancel-safe.
    pub async fn heeded(&self) {
        let against = if self.is_paused() { WorkState::Running } else { WorkState::Paused };
        // The sender is this switch itself, so the wait ends by a state.
        let _ = self.state.subscribe().wait_for(|(state, _)| *state != against).await;
    }

    /// The table is now in this state.
    pub fn set(&self, state: WorkState, error: Option<ErrorKind>) {
        self.state.send_replace((state, error));
    }

    /// What the table does, and the kind of its last error.
    pub fn state(&self) -> (WorkState, Option<ErrorKind>) {
        *self.state.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_is_so_when_the_wait_ends() {
        let switch = Switch::default();
        switch.pause(true);
        // Nobody reads yet.
        switch.heeded().await;
        switch.set(WorkState::Running, None);
        let waits = async |switch: &Switch| {
            tokio::time::timeout(Duration::from_secs(1), switch.heeded()).await.is_err()
        };
        assert!(waits(&switch).await);
        switch.set(WorkState::Paused, None);
        switch.heeded().await;
        switch.pause(false);
        assert!(waits(&switch).await);
        switch.set(WorkState::Running, None);
        switch.heeded().await;
    }
}
