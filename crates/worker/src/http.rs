//! The worker's HTTP side: `/metrics`, `/healthz`, `/readyz`, and the catalog for readers below `/iceberg` when the
//! spec asks for one. Nothing here can change anything.
//!
//! - `/healthz` answers 200 while the process serves requests.
//! - `/readyz` answers 200 once every table that has not stopped with an error is being worked on,
//!   and 503 before, or when a table has stopped.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use siltstone_datafile::MemoryBudget;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    error::WorkerError,
    metrics::Metrics,
    readers::{self, Readers},
    run::Readiness,
};

/// What the handlers read.
pub(crate) struct Served {
    pub metrics: Arc<Metrics>,
    pub registry: Registry,
    pub budget: MemoryBudget,
    pub readiness: Arc<Readiness>,
}

/// Listens and serves until `shutdown` turns true. Returns the bound address at once.
///
/// # Errors
/// `Listen` when the address cannot be bound.
pub(crate) async fn serve(
    address: SocketAddr,
    served: Served,
    readers: Option<Readers>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<SocketAddr, WorkerError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| WorkerError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| WorkerError::Listen { address, source })?;
    let mut app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(served));
    if let Some(readers) = readers {
        app = app.merge(readers::router(readers));
    }
    tokio::spawn(async move {
        let stop = async move {
            // An error means that the sender is gone, which also ends the worker.
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "http server ended");
        }
    });
    Ok(bound)
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    match served.metrics.render(&served.registry, &served.budget) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(served): State<Arc<Served>>) -> impl IntoResponse {
    let waiting = served.readiness.not_ready();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", waiting.join(", ")))
    }
}
