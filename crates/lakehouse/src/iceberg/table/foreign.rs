//! What other programs did to the Iceberg table: how an absorb is shown here, and what the next one takes in.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures::StreamExt;
use iceberg::spec::{ManifestContentType, ManifestFile};
use object_store::path::Path;
use siltstone_datafile::{DeletedRows, ForeignFile, read_position_deletes};
use siltstone_protocol::Format;

use super::{Draft, IcebergTable, READS_AT_ONCE, Step, Work};
use crate::{
    error::LakeError,
    foreign::{Apart, Comparison, operation, refused},
    iceberg::{
        bucket::Bucket,
        data_file::ManifestEntry,
        draft::{REBUILD, is_live},
        manifests,
        steps::{Absorb, Swap},
    },
    ledger::{Ledger, LedgerState, path_digest},
};

/// Deleted rows of merge-on-read files that are held at once.
const POSITIONS_MAX: usize = 64 << 20;
const EQUALITY: i64 = 2;

/// Positions by URL of the data file: the delete's sequence number, and the row.
type Positions = HashMap<String, Vec<(i64, u64)>>;

impl IcebergTable {
    /// The step as it is to be shown on this draft.
    pub(super) async fn here<'s>(
        &self,
        ledger: &Ledger,
        draft: &Draft,
        state: &LedgerState,
        step: &'s Step,
    ) -> Result<Cow<'s, Step>, LakeError> {
        let Work::Absorb(absorb) = &step.work else { return Ok(Cow::Borrowed(step)) };
        let urls = || absorb.removed.iter().map(|path| self.bucket.url_of(path)).collect();
        let work = if draft.metadata.apart().is_none() {
            swap(absorb, urls(), HashSet::new(), None)
        } else if absorb.format == Format::Iceberg {
            self.own(ledger, draft, state, step, absorb).await?
        } else if self.all_whole(draft, absorb).await? {
            swap(absorb, urls(), HashSet::new(), None)
        } else if absorb.same_rows {
            Work::PassedOver
        } else {
            let problem = format!(
                "changed files whose rows another program changed in {} at the same time; {REBUILD}",
                absorb.format.as_str()
            );
            return Err(refused(&state.name, Format::Iceberg, step.version, &problem));
        };
        Ok(Cow::Owned(Step { work, ..step.clone() }))
    }

    /// True when every file that an absorb takes away is there, with all its rows.
    async fn all_whole(&self, draft: &Draft, absorb: &Absorb) -> Result<bool, LakeError> {
        let deletes = |line: &&ManifestFile| line.content == ManifestContentType::Deletes && is_live(line);
        if draft.manifests.iter().any(|line| deletes(&line)) {
            return Ok(false);
        }
        let mut wanted: HashSet<&str> = absorb.removed.iter().map(String::as_str).collect();
        let bucket = self.bucket.clone();
        self.each_entry(&draft.manifests, ManifestContentType::Data, &mut |_, entry| {
            if let Some(below) = bucket.below(&entry.file.path) {
                wanted.remove(below);
            }
            Ok(())
        })
        .await?;
        Ok(wanted.is_empty())
    }

    /// An absorb of what was done here: our files take the place of those that were read, if they are all there.
    async fn own(
        &self,
        ledger: &Ledger,
        draft: &Draft,
        state: &LedgerState,
        step: &Step,
        absorb: &Absorb,
    ) -> Result<Work, LakeError> {
        let key = ledger.token_key().await?;
        let mut absorbed: HashSet<&str> = absorb.absorbed.iter().map(String::as_str).collect();
        let removed: HashSet<&str> = absorb.removed.iter().map(String::as_str).collect();
        let bucket = self.bucket.clone();
        let (mut urls, mut back) = (HashSet::new(), 0);
        self.each_entry(&draft.manifests, ManifestContentType::Data, &mut |_, entry| {
            let url = &entry.file.path;
            let below = bucket.below(url).unwrap_or(url);
            if state.live_files.contains_key(below) {
                return Ok(());
            }
            if absorbed.remove(path_digest(&key, below).as_str()) {
                urls.insert(url.clone());
            } else if removed.contains(below) {
                back += 1;
            }
            Ok(())
        })
        .await?;
        let mut lines: BTreeMap<String, bool> = BTreeMap::new();
        self.each_entry(&draft.manifests, ManifestContentType::Deletes, &mut |line, entry| {
            let below = bucket.below(&entry.file.path).unwrap_or(&entry.file.path);
            let known = absorbed.remove(path_digest(&key, below).as_str());
            *lines.entry(line.manifest_path.clone()).or_insert(true) &= known;
            Ok(())
        })
        .await?;
        if back > 0 {
            let problem = format!("brought back {back} files that were taken away before; {REBUILD}");
            return Err(refused(&state.name, Format::Iceberg, step.version, &problem));
        }
        // Something was changed again since the look: what is there now is the next absorb's.
        if !absorbed.is_empty() || lines.values().any(|known| !known) {
            return Ok(Work::PassedOver);
        }
        let deletes = lines.into_keys().collect();
        Ok(swap(absorb, urls, deletes, Some((absorb.seen, absorb.base))))
    }

    /// Compares the head with the ledger, if another program changed it.
    pub(super) async fn compare_head(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
    ) -> Result<Comparison, LakeError> {
        if !self.look().await? {
            return Ok(Comparison::Agrees);
        }
        self.check(state)?;
        let Some(head) = &self.head else { return Ok(Comparison::Agrees) };
        let idle = super::idle_at(&self.idle, head);
        if head.metadata.version().max(idle) != Some(state.version) {
            return Ok(Comparison::Behind);
        }
        let lines = self.head_manifests().await?;
        let Some(head) = &self.head else { return Ok(Comparison::Behind) };
        let seen = u64::try_from(head.metadata.last_sequence_number).unwrap_or(0);
        let before = state.absorbs.get(&Format::Iceberg).map_or(0, |last| last.seen);
        let mut commits: BTreeMap<&'static str, u64> = BTreeMap::new();
        for snapshot in head.metadata.foreign_since(before) {
            let said = snapshot.summary.get("operation").map_or("", String::as_str);
            *commits.entry(operation(said)).or_default() += 1;
        }
        let mut apart = Apart {
            format: Format::Iceberg,
            base: state.version,
            seen,
            removed: Vec::new(),
            files: Vec::new(),
            absorbed: Vec::new(),
            same_rows: !commits.is_empty() && commits.keys().all(|said| *said == "replace"),
            commits,
            outside: 0,
        };
        self.collect(ledger, state, &lines, &mut apart).await?;
        Ok(Comparison::Apart(Box::new(apart.bounded(&state.name, REBUILD)?)))
    }

    /// Whether the newest metadata says that the table is apart, or was written by another program.
    pub(super) async fn look(&mut self) -> Result<bool, LakeError> {
        if !self.is_newest().await? {
            self.head = None;
        }
        self.load().await?;
        let apart = |head: &super::Head| head.metadata.is_foreign_head() || head.metadata.apart().is_some();
        Ok(self.head.as_ref().is_some_and(apart))
    }

    async fn collect(
        &self,
        ledger: &Ledger,
        state: &LedgerState,
        lines: &[ManifestFile],
        apart: &mut Apart,
    ) -> Result<(), LakeError> {
        let key = ledger.token_key().await?;
        let table = state.name.as_str();
        let refuse = |problem: &str| refused(table, Format::Iceberg, apart.seen, problem);
        let (positions, equality) = self.deletes(lines, &key, apart.seen, table, &mut apart.absorbed).await?;
        let mut there: HashSet<String> = HashSet::new();
        let (files, absorbed, removed, outside) =
            (&mut apart.files, &mut apart.absorbed, &mut apart.removed, &mut apart.outside);
        self.each_entry(lines, ManifestContentType::Data, &mut |_, entry| {
            if equality.is_some_and(|number| entry.sequence_number < number) {
                return Err(refuse(
                    "deletes rows by equality delete files, which are not applied here; rewrite the table's data files \
                     with that program, then start again",
                ));
            }
            let url = &entry.file.path;
            let Some(below) = self.bucket.below(url) else {
                *outside += 1;
                return Ok(());
            };
            let deleted = deleted_rows(positions.get(url), entry);
            let ours = state.live_files.contains_key(below);
            if ours {
                there.insert(below.to_owned());
                if deleted.is_none() {
                    return Ok(());
                }
                removed.push(below.to_owned());
            }
            if entry.file.format != "PARQUET" {
                return Err(refuse(&format!("added files that are not Parquet; {REBUILD}")));
            }
            let digest = path_digest(&key, below);
            let location = Path::parse(format!("{}/{below}", self.bucket.location));
            files.push(ForeignFile {
                location: location.map_err(|_| refuse("named a file by what is no path in a store"))?,
                label: format!("of another program, {digest}"),
                rows: u64::try_from(entry.file.rows).ok(),
                by_name: false,
                constants: BTreeMap::new(),
                deleted: deleted.map(Arc::new),
            });
            absorbed.push(digest);
            Ok(())
        })
        .await?;
        let missing = state.live_files.keys().filter(|path| !there.contains(*path));
        removed.extend(missing.cloned());
        if *outside > 0 && !removed.is_empty() {
            return Err(refuse(&format!(
                "put rows of the table into files that lie outside of its location; {REBUILD}"
            )));
        }
        Ok(())
    }

    /// What the delete files of these manifests delete: positions, and the newest sequence number of deletes by
    /// equality. Their digests go to `absorbed`.
    async fn deletes(
        &self,
        lines: &[ManifestFile],
        key: &[u8; 32],
        seen: u64,
        table: &str,
        absorbed: &mut Vec<String>,
    ) -> Result<(Positions, Option<i64>), LakeError> {
        let (mut found, mut equality) = (Vec::new(), None);
        let refuse = |problem: &str| refused(table, Format::Iceberg, seen, problem);
        self.each_entry(lines, ManifestContentType::Deletes, &mut |_, entry| {
            let below = self.bucket.below(&entry.file.path);
            let digest = path_digest(key, below.unwrap_or(&entry.file.path));
            absorbed.push(digest.clone());
            if entry.file.content == EQUALITY {
                equality = equality.max(Some(entry.sequence_number));
                return Ok(());
            }
            let location =
                below.and_then(|below| Path::parse(format!("{}/{below}", self.bucket.location)).ok());
            let location = location.filter(|_| entry.file.format == "PARQUET").ok_or_else(|| {
                refuse(&format!(
                    "deletes rows by files that are not Parquet in the table's location; {REBUILD}"
                ))
            })?;
            let file = ForeignFile {
                location,
                label: format!("of another program, {digest}"),
                rows: u64::try_from(entry.file.rows).ok(),
                by_name: false,
                constants: BTreeMap::new(),
                deleted: None,
            };
            found.push((entry.sequence_number, file));
            Ok(())
        })
        .await?;
        let (mut positions, mut count) = (Positions::new(), 0);
        for (number, file) in found {
            let mut each = |url: &str, row: u64| {
                count += 1;
                match positions.get_mut(url) {
                    Some(rows) => rows.push((number, row)),
                    None => {
                        positions.insert(url.to_owned(), vec![(number, row)]);
                    }
                }
                count < POSITIONS_MAX
            };
            if !read_position_deletes(&self.bucket.store, &file, &mut each).await? {
                return Err(refuse(
                    "deletes more rows by position than are held at once; rewrite the table's data files with that \
                     program, then start again",
                ));
            }
        }
        Ok((positions, equality))
    }

    /// Calls `each` with every live entry of the manifests of this content. Few manifests are held at a time.
    async fn each_entry(
        &self,
        lines: &[ManifestFile],
        content: ManifestContentType,
        each: &mut (dyn FnMut(&ManifestFile, &ManifestEntry) -> Result<(), LakeError> + Send),
    ) -> Result<(), LakeError> {
        let lines = lines.iter().filter(|line| line.content == content && is_live(line));
        let reads: Vec<_> = lines.map(|line| read(self.bucket.clone(), line.clone())).collect();
        let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (line, manifest) = read?;
            manifest
                .entries
                .iter()
                .filter(|entry| entry.is_live())
                .try_for_each(|entry| each(&line, entry))?;
        }
        Ok(())
    }
}

async fn read(
    bucket: Bucket,
    line: ManifestFile,
) -> Result<(ManifestFile, Arc<crate::iceberg::decode::Manifest>), LakeError> {
    let manifest = manifests::read(&bucket, &line).await?;
    Ok((line, manifest))
}

/// The rows of a file that deletes no older than it name.
fn deleted_rows(positions: Option<&Vec<(i64, u64)>>, entry: &ManifestEntry) -> Option<DeletedRows> {
    let applies = positions?.iter().filter(|(number, _)| *number >= entry.sequence_number);
    let rows: Vec<u64> = applies.map(|(_, row)| *row).collect();
    (!rows.is_empty()).then(|| DeletedRows::new(rows))
}

fn swap(
    absorb: &Absorb,
    removed: HashSet<String>,
    deletes: HashSet<String>,
    covers: Option<(u64, u64)>,
) -> Work {
    let operation = match (removed.is_empty(), absorb.added.is_empty()) {
        // What was done here is shown here already.
        _ if absorb.same_rows || covers.is_some() => "replace",
        (true, _) => "append",
        (false, true) => "delete",
        (false, false) => "overwrite",
    };
    Work::Swap(Box::new(Swap { removed, deletes, added: absorb.added.clone(), operation, covers }))
}
