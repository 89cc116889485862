//! One table of a catalog.
//!
//! Creation: the catalog is asked to stage it (which gives the table its UUID and shows whether the catalog takes
//! the location), then a commit with `assert-create` brings every layout under its own id. A plain creation would
//! give columns, specs and orders ids of the catalog's own.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use siltstone_datafile::Host;
use siltstone_protocol::ErrorCode;
use siltstone_spec::RestCatalog;

use super::{
    change::{change, create, stage},
    client::{Ask, Below, Client},
    wire::TableAnswer,
};
use crate::{
    error::{CatalogFault, CatalogFaultCode as Code, LakeError},
    iceberg::metadata::Metadata,
};

const ATTEMPTS_MAX: u32 = 5;

/// A table in a catalog. Cheap to share; the connection, the token and the configuration are common to all who do.
pub struct RestTable {
    client: Client,
    namespace: Vec<String>,
    table: String,
    /// `namespace.table`, for messages.
    name: String,
    pub(super) location: String,
}

/// A table as the catalog has it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// URL of the metadata file: another one, another state.
    pub(crate) url: String,
    pub(crate) metadata: Metadata,
}

/// What a draft was built upon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) url: &'a str,
    pub(crate) metadata: &'a Metadata,
}

/// What became of a table that was known.
#[derive(Debug)]
pub(crate) enum Since {
    Same,
    /// It is this now; `None`: it is gone.
    Changed(Option<Box<Loaded>>),
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is in the table, which is now this.
    Yes(Box<Loaded>),
    /// Somebody else was first.
    Conflict,
    /// It may still land. Whoever looks again finds out.
    Unknown(CatalogFault),
}

impl fmt::Debug for RestTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestTable")
            .field("catalog", &self.client.name())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RestTable {
    /// The table at `location` (as readers name it) in this catalog. No request is made.
    ///
    /// # Errors
    /// `Invalid`: a setting that cannot be used.
    pub fn new(catalog: &RestCatalog, location: &str, host: Host) -> Result<Arc<Self>, LakeError> {
        Ok(Arc::new(Self {
            client: Client::new(catalog, host)?,
            namespace: catalog.namespace.clone(),
            table: catalog.table.clone(),
            name: catalog.identifier(),
            location: location.trim_end_matches('/').to_owned(),
        }))
    }

    /// `namespace.table`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the catalog for the table, to find out that it answers, and makes the table's namespace when there is
    /// none. Call it before anything is written to the table's folder: some catalogs take a folder that is there for
    /// a namespace of another's.
    ///
    /// # Errors
    /// `Invalid`: it refuses the credentials, has no such warehouse, or is no catalog. `Unavailable`: no answer.
    pub async fn prepare(&self) -> Result<(), LakeError> {
        let prepared = match self.load_body().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => self.create_namespace().await,
            Err(error) => Err(error),
        };
        match prepared {
            Err(LakeError::Catalog { catalog, table, fault, .. }) if fault.is_refusal() => {
                let code = fault.error_code();
                Err(LakeError::invalid(format_args!("catalog {catalog}, table {table}"), fault).coded(code))
            }
            prepared => prepared,
        }
    }

    /// `None`: there is no such table.
    pub(crate) async fn load(&self) -> Result<Option<Loaded>, LakeError> {
        match self.load_body().await? {
            Some(body) => self.read(&body).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the table is still the one of this metadata file. Metadata is read only when it is another.
    pub(crate) async fn since(&self, url: &str) -> Result<Since, LakeError> {
        let Some(body) = self.load_body().await? else { return Ok(Since::Changed(None)) };
        let same = serde_json::from_slice::<TableAnswer<'_>>(&body)
            .is_ok_and(|answer| answer.metadata_location.as_deref() == Some(url));
        if same {
            return Ok(Since::Same);
        }
        self.read(&body).map(|loaded| Since::Changed(Some(Box::new(loaded))))
    }

    async fn load_body(&self) -> Result<Option<Bytes>, LakeError> {
        let path = Below::Table(&self.namespace, &self.table);
        let ask = Ask { method: Method::GET, path, body: None, operation: "load" };
        match self.client.send(&ask).await {
            Ok(body) => Ok(Some(body)),
            Err(fault) if fault.code == Code::NotFound && is_absence(&fault) => Ok(None),
            Err(fault) => Err(self.failed(ask.operation, fault)),
        }
    }

    /// The answer that holds the table's configuration; of a staged creation when there is no table yet.
    pub(super) async fn configuration(&self) -> Result<Bytes, LakeError> {
        if let Some(body) = self.load_body().await? {
            return Ok(body);
        }
        let body = json!({
            "name": self.table,
            "location": self.location,
            "schema": {"type": "struct", "schema-id": 0, "fields": []},
            "stage-create": true,
            "properties": {},
        });
        self.stage(&body).await
    }

    /// Commits `next`, which was drafted upon `base`; without a base, creates the table.
    pub(crate) async fn commit(
        &self,
        base: Option<Base<'_>>,
        next: &Metadata,
    ) -> Result<Committed, LakeError> {
        let body = match base {
            Some(base) => match change(base.metadata, next) {
                Some(body) => body,
                None => return self.found(base, next).await,
            },
            None => match self.staged(next).await? {
                Some((uuid, staged_ms)) => {
                    let mut next = next.clone();
                    next.date_from(staged_ms);
                    create(&next, &uuid)
                }
                None => return Ok(Committed::Conflict),
            },
        };
        let body = serde_json::to_vec(&body).map_err(|error| LakeError::json(&self.name, &error))?;
        let path = Below::Table(&self.namespace, &self.table);
        let ask = Ask { method: Method::POST, path, body: Some(body.into()), operation: "commit" };
        let mut last = CatalogFault::of(Code::Failed);
        for attempt in 0..ATTEMPTS_MAX {
            crate::crash_point!("rest.before_commit");
            let fault = match self.client.send(&ask).await {
                Ok(body) => match self.read(&body) {
                    Ok(loaded) => return self.checked(loaded, next),
                    // The answer is no table, although the commit is done.
                    Err(_) => CatalogFault::of(Code::Unreadable),
                },
                Err(fault) => fault,
            };
            crate::crash_point!("rest.before_read_back");
            // Whatever the answer was, the table says what happened.
            match self.load().await {
                Ok(Some(found)) if carries(base, &found, next) => return self.checked(found, next),
                Ok(found) => match fault.code {
                    Code::Conflict => return Ok(Committed::Conflict),
                    // What was built upon is gone or another.
                    _ if found.as_ref().map(|found| found.url.as_str()) != base.map(|base| base.url) => {
                        return Ok(Committed::Conflict);
                    }
                    _ if fault.is_doubtful() || fault.code == Code::Busy => {}
                    _ => return Err(self.failed(ask.operation, fault)),
                },
                Err(error) if !fault.is_doubtful() && fault.code != Code::Conflict => {
                    tracing::debug!(catalog = self.client.name(), %error, "table not loaded after a refusal");
                    return Err(self.failed(ask.operation, fault));
                }
                Err(_) => {}
            }
            // Sent again as it was: when the first one lands after all, this one's requirements fail.
            last = fault;
            self.client.backoff(attempt).await;
        }
        Ok(Committed::Unknown(last))
    }

    /// Nothing is to be changed: what the catalog has is what was wanted.
    async fn found(&self, base: Base<'_>, next: &Metadata) -> Result<Committed, LakeError> {
        match self.load().await? {
            Some(found) if found.url == base.url => self.checked(found, next),
            _ => Ok(Committed::Conflict),
        }
    }

    /// Refuses a table that the catalog gave other ids.
    fn checked(&self, loaded: Loaded, next: &Metadata) -> Result<Committed, LakeError> {
        match loaded.metadata.has_layouts_of(next) {
            Ok(()) => Ok(Committed::Yes(Box::new(loaded))),
            Err(what) => Err(LakeError::invalid(
                format_args!("catalog {}, table {}", self.client.name(), self.name),
                format_args!(
                    "the catalog gave {what} another id than the ledger's, so the table cannot be kept in this catalog; \
                     drop it there without purging its files, and take the catalog out of the spec"
                ),
            ).coded(ErrorCode::CatalogTableRefused)),
        }
    }

    /// Stages the creation, which gives the table's UUID and the time of it. `None`: the table is there already.
    async fn staged(&self, next: &Metadata) -> Result<Option<(String, i64)>, LakeError> {
        let body = match self.stage(&stage(&self.table, next)).await {
            Ok(body) => body,
            Err(LakeError::Catalog { fault, .. }) if fault.code == Code::Conflict => return Ok(None),
            Err(error) => return Err(error),
        };
        let unreadable = |_| self.failed("create", CatalogFault::of(Code::Unreadable));
        let answer: TableAnswer<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
        let metadata: Value = serde_json::from_str(answer.metadata.get()).map_err(unreadable)?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        if text("location").map(|location| location.trim_end_matches('/')) != Some(next.location.as_str()) {
            return Err(LakeError::invalid(
                format_args!("catalog {}, table {}", self.client.name(), self.name),
                format_args!(
                    "the catalog does not take {} as the table's location; choose a destination, a namespace and a table \
                     name that it does",
                    next.location
                ),
            ).coded(ErrorCode::CatalogTableRefused));
        }
        let staged_ms = metadata.get("last-updated-ms").and_then(Value::as_i64).unwrap_or(0);
        let uuid = text("table-uuid").map(|uuid| (uuid.to_owned(), staged_ms));
        uuid.map(Some).ok_or_else(|| self.failed("create", CatalogFault::of(Code::Unreadable)))
    }

    /// Stages a creation; makes the namespace when there is none.
    async fn stage(&self, body: &Value) -> Result<Bytes, LakeError> {
        let body = serde_json::to_vec(body).map_err(|error| LakeError::json(&self.name, &error))?;
        let path = Below::Tables(&self.namespace);
        let ask = Ask { method: Method::POST, path, body: Some(body.into()), operation: "create" };
        let mut namespaced = false;
        for attempt in 0.. {
            let fault = match self.client.send(&ask).await {
                Ok(body) => return Ok(body),
                Err(fault) => fault,
            };
            if fault.code == Code::NotFound && !namespaced {
                self.create_namespace().await?;
                namespaced = true;
            } else if fault.passes() && attempt < ATTEMPTS_MAX {
                // Staging changes nothing, so it may be done twice.
                self.client.backoff(attempt).await;
            } else {
                return Err(self.failed(ask.operation, fault));
            }
        }
        Err(LakeError::internal(&self.name, "no attempt was made"))
    }

    async fn create_namespace(&self) -> Result<(), LakeError> {
        for levels in 1..=self.namespace.len() {
            let body = json!({"namespace": self.namespace.get(..levels), "properties": {}});
            let body = Some(Bytes::from(body.to_string()));
            let ask =
                Ask { method: Method::POST, path: Below::Namespaces, body, operation: "create namespace of" };
            match self.client.send(&ask).await {
                Ok(_) => {}
                Err(fault) if fault.code == Code::Conflict => {}
                // It may be there, and another's to make.
                Err(fault) if fault.code == Code::Forbidden || levels < self.namespace.len() => {}
                Err(fault) => return Err(self.failed(ask.operation, fault)),
            }
        }
        Ok(())
    }

    fn read(&self, body: &[u8]) -> Result<Loaded, LakeError> {
        let subject = format!("catalog {}, table {}", self.client.name(), self.name);
        let answer: TableAnswer<'_> =
            serde_json::from_slice(body).map_err(|error| LakeError::json(&subject, &error))?;
        let metadata = Metadata::parse_served(&subject, answer.metadata.get().as_bytes())?;
        let url = answer.metadata_location;
        let url = url.ok_or_else(|| LakeError::data(&subject, "the catalog names no metadata file"))?;
        Ok(Loaded { url, metadata })
    }

    /// The error of a commit that may have landed or not.
    pub(crate) fn unknown(&self, fault: CatalogFault) -> LakeError {
        self.failed("commit, whose outcome is unknown, to", fault)
    }

    pub(super) fn failed(&self, operation: &'static str, fault: CatalogFault) -> LakeError {
        LakeError::Catalog {
            catalog: self.client.name().to_owned(),
            operation,
            table: self.name.clone(),
            fault,
        }
    }
}

/// True when the table that was found holds what was committed.
fn carries(base: Option<Base<'_>>, found: &Loaded, next: &Metadata) -> bool {
    let known = |id: i64| base.is_some_and(|base| base.metadata.has_snapshot(id));
    let newest = next.snapshots.iter().rev().find(|snapshot| !known(snapshot.snapshot_id));
    match newest {
        Some(newest) => found.metadata.has_snapshot(newest.snapshot_id),
        None => base.map(|base| base.url) != Some(&found.url) && is_shown(found, next),
    }
}

/// True when nothing of `next`, which has no snapshot of its own, is missing.
fn is_shown(found: &Loaded, next: &Metadata) -> bool {
    let metadata = &found.metadata;
    let removed = metadata.snapshots.iter().all(|snapshot| {
        next.has_snapshot(snapshot.snapshot_id) || snapshot.timestamp_ms > next.last_updated_ms
    });
    removed
        && metadata.properties == next.properties
        && metadata.current_schema_id == next.current_schema_id
        && metadata.default_spec_id == next.default_spec_id
        && metadata.default_sort_order_id == next.default_sort_order_id
}

/// A 404 that says that the table is not there, and not that the address is wrong.
fn is_absence(fault: &CatalogFault) -> bool {
    let kind = fault.kind.as_deref().unwrap_or_default();
    kind.contains("NoSuchTable") || kind.contains("NoSuchNamespace") || kind.contains("NotFound")
}
