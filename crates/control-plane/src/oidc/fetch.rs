//! Requests to providers: protected, bounded in time and size, and never to where an answer points.

use std::time::Duration;

use openidconnect::{HttpRequest, HttpResponse, http};
use url::Url;

use crate::config::is_protected;

const TIME_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 1 << 20;

/// A provider cannot be asked. The texts of the client may quote addresses with codes in them, so they stay out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("an address of the provider is not https://")]
    Unprotected,
    #[error("the provider does not answer")]
    NoAnswer,
    #[error("the provider's answer is too large")]
    TooLarge,
}

/// A client for providers.
///
/// # Errors
/// `NoAnswer`: TLS cannot be set up.
pub(super) fn client() -> Result<reqwest::Client, FetchError> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIME_MAX);
    client.build().map_err(|_| FetchError::NoAnswer)
}

/// Sends one request.
///
/// # Errors
/// As the kinds say.
pub(super) async fn send(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let url = Url::parse(&request.uri().to_string()).map_err(|_| FetchError::Unprotected)?;
    if !is_protected(&url) {
        return Err(FetchError::Unprotected);
    }
    let (parts, body) = request.into_parts();
    let sent = client.request(parts.method, url).headers(parts.headers).body(body).send().await;
    let mut answer = sent.map_err(|_| FetchError::NoAnswer)?;
    let mut response = http::Response::new(Vec::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    while let Some(chunk) = answer.chunk().await.map_err(|_| FetchError::NoAnswer)? {
        if response.body().len() + chunk.len() > ANSWER_MAX {
            return Err(FetchError::TooLarge);
        }
        response.body_mut().extend_from_slice(&chunk);
    }
    Ok(response)
}
