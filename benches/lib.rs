//! Siltstone: benches.
