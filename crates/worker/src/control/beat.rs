//! What a worker tells from time to time: that it is there, how its tables fare, and small samples.

use std::{sync::Arc, time::Duration};

use siltstone_protocol::{
    health::{HealthReport, TABLES_MAX},
    message::Message,
    presence::{EventCode, EventSample},
};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    ControlOptions, Wire,
    health::{self, Counted},
    presence::Observer,
    profile,
};
use crate::runtime::{Shared, TableRuntime};

const BEAT: Duration = Duration::from_secs(5);
/// Presence every 15 seconds, health and events every 30, beginning with the second beat, when tables have started.
const PRESENCE_BEATS: u64 = 3;
const HEALTH_BEATS: u64 = 6;
const PROFILE_EVERY: Duration = Duration::from_secs(600);
const PROFILE_FIRST: Duration = Duration::from_secs(60);

pub(super) struct Beat {
    wire: Arc<Wire>,
    worker_id: String,
    events: bool,
    profiles: bool,
    shared: Shared,
    tables: Arc<Vec<TableRuntime>>,
    observer: Observer,
    counted: Counted,
}

impl Beat {
    pub(super) fn new(
        wire: &Arc<Wire>,
        worker_id: &str,
        options: &ControlOptions,
        shared: &Shared,
        tables: Arc<Vec<TableRuntime>>,
    ) -> Self {
        let started_ms = shared.identity.now_ms();
        let zone = options.zone.as_deref();
        Self {
            wire: wire.clone(),
            worker_id: worker_id.to_owned(),
            events: !options.without_events,
            profiles: !options.without_profiles,
            shared: shared.clone(),
            observer: Observer::new(worker_id.to_owned(), started_ms, zone, tables.len()),
            tables,
            counted: Counted::default(),
        }
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        self.shared.metrics.events.add(EventCode::WorkerStarted, None, None, 1);
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut profile_at = Instant::now() + PROFILE_FIRST;
        for beat in 0_u64.. {
            ticks.tick().await;
            if beat.is_multiple_of(PRESENCE_BEATS) {
                let presence = self.observer.look(&self.wire).await;
                self.tell(&presence).await;
            }
            if beat % HEALTH_BEATS == 1 {
                self.health().await;
                self.sample_events().await;
            }
            if self.profiles && Instant::now() >= profile_at {
                let sample = profile::sample(&self.worker_id).await;
                self.tell(&sample).await;
                profile_at = Instant::now() + PROFILE_EVERY;
            }
        }
    }

    async fn health(&self) {
        let tables: Vec<_> = self.tables.iter().flat_map(health::of).collect();
        for tables in tables.chunks(TABLES_MAX) {
            let at_ms = self.shared.identity.now_ms();
            let report = HealthReport { worker_id: self.worker_id.clone(), at_ms, tables: tables.to_vec() };
            self.tell(&report).await;
        }
    }

    async fn sample_events(&mut self) {
        self.counted.look(&self.shared.metrics, &self.tables);
        let events = self.shared.metrics.events.take();
        if self.events && !events.is_empty() {
            self.tell(&EventSample { worker_id: self.worker_id.clone(), events }).await;
        }
    }

    /// What does not arrive is told anew the next time.
    async fn tell<M: Message>(&self, message: &M) {
        if let Err(error) = self.wire.send(message).await {
            tracing::debug!(message = M::NAME, %error, "not told");
        }
    }
}
