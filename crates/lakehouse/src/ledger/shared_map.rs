//! A map that is shared between the states of a table's versions.
//!
//! Committer, projections, compactor and janitor each hold a state. A copy costs nothing here, and a change after it
//! costs the few nodes on its way, however much is in the map.

use std::{
    borrow::Borrow,
    fmt,
    ops::{Index, RangeBounds},
};

use rpds::RedBlackTreeMapSync;

/// A sorted map; a copy is cheap.
pub struct SharedMap<K: Ord, V>(RedBlackTreeMapSync<K, V>);

impl<K: Ord, V> SharedMap<K, V> {
    pub fn len(&self) -> usize {
        self.0.size()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.get(key)
    }

    /// All of it, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// What lies in a range of keys, by key.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> {
        self.0.range(range)
    }

    /// Takes a value in, in place of that of the same key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.insert_mut(key, value);
    }
}

impl<K: Ord, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(RedBlackTreeMapSync::new_sync())
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        pairs.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        &self.0[key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_was() {
        let mut map: SharedMap<u32, u32> = (0..100).map(|number| (number, number)).collect();
        let before = map.clone();
        map.insert(50, 0);
        map.insert(200, 1);
        assert_eq!((before.len(), map.len()), (100, 101));
        assert_eq!((before[&50], map[&50], before.get(&200)), (50, 0, None));
        assert_ne!(before, map);
        assert_eq!(before, (0..100).rev().map(|number| (number, number)).collect());
        assert!(map.range(98..).map(|(key, _)| *key).eq([98, 99, 200]));
        assert!(SharedMap::<u32, u32>::default().is_empty() && !map.is_empty());
    }
}
