//! Siltstone: datafile.
