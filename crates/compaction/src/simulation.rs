//! Simulated ingest.
