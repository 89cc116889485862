//! Which partitions are assigned, and the next offset of each: ours, not the client's note.

/// Assigned partitions and the next offset of each, ascending; runs of one partition are found at once.
#[derive(Default)]
pub(super) struct Positions {
    entries: Vec<(i32, i64)>,
    last: usize,
}

impl Positions {
    pub(super) fn find(&mut self, partition: i32) -> Option<&mut i64> {
        if self.entries.get(self.last).is_none_or(|(id, _)| *id != partition) {
            self.last = self.entries.binary_search_by_key(&partition, |(id, _)| *id).ok()?;
        }
        self.entries.get_mut(self.last).map(|(_, next)| next)
    }

    pub(super) fn insert(&mut self, partition: i32, next: i64) {
        self.remove(partition);
        let place = self.entries.partition_point(|(id, _)| *id < partition);
        self.entries.insert(place, (partition, next));
    }

    pub(super) fn remove(&mut self, partition: i32) {
        self.entries.retain(|(id, _)| *id != partition);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, i64)> {
        self.entries.iter().copied()
    }

    pub(super) fn contains(&self, partition: i32) -> bool {
        self.entries.binary_search_by_key(&partition, |(id, _)| *id).is_ok()
    }
}
