//! What `/readyz` answers: which tables wait or have stopped.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Which tables are not being worked on, for `/readyz`.
#[derive(Debug, Default)]
pub struct Readiness {
    waiting: Mutex<BTreeMap<String, ()>>,
}

impl Readiness {
    pub(crate) fn set(&self, table: &str, ready: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if ready {
            waiting.remove(table);
        } else {
            waiting.insert(table.to_owned(), ());
        }
    }

    /// Names of tables that wait or have stopped.
    pub fn not_ready(&self) -> Vec<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}
