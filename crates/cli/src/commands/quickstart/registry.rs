//! A schema registry endpoint with one subject: what a client asks of Confluent's API, and no more.

use axum::{Json, Router, extract::Path, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::json;

use super::orders::{SCHEMA, SCHEMA_ID};

/// Serves on a free port of this machine; returns the base URL.
pub async fn serve() -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new()
        .route("/schemas/ids/{id}", get(by_id))
        .route("/subjects/{subject}/versions/latest", get(latest));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "registry endpoint ended");
        }
    });
    Ok(url)
}

async fn by_id(Path(id): Path<u32>) -> impl IntoResponse {
    if id == SCHEMA_ID {
        Json(json!({"schema": SCHEMA})).into_response()
    } else {
        (StatusCode::NOT_FOUND, Json(json!({"error_code": 40403, "message": "Schema not found"})))
            .into_response()
    }
}

async fn latest(Path(subject): Path<String>) -> impl IntoResponse {
    if subject == "orders-value" {
        Json(json!({"subject": subject, "version": 1, "id": SCHEMA_ID, "schema": SCHEMA})).into_response()
    } else {
        (StatusCode::NOT_FOUND, Json(json!({"error_code": 40401, "message": "Subject not found"})))
            .into_response()
    }
}
