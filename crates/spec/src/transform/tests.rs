//! Schemas before and after.
