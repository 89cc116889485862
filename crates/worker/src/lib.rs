//! Siltstone: worker.
