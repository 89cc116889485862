//! The worker's side of the wall: what it tells the control plane, and what it takes from there.
//!
//! 1. [`Wire`] sends sealed messages of `siltstone_protocol` and nothing else; [`Recorder`] keeps a copy.
//! 2. `reporter` reads ledgers in the bucket and reports their entries ([`About`] names the tables; `statistics` adds
//!    what the spec opts into; `image` sends whole tables).
//! 3. `beat` tells presence, health, and samples of events and profiles.
//! 4. `commands` fetches what operators ask for and does it; [`Switch`] is how a table is told to rest.
//!
//! All of it is beside the path from a record to its commit, in tasks of its own: a control plane that is down, slow
//! or lying changes nothing about ingestion. Without `control_plane` in the spec none of it runs.

mod about;
mod beat;
mod commands;
mod events;
mod examples;
mod health;
mod image;
mod presence;
mod profile;
mod record;
mod reporter;
mod statistics;
mod switch;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
mod wire;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use siltstone_spec::{Secret, Spec};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

pub use self::{
    about::About,
    events::Events,
    examples::examples,
    record::Recorder,
    switch::Switch,
    wire::{Wire, WireError, WireSettingsError, client_builder},
};
use self::{beat::Beat, commands::Commander, reporter::Reporter};
use crate::{
    error::WorkerError,
    runtime::{Shared, TableRuntime},
};

/// When everything is committed, what is not reported yet is waited for this long.
const LAST_REPORT_MAX: Duration = Duration::from_secs(5);

/// What a worker tells beyond the spec, and where a copy goes.
#[derive(Debug, Clone, Default)]
pub struct ControlOptions {
    /// Keep a copy of everything that is sent in this file.
    pub record: Option<PathBuf>,
    /// Send no samples of events.
    pub without_events: bool,
    /// Send no samples of profiles.
    pub without_profiles: bool,
    /// Availability zone: letters, digits and dashes.
    pub zone: Option<String>,
    /// Reads the API key anew, for `rotate`.
    pub key: Option<KeySource>,
}

/// Reads the API key from where the spec has it.
#[derive(Clone)]
pub struct KeySource(Arc<dyn Fn() -> Option<Secret> + Send + Sync>);

impl KeySource {
    pub fn new(read: impl Fn() -> Option<Secret> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn read(&self) -> Option<Secret> {
        (self.0)()
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource(..)")
    }
}

/// The tasks that talk to the control plane.
#[derive(Debug)]
pub(crate) struct Control {
    reporter: JoinSet<()>,
    /// Dropped at the end, and with it whatever they wait for.
    others: JoinSet<()>,
    finish: watch::Sender<bool>,
}

impl Control {
    /// Starts them when the spec names a control plane. Nothing is sent before this returns.
    ///
    /// # Errors
    /// `Invalid`: its settings are refused, or the recording cannot be opened.
    pub(crate) fn start(
        spec: &Spec,
        options: &ControlOptions,
        shared: &Shared,
        tables: Vec<TableRuntime>,
    ) -> Result<Option<Self>, WorkerError> {
        let Some(plane) = &spec.control_plane else { return Ok(None) };
        let refused = |what: String| WorkerError::Control { what };
        if let Some(zone) = options.zone.as_deref().filter(|zone| !presence::is_zone(zone)) {
            let length = zone.len();
            return Err(refused(format!(
                "the zone of {length} bytes is not a name of letters, digits and dashes; mend --zone or SILTSTONE_ZONE"
            )));
        }
        let open = |path: &PathBuf| {
            let about = |error: std::io::Error| {
                format!("--record {} cannot be written: {}", path.display(), error.kind())
            };
            Recorder::open(path).map_err(|error| refused(about(error)))
        };
        let recorder = options.record.as_ref().map(open).transpose()?;
        let identity = shared.identity.clone();
        let wire =
            Wire::new(plane, identity.clone(), recorder).map_err(|error| refused(error.to_string()))?;
        let wire = Arc::new(wire);
        let worker_id = Uuid::new_v4().to_string();
        tracing::info!(url = %plane.url, worker_id, "reporting to the control plane");
        let (finish, finished) = watch::channel(false);
        let (mut reporter, mut others) = (JoinSet::new(), JoinSet::new());
        let tables = Arc::new(tables);
        let reports = Reporter::new(wire.clone(), identity.clone(), tables.clone(), shared.once);
        reporter.spawn(reports.run(finished));
        others.spawn(Beat::new(&wire, &worker_id, options, shared, tables.clone()).run());
        if !shared.once {
            let (key, stop) = (options.key.clone(), shared.stop.clone());
            let commander = Commander::new(wire, worker_id, plane.commands, key, tables, stop);
            others.spawn(commander.run());
        }
        Ok(Some(Self { reporter, others, finish }))
    }

    /// Reports what is committed by now, for a bounded time, and ends.
    pub(crate) async fn end(mut self) {
        // The reporter is gone only when it has ended.
        let _ = self.finish.send(true);
        let reported = async { while self.reporter.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_REPORT_MAX, reported).await.is_err() {
            tracing::warn!("not everything was reported in time; the next start completes it");
        }
        self.others.shutdown().await;
    }
}
