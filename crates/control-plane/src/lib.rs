//! Siltstone: control-plane.
