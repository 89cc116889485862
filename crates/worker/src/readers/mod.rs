//! The catalog for readers: the tables of the spec over Iceberg's REST protocol, read-only.
//!
//! 1. [`request`] tells from method and path what is asked; whatever would write is refused in the protocol's words.
//! 2. [`access`] tells who asks and which tables they may know of. Others do not exist for them.
//! 3. [`catalog`] knows names, and finds the newest metadata in the bucket when it is asked for: every worker
//!    serves every table of its spec, whichever partitions it reads, and no answer is older than its question.
//! 4. [`answer`] writes responses and errors as the protocol's OpenAPI document says.
//!
//! No credentials of the bucket are handed out, and reports of clients are dropped unread: their filters hold values.
//! Absent on purpose: TLS (a proxy's work), views, scan planning, signing of requests.

mod access;
mod answer;
mod catalog;
mod request;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::Method,
    response::Response,
    routing::any,
};
use prometheus_client::metrics::{counter::Counter, family::Family};
use siltstone_lakehouse::TableStore;
use siltstone_spec::{ReadersCatalog, Spec};
use tokio::sync::Semaphore;

use self::{
    access::{Access, Reader},
    answer::{Fault, Kind},
    catalog::Catalog,
    request::{Asked, Namespace, Route},
};
use crate::{
    error::WorkerError,
    metrics::{Metrics, StatusLabel},
};

/// Where the catalog is, below the address of `--http`.
pub(crate) const BASE: &str = "/iceberg";

/// Requests answered at once; others wait.
const REQUESTS_MAX: usize = 64;
/// The same for requests of those whose token is not known yet: they may be slow on purpose.
const STRANGERS_MAX: usize = 16;
/// A request that took longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that asks for a token.
const FORM_BYTES_MAX: usize = 16 << 10;
/// A report, which is dropped.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// What the handlers read.
pub(crate) struct Readers {
    access: Access,
    catalog: Catalog,
    permits: Semaphore,
    strangers: Semaphore,
    requests: Family<StatusLabel, Counter>,
}

impl Readers {
    /// `None` when the spec asks for no catalog.
    ///
    /// # Errors
    /// `Invalid`: without tokens, and others than this machine could ask.
    pub(crate) fn new(
        spec: &Spec,
        lake: &TableStore,
        address: SocketAddr,
        metrics: &Metrics,
    ) -> Result<Option<Self>, WorkerError> {
        let Some(section) = &spec.readers_catalog else { return Ok(None) };
        check_address(section, address)?;
        let access = Access::new(section);
        let catalog = Catalog::new(spec, lake);
        let (permits, strangers) = (Semaphore::new(REQUESTS_MAX), Semaphore::new(STRANGERS_MAX));
        let requests = metrics.readers_requests.clone();
        Ok(Some(Self { access, catalog, permits, strangers, requests }))
    }
}

/// Without tokens, only programs on this machine may ask.
fn check_address(section: &ReadersCatalog, address: SocketAddr) -> Result<(), WorkerError> {
    if !section.tokens.is_empty() || address.ip().is_loopback() {
        return Ok(());
    }
    let what = format!(
        "has no tokens, so anyone who reaches {address} could read it; give it tokens, or serve a loopback address \
         (--http 127.0.0.1:{})",
        address.port()
    );
    Err(WorkerError::ReadersCatalog { what })
}

/// Everything below [`BASE`].
pub(crate) fn router(readers: Readers) -> Router {
    Router::new()
        .route(BASE, any(answer))
        .route(&format!("{BASE}/{{*rest}}"), any(answer))
        .with_state(Arc::new(readers))
}

async fn answer(State(readers): State<Arc<Readers>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let reader = readers.access.reader(request.headers());
    let permits = if reader.is_ok() { &readers.permits } else { &readers.strangers };
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, async {
        // Never closed.
        let _permit = permits.acquire().await;
        readers.answer(reader, request).await
    });
    let response = match answered.await {
        Ok(Ok(response)) => response,
        Ok(Err(fault)) => answer::fault(&fault),
        Err(_) => {
            answer::fault(&Fault::new(Kind::Unavailable, "the bucket did not answer in time; ask again"))
        }
    };
    readers.requests.get_or_create(&StatusLabel { status: response.status().as_u16() }).inc();
    if head { response.map(|_| Body::empty()) } else { response }
}

impl Readers {
    async fn answer(&self, reader: Result<Reader<'_>, Fault>, request: Request) -> Result<Response, Fault> {
        let asked = Asked::of(request.method(), request.uri())?;
        if asked.route == Route::Token {
            return Ok(self.token(request).await);
        }
        let reader = match reader {
            Ok(reader) => reader,
            Err(fault) => return Err(self.access.refuse(fault).await),
        };
        self.answer_reader(&reader, asked, request).await
    }

    async fn answer_reader(
        &self,
        reader: &Reader<'_>,
        asked: Asked,
        request: Request,
    ) -> Result<Response, Fault> {
        let catalog = &self.catalog;
        match &asked.route {
            Route::Config => Ok(answer::config(catalog.properties())),
            Route::Namespaces => {
                let parent = match asked.query("parent") {
                    Some(parent) if !parent.is_empty() => Namespace::of(parent),
                    _ => Namespace::default(),
                };
                let page = asked.page()?;
                let (names, next) = catalog.namespaces(reader, &parent, &page)?;
                Ok(answer::namespaces(&names, next))
            }
            Route::Namespace(namespace) => {
                catalog.namespace(reader, namespace)?;
                Ok(answer::namespace(namespace, request.method() == Method::HEAD))
            }
            Route::Tables(namespace) => {
                let (names, next) = catalog.tables(reader, namespace, &asked.page()?).await?;
                Ok(answer::tables(namespace, &names, next))
            }
            Route::Table(namespace, name) => {
                let snapshots = asked.snapshots()?;
                let document = catalog.document(reader, namespace, name).await?;
                if request.method() == Method::HEAD {
                    return Ok(answer::exists());
                }
                answer::table(&document, snapshots, request.headers())
            }
            Route::Credentials(namespace, name) => {
                catalog.document(reader, namespace, name).await?;
                Ok(answer::no_credentials())
            }
            Route::Report(namespace, name) => {
                catalog.entry(reader, namespace, name)?;
                // Read to its end, so that the connection can go on; what it says is nobody's business.
                match to_bytes(request.into_body(), REPORT_BYTES_MAX).await {
                    Ok(_) => Ok(answer::exists()),
                    Err(_) => Err(Fault::new(Kind::TooLarge, "the report is too long")),
                }
            }
            Route::Views(namespace) => {
                catalog.namespace(reader, namespace)?;
                Ok(answer::tables(namespace, &[], None))
            }
            Route::View => Err(Fault::new(Kind::NoSuchView, "this catalog has no views")),
            Route::Write => Err(Fault::new(
                Kind::Unsupported,
                "this catalog is read-only; what its tables hold comes from Kafka, as the table spec says",
            )),
            Route::Token | Route::Unknown => {
                Err(Fault::new(Kind::NotFound, "this catalog has no such endpoint"))
            }
        }
    }

    /// `POST /v1/oauth/tokens`: a reader's token, sent as the secret of a client, is its access token.
    async fn token(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, FORM_BYTES_MAX).await else {
            return answer::oauth_fault("invalid_request", "the body is too long or broke off");
        };
        match self.access.exchange(&head.headers, &body) {
            Ok(token) => answer::access_token(&token),
            Err(refused) => {
                if refused == access::REFUSED {
                    let fault = self.access.refuse(access::unknown_token()).await;
                    if fault.kind == Kind::TooMany {
                        return answer::fault(&fault);
                    }
                }
                answer::oauth_fault(refused.error, refused.what)
            }
        }
    }
}
