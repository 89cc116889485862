//! Signing on and off.

use axum::http::header::SET_COOKIE;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    audit::{Event, Outcome},
    auth::{Who, session::Purpose},
    endpoints::{Call, Reply},
    oidc::{Answer, CALLBACK, FLOW_SECONDS, SignOnError},
    problem::{Problem, ProblemType},
};

/// Where the browser goes when somebody has signed on: the console.
const HOME: &str = "/";

/// How people sign on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SignOnView {
    /// Empty: with API keys alone.
    pub providers: Vec<ProviderView>,
}

/// One provider.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProviderView {
    pub name: String,
    /// What a button says.
    pub title: String,
    /// Where the browser goes to sign on.
    pub login: String,
}

/// Signed off.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SignedOff {
    /// Where the browser goes to end the session at the provider, too. `null`: it has no such place.
    pub provider_logout: Option<String>,
}

impl From<SignOnError> for Problem {
    fn from(error: SignOnError) -> Self {
        use SignOnError as E;
        let kind = match &error {
            E::UnknownProvider => ProblemType::NotFound,
            E::NoFlow | E::ProviderRefused | E::IdToken(_) => ProblemType::Unauthenticated,
            E::NotAllowed(_) | E::Address => ProblemType::Forbidden,
            E::TooOften(seconds) => {
                return Self::new(ProblemType::TooManyRequests, error.to_string()).after(*seconds);
            }
            E::Unreachable(_) => ProblemType::Unavailable,
            E::Organisation => ProblemType::Internal,
            E::Store(error) => return error.clone().into(),
        };
        Self::new(kind, error.to_string())
    }
}

pub(crate) async fn providers(call: Call) -> Result<Reply, Problem> {
    let view = |one: &crate::config::OidcConfig| ProviderView {
        name: one.name.clone(),
        title: one.title().to_owned(),
        login: format!("/api/v1/oidc/login?provider={}", one.name),
    };
    Reply::json(&SignOnView { providers: call.app.sign_on.providers().map(view).collect() })
}

pub(crate) async fn login(call: Call) -> Result<Reply, Problem> {
    let (secret, to) =
        call.app.sign_on.begin(call.text("provider").unwrap_or_default(), call.address).await?;
    let cookie = call.app.auth.cookies.set(Purpose::SignOn, Some(&secret), FLOW_SECONDS);
    Ok(Reply::see_other(to.as_str())?.with(SET_COOKIE, cookie))
}

pub(crate) async fn callback(call: Call) -> Result<Reply, Problem> {
    let answer = Answer {
        state: call.text("state").unwrap_or_default(),
        code: call.text("code").unwrap_or_default(),
        issuer: call.text("iss"),
        error: call.text("error"),
    };
    let (cookies, sessions) = (&call.app.auth.cookies, &call.app.auth.sessions);
    let done = call.app.sign_on.finish((cookies, sessions), call.headers(), call.address, answer).await;
    let event = |organisation: &str, actor: String, outcome| Event {
        organisation: organisation.to_owned(),
        resource: "session".to_owned(),
        actor,
        action: format!("GET {CALLBACK}"),
        outcome,
        address: call.address.to_string(),
    };
    match done {
        Ok(signed_on) => {
            let actor = format!("user/{}", signed_on.user);
            if !call.app.audit.record(event(&signed_on.organisation, actor, Outcome::Changed)).await {
                return Err(Problem::new(
                    ProblemType::Internal,
                    "the audit log has ended; see the server's log",
                ));
            }
            let session = cookies.set(Purpose::Session, Some(&signed_on.secret), signed_on.session_seconds);
            let over = cookies.set(Purpose::SignOn, None, 0);
            Ok(Reply::see_other(HOME)?.with(SET_COOKIE, session).with(SET_COOKIE, over))
        }
        Err(refused) => {
            // Why is for the server's log: the one who asks may be an attacker.
            tracing::warn!(reason = %refused.error, "nobody signed on");
            let outcome = match refused.error {
                SignOnError::NotAllowed(_) | SignOnError::Address => Outcome::Denied,
                _ => Outcome::Unauthenticated,
            };
            call.app.audit.note(event(&refused.organisation, "nobody".to_owned(), outcome)).await;
            Err(refused.error.into())
        }
    }
}

pub(crate) async fn logout(call: Call) -> Result<Reply, Problem> {
    let principal = call.principal()?;
    let mut provider_logout = None;
    if let Who::User { user, session } = &principal.who {
        call.app.auth.sessions.end(session).await?;
        provider_logout = call.app.sign_on.end_at_provider(user).await?.map(|url| url.to_string());
    }
    let event = Event {
        organisation: principal.organisation.clone(),
        actor: principal.actor(),
        action: "POST /api/v1/session/logout".to_owned(),
        resource: "session".to_owned(),
        outcome: Outcome::Changed,
        address: call.address.to_string(),
    };
    if !call.app.audit.record(event).await {
        return Err(Problem::new(ProblemType::Internal, "the audit log has ended; see the server's log"));
    }
    let over = call.app.auth.cookies.set(Purpose::Session, None, 0);
    Ok(Reply::json(&SignedOff { provider_logout })?.with(SET_COOKIE, over))
}
