//! A registry over HTTP, with caches.
//!
//! 1. `schema_by_id`: a schema id never changes its meaning, so an answer is kept until the cache is full. Callers who
//!    want the same id at once wait for one request.
//! 2. `latest`: kept for a short time.
//! 3. References are resolved depth-first, each once, with bounds on depth, count and size; a cycle is refused.
//!
//! Failures are never cached.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use siltstone_protocol::ErrorCode;
use siltstone_spec::Registry;
use tokio::sync::Mutex;

use super::{
    RegisteredSchema, SchemaReference, SchemaRegistry,
    client::RegistryClient,
    wire::{ReferenceAnswer, SchemaAnswer},
};
use crate::error::IngestError;

/// Bounds of what a registry may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// One request.
    pub timeout: Duration,
    /// Passes over all URLs before the registry counts as unavailable.
    pub rounds: u32,
    /// First pause between them; doubles.
    pub pause: Duration,
    /// One answer.
    pub body_bytes: usize,
    /// A schema with all it refers to.
    pub references: usize,
    pub depth: usize,
    /// Schemas kept by id.
    pub cached: usize,
    /// How long a latest version is believed.
    pub latest_for: Duration,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            rounds: 4,
            pause: Duration::from_millis(250),
            body_bytes: 4 << 20,
            references: 200,
            depth: 32,
            cached: 10_000,
            latest_for: Duration::from_secs(30),
        }
    }
}

/// A schema registry with Confluent's API.
pub struct HttpRegistry {
    client: RegistryClient,
    limits: RegistryLimits,
    by_id: RwLock<HashMap<u32, Arc<RegisteredSchema>>>,
    latest: RwLock<HashMap<String, (Instant, Arc<RegisteredSchema>)>>,
    /// One lock per id or subject being asked for; gone when nobody waits.
    flights: std::sync::Mutex<HashMap<Key, Arc<Mutex<()>>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Id(u32),
    Latest(String),
}

impl fmt::Debug for HttpRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRegistry").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl HttpRegistry {
    pub fn new(registry: &Registry) -> Result<Self, IngestError> {
        Self::with_limits(registry, RegistryLimits::default())
    }

    pub fn with_limits(registry: &Registry, limits: RegistryLimits) -> Result<Self, IngestError> {
        Ok(Self {
            client: RegistryClient::new(registry, limits)?,
            limits,
            by_id: RwLock::default(),
            latest: RwLock::default(),
            flights: std::sync::Mutex::default(),
        })
    }

    fn cached_id(&self, id: u32) -> Option<RegisteredSchema> {
        let cache = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        cache.get(&id).map(|schema| schema.as_ref().clone())
    }

    fn keep_id(&self, schema: &Arc<RegisteredSchema>) {
        let mut cache = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= self.limits.cached {
            // Ids are few in practice; past the bound starting over is simplest, and only costs requests.
            cache.clear();
        }
        cache.insert(schema.id, Arc::clone(schema));
    }

    fn cached_latest(&self, subject: &str) -> Option<RegisteredSchema> {
        let cache = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        let (at, schema) = cache.get(subject)?;
        (at.elapsed() < self.limits.latest_for).then(|| schema.as_ref().clone())
    }

    fn keep_latest(&self, subject: &str, schema: Arc<RegisteredSchema>) {
        let mut cache = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= self.limits.cached {
            cache.clear();
        }
        cache.insert(subject.to_owned(), (Instant::now(), schema));
    }

    fn flight(&self, key: &Key) -> Arc<Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds any more are dropped here; their number is bounded by the callers waiting.
        flights.retain(|other, lock| other == key || Arc::strong_count(lock) > 1);
        Arc::clone(flights.entry(key.clone()).or_default())
    }

    async fn fetch_id(&self, id: u32) -> Result<Arc<RegisteredSchema>, IngestError> {
        let what = format!("schema id {id}");
        let body = self.client.get(&["schemas", "ids", &id.to_string()], &what).await?;
        let answer = SchemaAnswer::read(&body, &what)?;
        let schema = Arc::new(self.complete(id, answer, &what).await?);
        self.keep_id(&schema);
        Ok(schema)
    }

    async fn fetch_latest(&self, subject: &str) -> Result<Arc<RegisteredSchema>, IngestError> {
        let what = format!("the latest version of subject {subject}");
        let body = self.client.get(&["subjects", subject, "versions", "latest"], &what).await?;
        let answer = SchemaAnswer::read(&body, &what)?;
        let no_id = || {
            let why = "the answer has no schema id; check schema_registry.url";
            IngestError::invalid(&what, why).coded(ErrorCode::RegistrySettingRefused)
        };
        let id = answer.id.ok_or_else(no_id)?;
        let schema = Arc::new(self.complete(id, answer, &what).await?);
        self.keep_id(&schema);
        self.keep_latest(subject, Arc::clone(&schema));
        Ok(schema)
    }

    async fn complete(
        &self,
        id: u32,
        answer: SchemaAnswer,
        what: &str,
    ) -> Result<RegisteredSchema, IngestError> {
        let format = answer.format(what)?;
        let mut walk = Walk { what, bytes: answer.schema.len(), ..Walk::default() };
        self.resolve(answer.references.unwrap_or_default(), &mut walk).await?;
        Ok(RegisteredSchema { id, format, schema: answer.schema, references: walk.found })
    }

    fn resolve<'a>(
        &'a self,
        references: Vec<ReferenceAnswer>,
        walk: &'a mut Walk<'_>,
    ) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move {
            for reference in references {
                let version = (reference.subject.clone(), reference.version);
                if walk.open.contains(&version) {
                    return Err(IngestError::schema_refused(walk.what, "its references form a cycle"));
                }
                if !walk.seen.insert((reference.name.clone(), version.clone())) {
                    continue;
                }
                if walk.open.len() >= self.limits.depth || walk.seen.len() > self.limits.references {
                    let why = format!(
                        "its references are more than {} or deeper than {}",
                        self.limits.references, self.limits.depth
                    );
                    return Err(IngestError::schema_refused(walk.what, why));
                }
                let what = format!("subject {}, version {}", reference.subject, reference.version);
                let path = ["subjects", &reference.subject, "versions", &reference.version.to_string()];
                let answer = SchemaAnswer::read(&self.client.get(&path, &what).await?, &what)?;
                walk.bytes += answer.schema.len();
                if walk.bytes > self.limits.body_bytes {
                    let why =
                        format!("with its references it is larger than {} bytes", self.limits.body_bytes);
                    return Err(IngestError::schema_refused(walk.what, why));
                }
                walk.open.push(version);
                self.resolve(answer.references.unwrap_or_default(), walk).await?;
                walk.open.pop();
                walk.found.push(SchemaReference {
                    name: reference.name,
                    subject: reference.subject,
                    version: reference.version,
                    schema: answer.schema,
                });
            }
            Ok(())
        })
    }
}

/// One resolution of references.
#[derive(Default)]
struct Walk<'a> {
    what: &'a str,
    found: Vec<SchemaReference>,
    seen: HashSet<(String, (String, u32))>,
    /// From the schema down to the reference at hand.
    open: Vec<(String, u32)>,
    bytes: usize,
}

#[async_trait]
impl SchemaRegistry for HttpRegistry {
    async fn schema_by_id(&self, id: u32) -> Result<RegisteredSchema, IngestError> {
        if let Some(schema) = self.cached_id(id) {
            return Ok(schema);
        }
        let flight = self.flight(&Key::Id(id));
        let _turn = flight.lock().await;
        match self.cached_id(id) {
            Some(schema) => Ok(schema),
            None => self.fetch_id(id).await.map(Arc::unwrap_or_clone),
        }
    }

    async fn latest(&self, subject: &str) -> Result<RegisteredSchema, IngestError> {
        if let Some(schema) = self.cached_latest(subject) {
            return Ok(schema);
        }
        let flight = self.flight(&Key::Latest(subject.to_owned()));
        let _turn = flight.lock().await;
        match self.cached_latest(subject) {
            Some(schema) => Ok(schema),
            None => self.fetch_latest(subject).await.map(Arc::unwrap_or_clone),
        }
    }
}
