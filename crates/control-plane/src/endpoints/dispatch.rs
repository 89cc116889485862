//! From the table of endpoints to a router. What happens to a request, in this order:
//!
//! 1. a place among the requests under way, and a bound on its body;
//! 2. the credential;
//! 3. the allow-list of its organisation, and for a cookie, that a page of this server asks;
//! 4. its rate;
//! 5. the resource, which must exist in the credential's organisation;
//! 6. the right, decided and written to the audit log;
//! 7. the query and body against the endpoint's declaration;
//! 8. for a change with an idempotency key, whether it was made already;
//! 9. the handler; for a change, its entry in the audit log is durable before the answer goes out.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    routing::{MethodFilter, MethodRouter, on},
};
use flate2::read::GzDecoder;
use siltstone_protocol::message::MESSAGE_BYTES_MAX;
use sqlx::Row;
use tokio::sync::Semaphore;

use super::{
    Endpoint, QueryKind, Scope,
    call::{Call, Headers, Reply, unauthenticated},
    once,
};
use crate::{
    app::App,
    audit::{Event, Outcome},
    auth::{AuthFailure, Decision, Permission, Principal, Resource, decide, decide_within, network},
    problem::{Problem, ProblemType},
};

/// From the first byte of the body to the last.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// A compressed body may grow so much.
const GZIP_RATIO_MAX: usize = 50;
/// Bodies of people's requests.
const SMALL_BODY_MAX: usize = 64 << 10;

/// The header in which a worker names the region that it was set up for.
pub(super) const REGION_HEADER: &str = "siltstone-region";

/// All endpoints, behind all checks.
pub fn router(app: &Arc<App>) -> Router {
    let places = Arc::new(Semaphore::new(app.config.limits.concurrency.max(1)));
    let mut by_path: BTreeMap<&'static str, MethodRouter> = BTreeMap::new();
    for endpoint in super::all() {
        let Ok(filter) = MethodFilter::try_from(endpoint.method.clone()) else { continue };
        let (path, endpoint) = (endpoint.path, Arc::new(endpoint));
        let (app, places) = (Arc::clone(app), Arc::clone(&places));
        let handler = move |request: Request| {
            let (app, endpoint, places) = (Arc::clone(&app), Arc::clone(&endpoint), Arc::clone(&places));
            async move { answer(&app, &endpoint, &places, request).await }
        };
        let known = by_path.remove(path).unwrap_or_default();
        by_path.insert(path, known.merge(on(filter, handler)));
    }
    let mut router = Router::new();
    for (path, methods) in by_path {
        let refused = || async {
            let detail = "this path has other methods; see /api/v1/openapi.json";
            secured(Problem::new(ProblemType::MethodNotAllowed, detail).into_response())
        };
        router = router.route(path, methods.fallback(refused));
    }
    let router = router.fallback(|| async { secured(Problem::not_found("endpoint").into_response()) });
    router.merge(crate::console::router())
}

async fn answer(
    app: &Arc<App>,
    endpoint: &Arc<Endpoint>,
    places: &Semaphore,
    request: Request,
) -> Response<Body> {
    // A poll that waits holds no place: a thousand workers may wait at once.
    let place = if endpoint.waits { None } else { places.try_acquire().ok() };
    if place.is_none() && !endpoint.waits {
        let problem = Problem::new(ProblemType::Unavailable, "too many requests are under way; try again");
        return secured(problem.after(1).into_response());
    }
    let done = serve(app, endpoint, request).await;
    drop(place);
    secured(match done {
        Ok(reply) => reply_of(endpoint, reply),
        Err(problem) => problem.into_response(),
    })
}

async fn serve(app: &Arc<App>, endpoint: &Arc<Endpoint>, request: Request) -> Result<Reply, Problem> {
    let (mut parts, body) = request.into_parts();
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let address = network::client(peer, &parts.headers, &app.config.trusted_proxies);
    let path = path_of(&mut parts).await?;
    let principal = match endpoint.permission {
        Permission::Public => None,
        _ => Some(who(app, endpoint, &parts.headers, address).await?),
    };
    if let Some(principal) = &principal {
        admitted(app, endpoint, principal, &parts.headers, address).await?;
        app.rates.take(&principal.actor(), app.clock.now_ms()).map_err(|seconds| {
            Problem::new(ProblemType::TooManyRequests, "this credential asks too often; wait").after(seconds)
        })?;
    }
    let uri = parts.uri.to_string();
    let resource = match resource(app, endpoint, principal.as_ref(), &path).await {
        Ok(resource) => resource,
        // What a change deleted is not there when it is asked again.
        Err(missing) => {
            let body = body_of(endpoint, &parts.headers, body).await?;
            let key = once::Key::of(endpoint, principal.as_ref(), (&uri, &parts.headers), &body)?;
            let done = once::done(app, endpoint, key.as_ref()).await?;
            return done.ok_or(missing);
        }
    };
    if let Some(principal) = &principal {
        right(app, endpoint, principal, &resource, address).await?;
    }
    region(app, &parts.headers)?;
    let query = query_of(endpoint, parts.uri.query().unwrap_or_default())?;
    let body = body_of(endpoint, &parts.headers, body).await?;
    let key = once::Key::of(endpoint, principal.as_ref(), (&uri, &parts.headers), &body)?;
    let event =
        principal.as_ref().map(|principal| event(endpoint, principal, &resource, address, Outcome::Changed));
    // What signs on and off looks at cookies; nothing else has use for a header.
    let signs = endpoint.scope == Scope::Nothing;
    let call = Call {
        app: Arc::clone(app),
        principal,
        resource,
        permission: endpoint.permission,
        path,
        query,
        body,
        headers: if signs { Headers(parts.headers) } else { Headers::default() },
        address,
    };
    match key {
        Some(key) => once::once(app, endpoint, key, call, event).await,
        None => carry_out(app, endpoint, call, event).await,
    }
}

/// The handler; and for a change, its entry in the audit log.
pub(super) async fn carry_out(
    app: &App,
    endpoint: &Endpoint,
    call: Call,
    event: Option<Event>,
) -> Result<Reply, Problem> {
    let reply = (endpoint.handler)(call).await?;
    // What workers report is not a change by a person; the ledger is its record.
    let recorded = endpoint.permission.changes() && endpoint.permission != Permission::Report;
    if let Some(event) = event.filter(|_| recorded)
        && !app.audit.record(event).await
    {
        let detail = "it was done, but the audit log has ended; see the server's log";
        return Err(Problem::new(ProblemType::Internal, detail));
    }
    Ok(reply)
}

/// Whether the organisation takes requests from this address, and, for a cookie, whether a page of this server asks.
async fn admitted(
    app: &App,
    endpoint: &Endpoint,
    principal: &Principal,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<(), Problem> {
    let networks = network::allowed(&app.store, &principal.organisation).await?;
    let refused = if !network::lets_in(networks.iter().map(|(_, network)| network), address) {
        let detail = "requests from this address are not allowed; ask an organisation admin for an entry in the \
                      allow-list";
        Some(("ip_allow_list", detail))
    } else if let Some(session) = principal.session().filter(|_| endpoint.method != Method::GET) {
        app.auth.cookies.same_origin(session, headers).err().map(|detail| ("session", detail))
    } else {
        None
    };
    let Some((by, detail)) = refused else { return Ok(()) };
    let event = event(endpoint, principal, &Resource::Organisation, address, Outcome::Denied);
    app.audit.note(Event { resource: by.to_owned(), ..event }).await;
    Err(Problem::new(ProblemType::Forbidden, detail))
}

async fn path_of(parts: &mut Parts) -> Result<BTreeMap<String, String>, Problem> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(|_| Problem::invalid("the path is not UTF-8 after decoding"))?;
    let mut path = BTreeMap::new();
    for (name, value) in &params {
        if value.is_empty() || value.len() > 255 || value.chars().any(char::is_control) {
            return Err(Problem::invalid(format!(
                "{name} in the path: 1 to 255 bytes without control characters"
            )));
        }
        path.insert(name.to_owned(), value.to_owned());
    }
    Ok(path)
}

async fn who(
    app: &App,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Principal, Problem> {
    match app.auth.authenticate(headers, address).await? {
        Ok(principal) => Ok(principal),
        // Turned away before any credential was looked at; the failures that led there are written down.
        Err(failure @ AuthFailure::Throttled(_)) => Err(unauthenticated(failure)),
        Err(failure) => {
            app.audit
                .note(Event {
                    organisation: String::new(),
                    actor: "nobody".to_owned(),
                    action: format!("{} {}", endpoint.method, endpoint.path),
                    resource: String::new(),
                    outcome: Outcome::Unauthenticated,
                    address: address.to_string(),
                })
                .await;
            Err(unauthenticated(failure))
        }
    }
}

/// The resource, if it is there and of the credential's organisation. Otherwise the answer is the same for both.
async fn resource(
    app: &App,
    endpoint: &Endpoint,
    principal: Option<&Principal>,
    path: &BTreeMap<String, String>,
) -> Result<Resource, Problem> {
    let Some(principal) = principal else { return Ok(Resource::Organisation) };
    let part = |name: &str| path.get(name).cloned().unwrap_or_default();
    let (environment, cluster) = match endpoint.scope {
        Scope::Nothing | Scope::Organisation => return Ok(Resource::Organisation),
        Scope::Worker => {
            let detail = "this credential is no worker's: it needs the role `worker` on exactly one cluster";
            let cluster = principal.worker_cluster();
            let (environment, cluster) =
                cluster.ok_or_else(|| Problem::new(ProblemType::Forbidden, detail))?;
            (environment.to_owned(), cluster.to_owned())
        }
        Scope::Environment => {
            let environment = part("environment");
            let found = sqlx::query("SELECT id FROM environments WHERE id = $1 AND organisation_id = $2")
                .bind(&environment)
                .bind(&principal.organisation)
                .fetch_optional(app.store.pool())
                .await
                .map_err(crate::store::StoreError::from)?;
            found.ok_or_else(|| Problem::not_found("environment"))?;
            return Ok(Resource::Environment { environment });
        }
        Scope::Cluster | Scope::Table => (part("environment"), part("cluster")),
    };
    let found = sqlx::query("SELECT environment_id FROM clusters WHERE id = $1 AND organisation_id = $2")
        .bind(&cluster)
        .bind(&principal.organisation)
        .fetch_optional(app.store.pool())
        .await
        .map_err(crate::store::StoreError::from)?;
    let found = found.and_then(|row| row.try_get::<String, _>("environment_id").ok());
    if found.as_deref() != Some(&environment) {
        return Err(Problem::not_found("cluster"));
    }
    Ok(match endpoint.scope {
        Scope::Table => Resource::Table { environment, cluster, table: part("table") },
        _ => Resource::Cluster { environment, cluster },
    })
}

async fn right(
    app: &App,
    endpoint: &Endpoint,
    principal: &Principal,
    resource: &Resource,
    address: IpAddr,
) -> Result<(), Problem> {
    let decision = if endpoint.filtered {
        decide_within(&principal.grants, endpoint.permission, resource)
    } else {
        decide(&principal.grants, endpoint.permission, resource)
    };
    let outcome = match decision {
        Decision::Allow => Outcome::Allowed,
        Decision::Deny => Outcome::Denied,
    };
    if decision == Decision::Deny || app.config.audit.reads {
        app.audit.note(event(endpoint, principal, resource, address, outcome)).await;
    }
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny => {
            let detail = format!(
                "it needs a role with the right {} on {resource}; ask an organisation admin for a role binding",
                serde_json::to_string(&endpoint.permission).unwrap_or_default().trim_matches('"'),
            );
            Err(Problem::new(ProblemType::Forbidden, detail))
        }
    }
}

fn event(
    endpoint: &Endpoint,
    principal: &Principal,
    resource: &Resource,
    address: IpAddr,
    outcome: Outcome,
) -> Event {
    Event {
        organisation: principal.organisation.clone(),
        actor: principal.actor(),
        action: format!("{} {}", endpoint.method, endpoint.path),
        resource: resource.to_string(),
        outcome,
        address: address.to_string(),
    }
}

fn region(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let (Some(pinned), Some(named)) = (&app.config.region, headers.get(REGION_HEADER)) else { return Ok(()) };
    if named.as_bytes() == pinned.as_bytes() {
        return Ok(());
    }
    let detail =
        format!("this control plane is pinned to {pinned}; set control_plane.url to the one of your region");
    Err(Problem::new(ProblemType::WrongRegion, detail))
}

fn query_of(endpoint: &Endpoint, query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut given = BTreeMap::new();
    for (name, value) in url_pairs(query) {
        if endpoint.query.iter().all(|parameter| parameter.name != name) {
            if endpoint.lenient {
                continue;
            }
            let names: Vec<&str> = endpoint.query.iter().map(|parameter| parameter.name).collect();
            let detail = format!("query: an unknown parameter; there are: {}", names.join(", "));
            return Err(Problem::invalid(detail));
        }
        if given.insert(name.clone(), value).is_some() {
            return Err(Problem::invalid(format!("query: {name} is given twice")));
        }
    }
    for parameter in &endpoint.query {
        let name = parameter.name;
        match (parameter.kind, given.get(name)) {
            (QueryKind::Integer { default, .. }, None) => {
                given.insert(name.to_owned(), default.to_string());
            }
            (QueryKind::Integer { min, max, .. }, Some(text)) => {
                if text.parse::<i64>().ok().filter(|number| (min..=max).contains(number)).is_none() {
                    return Err(Problem::invalid(format!("query: {name} is an integer from {min} to {max}")));
                }
            }
            (QueryKind::Text { max }, Some(text)) => {
                if text.len() > max || text.chars().any(char::is_control) {
                    let detail = format!("query: {name} has at most {max} bytes and no control characters");
                    return Err(Problem::invalid(detail));
                }
            }
            (QueryKind::Word(words), Some(text)) => {
                if !words.contains(&text.as_str()) {
                    return Err(Problem::invalid(format!("query: {name} is one of {}", words.join(", "))));
                }
            }
            (_, None) => {}
        }
    }
    Ok(given)
}

/// The pairs of a query string, decoded. Stricter than what URLs allow: what is no escape or no UTF-8 is refused, where
/// libraries put something in its place.
fn url_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                    _ => bytes.push(0),
                },
                byte => bytes.push(byte),
            }
        }
        // What is no UTF-8 or no escape becomes a control character, which is refused.
        String::from_utf8(bytes).unwrap_or_else(|_| "\0".to_owned())
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

async fn body_of(endpoint: &Endpoint, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if endpoint.request.is_none() {
        return Ok(Bytes::new());
    }
    let is_json = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.split(';').next().is_some_and(|kind| kind.trim() == "application/json"))
    };
    if !headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        return Err(Problem::new(ProblemType::UnsupportedMediaType, "send `Content-Type: application/json`"));
    }
    let max = if endpoint.scope == Scope::Worker { MESSAGE_BYTES_MAX } else { SMALL_BODY_MAX };
    let too_large =
        || Problem::new(ProblemType::TooLarge, format!("a body has at most {max} bytes; send less at once"));
    let read = tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, max)).await;
    let bytes =
        read.map_err(|_| Problem::invalid("the body took too long to arrive"))?.map_err(|_| too_large())?;
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(bytes),
        Some(b"gzip") if endpoint.scope == Scope::Worker => {
            let limit = max.min(bytes.len().saturating_mul(GZIP_RATIO_MAX)) as u64;
            let mut plain = Vec::new();
            let mut decoder = GzDecoder::new(bytes.as_ref()).take(limit + 1);
            decoder.read_to_end(&mut plain).map_err(|_| Problem::invalid("the body is no gzip"))?;
            if plain.len() as u64 > limit { Err(too_large()) } else { Ok(plain.into()) }
        }
        Some(_) => Err(Problem::new(
            ProblemType::UnsupportedMediaType,
            "Content-Encoding: identity, or gzip of workers",
        )),
    }
}

fn reply_of(endpoint: &Endpoint, reply: Reply) -> Response<Body> {
    let status = reply.status.unwrap_or(endpoint.status);
    let mut response = Response::new(reply.body.clone().map_or_else(Body::empty, Body::from));
    *response.status_mut() = if reply.body.is_none() { StatusCode::NO_CONTENT } else { status };
    if reply.body.is_some() {
        let content_type = HeaderValue::from_static(reply.content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    } else if status.is_redirection() {
        *response.status_mut() = status;
    }
    response.headers_mut().extend(reply.headers);
    response
}

/// Headers that every answer has.
fn secured(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn every_endpoint_is_declared_once_and_its_path_fits_its_scope() {
        let mut operations = Vec::new();
        for endpoint in super::super::all() {
            assert!(!operations.contains(&endpoint.operation), "{}", endpoint.operation);
            operations.push(endpoint.operation);
            let has = |name: &str| endpoint.path.contains(&format!("{{{name}}}"));
            let fits = match endpoint.scope {
                Scope::Nothing | Scope::Organisation | Scope::Worker => !has("environment"),
                Scope::Environment => has("environment") && !has("cluster"),
                Scope::Cluster => has("environment") && has("cluster") && !has("table"),
                Scope::Table => has("environment") && has("cluster") && has("table"),
            };
            assert!(fits, "{endpoint:?}");
            let needs_right = !matches!(endpoint.permission, Permission::Public | Permission::Session);
            assert_eq!(needs_right, endpoint.scope != Scope::Nothing, "{endpoint:?}");
            assert!(MethodFilter::try_from(endpoint.method.clone()).is_ok());
            let reads = endpoint.method == Method::GET;
            assert!(!(reads && endpoint.permission.changes()), "{endpoint:?} changes and is read");
        }
    }

    #[test]
    fn queries_are_decoded_once() {
        let pairs = url_pairs("a=1+2&b=%2525&c&d=%zz");
        let expected = [("a", "1 2"), ("b", "%25"), ("c", ""), ("d", "\0")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
