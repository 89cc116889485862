//! The schemas of the workloads by id, as Confluent's API answers.

use std::net::SocketAddr;

use axum::{Json, Router, extract::Path, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::json;

use crate::rows::Shape;

/// Serves until the process ends.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let app = Router::new()
            .route("/schemas/ids/{id}", get(by_id))
            .route("/subjects/{subject}/versions/latest", get(latest));
        Ok(axum::serve(tokio::net::TcpListener::bind(listen).await?, app).await?)
    })
}

async fn by_id(Path(id): Path<u32>) -> axum::response::Response {
    match Shape::schema_of_id(id) {
        Some(schema) => Json(json!({ "schema": schema, "schemaType": kind(id) })).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"error_code": 40403}))).into_response(),
    }
}

/// The subject is the shape's name.
async fn latest(Path(subject): Path<String>) -> axum::response::Response {
    let id = match subject.trim_end_matches("-value") {
        name if name.contains("orders") => 1,
        name if name.contains("wide-protobuf") => 4,
        name if name.contains("wide") => 2,
        _ => return (StatusCode::NOT_FOUND, Json(json!({"error_code": 40401}))).into_response(),
    };
    let schema = Shape::schema_of_id(id);
    Json(json!({"id": id, "version": 1, "subject": subject, "schema": schema, "schemaType": kind(id)}))
        .into_response()
}

fn kind(id: u32) -> &'static str {
    if id == 4 { "PROTOBUF" } else { "AVRO" }
}
