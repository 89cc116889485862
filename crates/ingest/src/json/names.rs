//! From a member's name to its column.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// The names of one struct's members.
#[derive(Debug)]
pub(super) struct Names {
    columns: HashMap<Box<str>, usize, BuildHasherDefault<NameHasher>>,
}

impl Names {
    /// The names and their columns; `None` when a name comes twice.
    pub(super) fn new<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> Option<Self> {
        let mut columns = HashMap::default();
        for (name, column) in names {
            if columns.insert(Box::from(name), column).is_some() {
                return None;
            }
        }
        Some(Self { columns })
    }

    #[inline]
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.columns.get(name).copied()
    }
}

/// Multiply and fold, eight bytes at a time. Only names of the table's schema are stored, so that no record
/// can make a bucket long, and a keyed hash would buy nothing.
#[derive(Default)]
struct NameHasher(u64);

impl NameHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let rest = tail.iter().fold(bytes.len() as u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.mix(rest);
    }

    #[inline]
    fn write_u8(&mut self, _: u8) {
        // The byte that ends a `str`: the length is in the hash already.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
