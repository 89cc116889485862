//! What a client is told when something is refused: problem details (RFC 9457), with closed types.
//!
//! `detail` says what to change. It names fields, limits and resources of the request, and never repeats a secret.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The closed list of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemType {
    /// The request breaks its schema or a limit.
    Invalid,
    /// No credential, or one that is unknown, expired or revoked.
    Unauthenticated,
    /// The credential does not give this right, or the address is not on the allow-list.
    Forbidden,
    /// There is no such thing, or it is not for this credential to know.
    NotFound,
    MethodNotAllowed,
    /// The name is taken.
    Conflict,
    /// An idempotency key was sent with another request before.
    KeyReused,
    TooLarge,
    /// The control plane is pinned to another region.
    WrongRegion,
    UnsupportedMediaType,
    TooManyRequests,
    /// Try again later: nothing was done, or it is not known whether it was. A worker's message may be sent twice.
    Unavailable,
    Internal,
}

impl ProblemType {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WrongRegion => StatusCode::MISDIRECTED_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::Unauthenticated => "A valid credential is needed",
            Self::Forbidden => "This credential may not do that",
            Self::NotFound => "There is no such thing here",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::Conflict => "It conflicts with what is there",
            Self::KeyReused => "The idempotency key is another request's",
            Self::TooLarge => "The request is too large",
            Self::WrongRegion => "This control plane serves another region",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::TooManyRequests => "Too many requests",
            Self::Unavailable => "Not possible right now",
            Self::Internal => "A fault of this server",
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:siltstone:problem:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is at fault and what to change.
    pub detail: String,
    #[serde(skip)]
    #[schemars(skip)]
    problem: Option<ProblemType>,
    /// After how many seconds to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

impl Problem {
    pub fn new(problem: ProblemType, detail: impl Into<String>) -> Self {
        let name = serde_json::to_value(problem).ok().and_then(|name| name.as_str().map(str::to_owned));
        Self {
            kind: format!("urn:siltstone:problem:{}", name.unwrap_or_default()),
            title: problem.title().to_owned(),
            status: problem.status().as_u16(),
            detail: detail.into(),
            problem: Some(problem),
            retry_after_seconds: None,
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::Invalid, detail)
    }

    pub fn not_found(what: &str) -> Self {
        let detail = format!("no {what} of this name or id, or not for this credential; check the path");
        Self::new(ProblemType::NotFound, detail)
    }

    /// To be tried again after so many seconds.
    pub fn after(self, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    pub fn problem(&self) -> ProblemType {
        self.problem.unwrap_or(ProblemType::Internal)
    }

    pub fn into_response(self) -> Response<Body> {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.problem().status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.problem() == ProblemType::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken { what } => Self::new(
                ProblemType::Conflict,
                format!("there is a {what} of this name; choose another name"),
            ),
            StoreError::Full { what, max } => {
                Self::invalid(format!("there are {max} {what}, and there may be no more; delete one first"))
            }
            StoreError::Unavailable { .. } | StoreError::Contended => {
                tracing::warn!(%error, "the database did not answer");
                let detail = "the database does not answer; try again";
                Self { retry_after_seconds: Some(1), ..Self::new(ProblemType::Unavailable, detail) }
            }
            StoreError::Broken { .. } | StoreError::Migration { .. } => {
                tracing::error!(%error, "the database holds what cannot be read");
                Self::new(ProblemType::Internal, "see the server's log")
            }
        }
    }
}
