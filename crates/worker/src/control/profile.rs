//! Where this worker spends its time, as a small sample.
//!
//! Threads are sampled, not stacks: a signal that unwinds the stack of whatever it interrupts is not safe beside an
//! allocator with threads of its own and a client library in C, and no profile is worth a crash. Every 50 ms for five
//! seconds, each thread that runs at that moment counts for the function at its root, which its name tells. The names
//! below are all that can be sent; a thread of any other name counts as `other`.

use std::{collections::BTreeMap, time::Duration};

use siltstone_protocol::presence::{FunctionCount, FunctionName, ProfileSample};

const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const SAMPLES: u32 = 100;
/// More threads than this are not looked at.
const THREADS_MAX: usize = 4096;

/// Beginnings of thread names, and the functions at their roots. Linux cuts names to 15 bytes.
const ROOTS: &[(&str, &str)] = &[
    ("poll-", "siltstone_worker::ingest::Poller::run"),
    ("tokio-", "tokio::runtime"),
    ("rdk:main", "rdkafka::main"),
    ("rdk:broker", "rdkafka::broker"),
    ("rdk:", "rdkafka::other"),
    ("jemalloc", "jemalloc::background_thread"),
    ("siltstone", "siltstone::main"),
];
const OTHER: &str = "other";

/// Samples for five seconds.
pub(super) async fn sample(worker_id: &str) -> ProfileSample {
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    for _ in 0..SAMPLES {
        tokio::time::sleep(SAMPLE_EVERY).await;
        // Files of the kernel: they are read in place.
        running(&mut |root| *counts.entry(root).or_default() += 1);
    }
    let mut functions: Vec<_> = counts.into_iter().collect();
    functions.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
    let functions = functions.into_iter();
    ProfileSample {
        worker_id: worker_id.to_owned(),
        duration_ms: SAMPLES * u32::try_from(SAMPLE_EVERY.as_millis()).unwrap_or(u32::MAX),
        functions: functions
            .map(|(root, samples)| FunctionCount { function: FunctionName::new(root), samples })
            .collect(),
    }
}

/// Tells of each thread of this process that runs right now.
fn running(tell: &mut dyn FnMut(&'static str)) {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return };
    for thread in threads.flatten().take(THREADS_MAX) {
        // A thread may have ended since.
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        let (Some((_, rest)), Some((head, state))) = (stat.split_once('('), stat.rsplit_once(')')) else {
            continue;
        };
        let name = head.split_once('(').map_or(rest, |(_, name)| name);
        if state.trim_start().starts_with('R') {
            tell(root_of(name));
        }
    }
}

fn root_of(thread: &str) -> &'static str {
    ROOTS.iter().find(|(name, _)| thread.starts_with(name)).map_or(OTHER, |(_, root)| root)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_threads_do_not_cross() {
        assert_eq!(root_of("poll-shop.secret"), "siltstone_worker::ingest::Poller::run");
        assert_eq!(root_of("hunter2"), "other");
        for (_, root) in ROOTS {
            assert_eq!(FunctionName::new(root).as_str(), *root);
        }
    }

    #[test]
    fn threads_that_run_are_seen() {
        let busy = std::thread::Builder::new().name("poll-x".to_owned());
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = busy
            .spawn(move || while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {});
        let mut seen = false;
        for _ in 0..10_000 {
            running(&mut |root| seen |= root == "siltstone_worker::ingest::Poller::run");
            if seen {
                break;
            }
        }
        drop(stop);
        busy.unwrap().join().unwrap();
        assert!(seen);
    }
}
