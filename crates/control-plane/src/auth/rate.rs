//! Token buckets by name, in bounded memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Names that are remembered. Past it, buckets that are full again are forgotten first, then all.
const NAMES_MAX: usize = 100_000;

/// Buckets that fill at a rate and hold a burst.
pub struct Buckets {
    /// Tokens a second.
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, (f64, i64)>>,
}

impl Buckets {
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, buckets: Mutex::default() }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// There is none: the seconds until there is.
    pub fn take(&self, name: &str, now_ms: i64) -> Result<(), u32> {
        self.with(name, now_ms, |tokens| {
            if *tokens >= 1.0 {
                *tokens -= 1.0;
                return Ok(());
            }
            Err(((1.0 - *tokens) / self.rate).ceil().clamp(1.0, 3600.0) as u32)
        })
    }

    /// Whether there is a token, without taking it.
    ///
    /// # Errors
    /// As [`Buckets::take`].
    pub fn look(&self, name: &str, now_ms: i64) -> Result<(), u32> {
        self.with(name, now_ms, |tokens| {
            if *tokens >= 1.0 {
                Ok(())
            } else {
                Err(((1.0 - *tokens) / self.rate).ceil().clamp(1.0, 3600.0) as u32)
            }
        })
    }

    fn with<T>(&self, name: &str, now_ms: i64, then: impl FnOnce(&mut f64) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= NAMES_MAX && !buckets.contains_key(name) {
            let full = |tokens: f64, at: i64| tokens + self.filled(at, now_ms) >= self.burst;
            buckets.retain(|_, (tokens, at)| !full(*tokens, *at));
            if buckets.len() >= NAMES_MAX {
                buckets.clear();
            }
        }
        let (tokens, at) = buckets.entry(name.to_owned()).or_insert((self.burst, now_ms));
        *tokens = (*tokens + self.filled(*at, now_ms)).min(self.burst);
        *at = now_ms;
        then(tokens)
    }

    fn filled(&self, from_ms: i64, to_ms: i64) -> f64 {
        (to_ms.saturating_sub(from_ms)).max(0) as f64 / 1000.0 * self.rate
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buckets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again_and_others_are_their_own() {
        let buckets = Buckets::new(2.0, 3.0);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", 0), Ok(()));
        }
        assert_eq!(buckets.take("a", 0), Err(1));
        assert_eq!(buckets.look("b", 0), Ok(()));
        assert_eq!(buckets.take("a", 500), Ok(()));
        assert_eq!(buckets.take("a", 500), Err(1));
        // A clock that goes back gives nothing.
        assert_eq!(buckets.take("a", 100), Err(1));
    }
}
