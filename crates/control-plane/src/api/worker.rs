//! Messages of workers. Whose they are is said by the credential alone.

use std::time::Duration;

use siltstone_protocol::{
    Report,
    command::{CommandOutcome, CommandPoll, WAIT_MAX_SECONDS},
    health::{HealthReport, TABLES_MAX},
    image::Image,
    message::Nothing,
    presence::{EVENTS_MAX, EventSample, FUNCTIONS_MAX, Presence, ProfileSample},
};

use crate::{
    auth::Resource,
    endpoints::{Call, Reply},
    inventory::{Incoming, Source, check, sample},
    problem::{Problem, ProblemType},
};

const IDENTITY_MAX: usize = 64;

fn cluster(call: &Call) -> Result<&str, Problem> {
    match &call.resource {
        Resource::Cluster { cluster, .. } => Ok(cluster),
        _ => Err(Problem::new(ProblemType::Internal, "a worker without a cluster")),
    }
}

fn source(call: &Call) -> Result<Source, Problem> {
    Ok(Source { organisation: call.organisation()?.to_owned(), cluster: cluster(call)?.to_owned() })
}

fn worker(id: &str) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || id.len() > IDENTITY_MAX || !id.chars().all(plain) {
        return Err(Problem::invalid("worker_id: 1 to 64 letters, digits and dashes"));
    }
    Ok(())
}

pub(crate) async fn report(call: Call) -> Result<Reply, Problem> {
    let report: Report = call.json()?;
    check(&report)?;
    let ack = call.app.reports.apply(source(&call)?, Incoming::Report(Box::new(report))).await?;
    Reply::json(&ack)
}

pub(crate) async fn image(call: Call) -> Result<Reply, Problem> {
    let image: Image = call.json()?;
    check(&image)?;
    let ack = call.app.reports.apply(source(&call)?, Incoming::Image(Box::new(image))).await?;
    Reply::json(&ack)
}

pub(crate) async fn health(call: Call) -> Result<Reply, Problem> {
    let report: HealthReport = call.json()?;
    worker(&report.worker_id)?;
    if report.tables.len() > TABLES_MAX {
        return Err(Problem::invalid(format!("tables: at most {TABLES_MAX}")));
    }
    let now_ms = call.app.clock.now_ms();
    let cluster = cluster(&call)?;
    let now = call.app.memory.health(cluster, report, now_ms);
    sample(&call.app.store, cluster, &now, now_ms).await?;
    Reply::json(&Nothing {})
}

pub(crate) async fn presence(call: Call) -> Result<Reply, Problem> {
    let presence: Presence = call.json()?;
    worker(&presence.worker_id)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    let word = |text: &str| text.len() <= IDENTITY_MAX && text.chars().all(plain);
    if !word(&presence.program_version) || !presence.zone.as_deref().is_none_or(word) {
        return Err(Problem::invalid(
            "program_version, zone: at most 64 letters, digits, `-`, `.`, `_`, `+`",
        ));
    }
    if presence.utilisation_percent > 100 {
        return Err(Problem::invalid("utilisation_percent: 0 to 100"));
    }
    call.app.memory.presence(cluster(&call)?, presence, call.app.clock.now_ms());
    Reply::json(&Nothing {})
}

pub(crate) async fn events(call: Call) -> Result<Reply, Problem> {
    let sample: EventSample = call.json()?;
    worker(&sample.worker_id)?;
    if sample.events.len() > EVENTS_MAX {
        return Err(Problem::invalid(format!("events: at most {EVENTS_MAX}")));
    }
    call.app.memory.events(cluster(&call)?, sample, call.app.clock.now_ms());
    Reply::json(&Nothing {})
}

pub(crate) async fn profile(call: Call) -> Result<Reply, Problem> {
    let sample: ProfileSample = call.json()?;
    worker(&sample.worker_id)?;
    if sample.functions.len() > FUNCTIONS_MAX {
        return Err(Problem::invalid(format!("functions: at most {FUNCTIONS_MAX}")));
    }
    call.app.memory.profile(cluster(&call)?, sample, call.app.clock.now_ms());
    Reply::json(&Nothing {})
}

pub(crate) async fn poll(call: Call) -> Result<Reply, Problem> {
    let poll: CommandPoll = call.json()?;
    worker(&poll.worker_id)?;
    let wait = Duration::from_secs(u64::from(poll.wait_seconds.min(WAIT_MAX_SECONDS)));
    let commands = call.app.commands.poll(cluster(&call)?, &poll.worker_id, wait).await?;
    Reply::json(&commands)
}

pub(crate) async fn outcome(call: Call) -> Result<Reply, Problem> {
    let outcome: CommandOutcome = call.json()?;
    worker(&outcome.worker_id)?;
    if !call.app.commands.ended(cluster(&call)?, &outcome).await? {
        return Err(Problem::not_found("command"));
    }
    Reply::json(&Nothing {})
}
