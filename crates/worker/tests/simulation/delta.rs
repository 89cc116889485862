//! The table as the Delta log shows it, read line by line as the protocol says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    model::TableModel,
    objects::Objects,
    scenario::SNAPSHOTS_MS,
    world::{Violation, violation},
};

struct Version {
    at_ms: i64,
    /// The ledger version shown.
    shows: u64,
    live: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Delta {
    versions: Vec<Version>,
}

impl Delta {
    pub(crate) fn shown(&self) -> Option<u64> {
        self.versions.last().map(|version| version.shows)
    }

    /// A commit came to be.
    pub(crate) fn put(
        &mut self,
        table: &TableModel,
        objects: &Objects,
        number: &str,
        bytes: &[u8],
        now_ms: i64,
    ) -> Result<(), Violation> {
        let what = format!("Delta version {number}");
        let broken = |why: &str| violation("I-4", format_args!("{what}: {why}"));
        if number.parse() != Ok(self.versions.len()) {
            return Err(broken("does not follow the newest"));
        }
        let mut live = self.versions.last().map(|version| version.live.clone()).unwrap_or_default();
        let mut shows = None;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<Value> =
            lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|_| broken("is no JSON"))?;
        let path = |action: &Value| format!("data/{}", action["path"].as_str().unwrap_or_default());
        for removed in lines.iter().filter_map(|line| line.get("remove")) {
            if !live.remove(&path(removed)) {
                return Err(broken("removes what it does not have"));
            }
        }
        for added in lines.iter().filter_map(|line| line.get("add")) {
            if !live.insert(path(added)) {
                return Err(broken("adds what it has"));
            }
        }
        for txn in lines.iter().filter_map(|line| line.get("txn")) {
            shows = txn["version"].as_u64();
        }
        let shows = shows.ok_or_else(|| broken("shows no version"))?;
        if self.shown().is_some_and(|before| shows < before) {
            return Err(broken("shows less than the version before"));
        }
        table.shows(objects, &what, shows, &live)?;
        self.versions.push(Version { at_ms: now_ms, shows, live });
        Ok(())
    }

    /// True when a version that was the newest at some time within the age of snapshots names this file.
    pub(crate) fn names(&self, path: &str, now_ms: i64) -> bool {
        let since_ms = now_ms - SNAPSHOTS_MS;
        let retained = |index: &usize| {
            let next = self.versions.get(index + 1);
            next.is_none_or(|next| next.at_ms >= since_ms)
        };
        (0..self.versions.len())
            .rev()
            .take_while(retained)
            .any(|index| self.versions[index].live.contains(path))
    }
}
