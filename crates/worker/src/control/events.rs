//! What happened in this worker, as closed codes and counts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use siltstone_protocol::{
    ErrorKind,
    presence::{EVENTS_MAX, EventCode, EventCount},
};

/// Different events that are counted at once; more are not.
const KINDS_MAX: usize = 10_000;

type Kind = (EventCode, Option<String>, Option<ErrorKind>);

/// Counts events until they are taken.
#[derive(Debug, Default)]
pub struct Events {
    counts: Mutex<BTreeMap<Kind, u64>>,
}

impl Events {
    /// Counts `count` more of an event. `table` is a name of the spec.
    pub fn add(&self, code: EventCode, table: Option<&str>, error: Option<ErrorKind>, count: u64) {
        if count == 0 {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (code, table.map(str::to_owned), error);
        if counts.len() < KINDS_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += count;
        }
    }

    /// Counts one event of a table.
    pub fn table(&self, code: EventCode, table: &str, error: Option<ErrorKind>) {
        self.add(code, Some(table), error, 1);
    }

    /// Takes a sample: the rarest kinds first, as they say the most. The others are taken next time.
    pub(super) fn take(&self) -> Vec<EventCount> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kinds: Vec<(Kind, u64)> = std::mem::take(&mut *counts).into_iter().collect();
        kinds.sort_by_key(|(_, count)| *count);
        counts.extend(kinds.split_off(kinds.len().min(EVENTS_MAX)));
        let taken = kinds.into_iter();
        taken.map(|((code, table, error), count)| EventCount { code, table, error, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_lose_nothing() {
        let events = Events::default();
        for n in 0..250 {
            events.table(EventCode::Committed, &format!("t{n}"), None);
        }
        events.add(EventCode::Committed, Some("t0"), None, 5);
        let (first, second, third, none) = (events.take(), events.take(), events.take(), events.take());
        assert_eq!((first.len(), second.len(), third.len(), none.len()), (100, 100, 50, 0));
        let sum = |sample: &[EventCount]| sample.iter().map(|event| event.count).sum::<u64>();
        assert_eq!(sum(&first) + sum(&second) + sum(&third), 255);
    }
}
