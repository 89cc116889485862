//! One memory budget for all buffers of a process.
//!
//! A reservation is an amount, not memory: the holder reserves before it allocates and drops the
//! reservation after it freed. A request larger than the whole budget is granted when nothing else is
//! reserved, so that one large flush cannot wait for ever.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// The budget; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    released: Notify,
}

impl MemoryBudget {
    pub fn new(bytes: u64) -> Self {
        Self { shared: Arc::new(Shared { limit: bytes, used: AtomicU64::new(0), released: Notify::new() }) }
    }

    /// Reserves now or not at all.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        self.shared.grow(0, bytes).then(|| Reservation { shared: Arc::clone(&self.shared), bytes })
    }

    /// Reserves when there is room. Cancel-safe: nothing is held before it returns.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            released.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            released.await;
        }
    }

    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Acquire)
    }

    pub fn limit(&self) -> u64 {
        self.shared.limit
    }
}

impl Shared {
    /// Adds `bytes` for a holder of `held`; a holder who is alone may exceed the limit.
    fn grow(&self, held: u64, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                let wanted = used.checked_add(bytes)?;
                (wanted <= self.limit || used == held).then_some(wanted)
            })
            .is_ok()
    }

    fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.released.notify_waiters();
    }
}

/// A part of the budget, given back on drop.
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the amount. Growing fails, and changes nothing, when there is no room.
    #[must_use]
    pub fn resize(&mut self, bytes: u64) -> bool {
        let done = match bytes.checked_sub(self.bytes) {
            Some(more) => self.shared.grow(self.bytes, more),
            None => {
                self.shared.shrink(self.bytes - bytes);
                true
            }
        };
        if done {
            self.bytes = bytes;
        }
        done
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.shrink(self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reserves_up_to_the_limit_and_gives_back() {
        let budget = MemoryBudget::new(100);
        let mut a = budget.try_reserve(60).unwrap();
        assert!(budget.try_reserve(41).is_none());
        let b = budget.try_reserve(40).unwrap();
        assert!(!a.resize(61));
        assert_eq!((a.bytes(), budget.used()), (60, 100));
        assert!(a.resize(10));
        drop(b);
        assert_eq!(budget.used(), 10);
        drop(a);
        assert_eq!((budget.used(), budget.limit()), (0, 100));
    }

    #[test]
    fn a_holder_alone_may_exceed_the_limit() {
        let budget = MemoryBudget::new(100);
        let mut a = budget.try_reserve(1000).unwrap();
        assert!(budget.try_reserve(1).is_none());
        assert!(a.resize(2000));
        assert_eq!(budget.used(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_go_on_when_room_comes() {
        let budget = MemoryBudget::new(100);
        let held = budget.try_reserve(100).unwrap();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move {
                    let reservation = budget.reserve(50).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    assert!(budget.used() <= 100);
                    drop(reservation);
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        drop(held);
        for waiter in waiters {
            tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap();
        }
        assert_eq!(budget.used(), 0);
    }
}
