//! Commands of the control plane: fetched by a call that waits, carried out, acknowledged.
//!
//! A command is one of a closed list and names a table of this worker's spec. None can change what is disclosed, where
//! data or reports go, or which credentials are used (`rotate` reads the key anew from where the spec says it is).
//! A command that was done is not done again: its outcome is told again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use siltstone_protocol::{
    ErrorKind,
    command::{Action, COMMANDS_MAX, Command, CommandOutcome, CommandPoll, Outcome},
    presence::EventCode,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{KeySource, Switch, Wire};
use crate::{
    compactor::{Compactor, Pace, Share},
    error::WorkerError,
    maintenance::Keeper,
    runtime::TableRuntime,
    table::Table,
};

/// How long a poll may wait at the control plane, seconds.
const WAIT_SECONDS: u16 = 25;
/// Between two polls, whatever the answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A pause waits this long for what is read to be on its way to a commit.
const HEED_MAX: Duration = Duration::from_secs(20);
/// Commands whose outcome is remembered.
const REMEMBERED_MAX: usize = 1000;
/// Compactions and rounds of maintenance by command at once.
const LONG_AT_ONCE: usize = 2;
/// An id is a ULID; what is longer is none.
const ID_CHARS_MAX: usize = 64;

/// Carries commands out.
#[derive(Debug, Clone)]
pub(super) struct Commander {
    wire: Arc<Wire>,
    worker_id: String,
    /// `control_plane.commands` of the spec.
    allowed: bool,
    key: Option<KeySource>,
    tables: Arc<Vec<TableRuntime>>,
    stop: watch::Receiver<bool>,
    known: Arc<Mutex<Known>>,
    long: Arc<Semaphore>,
}

/// What became of commands, the oldest forgotten first.
#[derive(Debug, Default)]
struct Known {
    /// `None`: being carried out.
    outcomes: HashMap<String, Option<Outcome>>,
    order: VecDeque<String>,
}

impl Known {
    fn begin(&mut self, id: &str) {
        self.outcomes.insert(id.to_owned(), None);
        self.order.push_back(id.to_owned());
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }
}

impl Commander {
    pub(super) fn new(
        wire: Arc<Wire>,
        worker_id: String,
        allowed: bool,
        key: Option<KeySource>,
        tables: Arc<Vec<TableRuntime>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (known, long) = (Arc::default(), Arc::new(Semaphore::new(LONG_AT_ONCE)));
        Self { wire, worker_id, allowed, key, tables, stop, known, long }
    }

    /// Fetches and carries out commands until the worker is told to stop. What is being carried out then ends with
    /// the worker; the control plane hands it out again.
    pub(super) async fn run(self) {
        let mut stop = self.stop.clone();
        let mut tasks = JoinSet::new();
        let mut pause = PAUSE_MIN;
        loop {
            let poll = CommandPoll { worker_id: self.worker_id.clone(), wait_seconds: WAIT_SECONDS };
            let polled = tokio::select! {
                polled = self.wire.send_waiting(&poll, Duration::from_secs(WAIT_SECONDS.into())) => polled,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match polled {
                Ok(commands) => {
                    pause = PAUSE_MIN;
                    for command in commands.commands.into_iter().take(COMMANDS_MAX) {
                        let commander = self.clone();
                        if command.action.is_for_all() {
                            // In the order in which they were given: a pause and the resume after it.
                            let outcome = self.once(&command).await;
                            tasks.spawn(async move { commander.tell(&command, outcome).await });
                        } else {
                            tasks.spawn(async move { commander.answer(command).await });
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no commands fetched");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            while tasks.try_join_next().is_some() {}
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Carries one command out, unless that was done before, and says how it ended.
    pub(super) async fn answer(&self, command: Command) {
        let outcome = self.once(&command).await;
        self.tell(&command, outcome).await;
    }

    /// How a command ended, now or when it was done before. `None`: it is being carried out, and its end will be
    /// told; or it is none.
    async fn once(&self, command: &Command) -> Option<Outcome> {
        if command.id.is_empty() || command.id.len() > ID_CHARS_MAX {
            return None;
        }
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = known.outcomes.get(&command.id) {
                return *before;
            }
            known.begin(&command.id);
        }
        let outcome = self.carry_out(command).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.outcomes.get_mut(&command.id) {
            *known = Some(outcome);
        }
        Some(outcome)
    }

    async fn tell(&self, command: &Command, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let (worker_id, command_id) = (self.worker_id.clone(), command.id.clone());
        if let Err(error) = self.wire.send(&CommandOutcome { worker_id, command_id, outcome }).await {
            tracing::warn!(%error, action = command.action.as_str(), "the end of a command was not told");
        }
    }

    async fn carry_out(&self, command: &Command) -> Outcome {
        let outcome = self.outcome_of(command).await;
        let action = command.action.as_str();
        let table = self.known_name(command);
        tracing::info!(action, table = table.unwrap_or_default(), ?outcome, "command of the control plane");
        let code = match outcome {
            Outcome::Done => EventCode::CommandCarriedOut,
            _ => EventCode::CommandRefused,
        };
        if let Some(runtime) = self.tables.first() {
            runtime.shared.metrics.events.add(code, table, None, 1);
        }
        outcome
    }

    /// The table's name as the spec has it: what a command says is repeated nowhere.
    fn known_name(&self, command: &Command) -> Option<&str> {
        let named = command.table.as_deref()?;
        self.tables.iter().map(|runtime| runtime.spec.name.as_str()).find(|name| *name == named)
    }

    async fn outcome_of(&self, command: &Command) -> Outcome {
        if !self.allowed {
            return Outcome::NotAllowed;
        }
        let now_ms = self.tables.first().map_or(0, |runtime| runtime.shared.identity.now_ms());
        if command.expires_ms <= now_ms {
            return Outcome::Expired;
        }
        if command.action == Action::Rotate {
            return self.rotate().await;
        }
        let Some(named) = command.table.as_deref() else { return Outcome::UnknownTable };
        let of = |runtime: &&TableRuntime| {
            runtime.spec.name == named
                || (!command.action.is_for_all() && runtime.spec.dead_letter_name() == named)
        };
        let Some(runtime) = self.tables.iter().find(of) else { return Outcome::UnknownTable };
        match command.action {
            Action::Pause | Action::Resume => return turn(&runtime.switch, command.action).await,
            Action::Compact | Action::Expire => return self.work_over(runtime, named, command.action).await,
            Action::Rotate => {}
        }
        Outcome::Done
    }

    /// Reads the key anew from where the spec has it, and from nowhere else.
    async fn rotate(&self) -> Outcome {
        let failed = Outcome::Failed { error: ErrorKind::Invalid };
        let Some(source) = self.key.clone() else { return failed };
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        match read {
            Ok(Some(key)) if self.wire.use_key(&key).is_ok() => Outcome::Done,
            _ => failed,
        }
    }

    /// A round of compaction or maintenance over a table and its dead letters, or over these alone when it is they
    /// that are named.
    async fn work_over(&self, runtime: &TableRuntime, named: &str, action: Action) -> Outcome {
        let Ok(_turn) = self.long.acquire().await else {
            return Outcome::Failed { error: ErrorKind::Internal };
        };
        let tables = [runtime.table().filter(|table| table.name == named), runtime.dead_letters()];
        for table in tables.into_iter().flatten() {
            let ended = match action {
                Action::Compact => self.compact(runtime, table).await,
                _ => expire(runtime, table).await,
            };
            if let Err(error) = ended {
                tracing::warn!(table = %runtime.spec.name, %error, action = action.as_str(), "command failed");
                return Outcome::Failed { error: error.kind() };
            }
        }
        Outcome::Done
    }

    async fn compact(&self, runtime: &TableRuntime, table: Arc<Table>) -> Result<(), WorkerError> {
        let shared = &runtime.shared;
        let (metrics, identity, budget) =
            (shared.metrics.clone(), shared.identity.clone(), shared.budget.clone());
        let mut compactor = Compactor::new(table, &runtime.spec, metrics, identity, budget);
        let pace = Pace::of(&runtime.spec.compaction);
        let mut stop = self.stop.clone();
        compactor.round(&Share::All, pace, &mut stop, &mut |_| {}).await.map(drop)
    }
}

/// Returns when the table rests or goes on. When that takes too long it is not done, though it is still asked for.
async fn turn(switch: &Switch, action: Action) -> Outcome {
    switch.pause(action == Action::Pause);
    match tokio::time::timeout(HEED_MAX, switch.heeded()).await {
        Ok(()) => Outcome::Done,
        Err(_) => Outcome::Failed { error: ErrorKind::Unavailable },
    }
}

async fn expire(runtime: &TableRuntime, table: Arc<Table>) -> Result<(), WorkerError> {
    let shared = &runtime.shared;
    let mut keeper = Keeper::new(table, &runtime.spec, shared.identity.clone(), shared.budget.clone());
    keeper.round(Duration::ZERO, &shared.metrics.maintenance).await.map(drop)
}
