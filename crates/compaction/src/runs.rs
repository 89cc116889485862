//! Sorted runs: files of one partition whose key ranges do not overlap, in key order.
//!
//! Files are taken by their first key; each goes to the run whose last key is the greatest that is not
//! above it, or begins a run. That makes the fewest runs there can be, and so their number is the greatest
//! number of files over one key: the depth.

use std::collections::BTreeSet;

/// A file's place in the caller's list, and its first and last key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranged<'a> {
    pub(crate) file: usize,
    pub(crate) first: &'a [u8],
    pub(crate) last: &'a [u8],
}

/// Divides files into the fewest runs. Within a run files are in key order.
pub(crate) fn runs<'a>(mut files: Vec<Ranged<'a>>) -> Vec<Vec<Ranged<'a>>> {
    sort_by_key(&mut files);
    let mut runs: Vec<Vec<Ranged<'a>>> = Vec::new();
    let mut ends: BTreeSet<(&'a [u8], usize)> = BTreeSet::new();
    for file in files {
        // Ranges that only touch share one key at most, which may stand in both files.
        let before = ends.range(..=(file.first, usize::MAX)).next_back().copied();
        let run = match before {
            Some(end) => {
                ends.remove(&end);
                runs[end.1].push(file);
                end.1
            }
            None => {
                runs.push(vec![file]);
                runs.len() - 1
            }
        };
        ends.insert((file.last, run));
    }
    runs
}

/// Maximal groups of files that overlap each other, directly or through others; those of one file are
/// left out. Within a group files are in key order, so that every prefix of two or more overlaps too.
pub(crate) fn overlapping(mut files: Vec<Ranged<'_>>) -> Vec<Vec<Ranged<'_>>> {
    sort_by_key(&mut files);
    let mut groups: Vec<Vec<Ranged<'_>>> = Vec::new();
    let mut last: &[u8] = &[];
    for file in files {
        match groups.last_mut() {
            Some(group) if file.first < last => {
                last = last.max(file.last);
                group.push(file);
            }
            _ => {
                last = file.last;
                groups.push(vec![file]);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

fn sort_by_key(files: &mut [Ranged<'_>]) {
    files.sort_unstable_by(|a, b| (a.first, a.last, a.file).cmp(&(b.first, b.last, b.file)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranged(ranges: &[(u8, u8)]) -> Vec<([u8; 1], [u8; 1])> {
        ranges.iter().map(|(a, b)| ([*a.min(b)], [*a.max(b)])).collect()
    }

    proptest! {
        #[test]
        fn runs_are_disjoint_and_as_many_as_the_depth(
            ranges in proptest::collection::vec((0_u8..60, 0_u8..60), 0..40)
        ) {
            let keys = ranged(&ranges);
            let files: Vec<Ranged<'_>> = keys
                .iter()
                .enumerate()
                .map(|(file, (first, last))| Ranged { file, first, last })
                .collect();
            let made = runs(files.clone());
            let mut seen: Vec<usize> = made.iter().flatten().map(|file| file.file).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..files.len()).collect::<Vec<_>>());
            for run in &made {
                prop_assert!(run.windows(2).all(|pair| pair[0].last <= pair[1].first));
            }
            // Depth between two neighbouring keys; a range of one key lies over that key alone.
            let over = |point: u16| {
                keys.iter()
                    .filter(|(a, b)| {
                        let (a, b) = (u16::from(a[0]) * 2, u16::from(b[0]) * 2);
                        a < point && point < b
                    })
                    .count()
            };
            let depth = (0..60).map(|key| over(key * 2 + 1)).max().unwrap();
            prop_assert!(made.len() >= depth);
            let groups = overlapping(files);
            for group in &groups {
                prop_assert!(group.len() > 1 && group[1].first < group[0].last);
            }
            if made.len() <= 1 {
                prop_assert!(groups.is_empty());
            }
        }
    }
}
