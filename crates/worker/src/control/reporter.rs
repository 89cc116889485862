//! Reports what happened to tables: the ledger's entries since the last acknowledged version.
//!
//! 1. Entries are read from the ledger in the bucket. Nothing feeds this task, nobody waits for it, and what it did
//!    not report yet it reports when it can: after an outage, or from another worker.
//! 2. At first the control plane is asked where it stands. The entry at which it stands is sent again, so that a
//!    table that was made anew shows.
//! 3. When entries are gone by retention, or do not join on to what the control plane holds, it gets an image.
//! 4. One worker a table does it, by the share of the source partitions; two at once do no harm.
//!
//! An answer is believed as far as it fits: a version that the ledger does not have, or one that nobody asked about,
//! is a fault, after which this table rests for a while.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use siltstone_protocol::{Ack, Change, Entry, FileEntry, Report, report::ENTRIES_MAX};
use tokio::sync::watch;

use super::{About, Wire, WireError, image, statistics};
use crate::{
    compactor::Share,
    error::{ForTable, WorkerError},
    identity::Identity,
    runtime::TableRuntime,
    table::Table,
};

/// Tables are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Commits of other workers are looked for this often.
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// Tables reported at once.
const TABLES_AT_ONCE: usize = 4;
/// A report is closed near this size, bytes; entries are read in steps of so many.
pub(super) const TARGET_BYTES: usize = 1 << 20;
const READ_STEP: u64 = 64;
/// Messages about one table before the others have their turn.
const SENDS_MAX: usize = 50;
const REST_MIN: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(120);

/// Why a table could not be reported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Worker(#[from] WorkerError),
    #[error("the control plane acknowledged a version that does not fit what it was sent")]
    Nonsense,
}

/// After a fault: not before this time, and how long that was.
type Rest = Option<(Instant, Duration)>;

/// Where the control plane stands with one table.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The version to send next; `None`: to be asked.
    next: Option<u64>,
    /// The control plane took something that joins on to `next`.
    joined: bool,
    rest: Rest,
    probed: Option<Instant>,
}

/// Reports all tables of a worker.
#[derive(Debug)]
pub(super) struct Reporter {
    wire: Arc<Wire>,
    identity: Arc<Identity>,
    tables: Arc<Vec<TableRuntime>>,
    /// A bounded run reports all of its tables.
    all: bool,
    cursors: HashMap<String, Cursor>,
    /// Of all tables, while the control plane is out.
    rest: Rest,
}

impl Reporter {
    pub(super) fn new(
        wire: Arc<Wire>,
        identity: Arc<Identity>,
        tables: Arc<Vec<TableRuntime>>,
        all: bool,
    ) -> Self {
        Self { wire, identity, tables, all, cursors: HashMap::new(), rest: None }
    }

    /// Reports until `finish` turns true, and once more then. Cancel-safe: what was not acknowledged is sent again.
    pub(super) async fn run(mut self, mut finish: watch::Receiver<bool>) {
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(self.identity.jitter(LOOK_EVERY)) => false,
                _ = finish.wait_for(|finish| *finish) => true,
            };
            self.round(ended).await;
            if ended {
                return;
            }
        }
    }

    /// One look at every table. `last`: nothing rests.
    pub(super) async fn round(&mut self, last: bool) {
        if !last && self.rest.is_some_and(|(until, _)| Instant::now() < until) {
            return;
        }
        let due: Vec<(Arc<Table>, About, Cursor)> =
            self.tables.iter().flat_map(|runtime| due(runtime, self.all, last, &mut self.cursors)).collect();
        let down = OnceLock::new();
        let reported = due.into_iter().map(|(table, about, mut cursor)| {
            let (wire, identity, down) = (&self.wire, &self.identity, &down);
            async move {
                // What one table met, the others would meet, each after its time.
                if down.get().is_some() {
                    return (table.name.clone(), cursor);
                }
                let reporting = Reporting { wire, identity, table: &table, about: &about };
                match reporting.catch_up(&mut cursor).await {
                    Ok(()) => cursor.rest = None,
                    Err(error) => {
                        let rest = next_rest(cursor.rest, identity);
                        match error {
                            ReportError::Wire(error) if error.is_outage() => {
                                // One of them is enough to tell.
                                let _ = down.set(error);
                            }
                            error => {
                                let seconds = rest.1.as_secs();
                                tracing::warn!(table = %table.name, %error, seconds, "not reported, trying again");
                            }
                        }
                        cursor =
                            Cursor { rest: Some(rest), probed: cursor.probed, ..Cursor::default() };
                    }
                }
                (table.name.clone(), cursor)
            }
        });
        // Collected first: the futures borrow nothing that changes.
        let reported: Vec<_> = reported.collect();
        let cursors: Vec<_> = stream::iter(reported).buffer_unordered(TABLES_AT_ONCE).collect().await;
        self.cursors.extend(cursors);
        self.rest = down.into_inner().map(|error| {
            let rest = next_rest(self.rest, &self.identity);
            tracing::warn!(%error, seconds = rest.1.as_secs(), "reports wait, and are made up for later");
            rest
        });
    }
}

/// Twice as long as the last one, from now on.
fn next_rest(last: Rest, identity: &Identity) -> (Instant, Duration) {
    let rest = last.map_or(REST_MIN, |(_, rest)| (rest * 2).min(REST_MAX));
    (Instant::now() + identity.jitter(rest), rest)
}

/// The tables of a runtime that are this worker's to report and have something to report, with their cursors taken.
fn due(
    runtime: &TableRuntime,
    all: bool,
    last: bool,
    cursors: &mut HashMap<String, Cursor>,
) -> Vec<(Arc<Table>, About, Cursor)> {
    let now = Instant::now();
    let mut found = Vec::new();
    for table in [runtime.table(), runtime.dead_letters()].into_iter().flatten() {
        let mine = all || Share::Of(runtime.owned()).has_key(&table.name);
        if !mine {
            // Whoever reports it now moves the control plane on: it is asked anew when the share comes back.
            cursors.remove(&table.name);
            continue;
        }
        let cursor = cursors.entry(table.name.clone()).or_default();
        let rests = cursor.rest.is_some_and(|(until, _)| now < until);
        let behind = cursor.next.is_none_or(|next| next <= table.version());
        let probes = cursor.probed.is_none_or(|probed| now >= probed + PROBE_EVERY);
        if !(last && behind) && (rests || !(behind || probes)) {
            continue;
        }
        let about = if table.name == runtime.spec.name {
            About::table(&runtime.spec, &table.url)
        } else {
            About::dead_letters(&runtime.spec, &table.url)
        };
        let cursor = std::mem::take(cursor);
        found.push((table, about, cursor));
    }
    found
}

/// One table being reported.
pub(super) struct Reporting<'a> {
    pub(super) wire: &'a Wire,
    pub(super) identity: &'a Identity,
    pub(super) table: &'a Table,
    pub(super) about: &'a About,
}

impl Reporting<'_> {
    /// Reports until the control plane has what the ledger has, or for so long that others must have a turn.
    pub(super) async fn catch_up(&self, cursor: &mut Cursor) -> Result<(), ReportError> {
        if cursor.probed.is_none_or(|probed| probed.elapsed() >= PROBE_EVERY) {
            cursor.probed = Some(Instant::now());
            self.look_for_others().await?;
        }
        for _ in 0..SENDS_MAX {
            let first = match cursor.next {
                Some(next) => next,
                None => {
                    let ack = self.report(Vec::new()).await?;
                    *cursor = Cursor { next: Some(ack.version.unwrap_or(0)), joined: false, ..*cursor };
                    continue;
                }
            };
            let newest = self.table.version();
            if cursor.joined && first == newest + 1 {
                return Ok(());
            }
            let entries =
                if first <= newest { self.entries(first, newest, cursor.joined).await? } else { None };
            let Some(entries) = entries else {
                // Gone by retention, too large, or the control plane knows a version that never was.
                let version = image::send(self).await?;
                *cursor = Cursor { next: Some(version + 1), joined: true, ..*cursor };
                continue;
            };
            let (first, last) = match (entries.first(), entries.last()) {
                (Some(first), Some(last)) => (first.version, last.version),
                _ => return Err(ReportError::Nonsense),
            };
            let ack = self.report(entries).await?;
            let newest = self.table.version();
            match ack {
                Ack { gap: false, version: Some(version) }
                    if (first..=newest.max(last)).contains(&version) =>
                {
                    *cursor = Cursor { next: Some(version + 1), joined: true, ..*cursor };
                }
                // It stands elsewhere than it did: restored from a backup, or another worker sent an image.
                Ack { gap: true, version }
                    if version.map_or(0, |version| version + 1) < first && cursor.joined =>
                {
                    let next = version.map_or(0, |version| version + 1);
                    *cursor = Cursor { next: Some(next), joined: false, ..*cursor };
                }
                Ack { gap: true, .. } => {
                    let version = image::send(self).await?;
                    *cursor = Cursor { next: Some(version + 1), joined: true, ..*cursor };
                }
                Ack { gap: false, .. } => return Err(ReportError::Nonsense),
            }
        }
        Ok(())
    }

    /// Learns of versions that other workers committed.
    async fn look_for_others(&self) -> Result<(), WorkerError> {
        let next = self.table.version() + 1;
        if self.table.ledger.entry(next).await.for_table(&self.table.name)?.is_some() {
            self.table.refresh().await?;
        }
        Ok(())
    }

    /// Entries from `first`, as many as fit into one report; `None`: they are no longer kept, or the first is too
    /// large for one. Unless `joined`, one that is gone may be passed over: it is sent only to compare.
    async fn entries(
        &self,
        first: u64,
        newest: u64,
        joined: bool,
    ) -> Result<Option<Vec<Arc<Entry>>>, ReportError> {
        let name = &self.table.name;
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, first);
        while next <= newest && entries.len() < ENTRIES_MAX {
            let room = (ENTRIES_MAX - entries.len()) as u64;
            let last = newest.min(next + READ_STEP.min(room) - 1);
            let Some(step) = self.table.ledger.entries_kept(next, last).await.for_table(name)? else {
                if !joined && entries.is_empty() && next == first && first < newest {
                    next += 1;
                    if self.table.ledger.entry(next).await.for_table(name)?.is_some() {
                        continue;
                    }
                }
                return Ok((!entries.is_empty()).then_some(entries));
            };
            for entry in step {
                let size = serde_json::to_vec(entry.as_ref()).map_err(|_| WireError::NotMade)?.len();
                if bytes + size > TARGET_BYTES && !entries.is_empty() {
                    return Ok(Some(entries));
                }
                if size > 4 * TARGET_BYTES {
                    return Ok(None);
                }
                bytes += size;
                entries.push(entry);
            }
            next = last + 1;
        }
        Ok(Some(entries))
    }

    /// Sends entries with what is opted in of their files.
    async fn report(&self, entries: Vec<Arc<Entry>>) -> Result<Ack, ReportError> {
        let table = self.about.identity.clone();
        let disclosure = &self.about.disclosure;
        let statistics = if disclosure.is_nothing() || entries.is_empty() {
            Vec::new()
        } else {
            let state = self.table.state.lock().await.clone();
            let files = entries.iter().flat_map(|entry| added(entry));
            statistics::of_files(self.table, &state, disclosure, files).await?
        };
        let entries = entries.into_iter().map(Arc::unwrap_or_clone).collect();
        let mut report = Report { table, entries, statistics };
        match self.wire.send(&report).await {
            // The bounds of so many columns are more than a message holds.
            Err(WireError::TooLarge(_)) if !report.statistics.is_empty() => {
                tracing::warn!(table = %self.table.name, "statistics do not fit into a report and are left out");
                report.statistics.clear();
                Ok(self.wire.send(&report).await?)
            }
            ended => Ok(ended?),
        }
    }
}

/// Files that an entry adds.
fn added(entry: &Entry) -> &[FileEntry] {
    match &entry.change {
        Change::Append { files: added, .. }
        | Change::Replace { added, .. }
        | Change::Absorb { added, .. }
        | Change::Overwrite { added, .. }
        | Change::Delete { added, .. } => added,
        _ => &[],
    }
}
