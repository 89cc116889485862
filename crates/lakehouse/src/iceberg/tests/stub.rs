//! A REST catalog in this process, over the `iceberg` crate's own updates and requirements, with faults on demand.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{
        FormatVersion, Schema, SnapshotReference, SnapshotRetention, SortOrder, TableMetadata,
        TableMetadataBuilder, UnboundPartitionSpec,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use siltstone_spec::{CatalogAuth, RestCatalog, Secret};

/// What goes wrong with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is made, and nobody is told.
    Lost,
    /// It is not made, and nobody is told.
    Broken,
    /// 503, and it is made or not.
    Failed(bool),
    /// Another program commits first.
    Race,
    /// 400 as of a draft upon a state that another program left behind.
    Stale,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) namespaces: Vec<String>,
    pub(super) table: Option<(u64, TableMetadata)>,
    staged: Option<TableMetadata>,
    pub(super) faults: VecDeque<Fault>,
    /// Method and path of every request.
    pub(super) requests: Vec<(Method, String)>,
    /// Tokens handed out so far; only the newest is taken.
    pub(super) tokens: u64,
    /// Seconds that tokens live; `None`: no login is asked for.
    pub(super) token_life: Option<u64>,
    /// What comes with the table.
    pub(super) config: Value,
}

#[derive(Clone)]
pub(super) struct Stub {
    inner: Arc<Mutex<Inner>>,
    pub(super) url: String,
}

impl Stub {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stub = Self { inner: Arc::default(), url };
        let router = Router::new().fallback(serve).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stub
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn spec(&self, auth: CatalogAuth) -> RestCatalog {
        RestCatalog {
            uri: self.url.clone(),
            warehouse: Some("main".to_owned()),
            prefix: None,
            namespace: vec!["shop".to_owned()],
            table: "orders".to_owned(),
            auth,
            tls: Default::default(),
            vended_credentials: false,
        }
    }

    pub(super) fn oauth2(&self) -> CatalogAuth {
        let secret = |text: &str| Secret::new(text.to_owned());
        CatalogAuth::OAuth2 {
            token_url: None,
            client_id: secret("id"),
            client_secret: secret("hunter2"),
            scope: None,
        }
    }

    pub(super) fn metadata(&self) -> TableMetadata {
        self.with(|inner| inner.table.clone().unwrap().1)
    }

    pub(super) fn commits(&self) -> usize {
        let is_commit =
            |(method, path): &&(Method, String)| *method == Method::POST && path.ends_with("/orders");
        self.with(|inner| inner.requests.iter().filter(is_commit).count())
    }
}

impl Inner {
    fn answer(&self, metadata: &TableMetadata) -> Response {
        let number = self.table.as_ref().map_or(0, |(number, _)| *number);
        let location = format!("{}/metadata/{number:05}-x.metadata.json", metadata.location());
        let body = json!({"metadata-location": location, "metadata": metadata, "config": self.config});
        (StatusCode::OK, body.to_string()).into_response()
    }

    fn commit(&mut self, body: &[u8]) -> Result<(), (u16, &'static str)> {
        #[derive(Deserialize)]
        struct Commit {
            requirements: Vec<TableRequirement>,
            updates: Vec<TableUpdate>,
        }
        let commit: Commit = serde_json::from_slice(body).unwrap();
        let current = self.table.as_ref().map(|(_, metadata)| metadata);
        for requirement in &commit.requirements {
            requirement.check(current).map_err(|_| (409, "CommitFailedException"))?;
        }
        let number = self.table.as_ref().map_or(0, |(number, _)| *number + 1);
        let base = current.or(self.staged.as_ref()).ok_or((404, "NoSuchTableException"))?.clone();
        let mut builder = base.into_builder(current.map(|_| format!("s3://x/{number}.metadata.json")));
        for update in commit.updates {
            builder = update.apply(builder).map_err(|_| (400, "BadRequestException"))?;
        }
        let built = builder.build().map_err(|_| (400, "BadRequestException"))?;
        self.table = Some((number, built.metadata));
        Ok(())
    }

    /// Another program's snapshot, of the files that are there. False: there is no snapshot yet.
    pub(super) fn foreign(&mut self) -> bool {
        let current = self.table.as_ref().and_then(|(_, metadata)| metadata.current_snapshot());
        current.map(|current| current.manifest_list().to_owned()).is_some_and(|list| self.foreign_of(&list))
    }

    /// Another program's snapshot of the files of this manifest list.
    pub(super) fn foreign_of(&mut self, manifest_list: &str) -> bool {
        let Some((number, metadata)) = self.table.clone() else { return false };
        let Some(current) = metadata.current_snapshot() else { return false };
        let id = current.snapshot_id() ^ 1;
        let files = current.summary().additional_properties.get("total-data-files");
        let snapshot = json!({
            "snapshot-id": id,
            "parent-snapshot-id": current.snapshot_id(),
            "sequence-number": metadata.last_sequence_number() + 1,
            "timestamp-ms": current.timestamp_ms() + 1,
            "manifest-list": manifest_list,
            "schema-id": metadata.current_schema_id(),
            "summary": {"operation": "replace", "total-data-files": files},
        });
        let update: TableUpdate =
            serde_json::from_value(json!({"action": "add-snapshot", "snapshot": snapshot})).unwrap();
        let retention = SnapshotRetention::branch(None, None, None);
        let builder = metadata.into_builder(Some(format!("s3://x/{number}")));
        let builder = update.apply(builder).unwrap();
        let builder = builder.set_ref("main", SnapshotReference::new(id, retention)).unwrap();
        self.table = Some((number + 1, builder.build().unwrap().metadata));
        true
    }

    fn stage(&mut self, body: &[u8]) -> TableMetadata {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Creation {
            location: String,
            schema: Schema,
            partition_spec: Option<UnboundPartitionSpec>,
            write_order: Option<SortOrder>,
            properties: HashMap<String, String>,
            stage_create: bool,
        }
        let creation: Creation = serde_json::from_slice(body).unwrap();
        assert!(creation.stage_create);
        let spec = creation.partition_spec.unwrap_or_default();
        let order = creation.write_order.unwrap_or_else(SortOrder::unsorted_order);
        let (location, properties) = (creation.location, creation.properties);
        let version = FormatVersion::V2;
        let builder =
            TableMetadataBuilder::new(creation.schema, spec, order, location, version, properties).unwrap();
        let metadata = builder.build().unwrap().metadata;
        self.staged = Some(metadata.clone());
        metadata
    }
}

fn refused(code: u16, kind: &str) -> Response {
    let body = json!({"error": {"message": "hunter2 was here", "type": kind, "code": code}});
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

/// The connection ends in the midst of the answer.
fn broken() -> Response {
    let cut = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Response::new(Body::from_stream(cut))
}

async fn serve(State(stub): State<Stub>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let path = parts.uri.path().to_owned();
    stub.with(|inner| {
        inner.requests.push((parts.method.clone(), path.clone()));
        answer(inner, &parts.method, &path, &parts.headers, &body)
    })
}

fn answer(inner: &mut Inner, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    if path == "/v1/oauth/tokens" {
        let text = String::from_utf8_lossy(body);
        if !text.contains("grant_type=client_credentials") || !text.contains("client_secret=hunter2") {
            return refused(401, "NotAuthorizedException");
        }
        inner.tokens += 1;
        let token = format!("token-{}", inner.tokens);
        return json!({"access_token": token, "expires_in": inner.token_life}).to_string().into_response();
    }
    if inner.token_life.is_some() {
        let wanted = format!("Bearer token-{}", inner.tokens);
        if headers.get("authorization").is_none_or(|value| value != wanted.as_str()) {
            return refused(401, "NotAuthorizedException");
        }
    }
    match (method, path) {
        (&Method::GET, "/v1/config") => {
            json!({"defaults": {}, "overrides": {"prefix": "a/b"}}).to_string().into_response()
        }
        (&Method::POST, "/v1/a/b/namespaces") => {
            let body: Value = serde_json::from_slice(body).unwrap();
            inner.namespaces.push(body["namespace"].to_string());
            StatusCode::OK.into_response()
        }
        (&Method::POST, "/v1/a/b/namespaces/shop/tables") => {
            if inner.namespaces.is_empty() {
                return refused(404, "NoSuchNamespaceException");
            }
            if inner.table.is_some() {
                return refused(409, "AlreadyExistsException");
            }
            let staged = inner.stage(body);
            inner.answer(&staged)
        }
        (&Method::GET, "/v1/a/b/namespaces/shop/tables/orders") => match &inner.table {
            Some((_, metadata)) => inner.answer(metadata),
            None => refused(404, "NoSuchTableException"),
        },
        (&Method::POST, "/v1/a/b/namespaces/shop/tables/orders") => commit(inner, body),
        _ => refused(404, "NotHere"),
    }
}

fn commit(inner: &mut Inner, body: &[u8]) -> Response {
    let fault = inner.faults.pop_front();
    match fault {
        Some(Fault::Broken) => return broken(),
        Some(Fault::Failed(false)) => return refused(503, "ServiceUnavailableException"),
        Some(Fault::Race) => {
            inner.foreign();
        }
        Some(Fault::Stale) if inner.foreign() => return refused(400, "ValidationException"),
        _ => {}
    }
    if let Err((code, kind)) = inner.commit(body) {
        return refused(code, kind);
    }
    match fault {
        Some(Fault::Lost) => broken(),
        Some(Fault::Failed(true)) => refused(500, "InternalServerError"),
        _ => {
            let (_, metadata) = inner.table.clone().unwrap();
            inner.answer(&metadata)
        }
    }
}
