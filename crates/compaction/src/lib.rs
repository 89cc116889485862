//! Siltstone: compaction.
