//! Packed sort words: the codes of all keys over the row's place.

/// Digits of the radix sort are this wide.
const DIGIT_BITS: u32 = 11;
/// Below this many rows a comparison sort is faster than counting digits.
const RADIX_ROWS_MIN: usize = 1 << 12;

/// An unsigned word of key bits above 32 bits of place.
pub(super) trait Word: Copy + Ord + Default + Send {
    const KEY_BITS: u32;
    fn new(place: u32) -> Self;
    /// Appends a code below the codes so far.
    fn push(&mut self, code: u64, bits: u32);
    /// All codes, right-aligned.
    fn key(self) -> u128;
    fn place(self) -> u32;
    fn digit(self, shift: u32) -> usize;
}

impl Word for u64 {
    const KEY_BITS: u32 = 32;

    #[inline]
    fn new(place: u32) -> Self {
        place.into()
    }

    #[inline]
    fn push(&mut self, code: u64, bits: u32) {
        let key = (*self >> 32) << bits | code;
        *self = key << 32 | (*self & 0xffff_ffff);
    }

    #[inline]
    fn key(self) -> u128 {
        (self >> 32).into()
    }

    #[inline]
    fn place(self) -> u32 {
        self as u32
    }

    #[inline]
    fn digit(self, shift: u32) -> usize {
        (self >> (32 + shift)) as usize & ((1 << DIGIT_BITS) - 1)
    }
}

impl Word for u128 {
    const KEY_BITS: u32 = 96;

    #[inline]
    fn new(place: u32) -> Self {
        place.into()
    }

    #[inline]
    fn push(&mut self, code: u64, bits: u32) {
        let key = (*self >> 32) << bits | u128::from(code);
        *self = key << 32 | (*self & 0xffff_ffff);
    }

    #[inline]
    fn key(self) -> u128 {
        self >> 32
    }

    #[inline]
    fn place(self) -> u32 {
        self as u32
    }

    #[inline]
    fn digit(self, shift: u32) -> usize {
        (self >> (32 + shift)) as usize & ((1 << DIGIT_BITS) - 1)
    }
}

/// Sorts words whose places rise: by key, then by place.
pub(super) fn sort<W: Word>(words: &mut Vec<W>, key_bits: u32) {
    if words.is_sorted() {
        return;
    }
    if words.len() < RADIX_ROWS_MIN {
        words.sort_unstable();
        return;
    }
    radix(words, key_bits);
}

/// Least significant digit first; each pass is stable, so the places keep their order among equals.
fn radix<W: Word>(words: &mut Vec<W>, key_bits: u32) {
    let mut other = vec![W::default(); words.len()];
    let passes = key_bits.div_ceil(DIGIT_BITS) as usize;
    let mut counts = vec![[0_u32; 1 << DIGIT_BITS]; passes];
    for word in words.iter() {
        for (pass, counts) in counts.iter_mut().enumerate() {
            counts[word.digit(pass as u32 * DIGIT_BITS)] += 1;
        }
    }
    for (pass, counts) in counts.iter_mut().enumerate() {
        let shift = pass as u32 * DIGIT_BITS;
        if counts.iter().any(|count| *count as usize == words.len()) {
            continue;
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            (*count, start) = (start, start + *count);
        }
        for word in words.iter() {
            let next = &mut counts[word.digit(shift)];
            other[*next as usize] = *word;
            *next += 1;
        }
        std::mem::swap(words, &mut other);
    }
}
