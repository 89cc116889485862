//! A set of file names, in bounded memory.
//!
//! A name is kept as 64 bits of its last segment. Two names of the same bits count as one: then a file
//! that nothing names is kept, and never one deleted that something names. Last segments are enough,
//! because names of our making are unique (ULIDs), and whatever way another program spells the path before
//! them, the file is known.
//!
//! A set that would be larger than `NAMES_MAX` is collected in slices: one pass over everything for the names
//! of each slice.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// Names held at once: some 150 MB.
pub(super) const NAMES_MAX: usize = 8 << 20;

/// A part of all names: those whose bits leave `index` when divided by `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) index: u64,
    pub(super) of: u64,
}

impl Slice {
    pub(super) const ALL: Self = Self { index: 0, of: 1 };

    pub(super) fn holds(self, path: &str) -> bool {
        digest(path) % self.of == self.index
    }
}

/// The slice has more names than may be held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Names of one slice.
#[derive(Debug)]
pub struct Names {
    slice: Slice,
    max: usize,
    digests: HashSet<u64>,
}

impl Names {
    pub(super) fn new(slice: Slice, max: usize) -> Self {
        Self { slice, max, digests: HashSet::new() }
    }

    /// Adds the name of a path or URL, if it is of this slice.
    pub(super) fn insert(&mut self, path: &str) -> Result<(), Full> {
        let digest = digest(path);
        if digest % self.slice.of == self.slice.index {
            self.digests.insert(digest);
        }
        if self.digests.len() > self.max { Err(Full) } else { Ok(()) }
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.digests.remove(&digest(path));
    }

    /// Adds every name of another set of the same slice.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), Full> {
        self.digests.extend(other.digests);
        if self.digests.len() > self.max { Err(Full) } else { Ok(()) }
    }

    /// True when something may name this file.
    pub fn contains(&self, path: &str) -> bool {
        self.digests.contains(&digest(path))
    }

    pub(super) fn slice(&self) -> Slice {
        self.slice
    }
}

/// For tests and plans over names at hand.
impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<I: IntoIterator<Item = &'a str>>(paths: I) -> Self {
        let digests = paths.into_iter().map(digest).collect();
        Self { slice: Slice::ALL, max: usize::MAX, digests }
    }
}

fn digest(path: &str) -> u64 {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
