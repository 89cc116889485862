//! What other programs did to the Delta table: how steps are shown beside it, and what the next absorb takes in.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use siltstone_datafile::ForeignFile;
use siltstone_protocol::{Change, Entry, FileEntry, Format};

use super::{DeltaTable, Head};
use crate::{
    delta::{
        actions::{Action, Remove, Seen},
        draft::{Context, Draft, Swap, app_id, relative},
        retained::{AddedFile, Retained, ShownFiles},
    },
    error::LakeError,
    foreign::{Apart, Comparison, Marker, NO_OVERWRITE, refused},
    ledger::{Ledger, LedgerState, path_digest},
};

/// Commits looked at for what other programs say that they did.
const COMMITS_READ_MAX: u64 = 1_000;
const READS_AT_ONCE: usize = 16;
const REBUILD: &str = "to have it rebuilt from the ledger, without that change, stop the workers, delete \
                       data/_delta_log and start them again";

impl DeltaTable {
    /// The next commit, over a prefix of these entries. While Delta is apart, what does not fit is passed over.
    /// `context.apart` becomes what Delta is after it.
    pub(super) async fn draft(
        &self,
        ledger: &Ledger,
        context: &mut Context<'_>,
        entries: &[Arc<Entry>],
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let (Some(first), Some(head)) = (entries.first(), &self.head) else {
            return context.next(entries, gone).await;
        };
        if head.apart.is_none() {
            return context.next(entries, gone).await;
        }
        let state = context.state;
        match &first.change {
            Change::Delete { removed, added } if added.is_empty() => {
                let shown = self.shown_files(head, state).await?;
                let there: Vec<String> =
                    removed.iter().filter(|path| shown.contains(relative(path))).cloned().collect();
                context.delete(first, &there, &[], gone).await
            }
            Change::Replace { removed, .. } | Change::Delete { removed, .. } => {
                let shown = self.shown_files(head, state).await?;
                if removed.iter().all(|path| gone.contains(path) || shown.contains(relative(path))) {
                    return context.next(entries, gone).await;
                }
                pass_over(context, first)
            }
            Change::Absorb { format: Format::Delta, base, seen, removed, added, absorbed, .. } => {
                let look = Marker { seen: *seen, skipped: *base };
                self.own(ledger, context, first, look, Lists { removed, added, absorbed }, gone).await
            }
            Change::Overwrite { removed, .. } => {
                let shown = self.shown_files(head, state).await?;
                if removed.iter().all(|path| gone.contains(path) || shown.contains(relative(path))) {
                    return context.next(entries, gone).await;
                }
                let problem = format!("{NO_OVERWRITE}; {REBUILD}");
                Err(refused(&state.name, Format::Delta, head.log_version, &problem))
            }
            Change::Absorb { removed, same_rows, format, .. } => {
                let shown = self.shown_files(head, state).await?;
                if removed.iter().all(|path| shown.contains(relative(path))) {
                    return context.next(entries, gone).await;
                }
                if *same_rows {
                    return pass_over(context, first);
                }
                let problem = format!(
                    "changed files whose rows another program changed in {} at the same time; {REBUILD}",
                    format.as_str()
                );
                Err(refused(&state.name, Format::Delta, head.log_version, &problem))
            }
            _ => context.next(entries, gone).await,
        }
    }

    /// An absorb of what was done here: our files take the place of those that were read, if they are all there.
    async fn own(
        &self,
        ledger: &Ledger,
        context: &mut Context<'_>,
        entry: &Entry,
        look: Marker,
        lists: Lists<'_>,
        gone: &mut HashSet<String>,
    ) -> Result<Draft, LakeError> {
        let Some(head) = &self.head else { return context.next(&[], gone).await };
        let state = context.state;
        let key = ledger.token_key().await?;
        let shown = self.shown_files(head, state).await?;
        let mut absorbed: HashSet<&str> = lists.absorbed.iter().map(String::as_str).collect();
        let back: HashSet<&str> = lists.removed.iter().map(|path| relative(path)).collect();
        let mut removes = Vec::new();
        for (path, file) in &shown.others {
            if absorbed.remove(path_digest(&key, path).as_str()) {
                removes.push(remove(file, entry.committed_ms));
            } else if back.contains(path.as_str()) {
                let problem = format!("brought back files that were taken away before; {REBUILD}");
                return Err(refused(&state.name, Format::Delta, head.log_version, &problem));
            }
        }
        // Something was changed again since the look: what is there now is the next absorb's.
        if !absorbed.is_empty() {
            return pass_over(context, entry);
        }
        if context.apart.is_some_and(|marker| marker.is_covered_by(look.seen, look.skipped)) {
            context.apart = None;
        }
        // The rows are those that Delta shows already.
        let swap = Swap { removed: removes, added: lists.added };
        let mut draft = context.swap(entry, swap, false, gone).await?;
        if draft.actions.is_none() {
            draft.actions = Some(context.mark(entry)?);
        }
        Ok(draft)
    }

    /// Compares the newest version of the log with the ledger, if another program changed files.
    pub(super) async fn compare_head(
        &mut self,
        ledger: &Ledger,
        state: &LedgerState,
    ) -> Result<Comparison, LakeError> {
        self.doubt();
        self.look().await?;
        let Some(head) = self.head.clone() else { return Ok(Comparison::Agrees) };
        if head.apart.is_none() || head.app_id != app_id(&state.table_uuid) {
            return Ok(Comparison::Agrees);
        }
        if head.shown != state.version {
            return Ok(Comparison::Behind);
        }
        let before = state.absorbs.get(&Format::Delta).map_or(0, |last| last.seen);
        let (commits, same_rows) = self.said(before, head.log_version).await?;
        let mut apart = Apart {
            format: Format::Delta,
            base: state.version,
            seen: head.log_version,
            removed: Vec::new(),
            files: Vec::new(),
            absorbed: Vec::new(),
            same_rows,
            commits,
            outside: 0,
        };
        let key = ledger.token_key().await?;
        let shown = self.shown_files(&head, state).await?;
        let missing = state.live_files.keys().filter(|path| !shown.contains(relative(path)));
        apart.removed.extend(missing.cloned());
        let refuse = |problem: &str| refused(&state.name, Format::Delta, head.log_version, problem);
        for (path, file) in shown.others {
            if path.contains("://") || path.starts_with('/') {
                apart.outside += 1;
                continue;
            }
            if file.has_deletion_vector() {
                return Err(refuse(&format!(
                    "deletes rows by deletion vectors, which are not applied here; {REBUILD}"
                )));
            }
            let digest = path_digest(&key, &path);
            let below = Path::from_url_path(&path);
            let below = below.map_err(|_| refuse("named a file by what is no path in a store"))?;
            let root = self.location.parts().chain(Path::from("data").parts()).chain(below.parts()).collect();
            apart.files.push(ForeignFile {
                location: root,
                label: format!("of another program, {digest}"),
                rows: None,
                by_name: true,
                constants: file.partition_values,
                deleted: None,
            });
            apart.absorbed.push(digest);
        }
        if apart.outside > 0 && !apart.removed.is_empty() {
            return Err(refuse(&format!(
                "put rows of the table into files that lie outside of its location; {REBUILD}"
            )));
        }
        Ok(Comparison::Apart(Box::new(apart.bounded(&state.name, REBUILD)?)))
    }

    /// What other programs say that they did after a version, and whether all say that rows stayed as they were.
    async fn said(&self, after: u64, newest: u64) -> Result<(BTreeMap<&'static str, u64>, bool), LakeError> {
        let first = (after + 1).max(newest.saturating_sub(COMMITS_READ_MAX));
        let reads: Vec<_> = (first..=newest).map(|version| self.log.read(version)).collect();
        let seen: Vec<Option<Seen>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        let whole = first == after + 1 && seen.iter().all(Option::is_some);
        let foreign = seen.into_iter().flatten().filter(|seen| seen.own.is_none() && seen.changes_files);
        let (mut commits, mut same_rows) = (BTreeMap::new(), whole);
        for seen in foreign {
            *commits.entry(seen.operation).or_default() += 1;
            same_rows &= !seen.changes_data;
        }
        same_rows &= !commits.is_empty();
        Ok((commits, same_rows))
    }

    /// The files that the head's version shows, with what the log says of those that are not the ledger's.
    async fn shown_files(&self, head: &Head, state: &LedgerState) -> Result<ShownFiles, LakeError> {
        let retained = Retained::list(&self.log).await?;
        let retained = retained.ok_or_else(|| LakeError::data(self.log.path(), "is gone"))?;
        let known = |path: &str| state.live_files.contains_key(&format!("data/{path}"));
        retained.shown(&self.log, head.log_version, &known).await
    }
}

/// What an absorb lists.
struct Lists<'a> {
    removed: &'a [String],
    added: &'a [FileEntry],
    absorbed: &'a [String],
}

/// A commit that says that an entry is passed over.
fn pass_over(context: &mut Context<'_>, entry: &Entry) -> Result<Draft, LakeError> {
    tracing::info!(
        table = context.state.name,
        version = entry.version,
        kind = entry.change.kind(),
        "another program changed files that leave the table here: the change is passed over in Delta"
    );
    context.apart = Some(Marker::skipped(context.apart, entry.version));
    let actions = context.mark(entry)?;
    Ok(Draft { version: entry.version, schema_id: context.schema_id, actions: Some(actions) })
}

fn remove(file: &AddedFile, committed_ms: i64) -> Action {
    Action::Remove(Remove {
        path: file.path.clone(),
        deletion_timestamp: committed_ms,
        data_change: false,
        extended_file_metadata: true,
        partition_values: Some(file.partition_values.clone()),
        size: Some(file.size),
    })
}
