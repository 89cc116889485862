//! A store that fails on demand and counts what is asked of it.
//!
//! Faults are chosen by the number of the operation, so a test can go through all of them one by one.
//! Each stands for something that real stores do: answer with an error, perform and lose the reply,
//! hang, or ignore conditions.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, an error is returned.
    Refuse,
    /// The operation is done, an error is returned.
    LoseReply,
    /// Nothing is done, and no answer ever comes: the caller is expected to be dropped.
    Hang,
    /// The operation is done, and no answer ever comes.
    DoAndHang,
    /// Puts overwrite whatever condition they name.
    IgnoreConditions,
}

/// Which operations count and fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Puts,
    Everything,
}

#[derive(Debug)]
struct Plan {
    always: Option<Fault>,
    at: Vec<(u64, Fault)>,
    scope: Scope,
}

/// Wraps a store.
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
    /// Operations seen in scope, since the plan was set.
    seen: AtomicU64,
    operations: AtomicU64,
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let plan = Plan { always: None, at: Vec::new(), scope: Scope::Everything };
        Self { inner, plan: Mutex::new(plan), seen: AtomicU64::new(0), operations: AtomicU64::new(0) }
    }

    /// Every operation goes wrong like this.
    pub fn always(&self, fault: Fault) {
        self.plan().always = Some(fault);
    }

    /// The operation after `skip` more in scope goes wrong.
    pub fn after(&self, skip: u64, fault: Fault, scope: Scope) {
        self.seen.store(0, Ordering::SeqCst);
        *self.plan() = Plan { always: None, at: vec![(skip, fault)], scope };
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        *self.plan() = Plan { always: None, at: Vec::new(), scope: Scope::Everything };
    }

    /// Operations in scope since the plan was set.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// All operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, is_put: bool) -> Option<Fault> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        let plan = self.plan();
        if plan.scope == Scope::Puts && !is_put {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let planned = plan.at.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        planned.or(plan.always)
    }

    /// Before a read: a fault is an error or silence.
    async fn gate(&self) -> Result<()> {
        match self.next_fault(false) {
            None | Some(Fault::IgnoreConditions) => Ok(()),
            Some(Fault::Refuse | Fault::LoseReply) => Err(injected()),
            Some(Fault::Hang | Fault::DoAndHang) => std::future::pending().await,
        }
    }
}

fn injected() -> object_store::Error {
    object_store::Error::Generic { store: "FaultStore", source: "injected fault".into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        match self.next_fault(true) {
            None => self.inner.put_opts(path, payload, options).await,
            Some(Fault::Refuse) => Err(injected()),
            Some(Fault::LoseReply) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(injected())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::DoAndHang) => {
                self.inner.put_opts(path, payload, options).await?;
                std::future::pending().await
            }
            Some(Fault::IgnoreConditions) => {
                options.mode = PutMode::Overwrite;
                self.inner.put_opts(path, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.gate().await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.gate().await?;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.gate().await?;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.next_fault(false) {
            None | Some(Fault::IgnoreConditions) => self.inner.delete_stream(paths),
            Some(Fault::Refuse) => futures::stream::iter([Err(injected())]).boxed(),
            Some(Fault::LoseReply) => {
                let deletions = self.inner.delete_stream(paths);
                deletions.map(|_| Err(injected())).boxed()
            }
            Some(Fault::Hang | Fault::DoAndHang) => futures::stream::pending().boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next_fault(false) {
            None | Some(Fault::IgnoreConditions) => self.inner.list(prefix),
            Some(Fault::Refuse | Fault::LoseReply) => futures::stream::iter([Err(injected())]).boxed(),
            Some(Fault::Hang | Fault::DoAndHang) => futures::stream::pending().boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next_fault(false) {
            None | Some(Fault::IgnoreConditions) => self.inner.list_with_offset(prefix, offset),
            Some(Fault::Refuse | Fault::LoseReply) => futures::stream::iter([Err(injected())]).boxed(),
            Some(Fault::Hang | Fault::DoAndHang) => futures::stream::pending().boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.gate().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.gate().await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: object_store::RenameOptions) -> Result<()> {
        self.gate().await?;
        self.inner.rename_opts(from, to, options).await
    }
}
