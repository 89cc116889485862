//! The OpenAPI 3.1 document, made from the table of endpoints.

use axum::http::Method;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Endpoint, QueryKind, Scope, once};
use crate::{auth::Permission, problem::Problem};

/// No control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = json!(generator.subschema_for::<Problem>());
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in super::all() {
        let operation = operation(&endpoint, &mut generator, &problem);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(endpoint.method.as_str().to_lowercase(), operation);
        }
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Siltstone control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Metadata of tables, as their workers report it. Paths below /worker are for workers; the others \
                are for people and their programs.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "__Host-siltstone-session",
                    "description": "Of a person who signed on. What changes something needs the csrf_token of \
                        GET /api/v1/session in the header Siltstone-Csrf, too.",
                },
            },
        },
    })
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator, problem: &Value) -> Value {
    let mut parameters = path_parameters(endpoint.path);
    for parameter in &endpoint.query {
        let schema = match parameter.kind {
            QueryKind::Integer { min, max, default } => {
                json!({ "type": "integer", "minimum": min, "maximum": max, "default": default })
            }
            QueryKind::Text { max } => json!({ "type": "string", "maxLength": max, "pattern": PRINTABLE }),
            QueryKind::Word(words) => json!({ "type": "string", "enum": words }),
        };
        parameters.push(json!({
            "name": parameter.name, "in": "query", "required": false, "description": parameter.about, "schema": schema,
        }));
    }
    if once::takes_keys(endpoint) {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "With the same key, the same request is carried out once within 24 hours.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
        }));
    }
    let mut responses = Map::new();
    let described = |about: &str, content: Option<(&str, Value)>| {
        let mut response = json!({ "description": about });
        if let (Some((kind, schema)), Some(response)) = (content, response.as_object_mut()) {
            response.insert("content".to_owned(), json!({ kind: { "schema": schema } }));
        }
        response
    };
    match endpoint.response {
        Some(of) => {
            let schema = json!(of(generator));
            let response = described("done", Some(("application/json", schema)));
            responses.insert(endpoint.status.as_str().to_owned(), response);
        }
        None if endpoint.status.is_redirection() => {
            responses.insert(endpoint.status.as_str().to_owned(), described("goes on elsewhere", None));
        }
        None => {
            responses.insert("204".to_owned(), described("done", None));
        }
    }
    for (status, about) in refusals(endpoint) {
        let content = Some(("application/problem+json", problem.clone()));
        responses.insert(status.to_owned(), described(about, content));
    }
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.about,
        "parameters": parameters,
        "responses": responses,
        "x-siltstone-permission": endpoint.permission,
    });
    if let Some(operation) = operation.as_object_mut() {
        if endpoint.permission != Permission::Public {
            operation.insert("security".to_owned(), json!([{ "apiKey": [] }, { "session": [] }]));
        }
        if let Some(of) = endpoint.request {
            let schema = json!(of(generator));
            let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
            operation.insert("requestBody".to_owned(), body);
        }
    }
    operation
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        json!({
            "name": name, "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": PRINTABLE },
        })
    };
    names.map(parameter).collect()
}

fn refusals(endpoint: &Endpoint) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("400", "the request breaks its schema or a limit"), ("503", "try again later")];
    if endpoint.permission != Permission::Public {
        all.push(("401", "no credential, or one that does not count"));
        all.push(("403", "the credential does not give this right"));
        all.push(("421", "this control plane is pinned to another region"));
        all.push(("429", "too many requests"));
    }
    if endpoint.path.contains("/oidc/") {
        all.push(("401", "nobody signed on"));
        all.push(("403", "this account or address may not sign on"));
        all.push(("404", "no such provider"));
        all.push(("429", "too many requests"));
    }
    if once::takes_keys(endpoint) {
        all.push(("422", "the idempotency key is another request's"));
    }
    // What a body refers to may be missing, too.
    if endpoint.path.contains('{') || (endpoint.method == Method::POST && endpoint.scope != Scope::Worker) {
        all.push(("404", "no such thing, or not for this credential"));
    }
    if endpoint.request.is_some() {
        all.push(("413", "the body is too large"));
        all.push(("415", "the body is no JSON"));
    }
    if endpoint.method != Method::GET && endpoint.scope != Scope::Worker {
        all.push(("409", "it conflicts with what is there"));
    }
    all
}
