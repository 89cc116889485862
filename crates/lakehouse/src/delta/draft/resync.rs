//! The commit that brings Delta from what it shows to the ledger's state in one step.

use std::collections::{BTreeSet, HashSet};

use siltstone_protocol::FileEntry;

use super::{
    super::{
        actions::{self, Action},
        schema,
    },
    Context, relative,
};
use crate::error::LakeError;

impl Context<'_> {
    /// `shown`: paths that the newest version names.
    pub(in crate::delta) async fn resync(&self, shown: &BTreeSet<String>) -> Result<Vec<Action>, LakeError> {
        let state = self.state;
        let commit_id = state.newest_commit_id().unwrap_or_default().to_owned();
        let schema_id = state.schema.schema_id;
        let mut actions =
            self.head("RESTORE", state.version, commit_id, state.committed_ms, &[], schema_id)?;
        if self.schema_id != schema_id {
            match state.schemas.get(&self.schema_id) {
                Some(before) => {
                    let mapped = self.history.is_mapped(schema_id);
                    schema::check_evolution(&state.name, before, &state.schema, mapped)?;
                }
                None => schema::check_table(&state.name, &state.schema)?,
            }
            let protocol = self.protocol(&state.schema);
            if protocol.min_writer_version > 2 {
                actions.push(Action::Protocol(protocol));
            }
            actions.push(self.metadata(&state.schema, state.committed_ms));
        }
        let live: BTreeSet<&str> = state.live_files.keys().map(|path| relative(path)).collect();
        let removed: Vec<String> = shown
            .iter()
            .filter(|path| actions::is_ours(path) && !live.contains(path.as_str()))
            .map(|path| format!("data/{path}"))
            .collect();
        let added: Vec<&FileEntry> =
            state.live_files.values().filter(|file| !shown.contains(relative(&file.path))).collect();
        actions.extend(self.removes(&removed, state.committed_ms, true, &HashSet::new()).await?);
        actions.extend(self.adds(&added, state.committed_ms, true, &mut HashSet::new()).await?);
        Ok(actions)
    }
}
