//! A registry with fixed answers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use siltstone_protocol::ErrorCode;

use super::{RegisteredSchema, SchemaRegistry};
use crate::error::IngestError;

/// Schemas in memory, for tests and for specs that carry their schema.
#[derive(Debug, Default)]
pub struct FixedRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<u32, RegisteredSchema>,
    latest: HashMap<String, u32>,
    outage: bool,
    requests: u64,
}

impl FixedRegistry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a schema, which becomes the latest of `subject`.
    pub fn put(&self, subject: &str, schema: RegisteredSchema) {
        let mut inner = self.lock();
        inner.latest.insert(subject.to_owned(), schema.id);
        inner.by_id.insert(schema.id, schema);
    }

    /// While true, every request fails with `Unavailable`.
    pub fn set_outage(&self, outage: bool) {
        self.lock().outage = outage;
    }

    /// Requests answered or failed so far.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn answer(
        &mut self,
        what: String,
        find: impl Fn(&Self) -> Option<u32>,
    ) -> Result<RegisteredSchema, IngestError> {
        self.requests += 1;
        if self.outage {
            return Err(IngestError::unavailable("the fixed schema registry", "an outage is set"));
        }
        find(self).and_then(|id| self.by_id.get(&id)).cloned().ok_or_else(|| {
            let (code, check) = (ErrorCode::SchemaNotFound, "add it to the fixed registry".to_owned());
            IngestError::NotFound { code, what, check }
        })
    }
}

#[async_trait]
impl SchemaRegistry for FixedRegistry {
    async fn schema_by_id(&self, id: u32) -> Result<RegisteredSchema, IngestError> {
        self.lock().answer(format!("schema id {id}"), |_| Some(id))
    }

    async fn latest(&self, subject: &str) -> Result<RegisteredSchema, IngestError> {
        self.lock().answer(format!("subject {subject}"), |inner| inner.latest.get(subject).copied())
    }
}
