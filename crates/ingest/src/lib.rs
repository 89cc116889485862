//! Siltstone: ingest.
