//! What a table's commits came to since it was made: sums over its entries, kept with the state.

use serde::{Deserialize, Serialize};
use siltstone_protocol::{Change, Effort, FileEntry};

use super::live_files::LiveFiles;

/// Sums over all entries of a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Totals {
    pub appended_files: u64,
    pub appended_rows: u64,
    pub appended_bytes: u64,
    /// Compactions that were committed, ...
    pub rewrites: u64,
    pub rewritten_files: u64,
    pub rewritten_rows: u64,
    /// ... bytes of the files that they replaced, ...
    pub rewritten_bytes: u64,
    /// ... and of those that they made.
    pub rewrite_output_bytes: u64,
    pub effort: Effort,
    /// Changes of other programs that were taken in, and the files made of them.
    pub absorbs: u64,
    pub absorbed_files: u64,
    pub absorbed_rows: u64,
    pub absorbed_bytes: u64,
    /// What left by retention: whole files, rows in all, and the bytes that the table has become smaller by.
    pub deleted_files: u64,
    pub deleted_rows: u64,
    pub deleted_bytes: u64,
    /// Files that were rewritten without their old rows, and bytes of what took their place.
    pub cut_files: u64,
    pub cut_output_bytes: u64,
    /// Overwrites, bytes of the files that they took the place of, and of those that they made.
    pub overwrites: u64,
    pub overwritten_bytes: u64,
    pub overwrite_output_bytes: u64,
}

impl Totals {
    /// Bytes written for each byte that was ingested, compaction and retention included; `None` before there is any.
    pub fn write_amplification(&self) -> Option<f64> {
        let rewritten = self.rewrite_output_bytes.saturating_add(self.cut_output_bytes);
        let rewritten = rewritten.saturating_add(self.overwrite_output_bytes);
        let written = self.appended_bytes.saturating_add(rewritten);
        (self.appended_bytes > 0).then(|| written as f64 / self.appended_bytes as f64)
    }

    /// The share of rewritten bytes that was copied without being decoded; `None` before any rewrite.
    pub fn splice_share(&self) -> Option<f64> {
        (self.rewritten_bytes > 0).then(|| self.effort.spliced_bytes as f64 / self.rewritten_bytes as f64)
    }

    /// Adds a change that is about to be applied to these files.
    pub(super) fn add(&mut self, change: &Change, live: &LiveFiles) {
        match change {
            Change::Append { files, .. } => {
                let (count, rows, bytes) = sums(files.iter());
                self.appended_files += count;
                self.appended_rows += rows;
                self.appended_bytes += bytes;
            }
            Change::Replace { removed, added, effort } => {
                let (count, rows, bytes) = sums(removed.iter().filter_map(|path| live.get(path)));
                self.rewrites += 1;
                self.rewritten_files += count;
                self.rewritten_rows += rows;
                self.rewritten_bytes += bytes;
                self.rewrite_output_bytes += sums(added.iter()).2;
                self.effort.spliced_bytes += effort.spliced_bytes;
                self.effort.dropped_plans += effort.dropped_plans;
            }
            Change::Delete { removed, added } => {
                let (count, rows, bytes) = sums(removed.iter().filter_map(|path| live.get(path)));
                let (_, stayed_rows, stayed_bytes) = sums(added.iter());
                let files = if added.is_empty() { &mut self.deleted_files } else { &mut self.cut_files };
                *files += count;
                self.deleted_rows += rows.saturating_sub(stayed_rows);
                self.deleted_bytes += bytes.saturating_sub(stayed_bytes);
                self.cut_output_bytes += stayed_bytes;
            }
            Change::Overwrite { removed, added, .. } => {
                self.overwrites += 1;
                self.overwritten_bytes += sums(removed.iter().filter_map(|path| live.get(path))).2;
                self.overwrite_output_bytes += sums(added.iter()).2;
            }
            Change::Absorb { added, .. } => {
                let (count, rows, bytes) = sums(added.iter());
                self.absorbs += 1;
                self.absorbed_files += count;
                self.absorbed_rows += rows;
                self.absorbed_bytes += bytes;
            }
            _ => {}
        }
    }
}

fn sums<'a>(files: impl Iterator<Item = &'a FileEntry>) -> (u64, u64, u64) {
    files.fold((0, 0, 0), |(count, rows, bytes), file| (count + 1, rows + file.rows, bytes + file.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, rows: u64, bytes: u64) -> FileEntry {
        FileEntry {
            path: format!("data/{name}.parquet"),
            bytes,
            rows,
            schema_id: 0,
            spec_id: 0,
            sort_order_id: 0,
            partition_token: None,
        }
    }

    #[test]
    fn sums_tell_what_was_written_for_what_was_ingested() {
        let mut totals = Totals::default();
        assert_eq!((totals.write_amplification(), totals.splice_share()), (None, None));
        let files = vec![file("a", 10, 1000), file("b", 20, 3000)];
        let append = Change::append(files.clone(), Vec::new(), Vec::new());
        totals.add(&append, &LiveFiles::default());
        assert_eq!(totals.write_amplification(), Some(1.0));
        let live: LiveFiles = files.iter().cloned().collect();
        let replace = Change::Replace {
            removed: files.iter().map(|file| file.path.clone()).collect(),
            added: vec![file("c", 30, 2000)],
            effort: Effort { spliced_bytes: 1000, dropped_plans: 2 },
        };
        totals.add(&replace, &live);
        assert_eq!((totals.write_amplification(), totals.splice_share()), (Some(1.5), Some(0.25)));
        assert_eq!((totals.rewritten_files, totals.rewritten_rows, totals.rewritten_bytes), (2, 30, 4000));
        let live: LiveFiles = [file("c", 30, 2000)].into_iter().collect();
        let removed = vec!["data/c.parquet".to_owned()];
        let mut cut = totals;
        cut.add(&Change::Delete { removed: removed.clone(), added: vec![file("d", 12, 800)] }, &live);
        assert_eq!((cut.deleted_files, cut.deleted_rows, cut.deleted_bytes), (0, 18, 1200));
        assert_eq!((cut.cut_files, cut.cut_output_bytes, cut.write_amplification()), (1, 800, Some(1.7)));
        totals.add(&Change::Delete { removed, added: Vec::new() }, &live);
        assert_eq!((totals.deleted_files, totals.deleted_rows, totals.deleted_bytes), (1, 30, 2000));
        assert_eq!(totals.effort.dropped_plans, 2);
    }
}
