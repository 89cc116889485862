//! Requests to a catalog: configuration, credentials, limits, retries.
//!
//! A request that only reads is tried again, a bounded number of times, when the reason passes. One that changes
//! something is sent once; whoever sent it decides what became of it. Both are sent again, once, when the catalog
//! refuses a token that can be renewed.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Certificate, Identity, Method, Request, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
    redirect::Policy,
};
use siltstone_datafile::Host;
use siltstone_protocol::ErrorCode;
use siltstone_spec::{RestCatalog, Tls};
use tokio::sync::OnceCell;
use url::Url;

use super::{
    auth::Auth,
    wire::{ConfigAnswer, body_of, error_type, text},
};
use crate::error::{CatalogFault, CatalogFaultCode, LakeError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS_MAX: u32 = 4;
const BACKOFF_MIN_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 5_000;
/// One answer: the metadata of a table with thousands of snapshots takes some megabytes.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Levels of a namespace stand between these, unless the catalog says otherwise.
const SEPARATOR: &str = "%1F";
const DELEGATION: HeaderName = HeaderName::from_static("x-iceberg-access-delegation");

pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    warehouse: Option<String>,
    prefix: Option<String>,
    auth: Auth,
    delegation: bool,
    config: OnceCell<Config>,
    host: Host,
}

/// What the catalog said of itself.
#[derive(Debug, Clone)]
struct Config {
    base: Url,
    /// Empty, or with a slash before it.
    prefix: String,
    separator: String,
}

/// A request below the catalog's prefix.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: Below<'a>,
    pub(super) body: Option<Bytes>,
    /// For messages.
    pub(super) operation: &'static str,
}

/// A path below the prefix.
#[derive(Clone, Copy)]
pub(super) enum Below<'a> {
    Namespaces,
    Tables(&'a [String]),
    Table(&'a [String], &'a str),
}

impl Client {
    pub(super) fn new(catalog: &RestCatalog, host: Host) -> Result<Self, LakeError> {
        let subject = format!("catalog {}", catalog.uri);
        let base = Url::parse(&catalog.uri)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                LakeError::invalid("catalog", "uri is not http or https with a host")
                    .coded(ErrorCode::CatalogSettingRefused)
            })?;
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // A redirect would carry the credentials elsewhere.
            .redirect(Policy::none())
            .user_agent("siltstone");
        let http = with_tls(builder, &catalog.tls, &subject)?.build().map_err(|_| {
            LakeError::invalid(&subject, "its TLS settings are refused; check the PEM files")
                .coded(ErrorCode::CatalogSettingRefused)
        })?;
        let auth = Auth::new(&catalog.auth, &base, &subject)?;
        Ok(Self {
            http,
            base,
            warehouse: catalog.warehouse.clone(),
            prefix: catalog.prefix.clone(),
            auth,
            delegation: catalog.vended_credentials,
            config: OnceCell::new(),
            host,
        })
    }

    /// The catalog's address, for messages: the URI without credentials.
    pub(super) fn name(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The body of a successful answer. Reads are tried again while the reason passes.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Bytes, CatalogFault> {
        let config = self.config.get_or_try_init(|| self.configure()).await?;
        let url = config.url(ask.path);
        if ask.method != Method::GET {
            return self.once(&ask.method, &url, ask.body.as_ref()).await;
        }
        self.get(&url).await
    }

    async fn get(&self, url: &Url) -> Result<Bytes, CatalogFault> {
        let mut attempt = 0;
        loop {
            match self.once(&Method::GET, url, None).await {
                Err(fault) if fault.passes() && attempt + 1 < ATTEMPTS_MAX => {
                    tracing::debug!(catalog = self.name(), %fault, attempt, "catalog request failed");
                    self.backoff(attempt).await;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Waits between attempts: doubling, with jitter, bounded.
    pub(super) async fn backoff(&self, attempt: u32) {
        let ceiling = (BACKOFF_MIN_MS << attempt.min(10)).min(BACKOFF_MAX_MS);
        let wait = ceiling / 2 + self.host.random() % (ceiling / 2 + 1);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    async fn configure(&self) -> Result<Config, CatalogFault> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/v1/config", self.base.path().trim_end_matches('/')));
        if let Some(warehouse) = &self.warehouse {
            url.query_pairs_mut().append_pair("warehouse", warehouse);
        }
        let body = self.get(&url).await.map_err(|fault| match fault.code {
            CatalogFaultCode::NotFound | CatalogFaultCode::Refused => {
                CatalogFault { code: CatalogFaultCode::NoCatalog, ..fault }
            }
            _ => fault,
        })?;
        let unreadable = |_| CatalogFault::of(CatalogFaultCode::NoCatalog);
        let answer: ConfigAnswer = serde_json::from_slice(&body).map_err(unreadable)?;
        let said = |key: &str| text(&answer.overrides, key).or_else(|| text(&answer.defaults, key));
        // Overrides go before the spec, the spec before defaults.
        let prefix = text(&answer.overrides, "prefix")
            .or(self.prefix.as_deref())
            .or_else(|| text(&answer.defaults, "prefix"))
            .map(|prefix| prefix.trim_matches('/'))
            .filter(|prefix| !prefix.is_empty());
        let base = match text(&answer.overrides, "uri").and_then(|uri| Url::parse(uri).ok()) {
            // Credentials go to the host that the spec names and to no other.
            Some(uri) if uri.origin() == self.base.origin() => uri,
            _ => self.base.clone(),
        };
        let separator = said("namespace-separator").filter(|separator| is_separator(separator));
        Ok(Config {
            base,
            prefix: prefix.map_or_else(String::new, |prefix| format!("/{prefix}")),
            separator: separator.unwrap_or(SEPARATOR).to_owned(),
        })
    }

    async fn once(&self, method: &Method, url: &Url, body: Option<&Bytes>) -> Result<Bytes, CatalogFault> {
        let mut renewed = false;
        loop {
            let mut request = Request::new(method.clone(), url.clone());
            let headers = request.headers_mut();
            headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            if self.delegation {
                headers.insert(DELEGATION, HeaderValue::from_static("vended-credentials"));
            }
            if let Some(body) = body {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *request.body_mut() = Some(body.clone().into());
            }
            let used = self.auth.sign(&self.http, &mut request, body).await?;
            match self.read(request).await {
                Err(fault) if fault.code == CatalogFaultCode::Unauthenticated && !renewed => {
                    renewed = true;
                    if !self.auth.renew(used).await {
                        return Err(fault);
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn read(&self, request: Request) -> Result<Bytes, CatalogFault> {
        let sent = self.http.execute(request).await;
        let mut answer = sent.map_err(|error| CatalogFault::transport(&error))?;
        let status = answer.status();
        let body = body_of(&mut answer, BODY_BYTES_MAX).await?;
        if status.is_success() { Ok(Bytes::from(body)) } else { Err(refusal(status, &body)) }
    }
}

impl Config {
    fn url(&self, below: Below<'_>) -> Url {
        let namespace = |levels: &[String]| levels.join(&self.separator);
        let path = match below {
            Below::Namespaces => "namespaces".to_owned(),
            Below::Tables(levels) => format!("namespaces/{}/tables", namespace(levels)),
            Below::Table(levels, table) => format!("namespaces/{}/tables/{table}", namespace(levels)),
        };
        let mut url = self.base.clone();
        // Names are letters, digits, `_` and `-`; the prefix is in the form that the catalog gave it.
        url.set_path(&format!("{}/v1{}/{path}", self.base.path().trim_end_matches('/'), self.prefix));
        url
    }
}

/// What stands between the levels of a namespace, as it is written in a path.
fn is_separator(text: &str) -> bool {
    let escaped =
        text.strip_prefix('%').is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok());
    escaped || matches!(text, "." | "-" | "_" | "~" | "$")
}

fn refusal(status: StatusCode, body: &[u8]) -> CatalogFault {
    use CatalogFaultCode as Code;
    let kind = error_type(body);
    let code = match status.as_u16() {
        401 | 419 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        409 => Code::Conflict,
        429 => Code::Busy,
        500.. => Code::Failed,
        _ => Code::Refused,
    };
    CatalogFault { code, status: Some(status.as_u16()), kind }
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    tls: &Tls,
    subject: &str,
) -> Result<reqwest::ClientBuilder, LakeError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            LakeError::invalid(
                subject,
                format_args!(
                    "file {} of the catalog's tls cannot be read ({})",
                    path.display(),
                    error.kind()
                ),
            )
            .coded(ErrorCode::CatalogSettingRefused)
        })
    };
    let refused = |path: &std::path::Path, wanted: &str| {
        LakeError::invalid(
            subject,
            format_args!("file {} of the catalog's tls holds no {wanted} in PEM", path.display()),
        )
        .coded(ErrorCode::CatalogSettingRefused)
    };
    if let Some(path) = &tls.ca_file {
        let authorities =
            Certificate::from_pem_bundle(&read(path)?).map_err(|_| refused(path, "certificate"))?;
        if authorities.is_empty() {
            return Err(refused(path, "certificate"));
        }
        // Its own authority replaces the system's.
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        if tls.key_password.is_some() {
            let why = "an encrypted key is not supported here; give the key without a password";
            return Err(LakeError::invalid(subject, why).coded(ErrorCode::CatalogSettingRefused));
        }
        let mut pem = read(key)?;
        pem.push(b'\n');
        pem.extend(read(cert)?);
        let identity = Identity::from_pem(&pem).map_err(|_| refused(cert, "certificate with its key"))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}
