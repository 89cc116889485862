//! The one place from which anything is sent to the control plane.
//!
//! 1. Only [`Message`]s can be sent: the trait is sealed in `siltstone_protocol`.
//! 2. Each is a POST of JSON to the path of its type below the URL of the spec. No redirect is followed.
//! 3. What is sent is recorded first, when the user asked for it; what cannot be recorded is not sent.
//! 4. Answers are read up to a bound and are of the message's reply type, or a closed fault. No text of an answer
//!    comes further than here.
//!
//! Rows, bytes and texts are no messages:
//!
//! ```no_run
//! # async fn of(wire: &siltstone_worker::control::Wire, report: &siltstone_protocol::Report) {
//! let ack = wire.send(report).await;
//! # }
//! ```
//! ```compile_fail
//! # async fn of(wire: &siltstone_worker::control::Wire, batch: &arrow::array::RecordBatch) {
//! let ack = wire.send(batch).await;
//! # }
//! ```
//! ```compile_fail
//! # async fn of(wire: &siltstone_worker::control::Wire, bytes: &Vec<u8>) {
//! let ack = wire.send(bytes).await;
//! # }
//! ```
//! ```compile_fail
//! # async fn of(wire: &siltstone_worker::control::Wire, text: &str) {
//! let ack = wire.send(text).await;
//! # }
//! ```

use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::{
    Certificate, Client, ClientBuilder, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use siltstone_protocol::{
    ErrorKind, Message,
    message::{MESSAGE_BYTES_MAX, Nothing},
};
use siltstone_spec::{ControlPlane, Secret};
use url::Url;

use super::Recorder;
use crate::identity::Identity;

/// One request, with its answer, unless the message says that it waits.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is numbers, codes and at most a hundred commands.
const REPLY_BYTES_MAX: usize = 256 << 10;
/// Tries of one message; after that its sender decides.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Why a message was not taken. Holds nothing that the other side said but its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    #[error("the control plane cannot be reached (address, TLS or a refused port)")]
    Unreachable,
    #[error("the control plane did not answer in time")]
    TimedOut,
    #[error("the control plane's answer broke off")]
    BrokeOff,
    #[error("the control plane answered with HTTP status {0}")]
    Status(u16),
    #[error("the control plane refuses the API key (HTTP status {0}); check control_plane.api_key")]
    NotAuthorised(u16),
    #[error("the control plane's answer is not what this message is answered with; check control_plane.url")]
    NotAnAnswer,
    #[error("the control plane's answer is larger than {REPLY_BYTES_MAX} bytes")]
    AnswerTooLarge,
    #[error("a message of {0} bytes is larger than {MESSAGE_BYTES_MAX} and was not sent")]
    TooLarge(usize),
    #[error("the message could not be written to the recording and was not sent")]
    NotRecorded,
    #[error("the message could not be made")]
    NotMade,
}

impl WireError {
    /// What the sender should do.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Unreachable | Self::TimedOut | Self::BrokeOff | Self::NotRecorded => ErrorKind::Unavailable,
            Self::Status(429 | 500..=599) => ErrorKind::Unavailable,
            Self::Status(_) | Self::NotAuthorised(_) => ErrorKind::Invalid,
            Self::NotAnAnswer | Self::AnswerTooLarge => ErrorKind::Data,
            Self::TooLarge(_) | Self::NotMade => ErrorKind::Internal,
        }
    }
}

impl WireError {
    /// True when no other message would fare better now.
    pub(super) fn is_outage(self) -> bool {
        self.kind() == ErrorKind::Unavailable || matches!(self, Self::NotAuthorised(401))
    }
}

/// The settings of the spec are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control_plane: {0}")]
pub struct WireSettingsError(String);

/// Sends messages to the control plane. Cheap to share.
pub struct Wire {
    client: Client,
    url: Url,
    region: Option<HeaderValue>,
    key: RwLock<HeaderValue>,
    identity: Arc<Identity>,
    recorder: Option<Recorder>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Wire {
    /// To the control plane of a spec.
    ///
    /// # Errors
    /// When its authorities cannot be read, or the key holds what HTTP does not allow.
    pub fn new(
        plane: &ControlPlane,
        identity: Arc<Identity>,
        recorder: Option<Recorder>,
    ) -> Result<Self, WireSettingsError> {
        let refused = |why: &str| WireSettingsError(why.to_owned());
        let mut url = Url::parse(&plane.url).map_err(|_| refused("url is not a URL"))?;
        url.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        let client = client_builder(&url, plane.ca_file.as_deref())?
            .build()
            .map_err(|_| refused("its TLS settings are refused; check ca_file"))?;
        let region = plane.region.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Self {
            client,
            url,
            region: region.map_err(|_| refused("region holds characters that HTTP does not allow"))?,
            key: RwLock::new(bearer(&plane.api_key)?),
            identity,
            recorder,
        })
    }

    /// The host and port to which messages go.
    pub fn address(&self) -> Option<(String, u16)> {
        Some((self.url.host_str()?.to_owned(), self.url.port_or_known_default()?))
    }

    /// Uses another key from now on.
    ///
    /// # Errors
    /// When it holds what HTTP does not allow; the key before it stays.
    pub fn use_key(&self, key: &Secret) -> Result<(), WireSettingsError> {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = bearer(key)?;
        Ok(())
    }

    /// Sends a message and returns the answer. Tried again a bounded number of times when the fault may pass: every
    /// message may arrive twice. Not cancel-safe only in that: a message that was cut off may have arrived.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn send<M: Message>(&self, message: &M) -> Result<M::Reply, WireError> {
        self.send_waiting(message, Duration::ZERO).await
    }

    /// [`Self::send`] of a message whose answer may take `wait` longer.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn send_waiting<M: Message>(&self, message: &M, wait: Duration) -> Result<M::Reply, WireError> {
        let body = serde_json::to_vec(message).map_err(|_| WireError::NotMade)?;
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLarge(body.len()));
        }
        let body = bytes::Bytes::from(body);
        let mut tries = 1;
        loop {
            match self.try_once::<M>(body.clone(), TIMEOUT + wait).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && tries < TRIES_MAX => {
                    tracing::debug!(message = M::NAME, %error, tries, "message not taken, sending it again");
                    tokio::time::sleep(self.identity.jitter(PAUSE * 2_u32.pow(tries))).await;
                    tries += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn try_once<M: Message>(
        &self,
        body: bytes::Bytes,
        timeout: Duration,
    ) -> Result<M::Reply, WireError> {
        let url = self.url.join(M::PATH.trim_start_matches('/')).map_err(|_| WireError::NotMade)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(region) = &self.region {
            headers.insert("siltstone-region", region.clone());
        }
        if let Some(recorder) = &self.recorder {
            let recorded = recorder.record(Method::POST.as_str(), url.path(), &headers, body.clone()).await;
            recorded.map_err(|_| WireError::NotRecorded)?;
        }
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner).clone();
        headers.insert(AUTHORIZATION, key);
        let request = self.client.post(url).headers(headers).body(body).timeout(timeout);
        let answer = request.send().await.map_err(|error| fault(&error))?;
        match answer.status() {
            status if status.is_success() => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(WireError::NotAuthorised(status.as_u16()));
            }
            status => return Err(WireError::Status(status.as_u16())),
        }
        let body = read(answer).await?;
        // A reader's own message may quote what was read: it ends here.
        serde_json::from_slice(&body).map_err(|_| WireError::NotAnAnswer)
    }
}

/// How a client of a control plane begins: TLS 1.2 or later, no redirect, and plain http only where it stays on this
/// machine, past any proxy. Whoever takes a URL from a user checks it with [`siltstone_spec::is_private`] first.
///
/// # Errors
/// The authorities cannot be read.
pub fn client_builder(url: &Url, ca_file: Option<&Path>) -> Result<ClientBuilder, WireSettingsError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .min_tls_version(reqwest::tls::Version::TLS_1_2)
        .user_agent(concat!("siltstone/", env!("CARGO_PKG_VERSION")));
    builder = if url.scheme() == "http" { builder.no_proxy() } else { builder.https_only(true) };
    if let Some(path) = ca_file {
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities(path)? {
            builder = builder.add_root_certificate(authority);
        }
    }
    Ok(builder)
}

/// The body, up to the bound.
async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| fault(&error))? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return Err(WireError::AnswerTooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if body.is_empty() {
        // `204 No Content` is how some servers say nothing.
        body = serde_json::to_vec(&Nothing::default()).map_err(|_| WireError::NotAnAnswer)?;
    }
    Ok(body)
}

fn fault(error: &reqwest::Error) -> WireError {
    match () {
        () if error.is_timeout() => WireError::TimedOut,
        () if error.is_connect() => WireError::Unreachable,
        () if error.is_body() || error.is_decode() => WireError::BrokeOff,
        () => WireError::Unreachable,
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, WireSettingsError> {
    let wrong = |_| WireSettingsError("api_key holds characters that HTTP does not allow".to_owned());
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.reveal())).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, WireSettingsError> {
    let about = |what: &str| WireSettingsError(format!("ca_file {} {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| about(&format!("cannot be read: {}", error.kind())))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|_| about("holds no certificate in PEM"))?;
    if found.is_empty() { Err(about("holds no certificate in PEM")) } else { Ok(found) }
}
