//! What a handler gets and gives.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    app::App,
    auth::{AuthFailure, Decision, Permission, Principal, Resource, decide_within},
    problem::{Problem, ProblemType},
};

/// A request whose right was granted.
#[derive(Debug)]
pub struct Call {
    pub app: Arc<App>,
    /// `None` at endpoints that need no credential.
    pub principal: Option<Principal>,
    pub resource: Resource,
    pub permission: Permission,
    pub(super) path: BTreeMap<String, String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
    pub(super) headers: Headers,
    /// Where it comes from, as far as proxies are trusted to say.
    pub address: IpAddr,
}

/// Headers of a request. `Debug` hides them: there are credentials among them.
#[derive(Default)]
pub(super) struct Headers(pub(super) HeaderMap);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

impl Call {
    /// Who asks.
    ///
    /// # Errors
    /// Nobody; the endpoint needs no credential.
    pub fn principal(&self) -> Result<&Principal, Problem> {
        let missing = || Problem::new(ProblemType::Unauthenticated, "send `Authorization: Bearer <API key>`");
        self.principal.as_ref().ok_or_else(missing)
    }

    pub fn organisation(&self) -> Result<&str, Problem> {
        Ok(self.principal()?.organisation.as_str())
    }

    /// Whether a list may show this: the grants cover it, or something in it.
    pub fn reaches(&self, resource: &Resource) -> bool {
        let grants = self.principal.as_ref().map(|principal| principal.grants.as_slice()).unwrap_or_default();
        decide_within(grants, self.permission, resource) == Decision::Allow
    }

    /// The request's headers; for the endpoints of signing on and off alone.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers.0
    }

    /// A part of the path; empty when the endpoint has none of this name.
    pub fn path(&self, name: &str) -> &str {
        self.path.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A parameter of the query, as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A parameter of the query, as a number. It was checked, and has its default when absent.
    pub fn number(&self, name: &str) -> i64 {
        self.query.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The body.
    ///
    /// # Errors
    /// `Invalid`: it is not of the endpoint's schema; says where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        // The text goes to who sent the body, and nowhere else.
        serde_json::from_slice(&self.body).map_err(|fault| Problem::invalid(format!("body: {fault}")))
    }
}

/// What a handler gives.
#[derive(Debug)]
pub struct Reply {
    pub(super) body: Option<Vec<u8>>,
    pub(super) content_type: &'static str,
    pub(super) status: Option<StatusCode>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// JSON.
    ///
    /// # Errors
    /// `Internal`: it cannot be written.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, Problem> {
        let fault = |_| Problem::new(ProblemType::Internal, "the answer cannot be written");
        let body = Some(serde_json::to_vec(value).map_err(fault)?);
        Ok(Self { body, content_type: "application/json", status: None, headers: Vec::new() })
    }

    /// No content.
    pub fn none() -> Self {
        Self { body: None, content_type: "application/json", status: None, headers: Vec::new() }
    }

    /// Goes on elsewhere, with GET.
    ///
    /// # Errors
    /// `Internal`: it is no address.
    pub fn see_other(to: &str) -> Result<Self, Problem> {
        let fault = |_| Problem::new(ProblemType::Internal, "the address to go on to cannot be written");
        let to = HeaderValue::from_str(to).map_err(fault)?;
        Ok(Self { status: Some(StatusCode::SEE_OTHER), ..Self::none() }.with(header::LOCATION, Some(to)))
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }
}

/// A part of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Page_of_{T}")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it as `cursor` to get what follows. `null`: this was the last part.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// All there is.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }

    /// The first `limit` of items, of which there is one more when the list goes on.
    pub fn first(mut items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().map(cursor).filter(|_| more);
        Self { items, next_cursor }
    }
}

/// Why a credential did not count, as far as its sender is told.
pub(super) fn unauthenticated(failure: AuthFailure) -> Problem {
    match failure {
        AuthFailure::Throttled(seconds) => {
            Problem::new(ProblemType::TooManyRequests, "too many failed sign-ins from this address; wait")
                .after(seconds)
        }
        AuthFailure::NoSession => {
            Problem::new(ProblemType::Unauthenticated, "the session has ended; sign in again")
        }
        AuthFailure::Missing => {
            Problem::new(ProblemType::Unauthenticated, "send `Authorization: Bearer <API key>`")
        }
        _ => Problem::new(
            ProblemType::Unauthenticated,
            "the API key is unknown, wrong, expired or revoked; make another one, or check which one is sent",
        ),
    }
}
