//! Changing the ledger: steps 2 to 5 of the module above.
//!
//! Waits are jittered by a digest of the commit id, so that a run repeats from its inputs alone.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use sha2::{Digest, Sha256};
use siltstone_protocol::{Change, Entry, ErrorKind, entry::ENTRY_FORMAT};

use super::{
    Ledger, LedgerState,
    admit::{Admission, admit},
    checkpoint,
};
use crate::{
    crash_point,
    error::{LakeError, StoreFault},
};

/// Rounds lost against other committers before giving up.
const CONFLICTS_MAX: u32 = 40;
/// Puts without a known outcome before giving up.
const UNKNOWNS_MAX: u32 = 4;
const WAIT_FIRST: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A state whose newest entry is older than this may have been left behind by expiry: look first.
const QUIET_MS_MAX: i64 = 3_600_000;

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is this version.
    At(u64),
    /// What it asks for is already so: every range was committed by others (the files are orphans), or the
    /// schema, spec or format is the present one.
    AlreadyCovered,
}

/// How one put ended.
enum Put {
    Ours(Arc<Entry>),
    /// Another entry has this version.
    Lost,
    /// Nothing has this version, for all that can be seen.
    Absent(StoreFault),
}

impl Ledger {
    /// Creates the table. A table of the same creation (a retry, or another worker with the same spec) is
    /// returned as it is now.
    ///
    /// # Errors
    /// `Conflict`: there is another table. `Unavailable`: call again with the same commit id.
    pub async fn create(
        &self,
        create: Change,
        commit_id: &str,
        now_ms: i64,
    ) -> Result<LedgerState, LakeError> {
        let path = self.entry_path(0);
        let entry = Entry {
            format: ENTRY_FORMAT,
            version: 0,
            table_uuid: table_uuid(self.table_location().as_ref(), commit_id),
            commit_id: commit_id.to_owned(),
            committed_ms: now_ms,
            change: create,
        };
        // Before anything is written: a change of another kind, or a schema that no reader could take.
        LedgerState::created(&entry, path.as_ref())?.well_formed()?;
        if let Some(state) = self.load().await? {
            return self.same_creation(state, &entry).await;
        }
        self.nothing_left_behind().await?;
        let bytes = to_bytes(&entry)?;
        let mut fault = None;
        for attempt in 0..UNKNOWNS_MAX {
            crash_point!("create.before_put");
            match self.put(&entry, &bytes).await? {
                Put::Ours(entry) => return LedgerState::created(&entry, path.as_ref()),
                Put::Lost => {
                    let state = self.load().await?;
                    let state = state.ok_or_else(|| LakeError::data(&path, "is there and is not"))?;
                    return self.same_creation(state, &entry).await;
                }
                Put::Absent(why) => fault = Some(why),
            }
            wait(commit_id, attempt).await;
        }
        Err(unknown(self.table_location().as_ref(), &entry, fault))
    }

    /// THE commit. Validates `change` against `state`, refreshing it as needed, and creates the next
    /// entry. A commit id that is already in the ledger is not written again: its version is returned.
    ///
    /// Cancel-safe in this sense: if the future is dropped, or `Unavailable` returned, the commit may
    /// have landed or not. Calling again with the same commit id tells, and finishes it.
    ///
    /// # Errors
    /// `Fenced`: the ranges do not fit; drop the buffer and start from the ledger. `Conflict`: a removed
    /// file is gone, or an id is taken; plan anew. `Invalid`: the change itself is wrong.
    /// `Unavailable`: outcome unknown.
    pub async fn commit(
        &self,
        state: &mut LedgerState,
        change: Change,
        commit_id: &str,
        now_ms: i64,
    ) -> Result<Committed, LakeError> {
        if is_quiet(state, now_ms) {
            self.rejoin(state).await?;
        }
        let mut entry = Entry {
            format: ENTRY_FORMAT,
            version: state.version,
            table_uuid: state.table_uuid.clone(),
            commit_id: commit_id.to_owned(),
            committed_ms: now_ms,
            change,
        };
        let (mut conflicts, mut unknowns) = (0, 0);
        let mut fault = None;
        while conflicts < CONFLICTS_MAX && unknowns < UNKNOWNS_MAX {
            if let Some(version) = state.version_of(commit_id) {
                return Ok(Committed::At(version));
            }
            let verdict = admit(state, &entry.change);
            if !matches!(verdict, Ok(Admission::Admitted)) {
                // The verdict may come of a state that others have moved: only a fresh one is final.
                if self.refresh(state).await? > 0 {
                    conflicts += 1;
                    continue;
                }
                return verdict.map(|_| Committed::AlreadyCovered);
            }
            entry.version = state.version + 1;
            let bytes = to_bytes(&entry)?;
            crash_point!("commit.before_put");
            match self.put(&entry, &bytes).await? {
                Put::Ours(entry) => {
                    crash_point!("commit.after_put");
                    state.apply(&entry, self.entry_path(entry.version).as_ref())?;
                    checkpoint::maybe_write(self, state);
                    return Ok(Committed::At(entry.version));
                }
                Put::Lost => {
                    self.refresh(state).await?;
                    wait(commit_id, conflicts).await;
                    conflicts += 1;
                }
                Put::Absent(why) => {
                    fault = Some(why);
                    wait(commit_id, unknowns).await;
                    unknowns += 1;
                }
            }
        }
        if unknowns == UNKNOWNS_MAX {
            return Err(unknown(&state.name, &entry, fault));
        }
        Err(LakeError::Contended { table: state.name.clone(), version: state.version, attempts: conflicts })
    }

    /// One put-if-absent, and what became of it.
    ///
    /// The reply alone is never believed: "exists" may be our own earlier put whose reply was lost (412,
    /// and on S3 a raw 409), and an error may have come after the put. The entry itself says whose it is.
    async fn put(&self, entry: &Entry, bytes: &bytes::Bytes) -> Result<Put, LakeError> {
        let path = self.entry_path(entry.version);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match self.inner.store.put_opts(&path, PutPayload::from(bytes.clone()), options).await {
            Ok(_) => {
                let entry = Arc::new(entry.clone());
                self.hold(Arc::clone(&entry));
                return Ok(Put::Ours(entry));
            }
            Err(error) => error,
        };
        let fault = StoreFault::of(&error);
        crash_point!("commit.before_read_back");
        match self.entry(entry.version).await {
            Ok(Some(found)) if found.commit_id == entry.commit_id => Ok(Put::Ours(found)),
            Ok(Some(_)) => Ok(Put::Lost),
            Ok(None) if fault.kind() == ErrorKind::Unavailable => Ok(Put::Absent(fault)),
            Ok(None) => Err(LakeError::Store { operation: "create", path: path.to_string(), fault }),
            Err(LakeError::Store { .. }) => Ok(Put::Absent(fault)),
            Err(error) => Err(error),
        }
    }

    /// Brings a state up to the ledger, however long it was left alone: entries after it that were expired are
    /// passed over by a checkpoint. For whoever acts on a state that it kept; [`Self::commit`] does so itself.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn follow(&self, state: &mut LedgerState, now_ms: i64) -> Result<(), LakeError> {
        if is_quiet(state, now_ms) { self.rejoin(state).await } else { self.refresh(state).await.map(drop) }
    }

    /// Brings a state that was quiet for long up to the ledger, even if the entries after it were expired.
    async fn rejoin(&self, state: &mut LedgerState) -> Result<(), LakeError> {
        self.refresh(state).await?;
        let newest = checkpoint::list(self).await?.last().copied();
        if newest.is_some_and(|newest| newest > state.version)
            && let Some(fresh) = self.load().await?
        {
            if fresh.table_uuid != state.table_uuid {
                return Err(LakeError::data(
                    self.table_location(),
                    "another table is here now (its uuid differs)",
                ));
            }
            *state = fresh;
        }
        Ok(())
    }

    async fn same_creation(&self, state: LedgerState, entry: &Entry) -> Result<LedgerState, LakeError> {
        let first = self.entry(0).await?;
        if first.is_some_and(|first| first.commit_id == entry.commit_id || first.change == entry.change) {
            return Ok(state);
        }
        let problem = "the table exists and was created otherwise; plan the difference against it".to_owned();
        Err(LakeError::Conflict { table: state.name, version: state.version, problem })
    }

    /// Entry 0 is absent: then nothing else may be there, or a new table would be made over a damaged one.
    async fn nothing_left_behind(&self) -> Result<(), LakeError> {
        let prefix = self.ledger_path();
        match self.inner.store.list(Some(&prefix)).try_next().await {
            Ok(None) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            // Another worker creates the table at this moment.
            Ok(Some(object)) if checkpoint::version_in(&object.location) == Some(0) => Ok(()),
            Ok(Some(object)) => Err(LakeError::data(
                object.location,
                "the ledger has entries but neither its first one nor a checkpoint; restore them",
            )),
            Err(error) => Err(LakeError::store("list", &prefix, &error)),
        }
    }
}

impl LedgerState {
    /// A creation that readers can take.
    fn well_formed(&self) -> Result<(), LakeError> {
        let (mut seen, mut unique) = (std::collections::HashSet::new(), true);
        self.schema.visit(&mut |id| unique &= id > 0 && seen.insert(id));
        if !unique {
            return Err(LakeError::invalid(&self.name, "the schema uses a field id twice"));
        }
        if self.formats.is_empty() {
            return Err(LakeError::invalid(&self.name, "a table has at least one format"));
        }
        Ok(())
    }
}

/// True when the entries after this state may have been expired.
fn is_quiet(state: &LedgerState, now_ms: i64) -> bool {
    now_ms.saturating_sub(state.committed_ms) > QUIET_MS_MAX
}

fn to_bytes(entry: &Entry) -> Result<bytes::Bytes, LakeError> {
    let bytes = serde_json::to_vec(entry);
    bytes.map(bytes::Bytes::from).map_err(|error| LakeError::json("ledger entry", &error))
}

fn unknown(table: &str, entry: &Entry, fault: Option<StoreFault>) -> LakeError {
    LakeError::Unknown {
        table: table.to_owned(),
        version: entry.version,
        commit_id: entry.commit_id.clone(),
        fault: fault.unwrap_or(StoreFault {
            code: crate::error::StoreFaultCode::Other,
            status: None,
            store_code: None,
        }),
    }
}

/// The identity of the table that this commit creates here: a retry makes the same.
fn table_uuid(location: &str, commit_id: &str) -> String {
    let digest = Sha256::new().chain_update(location).chain_update([0]).chain_update(commit_id).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Backs off: doubling, bounded, and spread by the commit id.
async fn wait(commit_id: &str, attempt: u32) {
    let digest = Sha256::new().chain_update(commit_id).chain_update(attempt.to_be_bytes()).finalize();
    let spread = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    let ceiling = WAIT_FIRST.saturating_mul(1 << attempt.min(10)).min(WAIT_MAX);
    tokio::time::sleep(ceiling.mul_f64(0.25 + 0.75 * spread)).await;
}
