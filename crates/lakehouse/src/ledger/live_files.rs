//! The live files of a table, by path, shared between the states of its versions.
//!
//! A state is kept by the committer and copied for each projection, the compactor and the janitor. A copy costs
//! nothing here, and a change after it costs the few nodes on its way: a file is held once per process, however
//! many states name it. Paths hold a ULID, so their order is that in which files were made.

use std::{borrow::Borrow, cmp::Ordering, fmt};

use rpds::RedBlackTreeSetSync;
use siltstone_protocol::FileEntry;

/// Files by path; a copy is cheap.
#[derive(Clone, Default)]
pub struct LiveFiles(RedBlackTreeSetSync<ByPath>);

impl LiveFiles {
    pub fn len(&self) -> usize {
        self.0.size()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, path: &str) -> Option<&FileEntry> {
        self.0.get(path).map(|file| &file.0)
    }

    pub fn contains_key(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// The files, by path.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &FileEntry> {
        self.0.iter().map(|file| &file.0)
    }

    /// The paths, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &String> {
        self.values().map(|file| &file.path)
    }

    /// Takes a file in, in place of one with the same path.
    pub(super) fn insert(&mut self, file: FileEntry) {
        self.0.insert_mut(ByPath(file));
    }

    /// Lets a file go; what it was.
    pub(super) fn remove(&mut self, path: &str) -> Option<FileEntry> {
        let file = self.get(path)?.clone();
        self.0.remove_mut(path);
        Some(file)
    }
}

impl PartialEq for LiveFiles {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.values().eq(other.values())
    }
}

impl FromIterator<FileEntry> for LiveFiles {
    fn from_iter<I: IntoIterator<Item = FileEntry>>(files: I) -> Self {
        let mut live = Self::default();
        files.into_iter().for_each(|file| live.insert(file));
        live
    }
}

impl fmt::Debug for LiveFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

/// A file that is found by its path.
struct ByPath(FileEntry);

impl Borrow<str> for ByPath {
    fn borrow(&self) -> &str {
        &self.0.path
    }
}

impl Ord for ByPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.path.cmp(&other.0.path)
    }
}

impl PartialOrd for ByPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.path == other.0.path
    }
}

impl Eq for ByPath {}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64) -> FileEntry {
        FileEntry {
            path: format!("data/{number:03}.parquet"),
            bytes: number,
            rows: 1,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 0,
            partition_token: None,
        }
    }

    #[test]
    fn a_copy_keeps_what_it_was() {
        let mut live: LiveFiles = (0..100).rev().map(file).collect();
        let before = live.clone();
        assert_eq!(live.remove("data/050.parquet"), Some(file(50)));
        assert_eq!(live.remove("data/050.parquet"), None);
        live.insert(file(200));
        assert_eq!((before.len(), live.len()), (100, 100));
        assert!(before.contains_key("data/050.parquet") && !live.contains_key("data/050.parquet"));
        assert!(before.values().map(|file| file.bytes).eq(0..100));
        assert_eq!(live.values().next_back(), Some(&file(200)));
        assert_ne!(before, live);
        assert_eq!(before, (0..100).map(file).collect());
    }

    #[test]
    fn equal_paths_are_not_equal_files() {
        let changed = FileEntry { rows: 2, ..file(1) };
        let live: LiveFiles = [file(1)].into_iter().collect();
        assert_ne!(live, [changed].into_iter().collect());
        assert_eq!(live.get("data/001.parquet"), Some(&file(1)));
    }
}
