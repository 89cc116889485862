//! What lies in the store, with dates of the simulation's clock. Nothing here waits or fails.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, TryStreamExt};
use object_store::{
    GetOptions, GetResult, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

use crate::scenario::Mutation;

#[derive(Debug)]
pub(crate) struct Objects {
    inner: InMemory,
    dates: BTreeMap<Path, i64>,
    mutation: Option<Mutation>,
}

impl Objects {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self { inner: InMemory::new(), dates: BTreeMap::new(), mutation }
    }

    pub(crate) fn put(
        &mut self,
        path: &Path,
        bytes: Bytes,
        mut options: PutOptions,
        now_ms: i64,
    ) -> Result<PutResult> {
        if self.mutation == Some(Mutation::ConditionsIgnored) {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(path, PutPayload::from_bytes(bytes), options);
        let result = put.now_or_never().unwrap()?;
        self.dates.insert(path.clone(), now_ms);
        if self.mutation == Some(Mutation::WritesLost) && path.as_ref().ends_with("7.parquet") {
            self.delete(path)?;
        }
        Ok(result)
    }

    pub(crate) fn get(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(path, options).now_or_never().unwrap()?;
        result.meta.last_modified = self.date(path);
        Ok(result)
    }

    pub(crate) fn delete(&mut self, path: &Path) -> Result<()> {
        if self.dates.remove(path).is_none() {
            let source = "it is not there".into();
            return Err(object_store::Error::NotFound { path: path.to_string(), source });
        }
        self.inner.delete(path).now_or_never().unwrap()
    }

    pub(crate) fn list(&self, prefix: Option<&Path>) -> Vec<ObjectMeta> {
        let mut all: Vec<ObjectMeta> = self.inner.list(prefix).try_collect().now_or_never().unwrap().unwrap();
        all.sort_by(|a, b| a.location.cmp(&b.location));
        for meta in &mut all {
            meta.last_modified = self.date(&meta.location);
        }
        all
    }

    pub(crate) fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).now_or_never().unwrap()?;
        for meta in &mut listed.objects {
            meta.last_modified = self.date(&meta.location);
        }
        Ok(listed)
    }

    /// The bytes at a path, for checks.
    pub(crate) fn bytes(&self, path: &str) -> Option<Bytes> {
        let result = self.inner.get(&Path::from(path)).now_or_never().unwrap().ok()?;
        result.bytes().now_or_never().unwrap().ok()
    }

    pub(crate) fn is_there(&self, path: &str) -> bool {
        self.dates.contains_key(&Path::from(path))
    }

    /// When the object was written, truly.
    pub(crate) fn modified_ms(&self, path: &Path) -> Option<i64> {
        self.dates.get(path).copied()
    }

    /// Paths below a folder, for checks.
    pub(crate) fn names<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.dates.keys().map(AsRef::as_ref).filter(move |path: &&str| path.starts_with(folder))
    }

    /// The date as the store tells it.
    fn date(&self, path: &Path) -> DateTime<Utc> {
        let mut ms = self.dates.get(path).copied().unwrap_or_default();
        if self.mutation == Some(Mutation::DatesLost) && path.as_ref().ends_with(".parquet") {
            ms = 0;
        }
        DateTime::from_timestamp_millis(ms).unwrap()
    }
}
