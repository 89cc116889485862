//! Siltstone: lakehouse.
