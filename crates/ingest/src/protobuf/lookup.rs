//! From a field's number to its place among the steps of its message.

/// Numbers below this are looked up in a table without searching.
const DENSE_MAX: usize = 4096;
const NONE: u32 = u32::MAX;

pub(super) struct Lookup {
    /// By number.
    dense: Box<[u32]>,
    /// The others, by number.
    sparse: Box<[(u32, u32)]>,
}

impl Lookup {
    /// `numbers` of the steps, in their order.
    pub(super) fn new(numbers: &[u32]) -> Self {
        let bound = DENSE_MAX.min(64 + 16 * numbers.len());
        let length = numbers.iter().map(|number| *number as usize + 1).filter(|next| *next <= bound).max();
        let mut dense = vec![NONE; length.unwrap_or(0)];
        let mut sparse = Vec::new();
        for (index, number) in (0..).zip(numbers) {
            match dense.get_mut(*number as usize) {
                Some(place) => *place = index,
                None => sparse.push((*number, index)),
            }
        }
        sparse.sort_unstable();
        Self { dense: dense.into(), sparse: sparse.into() }
    }

    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        let index = match self.dense.get(number as usize) {
            Some(index) => *index,
            None if self.sparse.is_empty() => NONE,
            None => {
                let place = self.sparse.binary_search_by_key(&number, |(of, _)| *of).ok()?;
                self.sparse.get(place)?.1
            }
        };
        (index != NONE).then_some(index as usize)
    }
}
