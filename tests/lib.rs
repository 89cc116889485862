//! Tests of the whole: `tidy.rs` holds the workspace to its rules, `e2e/` runs the binary against
//! real parts and reads its tables with readers that are not ours.
