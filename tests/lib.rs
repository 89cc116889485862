//! Siltstone: tests.
